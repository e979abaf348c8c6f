"""Challenge and answer: strict forms, and the checks that tie an answer to one connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestable_mcp.bind.keys import BindingKey
from attestable_mcp.bind.live import (
    Answer,
    AttestedKey,
    Challenge,
    Commitments,
    KeyProof,
    Method,
    QuoteProof,
    check,
    check_key,
    rebuild,
)
from attestable_mcp.bind.transcript import Role, Transcript
from attestable_mcp.bind.tree import Tree
from attestable_mcp.errors import AttestationError, ChannelMismatch, MalformedEvidence, NotFresh
from attestable_mcp.limits import LIMITS, Limits
from attestable_mcp.rats import Evidence, EvidenceKind
from attestable_mcp.wire import cbor

AT = datetime(2026, 11, 1, tzinfo=UTC)
EVIDENCE = Evidence(kind=EvidenceKind.INTEL_QUOTE, body=b"quote")
KEY = BindingKey()
SOCKET: dict[str, Any] = {"role": Role.SERVER, "exporter": b"e" * 32, "own_spki": b"s" * 32}


def _quoted(challenge: Challenge, *others: bytes, **socket: Any) -> tuple[Answer, Any]:
    """An honest answer (leaf 0 of a tree with `others`), and claims whose report data is its root."""
    answer = Answer(
        counter=challenge.counter,
        binding_key=KEY.public,
        commitments=Commitments(manifest=b"m" * 32),
        proof=QuoteProof(evidence=EVIDENCE),
    )
    digest = rebuild(answer, challenge, **(SOCKET | socket)).digest()
    tree = Tree([digest, *others])
    proof = QuoteProof(evidence=EVIDENCE, index=0, size=tree.size, path=tree.path(0), signature=KEY.sign(digest))
    claims = SimpleNamespace(report_data=tree.root)
    return replace(answer, proof=proof), SimpleNamespace(claims=claims, evidence_digest=EVIDENCE.digest)


def _signed(challenge: Challenge, key: BindingKey = KEY) -> tuple[Answer, Transcript]:
    answer = Answer(
        counter=challenge.counter,
        binding_key=key.public,
        commitments=Commitments(),
        proof=KeyProof(signature=bytes(64)),
    )
    transcript = rebuild(answer, challenge, **SOCKET)
    return replace(answer, proof=KeyProof(signature=key.sign(transcript.digest()))), transcript


def _known(age: float = 0, key: BindingKey = KEY) -> AttestedKey:
    return AttestedKey(public=key.public, evidence_digest="d", attested_at=AT - timedelta(seconds=age))


@pytest.mark.parametrize(
    "challenge", [Challenge(), Challenge(counter=(1 << 64) - 1, previous=b"p" * 64, known_key=b"k" * 32)]
)
def test_a_challenge_survives_its_wire_form(challenge: Challenge) -> None:
    assert Challenge.decode(challenge.encode()) == challenge


def test_nonces_are_never_the_same() -> None:
    assert len({Challenge().nonce for _ in range(100)}) == 100


@pytest.mark.parametrize("others", [(), (b"o" * 64,), (b"o" * 64, b"p" * 64)])
def test_an_answer_survives_its_wire_form_and_binds(others: tuple[bytes, ...]) -> None:
    challenge = Challenge()
    answer, verified = _quoted(challenge, *others)
    again = Answer.decode(answer.encode())
    assert again == answer
    binding = check(again, verified, rebuild(again, challenge, **SOCKET))
    assert binding.method is Method.QUOTE
    assert binding.binding_key == KEY.public


def test_a_signed_answer_survives_its_wire_form_and_binds() -> None:
    answer, transcript = _signed(Challenge(counter=3, previous=b"p" * 64, known_key=KEY.public))
    again = Answer.decode(answer.encode())
    assert again == answer
    binding = check_key(again, _known(599), transcript, at=AT, max_age_seconds=600)
    assert (binding.method, binding.counter, binding.evidence_digest) == (Method.KEY, 3, "d")


@pytest.mark.parametrize(
    "socket", [{"exporter": b"f" * 32}, {"own_spki": b"t" * 32}, {"role": Role.CLIENT}, {"peer_spki": b"c" * 32}]
)
def test_c3_another_socket_is_a_channel_mismatch(socket: dict[str, Any]) -> None:
    challenge = Challenge()
    answer, verified = _quoted(challenge)
    with pytest.raises(ChannelMismatch) as caught:
        check(answer, verified, rebuild(answer, challenge, **(SOCKET | socket)))
    assert caught.value.code == "channel_binding_mismatch"


def test_c2_evidence_that_names_anothers_binding_key_is_refused() -> None:
    """Its sender is attested, and says that a key is its own which another holds: a client's identity is that key."""
    challenge, thief = Challenge(), BindingKey()
    answer, verified = _quoted(challenge)
    transcript = rebuild(answer, challenge, **SOCKET)
    assert isinstance(answer.proof, QuoteProof)
    for signature in (thief.sign(transcript.digest()), KEY.sign(bytes(64)), bytes(64), b""):
        with pytest.raises(ChannelMismatch) as caught:
            check(replace(answer, proof=replace(answer.proof, signature=signature)), verified, transcript)
        assert "its signature" in caught.value.message


def test_c1_an_answer_to_another_nonce_is_refused() -> None:
    answer, verified = _quoted(Challenge())
    with pytest.raises(ChannelMismatch):
        check(answer, verified, rebuild(answer, Challenge(), **SOCKET))


def test_c13_an_answer_to_the_challenge_before_is_not_fresh() -> None:
    challenge = Challenge()
    answer, verified = _quoted(challenge)
    following = replace(challenge, counter=1, previous=b"p" * 64)
    with pytest.raises(NotFresh):
        check(answer, verified, rebuild(answer, following, **SOCKET))
    with pytest.raises(ChannelMismatch):
        check(replace(answer, counter=1), verified, rebuild(answer, following, **SOCKET))


@pytest.mark.parametrize(
    "change",
    [
        {"commitments": Commitments(manifest=b"n" * 32)},
        {"commitments": Commitments(manifest=b"m" * 32, configuration=b"c" * 32)},
        {"commitments": Commitments(manifest=b"m" * 32, deployment_key=b"d" * 32)},
        {"binding_key": b"\x01" * 32},
    ],
)
def test_a_changed_commitment_is_a_channel_mismatch(change: dict[str, Any]) -> None:
    challenge = Challenge()
    answer, verified = _quoted(challenge)
    changed = replace(answer, **change)
    with pytest.raises(ChannelMismatch):
        check(changed, verified, rebuild(changed, challenge, **SOCKET))


def test_claims_of_other_evidence_do_not_bind() -> None:
    challenge = Challenge()
    answer, verified = _quoted(challenge)
    verified.evidence_digest = "0" * 64
    with pytest.raises(ChannelMismatch, match="not the one of this answer"):
        check(answer, verified, rebuild(answer, challenge, **SOCKET))


def test_a_key_that_was_not_attested_is_refused() -> None:
    stranger = BindingKey()
    answer, transcript = _signed(Challenge(), stranger)
    with pytest.raises(ChannelMismatch):
        check_key(answer, _known(), transcript, at=AT, max_age_seconds=600)
    impostor = replace(answer, binding_key=KEY.public)
    with pytest.raises(ChannelMismatch):
        check_key(impostor, _known(), rebuild(impostor, Challenge(), **SOCKET), at=AT, max_age_seconds=600)


@pytest.mark.parametrize("age", [601, -1])
def test_a_key_outside_its_age_is_not_fresh(age: float) -> None:
    answer, transcript = _signed(Challenge())
    with pytest.raises(NotFresh):
        check_key(answer, _known(age), transcript, at=AT, max_age_seconds=600)


def test_the_two_checks_do_not_judge_each_others_proofs() -> None:
    quoted, verified = _quoted(Challenge())
    signed, transcript = _signed(Challenge())
    with pytest.raises(TypeError):
        check(signed, verified, transcript)
    with pytest.raises(TypeError):
        check_key(quoted, _known(), transcript, at=AT, max_age_seconds=600)


def _fields(answer: Answer) -> dict[Any, Any]:
    fields = cbor.decode(answer.encode())
    assert isinstance(fields, dict)
    return fields


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2}, {"version": True}, {"counter": -1}, {"counter": "0"}, {"key": b"k" * 31},
        {"deployment_key": b"x"}, {"manifest": "text"}, {"configuration": b"c" * 33}, {"kind": "elf"}, {"kind": 1},
        {"evidence": b""}, {"evidence": b"q" * (LIMITS.evidence + 1)}, {"evidence": "q"}, {"index": 1}, {"size": 0},
        {"size": 1 << 30}, {"path": [b"x" * 63]}, {"path": [bytes(64)] * 21}, {"path": b""}, {"nonce": b"n" * 32},
    ],
)  # fmt: skip
def test_answers_out_of_form_are_malformed(change: dict[Any, Any]) -> None:
    answer, _ = _quoted(Challenge())
    with pytest.raises(MalformedEvidence):
        Answer.decode(cbor.encode(_fields(answer) | change))


@pytest.mark.parametrize("key", ["version", "counter", "key", "manifest", "kind", "evidence", "index", "size", "path"])
def test_answers_that_lack_a_key_are_malformed(key: str) -> None:
    fields = _fields(_quoted(Challenge())[0])
    del fields[key]
    with pytest.raises(MalformedEvidence):
        Answer.decode(cbor.encode(fields))


def test_sizes_are_capped_before_anything_is_read() -> None:
    with pytest.raises(MalformedEvidence, match="at most 100 bytes"):
        Answer.decode(b"\x00" * 101, limits=Limits(challenge_answer=100))
    with pytest.raises(MalformedEvidence, match="at most 100 bytes"):
        Challenge.decode(b"\x00" * 101, limits=Limits(challenge_request=100))


def test_every_truncation_and_extension_is_malformed() -> None:
    for whole, reader in ((_quoted(Challenge())[0].encode(), Answer), (Challenge().encode(), Challenge)):
        for end in range(len(whole)):
            with pytest.raises(MalformedEvidence):
                reader.decode(whole[:end])  # type: ignore[attr-defined]
        with pytest.raises(MalformedEvidence):
            reader.decode(whole + b"\x00")  # type: ignore[attr-defined]


def _fate(call: Callable[[], object]) -> object:
    """What it gave, or the family's error; anything else leaves and fails the test."""
    try:
        return call()
    except AttestationError as error:
        return error


@given(st.binary(max_size=300))
def test_random_bytes_are_malformed_or_a_challenge(data: bytes) -> None:
    assert isinstance(_fate(lambda: Challenge.decode(data)), MalformedEvidence | Challenge)
    assert isinstance(_fate(lambda: Answer.decode(data)), MalformedEvidence | Answer)


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_a_flipped_byte_never_binds(place: int, mask: int) -> None:
    challenge = Challenge(nonce=b"n" * 32)
    answer, verified = _quoted(challenge, b"o" * 64)
    raw = bytearray(answer.encode())
    raw[place % len(raw)] ^= mask

    def judge() -> object:
        changed = Answer.decode(bytes(raw))
        return check(changed, verified, rebuild(changed, challenge, **SOCKET))

    assert isinstance(_fate(judge), AttestationError)
