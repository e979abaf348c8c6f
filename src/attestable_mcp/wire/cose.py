"""COSE_Sign1 as AWS Nitro Enclaves write it, over a CBOR reader that takes indefinite lengths.

Nitro firmware since 2025 emits payload maps of indefinite length, so this reader accepts what the strict `wire.cbor`
refuses; RA-TLS and transcripts stay with the strict one. Still refused here: duplicate keys, trailing bytes, reserved
heads, depth or item counts over `LIMITS`. Sources: RFC 8949 §3, RFC 9052 §4.2 and §4.4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from attestable_mcp.errors import MalformedEvidence
from attestable_mcp.limits import LIMITS

Key: TypeAlias = "int | str | bytes"
Value: TypeAlias = "int | bytes | str | bool | list[Value] | dict[Key, Value] | None"
COSE_SIGN1_TAG: Final = 18
_BREAK: Final = object()
_INDEFINITE: Final = -1


class _Reader:
    """One pass over `data`; every head that it takes is counted."""

    def __init__(self, data: bytes, field: str) -> None:
        self.data = data
        self.at = 0
        self.items = 0
        self.field = field

    def fail(self, message: str) -> MalformedEvidence:
        return MalformedEvidence(f"CBOR: {message}", field=self.field, offset=self.at)

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise self.fail(f"wanted {size} more bytes, seen {len(self.data) - self.at}")
        self.at += size
        return self.data[self.at - size : self.at]

    def head(self) -> tuple[int, int]:
        """Major type and argument; the argument is -1 for an indefinite length."""
        self.items += 1
        if self.items > LIMITS.cbor_items:
            raise self.fail(f"more than {LIMITS.cbor_items} items")
        first = self.take(1)[0]
        major, low = first >> 5, first & 31
        if low < 24:
            return major, low
        if low <= 27:
            return major, int.from_bytes(self.take(1 << low - 24), "big")
        if low == 31 and major in (2, 3, 4, 5, 7):
            return major, _INDEFINITE
        raise self.fail(f"reserved head 0x{first:02x}")

    def value(self, depth: int) -> object:
        """One item, or `_BREAK`."""
        if depth > LIMITS.cbor_depth:
            raise self.fail(f"deeper than {LIMITS.cbor_depth}")
        major, argument = self.head()
        if major == 0:
            return argument
        if major == 1:
            return -1 - argument
        if major in (2, 3):
            return self.string(major, argument)
        if major == 4:
            return self.sequence(argument, depth)
        if major == 5:
            return self.mapping(argument, depth)
        if major == 6:
            raise self.fail(f"tag {argument} is not expected here")
        return self.simple(argument)

    def item(self, depth: int) -> Value:
        """One item that is not a break."""
        found = self.value(depth)
        if found is _BREAK:
            raise self.fail("a break where an item has to stand")
        return found  # type: ignore[return-value]

    def simple(self, argument: int) -> object:
        if argument == _INDEFINITE:
            return _BREAK
        if argument in (20, 21):
            return argument == 21
        if argument in (22, 23):
            return None
        raise self.fail(f"simple value or float {argument} is not expected here")

    def string(self, major: int, argument: int) -> bytes | str:
        raw = self.take(argument) if argument != _INDEFINITE else self.chunks(major)
        if major == 2:
            return raw
        try:
            return raw.decode()
        except UnicodeDecodeError as error:
            raise self.fail("text that is not UTF-8") from error

    def chunks(self, major: int) -> bytes:
        parts: list[bytes] = []
        while True:
            kind, argument = self.head()
            if kind == 7 and argument == _INDEFINITE:
                return b"".join(parts)
            if kind != major or argument == _INDEFINITE:
                raise self.fail("a chunk of another type in a string of indefinite length")
            parts.append(self.take(argument))

    def sequence(self, argument: int, depth: int) -> list[Value]:
        found: list[Value] = []
        while argument == _INDEFINITE or len(found) < argument:
            element = self.value(depth + 1)
            if element is _BREAK:
                if argument != _INDEFINITE:
                    raise self.fail("a break inside a definite array")
                break
            found.append(element)  # type: ignore[arg-type]
        return found

    def mapping(self, argument: int, depth: int) -> dict[Key, Value]:
        found: dict[Key, Value] = {}
        while argument == _INDEFINITE or len(found) < argument:
            key = self.value(depth + 1)
            if key is _BREAK:
                if argument != _INDEFINITE:
                    raise self.fail("a break inside a definite map")
                break
            if isinstance(key, bool) or not isinstance(key, (int, str, bytes)):
                raise self.fail("a map key that is neither number nor string")
            if key in found:
                raise self.fail(f"map key {key!r} twice")
            found[key] = self.item(depth + 1)
        return found


def read_lenient(data: bytes, field: str) -> Value:
    """Read exactly one item that fills `data`. Raises: MalformedEvidence."""
    reader = _Reader(data, field)
    found = reader.item(0)
    if reader.at != len(data):
        raise reader.fail(f"{len(data) - reader.at} bytes after the item")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign1:
    """A COSE_Sign1 message. `to_be_signed` is the Sig_structure that the signature covers, with empty external data."""

    algorithm: int
    protected: bytes
    payload: bytes
    signature: bytes
    tagged: bool

    @property
    def to_be_signed(self) -> bytes:
        """RFC 9052 §4.4: ["Signature1", protected, external_aad, payload]."""
        return b"\x84\x6aSignature1" + _bytes(self.protected) + b"\x40" + _bytes(self.payload)


def read_sign1(data: bytes) -> Sign1:
    """Read a COSE_Sign1, tagged (18) or not, with nothing after it. Raises: MalformedEvidence."""
    if len(data) > LIMITS.evidence:
        raise MalformedEvidence(f"COSE: wanted at most {LIMITS.evidence} bytes, seen {len(data)}", field="cose")
    tagged = data[:1] == bytes([0xC0 | COSE_SIGN1_TAG])
    message = read_lenient(data[1:] if tagged else data, "cose")
    if not isinstance(message, list) or len(message) != 4:
        raise MalformedEvidence("COSE_Sign1: wanted an array of 4", field="cose", offset=0)
    protected, unprotected, payload, signature = message
    if not (isinstance(protected, bytes) and isinstance(payload, bytes) and isinstance(signature, bytes)):
        raise MalformedEvidence("COSE_Sign1: wanted byte strings for protected, payload and signature", field="cose")
    if unprotected != {}:
        raise MalformedEvidence("COSE_Sign1: wanted an empty unprotected header", field="cose.unprotected")
    algorithm = _algorithm(protected)
    return Sign1(algorithm=algorithm, protected=protected, payload=payload, signature=signature, tagged=tagged)


def _algorithm(protected: bytes) -> int:
    """The only header that we know is `alg` (1); any other could change what the signature means."""
    header = read_lenient(protected, "cose.protected")
    if not isinstance(header, dict) or set(header) != {1}:
        raise MalformedEvidence("COSE_Sign1: wanted exactly the header alg (1)", field="cose.protected")
    algorithm = header[1]
    if isinstance(algorithm, bool) or not isinstance(algorithm, int):
        raise MalformedEvidence("COSE_Sign1: wanted a number for alg", field="cose.protected")
    return algorithm


def _bytes(data: bytes) -> bytes:
    size = len(data)
    if size < 24:
        return bytes([0x40 | size]) + data
    for low, width in ((24, 1), (25, 2), (26, 4)):
        if size < 1 << 8 * width:
            return bytes([0x40 | low]) + size.to_bytes(width, "big") + data
    raise MalformedEvidence("CBOR: byte string too long", field="cose")
