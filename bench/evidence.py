"""What verification costs for AMD, AWS and TPM evidence: cold and warm, beside the signatures that nobody can remember.

A report, document or quote brings a signature of its own each time; its algorithm's bare verification is the floor,
measured in the same run. Chains and lists are remembered by digest. Each verification is of other evidence of the same
machine, with a nonce of its own.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import warnings
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind
from attestable_mcp.simulator import amd, aws, tpm
from attestable_mcp.verify import signature
from attestable_mcp.verify import table as verify_table
from attestable_mcp.verify.anchors import SIMULATED_ROOTS, TokenTrust
from attestable_mcp.verify.memory import Memory, anchor_digest
from attestable_mcp.verify.token import EAR_PROFILES
from attestable_mcp.wire import tpm as wire_tpm
from attestable_mcp.wire import x509
from attestable_mcp.wire.token import TokenKey
from measure import samples, table

AT = datetime(2026, 6, 1, tzinfo=UTC)
WARM_AIM, FRESH, ROUNDS = 1.5, 32, 1000
ISSUER = "https://as.example"
ISSUERS: list[TokenTrust] = []


def ecdsa_floor(curve: ec.EllipticCurve, algorithm: hashes.HashAlgorithm) -> Callable[[], object]:
    """One bare ECDSA verification with the key at hand."""
    key, message = ec.generate_private_key(curve), b"x" * 672
    made = key.sign(message, ec.ECDSA(algorithm))
    public = key.public_key()
    return lambda: public.verify(made, message, ec.ECDSA(algorithm))


def rsa_floor(bits: int) -> Callable[[], object]:
    """One bare RSASSA verification with the key at hand."""
    key, message = rsa.generate_private_key(65537, bits), b"x" * 145
    made = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    public = key.public_key()
    return lambda: public.verify(made, message, padding.PKCS1v15(), hashes.SHA256())


Row = tuple[str, list[Evidence], Endorsements, Callable[[], object]]


def several(kind: EvidenceKind, make: Callable[[], bytes]) -> list[Evidence]:
    """Fresh evidence of one machine."""
    return [Evidence(kind=kind, body=make()) for _ in range(FRESH)]


def snp() -> Row:
    vendor = amd.well_known()
    reports = several(EvidenceKind.SNP_REPORT, lambda: vendor.report(os.urandom(64), bytes(48)))
    return "SEV-SNP report", reports, vendor.collateral(at=AT), ecdsa_floor(ec.SECP384R1(), hashes.SHA384())


def nitro() -> Row:
    documents = several(EvidenceKind.NITRO_DOCUMENT, lambda: aws.well_known().document(os.urandom(64), at=AT))
    return "Nitro document", documents, Endorsements(), ecdsa_floor(ec.SECP384R1(), hashes.SHA384())


def tpm_quote() -> Row:
    vendor = tpm.well_known()
    quotes = several(EvidenceKind.TPM_QUOTE, lambda: vendor.evidence(os.urandom(64)))
    key = signature.load_key(wire_tpm.read_evidence(quotes[0].body).ak)
    plain = isinstance(key, rsa.RSAPublicKey)
    floor = rsa_floor(key.key_size) if plain else ecdsa_floor(ec.SECP256R1(), hashes.SHA256())
    return f"TPM quote ({'RSA' if plain else 'ECDSA'})", quotes, vendor.collateral(at=AT), floor


def token() -> Row:
    """An EAR as Veraison writes it, ES256, under a pinned key."""
    key = ec.generate_private_key(ec.SECP256R1())
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    ISSUERS.append(TokenTrust(profile="ear", issuer=ISSUER, keys=(TokenKey(spki=spki, curve="P-256"),)))
    tokens = several(EvidenceKind.TOKEN, lambda: signed_token(key))
    return "token (EAR, ES256)", tokens, Endorsements(), ecdsa_floor(ec.SECP256R1(), hashes.SHA256())


def signed_token(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Three kilobytes, with a nonce of its own."""
    claims = {
        "iss": ISSUER, "iat": int(AT.timestamp()) - 60, "exp": int(AT.timestamp()) + 600,
        "eat_profile": EAR_PROFILES[1], "eat_nonce": os.urandom(32).hex(),
        "submods": {"cpu0": {"ear.status": "affirming", "ear.veraison.annotated-evidence": {"tdx": "00" * 1024}}},
    }  # fmt: skip
    parts = [json.dumps({"alg": "ES256", "typ": "JWT"}), json.dumps(claims)]
    signed = b".".join(urlsafe_b64encode(part.encode()).rstrip(b"=") for part in parts)
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
    return signed + b"." + urlsafe_b64encode(r.to_bytes(32, "big") + s.to_bytes(32, "big")).rstrip(b"=")


def forget() -> None:
    """Neither what was proven nor how pieces decode is remembered from here on."""
    x509.read_short_certificate.cache_clear()
    x509.read_short_crl_head.cache_clear()
    signature.load_key.cache_clear()
    wire_tpm._remembered_pcrs.cache_clear()
    anchor_digest.cache_clear()


def rows(fresh: list[Evidence], bag: Endorsements, floor: Callable[[], object]) -> list[tuple[str, str, str, str]]:
    remembered, anchors = Memory(), replace(SIMULATED_ROOTS, tokens=tuple(ISSUERS))
    turn = itertools.cycle(fresh)

    def verify(memory: Memory) -> object:
        return verify_table.verify(next(turn), bag, anchors=anchors, at=AT, memory=memory)

    def cold() -> object:
        forget()
        return verify(Memory())

    found = samples({"cold": cold}, rounds=20, inner=1)
    found |= samples({"floor": floor, "warm": lambda: verify(remembered)}, rounds=ROUNDS, inner=4)
    unit, middle = min(found["floor"]), statistics.median(found["floor"])
    aims = {"floor": "1", "cold": "", "warm": f"at most {WARM_AIM} x floor"}
    return [
        (
            name,
            f"{min(found[name]) * 1e3:.3f} ms at best, median {statistics.median(found[name]) * 1e3:.3f} ms",
            f"{min(found[name]) / unit:.2f} x floor at best, medians {statistics.median(found[name]) / middle:.2f}",
            aim,
        )
        for name, aim in aims.items()
    ]


def main() -> None:
    warnings.simplefilter("ignore")
    for make in (snp, nitro, tpm_quote, token):
        name, fresh, bag, floor = make()
        table(f"verification of one {name}", rows(fresh, bag, floor))


if __name__ == "__main__":
    main()
