"""Attacks E4, E5, E7 and E11 of the design on the readers of certificates, DER and CBOR.

Hostile bytes end in an EvidenceError with a code, and with an offset where their format breaks, or they parse: never in
another exception, never slowly, never with much memory.
"""

from __future__ import annotations

import hashlib
import random
import re
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attestable_mcp.errors import EvidenceError, MalformedEvidence
from attestable_mcp.wire import cbor, der, ratls, x509
from attestable_mcp.wire.pem import encode_pem
from attestable_mcp.wire.recognise import recognise

Make = Callable[..., bytes]
QUOTE = b"\x03\x00\x02\x00" + bytes(180)
INTEROP = ("interop-gramine", "interop-intel-sgxsdk", "interop-rats-tls")


@pytest.fixture(scope="module")
def attested(make_certificate: Make) -> bytes:
    claims = ratls.pubkey_claims(x509.read_certificate(make_certificate()).spki)
    return make_certificate(
        [
            ("2.5.29.19", b"\x30\x00", b"\x01\x01\xff"),
            ("2.5.29.17", bytes.fromhex("300b82096c6f63616c686f7374")),
            (ratls.OID_GRAMINE_LEGACY, QUOTE),
            (ratls.OID_TAGGED_EVIDENCE, ratls.tagged_evidence(QUOTE, claims)),
        ]
    )


def refusal(data: bytes, read: Callable[[bytes], object] = ratls.read) -> EvidenceError | None:
    """The refusal, None if the bytes parse. Any other exception is a failure of the test."""
    try:
        read(data)
    except EvidenceError as error:
        return _demand_code_and_offset(error, data)
    return None


def _demand_code_and_offset(error: EvidenceError, data: bytes) -> EvidenceError:
    assert error.code not in ("", "evidence", "malformed_evidence")
    if isinstance(error, MalformedEvidence):
        assert error.offset is not None
        assert 0 <= error.offset <= len(data)
    return error


def test_e4_missing_pubkey_hash_is_refused(make_certificate: Make) -> None:
    for claims in ({}, {"x": b"\0"}, {"pubkey_hash": b"\0"}, {"nonce": bytes(32)}):
        value = ratls.tagged_evidence(QUOTE, cbor.encode(dict(claims)))
        error = refusal(make_certificate([(ratls.OID_TAGGED_EVIDENCE, value)]))
        assert error is not None
        assert error.code == "no_pubkey_hash"


def test_e4_pubkey_hash_twice_is_refused(make_certificate: Make) -> None:
    spki = x509.read_certificate(make_certificate()).spki
    claim = ratls.pubkey_claims(spki)[1:]
    value = ratls.tagged_evidence(QUOTE, b"\xa2" + claim + claim)
    error = refusal(make_certificate([(ratls.OID_TAGGED_EVIDENCE, value)]))
    assert error is not None
    assert error.code == "duplicate_key"


def test_e4_missing_pubkey_hash_beside_good_legacy_evidence_is_refused(make_certificate: Make) -> None:
    value = ratls.tagged_evidence(QUOTE, cbor.encode({"x": b"\0"}))
    error = refusal(make_certificate([(ratls.OID_GRAMINE_LEGACY, QUOTE), (ratls.OID_TAGGED_EVIDENCE, value)]))
    assert error is not None
    assert error.code == "no_pubkey_hash"


def test_e5_an_oid_inside_other_bytes_is_not_evidence(make_certificate: Make) -> None:
    hidden = der.encode_oid(ratls.OID_TAGGED_EVIDENCE) + der.encode_octet_string(QUOTE)
    assert ratls.read(make_certificate([("1.2.3", hidden)])).evidence == ()


def test_e5_every_evidence_extension_twice_is_refused(make_certificate: Make) -> None:
    for oid in (ratls.OID_TAGGED_EVIDENCE, ratls.OID_GRAMINE_LEGACY, ratls.OID_SGX_SDK, ratls.OID_ENDORSEMENTS):
        error = refusal(make_certificate([(oid, QUOTE), (oid, QUOTE)]))
        assert error is not None
        assert error.code == "duplicate_extension"


def test_e5_report_data_wants_zeros_in_its_upper_half(attested: bytes) -> None:
    for piece in ratls.read(attested).evidence:
        assert piece.report_data[32:] == bytes(32)
        assert piece.report_data[:32] != bytes(32)


def _spans(data: bytes) -> Iterator[tuple[der.Element, int]]:
    """Each element of a DER tree with its depth."""
    pending = [(der.parse(data), 0)]
    while pending:
        element, depth = pending.pop()
        yield element, depth
        if element.tag & 0x20:
            reader = element.reader()
            while not reader.empty:
                pending.append((reader.read(), depth + 1))


def test_e5_lengths_in_another_form_are_refused_everywhere(attested: bytes) -> None:
    """Each header rewritten as indefinite or over-long, the lengths around it left alone or not: all are refused."""
    seen = 0
    for element, _ in _spans(attested):
        head = len(element.raw) - len(element.body)
        start, end = element.offset, element.offset + len(element.raw)
        size = len(element.body).to_bytes(4, "big")
        for header in (b"\x80", b"\x84" + size, b"\x85\0" + size):
            body = element.body + (b"\0\0" if header == b"\x80" else b"")
            mutant = attested[:start] + attested[start : start + 1] + header + body + attested[end:]
            assert refusal(_mend(attested, mutant, element)) is not None
            assert refusal(mutant) is not None
            seen += 2
        assert head >= 2
    assert seen > 200


def _mend(original: bytes, mutant: bytes, element: der.Element) -> bytes:
    """Rewrites the lengths of the two outermost sequences so that only the inner flaw is left, where it lies inside."""
    if element.offset < 8:
        return mutant
    outer = der.parse(original)
    tbs = outer.reader().read()
    grown = len(mutant) - len(original)
    inside = element.offset < tbs.offset + len(tbs.raw)
    body_end = tbs.offset + len(tbs.raw) + (grown if inside else 0)
    inner = der.encode(der.SEQUENCE, mutant[tbs.body_offset : body_end])
    return der.encode(der.SEQUENCE, inner + mutant[body_end:])


def test_e5_swallowed_and_doubled_elements_are_refused_or_seen(attested: bytes) -> None:
    mutants = 0
    for element, _ in _spans(attested):
        start, end = element.offset, element.offset + len(element.raw)
        for piece in (b"", element.raw * 2, element.raw + b"\x05\x00"):
            assert refusal(attested[:start] + piece + attested[end:]) is not None
            mutants += 1
    assert mutants > 100


def test_e5_each_byte_of_the_tagged_evidence_frame_counts(make_certificate: Make) -> None:
    """No byte of the CBOR around the quote can be changed unseen: it is refused, or the claims differ."""
    spki = x509.read_certificate(make_certificate()).spki
    claims = ratls.pubkey_claims(spki)
    value = ratls.tagged_evidence(QUOTE, claims)
    good = hashlib.sha256(claims).digest() + bytes(32)
    frame = [*range(6), *range(len(value) - len(claims) - 2, len(value))]
    mutants = 0
    for at in frame:
        for bit in range(8):
            mutant = value[:at] + bytes((value[at] ^ 1 << bit,)) + value[at + 1 :]
            certificate = make_certificate([(ratls.OID_TAGGED_EVIDENCE, mutant)])
            mutants += 1
            if refusal(certificate) is None:
                (piece,) = ratls.read(certificate).evidence
                assert piece.report_data != good
                assert not piece.key_matches
    assert mutants > 400


def test_e5_truncated_at_every_byte_is_refused(attested: bytes) -> None:
    for end in range(len(attested)):
        assert refusal(attested[:end]) is not None


def test_e5_extended_is_refused(attested: bytes) -> None:
    for tail in (b"\0", b"\0" * 100, b"\x30\0", attested):
        error = refusal(attested + tail)
        assert error is not None
        assert error.code == "trailing_bytes"


def test_e5_bit_flips_end_in_our_errors_only(attested: bytes) -> None:
    """Each bit; of a quote, whose body is not read here, each byte once."""
    refused = 0
    bodies = [found.end() for found in re.finditer(re.escape(QUOTE[:8]), attested)]
    assert len(bodies) == 2
    for at in range(len(attested)):
        opaque = any(end <= at < end + len(QUOTE) - 8 for end in bodies)
        for bit in (at % 8,) if opaque else range(8):
            mutant = attested[:at] + bytes((attested[at] ^ 1 << bit,)) + attested[at + 1 :]
            refused += refusal(mutant) is not None
    assert refused > len(attested)


@pytest.mark.parametrize("name", INTEROP)
def test_e5_real_certificates_cut_or_flipped_end_in_our_errors_only(name: str, vectors: Path) -> None:
    data = (vectors / "ratls" / name / "cert.der").read_bytes()
    quote = ratls.read(data).evidence[0].evidence.body
    frame = [at for at in range(len(data)) if not data.find(quote) <= at < data.find(quote) + len(quote)]
    chance = random.Random(5)
    for end in chance.sample(range(len(data)), 400):
        assert refusal(data[:end]) is not None
    for at in chance.sample(frame, min(400, len(frame))):
        refusal(data[:at] + bytes((data[at] ^ 1 << chance.randrange(8),)) + data[at + 1 :])
    assert refusal(data + b"\0") is not None


def _watched(read: Callable[[bytes], object], data: bytes) -> EvidenceError | None:
    """A refusal within a second of work and with under 8 MB beside the input."""
    tracemalloc.start()
    start = time.process_time()
    try:
        error = refusal(data, read)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.process_time() - start < 1.0
    assert peak < 8 * 1024 * 1024
    return error


BOMBS = {
    "bytes of 2^40": bytes.fromhex("5b0000010000000000"),
    "text of 2^40": bytes.fromhex("7b0000010000000000"),
    "array of 2^40": bytes.fromhex("9b0000010000000000"),
    "map of 2^40": bytes.fromhex("bb0000010000000000"),
    "map of 2^63": bytes.fromhex("bb8000000000000000"),
    "nested arrays": b"\x81" * 400_000,
    "nested maps": b"\xa1\x00" * 200_000,
    "nested tags": b"\xc1" * 400_000,
    "wide array": b"\x9a\x00\x06\x1a\x80" + bytes(400_000),
    "arrays of arrays": b"\x99\x10\x00" + b"\x99\x10\x00" * 4096,
}


@pytest.mark.parametrize("name", BOMBS)
def test_e7_a_cbor_bomb_is_refused_at_once(name: str, make_certificate: Make) -> None:
    assert _watched(cbor.decode, BOMBS[name]) is not None
    if len(BOMBS[name]) < 100_000:
        assert _watched(ratls.read, make_certificate([(ratls.OID_TAGGED_EVIDENCE, BOMBS[name])])) is not None
        assert _watched(ratls.read, make_certificate([(ratls.OID_ENDORSEMENTS, BOMBS[name])])) is not None


def test_e7_a_der_bomb_is_refused_at_once(make_certificate: Make) -> None:
    deep = b""
    for _ in range(2000):
        deep = der.encode_sequence(deep)
    wide = der.encode_sequence(b"\x05\x00" * 40_000)
    for algorithm in (der.encode_sequence(der.encode_oid("1.2.3"), deep), wide):
        error = _watched(ratls.read, make_certificate(algorithm=algorithm))
        assert error is not None
        assert error.code in ("too_deep", "too_many_items")
    assert _watched(ratls.read, bytes.fromhex("3084ffffffff") + bytes(1000)) is not None
    many = make_certificate([(f"1.2.3.{number}", b"") for number in range(5000)])
    error = _watched(ratls.read, many)
    assert error is not None
    assert error.code == "too_many_items"


def test_e7_a_hundred_megabytes_are_refused_at_once(attested: bytes) -> None:
    size = 100 * 1024 * 1024
    huge = b"\x30\x84" + (size - 6).to_bytes(4, "big") + bytes(size - 6)
    for read in (ratls.read, recognise, cbor.decode, ratls.read_tagged_endorsements, x509.pem_to_der):
        error = _watched(read, huge)
        assert error is not None
        assert error.code in ("too_large", "no_pem")
    assert _watched(x509.pem_to_der, encode_pem("CERTIFICATE", attested) * 20_000) is not None


def test_e7_a_hundred_thousand_certificates_in_a_chain_are_refused_at_once() -> None:
    chain = encode_pem("CERTIFICATE", b"\x30\x00") * 16_000
    error = _watched(x509.pem_to_der, chain)
    assert error is not None
    assert error.code == "too_many_items"


@pytest.mark.parametrize("name", INTEROP)
def test_e11_real_certificates_of_three_stacks_are_read(name: str, vectors: Path) -> None:
    read = ratls.read((vectors / "ratls" / name / "cert.der").read_bytes())
    assert read.evidence
    assert all(piece.key_matches for piece in read.evidence)


def test_e11_null_parameters_do_not_open_the_door_to_unknown_critical_extensions(make_certificate: Make) -> None:
    algorithm = der.encode_sequence(der.encode_oid("1.2.840.10045.4.3.2"), b"\x05\x00")
    assert refusal(make_certificate(algorithm=algorithm)) is None
    error = refusal(make_certificate([("1.2.3", b"", b"\x01\x01\xff")], algorithm=algorithm))
    assert error is not None
    assert error.code == "unknown_critical_extension"
