"""The strict CBOR reader and writer, beside cbor2."""

from __future__ import annotations

import cbor2
import pytest

from attestable_mcp.errors import MalformedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.wire import cbor
from attestable_mcp.wire.cbor import Tagged

GOOD: list[cbor.Value] = [
    0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1, -1, -24, -25, -(2**64),
    b"", b"x" * 300, "", "é", True, False, None, [], [1, [2, [b"3"]]], {}, {"a": 1, 2: b"", b"k": None, -7: [True]},
]  # fmt: skip


@pytest.mark.parametrize("value", GOOD, ids=repr)
def test_values_read_and_write_as_cbor2_does(value: cbor.Value) -> None:
    encoded = cbor.encode(value)
    assert cbor2.loads(encoded) == value
    assert cbor.decode(cbor2.dumps(value)) == value
    assert cbor.decode(encoded) == value


@pytest.mark.parametrize("size", [0, 1, 22, 23, 24, 25, 254, 255, 256, 257])
def test_strings_of_every_head_are_read_back(size: int) -> None:
    values: list[cbor.Value] = [b"x" * size, "x" * size, {size: b"x" * size, "x" * size: 1}]
    for value in values:
        assert cbor.decode(cbor2.dumps(value)) == cbor.decode(cbor.encode(value)) == value


def test_tags_read_and_write_as_cbor2_does() -> None:
    value = Tagged(60000, [b"quote", {"k": Tagged(1, 2)}])
    theirs = cbor2.CBORTag(60000, [b"quote", {"k": cbor2.CBORTag(1, 2)}])
    assert cbor.encode(value) == cbor2.dumps(theirs)
    assert cbor.decode(cbor2.dumps(theirs)) == value


def test_map_keys_are_written_sorted_and_read_in_any_order() -> None:
    assert cbor.encode({"pubkey-hash": b"", "key_1": b"", "key_0": b""}).index(b"key_0") == 2
    assert cbor.decode(bytes.fromhex("a2616201616102")) == {"b": 1, "a": 2}


BAD = [
    ("", "truncated", 0),
    ("1801", "not_minimal", 0),
    ("1900ff", "not_minimal", 0),
    ("1a0000ffff", "not_minimal", 0),
    ("1b00000000ffffffff", "not_minimal", 0),
    ("5801", "not_minimal", 0),
    ("5817" + "00" * 23, "not_minimal", 0),
    ("7817" + "61" * 23, "not_minimal", 0),
    ("58", "truncated", 0),
    ("5818" + "00" * 23, "truncated", 0),
    ("78ff" + "61" * 254, "truncated", 0),
    ("7818" + "61" * 23 + "ff", "bad_text", 25),
    ("4261", "truncated", 0),
    ("19ff", "truncated", 0),
    ("5f4161ff", "indefinite_length", 0),
    ("7f6161ff", "indefinite_length", 0),
    ("9fff", "indefinite_length", 0),
    ("bfff", "indefinite_length", 0),
    ("1c", "bad_head", 0),
    ("ff", "bad_simple", 0),
    ("f7", "bad_simple", 0),
    ("f814", "bad_simple", 0),
    ("f93c00", "bad_simple", 0),
    ("fb3ff0000000000000", "bad_simple", 0),
    ("62c328", "bad_text", 1),
    ("a2616101616102", "duplicate_key", 4),
    ("a201010102", "duplicate_key", 3),
    ("a18001", "bad_key", 1),
    ("a1f501", "bad_key", 1),
    ("a1c10101", "bad_key", 1),
    ("0000", "trailing_bytes", 1),
    ("820101ff", "trailing_bytes", 3),
    ("8201", "truncated", 0),
    ("8281", "truncated", 0),
    ("a10102 00", "trailing_bytes", 3),
    ("5b0000010000000000", "truncated", 0),
    ("9b0000010000000000", "truncated", 0),
    ("bb0000010000000000", "truncated", 0),
    ("7bffffffffffffffff", "truncated", 0),
]


@pytest.mark.parametrize(("data", "code", "offset"), BAD)
def test_what_is_outside_the_subset_is_refused(data: str, code: str, offset: int) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        cbor.decode(bytes.fromhex(data), base=1000, field="claims")
    assert (caught.value.code, caught.value.offset, caught.value.field) == (code, offset + 1000, "claims")


def test_depth_items_and_size_have_limits() -> None:
    inside, beyond = LIMITS.cbor_depth - 1, LIMITS.cbor_depth
    cbor.decode(b"\x81" * inside + b"\x00")
    cases = {
        "too_deep": b"\x81" * beyond + b"\x00",
        "too_many_items": b"\x99" + LIMITS.cbor_items.to_bytes(2, "big") + bytes(LIMITS.cbor_items),
        "too_large": bytes(LIMITS.challenge_answer + 1),
    }
    for code, data in cases.items():
        with pytest.raises(MalformedEvidence) as caught:
            cbor.decode(data)
        assert caught.value.code == code
    with pytest.raises(MalformedEvidence) as caught:
        cbor.decode(b"\xc1" * beyond + b"\x00")
    assert caught.value.code == "too_deep"


def test_a_prefix_says_where_it_ends() -> None:
    assert cbor.decode_prefix(bytes.fromhex("8201020aff")) == ([1, 2], 3)


@pytest.mark.parametrize(
    "value", [1.5, {1, 2}, (1,), {True: 1}, {None: 1}, object()], ids=lambda value: type(value).__name__
)
def test_what_has_no_form_is_our_own_mistake(value: object) -> None:
    with pytest.raises(TypeError):
        cbor.encode(value)  # type: ignore[arg-type]


def test_numbers_over_64_bits_are_our_own_mistake() -> None:
    for value in (2**64, -(2**64) - 1):
        with pytest.raises(ValueError):
            cbor.encode(value)
