"""A manifest that its publisher signed: a JSON document with the manifest, when it was signed, and the signature.

    {"format": "attestable-mcp/signed-manifest/v1", "manifest": {...}, "issued": "2026-11-21T16:00:00Z",
     "expires": "2027-…" or absent, "key": SHA-256 of the signer's SPKI in hex, "signature": base64}

Signed is the canonical JSON (RFC 8785) of {"digest", "issued", "expires"}, framed behind the format's name: Ed25519, or
ECDSA on P-256 with SHA-256 (DER). The key itself comes from the policy, never from the document.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from attestable_mcp.bind.transcript import frame
from attestable_mcp.errors import ConfigurationError, MalformedEvidence, NotFresh, SignatureInvalid
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp.manifest import FORMAT, Manifest, document
from attestable_mcp.wire.jcs import canonical

SIGNED_FORMAT: Final = "attestable-mcp/signed-manifest/v1"
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
PublicKey = Ed25519PublicKey | ec.EllipticCurvePublicKey
PrivateKey = Ed25519PrivateKey | ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedManifest:
    """A manifest as its document holds it. `signature` is proven only by `check`."""

    manifest: Manifest
    issued: datetime
    expires: datetime | None
    key: str
    signature: bytes

    def statement(self) -> bytes:
        """The bytes that are signed."""
        return _statement(self.manifest, self.issued, self.expires)

    def to_json(self) -> dict[str, Any]:
        """The document."""
        times = {"issued": self.issued.strftime(_TIME)}
        times |= {"expires": self.expires.strftime(_TIME)} if self.expires else {}
        signature = base64.b64encode(self.signature).decode("ascii")
        return {
            "format": SIGNED_FORMAT,
            "manifest": self.manifest.to_json(),
            **times,
            "key": self.key,
            "signature": signature,
        }


def sign(manifest: Manifest, key: PrivateKey, *, issued: datetime, expires: datetime | None = None) -> SignedManifest:
    """The publisher's word on `manifest`. Times are UTC, to the second."""
    issued = issued.replace(microsecond=0)
    expires = expires.replace(microsecond=0) if expires else None
    statement = _statement(manifest, issued, expires)
    signature = key.sign(statement) if isinstance(key, Ed25519PrivateKey) else key.sign(statement, ec.ECDSA(SHA256()))
    name = key_name(key.public_key())
    return SignedManifest(manifest=manifest, issued=issued, expires=expires, key=name, signature=signature)


def check(signed: SignedManifest, keys: Sequence[PublicKey], *, at: datetime, source: str = "manifest") -> Manifest:
    """The manifest, once one of `keys` is sure to have signed it and it has not expired at `at`.

    Raises:
        SignatureInvalid: none of the keys signed it. NotFresh: it expired, or is of the future.
    """
    if not any(_holds(signed, key) for key in keys):
        raise SignatureInvalid(
            f"{source}: not signed by a key that the policy names, seen key {signed.key[:16]}…",
            code="manifest_signature",
            hint="ask the publisher for a manifest signed with the key that you trust",
        )
    if not signed.issued <= at or (signed.expires is not None and at >= signed.expires):
        until = signed.expires.strftime(_TIME) if signed.expires else "for ever"
        raise NotFresh(
            f"{source}: wanted valid at {at.strftime(_TIME)}, seen from {signed.issued.strftime(_TIME)} until {until}",
            code="manifest_expired",
            hint="ask the publisher for a newer one",
        )
    return signed.manifest


def _holds(signed: SignedManifest, key: PublicKey) -> bool:
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signed.signature, signed.statement())
        else:
            key.verify(signed.signature, signed.statement(), ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


def _statement(manifest: Manifest, issued: datetime, expires: datetime | None) -> bytes:
    fields = {"digest": manifest.digest.hex(), "issued": issued.strftime(_TIME)}
    fields |= {"expires": expires.strftime(_TIME)} if expires else {}
    return frame(SIGNED_FORMAT.encode("ascii"), canonical(fields))


def key_name(key: PublicKey) -> str:
    """SHA-256 of the key's SubjectPublicKeyInfo, in hex."""
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def read(data: bytes | str, *, source: str = "manifest") -> Manifest | SignedManifest:
    """A manifest document of either form, by its content.

    Raises: MalformedEvidence (`bad_manifest`).
    """
    if len(data) > LIMITS.manifest:
        raise _bad(source, f"wanted at most {LIMITS.manifest} bytes")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _bad(source, "is not JSON") from error
    if not isinstance(value, dict) or value.get("format") != SIGNED_FORMAT:
        return document(value, source=source)
    if not set(value) <= {"format", "manifest", "issued", "expires", "key", "signature"}:
        raise _bad(source, "holds keys that are not known")
    try:
        return SignedManifest(
            manifest=document(value.get("manifest"), source=source),
            issued=_time(value["issued"]),
            expires=_time(value["expires"]) if "expires" in value else None,
            key=str(value["key"]),
            signature=base64.b64decode(value["signature"], validate=True),
        )
    except (KeyError, ValueError, TypeError, binascii.Error) as error:
        raise _bad(source, f"is no document of {SIGNED_FORMAT}") from error


def _time(value: str) -> datetime:
    return datetime.strptime(value, _TIME).replace(tzinfo=UTC)


def _bad(source: str, what: str) -> MalformedEvidence:
    return MalformedEvidence(f"{source}: {what}", field=source, code="bad_manifest", hint=f"wanted {FORMAT}")


def read_file(path: Path) -> Manifest | SignedManifest:
    """A manifest document in a file. Raises: ConfigurationError, MalformedEvidence."""
    return read(_bytes(path, LIMITS.manifest), source=path.name)


def public_key(path: Path) -> PublicKey:
    """A PEM public key, Ed25519 or P-256. Raises: ConfigurationError."""
    try:
        key = load_pem_public_key(_bytes(path, 16 * 1024))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _no_key(path, "public") from error
    if isinstance(key, Ed25519PublicKey) or (isinstance(key, ec.EllipticCurvePublicKey) and _p256(key)):
        return key
    raise _no_key(path, "public")


def private_key(path: Path) -> PrivateKey:
    """A PEM private key without passphrase, Ed25519 or P-256. Raises: ConfigurationError."""
    try:
        key = load_pem_private_key(_bytes(path, 16 * 1024), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_key(path, "private") from error
    if isinstance(key, Ed25519PrivateKey) or (isinstance(key, ec.EllipticCurvePrivateKey) and _p256(key.public_key())):
        return key
    raise _no_key(path, "private")


def _p256(key: ec.EllipticCurvePublicKey) -> bool:
    return isinstance(key.curve, ec.SECP256R1)


def _no_key(path: Path, kind: str) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: wanted a PEM {kind} key of Ed25519 or P-256",
        code="key_file",
        hint="`openssl genpkey -algorithm ed25519 -out key.pem` makes one, `openssl pkey -pubout` its public half",
    )


def _bytes(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as stream:
            data = stream.read(most + 1)
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {error.strerror or error}", code="unreadable") from error
    if len(data) > most:
        raise ConfigurationError(f"{path}: wanted at most {most} bytes", code="unreadable")
    return data
