"""`pin --update`, `pin --list` and `pin --forget`: what is trusted since its first use, and changing that by hand."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from attestable_mcp.appraise.pins import Pin, changed, compare, day
from attestable_mcp.cli import text_pins as text
from attestable_mcp.cli.command import Arguments
from attestable_mcp.cli.live import meet_peer
from attestable_mcp.cli.source import address
from attestable_mcp.cli.terminal import Terminal, printable
from attestable_mcp.errors import EXIT_REFUSED, EXIT_USAGE, EXIT_VERIFIED, ConfigurationError
from attestable_mcp.rats import Finding
from attestable_mcp.tls.admission import Gate
from attestable_mcp.tls.origins import origin_of
from attestable_mcp.tls.pins import Damaged, Pins, seen_of, to_json


def update(arguments: Arguments, gate: Gate, terminal: Terminal) -> int:
    """Show how the server differs from its pin and, if told so, pin it. 0: pinned now, or unchanged. 2: not accepted.

    Raises: the AttestationError family, also where the server is not genuine.
    """
    seen = seen_of(meet_peer(address(arguments.url), gate, arguments.timeout), at=datetime.now(UTC))
    pins = Pins()
    pinned, problem = _current(pins, seen.origin)
    findings = compare(pinned, seen) if pinned else ()
    differences = changed(findings)
    if pinned is not None and not differences:
        return _told(terminal, seen, differences, accepted=True, words=text.UNCHANGED)
    if not terminal.json:
        for line in _shown(terminal, pinned, seen, differences, problem):
            terminal.data(line)
    refusal = None if arguments.yes else _ask(terminal)
    if refusal is not None:
        return _told(terminal, seen, differences, accepted=False, words=refusal)
    return _told(terminal, pins.accept(seen, instead_of=pinned), differences, accepted=True, words=text.ACCEPTED)


def _current(pins: Pins, origin: str) -> tuple[Pin | None, str]:
    """The pin; or what is wrong with its file, which only a person may replace."""
    try:
        return pins.get(origin), ""
    except ConfigurationError as error:
        return None, error.message


def _shown(
    terminal: Terminal, pinned: Pin | None, seen: Pin, differences: tuple[Finding, ...], problem: str
) -> Iterator[str]:
    if pinned is None:
        yield terminal.paint("warn", printable(text.damaged(problem) if problem else text.new(seen.origin)))
        yield from _facts(terminal, seen)
    else:
        yield terminal.paint("warn", text.differs(seen.origin, day(pinned.accepted)))
        for finding in differences:
            yield f"  {terminal.paint('strong', printable(finding.check.removeprefix('pin.')))}"
            yield f"    {terminal.paint('dim', 'pinned')}  {printable(finding.wanted)}"
            yield f"    {terminal.paint('dim', 'seen  ')}  {printable(finding.seen)}"
    yield text.COMPARE


def _facts(terminal: Terminal, pin: Pin) -> Iterator[str]:
    for name, value in pin.facts():
        yield f"  {terminal.paint('dim', f'{printable(name):<16}')} {printable(value)}"


def _ask(terminal: Terminal) -> str | None:
    """None for a yes; otherwise why not. Nothing but a person at a terminal is asked."""
    if terminal.json or sys.stdin is None or not sys.stdin.isatty():
        return text.NOT_ASKED
    terminal.err.write(text.ASK)
    terminal.err.flush()
    return None if sys.stdin.readline().strip().lower() in ("y", "yes") else text.NOT_ACCEPTED


def _told(terminal: Terminal, pin: Pin, differences: tuple[Finding, ...], *, accepted: bool, words: str) -> int:
    if terminal.json:
        shown = [{"field": item.check.removeprefix("pin."), "pinned": item.wanted, "seen": item.seen}
                 for item in differences]  # fmt: skip
        terminal.emit({"origin": pin.origin, "accepted": accepted, "differences": shown, "pin": to_json(pin)})
    else:
        terminal.say(words)
    return EXIT_VERIFIED if accepted else EXIT_REFUSED


def show_list(terminal: Terminal) -> int:
    """Every pin; a damaged one is named, and the code is 1 then."""
    pins = Pins()
    found = pins.all()
    good = [item for item in found if isinstance(item, Pin)]
    bad = [item for item in found if isinstance(item, Damaged)]
    if terminal.json:
        terminal.emit({"folder": str(pins.folder), "pins": [to_json(pin) for pin in good], "damaged": _paths(bad)})
        return EXIT_USAGE if bad else EXIT_VERIFIED
    for pin in good:
        for line in _page(terminal, pin):
            terminal.data(line)
    for item in bad:
        terminal.say(printable(item.problem))
    if not found:
        terminal.say(text.NOTHING_PINNED)
    return EXIT_USAGE if bad else EXIT_VERIFIED


def _page(terminal: Terminal, pin: Pin) -> Iterator[str]:
    yield terminal.paint("strong", printable(pin.origin))
    yield from _facts(terminal, pin)
    times: Mapping[str, Any] = {"first use": day(pin.first_use), "accepted": day(pin.accepted)}
    for name, value in times.items():
        yield f"  {terminal.paint('dim', f'{name:<16}')} {value}"


def _paths(bad: list[Damaged]) -> list[dict[str, str]]:
    return [{"path": str(item.path), "problem": item.problem} for item in bad]


def forget(arguments: Arguments, terminal: Terminal) -> int:
    """Remove one pin. Raises: ConfigurationError where there is none."""
    origin = str(origin_of(address(arguments.url)))
    if not Pins().forget(origin):
        raise ConfigurationError(text.not_pinned(origin), code="not_pinned", hint=text.NOT_PINNED_HINT)
    if terminal.json:
        terminal.emit({"origin": origin, "forgotten": True})
    else:
        terminal.say(text.forgotten(origin))
    return EXIT_VERIFIED
