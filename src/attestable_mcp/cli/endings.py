"""How a command ends: every exception becomes one sentence, one JSON object if asked, and one exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime

from attestable_mcp.cli import text
from attestable_mcp.cli.terminal import OutputLost, Terminal, printable
from attestable_mcp.errors import EXIT_REFUSED, EXIT_USAGE, AppraisalRefused, AttestationError
from attestable_mcp.rats import AttestationResult, ErrorReport, Verdict

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells count it."""
EXIT_BROKEN_PIPE = 141
"""128 + SIGPIPE: the reader of our output went away."""


def guarded(work: Callable[[], int], terminal: Terminal) -> int:
    """Run the work and turn whatever it ends with into an exit code. Raises nothing."""
    try:
        return _told(work, terminal)
    except OutputLost as lost:
        _silence(terminal)
        if lost.reader_left:
            return EXIT_BROKEN_PIPE
        terminal.say(f"{text.PROGRAM}: {text.cannot_write('stdout', str(lost))}")
        return EXIT_USAGE


def _told(work: Callable[[], int], terminal: Terminal) -> int:
    try:
        return work()
    except OutputLost:
        raise
    except KeyboardInterrupt:
        return _end(terminal, ErrorReport(code="interrupted", message=text.INTERRUPTED), EXIT_INTERRUPTED)
    except MemoryError:
        return _end(terminal, ErrorReport(code="out_of_memory", message=text.OUT_OF_MEMORY), EXIT_USAGE)
    except Exception as error:  # noqa: BLE001 the last stop: nothing may leave as a traceback
        return _explain(terminal, error)


def _explain(terminal: Terminal, error: Exception) -> int:
    if terminal.debug:
        for line in "".join(traceback.format_exception(error)).rstrip().split("\n"):
            terminal.say(printable(line))
    known = innermost(error)
    if known is None:
        return _end(
            terminal,
            ErrorReport(code="internal", message=text.our_fault(error), hint=text.OUR_FAULT_HINT),
            EXIT_USAGE,
        )
    if isinstance(known, AppraisalRefused) and isinstance(known.result, AttestationResult):
        return _refused(terminal, known.result)
    report = ErrorReport(code=known.code, message=known.message, hint=known.hint)
    return _end(terminal, report, known.exit_code)


def innermost(error: BaseException) -> AttestationError | None:
    """The error of our family inside: the error itself, a member of its group (task groups make them), or a cause."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        candidate = waiting.pop(0)
        if candidate is None or id(candidate) in seen:
            continue
        seen.add(id(candidate))
        if isinstance(candidate, AttestationError):
            return candidate
        if isinstance(candidate, BaseExceptionGroup):
            waiting.extend(candidate.exceptions)
        waiting.append(candidate.__cause__)  # never __context__: a fault while handling a refusal is a fault
    return None


def _refused(terminal: Terminal, result: AttestationResult) -> int:
    from attestable_mcp.cli.report import show

    show(terminal, result)
    return result.exit_code


def _end(terminal: Terminal, report: ErrorReport, code: int) -> int:
    if terminal.json:
        terminal.emit(ending(report, code).to_json())
    terminal.say(f"{text.PROGRAM}: {printable(report.message)}")
    if report.hint:
        terminal.say(f"  {terminal.paint('dim', 'hint')}  {printable(report.hint)}")
    return code


def ending(report: ErrorReport, code: int) -> AttestationResult:
    """The result of a command that ended early: refused if the peer is at fault, unavailable if nothing was judged."""
    verdict = Verdict.REFUSED if code == EXIT_REFUSED else Verdict.UNAVAILABLE
    return AttestationResult(verdict=verdict, at=datetime.now(UTC), error=report)


def _silence(terminal: Terminal) -> None:
    """Point the broken stream at nothing, so that the interpreter's last flush does not complain."""
    try:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, terminal.out.fileno())
        os.close(sink)
    except (OSError, ValueError):
        sys.stdout = None
