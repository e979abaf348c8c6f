"""Signatures by the names that formats give them: X.509 AlgorithmIdentifiers, TPM and COSE schemes.

The lists are closed: what they do not name is refused, so that no peer chooses the algorithm. Pure.
Sources: RFC 5758 §3.2, RFC 8017 §8 and A.2, RFC 4055 §3.1 (RSASSA-PSS parameters, which AMD states explicitly).
"""

from __future__ import annotations

from functools import lru_cache

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from attestable_mcp.errors import MalformedEvidence, UnsupportedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.wire import der

HASHES: dict[str, hashes.HashAlgorithm] = {
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}
"""No SHA-1: nobody should trust a new signature over it."""
_ECDSA_OVER = {algorithm.name: ec.ECDSA(algorithm) for algorithm in HASHES.values()}
_ECDSA = {"1.2.840.10045.4.3.2": "sha256", "1.2.840.10045.4.3.3": "sha384", "1.2.840.10045.4.3.4": "sha512"}
_RSASSA = {
    "1.2.840.113549.1.1.11": "sha256",
    "1.2.840.113549.1.1.12": "sha384",
    "1.2.840.113549.1.1.13": "sha512",
}
_RSAPSS = "1.2.840.113549.1.1.10"
_MGF1 = "1.2.840.113549.1.1.8"
_HASH_OIDS = {
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
_SPKI = 2048
"""Bytes; RSA of 8192 bits takes 1070."""
_RSA_BITS = range(2048, 8193)
_CURVES = ("secp256r1", "secp384r1", "secp521r1")


@lru_cache(maxsize=LIMITS.remembered)
def load_key(spki: bytes) -> PublicKeyTypes:
    """A public key of DER SubjectPublicKeyInfo: RSA of 2048 to 8192 bits, or P-256, P-384, P-521.

    Raises: MalformedEvidence, UnsupportedEvidence.
    """
    if len(spki) > _SPKI:
        raise UnsupportedEvidence(f"a public key of {len(spki)} bytes, at most {_SPKI} are read")
    try:
        key = load_der_public_key(spki)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MalformedEvidence("a public key that cannot be read", field="SubjectPublicKeyInfo") from error
    if isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name in _CURVES:
        return key
    raise UnsupportedEvidence(f"wanted RSA of 2048 to 8192 bits or a NIST curve, seen {type(key).__name__}")


def holds(scheme: str, hash_name: str, spki: bytes, signature: bytes, message: bytes) -> bool:
    """Does `signature` over `message` verify? `scheme` is rsassa, rsapss (salt as long as the hash) or ecdsa (r || s).

    Raises: MalformedEvidence (an unreadable key), UnsupportedEvidence (a scheme or hash outside the list).
    """
    key, algorithm = load_key(spki), HASHES.get(hash_name)
    if algorithm is None:
        raise UnsupportedEvidence(f"wanted a signature over SHA-256, SHA-384 or SHA-512, seen {hash_name}")
    if scheme == "ecdsa":
        return _ecdsa_raw(key, algorithm, signature, message)
    if scheme == "rsassa":
        return _rsa(key, padding.PKCS1v15(), algorithm, signature, message)
    if scheme == "rsapss":
        pss = padding.PSS(mgf=padding.MGF1(algorithm), salt_length=algorithm.digest_size)
        return _rsa(key, pss, algorithm, signature, message)
    raise UnsupportedEvidence(f"wanted rsassa, rsapss or ecdsa, seen {scheme}")


def certificate_holds(algorithm: bytes, spki: bytes, signature: bytes, message: bytes) -> bool:
    """Does an X.509 or CRL signature verify? `algorithm` is the DER AlgorithmIdentifier, `message` the signed span.

    Raises: MalformedEvidence, UnsupportedEvidence.
    """
    reader = der.parse(algorithm, der.SEQUENCE, field="signatureAlgorithm").reader("signatureAlgorithm")
    oid = der.read_oid(reader.read(der.OID))
    key = load_key(spki)
    if oid in _ECDSA:
        return _ecdsa_der(key, HASHES[_ECDSA[oid]], signature, message)
    if oid in _RSASSA:
        return _rsa(key, padding.PKCS1v15(), HASHES[_RSASSA[oid]], signature, message)
    if oid == _RSAPSS:
        hash_name, salt = _pss_parameters(reader)
        pss = padding.PSS(mgf=padding.MGF1(HASHES[hash_name]), salt_length=salt)
        return _rsa(key, pss, HASHES[hash_name], signature, message)
    raise UnsupportedEvidence(f"a certificate signed by an algorithm that we do not take: {oid}")


def _pss_parameters(reader: der.Reader) -> tuple[str, int]:
    """Hash and salt length. All explicit: the defaults of RFC 4055 mean SHA-1. Hash and MGF hash have to agree."""
    members = reader.read(der.SEQUENCE, "RSASSA-PSS-params").reader("RSASSA-PSS-params")
    name = _hash_name(members.read(0xA0).reader().read(der.SEQUENCE))
    mgf = members.read(0xA1).reader().read(der.SEQUENCE).reader()
    if der.read_oid(mgf.read(der.OID)) != _MGF1 or _hash_name(mgf.read(der.SEQUENCE)) != name:
        raise UnsupportedEvidence("RSASSA-PSS: wanted MGF1 with the hash of the signature")
    salt = der.read_integer(members.read(0xA2).reader().read(der.INTEGER))
    if salt != HASHES[name].digest_size:
        raise UnsupportedEvidence(f"RSASSA-PSS: wanted a salt as long as the hash, seen {salt}")
    return name, salt


def _hash_name(element: der.Element) -> str:
    oid = der.read_oid(element.reader("hashAlgorithm").read(der.OID))
    if oid not in _HASH_OIDS:
        raise UnsupportedEvidence(f"wanted SHA-256, SHA-384 or SHA-512, seen {oid}")
    return _HASH_OIDS[oid]


def _rsa(
    key: PublicKeyTypes,
    pad: padding.AsymmetricPadding,
    algorithm: hashes.HashAlgorithm,
    signature: bytes,
    message: bytes,
) -> bool:
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    try:
        key.verify(signature, message, pad, algorithm)
    except (InvalidSignature, ValueError):
        return False
    return True


def _ecdsa_raw(key: PublicKeyTypes, algorithm: hashes.HashAlgorithm, signature: bytes, message: bytes) -> bool:
    half = len(signature) // 2
    if half == 0 or len(signature) % 2:
        return False
    r, s = int.from_bytes(signature[:half], "big"), int.from_bytes(signature[half:], "big")
    return _ecdsa_der(key, algorithm, encode_dss_signature(r, s), message)


def _ecdsa_der(key: PublicKeyTypes, algorithm: hashes.HashAlgorithm, signature: bytes, message: bytes) -> bool:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(signature, message, _ECDSA_OVER[algorithm.name])
    except (InvalidSignature, ValueError):
        return False
    return True
