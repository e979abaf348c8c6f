"""`pin --list`, `pin --forget` and the question of `pin --update`, without a server."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from attestable_mcp.appraise.pins import Pin
from attestable_mcp.cli.pinned import _ask
from attestable_mcp.cli.terminal import Terminal
from attestable_mcp.tls.pins import Pins

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
ORIGIN = "https://mcp.example:8443"
PIN = Pin(origin=ORIGIN, first_use=AT, accepted=AT, tee="tdx", simulated=False, anchor="ab" * 32, code={"mr_td": "cd"})


@pytest.fixture
def pinned() -> Pins:
    pins = Pins()
    pins.accept(PIN, instead_of=None)
    return pins


def test_a_list_shows_pins_and_names_damaged_files(cli: Callable[..., Any], pinned: Pins) -> None:
    ended = cli("pin", "--list")
    assert ended.code == 0
    assert ended.out.splitlines()[0] == ORIGIN
    assert "2026-06-01T12:00:00Z" in ended.out
    bad = pinned.path("https://other.example:443")
    bad.write_text("{")
    assert cli("pin", "--list").code == 1
    told = cli("pin", "--list", "--json").json()
    assert [pin["origin"] for pin in told["pins"]] == [ORIGIN]
    assert [item["path"] for item in told["damaged"]] == [str(bad)]
    assert "\x1b" not in ended.out


def test_a_pin_is_forgotten_by_any_url_of_its_origin_and_a_damaged_one_too(
    cli: Callable[..., Any], pinned: Pins
) -> None:
    assert cli("pin", "--forget", f"{ORIGIN}/mcp?x=1", "--json").json() == {"origin": ORIGIN, "forgotten": True}
    ended = cli("pin", "--forget", ORIGIN)
    assert (ended.code, pinned.get(ORIGIN)) == (1, None)
    pinned.path(ORIGIN).write_text("{")
    assert cli("pin", "--forget", ORIGIN).code == 0
    assert not pinned.path(ORIGIN).exists()


@pytest.mark.parametrize(
    ("typed", "tty", "accepted"),
    [("y\n", True, True), ("YES\n", True, True), ("n\n", True, False), ("\n", True, False), ("", True, False),
     ("yep\n", True, False), ("y\n", False, False)],
)  # fmt: skip
def test_only_a_plain_yes_at_a_terminal_accepts(
    typed: str, tty: bool, accepted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO(typed)
    monkeypatch.setattr(stream, "isatty", lambda: tty)
    monkeypatch.setattr(sys, "stdin", stream)
    asked = io.StringIO()
    assert (_ask(Terminal(out=io.StringIO(), err=asked)) is None) is accepted
    assert ("[y/N]" in asked.getvalue()) is tty
    assert _ask(Terminal(out=io.StringIO(), err=io.StringIO(), json=True)) is not None, "a program is never asked"
