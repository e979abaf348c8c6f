"""RA-TLS certificates: what is read from extensions, and what we write into them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509 as oracle
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from attestable_mcp.errors import (
    EndorsementUnavailable,
    EvidenceError,
    MalformedEvidence,
    UnreadEvidence,
    UnsupportedEvidence,
)
from attestable_mcp.rats import DocumentKind, Endorsements, SignedDocument
from attestable_mcp.wire import cbor, der, ratls, x509
from attestable_mcp.wire.cbor import Tagged
from attestable_mcp.wire.cmw import ENDORSEMENTS, OID_CMW, Record, write_extension
from attestable_mcp.wire.document import split_document
from attestable_mcp.wire.nitro import read_document
from attestable_mcp.wire.pem import encode_pem
from attestable_mcp.wire.ratls_other import OID_DSTACK_LOG, OID_DSTACK_QUOTE

Make = Callable[..., bytes]
QUOTE = b"\x03\x00\x02\x00" + bytes(600)


@pytest.fixture(scope="module")
def spki(make_certificate: Make) -> bytes:
    return x509.read_certificate(make_certificate()).spki


@pytest.mark.parametrize("algorithm", [1, 7, 8])
def test_what_we_write_is_read_back(algorithm: int, spki: bytes, make_certificate: Make) -> None:
    claims = ratls.pubkey_claims(spki, algorithm=algorithm, nonce=b"n" * 32)
    read = ratls.read(make_certificate([(ratls.OID_TAGGED_EVIDENCE, ratls.tagged_evidence(QUOTE, claims))]))
    (piece,) = read.evidence
    assert piece.evidence.body == QUOTE
    assert piece.source == "dice-tagged-evidence"
    assert piece.report_data == hashlib.sha256(claims).digest() + bytes(32)
    assert piece.key_matches
    assert piece.claims == claims
    assert piece.nonce == b"n" * 32
    assert piece.pubkey_hash is not None
    assert piece.pubkey_hash.algorithm == algorithm
    assert piece.pubkey_hash.digest == hashlib.new(ratls.HASHES[algorithm], spki).digest()
    assert read.endorsements is None


def test_the_bytes_are_those_of_the_interoperable_format(spki: bytes) -> None:
    claims = ratls.pubkey_claims(spki)
    assert claims[:19].hex() == "a16b7075626b65792d68617368582482015820"
    assert claims[19:].hex() == hashlib.sha256(spki).hexdigest()
    assert ratls.tagged_evidence(QUOTE, claims)[:7].hex() == "d9ea6082" + "59025c"


def test_a_hash_of_another_key_is_read_as_such(make_certificate: Make) -> None:
    value = ratls.tagged_evidence(QUOTE, ratls.pubkey_claims(b"another key"))
    assert not ratls.read(make_certificate([(ratls.OID_TAGGED_EVIDENCE, value)])).evidence[0].key_matches


def test_gramine_names_the_key_in_its_report_data(spki: bytes, make_certificate: Make) -> None:
    (piece,) = ratls.read(make_certificate([(ratls.OID_GRAMINE_LEGACY, QUOTE)])).evidence
    assert (piece.source, piece.evidence.body, piece.key_matches) == ("gramine-legacy", QUOTE, True)
    assert piece.report_data == hashlib.sha256(spki).digest() + bytes(32)


def test_every_piece_of_evidence_is_returned_tagged_evidence_first(spki: bytes, make_certificate: Make) -> None:
    claims = ratls.pubkey_claims(spki)
    read = ratls.read(
        make_certificate(
            [
                (ratls.OID_GRAMINE_LEGACY, QUOTE + b"1"),
                (ratls.OID_SGX_SDK, QUOTE + b"2"),
                (ratls.OID_TAGGED_EVIDENCE, ratls.tagged_evidence(QUOTE, claims)),
            ]
        )
    )
    assert [piece.source for piece in read.evidence] == ["dice-tagged-evidence", "gramine-legacy", "intel-sgx-sdk"]
    assert read.evidence[2].report_data == read.evidence[0].report_data == ratls.claims_report_data(claims)
    assert read.evidence[2].key_matches


def test_the_sdk_quote_without_claims_is_tied_to_nothing(make_certificate: Make) -> None:
    with pytest.raises(UnsupportedEvidence) as caught:
        ratls.read(make_certificate([(ratls.OID_SGX_SDK, QUOTE)]))
    assert caught.value.code == "evidence_without_claims"


def test_a_pck_certificate_holds_no_evidence(make_certificate: Make) -> None:
    assert ratls.read(make_certificate([(ratls.OID_SGX_SDK, b"\x30\x00")])).evidence == ()


def test_an_ordinary_certificate_holds_no_evidence(make_certificate: Make) -> None:
    assert ratls.read(make_certificate()).evidence == ()


FOREIGN = [
    "1.2.840.113741.1337.6", "1.3.6.1.4.1.62397.1.7", "1.3.9901.2.1", "1.3.9901.3.1", "1.3.9900.4.1",
    "1.3.6.1.4.1.311.105.1",
]  # fmt: skip


@pytest.mark.parametrize("oid", FOREIGN)
def test_attestation_of_another_kind_is_named(oid: str, make_certificate: Make) -> None:
    with pytest.raises(UnsupportedEvidence, match=f"extension {oid} ") as caught:
        ratls.read(make_certificate([(oid, b"\x04\x00")]))
    assert caught.value.code == "unsupported_certificate_evidence"


def test_a_wrapper_of_something_else_is_named_with_its_type(make_certificate: Make) -> None:
    wrapped = write_extension({"rim": Record(type="application/rim+cose", value=b"x")})
    with pytest.raises(UnreadEvidence, match=r"1\.3\.6\.1\.5\.5\.7\.1\.35 .* of application/rim\+cose"):
        ratls.read(make_certificate([(OID_CMW, wrapped)]))


def test_wrapped_evidence_that_says_it_is_none_is_refused(make_certificate: Make) -> None:
    wrapped = write_extension({"x": Record(type="application/aws-nitro-document", value=b"x", ind=ENDORSEMENTS)})
    with pytest.raises(MalformedEvidence, match="no evidence"):
        ratls.read(make_certificate([(OID_CMW, wrapped)]))


def test_dstack_puts_quote_and_log_into_a_further_octet_string(make_certificate: Make) -> None:
    quote, log = b"\4\0\2\0" + bytes(600), b"[]"
    read = ratls.read(
        make_certificate([(oid, der.encode(der.OCTET_STRING, body)) for oid, body in
                          ((OID_DSTACK_QUOTE, quote), (OID_DSTACK_LOG, log))])
    )  # fmt: skip
    (piece,) = read.evidence
    assert (piece.source, piece.evidence.body) == ("dstack", quote)
    assert piece.report_data == hashlib.sha512(b"ratls-cert:" + read.leaf.spki).digest()
    assert read.endorsements is not None
    assert [(item.kind, item.body) for item in read.endorsements.documents] == [("event-log", log)]
    with pytest.raises(MalformedEvidence):
        ratls.read(make_certificate([(OID_DSTACK_QUOTE, quote)]))


def test_a_nitro_document_may_be_a_name(vectors: Path) -> None:
    folder = vectors / "ratls" / "evervault-nitro-san-debug"
    read = ratls.read((folder / "cert.der").read_bytes())
    (piece,) = read.evidence
    assert piece.source == "nitro-in-name"
    assert piece.evidence.body == (folder / "attestation.cose").read_bytes()
    assert read_document(piece.evidence.body).user_data == piece.report_data == read.leaf.spki


@pytest.mark.parametrize("oid", [ratls.OID_TAGGED_EVIDENCE, ratls.OID_GRAMINE_LEGACY, ratls.OID_SGX_SDK])
def test_critical_evidence_is_refused(oid: str, make_certificate: Make) -> None:
    with pytest.raises(EvidenceError) as caught:
        ratls.read(make_certificate([(oid, QUOTE, b"\x01\x01\xff")]))
    assert caught.value.code == "unknown_critical_extension"


HASH = cbor.encode([1, bytes(32)])
CLAIMS: dict[str, tuple[bytes, str]] = {
    "no claim at all": (cbor.encode({}), "no_pubkey_hash"),
    "not a map": (cbor.encode([1]), "unexpected_type"),
    "number as key": (cbor.encode({1: b"", "pubkey-hash": HASH}), "unexpected_type"),
    "text as value": (cbor.encode({"x": "y", "pubkey-hash": HASH}), "unexpected_type"),
    "hash is text": (cbor.encode({"pubkey-hash": "y"}), "unexpected_type"),
    "twice": (b"\xa2" + 2 * (cbor.encode("pubkey-hash") + cbor.encode(HASH)), "duplicate_key"),
    "not bytes of an array": (cbor.encode({"pubkey-hash": cbor.encode(1)}), "unexpected_type"),
    "three members": (cbor.encode({"pubkey-hash": cbor.encode([1, bytes(32), 1])}), "unexpected_type"),
    "true as algorithm": (cbor.encode({"pubkey-hash": cbor.encode([True, bytes(32)])}), "unexpected_type"),
    "SHA-1": (cbor.encode({"pubkey-hash": cbor.encode([0, bytes(20)])}), "unsupported_hash"),
    "short hash": (cbor.encode({"pubkey-hash": cbor.encode([1, bytes(31)])}), "bad_pubkey_hash"),
    "hash of another": (cbor.encode({"pubkey-hash": cbor.encode([8, bytes(32)])}), "bad_pubkey_hash"),
    "tail in the hash": (cbor.encode({"pubkey-hash": HASH + b"\0"}), "trailing_bytes"),
    "tail after the map": (cbor.encode({"pubkey-hash": HASH}) + b"\0", "trailing_bytes"),
    "indefinite": (b"\xbf" + cbor.encode("pubkey-hash") + cbor.encode(HASH) + b"\xff", "indefinite_length"),
    "long number": (cbor.encode({"pubkey-hash": b"\x82\x18\x01" + cbor.encode(bytes(32))}), "not_minimal"),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_claims_with_a_flaw_are_refused(name: str, make_certificate: Make) -> None:
    claims, code = CLAIMS[name]
    with pytest.raises(EvidenceError) as caught:
        ratls.read(make_certificate([(ratls.OID_TAGGED_EVIDENCE, ratls.tagged_evidence(QUOTE, claims))]))
    assert caught.value.code == code


VALUES: dict[str, tuple[bytes, str]] = {
    "no tag": (cbor.encode([QUOTE, b""]), "unexpected_type"),
    "report type 2": (cbor.encode(Tagged(60001, [QUOTE, b""])), "unsupported_evidence_tag"),
    "legacy report": (cbor.encode(Tagged(60002, [QUOTE, b""])), "unsupported_evidence_tag"),
    "quote alone": (cbor.encode(Tagged(60000, [QUOTE])), "unexpected_type"),
    "bare quote": (cbor.encode(Tagged(60000, QUOTE)), "unexpected_type"),
    "text": (cbor.encode(Tagged(60000, [QUOTE, ""])), "unexpected_type"),
    "no quote": (ratls.tagged_evidence(b"", cbor.encode({"pubkey-hash": HASH})), "too_large"),
    "long tag": (b"\xda\x00\x00" + ratls.tagged_evidence(QUOTE, b"")[1:], "not_minimal"),
    "inner octet string": (b"\x04\x05" + cbor.encode(1), "trailing_bytes"),
}


@pytest.mark.parametrize("name", VALUES)
def test_tagged_evidence_with_a_flaw_is_refused(name: str, make_certificate: Make) -> None:
    value, code = VALUES[name]
    with pytest.raises(EvidenceError) as caught:
        ratls.read(make_certificate([(ratls.OID_TAGGED_EVIDENCE, value)]))
    assert caught.value.code == code


def test_offsets_count_from_the_start_of_the_certificate(spki: bytes, make_certificate: Make) -> None:
    claims = ratls.pubkey_claims(spki)
    broken = claims[:-35] + b"\x98" + claims[-34:]
    leaf = make_certificate([(ratls.OID_TAGGED_EVIDENCE, ratls.tagged_evidence(QUOTE, broken))])
    with pytest.raises(MalformedEvidence) as caught:
        ratls.read(leaf)
    assert caught.value.offset is not None
    assert leaf.index(broken) <= caught.value.offset < leaf.index(broken) + len(broken)


def test_an_unknown_hash_cannot_be_written() -> None:
    with pytest.raises(ValueError):
        ratls.pubkey_claims(b"", algorithm=2)


# Endorsements


def _issue(name: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    names = [oracle.Name([oracle.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (issuer, name)]
    builder = oracle.CertificateBuilder(names[0], names[1], key.public_key(), 5, start, start + timedelta(days=9))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _revoke(issuer: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    name = oracle.Name([oracle.NameAttribute(NameOID.COMMON_NAME, issuer)])
    builder = oracle.CertificateRevocationListBuilder(name, start, start + timedelta(days=9))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@pytest.fixture(scope="module")
def bag() -> Endorsements:
    key = ec.generate_private_key(ec.SECP256R1())
    root, authority, signer = (_issue(name, "root", key) for name in ("root", "pck ca", "tcb signing"))
    documents = (
        SignedDocument(
            kind=DocumentKind.INTEL_TCB_INFO,
            body=b'{"id": "SGX",  "note":"}\\"\xc3\xa9"}',
            signature=bytes(range(64)),
            issuer_chain=(signer, root),
        ),
        SignedDocument(
            kind=DocumentKind.INTEL_QE_IDENTITY,
            body=b'{"id":"QE"}',
            signature=b"\xff" * 64,
            issuer_chain=(signer, root),
        ),
    )
    return Endorsements(
        certificates=(authority, root),
        crls=(_revoke("pck ca", key), _revoke("root", key)),
        documents=documents,
        sources=("stapled",),
    )


def test_endorsements_come_back(bag: Endorsements, make_certificate: Make) -> None:
    value = ratls.tagged_endorsements(bag)
    assert value[:6].hex() == "d9ea60880158"
    assert ratls.read_tagged_endorsements(value) == bag
    assert ratls.read(make_certificate([(ratls.OID_ENDORSEMENTS, value)])).endorsements == bag


def test_crls_are_told_apart_by_their_issuer(bag: Endorsements) -> None:
    turned = Endorsements(certificates=bag.certificates[::-1], crls=bag.crls[::-1], documents=bag.documents[::-1])
    assert ratls.read_tagged_endorsements(ratls.tagged_endorsements(turned)) == bag


def _parts(bag: Endorsements) -> list[cbor.Value]:
    tagged = cbor.decode(ratls.tagged_endorsements(bag))
    assert isinstance(tagged, Tagged)
    assert isinstance(tagged.value, list)
    return tagged.value


def _join(parts: list[cbor.Value], tag: int = 60000) -> bytes:
    return cbor.encode(Tagged(tag, parts))


def test_a_creation_time_and_nuls_change_nothing(bag: Endorsements) -> None:
    parts = _parts(bag)
    ended = [parts[0], *(part + b"\0" for part in parts[1:] if isinstance(part, bytes)), b"2026-01-01T00:00:00Z\0"]
    assert ratls.read_tagged_endorsements(_join(ended)) == bag


def test_crls_may_be_pem_or_hex(bag: Endorsements) -> None:
    parts = _parts(bag)
    for form in (lambda crl: encode_pem("X509 CRL", crl), lambda crl: crl.hex().encode() + b"\0"):
        assert ratls.read_tagged_endorsements(_join([*parts[:3], *map(form, bag.crls), *parts[5:]])) == bag


def test_no_issuers_of_the_crls_are_none(bag: Endorsements) -> None:
    parts = _parts(bag)
    assert ratls.read_tagged_endorsements(_join([*parts[:5], b"", *parts[6:]])).certificates == ()


def test_endorsements_with_a_flaw_are_refused(bag: Endorsements) -> None:
    parts = _parts(bag)
    tcb_info = parts[1]
    assert isinstance(tcb_info, bytes)

    def with_part(index: int, part: cbor.Value) -> bytes:
        return _join([*parts[:index], part, *parts[index + 1 :]])

    flaws = [
        (cbor.encode(parts), "unexpected_type"),
        (_join(parts, 60001), "unsupported_evidence_tag"),
        (_join(parts[:-1]), "unexpected_type"),
        (_join([*parts, b"", b""]), "unexpected_type"),
        (with_part(0, b"\x01"), "unexpected_type"),
        (with_part(0, True), "unexpected_type"),
        (with_part(1, "text"), "unexpected_type"),
        (with_part(1, b""), "bad_json"),
        (with_part(1, parts[6]), "unexpected_member"),
        (with_part(1, tcb_info[:-2]), "bad_json"),
        (with_part(1, tcb_info + b"{}"), "trailing_bytes"),
        (with_part(1, tcb_info.replace(b'"signature":"0', b'"signature":"x', 1)), "bad_signature"),
        (with_part(1, b"[" * 100_000), "bad_json"),
        (with_part(2, b""), "no_pem"),
        (with_part(3, b""), "truncated"),
        (with_part(3, bag.crls[0] + b"\0\0"), "trailing_bytes"),
        (with_part(3, encode_pem("CERTIFICATE", bag.crls[0])), "unexpected_label"),
        (with_part(4, bag.certificates[0]), "unexpected_tag"),
        (_join(parts) + b"\0", "trailing_bytes"),
    ]
    for data, code in flaws:
        with pytest.raises(EvidenceError) as caught:
            ratls.read_tagged_endorsements(data, base=50)
        assert caught.value.code == code
        if isinstance(caught.value, MalformedEvidence):
            assert caught.value.offset is not None
            assert 50 <= caught.value.offset <= 50 + len(data)


def test_what_cannot_be_stapled_is_named(bag: Endorsements) -> None:
    for lacking in (
        Endorsements(),
        Endorsements(certificates=bag.certificates, crls=bag.crls, documents=bag.documents[:1]),
        Endorsements(certificates=bag.certificates, crls=bag.crls[:1], documents=bag.documents),
        Endorsements(certificates=bag.certificates, crls=bag.crls[1:], documents=bag.documents),
    ):
        with pytest.raises(EndorsementUnavailable) as caught:
            ratls.tagged_endorsements(lacking)
        assert caught.value.code == "incomplete_endorsements"


def test_a_document_keeps_the_exact_bytes_that_are_signed() -> None:
    body = b'{ "b" : 1.10, "a":"\\u00e9\xc3\xa9" }'
    data = b' { "signature" : "' + b"ab" * 64 + b'" ,\n"tcbInfo":\t' + body + b"} "
    assert split_document(data, DocumentKind.INTEL_TCB_INFO) == (body, b"\xab" * 64)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{}", b"[]", b"null", b'{"tcbInfo":{}}', b'{"tcbInfo":1,"signature":"%s"}' % (b"ab" * 64),
        b'{"tcbInfo":{},"tcbInfo":{},"signature":"%s"}' % (b"ab" * 64),
        b'{"tcbInfo":{},"signature":"%s","x":1}' % (b"ab" * 64),
        b'{"tcbInfo":{},"signature":"%s"}' % (b"ab" * 63),
        b'{"tcbInfo":{},"signature":"%s",}' % (b"ab" * 64),
        b'{1:{}}', b'{"tcbInfo":{}, "signature":"\xff"}',
    ],
)  # fmt: skip
def test_a_document_with_a_flaw_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        split_document(data, DocumentKind.INTEL_TCB_INFO)
    assert caught.value.offset is not None
