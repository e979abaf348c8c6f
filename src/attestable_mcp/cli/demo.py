"""`demo`: two real MCP servers proven and used, impostors refused, on this machine and with the simulated TEE."""

from __future__ import annotations

import importlib.util
import logging
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio

from attestable_mcp.cli import text
from attestable_mcp.cli.command import Arguments, Parser
from attestable_mcp.cli.terminal import Terminal, printable
from attestable_mcp.errors import EXIT_USAGE, AppraisalRefused, ConfigurationError
from attestable_mcp.rats import AttestationResult, Finding, Outcome, Verdict

SECONDS = 60
"""More than the demo ever takes; a step that hangs fails it."""
STDIO_SERVER = "mcp_server_time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that the client did, and whether it came out as it should.

    `expected` is `verified`, or the code that must refuse. `code` is what came.
    """

    title: str
    expected: str
    code: str
    url: str = ""
    wanted: str = ""
    seen: str = ""
    message: str = ""
    hint: str = ""
    call: str = ""
    answer: str = ""
    result: AttestationResult | None = None

    @property
    def ok(self) -> bool:
        """Exactly what had to happen, happened."""
        return self.code == self.expected and (not self.call or bool(self.answer))

    def to_json(self) -> dict[str, Any]:
        """The public shape of one step."""
        names = ("title", "expected", "code", "ok", "url", "wanted", "seen", "message", "hint", "call", "answer")
        shown = {name: getattr(self, name) for name in names}
        return {**shown, "attestation": self.result.to_json() if self.result else None}


def configure(parser: Parser) -> None:
    """`demo` takes nothing but the common options."""


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Show every step as it happens; 0 only if all went as they should."""
    steps: list[Step] = []

    def done(step: Step) -> None:
        steps.append(step)
        if not terminal.json:
            show_step(terminal, step)

    if importlib.util.find_spec(STDIO_SERVER) is None:
        raise ConfigurationError(text.DEMO_NEEDS, code="demo_incomplete", hint=text.DEMO_NEEDS_HINT)
    if not terminal.json:
        terminal.data(terminal.paint("strong", text.DEMO_TITLE))
    with _quiet():
        anyio.run(play, done)
    good = sum(step.ok for step in steps)
    if terminal.json:
        terminal.emit({"ok": good == len(steps), "simulated": True, "steps": [step.to_json() for step in steps]})
    else:
        terminal.data()
        terminal.data(terminal.paint("good" if good == len(steps) else "bad", text.demo_end(good, len(steps))))
        terminal.data(terminal.paint("warn", text.DEMO_SIMULATED))
    return 0 if good == len(steps) else EXIT_USAGE


@contextmanager
def _quiet() -> Iterator[None]:
    """The steps say what happens; the SDK would print our log between them."""
    log = logging.getLogger("attestable_mcp")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


async def play(done: Callable[[Step], None]) -> None:
    """The whole piece, in order. Raises: AttestationError, TimeoutError."""
    from attestable_mcp.cli import demo_mutual
    from attestable_mcp.mcp.serve import serve

    with anyio.fail_after(SECONDS), tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", STDIO_SERVER, "--local-timezone", "UTC"]
        async with serve(command, attester="simulated") as server:
            done(await _honest(text.DEMO_STDIO, server.url, "get_current_time", {"timezone": "UTC"}))
        source = _write_server(Path(folder, "good"))
        async with serve(source, attester="simulated") as server:
            step = await _honest(text.DEMO_SDK, server.url, "add", {"a": 2, "b": 3})
            done(step)
            if step.result is None:
                return
            policy = await _pinned(server.url)
            for title, expected, opened in _impostors(server, step.result, Path(folder)):
                async with opened as url:
                    done(await knock(title, expected, url, policy))
            real = replace(policy, trust=replace(policy.trust, simulated="refuse"))
            done(await knock(text.DEMO_SIMULATED_SERVER, "simulated_evidence", server.url, real))
        await demo_mutual.play(done)


def _impostors(
    server: Any, honest: AttestationResult, folder: Path
) -> list[tuple[str, str, AbstractAsyncContextManager[str]]]:
    """Title, the code that must refuse it, and how to open it."""
    from attestable_mcp.cli.impostors import relay_with_key, thief_of_certificate

    leaf = server.server.issued
    origin = server.origin
    return [
        (text.DEMO_MODIFIED, "measurement_mismatch", _modified(folder / "modified")),
        (text.DEMO_THIEF, "key_not_proven", thief_of_certificate(leaf.certificate_der)),
        (text.DEMO_RELAY, "channel_binding_mismatch", relay_with_key(leaf.certificate_der, leaf.key_pem, origin)),
        (text.DEMO_ROOT, "untrusted_root", _foreign_root(folder / "good", str(honest.claims["mrenclave"]))),
    ]


@asynccontextmanager
async def _modified(folder: Path) -> AsyncIterator[str]:
    """The same server with one line changed."""
    from attestable_mcp.mcp.serve import serve

    async with serve(_write_server(folder, change=True), attester="simulated") as server:
        yield server.url


@asynccontextmanager
async def _foreign_root(folder: Path, mrenclave: str) -> AsyncIterator[str]:
    """The same code and measurement, quoted under a root that nobody here knows."""
    from attestable_mcp.attest.simulated import SimulatedAttester
    from attestable_mcp.mcp.serve import serve
    from attestable_mcp.simulator.intel import Vendor

    attester = SimulatedAttester(bytes.fromhex(mrenclave), vendor=Vendor.unknown())
    async with serve(f"{folder / 'sums.py'}:server", attester=attester) as server:
        yield server.url


def _write_server(folder: Path, *, change: bool = False) -> str:
    """The SDK server as a file of its own, so that its measurement is about itself. Gives `file.py:object`."""
    folder.mkdir(exist_ok=True)
    path = folder / "sums.py"
    body = Path(__file__).with_name("demo_server.py").read_text(encoding="utf-8")
    path.write_text(body.replace("return a + b", "return a + b + 1") if change else body, encoding="utf-8")
    return f"{path}:server"


async def _pinned(url: str) -> Any:
    """The policy that `pin` would write."""
    from attestable_mcp.appraise.policy import Policy
    from attestable_mcp.appraise.write import policy_toml
    from attestable_mcp.tls.client import attest_server

    peer = await attest_server(Policy.genuine_only(simulated=True), url)
    return Policy.from_toml(policy_toml(peer.result, source=url), "pinned policy")


async def _honest(title: str, url: str, tool: str, arguments: dict[str, Any]) -> Step:
    """Pin, prove, and call one tool through the proven connection."""
    return await knock(title, "verified", url, await _pinned(url), tool, arguments)


async def knock(
    title: str,
    expected: str,
    url: str,
    policy: Any,
    tool: str = "",
    arguments: dict[str, Any] | None = None,
    *,
    attester: Any = None,
) -> Step:
    """What the client does with every server: prove it, and only then speak."""
    from attestable_mcp.cli.endings import innermost
    from attestable_mcp.mcp.client import attested_client

    call = f"{tool}({', '.join(f'{name}={value}' for name, value in (arguments or {}).items())})" if tool else ""
    step = Step(title=title, expected=expected, code="", url=url, call=call)
    try:
        async with attested_client(_with_path(url), policy=policy, attester=attester) as client:
            answer = await client.call_tool(tool, arguments) if tool else None
            return replace(step, code=str(client.attestation.verdict), result=client.attestation, answer=_words(answer))
    except Exception as error:
        known = innermost(error)
        if known is None:
            raise
        return _refused(step, known)


def _with_path(url: str) -> str:
    return url if url.endswith("/mcp") else f"{url}/mcp"


def _words(answer: Any) -> str:
    content = getattr(answer, "content", None) or []
    return " ".join(" ".join(str(getattr(block, "text", "")).split()) for block in content)


def _refused(step: Step, error: Any) -> Step:
    """What was wanted, seen and advised, out of the result where there is one."""
    result = error.result if isinstance(error, AppraisalRefused) else None
    findings = tuple(result.findings) if isinstance(result, AttestationResult) else getattr(error, "findings", ())
    failed = next((f for f in findings if isinstance(f, Finding) and f.outcome is Outcome.FAIL), None)
    told = result.error if isinstance(result, AttestationResult) and result.error else None
    return replace(
        step,
        code=told.code if told else error.code,
        message=told.message if told else error.message,
        hint=(told.hint if told else error.hint) or text.DEMO_WALK_AWAY,
        wanted=failed.wanted if failed else "",
        seen=failed.seen if failed else "",
        result=result if isinstance(result, AttestationResult) else None,
    )


def show_step(terminal: Terminal, step: Step) -> None:
    """A few lines for a person."""
    word = "verified" if step.code == Verdict.VERIFIED else "refused"
    style = "good" if step.ok else "bad"
    terminal.data()
    head = f"{word.upper():<9} {printable(step.title)}"
    terminal.data(f"{terminal.paint(style, head)}{'' if step.ok else '  ' + text.demo_wrong(step.expected, step.code)}")
    for name, value in _told(step).items():
        if value:
            terminal.data(f"          {terminal.paint('dim', f'{name:<8}')} {printable(value)[:240]}")


def _told(step: Step) -> dict[str, str]:
    if step.result is not None and step.code == Verdict.VERIFIED:
        claims = step.result.claims
        return {
            "server": step.url,
            "code": f"mrenclave {claims.get('mrenclave', '')}",
            "platform": f"{step.result.tee}, {step.result.tcb_status}",
            "call": f"{step.call} -> {step.answer}" if step.call else "",
        }
    detail = {"wanted": step.wanted, "seen": step.seen} if step.wanted or step.seen else {"reason": step.message}
    return {"why": step.code, **detail, "then": step.hint[:1].upper() + step.hint[1:]}
