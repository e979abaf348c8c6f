"""The COSE and Nitro readers take what AWS writes and nothing looser."""

from __future__ import annotations

import cbor2
import pytest

from attestable_mcp.errors import EvidenceError, MalformedEvidence, UnsupportedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.wire.cose import read_lenient, read_sign1
from attestable_mcp.wire.nitro import read_document

PAYLOAD: dict[str, object] = {
    "module_id": "i-1-enc2",
    "digest": "SHA384",
    "timestamp": 1_700_000_000_000,
    "pcrs": {number: bytes([number + 1]) * 48 for number in range(16)},
    "certificate": b"leaf",
    "cabundle": [b"root"],
    "public_key": None,
}


def _document(payload: dict[str, object] | bytes, algorithm: int = -35, tag: bytes = b"") -> bytes:
    body = payload if isinstance(payload, bytes) else cbor2.dumps(payload)
    return tag + cbor2.dumps([cbor2.dumps({1: algorithm}), {}, body, bytes(96)])


def test_a_document_is_read_tagged_or_not() -> None:
    for tag in (b"", b"\xd2"):
        document = read_document(_document(PAYLOAD, tag=tag))
        assert document.pcrs[15] == b"\x10" * 48
        assert document.public_key == document.user_data == document.nonce == b""
        assert document.message.tagged is bool(tag)


def test_what_is_signed_is_rfc_9052s_structure() -> None:
    message = read_sign1(_document(PAYLOAD))
    assert message.to_be_signed == cbor2.dumps(["Signature1", message.protected, b"", message.payload])


def test_indefinite_lengths_are_read_here() -> None:
    assert read_lenient(bytes.fromhex("bf6161 9f01ff 6162 5f41004101ff ff"), "x") == {"a": [1], "b": b"\0\1"}


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "ff",
        "a2616101616102",
        "bf616101616102ff",
        "0000",
        "5f6161ff",
        "9f",
        "1c",
        "f97e00",
        "c0f6",
        "82ff00",
        "61ff",
    ],
)
def test_loose_cbor_is_refused(raw: str) -> None:
    with pytest.raises(MalformedEvidence):
        read_lenient(bytes.fromhex(raw), "x")


def test_depth_items_and_lengths_are_bounded() -> None:
    for raw in (b"\x81" * 64 + b"\0", b"\x9f" + b"\0" * (LIMITS.cbor_items + 1) + b"\xff", b"\x5b" + b"\xff" * 8):
        with pytest.raises(MalformedEvidence):
            read_lenient(raw, "x")


@pytest.mark.parametrize(
    "change",
    [
        {"pcrs": {}},
        {"pcrs": {0: bytes(48)}},
        {"pcrs": {0: bytes(47), 1: bytes(48), 2: bytes(48)}},
        {"timestamp": 1 << 60},
        {"timestamp": True},
        {"module_id": ""},
        {"cabundle": []},
        {"nonce": bytes(2000)},
        {"extra": 1},
        {"digest": "SHA256"},
        {"certificate": "text"},
    ],
)
def test_a_field_outside_its_bounds_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(EvidenceError):
        read_document(_document(PAYLOAD | change))


def test_a_missing_field_and_another_algorithm_are_refused() -> None:
    for name in ("module_id", "pcrs", "certificate", "cabundle", "timestamp", "digest"):
        with pytest.raises(MalformedEvidence, match=name):
            read_document(_document({key: value for key, value in PAYLOAD.items() if key != name}))
    with pytest.raises(UnsupportedEvidence):
        read_document(_document(PAYLOAD, algorithm=-7))


def test_debug_is_three_zero_pcrs() -> None:
    zero = {number: bytes(48) for number in range(16)}
    assert read_document(_document(PAYLOAD | {"pcrs": zero})).debug
    assert not read_document(_document(PAYLOAD | {"pcrs": zero | {1: b"\1" * 48}})).debug
