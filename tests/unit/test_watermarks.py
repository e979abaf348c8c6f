"""The marks on disk: what outlives a process, what is refused, what is said where nothing can be kept."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pytest

from attestable_mcp.errors import ConfigurationError, EndorsementStale
from attestable_mcp.rats import _MINT, Claims, Tee, Verified
from attestable_mcp.watermarks import Watermarks, default_path

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="modes and owners of POSIX")


def verified(number: int | None, *, fmspc: str = "00a067110000", simulated: bool = False) -> Verified:
    claims = Claims(
        tee=Tee.TDX, values={"fmspc": fmspc}, report_data=bytes(64), debug=False, tcb_status="UpToDate",
        tcb_evaluation_data_number=number,
    )  # fmt: skip
    at = datetime(2026, 6, 1, tzinfo=UTC)
    return Verified(
        _MINT, claims=claims, evidence_digest="", signed_digest="", findings=(), anchor="ab" * 32, anchor_name="root",
        simulated=simulated, at=at, valid_until=at,
    )  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "evaluations.sqlite"


def refused(marks: Watermarks, number: int) -> bool:
    try:
        marks.check(verified(number))
    except EndorsementStale as error:
        return error.code == "collateral_rollback"
    return False


def test_p4_a_mark_outlives_the_process(path: Path) -> None:
    Watermarks(path).raise_to(verified(19))
    assert refused(Watermarks(path), 18)
    assert not refused(Watermarks(path), 19)
    Watermarks(path).check(verified(3, fmspc="ffffffffffff"))


def test_p4_a_mark_set_by_another_process_counts_at_once(path: Path) -> None:
    running = Watermarks(path)
    running.raise_to(verified(17))
    program = textwrap.dedent("""
        import sqlite3, sys
        with sqlite3.connect(sys.argv[1]) as marks:
            marks.execute("UPDATE mark SET number = 21")
    """)
    subprocess.run([sys.executable, "-c", program, path], check=True)
    assert refused(running, 20)
    assert not refused(running, 21)


def test_a_lower_number_never_takes_a_mark_back(path: Path) -> None:
    first, second = Watermarks(path), Watermarks(path)
    second.raise_to(verified(17))
    first.raise_to(verified(20))
    second.raise_to(verified(18))
    assert Watermarks(path).highest(("ab" * 32, "tdx", "00a067110000")) == 20


def test_simulated_marks_stay_in_memory(path: Path) -> None:
    marks = Watermarks(path)
    marks.raise_to(verified(19, simulated=True))
    assert not path.exists()
    with pytest.raises(EndorsementStale):
        marks.check(verified(18, simulated=True))


def test_evidence_without_a_number_touches_nothing(path: Path) -> None:
    marks = Watermarks(path)
    marks.check(verified(None))
    marks.raise_to(verified(None))
    assert not path.exists()


@POSIX
def test_the_file_is_its_owners_alone(path: Path) -> None:
    Watermarks(path).raise_to(verified(19))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o620)
    with pytest.raises(ConfigurationError, match="wanted one that only you can write") as caught:
        Watermarks(path).check(verified(30))
    assert "tcb --forget" in caught.value.hint


@pytest.mark.parametrize("kind", ["garbage", "half", "no table", "words"])
def test_a_damaged_file_is_refused_and_never_read_as_empty(path: Path, kind: str) -> None:
    Watermarks(path).raise_to(verified(19))
    if kind == "garbage":
        path.write_bytes(os.urandom(4096))
    elif kind == "half":
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "no table":
        path.unlink()
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE something (a)")
        path.chmod(0o600)
    else:
        path.write_text("19\n" * 400)
    for marks in (Watermarks(path), Watermarks(path)):
        with pytest.raises(ConfigurationError) as caught:
            marks.check(verified(30))
        assert caught.value.code == "state_unusable"
        assert str(path) in caught.value.message
        assert "tcb --forget" in caught.value.hint


def test_forgetting_starts_anew_whatever_the_file_holds(path: Path) -> None:
    marks = Watermarks(path)
    assert marks.forget() == 0
    marks.raise_to(verified(19))
    marks.raise_to(verified(19, fmspc="ffffffffffff"))
    assert Watermarks(path).forget() == 2
    assert not refused(Watermarks(path), 1)
    path.write_bytes(b"damaged" * 999)
    assert Watermarks(path).forget() == 0
    Watermarks(path).check(verified(1))


def test_what_cannot_be_kept_is_said_and_still_held_to_in_this_process(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    marks = Watermarks(tmp_path / "file" / "evaluations.sqlite")
    said = marks.raise_to(verified(19))
    assert "could not be kept" in said
    assert marks.raise_to(verified(19)) == said
    assert refused(marks, 18)


def test_the_store_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watermarks, "MOST", 3)
    marks = Watermarks(path)
    for number in range(5):
        marks.raise_to(verified(9, fmspc=f"{number:012x}"))
    with sqlite3.connect(path) as file:
        assert file.execute("SELECT count(*) FROM mark").fetchone() == (3,)


def test_the_default_is_the_users_state_folder() -> None:
    assert default_path().is_relative_to(Path(os.environ["XDG_STATE_HOME"])) or sys.platform != "linux"
