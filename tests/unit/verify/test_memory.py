"""The memory is bounded, keyed by anchors, and forgets at the end of a window."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from attestable_mcp.verify.anchors import INTEL_SGX_ROOT, SIMULATED_ROOT
from attestable_mcp.verify.memory import Memory, Window, anchor_digest

START = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = Window(start=START, end=START + timedelta(days=1))


@pytest.mark.parametrize(
    ("offset", "found"),
    [(timedelta(0), True), (timedelta(hours=23), True), (timedelta(days=1), False), (-timedelta.resolution, False)],
)
def test_a_value_is_recalled_inside_its_window_only(offset: timedelta, found: bool) -> None:
    memory = Memory()
    memory.remember(("key",), "value", WINDOW)
    assert memory.recall(("key",), START + offset) == ("value" if found else None)


def test_the_least_recently_used_entry_goes_first() -> None:
    memory = Memory(entries=2)
    for name in ("a", "b"):
        memory.remember((name,), name, WINDOW)
    assert memory.recall(("a",), START) == "a"
    memory.remember(("c",), "c", WINDOW)
    assert [memory.recall((name,), START) for name in ("a", "b", "c")] == ["a", None, "c"]
    assert len(memory) == 2


def test_windows_meet_in_their_overlap() -> None:
    later = Window(start=START + timedelta(hours=1), end=START + timedelta(days=9))
    assert WINDOW & later == Window(start=later.start, end=WINDOW.end)


def test_the_anchor_digest_covers_all_that_a_verdict_takes_from_an_anchor() -> None:
    base = anchor_digest((INTEL_SGX_ROOT, SIMULATED_ROOT))
    assert base == anchor_digest((SIMULATED_ROOT, INTEL_SGX_ROOT))
    for change in ({"name": "x"}, {"spki_sha256": "0" * 64}, {"simulated": True}, {"replaced": True}):
        assert anchor_digest((replace(INTEL_SGX_ROOT, **change), SIMULATED_ROOT)) != base
    assert anchor_digest(()) != base
