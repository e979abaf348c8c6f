"""Private keys that anybody can make again from a seed: worthless for trust, useful for repeatable forgeries."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

WELL_KNOWN_SEED = b"attestable-mcp simulated root, trusted by nobody"
"""The seed of the one simulated root that every copy of this package shares."""

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def private_key(seed: bytes, name: str = "") -> ec.EllipticCurvePrivateKey:
    """The P-256 key of `seed`: int(SHA-256(seed)) mod (n - 1) + 1; a named one adds a NUL and the name to the seed."""
    material = seed if not name else seed + b"\0" + name.encode()
    scalar = int.from_bytes(hashlib.sha256(material).digest(), "big") % (P256_ORDER - 1) + 1
    return ec.derive_private_key(scalar, ec.SECP256R1())


_P384_ORDER = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)


def private_key_p384(seed: bytes, name: str) -> ec.EllipticCurvePrivateKey:
    """The P-384 key of a seed and a name."""
    material = hashlib.sha512(seed + b"\0p384\0" + name.encode()).digest()
    return ec.derive_private_key(int.from_bytes(material, "big") % (_P384_ORDER - 1) + 1, ec.SECP384R1())


def serial(seed: bytes, name: str) -> int:
    """A positive 20-byte certificate serial number that follows from the seed and a name."""
    digest = hashlib.sha256(seed + b"\0serial\0" + name.encode()).digest()
    return int.from_bytes(b"\x51" + digest[:19], "big")


def _deterministic() -> bool:
    try:
        private_key(WELL_KNOWN_SEED).sign(b"", ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    except UnsupportedAlgorithm:
        return False
    return True


DETERMINISTIC = _deterministic()
"""Whether signatures repeat (RFC 6979, OpenSSL 3.2 and later): then a vendor made again issues the same bytes."""


def sign_raw(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """r || s, 64 bytes big-endian, ECDSA with SHA-256."""
    algorithm = ec.ECDSA(hashes.SHA256(), deterministic_signing=DETERMINISTIC)
    r, s = decode_dss_signature(key.sign(message, algorithm))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def sign_raw_p384(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """r || s, 96 bytes big-endian, ECDSA with SHA-384."""
    algorithm = ec.ECDSA(hashes.SHA384(), deterministic_signing=DETERMINISTIC)
    r, s = decode_dss_signature(key.sign(message, algorithm))
    return r.to_bytes(48, "big") + s.to_bytes(48, "big")


def conjugate_p384(signature: bytes) -> bytes:
    """(r, n - s): the other valid form of the same signature."""
    s = int.from_bytes(signature[48:], "big")
    return signature[:48] + (_P384_ORDER - s).to_bytes(48, "big")


def conjugate(signature: bytes) -> bytes:
    """(r, n - s): the other valid form of the same signature."""
    s = int.from_bytes(signature[32:], "big")
    return signature[:32] + (P256_ORDER - s).to_bytes(32, "big")


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    """x || y of the public key, 64 bytes big-endian."""
    encoded = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    return encoded[1:]


def spki_sha256(key: ec.EllipticCurvePrivateKey) -> str:
    """SHA-256 of the DER SubjectPublicKeyInfo, lower-case hex."""
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()
