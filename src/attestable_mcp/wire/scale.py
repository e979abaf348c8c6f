"""SCALE, the compact encoding of Substrate, as far as dstack's attestations use it: numbers, bytes, text, lists.

Source: Polkadot SDK, "Type encoding (SCALE)". Strict: lengths in their shortest form, text in UTF-8, no byte left over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn, TypeVar

from attestable_mcp.errors import MalformedEvidence

_T = TypeVar("_T")
_ITEMS = 4096


class Reader:
    """Reads one value after another; `field` names it all in errors. Raises: MalformedEvidence."""

    def __init__(self, data: bytes, *, field: str) -> None:
        self._data = data
        self._at = 0
        self._field = field

    def take(self, size: int) -> bytes:
        """So many bytes as they stand."""
        if size > len(self._data) - self._at:
            self._fail(f"wanted {size} bytes, seen {len(self._data) - self._at}")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        """A fixed unsigned number, little-endian."""
        return int.from_bytes(self.take(size), "little")

    def compact(self) -> int:
        """A length: one, two or four bytes, whose lowest two bits say which; more is no length of ours."""
        first = self.number(1)
        mode = first & 3
        if mode == 0:
            return first >> 2
        if mode == 3:
            self._fail("a number of more than 30 bits")
        found = (first | self.number(2 * mode - 1) << 8) >> 2
        if found < 1 << (6 if mode == 1 else 14):
            self._fail("a length that is not in its shortest form")
        return found

    def octets(self) -> bytes:
        """A vector of bytes."""
        return self.take(self.compact())

    def text(self) -> str:
        """A string."""
        try:
            return self.octets().decode("utf-8")
        except UnicodeDecodeError:
            self._fail("text that is not UTF-8")

    def items(self, read: Callable[[Reader], _T]) -> list[_T]:
        """A vector of anything else."""
        count = self.compact()
        if count > _ITEMS:
            self._fail(f"wanted at most {_ITEMS} items, seen {count}")
        return [read(self) for _ in range(count)]

    def end(self) -> None:
        """Nothing may follow."""
        if self._at != len(self._data):
            self._fail(f"{len(self._data) - self._at} bytes after the value")

    def _fail(self, what: str) -> NoReturn:
        raise MalformedEvidence(f"SCALE: {what}", field=self._field, offset=self._at)
