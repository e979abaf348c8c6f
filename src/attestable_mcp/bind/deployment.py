"""Whose copy this is: an owner's grant for a key, and proof that the other end of this connection holds that key.

A measurement says which code answers. The owner's signature over a grant says that the key named there is its
deployment; the key's signature over this connection's transcript says that it is here; the transcript, which evidence
covers, says that the attested code holds it. Formats: docs/deployment.md.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from attestable_mcp.bind.transcript import DIGEST_SIZE, frame
from attestable_mcp.errors import MalformedEvidence, WrongDeployment
from attestable_mcp.rats import Deployment, RevocationList
from attestable_mcp.wire.grant import (
    EDDSA,
    ES256,
    GRANT_TYPE,
    REVOCATION_TYPE,
    SIGNATURE_SIZE,
    Grant,
    Revocation,
    Signed,
    read_grant,
    read_revocation,
    read_signed,
)

PROOF_LABEL = b"attestable-mcp/deployment/v1"
PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
_PublicKey = Ed25519PublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentProof:
    """What the proving end shows beside its evidence: `grant` and `revocation` (COSE_Sign1, the latter may be empty),
    the deployment key's SPKI, and its signature over this connection's transcript (64 bytes)."""

    grant: bytes
    key: bytes
    signature: bytes
    revocation: bytes = b""


class DeploymentKey:
    """A private key made in the TEE, which signs nothing but transcript digests behind a label of its own.

    `private` (Ed25519 or P-256) is for those who keep one sealed; without it the key lives and dies with the process.
    """

    __slots__ = ("_private", "spki", "spki_sha256")

    def __init__(self, private: PrivateKey | None = None) -> None:
        self._private = private or Ed25519PrivateKey.generate()
        self.spki = spki_of(self._private)
        self.spki_sha256 = hashlib.sha256(self.spki).digest()

    def sign(self, transcript_digest: bytes) -> bytes:
        """64-byte signature over the framed label and digest."""
        return _sign(self._private, _message(transcript_digest))


def spki_of(key: PrivateKey) -> bytes:
    """DER SubjectPublicKeyInfo of a private key.

    Raises:
        TypeError: The key is neither Ed25519 nor P-256.
    """
    if isinstance(key, ec.EllipticCurvePrivateKey) and not isinstance(key.curve, ec.SECP256R1):
        raise TypeError(f"key: wanted Ed25519 or P-256, seen {key.curve.name}")
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_hash(spki: bytes) -> str:
    """Lower-case hex SHA-256 of a SubjectPublicKeyInfo: how owners and deployment keys are named."""
    return hashlib.sha256(spki).hexdigest()


def sign_grant(owner: PrivateKey, grant: Grant) -> bytes:
    """The grant as a COSE_Sign1 of its owner."""
    return sign_document(owner, GRANT_TYPE, grant.payload())


def sign_revocation(owner: PrivateKey, revocation: Revocation) -> bytes:
    """The list as a COSE_Sign1 of its owner."""
    return sign_document(owner, REVOCATION_TYPE, revocation.payload())


def open_grant(data: bytes) -> Grant:
    """A grant that the owner whom it names has signed. Whether that owner is wanted, the caller says.

    Raises:
        MalformedEvidence: The bytes break the format.
        WrongDeployment: The signature does not hold.
    """
    signed = read_signed(data, GRANT_TYPE)
    grant = read_grant(signed)
    check_document(grant.owner, signed, "grant")
    return grant


def open_revocation(data: bytes) -> Revocation:
    """As `open_grant`, for a revocation list."""
    signed = read_signed(data, REVOCATION_TYPE)
    revocation = read_revocation(signed)
    check_document(revocation.owner, signed, "revocation list")
    return revocation


def check_deployment(proof: DeploymentProof, *, committed: bytes, transcript: bytes) -> Deployment:
    """The deployment that this connection's other end belongs to.

    `committed` is the deployment key hash (32 bytes) to which verified evidence commits, `transcript` the digest of
    this connection's transcript, rebuilt here.

    Raises:
        MalformedEvidence: The bytes break their format.
        WrongDeployment: The grant is not signed by the owner it names, or speaks of a key that is not here.
    """
    grant = open_grant(proof.grant)
    held = hashlib.sha256(proof.key).digest()
    if held != grant.key:
        raise _wrong(f"grant for {grant.name!r}: deployment key wanted {grant.key.hex()}, seen {held.hex()}")
    if committed != grant.key:
        raise _wrong(f"grant for {grant.name!r}: the evidence vouches for another key ({committed.hex() or 'none'})")
    if not _holds(proof.key, proof.signature, _message(transcript)):
        raise _wrong(f"grant for {grant.name!r}: its key did not sign this connection's transcript")
    revocation = open_revocation(proof.revocation) if proof.revocation else None
    if revocation is not None and (revocation.owner, revocation.name) != (grant.owner, grant.name):
        raise _wrong(f"grant for {grant.name!r}: the revocation list beside it is of another owner or deployment")
    return deployment_of(grant, revocation)


def deployment_of(grant: Grant, revocation: Revocation | None = None) -> Deployment:
    """The claims of a grant in the shape that results show."""
    return Deployment(
        owner=key_hash(grant.owner),
        name=grant.name,
        hosts=grant.hosts,
        key=grant.key.hex(),
        serial=grant.serial,
        not_before=grant.not_before,
        not_after=grant.not_after,
        revocations=None if revocation is None else revocations_of(revocation),
    )


def revocations_of(revocation: Revocation) -> RevocationList:
    """The claims of a revocation list."""
    return RevocationList(
        owner=key_hash(revocation.owner),
        name=revocation.name,
        number=revocation.number,
        issued_at=revocation.issued_at,
        minimum_serial=revocation.minimum_serial,
        serials=revocation.serials,
        keys=tuple(key.hex() for key in revocation.keys),
    )


def _wrong(message: str) -> WrongDeployment:
    return WrongDeployment(message)


def _message(transcript_digest: bytes) -> bytes:
    if len(transcript_digest) != DIGEST_SIZE:
        raise TypeError(f"deployment key signs transcript digests of {DIGEST_SIZE} bytes")
    return frame(PROOF_LABEL, transcript_digest)


def sign_document(key: PrivateKey, content_type: str, payload: bytes) -> bytes:
    """A COSE_Sign1 over `payload`, of this content type."""
    algorithm = EDDSA if isinstance(key, Ed25519PrivateKey) else ES256
    blank = Signed(algorithm=algorithm, content_type=content_type, payload=payload, signature=b"")
    signature = _sign(key, blank.to_be_signed)
    return Signed(algorithm=algorithm, content_type=content_type, payload=payload, signature=signature).encode()


def _sign(key: PrivateKey, message: bytes) -> bytes:
    if isinstance(key, Ed25519PrivateKey):
        return key.sign(message)
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def check_document(spki: bytes, signed: Signed, what: str) -> None:
    """Does the key sign this document? Raises: WrongDeployment, MalformedEvidence."""
    if _algorithm_of(load_key(spki)) != signed.algorithm or not _holds(spki, signed.signature, signed.to_be_signed):
        raise _wrong(f"{what}: wanted the signature of the owner that it names, seen one that does not hold")


def load_key(spki: bytes) -> _PublicKey:
    """An Ed25519 or P-256 public key out of its DER SubjectPublicKeyInfo, which must be in its one form.

    Raises:
        MalformedEvidence: Anything else.
    """
    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise MalformedEvidence("public key: wanted a SubjectPublicKeyInfo", field="key") from error
    plain = isinstance(key, Ed25519PublicKey)
    if not plain and not (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1)):
        raise MalformedEvidence("public key: wanted Ed25519 or P-256", field="key")
    assert isinstance(key, Ed25519PublicKey | ec.EllipticCurvePublicKey)
    if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != spki:
        raise MalformedEvidence("public key: wanted its one DER form", field="key")
    return key


def _algorithm_of(key: _PublicKey) -> int:
    return EDDSA if isinstance(key, Ed25519PublicKey) else ES256


def _holds(spki: bytes, signature: bytes, message: bytes) -> bool:
    key = load_key(spki)
    if len(signature) != SIGNATURE_SIZE:
        return False
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, message)
        else:
            r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            key.verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True
