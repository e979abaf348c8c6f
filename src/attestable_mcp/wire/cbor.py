"""Strict CBOR: the definite-length subset that RA-TLS and the live challenge use (RFC 8949).

Values: int, bytes, str, list, dict, bool, None and `Tagged`. Map keys are int, str or bytes, and each stands once.
Refused: indefinite lengths, heads that are not the shortest, floats and other simple values, text that is not UTF-8,
trailing bytes, and trees deeper or larger than LIMITS. A count or length is compared with the bytes left before
anything is allocated. The order of map keys is free on reading, since rats-tls writes claims as they come; `encode`
sorts them (RFC 8949 §4.2.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from attestable_mcp.limits import LIMITS
from attestable_mcp.wire.der import fail

Key: TypeAlias = int | str | bytes
Value: TypeAlias = "int | bytes | str | bool | list[Value] | dict[Key, Value] | Tagged | None"

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_FALSE, _TRUE, _NULL = 0xF4, 0xF5, 0xF6
_INDEFINITE = 31
_SMALLEST = {24: 24, 25: 0x100, 26: 0x10000, 27: 0x100000000}
_WIDTH = {24: 1, 25: 2, 26: 4, 27: 8}
_FIRST_TEXT = 0x60
_SHORT = {first: first & 0x1F for first in (*range(0x40, 0x59), *range(0x60, 0x79))}
"""Heads of bytes and text to their length; 24 says that it stands in the byte after."""
_NO_HEAD = 0xFF
_ITEMS, _DEPTH = LIMITS.cbor_items, LIMITS.cbor_depth
_LAST_KEY = 0x7F
"""Keys are numbers, bytes and text: the first four major types."""


@dataclass(frozen=True, slots=True)
class Tagged:
    """A value under a CBOR tag."""

    tag: int
    value: Value


def decode(data: bytes, *, base: int = 0, field: str = "", most: int = LIMITS.challenge_answer) -> Value:
    """The single value that fills `data` to the last byte.

    `base` is the offset of `data` in the outermost input, `most` the greatest size in bytes.

    Raises:
        MalformedEvidence: Any deviation from the subset, with its offset.
    """
    value, end = decode_prefix(data, base=base, field=field, most=most)
    if end != len(data):
        fail(f"{len(data) - end} bytes follow the CBOR value", field, base + end, "trailing_bytes")
    return value


def decode_prefix(
    data: bytes, *, base: int = 0, field: str = "", most: int = LIMITS.challenge_answer
) -> tuple[Value, int]:
    """The value at the start of `data` and the position after it.

    Raises:
        MalformedEvidence: Any deviation from the subset, with its offset.
    """
    if len(data) > most:
        fail(f"CBOR of {len(data)} bytes, at most {most} are read", field, base, "too_large")
    decoder = _Decoder(data, base, field)
    return decoder.value(1), decoder.position


class _Decoder:
    __slots__ = ("base", "data", "field", "items", "position", "size")

    def __init__(self, data: bytes, base: int, field: str) -> None:
        self.data = data
        self.size = len(data)
        self.base = base
        self.field = field
        self.position = 0
        self.items = 0

    def refuse(self, message: str, at: int, code: str) -> NoReturn:
        fail(message, self.field, self.base + at, code)

    def value(self, depth: int) -> Value:
        start = self.position
        self.items += 1
        if self.items > _ITEMS:
            self.refuse(f"more than {_ITEMS} CBOR items", start, "too_many_items")
        if depth > _DEPTH:
            self.refuse(f"CBOR nested deeper than {_DEPTH}", start, "too_deep")
        # What evidence mostly holds is read at once: numbers below 24, then bytes and text of up to 255.
        data, size = self.data, self.size
        first = data[start] if start < size else _NO_HEAD
        if first < 24:
            self.position = start + 1
            return first
        length = _SHORT.get(first)
        begin = start + 1
        if length == 24 and begin < size:
            length = data[begin] if data[begin] >= 24 else None
            begin += 1
        if length is None or begin + length > size:
            return self.any(start, depth)
        self.position = begin + length
        body = data[begin : begin + length]
        return body if first < _FIRST_TEXT else self.utf8(body)

    def any(self, start: int, depth: int) -> Value:
        major, argument = self.head()
        match major:
            case 0:
                return argument
            case 1:
                return -1 - argument
            case 2:
                return self.take(argument, start)
            case 3:
                return self.utf8(self.take(argument, start))
            case 4:
                return self.array(argument, start, depth)
            case 5:
                return self.map(argument, start, depth)
            case 6:
                return Tagged(argument, self.value(depth + 1))
        return self.simple(start)

    def head(self) -> tuple[int, int]:
        start = self.position
        if start >= len(self.data):
            self.refuse("CBOR ends where a value is wanted", start, "truncated")
        major, info = self.data[start] >> 5, self.data[start] & 0x1F
        self.position += 1
        if info < 24 or major == _SIMPLE:
            return major, info
        if info not in _WIDTH:
            code = "indefinite_length" if info == _INDEFINITE else "bad_head"
            self.refuse(f"CBOR head 0x{self.data[start]:02x} is not of the definite-length subset", start, code)
        argument = int.from_bytes(self.take(_WIDTH[info], start), "big")
        if argument < _SMALLEST[info]:
            self.refuse("CBOR head is not in its shortest form", start, "not_minimal")
        return major, argument

    def take(self, length: int, start: int) -> bytes:
        left = len(self.data) - self.position
        if length > left:
            self.refuse(f"CBOR length: wanted {length} bytes, only {left} left", start, "truncated")
        taken = self.data[self.position : self.position + length]
        self.position += length
        return taken

    def utf8(self, body: bytes) -> str:
        """The text that was just taken."""
        try:
            return body.decode("utf-8")
        except UnicodeDecodeError as error:
            self.refuse("CBOR text is not UTF-8", self.position - len(body) + error.start, "bad_text")

    def count(self, wanted: int, start: int) -> None:
        # Every item takes a byte at least: a count over the bytes left is a lie, found before anything is allocated.
        if wanted > len(self.data) - self.position:
            self.refuse(f"CBOR count: wanted {wanted} items, the bytes end before", start, "truncated")

    def array(self, length: int, start: int, depth: int) -> list[Value]:
        self.count(length, start)
        return [self.value(depth + 1) for _ in range(length)]

    def map(self, length: int, start: int, depth: int) -> dict[Key, Value]:
        self.count(2 * length, start)
        found: dict[Key, Value] = {}
        for _ in range(length):
            at = self.position
            if at < self.size and self.data[at] > _LAST_KEY:
                self.refuse("CBOR map key: wanted a number, text or bytes", at, "bad_key")
            key = self.value(depth + 1)
            assert isinstance(key, (int, str, bytes))
            if key in found:
                self.refuse(f"CBOR map key twice: {_show(key)}", at, "duplicate_key")
            found[key] = self.value(depth + 1)
        return found

    def simple(self, start: int) -> bool | None:
        seen = self.data[start]
        if seen not in (_FALSE, _TRUE, _NULL):
            self.refuse(f"CBOR head 0x{seen:02x}: only false, true and null are read", start, "bad_simple")
        return None if seen == _NULL else seen == _TRUE


def _show(key: Key) -> str:
    return repr(key if isinstance(key, int) else key[:40])


def encode(value: Value) -> bytes:
    """Deterministic CBOR (RFC 8949 §4.2.1): shortest heads, map keys sorted by their encoded bytes.

    Raises:
        TypeError: A type outside the subset: our own mistake.
        ValueError: A number over 64 bits: our own mistake.
    """
    match value:
        case None | bool():
            return bytes((_NULL if value is None else _TRUE if value else _FALSE,))
        case int():
            return _head(_UNSIGNED, value) if value >= 0 else _head(_NEGATIVE, -1 - value)
        case bytes():
            return _head(_BYTES, len(value)) + value
        case str():
            body = value.encode("utf-8")
            return _head(_TEXT, len(body)) + body
        case list():
            return _head(_ARRAY, len(value)) + b"".join(encode(item) for item in value)
        case dict():
            return _encode_map(value)
        case Tagged():
            return _head(_TAG, value.tag) + encode(value.value)
    raise TypeError(f"no CBOR form for {type(value).__name__}")


def _encode_map(value: dict[Key, Value]) -> bytes:
    for key in value:
        if isinstance(key, bool) or not isinstance(key, (int, str, bytes)):
            raise TypeError(f"no CBOR map key: {type(key).__name__}")
    pairs = sorted((encode(key), encode(item)) for key, item in value.items())
    return _head(_MAP, len(value)) + b"".join(key + item for key, item in pairs)


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes((major << 5 | argument,))
    for info, width in _WIDTH.items():
        if argument < 1 << 8 * width:
            return bytes((major << 5 | info,)) + argument.to_bytes(width, "big")
    raise ValueError("a CBOR number over 64 bits")
