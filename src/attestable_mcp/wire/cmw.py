"""Conceptual message wrappers (RFC 9999) in certificates: extension id-pe-cmw, in CBOR or JSON.

The extension holds `CHOICE { json UTF8String, cbor OCTET STRING }`. Inside stands a record `[type, value, ?ind]`, or a
collection that maps labels to records and further collections. A type is a media type; CoAP content formats (numbers)
and CBOR tags in place of a record are kept by a name in words, since none of ours goes by them. Nothing here says what
a record means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from attestable_mcp.errors import MalformedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.wire import base64url, cbor, der
from attestable_mcp.wire.collateral import read_json

OID_CMW = "1.3.6.1.5.5.7.1.35"
ENDORSEMENTS, EVIDENCE = 1 << 1, 1 << 2
"""Bits of `ind`: which conceptual messages a value holds (RFC 9999, conceptual message type indicator)."""
COLLECTION_TYPE = "__cmwc_t"
"""A member of a collection that names its type, and is no record."""
_UTF8_STRING = 0x0C
_RECORDS = 16
_DEPTH = 4
_INDICATORS = 0xFFFF


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One wrapped message. `type` is a media type in lower case without parameters' spaces; `ind` None where absent."""

    type: str
    value: bytes
    ind: int | None = None


def read_extension(value: bytes, *, base: int = 0) -> tuple[Record, ...]:
    """Every record in the value of id-pe-cmw, collections opened, in the order in which they stand.

    Raises:
        MalformedEvidence: any deviation from the format, or more than 16 records.
    """
    element = der.Reader(value, base, OID_CMW)
    choice = element.read()
    element.end()
    if choice.tag == der.OCTET_STRING:
        found = list(_records(cbor.decode(choice.body, base=choice.offset, field=OID_CMW, most=LIMITS.certificate), 0))
    elif choice.tag == _UTF8_STRING:
        found = list(_records(read_json(choice.body, field=OID_CMW), 0))
    else:
        raise MalformedEvidence("CMW: wanted a UTF8String or an OCTET STRING", field=OID_CMW, offset=base)
    if len(found) > _RECORDS:
        raise MalformedEvidence(f"CMW: wanted at most {_RECORDS} records, seen {len(found)}", field=OID_CMW)
    return tuple(found)


def _records(item: Any, depth: int) -> Iterator[Record]:
    if depth > _DEPTH:
        raise MalformedEvidence(f"CMW: collections deeper than {_DEPTH}", field=OID_CMW)
    if isinstance(item, list):
        yield _record(item)
    elif isinstance(item, dict):
        for label, member in item.items():
            if label != COLLECTION_TYPE:
                yield from _records(member, depth + 1)
    elif isinstance(item, cbor.Tagged):
        yield Record(type=f"CBOR tag {item.tag}", value=b"")
    else:
        raise MalformedEvidence("CMW: wanted a record or a collection", field=OID_CMW)


def _record(item: list[Any]) -> Record:
    if len(item) not in (2, 3):
        raise MalformedEvidence(f"CMW: wanted a record of 2 or 3 members, seen {len(item)}", field=OID_CMW)
    kind, value, ind = item[0], item[1], item[2] if len(item) == 3 else None
    if isinstance(ind, bool) or not (ind is None or (isinstance(ind, int) and 0 < ind <= _INDICATORS)):
        raise MalformedEvidence("CMW: wanted a number above zero as indicator", field=OID_CMW)
    return Record(type=_type(kind), value=_value(value), ind=ind)


def _type(kind: object) -> str:
    if isinstance(kind, str) and 1 <= len(kind) <= 256:
        return kind.lower()
    if isinstance(kind, int) and not isinstance(kind, bool) and 0 <= kind <= 0xFFFF:
        return f"CoAP content format {kind}"
    raise MalformedEvidence("CMW: wanted a media type or a content format", field=OID_CMW)


def _value(value: object) -> bytes:
    """Bytes in CBOR, base64url without padding in JSON."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise MalformedEvidence("CMW: wanted bytes, or base64url text", field=OID_CMW)
    try:
        return base64url.decode(value)
    except ValueError as error:
        raise MalformedEvidence("CMW: wanted base64url without padding, in its one form", field=OID_CMW) from error


def write_extension(records: Mapping[str, Record]) -> bytes:
    """The value of id-pe-cmw in CBOR: the record itself if there is one, else a collection by label."""
    written: dict[cbor.Key, cbor.Value] = {label: _written(record) for label, record in records.items()}
    body = next(iter(written.values())) if len(written) == 1 else written
    return der.encode(der.OCTET_STRING, cbor.encode(body))


def _written(record: Record) -> cbor.Value:
    member: list[cbor.Value] = [record.type, record.value]
    return member if record.ind is None else [*member, record.ind]
