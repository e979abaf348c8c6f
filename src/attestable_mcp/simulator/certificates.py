"""X.509 certificates and CRLs out of parts that may be wrong (RFC 5280), for vendors other than Intel.

`cryptography` would not write what AMD has, such as serial number 0, nor repeat an RSA-PSS signature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestable_mcp.simulator import der, rsa
from attestable_mcp.simulator.keys import DETERMINISTIC

ORGANISATION = "SIMULATED, trusted by nobody"
_ECDSA = {"secp256r1": ("1.2.840.10045.4.3.2", hashes.SHA256()), "secp384r1": ("1.2.840.10045.4.3.3", hashes.SHA384())}
_SHA384 = "2.16.840.1.101.3.4.2.2"
_CERTIFICATE_AND_CRL_SIGN, _DIGITAL_SIGNATURE = b"\x01\x06", b"\x07\x80"
"""BIT STRING contents of keyUsage: unused bits, then the bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """A key as X.509 sees it: what it is, how it names its signatures, and how it signs."""

    spki: bytes
    algorithm: bytes
    sign: Callable[[bytes], bytes]

    @property
    def spki_sha256(self) -> str:
        """What a TrustAnchor compares, lower-case hex."""
        return hashlib.sha256(self.spki).hexdigest()


def ecdsa(key: ec.EllipticCurvePrivateKey) -> Signer:
    """P-256 with SHA-256, P-384 with SHA-384."""
    oid, algorithm = _ECDSA[key.curve.name]
    return Signer(
        spki=key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        algorithm=der.sequence(der.oid(oid)),
        sign=lambda message: key.sign(message, ec.ECDSA(algorithm, deterministic_signing=DETERMINISTIC)),
    )


def pss(key: rsa.Key) -> Signer:
    """RSASSA-PSS with SHA-384 and every parameter stated, as AMD does (RFC 4055 §3.1)."""
    sha384 = der.sequence(der.oid(_SHA384), der.tlv(0x05, b""))
    mgf = der.sequence(der.oid("1.2.840.113549.1.1.8"), sha384)
    parameters = der.sequence(der.tlv(0xA0, sha384), der.tlv(0xA1, mgf), der.tlv(0xA2, der.integer(48)))
    return Signer(
        spki=key.spki,
        algorithm=der.sequence(der.oid("1.2.840.113549.1.1.10"), parameters),
        sign=lambda message: rsa.sign_pss(key, message),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """Somebody with a certificate; `name` is the DER Name in it."""

    name: bytes
    serial: int
    signer: Signer
    der: bytes


def name(common_name: str, *, organisation: str = ORGANISATION) -> bytes:
    """A Name of organisation and common name."""
    pairs = (("2.5.4.10", organisation), ("2.5.4.3", common_name))
    parts = (der.tlv(0x31, der.sequence(der.oid(oid), der.tlv(0x0C, text.encode()))) for oid, text in pairs)
    return der.sequence(*parts)


def extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    """One Extension; `value` is what its OCTET STRING holds."""
    flag = (der.boolean(True),) if critical else ()
    return der.sequence(der.oid(oid), *flag, der.octets(value))


def constraints(*, ca: bool, path_length: int | None = None, signs: bool | None = None) -> tuple[bytes, ...]:
    """basicConstraints and keyUsage, both critical; `signs` says whether keyUsage allows signing certificates."""
    members: tuple[bytes, ...] = (der.boolean(True),) if ca else ()
    members += (der.integer(path_length),) if ca and path_length is not None else ()
    usage = _CERTIFICATE_AND_CRL_SIGN if (ca if signs is None else signs) else _DIGITAL_SIGNATURE
    return (
        extension("2.5.29.19", der.sequence(*members), critical=True),
        extension("2.5.29.15", der.tlv(0x03, usage), critical=True),
    )


def issue(
    subject: str,
    own: Signer,
    issuer: Party | None,
    *,
    serial: int,
    valid: tuple[datetime, datetime],
    extensions: Sequence[bytes],
    signer: Signer | None = None,
) -> Party:
    """A version 3 certificate for the key of `own`. No issuer: self-signed. `signer` forges the signature."""
    signing = signer or (issuer.signer if issuer else own)
    claimed = issuer.signer.algorithm if issuer else own.algorithm
    subject_name = name(subject)
    tbs = der.sequence(
        der.tlv(0xA0, der.integer(2)),
        der.integer(serial),
        claimed,
        issuer.name if issuer else subject_name,
        der.sequence(*(_time(moment) for moment in valid)),
        subject_name,
        own.spki,
        der.tlv(0xA3, der.sequence(*extensions)),
    )
    raw = der.sequence(tbs, claimed, der.tlv(0x03, b"\0" + signing.sign(tbs)))
    return Party(name=subject_name, serial=serial, signer=own, der=raw)


def revocation_list(
    issuer: Party, revoked: Sequence[int], valid: tuple[datetime, datetime], *, signer: Signer | None = None
) -> bytes:
    """A version 2 CRL, DER; `signer` forges it."""
    when = _time(valid[0])
    entries = tuple(der.sequence(der.integer(serial), when) for serial in revoked)
    listed = (der.sequence(*entries),) if entries else ()
    number = der.tlv(0xA0, der.sequence(extension("2.5.29.20", der.integer(1))))
    algorithm = issuer.signer.algorithm
    dates = [_time(moment) for moment in valid]
    tbs = der.sequence(der.integer(1), algorithm, issuer.name, *dates, *listed, number)
    return der.sequence(tbs, algorithm, der.tlv(0x03, b"\0" + (signer or issuer.signer).sign(tbs)))


def _time(moment: datetime) -> bytes:
    """UTCTime up to 2049, GeneralizedTime after (RFC 5280 §4.1.2.5)."""
    utc = moment.astimezone(UTC)
    if utc.year < 2050:
        return der.tlv(0x17, utc.strftime("%y%m%d%H%M%SZ").encode())
    return der.tlv(0x18, utc.strftime("%Y%m%d%H%M%SZ").encode())
