"""Verifies a chain of receipts and its tree heads, offline: signatures, order, gaps, contradictions. Memory stays flat.

What receipts alone cannot show: that the newest were not taken away. Only a head that covers them can; `covered` says
how far the heads reach. And no receipt says what an answer was: it holds digests, to be compared with a copy.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from attestable_mcp.bind.receipt import Head, Receipt, receipt_hash, verify
from attestable_mcp.bind.tree import Frontier
from attestable_mcp.errors import AttestationError

_MOST = 100
"""Problems that are told apart; `Audit.found` counts them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong, at which receipt of the chain (its number, or a head's size)."""

    code: str
    at: int
    message: str

    def to_json(self) -> dict[str, Any]:
        """code, at, message."""
        return {"code": self.code, "at": self.at, "message": self.message}


@dataclass(slots=True, kw_only=True)
class Audit:
    """What was found in one chain. `covered` is the size of the largest head whose root is that of these receipts."""

    receipts: int = 0
    heads: int = 0
    covered: int = 0
    first: datetime | None = None
    last: datetime | None = None
    set_back: int = 0
    """Receipts that are dated before the one that they follow."""
    found: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Every receipt holds, none is missing between them, and no head says otherwise."""
        return self.receipts > 0 and not self.found

    def note(self, code: str, at: int, message: str) -> None:
        """One more problem."""
        self.found += 1
        if len(self.problems) < _MOST:
            self.problems.append(Problem(code=code, at=at, message=message))

    def to_json(self) -> dict[str, Any]:
        """The public shape."""
        return {
            "receipts": self.receipts,
            "heads": self.heads,
            "covered_by_heads": self.covered,
            "first": self.first.isoformat() if self.first else None,
            "last": self.last.isoformat() if self.last else None,
            "clock_set_back": self.set_back,
            "whole": self.whole,
            "problems_found": self.found,
            "problems": [problem.to_json() for problem in self.problems],
        }


def audit(messages: Iterable[bytes], heads: Iterable[bytes], public: bytes, chain: bytes) -> Audit:
    """Go through a chain's receipts in the order in which they are given, which should be theirs.

    `public` is the raw Ed25519 key that should have signed all of them, `chain` its name.
    """
    found = Audit()
    try:
        key = Ed25519PublicKey.from_public_bytes(public)
    except ValueError:
        found.note("bad_key", 0, "the key is no Ed25519 key")
        return found
    walk = _Walk(found, _heads(found, heads, key, chain), chain)
    for message in messages:
        try:
            statement = verify(message, key)
        except AttestationError as error:
            found.note(error.code, walk.next, error.message)
        else:
            walk.take(statement, receipt_hash(message))
    walk.finish()
    return found


def _heads(found: Audit, messages: Iterable[bytes], key: Ed25519PublicKey, chain: bytes) -> dict[int, Head]:
    """The heads by size; two of one size with different roots contradict each other."""
    heads: dict[int, Head] = {}
    for message in messages:
        try:
            head = verify(message, key)
        except AttestationError as error:
            found.note(error.code, 0, f"tree head: {error.message}")
            continue
        if not isinstance(head, Head) or head.chain != chain:
            found.note("other_chain", 0, "tree head: it is of another chain, or none")
            continue
        found.heads += 1
        before = heads.setdefault(head.size, head)
        if before.root != head.root:
            found.note("heads_contradict", head.size, f"two heads over {head.size} receipts have different roots")
    return heads


class _Walk:
    """The receipts one after the other."""

    def __init__(self, found: Audit, heads: dict[int, Head], chain: bytes) -> None:
        self._found = found
        self._heads = heads
        self._chain = chain
        self._tree: Frontier | None = Frontier()
        self._last = b""
        self._linked = True
        self._time = 0
        self.next = 0

    def take(self, receipt: Receipt | Head, digest: bytes) -> None:
        found = self._found
        if not isinstance(receipt, Receipt) or receipt.chain != self._chain:
            found.note("other_chain", self.next, "it is of another chain, or no receipt")
            return
        found.receipts += 1
        if receipt.counter < self.next:
            same = receipt.counter == self.next - 1 and digest != self._last
            code = "fork" if same else "reordered"
            words = "two receipts have this number" if same else f"number {receipt.counter} comes after {self.next - 1}"
            found.note(code, receipt.counter, words)
            self._linked, self._tree = False, None
            return
        if receipt.counter > self.next:
            found.note("gap", self.next, f"{receipt.counter - self.next} missing before number {receipt.counter}")
            self._linked, self._tree = False, None
        elif self._linked and receipt.previous != self._last:
            found.note("link", receipt.counter, "it does not follow the receipt before it")
        self._advance(receipt, digest)

    def _advance(self, receipt: Receipt, digest: bytes) -> None:
        self._last, self._linked, self.next = digest, True, receipt.counter + 1
        self._found.set_back += receipt.time < self._time
        self._time = receipt.time
        seen = datetime.fromtimestamp(min(receipt.time, 253_402_300_799_999) / 1000, UTC)
        self._found.first, self._found.last = self._found.first or seen, seen
        if self._tree is not None:
            self._tree.push(digest)
            self._compare(self._heads.pop(self.next, None))

    def _compare(self, head: Head | None) -> None:
        if head is None or self._tree is None:
            return
        if head.root == self._tree.root:
            self._found.covered = max(self._found.covered, head.size)
        else:
            self._found.note("head_contradicts", head.size, f"the head over {head.size} receipts has another root")

    def finish(self) -> None:
        """Heads that speak of receipts which are not here."""
        for size in sorted(self._heads):
            if size > self.next:
                self._found.note("removed", self.next, f"a head covers {size} receipts: {size - self.next} are missing")
