"""The pinned keys are what they say."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestable_mcp.verify.anchors import INTEL_SGX_ROOT, SIMULATED_ROOT, TrustAnchors
from attestable_mcp.wire.intel import read_quote
from attestable_mcp.wire.x509 import read_certificate

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def test_the_simulated_root_follows_from_its_sentence() -> None:
    number = int.from_bytes(hashlib.sha256(b"attestable-mcp simulated root, trusted by nobody").digest(), "big")
    key = ec.derive_private_key(number % (P256_ORDER - 1) + 1, ec.SECP256R1()).public_key()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert hashlib.sha256(spki).hexdigest() == SIMULATED_ROOT.spki_sha256


def test_the_simulated_root_is_marked_and_not_trusted_by_default() -> None:
    assert SIMULATED_ROOT.simulated
    assert TrustAnchors().intel == (INTEL_SGX_ROOT,)


def test_intels_root_is_the_one_at_the_end_of_real_chains(vectors: Path) -> None:
    quote = read_quote((vectors / "tdx" / "dcapqvl-v4-uptodate" / "quote.bin").read_bytes())
    root = next(der for der in quote.certificates if hashlib.sha256(der).hexdigest().startswith("44a0196b"))
    assert hashlib.sha256(read_certificate(root).spki).hexdigest() == INTEL_SGX_ROOT.spki_sha256
