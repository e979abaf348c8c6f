"""`connect URL`: an MCP host on stdin and stdout, an attested server behind the URL."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from attestable_mcp.appraise.pins import COMPARED, NONE, Pin, short
from attestable_mcp.appraise.policy import Policy
from attestable_mcp.cli import text, text_pins
from attestable_mcp.cli.authorize import add_oauth, authorized, log_in, log_out, oauth_of
from attestable_mcp.cli.command import Arguments, Parser, seconds
from attestable_mcp.cli.gate import add_meeting, gate_of
from attestable_mcp.cli.listen import add_listen, check_listen, listen
from attestable_mcp.cli.logs import NOTICE, TALK, Log, add_logs, start_log
from attestable_mcp.cli.outbound import add_headers, headers_of
from attestable_mcp.cli.source import address
from attestable_mcp.cli.telemetry import telemetry
from attestable_mcp.cli.terminal import Terminal
from attestable_mcp.cli.trust import genuine_policy, named
from attestable_mcp.cli.watch import add_health
from attestable_mcp.errors import AttestationError

if TYPE_CHECKING:
    import httpx2

    from attestable_mcp.mcp.bridge import BridgeOptions
    from attestable_mcp.mcp.bridge_notice import Notice
    from attestable_mcp.tls.admission import AttestedPeer, Gate

_STDIN = 0
_CLOSE_SECONDS = 0.3
_LEAVE_SECONDS = 4.6
"""How long after a signal the bridge may still be busy, whatever holds it."""


def configure(parser: Parser) -> None:
    """`connect URL [--policy FILE | --genuine-only] [...]`."""
    parser.add_argument("url", metavar="URL", help=text.HELP_URL)
    add_meeting(parser)
    parser.add_argument("--timeout", metavar="SECONDS", type=seconds, default=300.0, help=text.HELP_SILENCE)
    add_health(parser)
    parser.add_argument("--stall", metavar="SECONDS", type=_stall, default=4.5, help=text.HELP_STALL)
    add_listen(parser)
    add_headers(parser)
    add_oauth(parser)
    add_logs(parser)


def _stall(value: str) -> float:
    return 0.0 if value == "0" else seconds(value)


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Pass messages until the host closes stdin or a signal comes; refusals are answers, so the code is 0.

    What keeps the bridge from starting is an answer too, and then the end, with the code of the error.
    """
    url = address(arguments.url)
    check_listen(arguments)
    log = start_log(arguments, terminal)
    if arguments.logout:
        return anyio.run(log_out, url, arguments, terminal)
    try:
        policy = genuine_policy(arguments, f"{text.PROGRAM} connect")
        with telemetry("attestable-mcp-connect"):
            return anyio.run(_connect, url, policy, arguments, terminal, log)
    except AttestationError as error:
        if arguments.listen is None and not arguments.login and not os.isatty(_STDIN):
            anyio.run(_tell_host, error, url)
        raise


async def _tell_host(error: AttestationError, url: str) -> None:
    from attestable_mcp.mcp.bridge_stdio import Input, Output, take_stdout
    from attestable_mcp.mcp.bridge_unstarted import tell_host

    sink: Output | None = None

    async def write(line: bytes) -> None:
        nonlocal sink
        sink = sink or Output(take_stdout())
        await sink.write(line)

    source = Input(_STDIN)
    await tell_host(error, url, source.lines(), write)
    source.close()
    if sink is not None:
        await sink.aclose(_CLOSE_SECONDS)


async def _connect(url: str, policy: Policy, arguments: Arguments, terminal: Terminal, log: Log) -> int:
    from attestable_mcp.cli.serve import signals
    from attestable_mcp.mcp.bridge import BridgeOptions
    from attestable_mcp.mcp.bridge_notice import Notice
    from attestable_mcp.mcp.outbound import Outbound
    from attestable_mcp.mcp.tracing import carrying
    from attestable_mcp.mcp.watched import watched
    from attestable_mcp.tls.client import attested_transport
    from attestable_mcp.tls.pins import Pins

    headers = headers_of(arguments)
    oauth = oauth_of(arguments, headers)
    for value in headers.values():
        log.hide(value)
    talk, notice = Talk(url), Notice()

    def pinned(pin: Pin) -> None:
        talk.pinned(pin)
        notice.tell(notice_of(pin))

    pins = None if named(arguments) else Pins(on_first_use=pinned)
    gate = await anyio.to_thread.run_sync(gate_of, arguments, policy, pins)
    inner = Outbound(carrying(attested_transport(gate, url)), headers=headers)
    asked = anyio.Event()
    async with authorized(url, inner, oauth, arguments, talk.tell, hide=log.hide) as outbound:
        if arguments.login:
            return await log_in(url, outbound, terminal)
        transport = watched(outbound, gate, url, tell=lambda change: talk.warn(text.list_differs(change.words)))
        with signals(asked):
            if arguments.listen is not None:
                await listen(url, transport, gate, arguments, terminal, say=talk.warn, met=talk.met, asked=asked)
            else:
                options = BridgeOptions(silence_seconds=arguments.timeout, stall_seconds=arguments.stall)
                await _on_stdio(url, transport, gate, options, talk, notice, asked)
    return 0


async def _on_stdio(
    url: str,
    transport: httpx2.AsyncBaseTransport,
    gate: Gate,
    options: BridgeOptions,
    talk: Talk,
    notice: Notice,
    asked: anyio.Event,
) -> None:
    import httpx2

    from attestable_mcp.mcp.bridge import Bridge
    from attestable_mcp.mcp.bridge_stdio import Input, Output, take_stdout
    from attestable_mcp.mcp.tracing import host_trace

    async with httpx2.AsyncClient(transport=transport, trust_env=False, follow_redirects=False) as http:
        source, sink = Input(_STDIN), Output(take_stdout())
        trace = host_trace()

        async def write(line: bytes) -> None:
            if gate.newest is not None:
                talk.met(gate.newest)
            trace.seen(line)
            for part in notice.around(line):
                await sink.write(part)

        async def until(event: anyio.Event) -> None:
            await event.wait()
            source.close()
            await anyio.sleep(_LEAVE_SECONDS)
            tasks.cancel_scope.cancel()

        bridge = Bridge(url, http, write=write, say=talk.warn, options=options)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(until, asked)
            tasks.start_soon(until, sink.lost)
            await bridge.run(trace.watch(notice.watch(source.lines())))
            tasks.cancel_scope.cancel()
        trace.close()
        await sink.aclose(_CLOSE_SECONDS)


def notice_of(pin: Pin) -> dict[str, Any]:
    """What an MCP host is shown of a first use."""
    return {"message": text_pins.NOTICE, "origin": pin.origin, "pinned": dict(pin.facts())}


class Talk:
    """Sentences for the host's log, on stderr. Nothing of what is passed on is in them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._said = ""
        self._met: AttestedPeer | None = None

    def met(self, peer: AttestedPeer) -> None:
        """What was proven of the server; said once until something else holds."""
        if peer is self._met:
            return
        self._met, result = peer, peer.result
        sentence = text.admitted(self._url, str(result.verdict), str(result.tee), result.simulated)
        if any(finding.check == COMPARED for finding in result.findings):
            sentence = f"{sentence}; {text_pins.UNREVIEWED}"
        if sentence != self._said:
            self._said = sentence
            self.tell(sentence)

    def pinned(self, pin: Pin) -> None:
        """A server was met for the first time."""
        facts = [(name, short(value)) for name, value in pin.facts() if value.strip("0") and value != NONE]
        TALK.log(NOTICE, "%s", text_pins.first_use(pin.origin, facts))

    def tell(self, sentence: str) -> None:
        """What somebody may want to know."""
        TALK.info("%s", sentence)

    def warn(self, sentence: str) -> None:
        """What went wrong."""
        TALK.warning("%s", sentence)
