"""Our own results as signed tokens: EAT Attestation Results (draft-ietf-rats-ear-03) with the tiers of AR4SI.

So that another system can rely on a verdict without repeating it. A token never says more than its result: simulated
evidence is contraindicated whatever the policy accepts, code that was not compared is a warning, and what nobody judged
is none. Read back by `verify.token` under the profile `ear`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from importlib import metadata
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from attestable_mcp.errors import ConfigurationError
from attestable_mcp.rats import AttestationResult, Tee, Verdict
from attestable_mcp.wire import base64url

PROFILE = "tag:ietf.org,2026:rats/ear#03"
LIFETIME = timedelta(hours=1)
"""Longest time for which a token speaks; never longer than the result holds."""
SUBMOD = "peer"
RESULT = "ear.attestable-mcp.result"
"""The claim that holds the whole result in its public JSON shape."""
_CURVES: dict[str, tuple[str, hashes.HashAlgorithm]] = {
    "secp256r1": ("ES256", hashes.SHA256()),
    "secp384r1": ("ES384", hashes.SHA384()),
    "secp521r1": ("ES512", hashes.SHA512()),
}
_TIERS = ((96, "contraindicated"), (32, "warning"), (2, "affirming"))
_GOOD_STATUSES = ("", "UpToDate", "SWHardeningNeeded", "affirming")
_HINT = "Give a PEM private key, not encrypted: P-256, P-384, P-521, or RSA of at least 2048 bits."


def claims_of(
    result: AttestationResult, *, issuer: str = "", nonce: str = "", lifetime: timedelta = LIFETIME
) -> dict[str, Any]:
    """The claims of an EAR for this result, issued at the time of its judgement."""
    vector = _vector(result)
    until = min(filter(None, (_after(result.at, lifetime), result.holds_until)))
    claims: dict[str, Any] = {
        "eat_profile": PROFILE,
        "iat": _seconds(result.at),
        "exp": _seconds(until),
        "ear.verifier-id": {
            "developer": "attestable-mcp",
            "build": f"attestable-mcp {metadata.version('attestable-mcp')}",
        },
        "submods": {
            SUBMOD: {
                "ear.status": _status(result, vector),
                "ear.trustworthiness-vector": vector,
                "ear.appraisal-policy-id": result.policy,
                RESULT: result.to_json(),
            }
        },
    }
    return claims | ({"iss": issuer} if issuer else {}) | ({"eat_nonce": nonce} if nonce else {})


def _after(moment: datetime, span: timedelta) -> datetime:
    try:
        return moment + span
    except OverflowError:  # a replay may judge as of any time
        return moment


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp())


def _vector(result: AttestationResult) -> dict[str, int]:
    """AR4SI claims that the verdict speaks of; one that it is silent on is left out.

    hardware: 2 genuine, 32 genuine but with known weaknesses, 97 not recognised. executables: 2 approved, 33 not
    recognised, 96 not acceptable. runtime-opaque: 2 the memory is hidden from its host.
    """
    if result.simulated:
        return {"hardware": 97}
    if result.verdict is Verdict.UNAVAILABLE or not result.claims:
        return {}
    if result.verdict is Verdict.REFUSED:
        return {"executables": 96}
    hardware = 2 if result.tcb_status in _GOOD_STATUSES else 32
    vector = {"hardware": hardware, "executables": 2 if result.verdict is Verdict.VERIFIED else 33}
    hidden = result.tee not in (Tee.TPM, Tee.TOKEN) and result.claims.get("debug") is False
    return vector | {"runtime-opaque": 2} if hidden else vector


def _status(result: AttestationResult, vector: Mapping[str, int]) -> str:
    """No better than the worst claim, and than the verdict."""
    if result.verdict is Verdict.REFUSED:
        return "contraindicated"
    worst = max(vector.values(), default=0)
    return next((tier for least, tier in _TIERS if worst >= least), "none")


def sign(claims: Mapping[str, Any], key_pem: bytes) -> str:
    """A compact token, signed by this private key; `kid` is the SHA-256 of its SubjectPublicKeyInfo (hex).

    Raises:
        ConfigurationError: no private key that we sign with.
    """
    key = _load(key_pem)
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    algorithm = "PS256" if isinstance(key, rsa.RSAPrivateKey) else _CURVES[key.curve.name][0]
    header = {"alg": algorithm, "typ": "JWT", "kid": hashlib.sha256(spki).hexdigest()}
    signed = ".".join(base64url.encode(json.dumps(part, separators=(",", ":")).encode()) for part in (header, claims))
    return f"{signed}.{base64url.encode(_signature(key, signed.encode('ascii')))}"


def _load(key_pem: bytes) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(key_pem, None)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"token key: not a private key in PEM ({error})", hint=_HINT) from error
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return key
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return key
    raise ConfigurationError("token key: of a kind that signs no token here", hint=_HINT)


def _signature(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, message: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=hashes.SHA256.digest_size)
        return key.sign(message, pss, hashes.SHA256())
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(_CURVES[key.curve.name][1])))
    size = (key.curve.key_size + 7) // 8
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")
