"""`connect URL --listen`: the local HTTP endpoint of one attested server, for hosts that want a URL."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio

from attestable_mcp.cli import text_connect as text
from attestable_mcp.cli.command import Arguments, Parser, UsageError, existing_path, listen_address
from attestable_mcp.cli.logs import TALK
from attestable_mcp.cli.terminal import Terminal
from attestable_mcp.cli.watch import health_of

if TYPE_CHECKING:
    import httpx2

    from attestable_mcp.tls.admission import AttestedPeer, Gate

_DRAIN_SECONDS = 3


def add_listen(parser: Parser) -> None:
    """`--listen`, and what goes with it."""
    group = parser.add_argument_group(text.GROUP_LISTEN)
    group.add_argument("--listen", metavar="HOST:PORT", type=listen_address, help=text.HELP_CONNECT_LISTEN)
    group.add_argument("--token-file", metavar="FILE", type=existing_path, help=text.HELP_TOKEN_FILE)
    group.add_argument("--allow-origin", metavar="ORIGIN", action="append", default=[], help=text.HELP_ALLOW_ORIGIN)
    group.add_argument("--danger-listen-beyond-this-machine", action="store_true", help=text.HELP_LISTEN_BEYOND)


def check_listen(arguments: Arguments) -> None:
    """Options that only go with `--listen`, and an address of this machine only. Raises: UsageError."""
    if arguments.listen is None:
        for name in ("health", "token_file", "allow_origin", "danger_listen_beyond_this_machine"):
            if getattr(arguments, name):
                raise UsageError(text.only_with(f"--{name.replace('_', '-')}", "--listen"))
        return
    from attestable_mcp.mcp.target import is_loopback  # brings the SDK, which a bridge on stdio must not wait for

    if not is_loopback(arguments.listen[0]) and not arguments.danger_listen_beyond_this_machine:
        raise UsageError(text.beyond_this_machine(arguments.listen[0]), hint=text.BEYOND_HINT)


async def listen(
    url: str,
    transport: httpx2.AsyncBaseTransport,
    gate: Gate,
    arguments: Arguments,
    terminal: Terminal,
    *,
    say: Callable[[str], None],
    met: Callable[[AttestedPeer], None],
    asked: anyio.Event,
) -> None:
    """Serve until `asked`; then standing streams end, and requests under way have a few seconds."""
    from attestable_mcp.mcp.drain import Drain
    from attestable_mcp.mcp.guard import names_for
    from attestable_mcp.mcp.local import AttestedRelay, kept_token, local_app, new_token
    from attestable_mcp.tls.listening import PlainServer

    host, port = arguments.listen
    token = kept_token(arguments.token_file) if arguments.token_file else new_token()
    parts = urlsplit(url)
    path = parts.path or "/"
    names = names_for(host, (), arguments.allow_origin, scheme="http")
    async with AttestedRelay(url, transport, say=say, met=met) as relay:
        drain = Drain(local_app(relay, token=token, path=path, names=names, newest=lambda: gate.newest))
        async with health_of(arguments) as health:
            async with PlainServer(drain, host, port, drain_seconds=_DRAIN_SECONDS) as server:
                if health is not None:
                    health.ready()
                _ready(f"{server.url}/{token}{path}{'?' + parts.query if parts.query else ''}", url, terminal)
                await asked.wait()
                if health is not None:
                    health.drain()
                drain.stop()


def _ready(local: str, url: str, terminal: Terminal) -> None:
    if terminal.json:
        terminal.data(json.dumps({"url": local, "server": url}))
    else:
        terminal.data(local)
        TALK.info(text.listening(url))
