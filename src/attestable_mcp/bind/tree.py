"""One quote for many waiting connections: a hash tree over their transcripts.

Shape of RFC 6962 section 2.1 (the same as RFC 9162 section 2.1): a tree of n leaves splits at the largest power of two
below n. SHA-512; leaves are hashed behind 0x00 and nodes behind 0x01, so that a node can never pass for a leaf.
The root of a single leaf is its leaf hash and its path is empty.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from attestable_mcp.errors import MalformedEvidence

HASH_SIZE = 64


def leaf_hash(leaf: bytes) -> bytes:
    """SHA-512(0x00 || leaf)."""
    return hashlib.sha512(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-512(0x01 || left || right)."""
    return hashlib.sha512(b"\x01" + left + right).digest()


class Tree:
    """All levels of the tree over `leaves`, so that each of n paths costs log2(n) look-ups.

    Pairing neighbours and lifting an odd last node unchanged gives the same shape as the recursive split.
    """

    __slots__ = ("_levels",)

    def __init__(self, leaves: Sequence[bytes]) -> None:
        if not leaves:
            raise TypeError("a tree needs at least one leaf")
        self._levels = [[leaf_hash(leaf) for leaf in leaves]]
        while len(self._levels[-1]) > 1:
            self._levels.append(_next_level(self._levels[-1]))

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0])

    @property
    def root(self) -> bytes:
        """64 bytes."""
        return self._levels[-1][0]

    def path(self, index: int) -> tuple[bytes, ...]:
        """Sibling hashes from the leaf upwards."""
        if not 0 <= index < self.size:
            raise TypeError(f"leaf index wanted 0..{self.size - 1}, seen {index}")
        found = []
        for level in self._levels[:-1]:
            if index ^ 1 < len(level):
                found.append(level[index ^ 1])
            index >>= 1
        return tuple(found)


def _next_level(level: list[bytes]) -> list[bytes]:
    pairs = [node_hash(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
    return pairs + level[len(pairs) * 2 :]


class Frontier:
    """The root of a tree that only grows, in log2(n) hashes of memory: the roots of its perfect subtrees.

    New leaves wait for each other, a few at most: hashed together they cost half, since whoever pushes one does much
    else in between.
    """

    __slots__ = ("_peaks", "_waiting", "size")
    _TOGETHER = 32

    def __init__(self) -> None:
        self._peaks: list[tuple[int, bytes]] = []
        self._waiting: list[bytes] = []
        self.size = 0

    def push(self, leaf: bytes) -> None:
        """One more leaf, on the right."""
        self._waiting.append(leaf)
        self.size += 1
        if len(self._waiting) == self._TOGETHER:
            self._fold()

    def _fold(self) -> None:
        for leaf in self._waiting:
            height, node = 0, leaf_hash(leaf)
            while self._peaks and self._peaks[-1][0] == height:
                node = node_hash(self._peaks.pop()[1], node)
                height += 1
            self._peaks.append((height, node))
        self._waiting.clear()

    @property
    def root(self) -> bytes:
        """64 bytes, the same as `root` over all leaves so far. Raises: TypeError for a tree without leaves."""
        self._fold()
        if not self._peaks:
            raise TypeError("a tree needs at least one leaf")
        found = self._peaks[-1][1]
        for _, node in reversed(self._peaks[:-1]):
            found = node_hash(node, found)
        return found


def root(leaves: Sequence[bytes]) -> bytes:
    """Root over `leaves` (64 bytes)."""
    return Tree(leaves).root


def path(leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """Inclusion path of leaf `index`, from the leaf upwards."""
    return Tree(leaves).path(index)


def root_from_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes:
    """The root that `path` leads to from `leaf` at `index` of `size` leaves (RFC 9162 section 2.1.3.2).

    Raises:
        MalformedEvidence: index out of range, a node of another size, or a path too short or too long for this place.
    """
    if not 0 <= index < size:
        raise MalformedEvidence(f"inclusion path: index wanted below {size}, seen {index}", field="index")
    if any(len(node) != HASH_SIZE for node in path):
        raise MalformedEvidence(f"inclusion path: every node wanted {HASH_SIZE} bytes", field="path")
    current, at, last = leaf_hash(leaf), index, size - 1
    for node in path:
        if last == 0:
            raise MalformedEvidence(f"inclusion path: too long for {size} leaves", field="path")
        if at & 1 or at == last:
            current = node_hash(node, current)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            current = node_hash(current, node)
        at, last = at >> 1, last >> 1
    if last:
        raise MalformedEvidence(f"inclusion path: too short for {size} leaves", field="path")
    return current
