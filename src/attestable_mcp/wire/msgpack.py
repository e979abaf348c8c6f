"""A strict reader of MessagePack, as far as dstack's attestations use it: scalars, text, bytes, lists, maps.

Source: the MessagePack specification. No floats and no extension types, no key twice, text in UTF-8, no byte left over.
Writers differ in the width of heads, so these need not be the shortest.
"""

from __future__ import annotations

from typing import NoReturn

from attestable_mcp.errors import MalformedEvidence
from attestable_mcp.limits import LIMITS

Value = None | bool | int | str | bytes | list["Value"] | dict[str, "Value"]
_NIL, _FALSE, _TRUE = 0xC0, 0xC2, 0xC3
_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
_UNSIGNED = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_SIGNED = {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_TEXT = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_LISTS = {0xDC: 2, 0xDD: 4}
_MAPS = {0xDE: 2, 0xDF: 4}


def is_map(data: bytes) -> bool:
    """Do these bytes begin as a map?"""
    return bool(data) and (data[0] >> 4 == 0x8 or data[0] in _MAPS)


def decode(data: bytes, *, field: str) -> Value:
    """The one value that these bytes hold. Raises: MalformedEvidence."""
    reader = _Reader(data, field)
    found = reader.value(0)
    if reader.at != len(data):
        reader.fail(f"{len(data) - reader.at} bytes after the value")
    return found


class _Reader:
    def __init__(self, data: bytes, field: str) -> None:
        self.data = data
        self.at = 0
        self.field = field
        self.left = LIMITS.evidence
        """Items that may still come. A list of small numbers has one for each byte of what it stands for."""

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            self.fail(f"wanted {size} bytes, seen {len(self.data) - self.at}")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def value(self, depth: int) -> Value:
        if depth > LIMITS.cbor_depth or self.left <= 0:
            self.fail("too deep, or too many items")
        self.left -= 1
        head = self.number(1)
        if head < 0x80:
            return head
        if head >= 0xE0:
            return head - 0x100
        if head < 0xC0:
            return self._short(head, depth)
        return self._long(head, depth)

    def _short(self, head: int, depth: int) -> Value:
        if head < 0x90:
            return self._map(head & 0x0F, depth)
        return self._list(head & 0x0F, depth) if head < 0xA0 else self._text(head & 0x1F)

    def _long(self, head: int, depth: int) -> Value:  # noqa: RET503 - fail never returns
        if head in (_NIL, _FALSE, _TRUE):
            return None if head == _NIL else head == _TRUE
        if head in _UNSIGNED:
            return self.number(_UNSIGNED[head])
        if head in _SIGNED:
            return int.from_bytes(self.take(_SIGNED[head]), "big", signed=True)
        if head in _BYTES:
            return self.take(self.number(_BYTES[head]))
        if head in _TEXT:
            return self._text(self.number(_TEXT[head]))
        if head in _LISTS:
            return self._list(self.number(_LISTS[head]), depth)
        if head in _MAPS:
            return self._map(self.number(_MAPS[head]), depth)
        self.fail(f"type {head:02x}, which no attestation has")

    def _text(self, size: int) -> str:
        try:
            return self.take(size).decode("utf-8")
        except UnicodeDecodeError:
            self.fail("text that is not UTF-8")

    def _list(self, count: int, depth: int) -> list[Value]:
        self._demand(count)
        return [self.value(depth + 1) for _ in range(count)]

    def _map(self, count: int, depth: int) -> dict[str, Value]:
        self._demand(2 * count)
        found: dict[str, Value] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, str) or key in found:
                self.fail("wanted text as keys, each once")
            found[key] = self.value(depth + 1)
        return found

    def _demand(self, count: int) -> None:
        """Each item has a byte at least: a count that cannot be met is refused before anything is made for it."""
        if count > len(self.data) - self.at:
            self.fail(f"{count} items, more than there are bytes")

    def fail(self, what: str) -> NoReturn:
        raise MalformedEvidence(f"MessagePack: {what}", field=self.field, offset=self.at)
