"""The real RA-TLS certificates: what each must be read as."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from cryptography import x509 as oracle

from attestable_mcp.errors import UnsupportedEvidence
from attestable_mcp.wire import ratls, x509
from attestable_mcp.wire.recognise import Certificate, recognise

INTEROP = {
    "interop-gramine": ["dice-tagged-evidence", "gramine-legacy"],
    "interop-intel-sgxsdk": ["dice-tagged-evidence", "intel-sgx-sdk"],
    "interop-rats-tls": ["dice-tagged-evidence"],
}


@pytest.mark.parametrize("name", INTEROP)
def test_e11_each_interop_certificate_is_read(name: str, vectors: Path) -> None:
    folder = vectors / "ratls" / name
    meta = tomllib.loads((folder / "meta.toml").read_text())
    read = ratls.read((folder / "cert.der").read_bytes())
    assert [piece.source for piece in read.evidence] == INTEROP[name]
    assert [extension.oid for extension in read.leaf.extensions] == meta["checked_here"]["extension_oids"]
    assert read.leaf.signature_algorithm.hex() == meta["checked_here"]["signature_algorithm_der"]
    assert read.leaf.not_before.isoformat().startswith(meta["verify"]["not_before"][:-1])
    assert read.leaf.not_after.isoformat().startswith(meta["verify"]["not_after"][:-1])
    measurements = meta["measurements"]
    assert measurements["report_data"] in [piece.report_data.hex() for piece in read.evidence]
    for piece in read.evidence:
        assert piece.key_matches
        assert piece.evidence.body[368:432] == piece.report_data
        assert piece.evidence.body[112:144].hex() == measurements["mrenclave"]


@pytest.mark.parametrize("name", INTEROP)
def test_e11_pem_says_the_same_as_der(name: str, vectors: Path) -> None:
    folder = vectors / "ratls" / name
    encoded = (folder / "cert.der").read_bytes()
    assert x509.pem_to_der((folder / "cert.pem").read_bytes()) == (encoded,)
    assert recognise((folder / "cert.pem").read_bytes()) == Certificate(der=encoded)


@pytest.mark.parametrize("name", ["cmw-cbor", "cmw-json"])
def test_other_wrappers_are_named(name: str, vectors: Path) -> None:
    with pytest.raises(UnsupportedEvidence, match=r"1\.3\.6\.1\.5\.5\.7\.1\.35"):
        ratls.read((vectors / "ratls" / name / "cert.der").read_bytes())


def test_every_leaf_in_the_vectors_reads_as_cryptography_reads_it(vectors: Path) -> None:
    compared = 0
    for path in sorted(vectors.glob("*/*/collateral/pck_chain.pem")):
        for encoded in x509.pem_to_der(path.read_bytes()):
            ours, theirs = x509.read_certificate(encoded), oracle.load_der_x509_certificate(encoded)
            assert ours.serial == theirs.serial_number
            assert ours.tbs == theirs.tbs_certificate_bytes
            assert ours.subject == theirs.subject.public_bytes()
            assert ours.issuer == theirs.issuer.public_bytes()
            assert ours.not_after == theirs.not_valid_after_utc
            assert ours.signature == theirs.signature
            assert [(e.oid, e.critical) for e in ours.extensions] == [
                (e.oid.dotted_string, e.critical) for e in theirs.extensions
            ]
            assert ratls.read(encoded).evidence == ()
            compared += 1
    assert compared >= 30
