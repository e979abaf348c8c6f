"""The one form in which receipts are written, quickly: a flat CBOR map whose keys are known and stand in their order.

Each call pays for one receipt written and one read, so neither goes through the general codec. It stays the measure:
what is not written in exactly this form is left to it, and property tests hold both to the same bytes and values.
"""

from __future__ import annotations

import re
from typing import Final, TypedDict

from attestable_mcp.wire import cbor


class Values(TypedDict):
    """What a receipt says, beside its kind and version."""

    chain: bytes
    counter: int
    previous: bytes
    time: int
    method: str
    name: str
    request: bytes
    result: bytes
    item: bytes
    manifest: bytes
    transcript: bytes


KEYS: Final = tuple(Values.__annotations__)
NAME_MAX: Final = 1024
"""Characters of a method or name."""
_BYTES: Final = tuple(cbor.encode(bytes(size))[: 1 if size < 24 else 2] for size in range(256))
"""Heads of byte strings by their length."""
_TEXT: Final = tuple(cbor.encode("a" * size)[: 1 if size < 24 else 2] for size in range(256))
"""Heads of texts by their length in bytes."""
_NUMBERS: Final = tuple(map(cbor.encode, range(256)))
_FORM: Final = (
    b"\xad\x64item%b%b\x64kind\x67receipt\x64name%b\x64time%b\x65chain%b%b\x66method%b\x66result%b%b"
    b"\x67counter%b\x67request%b%b\x67version\x01\x68manifest%b%b\x68previous%b%b\x6atranscript%b%b"
)
"""Keys and values, byte strings as their head and what is in them."""
_SMALLEST: Final = {2: 24, 3: 0x100, 5: 0x10000, 9: 0x100000000}
"""The least number or length whose head has so many bytes (RFC 8949 section 4.2.1)."""
_NUMBER: Final = rb"([\x00-\x17]|\x18.|\x19.{2}|\x1a.{4}|\x1b.{8})"
_DIGEST: Final = rb"\x58\x20(.{32})"
_MAYBE: Final = rb"(?:\x40|" + _DIGEST + rb")"
# The map from one text, whose length only its head knows, to the next. Each part has one way to match.
_TO_NAME: Final = re.compile(rb"\xad\x64item" + _MAYBE + rb"\x64kind\x67receipt\x64name", re.DOTALL)
_TO_METHOD: Final = re.compile(rb"\x64time" + _NUMBER + rb"\x65chain\x50(.{16})\x66method", re.DOTALL)
_TO_END: Final = re.compile(
    rb"\x66result" + _DIGEST + rb"\x67counter" + _NUMBER + rb"\x67request" + _DIGEST + rb"\x67version\x01"
    rb"\x68manifest(?:\x40|\x58(?:\x20(.{32})|\x30(.{48})|\x40(.{64})))\x68previous" + _MAYBE
    + rb"\x6atranscript\x58\x40(.{64})",
    re.DOTALL,
)  # fmt: skip


def write(
    *, chain: bytes, counter: int, previous: bytes, time: int, method: str, name: str, request: bytes, result: bytes,
    item: bytes, manifest: bytes, transcript: bytes,
) -> bytes:  # fmt: skip
    """Deterministic CBOR (RFC 8949 section 4.2.1) of a receipt; byte strings have at most 255 bytes."""
    return _FORM % (
        _BYTES[len(item)], item, _written(name), _number(time), _BYTES[len(chain)], chain, _written(method),
        _BYTES[len(result)], result, _number(counter), _BYTES[len(request)], request, _BYTES[len(manifest)], manifest,
        _BYTES[len(previous)], previous, _BYTES[len(transcript)], transcript,
    )  # fmt: skip


def _written(text: str) -> bytes:
    data = text.encode()
    return _TEXT[len(data)] + data if len(data) < len(_TEXT) else cbor.encode(text)


def _number(value: int) -> bytes:
    if 0xFFFFFFFF < value < 1 << 64:
        return b"\x1b" + value.to_bytes(8, "big")
    if 0 <= value < len(_NUMBERS):
        return _NUMBERS[value]
    return b"\x19" + value.to_bytes(2, "big") if 0xFF < value < 0x10000 else cbor.encode(value)


def wrap(payload: bytes) -> bytes:
    """As a byte string."""
    size = len(payload)
    return b"\x59" + size.to_bytes(2, "big") + payload if 0xFF < size < 0x10000 else cbor.encode(payload)


def read(wrapped: bytes) -> Values | None:
    """A receipt within a byte string, where both are written as above and each part has its size; None otherwise."""
    try:
        begin, end = _span(wrapped, 0, 2)
        return _read(wrapped, begin) if end == len(wrapped) else None
    except (IndexError, ValueError):
        return None


def _read(data: bytes, begin: int) -> Values | None:
    if (first := _TO_NAME.match(data, begin)) is None:
        return None
    at, end = _span(data, first.end(), 3)
    name = data[at:end].decode()
    if (second := _TO_METHOD.match(data, end)) is None:
        return None
    at, end = _span(data, second.end(), 3)
    method = data[at:end].decode()
    third = _TO_END.fullmatch(data, end)
    if third is None or len(name) > NAME_MAX or len(method) > NAME_MAX:
        return None
    time, chain = second.groups()
    result, counter, request, short, middle, long, previous, transcript = third.groups(b"")
    manifest = short or middle or long
    return {
        "chain": chain, "counter": _value(counter), "previous": previous, "time": _value(time), "method": method,
        "name": name, "request": request, "result": result, "item": first[1] or b"", "manifest": manifest,
        "transcript": transcript,
    }  # fmt: skip


def _span(data: bytes, at: int, major: int) -> tuple[int, int]:
    """Where the bytes or the text at `at` begin and end.

    Raises: ValueError, IndexError: it is something else, cut short, longer than any receipt, or its head is.
    """
    head, size = data[at] >> 5, data[at] & 0x1F
    at += 1
    if size > 23:
        width = size - 23
        size = int.from_bytes(data[at : at + width], "big")
        if width > 2 or size < _SMALLEST[1 + width]:
            raise ValueError
        at += width
    if head != major or at + size > len(data):
        raise ValueError
    return at, at + size


def _value(number: bytes) -> int:
    """Raises: ValueError for a number that is not in its shortest form."""
    if len(number) == 1:
        return number[0]
    found = int.from_bytes(number[1:], "big")
    if found < _SMALLEST[len(number)]:
        raise ValueError
    return found
