"""The strict DER reader and its writers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from attestable_mcp.errors import MalformedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.wire import der

HEADERS = [
    ("", "truncated", 0),
    ("30", "truncated", 1),
    ("3081", "truncated", 2),
    ("3003020101ff", "trailing_bytes", 5),
    ("3004020101", "truncated", 0),
    ("30800000", "indefinite_length", 1),
    ("308103020101", "not_minimal", 1),
    ("30820003020101", "not_minimal", 1),
    ("3085000000000100", "length_too_long", 1),
    ("3084ffffffff00", "truncated", 0),
    ("1f8100", "unexpected_tag", 0),
    ("0000", "unexpected_tag", 0),
]


@pytest.mark.parametrize(("data", "code", "offset"), HEADERS)
def test_a_header_that_is_not_der_is_refused(data: str, code: str, offset: int) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        der.parse(bytes.fromhex(data), base=100, field="part")
    assert (caught.value.code, caught.value.offset, caught.value.field) == (code, offset + 100, "part")


VALUES = [
    ("010101", "bad_boolean"),
    ("01020000", "bad_boolean"),
    ("0200", "bad_integer"),
    ("02020001", "not_minimal"),
    ("0202ffff", "not_minimal"),
    ("0300", "bad_bit_string"),
    ("030108", "bad_bit_string"),
    ("030101", "bad_bit_string"),
    ("03020101", "bad_bit_string"),
    ("050100", "bad_null"),
    ("0600", "bad_oid"),
    ("060181", "bad_oid"),
    ("0603558001", "not_minimal"),
    ("0615" + "ff" * 20 + "01", "bad_oid"),
    ("0c02c328", "bad_text"),
    ("1301e9", "bad_text"),
    ("1601e9", "bad_text"),
    ("170b3236303130313030303030", "bad_time"),
    ("170d3236313330313030303030305a", "bad_time"),
    ("170d3236303130313030303030302b", "bad_time"),
    ("180f32303236303233303030303030305a", "bad_time"),
    ("2403040161", "unexpected_tag"),
    ("1003020101", "unexpected_tag"),
    ("31060201020201 01", "set_not_sorted"),
]


@pytest.mark.parametrize(("data", "code"), VALUES)
@pytest.mark.parametrize("depth", [0, 2])
def test_check_holds_each_value_to_der_at_any_depth(data: str, code: str, depth: int) -> None:
    encoded = bytes.fromhex(data)
    for _ in range(depth):
        encoded = der.encode_sequence(encoded)
    with pytest.raises(MalformedEvidence) as caught:
        der.check(der.parse(encoded))
    assert caught.value.code == code
    assert caught.value.offset is not None


def test_check_refuses_deep_and_crowded_trees() -> None:
    deep = b""
    for _ in range(LIMITS.der_depth + 1):
        deep = der.encode_sequence(deep)
    with pytest.raises(MalformedEvidence) as caught:
        der.check(der.parse(deep))
    assert caught.value.code == "too_deep"
    crowded = der.encode_sequence(b"\x05\x00" * LIMITS.der_items)
    with pytest.raises(MalformedEvidence) as caught:
        der.check(der.parse(crowded))
    assert caught.value.code == "too_many_items"
    der.check(der.parse(der.encode_sequence(b"\x05\x00" * (LIMITS.der_items - 1))))


def test_a_reader_counts_offsets_from_the_outermost_input() -> None:
    outer = der.parse(der.encode_sequence(der.encode_integer(1), der.encode_sequence(der.encode_integer(2))))
    reader = outer.reader()
    reader.read(der.INTEGER)
    inner = reader.read(der.SEQUENCE)
    assert (inner.offset, inner.body_offset) == (5, 7)
    with pytest.raises(MalformedEvidence, match=r"wanted 0x30, seen 0x02.*at byte 7"):
        inner.reader().read(der.SEQUENCE)
    assert inner.reader().optional(der.NULL) is None
    with pytest.raises(MalformedEvidence, match="at byte 7"):
        inner.reader().end()


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255, 256, -1, -128, -129, 2**64, -(2**64)])
def test_integers_come_back(value: int) -> None:
    assert der.read_integer(der.parse(der.encode_integer(value))) == value


@pytest.mark.parametrize(
    "oid", ["2.23.133.5.4.9", "0.6.9.42.840.113741.1337.6", "1.3.6.1", "2.999.3", f"2.25.{2**127}"]
)
def test_oids_come_back(oid: str) -> None:
    assert der.read_oid(der.parse(der.encode_oid(oid))) == oid


@pytest.mark.parametrize("oid", ["1", "3.1", "1.40", "1.-1", "1.x"])
def test_what_is_no_oid_is_our_own_mistake(oid: str) -> None:
    with pytest.raises(ValueError):
        der.encode_oid(oid)


def test_times_of_both_kinds_mean_the_same_moment() -> None:
    moment = datetime(2021, 4, 1, 12, 30, 59, tzinfo=UTC)
    assert der.read_time(der.parse(b"\x17\x0d210401123059Z")) == moment
    assert der.read_time(der.parse(b"\x18\x0f20210401123059Z")) == moment
    assert der.read_time(der.parse(b"\x17\x0d500101000000Z")).year == 1950
    assert der.read_time(der.parse(b"\x17\x0d490101000000Z")).year == 2049


@pytest.mark.parametrize("size", [0, 127, 128, 255, 256, 65535, 65536])
def test_lengths_are_written_in_their_shortest_form(size: int) -> None:
    element = der.parse(der.encode_octet_string(b"x" * size), der.OCTET_STRING)
    assert len(element.body) == size
