"""The few CBOR writers that the simulated vendors need (RFC 8949 §3), indefinite lengths included.

Map keys stand in the order given: whoever writes canonical CBOR sorts them itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

Value: TypeAlias = "int | bytes | str | Sequence[Value] | Mapping[int, Value] | Mapping[str, Value] | None"


def encode(value: Value, *, indefinite: bool = False) -> bytes:
    """One item; `indefinite` writes the outermost map or array without its length, ended by a break."""
    match value:
        case None:
            return b"\xf6"
        case bool():
            return b"\xf5" if value else b"\xf4"
        case int():
            return head(0, value) if value >= 0 else head(1, -1 - value)
        case bytes():
            return head(2, len(value)) + value
        case str():
            return head(3, len(value.encode())) + value.encode()
        case Mapping():
            body = b"".join(encode(key) + encode(item) for key, item in value.items())
            return _framed(5, len(value), body, indefinite)
        case _:
            return _framed(4, len(value), b"".join(encode(item) for item in value), indefinite)


def _framed(major: int, count: int, body: bytes, indefinite: bool) -> bytes:
    return bytes([major << 5 | 31]) + body + b"\xff" if indefinite else head(major, count) + body


def head(major: int, argument: int) -> bytes:
    """Major type and argument in the shortest form."""
    if argument < 24:
        return bytes([major << 5 | argument])
    width = next(width for width in (1, 2, 4, 8) if argument < 1 << 8 * width)
    return bytes([major << 5 | 23 + width.bit_length()]) + argument.to_bytes(width, "big")
