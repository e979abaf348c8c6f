"""One harness a reader: random bytes and random edits of good bytes end in EvidenceError or parse."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from attestable_mcp.errors import EvidenceError
from attestable_mcp.rats import DocumentKind
from attestable_mcp.wire import cbor, der, ratls, x509
from attestable_mcp.wire.document import split_document
from attestable_mcp.wire.pem import encode_pem, pem_to_der
from attestable_mcp.wire.recognise import recognise

Make = Callable[..., bytes]
ROUNDS = 1500
INTERESTING = bytes((0x00, 0x01, 0x1F, 0x30, 0x7F, 0x80, 0x81, 0x84, 0x9F, 0xBF, 0xD9, 0xFF))


def _check_der(data: bytes) -> None:
    der.check(der.parse(data))


def _split(data: bytes) -> None:
    split_document(data, DocumentKind.INTEL_TCB_INFO)


READERS: dict[str, Callable[[bytes], object]] = {
    "der": _check_der,
    "cbor": cbor.decode,
    "x509": x509.read_certificate,
    "crl": x509.read_crl_head,
    "pem": pem_to_der,
    "ratls": ratls.read,
    "endorsements": ratls.read_tagged_endorsements,
    "document": _split,
    "recognise": recognise,
}


@pytest.fixture(scope="module")
def seeds(make_certificate: Make) -> dict[str, list[bytes]]:
    claims = ratls.pubkey_claims(x509.read_certificate(make_certificate()).spki)
    evidence = ratls.tagged_evidence(b"\x03\x00\x02\x00" + bytes(60), claims)
    leaf = make_certificate([(ratls.OID_TAGGED_EVIDENCE, evidence), (ratls.OID_GRAMINE_LEGACY, b"\x03\x00\x02\x00")])
    document = b'{"tcbInfo":{"a":[1,2]},"signature":"' + b"ab" * 64 + b'"}'
    chain = encode_pem("CERTIFICATE", make_certificate())
    stapled = cbor.encode(cbor.Tagged(60000, [1, document, chain, b"", b"", chain, document, chain]))
    return {
        "der": [leaf],
        "cbor": [evidence, stapled],
        "x509": [leaf],
        "crl": [leaf],
        "pem": [chain + chain],
        "ratls": [leaf, make_certificate([(ratls.OID_ENDORSEMENTS, stapled)])],
        "endorsements": [stapled],
        "document": [document],
        "recognise": [leaf, chain, b"\x04\x00\x02\x00" + bytes(80), leaf.hex().encode()],
    }


def _edit(data: bytes, chance: random.Random) -> bytes:
    at, size = chance.randrange(len(data)), chance.choice((0, 1, 1, 2, 8))
    insert = bytes(chance.choice(INTERESTING) for _ in range(chance.choice((0, 1, 1, 2, 6))))
    return data[:at] + insert + data[at + size :]


@pytest.mark.parametrize("name", READERS)
def test_a_reader_answers_or_refuses(name: str, seeds: dict[str, list[bytes]]) -> None:
    chance = random.Random(name)
    read, refused = READERS[name], 0
    for _ in range(ROUNDS):
        data = chance.choice(seeds[name])
        for _ in range(chance.choice((1, 1, 2, 5))):
            data = _edit(data, chance)
        for candidate in (data, chance.randbytes(chance.randrange(1, 60))):
            try:
                read(candidate)
            except EvidenceError:
                refused += 1
    assert refused > ROUNDS // 2
