"""The bundle's bytes: one content has one form, and nothing else is read."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from attestable_mcp.errors import EvidenceError, MalformedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import DocumentKind, EndorsementQuery, Endorsements, SignedDocument, Tee
from attestable_mcp.wire import cbor
from attestable_mcp.wire.bundle import (
    MAGIC,
    Bundle,
    FileSubject,
    LiveSubject,
    Refusal,
    SourceAnswer,
    StoredAnchor,
    StoredIssuer,
    StoredPolicy,
    is_bundle,
    read_bundle,
    recorded_result,
    recorded_verdict,
)

QUERY = EndorsementQuery(tee=Tee.TDX, parameters={"fmspc": "00" * 6, "pck_ca": "platform"})
BAG = Endorsements(
    certificates=(b"cert",),
    crls=(b"crl", b"other"),
    documents=(
        SignedDocument(
            kind=DocumentKind.INTEL_TCB_INFO, body=b"{}", signature=b"s" * 64, issuer_chain=(b"leaf", b"root")
        ),
    ),
    sources=("PCS",),
)
FILE = Bundle(
    made_at=datetime(2026, 6, 1, 12, 30, 15, 123456, tzinfo=UTC),
    source="quote.bin",
    subject=FileSubject(data=b"\x04\x00quote"),
    policy=StoredPolicy(name="prod.toml", toml="[policy]\n", accept_statuses=("OutOfDate",), simulated=True),
    anchors=(
        StoredAnchor(
            vendor="intel", name="Root", spki_sha256="ab" * 32, simulated=False, replaced=True, certificate=b"DER"
        ),
    ),
    issuers=(
        StoredIssuer(
            profile="ear",
            issuer="https://as.example",
            keys=((b"spki", "1", "ES256", "P-256"),),
            roots=(("root.pem", "cd" * 32, b"DER"),),
            audiences=("me",),
            nonce="00",
        ),
    ),
    sources=("PCS", "files"),
    answers=(
        SourceAnswer(source="PCS", query=QUERY, answer=Refusal(code="endorsement_unavailable", message="m", hint="h")),
        SourceAnswer(source="files", query=QUERY, answer=BAG),
    ),
    files=(("chips", b"\x01"),),
    provenance=(("release.sigstore.json", b"{}"),),
    result=b'{"verdict": "verified", "findings": [{"check": "a"}]}',
)
LIVE = replace(
    FILE,
    subject=LiveSubject(url="https://h:1", certificate=b"c", challenge=b"q", answer=b"a", exporter=b"e" * 32),
)


@pytest.mark.parametrize("bundle", [FILE, LIVE])
def test_what_is_written_is_read_back_and_has_one_form(bundle: Bundle) -> None:
    data = bundle.encode()
    assert is_bundle(data)
    assert read_bundle(data) == bundle
    assert read_bundle(data).encode() == data


@pytest.mark.parametrize(
    "changes",
    [{"exporter": b"e"}, {"exporter": b""}, {"answer": b""}, {"exporter": b"e" * 33}],
    ids=["short", "none", "without an answer", "long"],
)
def test_keying_material_has_its_size_beside_an_answer_and_nowhere_else(changes: dict[str, bytes]) -> None:
    assert isinstance(LIVE.subject, LiveSubject)
    with pytest.raises(MalformedEvidence, match="exporter"):
        read_bundle(replace(LIVE, subject=replace(LIVE.subject, **changes)).encode())


def test_the_recorded_verdict_is_for_comparison() -> None:
    assert recorded_verdict(FILE) == "verified"
    assert recorded_result(FILE)["findings"] == [{"check": "a"}]
    for junk in (b"", b"[1]", b'{"verdict": 1, "findings": 2}', b"[" * 9999):
        odd = replace(FILE, result=junk)
        assert recorded_verdict(odd) == ""


def content(bundle: Bundle = FILE) -> dict[Any, Any]:
    value: Any = cbor.decode(bundle.encode())
    return dict(value.value[2])


def packed(body: object, version: int = 1) -> bytes:
    return cbor.encode(cbor.Tagged(55799, ["attestable-mcp bundle", version, body]))  # type: ignore[list-item]


@pytest.mark.parametrize("key", sorted(content()))
def test_every_key_is_demanded_with_its_type(key: str) -> None:
    for wrong in (None, True, [1], {"x": 1}):
        if type(wrong) is type(content()[key]):
            continue
        with pytest.raises(MalformedEvidence):
            read_bundle(packed(content() | {key: wrong}))
    body = content()
    del body[key]
    with pytest.raises(MalformedEvidence):
        read_bundle(packed(body))


@pytest.mark.parametrize("path", ["", "subject", "policy"])
def test_an_unknown_key_is_refused_everywhere(path: str) -> None:
    body = content()
    if path:
        body[path] = body[path] | {"surplus": 1}
    else:
        body["surplus"] = 1
    with pytest.raises(MalformedEvidence, match="unknown keys surplus"):
        read_bundle(packed(body))


def test_another_version_is_named() -> None:
    with pytest.raises(MalformedEvidence, match="wanted version 1, seen another") as caught:
        read_bundle(packed({}, version=2))
    assert caught.value.code == "unsupported_bundle"


def test_another_form_of_the_same_content_is_refused() -> None:
    data = FILE.encode()
    assert data.startswith(MAGIC)
    head, rest = data[: len(MAGIC)], data[len(MAGIC) :]
    assert rest[0] == 0xAB  # eleven keys
    for odd in (data + b"\0", head + b"\xb8\x0b" + rest[1:], head + b"\xbf" + rest[1:] + b"\xff", data[:-1], head):
        with pytest.raises(MalformedEvidence):
            read_bundle(odd)
    pairs = list(content().items())
    backwards = b"".join(cbor.encode(key) + cbor.encode(value) for key, value in reversed(pairs))
    with pytest.raises(MalformedEvidence, match="canonical"):
        read_bundle(head + b"\xab" + backwards)


def test_sizes_are_capped_before_anything_is_read() -> None:
    with pytest.raises(MalformedEvidence, match="at most"):
        read_bundle(MAGIC + bytes(LIMITS.bundle))
    with pytest.raises(ValueError, match="at most"):
        replace(FILE, result=bytes(LIMITS.bundle)).encode()
    for lie in (b"\x9a\xff\xff\xff\xff", b"\x5b" + b"\xff" * 8, b"\xbb" + b"\xff" * 8, b"\x81" * 100):
        with pytest.raises(MalformedEvidence):
            read_bundle(MAGIC + lie)


def test_a_damaged_bundle_is_refused_or_reads_as_another_content() -> None:
    chance, refused, data = random.Random(4), 0, LIVE.encode()
    for _ in range(1500):
        odd = bytearray(data)
        for _ in range(chance.choice((1, 1, 3))):
            odd[chance.randrange(len(odd))] = chance.randrange(256)
        try:
            assert read_bundle(bytes(odd)).encode() == bytes(odd)
        except EvidenceError:
            refused += 1
    assert refused > 300
