"""Chains of receipts, verified offline: what is found in altered ones, and what cannot be found."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator

import pytest

from attestable_mcp.bind.audit import Audit, audit
from attestable_mcp.bind.keys import BindingKey
from attestable_mcp.bind.receipt import Head, Ledger, sign

KEY = BindingKey()
CHAIN = bytes(range(16))
T = bytes(64)


def written(
    count: int, *, key: BindingKey = KEY, chain: bytes = CHAIN, at: int = 5, heads: tuple[int, ...] = ()
) -> tuple[list[bytes], list[bytes]]:
    """Receipts of one chain, and a head after each number of `heads`."""
    ledger, receipts, found = Ledger(key, clock=lambda: at, names=lambda: chain), [], []
    for number in range(count):
        ledger.begin(chain, number)
        receipts.append(
            ledger.issue(
                chain, method="tools/call", name="add", request=bytes(32), result=bytes(32), item=b"", manifest=b"",
                transcript=T,
            )
        )  # fmt: skip
        if number + 1 in heads:
            found.append(ledger.head(chain, T))
    return receipts, found


def codes(found: Audit) -> list[tuple[str, int]]:
    return [(problem.code, problem.at) for problem in found.problems]


def test_a_whole_chain_holds_and_says_how_far_heads_reach() -> None:
    receipts, heads = written(10, heads=(4, 10))
    found = audit(receipts, heads, KEY.public, CHAIN)
    assert (found.whole, found.receipts, found.heads, found.covered) == (True, 10, 2, 10)
    assert audit(receipts, heads[:1], KEY.public, CHAIN).covered == 4
    assert audit(receipts, [], KEY.public, CHAIN).covered == 0
    assert not audit([], [], KEY.public, CHAIN).whole


def test_a_gap_a_reordering_and_a_second_history_are_found() -> None:
    receipts, heads = written(10, heads=(10,))
    assert codes(audit([*receipts[:3], *receipts[5:]], heads, KEY.public, CHAIN)) == [("gap", 3)]
    assert codes(audit(receipts[2:], [], KEY.public, CHAIN)) == [("gap", 0)]
    swapped = [*receipts[:3], receipts[4], receipts[3], *receipts[5:]]
    assert codes(audit(swapped, heads, KEY.public, CHAIN)) == [("gap", 3), ("reordered", 3)]
    other, other_heads = written(10, at=6, heads=(10,))
    assert ("fork", 4) in codes(audit([*receipts[:5], other[4], *receipts[5:]], [], KEY.public, CHAIN))
    assert codes(audit([*receipts[:5], *other[5:]], [], KEY.public, CHAIN)) == [("link", 5)]
    assert codes(audit(receipts, [*heads, *other_heads], KEY.public, CHAIN)) == [("heads_contradict", 10)]


def test_heads_that_contradict_are_found() -> None:
    receipts, heads = written(10, heads=(5, 10))
    forged = sign(Head(chain=CHAIN, size=5, root=bytes(64), time=0, transcript=T), KEY)
    assert codes(audit(receipts, [*heads, forged], KEY.public, CHAIN)) == [("heads_contradict", 5)]
    assert codes(audit(receipts, [forged], KEY.public, CHAIN)) == [("head_contradicts", 5)]


def test_the_last_receipt_is_missed_only_where_a_head_covers_it() -> None:
    receipts, heads = written(10, heads=(9, 10))
    assert codes(audit(receipts[:-1], heads, KEY.public, CHAIN)) == [("removed", 9)]
    shortened = audit(receipts[:-1], heads[:1], KEY.public, CHAIN)
    assert (shortened.whole, shortened.covered) == (True, 9)


def test_another_key_or_chain_is_found() -> None:
    receipts, heads = written(3, heads=(3,))
    other_key, _ = written(3, key=BindingKey())
    other_chain, other_heads = written(3, chain=bytes(16), heads=(3,))
    assert codes(audit([*receipts[:1], other_key[1], receipts[2]], heads, KEY.public, CHAIN)) == [
        ("receipt_signature", 1), ("gap", 1),
    ]  # fmt: skip
    assert codes(audit(other_chain, other_heads, KEY.public, CHAIN))[0] == ("other_chain", 0)
    assert codes(audit(receipts, heads, BindingKey().public, CHAIN))[0] == ("receipt_signature", 0)
    assert codes(audit(receipts, heads, b"short", CHAIN)) == [("bad_key", 0)]
    assert codes(audit(heads, receipts, KEY.public, CHAIN))[0] == ("other_chain", 0)


def test_many_problems_are_counted_and_few_are_kept() -> None:
    found = audit([b"x"] * 1000, [], KEY.public, CHAIN)
    assert found.found == 1000
    assert len(found.problems) == 100


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_twenty_thousand_receipts_in_twelve_seconds_and_flat_memory() -> None:
    """The aim is 100,000 in 60 s of one core: `bench/receipts.py` measures that, this holds the same rate."""

    def stream(count: int) -> Iterator[bytes]:
        ledger = Ledger(KEY, names=lambda: CHAIN)
        for number in range(count):
            ledger.begin(CHAIN, number)
            yield ledger.issue(
                CHAIN, method="tools/call", name="add", request=bytes(32), result=bytes(32), item=bytes(32),
                manifest=bytes(32), transcript=T,
            )  # fmt: skip

    begun = time.process_time()
    found = audit(stream(20_000), [], KEY.public, CHAIN)
    assert time.process_time() - begun < 12
    assert (found.whole, found.receipts) == (True, 20_000)
    tracemalloc.start()
    audit(stream(3_000), [], KEY.public, CHAIN)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 256 * 1024


def test_a_clock_that_was_set_back_is_told() -> None:
    """Numbers say the order, and hold; times are the server's word, and here they contradict it."""
    times = iter((5000, 9000, 4000, 6000, 1000))
    ledger, receipts = Ledger(KEY, clock=lambda: next(times), names=lambda: CHAIN), []
    for number in range(5):
        ledger.begin(CHAIN, number)
        receipts.append(
            ledger.issue(
                CHAIN, method="tools/call", name="add", request=bytes(32), result=bytes(32), item=b"", manifest=b"",
                transcript=T,
            )
        )  # fmt: skip
    found = audit(receipts, [], KEY.public, CHAIN)
    assert (found.whole, found.set_back) == (True, 2)
    assert found.to_json()["clock_set_back"] == 2
    assert audit(*written(5), KEY.public, CHAIN).set_back == 0
