"""Who gives way where room is short."""

from __future__ import annotations

from attestable_mcp.shares import Shares


def _held(**counts: int) -> Shares[str]:
    shares: Shares[str] = Shares()
    for holder, count in counts.items():
        for number in range(count):
            shares.add(f"{holder}{number}", holder)
    return shares


def test_whoever_holds_most_gives_way_with_what_rested_longest() -> None:
    shares = _held(few=2, many=5)
    shares.touch("many0")
    assert shares.surplus("new") == "many1"
    assert shares.surplus("few") == "many1"


def test_a_newcomer_who_would_hold_most_gives_way_itself() -> None:
    assert _held(few=2, many=5).surplus("many") == "many0"
    assert _held(few=3, many=3).surplus("many") == "many0"


def test_what_does_not_rest_goes_only_for_somebody_who_holds_less() -> None:
    shares = _held(few=2, many=4)
    assert shares.surplus("few", lambda key: key == "many3") == "many3"
    assert shares.surplus("few", lambda key: False) == "many0"
    assert shares.surplus("many", lambda key: False) is None
    assert _held(few=3, many=4).surplus("few", lambda key: False) is None


def test_what_changes_hands_or_goes_is_counted_where_it_is() -> None:
    shares = _held(one=3)
    shares.add("one0", "two")
    assert (len(shares), shares.surplus("three")) == (3, "one1")
    for key in ("one1", "one2", "one2"):
        shares.remove(key)
    assert (len(shares), shares.surplus("three")) == (1, "one0")
    shares.remove("one0")
    assert shares.surplus("three") is None
