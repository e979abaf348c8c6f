"""The one form in which TPM evidence is written, quickly: where its parts begin and end.

A TPM says something new each time, but the values of its PCRs stand for as long as nothing extends one: found as a
span, they are read once. What is not written in exactly this form is left to the general codec, which stays the
measure: a property test holds both to the same values.
"""

from __future__ import annotations

from typing import Final, TypedDict

from attestable_mcp.wire import cbor

PCR_SIZES: Final = {b"\x64sha1": 20, b"\x66sha256": 32, b"\x66sha384": 48, b"\x66sha512": 64}
"""Encoded names of banks, and how long their values are."""
_AK, _PCRS, _QUOTE, _VERSION, _SIGNATURE, _LOG, _CERTIFICATES = (
    cbor.encode(key) for key in ("ak", "pcrs", "quote", "version", "signature", "event_log", "ak_certificates")
)
_SMALLEST: Final = {0x58: 24, 0x59: 0x100, 0x5A: 0x10000}
_WIDTH: Final = {0x58: 1, 0x59: 2, 0x5A: 4}


class Parts(TypedDict):
    """The parts of TPM evidence. `pcrs` is the span of their map, unread; the rest is as `wire.tpm` names it."""

    ak: bytes
    pcrs: bytes
    quote: bytes
    signature: bytes
    event_log: bytes
    ak_certificates: list[bytes]


def parts(data: bytes) -> Parts | None:
    """The parts, where `data` is a map of them as deterministic CBOR (RFC 8949 section 4.2.1) has it; else None."""
    try:
        return _parts(data)
    except (IndexError, KeyError, ValueError):
        return None


def _parts(data: bytes) -> Parts:
    count, log = 5, b""
    certificates: list[bytes] = []
    ak, begin = _octets(data, _key(data, 1, _AK))
    begin = _key(data, begin, _PCRS)
    end = _banks(data, begin)
    quote, at = _octets(data, _key(data, end, _QUOTE))
    at = _key(data, at, _VERSION + b"\x01")
    if data.startswith(_LOG, at):
        log, at = _octets(data, at + len(_LOG))
        count += 1
    signature, at = _octets(data, _key(data, at, _SIGNATURE))
    if data.startswith(_CERTIFICATES, at):
        certificates, at = _list(data, at + len(_CERTIFICATES))
        count += 1
    if at != len(data) or data[0] != 0xA0 + count:
        raise ValueError
    return Parts(ak=ak, pcrs=data[begin:end], quote=quote, signature=signature, event_log=log,
                 ak_certificates=certificates)  # fmt: skip


def _key(data: bytes, at: int, key: bytes) -> int:
    """Where the value of this key begins. Raises: ValueError: another key stands there."""
    if not data.startswith(key, at):
        raise ValueError
    return at + len(key)


def _octets(data: bytes, at: int) -> tuple[bytes, int]:
    """A byte string and where it ends. Raises: ValueError, IndexError, KeyError: it is none, or cut short."""
    head, at = data[at], at + 1
    if 0x40 <= head < 0x58:
        end = at + head - 0x40
    else:
        size = int.from_bytes(data[at : at + _WIDTH[head]], "big")
        if size < _SMALLEST[head]:
            raise ValueError
        at += _WIDTH[head]
        end = at + size
    if end > len(data):
        raise ValueError
    return data[at:end], end


def _list(data: bytes, at: int) -> tuple[list[bytes], int]:
    found, left = [], data[at] - 0x80
    if not 0 <= left < 24:
        raise ValueError
    at += 1
    for _ in range(left):
        item, at = _octets(data, at)
        found.append(item)
    return found, at


def _banks(data: bytes, at: int) -> int:
    """Where the map of banks ends, going by the counts of their PCRs: all entries of a bank are equally long.

    That it is a map, and of what, is for the reader of the span to say: it has to fill it.
    """
    left, at = data[at] - 0xA0, at + 1
    for _ in range(left):
        name = data[at : at + 1 + (data[at] & 0x1F)]
        size, at = PCR_SIZES[name], at + len(name)
        count, at = data[at] - 0xA0, at + 1
        if count == 24:
            count, at = data[at], at + 1
        at += count * (1 + (1 if size < 24 else 2) + size)
    return at
