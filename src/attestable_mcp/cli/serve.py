"""`serve TARGET`: an MCP server over TLS 1.3 with evidence, until a signal asks it to end."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import anyio

from attestable_mcp.cli import text, text_connect, text_offer, text_owner
from attestable_mcp.cli.advice import advice
from attestable_mcp.cli.command import Arguments, Parser, UsageError, existing_path, host_name, listen_address, seconds
from attestable_mcp.cli.logs import TALK, add_logs, start_log
from attestable_mcp.cli.telemetry import telemetry
from attestable_mcp.cli.terminal import Terminal
from attestable_mcp.cli.watch import add_health, health_of
from attestable_mcp.limits import LIMITS
from attestable_mcp.tls.address import in_url

if TYPE_CHECKING:
    from attestable_mcp.mcp.serve import RunningServer
    from attestable_mcp.tls.deployment import DeploymentHolder

Target = str | list[str]
DRAIN_SECONDS = 10.0


def configure(parser: Parser) -> None:
    """`serve TARGET [--listen HOST:PORT] [--attester NAME] [-- COMMAND ARGS...]`."""
    parser.usage = f"{text.PROGRAM} serve [TARGET] [--listen HOST:PORT] [--attester NAME] [--json] [-- COMMAND ARGS...]"
    parser.add_argument("target", metavar="TARGET", nargs="?", help=text.HELP_TARGET)
    parser.add_argument(
        "--listen", metavar="HOST:PORT", type=listen_address, default=("127.0.0.1", 0), help=text.HELP_LISTEN
    )
    parser.add_argument("--attester", metavar="NAME", default="auto", help=text.HELP_ATTESTER)
    parser.add_argument("--staple", metavar="PATH", type=existing_path, help=text.HELP_STAPLE)
    parser.add_argument("--allow-env", metavar="NAME", action="append", default=[], help=text.HELP_ALLOW_ENV)
    add_deployment(parser)
    add_manifest(parser)
    parser.add_argument("--host", metavar="NAME", type=host_name, action="append", default=[], help=text.HELP_HOST)
    parser.add_argument("--drain", metavar="SECONDS", type=seconds, default=DRAIN_SECONDS, help=text_connect.HELP_DRAIN)
    add_health(parser)
    add_sessions(parser)
    add_logs(parser)


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Serve until SIGTERM or Ctrl-C, drain, and return 0."""
    target = target_of(arguments)
    start_log(arguments, terminal)
    with telemetry("attestable-mcp-serve"):
        anyio.run(_serve, target, arguments, terminal)
    return 0


def target_of(arguments: Arguments) -> Target:
    """`module:object` or an URL as a string, a command as a list. Raises: UsageError."""
    command: list[str] | None = arguments.command
    if command is not None and arguments.target:
        raise UsageError(text.BOTH_TARGETS, hint=text.see_help(f"{text.PROGRAM} serve"))
    if command:
        return command
    if not arguments.target:
        raise UsageError(text.NO_TARGET, hint=text.see_help(f"{text.PROGRAM} serve"))
    return str(arguments.target)


def add_sessions(parser: Parser) -> None:
    """`--max-sessions N`, `--session-idle SECONDS`."""
    group = parser.add_argument_group(text_connect.GROUP_SESSIONS)
    group.add_argument(
        "--max-sessions", metavar="N", type=_count, default=LIMITS.mcp_sessions, help=text_connect.HELP_MAX_SESSIONS
    )
    idle = LIMITS.mcp_session_idle_seconds
    group.add_argument(
        "--session-idle", metavar="SECONDS", type=seconds, default=idle, help=text_connect.HELP_SESSION_IDLE
    )


def _count(value: str) -> int:
    if not value.isascii() or not value.isdecimal() or not 0 < int(value[:7]) <= 100_000:
        raise argparse.ArgumentTypeError(text_connect.not_a_count(value))
    return int(value)


def add_deployment(parser: Parser) -> None:
    """`--owner PUB [--grant FILE] [--revocations FILE] [--deployment-request FILE]`."""
    group = parser.add_argument_group(text_owner.GROUP_DEPLOYMENT)
    group.add_argument("--owner", metavar="PUB", type=existing_path, help=text_owner.HELP_OWNER)
    group.add_argument("--grant", metavar="FILE", type=existing_path, help=text_owner.HELP_GRANT)
    group.add_argument("--revocations", metavar="FILE", type=existing_path, help=text_owner.HELP_STAPLED)
    group.add_argument("--clients-policy", metavar="FILE", type=existing_path, help=text_owner.HELP_CLIENTS)
    group.add_argument("--deployment-request", metavar="FILE", type=existing_path, help=text_owner.HELP_REQUEST)


def add_manifest(parser: Parser) -> None:
    """`--manifest FILE` or `--no-manifest`."""
    group = parser.add_argument_group(text_offer.GROUP_MANIFEST)
    either = group.add_mutually_exclusive_group()
    either.add_argument("--manifest", metavar="FILE", type=existing_path, help=text_offer.HELP_MANIFEST)
    either.add_argument("--no-manifest", action="store_true", help=text_offer.HELP_NO_MANIFEST)


def deployment_of(arguments: Arguments) -> DeploymentHolder | None:
    """What the deployment options ask for; None where no owner is named. Raises: UsageError, ConfigurationError."""
    if arguments.owner is None:
        if arguments.grant or arguments.revocations or arguments.deployment_request:
            raise UsageError(text_owner.NO_OWNER, hint=text.see_help(f"{text.PROGRAM} serve"))
        return None
    from attestable_mcp.cli.ownerkey import read_public
    from attestable_mcp.tls.deployment import DeploymentHolder

    return DeploymentHolder(
        read_public(arguments.owner),
        grant_file=arguments.grant,
        revocation_file=arguments.revocations,
        request_file=arguments.deployment_request,
    )


async def _serve(target: Target, arguments: Arguments, terminal: Terminal) -> None:
    from attestable_mcp.mcp.serve import serve
    from attestable_mcp.mcp.stdio import StdioOptions

    host, port = arguments.listen
    listen = f"{in_url(host)}:{port}"
    deployment = deployment_of(arguments)
    stdio = StdioOptions(max_sessions=arguments.max_sessions, session_idle_seconds=arguments.session_idle)
    asked = anyio.Event()
    with signals(asked):
        async with health_of(arguments) as health:
            async with serve(
                target,
                listen=listen,
                hosts=arguments.host,
                attester=arguments.attester,
                allow_env=arguments.allow_env,
                staple=arguments.staple,
                deployment=deployment,
                manifest=arguments.manifest or not arguments.no_manifest,
                clients=arguments.clients_policy,
                stdio=stdio,
                drain_seconds=math.ceil(arguments.drain),
            ) as running:
                if health is not None:
                    health.ready()
                _ready(running, terminal)
                for sentence in advice(running, deployment, arguments):
                    TALK.warning("%s", sentence)
                await asked.wait()
                if health is not None:
                    health.drain()
                TALK.info(text.DRAINING)


def _ready(running: RunningServer, terminal: Terminal) -> None:
    url, tee, spki = running.url, str(running.tee), running.spki_sha256
    if terminal.json:
        manifest = running.manifest.digest.hex() if running.manifest is not None else None
        terminal.emit({"url": url, "tee": tee, "spki_sha256": spki, "manifest": manifest})
    else:
        terminal.data(text.ready(url, tee, spki))


@contextlib.contextmanager
def signals(asked: anyio.Event) -> Iterator[None]:
    """The first SIGTERM or SIGINT sets the event; a second ends at once. Needs the main thread, as signals do."""
    loop = asyncio.get_running_loop()

    def stop(number: int, frame: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        loop.call_soon_threadsafe(asked.set)

    wanted = [signal.SIGINT, signal.SIGTERM]
    if sys.platform == "win32":
        wanted.append(signal.SIGBREAK)
    before = {number: signal.signal(number, stop) for number in wanted}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
