"""The transcript's bytes are a contract: golden vectors and the sizes of its parts."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestable_mcp.bind.transcript import Role, Transcript, frame

FULL = Transcript(
    role=Role.SERVER,
    counter=7,
    previous=b"\x01" * 64,
    nonce=b"\x02" * 32,
    exporter=b"\x03" * 32,
    own_spki=b"\x04" * 32,
    peer_spki=b"\x05" * 32,
    deployment_key=b"\x06" * 32,
    manifest=b"\x07" * 32,
    configuration=b"\x08" * 64,
    binding_key=b"\x09" * 32,
)
FIRST = Transcript(role=Role.CLIENT, nonce=b"\xaa" * 32, exporter=b"\xbb" * 32, own_spki=b"\xcc" * 32)
GOLDEN = {
    "full": "fbd28eac281699c551c3d18bb25b24b50b31f6975db889f08b87fa21beb0df35"
    "4613695a2262c352f761d14013c62d8750c30bf5d3f2aac47e264b35bc9045f8",
    "first": "6816f6e03655b0357895c86e6cc62b6aee9e276044d8371352747304da4eb837"
    "4e7ffc5637ef6e47c370072cd290a24d87c3262d1b44fbbd03c41c351721b96f",
}


def _by_hand(*parts: bytes) -> str:
    return hashlib.sha512(b"".join(struct.pack(">I", len(part)) + part for part in parts)).hexdigest()


def test_the_order_of_the_parts_is_the_documented_one() -> None:
    assert FULL.digest().hex() == _by_hand(
        b"attestable-mcp/bind/v1", b"server", struct.pack(">Q", 7), b"\x01" * 64, b"\x02" * 32, b"\x03" * 32,
        b"\x04" * 32, b"\x05" * 32, b"\x06" * 32, b"\x07" * 32, b"\x08" * 64, b"\x09" * 32,
    )  # fmt: skip
    assert FIRST.digest().hex() == _by_hand(
        b"attestable-mcp/bind/v1", b"client", bytes(8), b"", b"\xaa" * 32, b"\xbb" * 32, b"\xcc" * 32,
        b"", b"", b"", b"", b"",
    )  # fmt: skip


@pytest.mark.parametrize(("name", "transcript"), [("full", FULL), ("first", FIRST)])
def test_c12_golden_vectors_of_the_transcript(name: str, transcript: Transcript) -> None:
    assert transcript.digest().hex() == GOLDEN[name]
    assert len(transcript.digest()) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"role": Role.CLIENT}, {"counter": 8}, {"previous": b""}, {"nonce": b"\x00" * 32}, {"exporter": b"\x00" * 32},
        {"own_spki": b"\x00" * 32}, {"peer_spki": b""}, {"deployment_key": b""}, {"manifest": b""},
        {"configuration": b"\x08" * 32}, {"binding_key": b""},
    ],
)  # fmt: skip
def test_every_part_changes_the_digest(change: dict[str, object]) -> None:
    assert replace(FULL, **change).digest() != FULL.digest()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"counter": -1}, {"counter": 1 << 64}, {"previous": b"x" * 63}, {"nonce": b""}, {"nonce": b"x" * 33},
        {"exporter": b"x" * 31}, {"own_spki": b""}, {"peer_spki": b"x"}, {"deployment_key": b"x" * 64},
        {"manifest": b"x" * 31}, {"configuration": b"x" * 65}, {"binding_key": b"x" * 31},
    ],
)  # fmt: skip
def test_parts_of_another_size_are_the_callers_mistake(change: dict[str, object]) -> None:
    with pytest.raises(TypeError, match="transcript"):
        replace(FULL, **change)  # type: ignore[arg-type]


@given(st.lists(st.binary(max_size=9), max_size=5), st.lists(st.binary(max_size=9), max_size=5))
def test_no_two_lists_of_parts_frame_alike(first: list[bytes], second: list[bytes]) -> None:
    assert (frame(*first) == frame(*second)) == (first == second)
