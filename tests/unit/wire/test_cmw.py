"""Conceptual message wrappers: read in CBOR and JSON, written in CBOR, and every deviation refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attestable_mcp.errors import MalformedEvidence, UnsupportedEvidence
from attestable_mcp.rats import Endorsements, SignedDocument
from attestable_mcp.wire import cbor, der
from attestable_mcp.wire.bag import read_bag, write_bag
from attestable_mcp.wire.cmw import OID_CMW, Record, read_extension, write_extension
from attestable_mcp.wire.x509 import read_certificate

ONE = Record(type="application/a", value=b"\xfb\xff", ind=4)
TWO = Record(type="application/b", value=b"")


def _cbor(value: object) -> bytes:
    return der.encode(der.OCTET_STRING, cbor.encode(value))  # type: ignore[arg-type]


def _json(value: object) -> bytes:
    return der.encode(der.UTF8_STRING, json.dumps(value).encode())


def test_what_is_written_is_read() -> None:
    assert read_extension(write_extension({"only": ONE})) == (ONE,)
    assert read_extension(write_extension({"b": ONE, "a": TWO})) == (TWO, ONE)  # canonical: by label


def test_json_says_the_same_as_cbor() -> None:
    assert read_extension(_json(["application/a", "-_8", 4])) == (ONE,)
    nested = {"__cmwc_t": "tag:example.com,2026:x", "x": {"y": ["Application/B", ""]}}
    assert read_extension(_json(nested)) == (TWO,)
    assert read_extension(_cbor({"__cmwc_t": "tag:example.com,2026:x", "x": {1: ["application/b", b""]}})) == (TWO,)


def test_types_that_are_no_media_types_keep_a_name() -> None:
    found = read_extension(_cbor({"a": [10000, b"x"], "b": cbor.Tagged(1668576818, b"x")}))
    assert [record.type for record in found] == ["CoAP content format 10000", "CBOR tag 1668576818"]


@pytest.mark.parametrize(
    "value",
    [
        b"", b"\x04", der.encode(der.OCTET_STRING, b""), _cbor(["a"]), _cbor(["a", b"", 1, 2]), _cbor(["a", b"", 0]),
        _cbor(["a", b"", True]), _cbor(["a", b"", -1]), _cbor(["a", b"", 1 << 16]), _cbor(["", b""]), _cbor([-1, b""]),
        _cbor([True, b""]), _cbor(["a", 7]), _cbor("a"), _cbor({"a": {"b": {"c": {"d": {"e": ["a", b""]}}}}}),
        _cbor({str(number): ["a", b""] for number in range(17)}), _cbor(["a", b""]) + b"\0", _json("a"),
        _json(["a", "+/8"]), _json(["a", "_x"]), _json(["a", "-_9"]), der.encode(der.UTF8_STRING, b'{"a":1,"a":2}'),
        der.encode(der.UTF8_STRING, b"\xff"), der.encode(der.INTEGER, b"\1"),
    ],
)  # fmt: skip
def test_deviations_are_refused(value: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        read_extension(value)


@pytest.mark.parametrize(
    ("name", "types"),
    [("cmw-cbor", ["application/rim+cose"]), ("cmw-json", ["application/vnd.a", "application/vnd.b"])],
)
def test_the_real_ones_are_read(vectors: Path, name: str, types: list[str]) -> None:
    leaf = read_certificate((vectors / "ratls" / name / "cert.der").read_bytes())
    extension = leaf.extension(OID_CMW)
    assert extension is not None
    assert [record.type for record in read_extension(extension.value)][: len(types)] == types


BAG = Endorsements(
    certificates=(b"c",),
    crls=(b"r",),
    documents=(SignedDocument(kind="event-log", body=b"b", signature=b"", issuer_chain=(b"i",)),),
    sources=("stapled",),
)


def test_a_bag_survives_its_wire_form() -> None:
    assert read_bag(write_bag(BAG)) == BAG


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"version": 2}, UnsupportedEvidence), ({"version": True}, UnsupportedEvidence),
        ({"more": 1}, MalformedEvidence),
        ({"certificates": b"c"}, MalformedEvidence), ({"certificates": ["c"]}, MalformedEvidence),
        ({"crls": [b"r"] * 33}, MalformedEvidence), ({"documents": [["k", b"b", b""]]}, MalformedEvidence),
        ({"documents": [["k", b"b", b"", ["i"]]]}, MalformedEvidence),
    ],
)  # fmt: skip
def test_bags_out_of_form_are_refused(changed: dict[str, object], error: type[Exception]) -> None:
    body = cbor.decode(write_bag(BAG))
    assert isinstance(body, dict)
    with pytest.raises(error):
        read_bag(cbor.encode(body | changed))  # type: ignore[operator]
