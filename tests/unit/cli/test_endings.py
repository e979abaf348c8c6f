"""However a command ends, it ends in one of our ways: never a traceback, never two objects, never a wrong code."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from attestable_mcp.cli.endings import guarded, innermost
from attestable_mcp.cli.report import page
from attestable_mcp.cli.terminal import Terminal, printable, printable_json, wants_colour
from attestable_mcp.errors import AppraisalRefused, AttesterError, ChannelMismatch, EndorsementUnavailable
from attestable_mcp.rats import AttestationResult, ErrorReport, Finding, Outcome, Verdict


def terminal(*, json: bool = False, debug: bool = False, colour: bool = False) -> Terminal:
    return Terminal(out=io.StringIO(), err=io.StringIO(), json=json, debug=debug, colour=colour)


def raising(error: BaseException):
    def work() -> int:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code", "verdict", "word"),
    [
        (ChannelMismatch("m"), 2, "refused", "channel_binding_mismatch"),
        (EndorsementUnavailable("m"), 3, "unavailable", "endorsement_unavailable"),
        (AttesterError("m"), 3, "unavailable", "attester"),
        (KeyboardInterrupt(), 130, "unavailable", "interrupted"),
        (MemoryError(), 1, "unavailable", "out_of_memory"),
        (RecursionError("deep"), 1, "unavailable", "internal"),
        (ZeroDivisionError("x"), 1, "unavailable", "internal"),
        (ExceptionGroup("g", [ExceptionGroup("h", [ChannelMismatch("m")])]), 2, "refused", "channel_binding_mismatch"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_every_exception_has_an_ending(error, code, verdict, word):
    where = terminal(json=True)
    assert guarded(raising(error), where) == code
    answer = json.loads(where.out.getvalue())
    assert (answer["verdict"], answer["error"]["code"]) == (verdict, word)


def test_a_fault_of_ours_says_so_with_its_type_and_shows_a_traceback_only_with_debug():
    quiet, loud = terminal(), terminal(debug=True)
    guarded(raising(ZeroDivisionError("x")), quiet)
    guarded(raising(ZeroDivisionError("x")), loud)
    assert "fault in attestable-mcp itself: ZeroDivisionError" in quiet.err.getvalue()
    assert "issue tracker" in quiet.err.getvalue()
    assert "Traceback" not in quiet.err.getvalue()
    assert "Traceback" in loud.err.getvalue()


def test_a_strangers_words_draw_on_no_terminal_with_debug_neither():
    loud = terminal(debug=True)
    guarded(raising(ChannelMismatch("seen \x1b[2J \x9b0m \u202e")), loud)
    assert not set("\x1b\x9b\u202e") & set(loud.err.getvalue())
    assert "Traceback" in loud.err.getvalue()


def test_json_for_a_person_holds_no_character_that_moves_a_cursor():
    value = {"description": "a\x9b31m\u202eb\ud800\U000e0001é\n", "list": [1, None, True]}
    shown = printable_json(value)
    assert shown.replace("\n", "").isprintable()
    assert "é" in shown
    assert json.loads(shown) == value


def test_a_cause_of_our_family_is_found_but_a_fault_while_handling_one_is_a_fault():
    outer = ConnectionError("wrapped")
    outer.__cause__ = ChannelMismatch("inner")
    assert isinstance(innermost(outer), ChannelMismatch)
    while_handling = TypeError("bug")
    while_handling.__context__ = ChannelMismatch("handled")
    assert innermost(while_handling) is None


def test_a_refusal_with_its_result_shows_every_finding():
    failed = Finding(
        check="policy.mrenclave", outcome=Outcome.FAIL, wanted="aa", seen="bb", code="measurement_mismatch"
    )
    result = AttestationResult(verdict=Verdict.REFUSED, at=datetime.now(UTC), findings=(failed,))
    where = terminal(json=True)
    assert guarded(raising(AppraisalRefused("no", result=result)), where) == 2
    assert json.loads(where.out.getvalue())["findings"][0]["check"] == "policy.mrenclave"


def test_a_full_disk_behind_stdout_is_said():
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "attestable_mcp", "--version"],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    assert "cannot write stdout" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_reader_that_leaves_early_gets_no_traceback():
    child = subprocess.Popen(
        [sys.executable, "-m", "attestable_mcp", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    child.stdout.close()
    assert "Traceback" not in child.stderr.read()
    child.stderr.close()
    assert child.wait(timeout=30) in (0, 141)


def test_a_closed_stdout_is_no_fault():
    ended = subprocess.run(
        f'"{sys.executable}" -m attestable_mcp --version >&-',
        shell=True, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 0
    assert "Traceback" not in ended.stderr


def test_ascii_streams_escape_what_they_cannot_say():
    ended = subprocess.run(
        [sys.executable, "-m", "attestable_mcp", "verify", "ключ", "--genuine-only"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert b"cannot read" in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_text_of_a_stranger_cannot_draw_on_the_terminal():
    hostile = "\x1b[2Jhello\r\n\u202egnp.exe\x07"
    shown = printable(hostile)
    assert shown == "\\x1b[2Jhello\\r\\n\\u202egnp.exe\\x07"


def test_colours_are_for_terminals_that_did_not_say_no(monkeypatch):
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_colour(Screen())
    assert not wants_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Screen())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_colour(Screen())


def test_a_page_shows_verdict_findings_open_ends_error_and_next_step_in_this_order():
    result = AttestationResult(
        verdict=Verdict.REFUSED,
        at=datetime(2026, 1, 31, 12, tzinfo=UTC),
        tee="sgx",
        claims={"mrenclave": "00\x1b[1m", "debug": False},
        findings=(
            Finding(check="intel.pck.chain", outcome=Outcome.PASS, seen="3 certificates"),
            Finding(check="policy.mrenclave", outcome=Outcome.FAIL, wanted="aa", seen="bb", reason="(x.toml, line 2)"),
            Finding(check="intel.crl", outcome=Outcome.SKIP, reason="because"),
        ),
        not_proven=("the weather",),
        simulated=True,
        error=ErrorReport(code="measurement_mismatch", message="no", hint="look"),
    )
    lines = "\n".join(page(terminal(), result))
    wanted = (
        "REFUSED", "SIMULATED", "mrenclave", "PASS  intel.pck.chain", "SKIP  intel.crl", "FAIL  policy.mrenclave",
        "wanted  aa", "seen    bb", "not proven", "the weather", "error  measurement_mismatch", "hint   look", "next",
    )  # fmt: skip
    places = [lines.index(word) for word in wanted]
    assert places == sorted(places)
    assert "\x1b" not in lines
    assert "\x1b[31mREFUSED" in "\n".join(page(terminal(colour=True), result))


def test_a_thread_that_waits_for_somebody_else_holds_up_no_end():
    """As one that asks a vendor's service does, after --timeout gave it up."""
    program = (
        "import threading, time; from attestable_mcp.cli.main import entry;"
        "threading.Thread(target=time.sleep, args=(60,)).start(); entry(['--version', '--json'])"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (ended.returncode, json.loads(ended.stdout)["name"]) == (0, "attestable-mcp")
