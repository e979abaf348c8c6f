"""How an Attestation Result looks to a person, and its one JSON object for programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from attestable_mcp.appraise.pins import COMPARED
from attestable_mcp.cli import text, text_pins
from attestable_mcp.cli.terminal import Terminal, printable
from attestable_mcp.rats import AttestationResult, Finding, Origin, Outcome, Verdict

_VERDICT_STYLE = {
    Verdict.VERIFIED: "good",
    Verdict.PARTIAL: "warn",
    Verdict.REFUSED: "bad",
    Verdict.UNAVAILABLE: "warn",
}
_OUTCOME_STYLE = {Outcome.PASS: "good", Outcome.FAIL: "bad", Outcome.SKIP: "warn"}
_CHECK_WIDTH = 34
_VALUE_CAP = 256
"""Characters of one value shown to a person; JSON has them all."""


def show(
    terminal: Terminal, result: AttestationResult, more: Mapping[str, Any] | None = None, *, kind: str = ""
) -> None:
    """Print the result: a page for a person, or one object (with `more` keys beside the contract's) for a program.

    `kind` is what was judged where it is no server: "file", or "bundle" for one that was judged by its own policy.
    """
    if terminal.json:
        terminal.emit({**result.to_json(), **(more or {})})
        return
    for line in page(terminal, result, kind):
        terminal.data(line)


def page(terminal: Terminal, result: AttestationResult, kind: str = "") -> Iterator[str]:
    """Verdict, facts, findings by group, what is not proven, next step."""
    yield headline(terminal, result, kind)
    yield from _facts(terminal, result)
    yield from _findings(terminal, result.findings)
    yield from _not_proven(terminal, result)
    yield from _error(terminal, result)
    yield ""
    yield f"{terminal.paint('strong', 'next')}  {_next(result, kind)}"


def _next(result: AttestationResult, kind: str) -> str:
    failed = any(finding.outcome is Outcome.FAIL for finding in result.findings)
    if result.verdict is Verdict.REFUSED and not failed:
        return text.NEXT_UNREAD
    steps = text.NEXT_STEPS | text.NEXT_OF_FILES.get(kind, {})
    return steps[str(result.verdict)]


def headline(terminal: Terminal, result: AttestationResult, kind: str = "") -> str:
    """The first line: the verdict in capitals and what it means."""
    word = terminal.paint(_VERDICT_STYLE[result.verdict], str(result.verdict).upper())
    sentences = text.HEADLINES | text.HEADLINES_OF_FILES.get(kind, {})
    return f"{word}  {sentences[str(result.verdict)]}"


def announce(terminal: Terminal, result: AttestationResult) -> None:
    """On stderr, the first line, and what nobody may overlook beside it: for verbs whose data is something else."""
    terminal.say(headline(terminal, result))
    if result.simulated:
        terminal.say(terminal.paint("warn", text.SIMULATED_BANNER))
    if any(finding.check == COMPARED for finding in result.findings):
        terminal.say(text_pins.PINNED_FOR_US)


def _facts(terminal: Terminal, result: AttestationResult) -> Iterator[str]:
    if result.simulated:
        yield terminal.paint("warn", text.SIMULATED_BANNER)
    facts = {
        "tee": result.tee,
        "tcb status": result.tcb_status,
        "advisories": ", ".join(result.advisories),
        "trust anchor": result.trust_anchor,
        "policy": result.policy,
        "judged at": result.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    yield from (_row(terminal, name, fact) for name, fact in facts.items() if fact)
    for origin, heading in text.ORIGINS.items():
        claims = {n: value for n, value in result.claims.items() if result.origins.get(n, Origin.ASSERTED) == origin}
        if claims:
            yield terminal.paint("strong", heading)
        for name, value in claims.items():
            yield _row(terminal, name, value)


def _row(terminal: Terminal, name: str, value: object) -> str:
    return f"  {terminal.paint('dim', f'{printable(name):<28}')} {_short(value)}"


def _short(value: object) -> str:
    shown = printable(value)
    return shown if len(shown) <= _VALUE_CAP else f"{shown[:_VALUE_CAP]}... ({len(shown)} characters)"


def _findings(terminal: Terminal, findings: tuple[Finding, ...]) -> Iterator[str]:
    for group, members in _grouped(findings).items():
        yield ""
        yield terminal.paint("strong", group)
        for finding in members:
            yield from finding_lines(terminal, finding)


def _grouped(findings: tuple[Finding, ...]) -> dict[str, list[Finding]]:
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        head = finding.check.split(".", 1)[0]
        groups.setdefault(text.GROUPS.get(head, printable(head)), []).append(finding)
    return groups


def finding_lines(terminal: Terminal, finding: Finding) -> Iterator[str]:
    """PASS in one line; FAIL and SKIP with what was wanted, seen, and why."""
    word = terminal.paint(_OUTCOME_STYLE[finding.outcome], str(finding.outcome).upper())
    if finding.outcome is Outcome.PASS:
        seen = terminal.paint("dim", _short(finding.seen)) if finding.seen else ""
        yield f"  {word}  {printable(finding.check):<{_CHECK_WIDTH}} {seen}".rstrip()
        return
    yield f"  {word}  {printable(finding.check)}"
    for name in ("wanted", "seen", "reason"):
        value = getattr(finding, name)
        if value:
            yield f"          {terminal.paint('dim', f'{name:<7}')} {_short(value)}"


def _not_proven(terminal: Terminal, result: AttestationResult) -> Iterator[str]:
    if result.not_proven:
        yield ""
        yield terminal.paint("strong", "not proven")
        for sentence in result.not_proven:
            yield f"  - {_short(sentence)}"


def _error(terminal: Terminal, result: AttestationResult) -> Iterator[str]:
    if result.error is None:
        return
    yield ""
    yield f"{terminal.paint('bad', 'error')}  {printable(result.error.code)}: {_short(result.error.message)}"
    if result.error.hint:
        yield f"{terminal.paint('dim', 'hint')}   {_short(result.error.hint)}"
