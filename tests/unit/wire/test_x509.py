"""The strict leaf reader and PEM."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509 as oracle
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from attestable_mcp.errors import EvidenceError, MalformedEvidence, UnsupportedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.wire import der, x509
from attestable_mcp.wire.pem import encode_pem, pem_to_der, read_blocks

Make = Callable[..., bytes]


def test_the_parts_are_those_that_cryptography_reads() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    name = oracle.Name([oracle.NameAttribute(NameOID.COMMON_NAME, "leaf")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    theirs = (
        oracle.CertificateBuilder(name, name, key.public_key(), 77, start, start + timedelta(days=30))
        .add_extension(oracle.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(oracle.SubjectAlternativeName([oracle.DNSName("localhost")]), critical=False)
        .add_extension(oracle.ExtendedKeyUsage([oracle.OID_SERVER_AUTH]), critical=True)
        .sign(key, hashes.SHA384())
    )
    encoded = theirs.public_bytes(serialization.Encoding.DER)
    leaf = x509.read_certificate(encoded)
    assert leaf.der == encoded
    assert leaf.tbs == theirs.tbs_certificate_bytes
    assert leaf.serial == 77
    assert leaf.subject == leaf.issuer == name.public_bytes()
    assert (leaf.not_before, leaf.not_after) == (theirs.not_valid_before_utc, theirs.not_valid_after_utc)
    assert leaf.spki == key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert leaf.signature == theirs.signature
    assert [(e.oid, e.critical) for e in leaf.extensions] == [
        (e.oid.dotted_string, e.critical) for e in theirs.extensions
    ]
    found = leaf.extension(x509.BASIC_CONSTRAINTS)
    assert found is not None
    assert encoded[found.offset :].startswith(found.value)
    assert leaf.extension("1.2.3") is None


def test_null_parameters_under_ecdsa_are_read(make_certificate: Make) -> None:
    algorithm = der.encode_sequence(der.encode_oid("1.2.840.10045.4.3.2"), b"\x05\x00")
    assert x509.read_certificate(make_certificate(algorithm=algorithm)).signature_algorithm == algorithm


def test_serial_number_zero_is_read(make_certificate: Make) -> None:
    assert x509.read_certificate(make_certificate(serial=b"\x02\x01\x00")).serial == 0


BASIC = ("2.5.29.19", b"\x30\x00")
REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "extension twice": ({"extensions": [BASIC, BASIC]}, "duplicate_extension"),
    "default in bytes": ({"extensions": [(*BASIC, b"\x01\x01\x00")]}, "not_minimal"),
    "critical is 01": ({"extensions": [(*BASIC, b"\x01\x01\x01")]}, "bad_boolean"),
    "unknown critical": ({"extensions": [("1.2.3", b"", b"\x01\x01\xff")]}, "unknown_critical_extension"),
    "known but broken": ({"extensions": [("2.5.29.19", b"\x30\x01")]}, "truncated"),
    "known with a tail": ({"extensions": [("2.5.29.19", b"\x30\x00\x00")]}, "trailing_bytes"),
    "no CA in bytes": ({"extensions": [("2.5.29.19", bytes.fromhex("3003010100"))]}, "not_minimal"),
    "empty key usage": ({"extensions": [("2.5.29.15", bytes.fromhex("03020700"))]}, "bad_extensions"),
    "empty usage list": ({"extensions": [("2.5.29.37", b"\x30\x00")]}, "truncated"),
    "name of no kind": ({"extensions": [("2.5.29.17", bytes.fromhex("30028900"))]}, "unexpected_tag"),
    "names empty": ({"extensions": [("2.5.29.17", b"\x30\x00")]}, "bad_extensions"),
    "version 1": ({"version": b""}, "unsupported_certificate_version"),
    "version 2": ({"version": b"\xa0\x03\x02\x01\x01"}, "unsupported_certificate_version"),
    "version 4": ({"version": b"\xa0\x03\x02\x01\x03"}, "unsupported_certificate_version"),
    "negative serial": ({"serial": b"\x02\x01\xff"}, "bad_serial"),
    "long serial": ({"serial": b"\x02\x16\x01" + bytes(21)}, "bad_serial"),
    "padded serial": ({"serial": b"\x02\x02\x00\x01"}, "not_minimal"),
    "two algorithms": (
        {"inner_algorithm": der.encode_sequence(der.encode_oid("1.2.840.10045.4.3.3"))},
        "algorithm_mismatch",
    ),
    "three parameters": (
        {"algorithm": der.encode_sequence(der.encode_oid("1.2.3"), b"\5\0", b"\5\0")},
        "trailing_bytes",
    ),
    "one time": ({"validity": b"\x17\x0d260101000000Z"}, "truncated"),
    "text as time": ({"validity": b"\x0c\x0d260101000000Z" * 2}, "unexpected_tag"),
    "after the extensions": ({"tail": b"\x05\x00"}, "trailing_bytes"),
    "issuer unique id": ({"tail": b"\x81\x02\x00\x01"}, "trailing_bytes"),
    "key of no bytes": (
        {"spki": der.encode_sequence(der.encode_sequence(der.encode_oid("1.2.3")), b"\x03\x01\0")},
        "bad_bit_string",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_certificate_with_a_flaw_is_refused(name: str, make_certificate: Make) -> None:
    flaw, code = REFUSED[name]
    with pytest.raises(EvidenceError) as caught:
        x509.read_certificate(make_certificate(**flaw))
    assert caught.value.code == code


def test_bytes_after_a_certificate_are_refused(make_certificate: Make) -> None:
    good = make_certificate()
    x509.read_certificate(good)
    with pytest.raises(MalformedEvidence) as caught:
        x509.read_certificate(good + b"\0")
    assert (caught.value.code, caught.value.offset) == ("trailing_bytes", len(good))


def test_a_certificate_has_a_greatest_size(make_certificate: Make) -> None:
    with pytest.raises(MalformedEvidence) as caught:
        x509.read_certificate(make_certificate([("1.2.3", bytes(LIMITS.certificate))]))
    assert caught.value.code == "too_large"


def test_an_unknown_critical_extension_is_named(make_certificate: Make) -> None:
    with pytest.raises(UnsupportedEvidence, match=r"critical extension 1\.2\.3\.4 "):
        x509.read_certificate(make_certificate([("1.2.3.4", b"", b"\x01\x01\xff")]))


@pytest.mark.parametrize("label", ["CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE"])
@pytest.mark.parametrize("ending", [b"", b"\0", b"\n\0\0", b"\r\n  \n"])
def test_pem_of_each_label_and_ending_is_read(label: str, ending: bytes, make_certificate: Make) -> None:
    first, second = make_certificate(), make_certificate(serial=b"\2\1\5")
    text = encode_pem(label, first) + encode_pem(label, second)
    assert pem_to_der(text + ending) == (first, second)
    assert pem_to_der(text.replace(b"\n", b"\r\n") + ending) == (first, second)


def test_trust_settings_are_dropped_under_their_label_only(make_certificate: Make) -> None:
    leaf = make_certificate()
    settings = der.encode_sequence(der.encode(der.UTF8_STRING, b"alias"))
    assert pem_to_der(encode_pem("TRUSTED CERTIFICATE", leaf + settings)) == (leaf,)
    for text in (
        encode_pem("CERTIFICATE", leaf + settings),
        encode_pem("TRUSTED CERTIFICATE", leaf + settings + settings),
        encode_pem("TRUSTED CERTIFICATE", leaf + b"\0"),
        encode_pem("TRUSTED CERTIFICATE", leaf + der.encode_sequence(b"\x02\x00")),
    ):
        with pytest.raises(MalformedEvidence) as caught:
            pem_to_der(text)
        assert caught.value.offset is not None


def test_pem_with_a_flaw_is_refused(make_certificate: Make) -> None:
    good = encode_pem("CERTIFICATE", make_certificate())
    flaws = {
        "no_pem": b"no block here",
        "truncated": good[:-30],
        "trailing_bytes": b"x" + good,
        "bad_base64": good.replace(b"\nMI", b"\nM!", 1),
        "unexpected_label": encode_pem("PUBLIC KEY", make_certificate()),
        "too_many_items": good * (LIMITS.chain + 1),
        "too_large": good + b" " * LIMITS.endorsement,
        "bad_pem": good.replace(b"CERTIFICATE-----\n", b"certificate-----\n", 1),
    }
    for code, text in flaws.items():
        with pytest.raises(MalformedEvidence) as caught:
            pem_to_der(text)
        assert caught.value.code == code
    with pytest.raises(MalformedEvidence, match="text outside"):
        pem_to_der(good + b"junk")
    assert len(read_blocks(b"Certificate: text\n" + good + b"more", explanatory=True)) == 1


def test_base64_has_one_form() -> None:
    with pytest.raises(MalformedEvidence) as caught:
        read_blocks(b"-----BEGIN CERTIFICATE-----\nMAC=\n-----END CERTIFICATE-----\n".replace(b"MAC=", b"MAD="))
    assert caught.value.code == "bad_base64"


def test_the_issuer_of_a_crl_is_read_and_nothing_else_passes(make_certificate: Make) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = oracle.Name([oracle.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    crl = (
        oracle.CertificateRevocationListBuilder(name, start, start + timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    assert x509.read_crl_head(crl).issuer == name.public_bytes()
    for data in (crl + b"\0", make_certificate(), b""):
        with pytest.raises(MalformedEvidence):
            x509.read_crl_head(data)
