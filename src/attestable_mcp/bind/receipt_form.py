"""The one form in which receipts are written, quickly: a flat CBOR map whose keys are known and stand in their order.

Each call pays for one receipt written and one read, so neither goes through the general codec. It stays the measure:
what is not written in exactly this form is left to it, and a property test holds both to the same values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from attestable_mcp.wire import cbor

Scalar = int | bytes | str
KEYS: Final = (
    "chain", "counter", "previous", "time", "method", "name", "request", "result", "item", "manifest", "transcript",
)  # fmt: skip
"""What a receipt says, beside its kind and version."""
_WRITTEN: Final = tuple(sorted((cbor.encode(key), key) for key in (*KEYS, "kind", "version")))
_MAP: Final = bytes((0xA0 | len(_WRITTEN),))
_BYTES: Final = tuple(cbor.encode(bytes(size))[: 1 if size < 24 else 2] for size in range(256))
"""Heads of byte strings by their length."""
_SMALLEST: Final = {24: 24, 25: 0x100, 26: 0x10000, 27: 0x100000000}


def write(values: Mapping[str, Scalar]) -> bytes:
    """Deterministic CBOR (RFC 8949 section 4.2.1) of a map with exactly the keys of a receipt."""
    parts = [_MAP]
    for encoded, key in _WRITTEN:
        parts += (encoded, write_scalar(values[key]))
    return b"".join(parts)


def write_scalar(value: Scalar) -> bytes:
    """One value; short byte strings without detour."""
    if type(value) is bytes and len(value) < len(_BYTES):
        return _BYTES[len(value)] + value
    return cbor.encode(value)


def read(wrapped: bytes) -> dict[cbor.Key, cbor.Value] | None:
    """The map within a byte string, where both are written as `write` writes them; None for anything else."""
    try:
        payload, end = _scalar(wrapped, 0)
        if end != len(wrapped) or not isinstance(payload, bytes) or payload[:1] != _MAP:
            return None
        found: dict[cbor.Key, cbor.Value] = {}
        at = 1
        for encoded, key in _WRITTEN:
            if not payload.startswith(encoded, at):
                return None
            found[key], at = _scalar(payload, at + len(encoded))
    except (IndexError, ValueError):
        return None
    return found if at == len(payload) else None


def _scalar(data: bytes, at: int) -> tuple[Scalar, int]:
    """The number, byte string or text at `at`, and where it ends.

    Raises: ValueError, IndexError: it is something else, cut short, or not in its shortest form.
    """
    major, argument = data[at] >> 5, data[at] & 0x1F
    at += 1
    if argument > 23:
        end = at + (1 << argument - 24)
        smallest = _SMALLEST.get(argument)
        argument = int.from_bytes(data[at:end], "big")
        if smallest is None or argument < smallest or end > len(data):
            raise ValueError
        at = end
    if major == 0:
        return argument, at
    end = at + argument
    if major not in (2, 3) or end > len(data):
        raise ValueError
    return (data[at:end] if major == 2 else data[at:end].decode()), end
