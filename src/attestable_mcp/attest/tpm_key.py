"""Attestation keys of TPMs: which one a machine has, and its public half as X.509 writes it.

Three kinds, in the order in which they are looked for. Google Compute Engine keeps the template of a certified key in
NV; Azure keeps a certified key loaded for ever; elsewhere we make our own from a fixed template, which the TPM turns
into the same key each time, also after TPM2_Clear, so that somebody can certify or pin it once. Structures: TCG TPM 2.0
Library Part 2 §12.2. NV indices: TCG, "Registry of reserved TPM 2.0 handles", and the vendors' own.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestable_mcp.attest.tpm_commands import RH_ENDORSEMENT, Loaded, Reader, Tpm, sized
from attestable_mcp.errors import AttesterError, EvidenceError
from attestable_mcp.wire import der

_ALG_RSA, _ALG_ECC, _ALG_SHA256, _ALG_ECDSA, _ALG_NULL, _P256 = 0x0001, 0x0023, 0x000B, 0x0018, 0x0010, 0x0003
_RESTRICTED_SIGNING = 1 << 16 | 1 << 18
_ATTRIBUTES = _RESTRICTED_SIGNING | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 10
"""fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted, sign (Part 2 §8.3)."""
_CURVES: dict[int, ec.EllipticCurve] = {0x0003: ec.SECP256R1(), 0x0004: ec.SECP384R1(), 0x0005: ec.SECP521R1()}
_CERTIFICATE_MOST = 8192


def own_template() -> bytes:
    """TPMT_PUBLIC of our own key: restricted P-256 signing, whose `unique` keeps it apart from other programs'."""
    label = hashlib.sha256(b"attestable-mcp/tpm-attestation-key/v1").digest()
    scheme = struct.pack(">HHHHH", _ALG_NULL, _ALG_ECDSA, _ALG_SHA256, _P256, _ALG_NULL)
    head = struct.pack(">HHI", _ALG_ECC, _ALG_SHA256, _ATTRIBUTES) + sized(b"")
    return head + scheme + sized(label) + sized(bytes(32))


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPlace:
    """Where an attestation key comes from: a persistent handle, a template in NV, or our own template.

    `certificate` is the NV index of its certificate, 0 where there is none.
    """

    name: str
    handle: int = 0
    template: int = 0
    certificate: int = 0

    def open(self, tpm: Tpm) -> Loaded:
        """The key, loaded. A key that could sign other things than the TPM's own statements is refused.

        Raises: AttesterError.
        """
        if self.handle:
            found = Loaded(handle=self.handle, public=tpm.read_public(self.handle))
        else:
            template = tpm.read_index(self.template, 1024) if self.template else own_template()
            found = tpm.create_primary(RH_ENDORSEMENT, template)
        _demand_restricted(found.public, self.name)
        return found

    @property
    def transient(self) -> bool:
        """Must it be flushed after use?"""
        return self.handle == 0


GCE_ECC = KeyPlace(name="Google Compute Engine, P-256", template=0x01C10003, certificate=0x01C10002)
GCE_RSA = KeyPlace(name="Google Compute Engine, RSA", template=0x01C10001, certificate=0x01C10000)
AZURE = KeyPlace(name="Azure", handle=0x81000003, certificate=0x01C101D0)
OWN = KeyPlace(name="attestable-mcp's own template")


def find_key(tpm: Tpm) -> KeyPlace:
    """Which of the known keys this TPM has. Raises: AttesterError."""
    for place in (GCE_ECC, GCE_RSA):
        if tpm.has_handle(place.template) and tpm.has_handle(place.certificate):
            return place
    return AZURE if tpm.has_handle(AZURE.handle) and tpm.has_handle(AZURE.certificate) else OWN


def read_certificate(tpm: Tpm, place: KeyPlace) -> bytes:
    """The key's DER certificate out of NV without the padding after it; empty where the TPM keeps none.

    Raises: AttesterError.
    """
    if not place.certificate or not tpm.has_handle(place.certificate):
        return b""
    content = tpm.read_index(place.certificate, _CERTIFICATE_MOST)
    try:
        return der.Reader(content).read(der.SEQUENCE).raw
    except EvidenceError as error:
        raise AttesterError(f"TPM: NV index {place.certificate:08x} holds no certificate: {error.message}") from error


def _demand_restricted(public: bytes, name: str) -> None:
    """Without `restricted` the key would sign a forged quote as well (Part 1 §31.3.2)."""
    attributes = int.from_bytes(public[4:8], "big")
    if attributes & _RESTRICTED_SIGNING != _RESTRICTED_SIGNING:
        raise AttesterError(
            f"TPM attestation key ({name}): wanted a restricted signing key, seen attributes {attributes:08x}"
        )


def spki(public: bytes) -> bytes:
    """DER SubjectPublicKeyInfo of a TPMT_PUBLIC of an RSA or NIST curve signing key.

    Raises: AttesterError.
    """
    reader = Reader(public, "TPMT_PUBLIC")
    kind = reader.number(2)
    reader.take(6)
    reader.sized()
    if kind == _ALG_RSA:
        key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey = _rsa(reader)
    elif kind == _ALG_ECC:
        key = _ecc(reader)
    else:
        raise AttesterError(f"TPM attestation key: wanted RSA or ECC, seen algorithm {kind:04x}")
    reader.end()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _skip_scheme(reader: Reader) -> None:
    """Symmetric algorithm, which a signing key has not, and the scheme with its hash, if it is fixed."""
    if (symmetric := reader.number(2)) != _ALG_NULL:
        raise AttesterError(f"TPM attestation key: wanted a signing key, seen one with cipher {symmetric:04x}")
    if reader.number(2) != _ALG_NULL:
        reader.number(2)


def _rsa(reader: Reader) -> rsa.RSAPublicKey:
    _skip_scheme(reader)
    reader.number(2)
    exponent = reader.number(4) or 65537
    modulus = int.from_bytes(reader.sized(), "big")
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as error:
        raise AttesterError(f"TPM attestation key: {error}") from error


def _ecc(reader: Reader) -> ec.EllipticCurvePublicKey:
    _skip_scheme(reader)
    curve = _CURVES.get(number := reader.number(2))
    if curve is None:
        raise AttesterError(f"TPM attestation key: wanted P-256, P-384 or P-521, seen curve {number:04x}")
    if reader.number(2) != _ALG_NULL:
        reader.number(2)
    x, y = (int.from_bytes(reader.sized(), "big") for _ in range(2))
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except ValueError as error:
        raise AttesterError(f"TPM attestation key: {error}") from error
