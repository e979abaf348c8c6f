"""Strict DER: one way to read each value, and every other way refused (ITU-T X.690 §8, §10, §11).

`Reader` walks one level at a time under the eye of a schema; `check` walks a whole tree and looks at every byte.
Single-byte tags only: no certificate, CRL or key of our formats uses the high-tag-number form.
Offsets in errors count from the start of the outermost input, through `base`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import NoReturn

from attestable_mcp.errors import MalformedEvidence
from attestable_mcp.limits import LIMITS

BOOLEAN = 0x01
INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
NULL = 0x05
OID = 0x06
UTF8_STRING = 0x0C
PRINTABLE_STRING = 0x13
IA5_STRING = 0x16
UTC_TIME = 0x17
GENERALIZED_TIME = 0x18
VISIBLE_STRING = 0x1A
SEQUENCE = 0x30
SET = 0x31

_CONSTRUCTED = 0x20
_CLASS = 0xC0
_HIGH_TAG = 0x1F
_LENGTH_BYTES = 4
_OID_ARC_BYTES = 19
"""An OID arc of 2.25 (UUID) needs 128 bits: 19 groups of seven."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One tag-length-value. `raw` is the exact span with its header, `offset` its start in the outermost input."""

    tag: int
    body: bytes
    raw: bytes
    offset: int

    @property
    def body_offset(self) -> int:
        """Where `body` starts in the outermost input, in bytes."""
        return self.offset + len(self.raw) - len(self.body)

    def reader(self, field: str = "") -> Reader:
        """A reader over the content of this element."""
        return Reader(self.body, self.body_offset, field)


class Reader:
    """Reads the elements of one level, in order. `base` is the offset of `data` in the outermost input."""

    __slots__ = ("_base", "_data", "_field", "_position")

    def __init__(self, data: bytes, base: int = 0, field: str = "") -> None:
        self._data = data
        self._base = base
        self._field = field
        self._position = 0

    @property
    def offset(self) -> int:
        """The offset of the next element in the outermost input."""
        return self._base + self._position

    @property
    def empty(self) -> bool:
        """Is everything read?"""
        return self._position == len(self._data)

    def peek(self) -> int | None:
        """The tag of the next element, None at the end."""
        return None if self.empty else self._data[self._position]

    def read(self, tag: int | None = None, field: str = "") -> Element:
        """The next element, of `tag` if one is wanted.

        Raises:
            MalformedEvidence: Nothing left, another tag, or a header that is not DER.
        """
        name = field or self._field
        if self.empty:
            fail("DER ends where an element is wanted", name, self.offset, "truncated")
        found = self._data[self._position]
        if tag is not None and found != tag:
            fail(f"DER tag: wanted 0x{tag:02x}, seen 0x{found:02x}", name, self.offset, "unexpected_tag")
        return self._take(found, name)

    def optional(self, tag: int, field: str = "") -> Element | None:
        """The next element if it has `tag`, else None and nothing is consumed."""
        return self.read(tag, field) if self.peek() == tag else None

    def end(self) -> None:
        """Demands that everything was read.

        Raises:
            MalformedEvidence: Bytes are left.
        """
        if not self.empty:
            left = len(self._data) - self._position
            fail(f"{left} bytes follow where the DER must end", self._field, self.offset, "trailing_bytes")

    def _take(self, tag: int, field: str) -> Element:
        if tag & _HIGH_TAG == _HIGH_TAG or tag == 0:
            fail(f"DER tag 0x{tag:02x} has no place in these formats", field, self.offset, "unexpected_tag")
        start = self._position
        length, body_start = _read_length(self._data, start + 1, self._base, field)
        end = body_start + length
        if end > len(self._data):
            seen = len(self._data) - body_start
            fail(f"DER length: wanted {length} bytes, only {seen} left", field, self._base + start, "truncated")
        self._position = end
        data = self._data
        return Element(tag=tag, body=data[body_start:end], raw=data[start:end], offset=self._base + start)


def fail(message: str, field: str, offset: int, code: str) -> NoReturn:
    """Raises MalformedEvidence. Shared by the readers of this room."""
    raise MalformedEvidence(message, field=field, offset=offset, code=code)


def _read_length(data: bytes, at: int, base: int, field: str) -> tuple[int, int]:
    if at >= len(data):
        fail("DER ends inside a header", field, base + at, "truncated")
    first = data[at]
    if first < 0x80:
        return first, at + 1
    if first == 0x80:
        fail("DER knows no indefinite length", field, base + at, "indefinite_length")
    count = first & 0x7F
    if count > _LENGTH_BYTES:
        fail(f"DER length of {count} bytes, at most {_LENGTH_BYTES} are read", field, base + at, "length_too_long")
    if at + 1 + count > len(data):
        fail("DER ends inside a header", field, base + len(data), "truncated")
    length = int.from_bytes(data[at + 1 : at + 1 + count], "big")
    if length < 0x80 or data[at + 1] == 0:
        fail("DER length is not in its shortest form", field, base + at, "not_minimal")
    return length, at + 1 + count


def span(data: bytes, at: int, field: str = "") -> tuple[int, int, int]:
    """Tag, start of the body and end of the element at offset `at` of `data`, without an object for it.

    For hot paths that need the raw spans of a few elements; the caller compares `end` with what holds the element.

    Raises:
        MalformedEvidence: Nothing there, a header that is not DER, or a body that `data` does not hold.
    """
    if at + 2 > len(data):
        fail("DER ends where an element is wanted", field, at, "truncated")
    length, start = data[at + 1], at + 2
    if length >= 0x80:
        length, start = _read_length(data, at + 1, 0, field)
    if start + length > len(data):
        fail(f"DER length: wanted {length} bytes, only {len(data) - start} left", field, at, "truncated")
    return data[at], start, start + length


def parse(data: bytes, tag: int | None = None, *, base: int = 0, field: str = "") -> Element:
    """The single element that fills `data` to the last byte.

    Raises:
        MalformedEvidence: Not exactly one element, or another tag than wanted.
    """
    reader = Reader(data, base, field)
    element = reader.read(tag)
    reader.end()
    return element


def check(element: Element, field: str = "") -> None:
    """Walks the whole tree under `element` and holds each universal value to DER (X.690 §11).

    Raises:
        MalformedEvidence: Any byte breaks DER, or the tree is deeper or larger than LIMITS allow.
    """
    pending = [(element, 1)]
    seen = 1
    while pending:
        current, depth = pending.pop()
        _check_value(current, field)
        if not current.tag & _CONSTRUCTED:
            continue
        if depth >= LIMITS.der_depth:
            fail(f"DER nested deeper than {LIMITS.der_depth}", field, current.offset, "too_deep")
        children = _children(current, field, LIMITS.der_items - seen)
        seen += len(children)
        pending.extend((child, depth + 1) for child in children)


def _children(element: Element, field: str, most: int) -> list[Element]:
    reader = element.reader(field)
    children: list[Element] = []
    while not reader.empty:
        if len(children) >= most:
            fail(f"more than {LIMITS.der_items} DER elements", field, reader.offset, "too_many_items")
        children.append(reader.read())
    if element.tag == SET and any(a.raw > b.raw for a, b in pairwise(children)):
        fail("members of a DER SET are not sorted", field, element.offset, "set_not_sorted")
    return children


def _check_value(element: Element, field: str) -> None:
    if element.tag & _CLASS:
        return
    if bool(element.tag & _CONSTRUCTED) != (element.tag & _HIGH_TAG in (SEQUENCE & _HIGH_TAG, SET & _HIGH_TAG)):
        fail(f"DER tag 0x{element.tag:02x} is not encoded this way", field, element.offset, "unexpected_tag")
    checker = _CHECKS.get(element.tag)
    if checker is not None:
        checker(element, field)


def read_boolean(element: Element, field: str = "") -> bool:
    """BOOLEAN: 0x00 or 0xff only (X.690 §11.1).

    Raises:
        MalformedEvidence: Any other byte or length.
    """
    _want(element, BOOLEAN, field)
    if element.body not in (b"\x00", b"\xff"):
        fail(f"DER BOOLEAN: wanted 00 or ff, seen {element.body[:4].hex()}", field, element.body_offset, "bad_boolean")
    return element.body == b"\xff"


def read_integer(element: Element, field: str = "") -> int:
    """INTEGER in its shortest form, two's complement (X.690 §8.3).

    Raises:
        MalformedEvidence: Empty, or longer than needed.
    """
    _want(element, INTEGER, field)
    body = element.body
    if not body:
        fail("DER INTEGER without a byte", field, element.offset, "bad_integer")
    if len(body) > 1 and (body[0] == 0x00) == (body[1] < 0x80) and body[0] in (0x00, 0xFF):
        fail("DER INTEGER is not in its shortest form", field, element.body_offset, "not_minimal")
    return int.from_bytes(body, "big", signed=True)


def read_oid(element: Element, field: str = "") -> str:
    """OBJECT IDENTIFIER in dotted form (X.690 §8.19).

    Raises:
        MalformedEvidence: Empty, cut inside an arc, an arc with leading zero groups, or of more than 128 bits.
    """
    _want(element, OID, field)
    body = element.body
    if not body or body[-1] & 0x80:
        fail("DER OBJECT IDENTIFIER ends inside an arc", field, element.body_offset, "bad_oid")
    arcs = _oid_arcs(element, field)
    first = min(arcs[0] // 40, 2)
    return ".".join(str(arc) for arc in (first, arcs[0] - 40 * first, *arcs[1:]))


def _oid_arcs(element: Element, field: str) -> list[int]:
    arcs: list[int] = []
    value = groups = 0
    for index, byte in enumerate(element.body):
        if not groups and byte == 0x80:
            fail(
                "DER OBJECT IDENTIFIER arc is not in its shortest form",
                field,
                element.body_offset + index,
                "not_minimal",
            )
        value, groups = value << 7 | byte & 0x7F, groups + 1
        if groups > _OID_ARC_BYTES:
            fail("DER OBJECT IDENTIFIER arc of more than 128 bits", field, element.body_offset + index, "bad_oid")
        if not byte & 0x80:
            arcs.append(value)
            value = groups = 0
    return arcs


def read_bit_string(element: Element, field: str = "") -> tuple[bytes, int]:
    """BIT STRING as (bytes, number of unused low bits of the last byte); unused bits are zero (X.690 §11.2).

    Raises:
        MalformedEvidence: No count of unused bits, a count over 7 or without a byte to apply to, or unused bits set.
    """
    _want(element, BIT_STRING, field)
    if not element.body or element.body[0] > 7 or (len(element.body) == 1 and element.body[0]):
        fail("DER BIT STRING with an impossible count of unused bits", field, element.body_offset, "bad_bit_string")
    unused, bits = element.body[0], element.body[1:]
    if unused and bits[-1] & ((1 << unused) - 1):
        fail("DER BIT STRING with unused bits set", field, element.body_offset, "bad_bit_string")
    return bits, unused


def read_time(element: Element, field: str = "") -> datetime:
    """UTCTime or GeneralizedTime in the one form of RFC 5280 §4.1.2.5: to the second, Zulu. Timezone-aware UTC.

    RFC 5280 wants UTCTime up to 2049; the SGX SDK writes GeneralizedTime for 2021, and the reading is unambiguous:
    either is taken for any year.

    Raises:
        MalformedEvidence: Another tag, another form, or no such moment.
    """
    if element.tag not in (UTC_TIME, GENERALIZED_TIME):
        fail(f"DER time: wanted tag 0x17 or 0x18, seen 0x{element.tag:02x}", field, element.offset, "unexpected_tag")
    digits = element.body[:-1]
    wanted = 12 if element.tag == UTC_TIME else 14
    if len(digits) != wanted or element.body[-1:] != b"Z" or not digits.isdigit():
        fail("DER time: wanted [YY]YYMMDDHHMMSSZ", field, element.body_offset, "bad_time")
    text = digits.decode("ascii")
    if element.tag == UTC_TIME:
        text = ("19" if text >= "50" else "20") + text
    year, rest = int(text[:4]), [int(text[i : i + 2]) for i in range(4, 14, 2)]
    try:
        return datetime(year, rest[0], rest[1], rest[2], rest[3], rest[4], tzinfo=UTC)
    except ValueError:
        fail(f"DER time: {text} is no moment", field, element.body_offset, "bad_time")


def _check_null(element: Element, field: str) -> None:
    if element.body:
        fail("DER NULL with content", field, element.body_offset, "bad_null")


def _check_utf8(element: Element, field: str) -> None:
    try:
        element.body.decode("utf-8")
    except UnicodeDecodeError as error:
        fail("DER UTF8String is not UTF-8", field, element.body_offset + error.start, "bad_text")


def _check_ascii(element: Element, field: str) -> None:
    if not element.body.isascii():
        fail("DER string with bytes over 0x7f", field, element.body_offset, "bad_text")


_CHECKS: dict[int, Callable[[Element, str], object]] = {
    BOOLEAN: read_boolean,
    INTEGER: read_integer,
    BIT_STRING: read_bit_string,
    NULL: _check_null,
    OID: read_oid,
    UTC_TIME: read_time,
    GENERALIZED_TIME: read_time,
    UTF8_STRING: _check_utf8,
    PRINTABLE_STRING: _check_ascii,
    IA5_STRING: _check_ascii,
    VISIBLE_STRING: _check_ascii,
}


def _want(element: Element, tag: int, field: str) -> None:
    if element.tag != tag:
        fail(f"DER tag: wanted 0x{tag:02x}, seen 0x{element.tag:02x}", field, element.offset, "unexpected_tag")


def encode(tag: int, body: bytes) -> bytes:
    """One element of a single-byte tag with the shortest length.

    Raises:
        ValueError: The tag is no single byte tag, or the body is over 4 GiB: our own mistake.
    """
    if not 0 < tag < 0x100 or tag & _HIGH_TAG == _HIGH_TAG:
        raise ValueError(f"not a single-byte DER tag: {tag:#x}")
    size = len(body)
    if size < 0x80:
        return bytes((tag, size)) + body
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    if len(length) > _LENGTH_BYTES:
        raise ValueError("a DER body over 4 GiB")
    return bytes((tag, 0x80 | len(length))) + length + body


def encode_sequence(*members: bytes) -> bytes:
    """SEQUENCE of encoded members."""
    return encode(SEQUENCE, b"".join(members))


def encode_integer(value: int) -> bytes:
    """INTEGER in its shortest form."""
    size = (value if value >= 0 else ~value).bit_length() // 8 + 1
    return encode(INTEGER, value.to_bytes(size, "big", signed=True))


def encode_octet_string(body: bytes) -> bytes:
    """OCTET STRING."""
    return encode(OCTET_STRING, body)


def encode_oid(dotted: str) -> bytes:
    """OBJECT IDENTIFIER of a dotted text such as "2.23.133.5.4.9".

    Raises:
        ValueError: Not an OID: our own mistake.
    """
    arcs = [int(part) for part in dotted.split(".")]
    if len(arcs) < 2 or min(arcs) < 0 or arcs[0] > 2 or (arcs[0] < 2 and arcs[1] > 39):
        raise ValueError(f"not an OID: {dotted}")
    return encode(OID, b"".join(_encode_arc(arc) for arc in (arcs[0] * 40 + arcs[1], *arcs[2:])))


def _encode_arc(arc: int) -> bytes:
    groups = [arc & 0x7F]
    while arc := arc >> 7:
        groups.append(arc & 0x7F | 0x80)
    return bytes(reversed(groups))
