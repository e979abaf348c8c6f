"""An owner's key pair in files: PEM, the private one readable by its owner only, under a passphrase if one is given."""

from __future__ import annotations

import sys
from getpass import getpass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from attestable_mcp.bind.deployment import PrivateKey, load_key, spki_of
from attestable_mcp.cli import text_owner
from attestable_mcp.cli.source import read_file
from attestable_mcp.errors import AttestationError, ConfigurationError
from attestable_mcp.wire.pem import encode_pem, read_blocks

_CAP = 16384


def make_key(algorithm: str) -> PrivateKey:
    """A new Ed25519 or P-256 key."""
    return ec.generate_private_key(ec.SECP256R1()) if algorithm == "p256" else Ed25519PrivateKey.generate()


def private_pem(key: PrivateKey, passphrase: bytes | None) -> bytes:
    """PKCS #8 PEM, locked by the passphrase if there is one."""
    encryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def public_pem(key: PrivateKey) -> str:
    """SubjectPublicKeyInfo PEM."""
    return encode_pem("PUBLIC KEY", spki_of(key)).decode("ascii")


def read_private(path: Path, passphrase_file: Path | None) -> PrivateKey:
    """The key in a PEM file; asks a person for the passphrase where one is needed. Raises: ConfigurationError."""
    data = read_file(path, _CAP)
    passphrase = read_passphrase(passphrase_file)
    if passphrase is None and b"ENCRYPTED" in data:
        passphrase = _ask(path)
    try:
        key = load_pem_private_key(data, passphrase)
        if isinstance(key, Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
            spki_of(key)
            return key
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(text_owner.unusable_key(path, str(error)), code="owner_key") from error
    raise ConfigurationError(text_owner.unusable_key(path, "wanted Ed25519 or P-256"), code="owner_key")


def read_passphrase(path: Path | None) -> bytes | None:
    """The first line of a file, or None without one. Raises: ConfigurationError."""
    return None if path is None else read_file(path, _CAP).split(b"\n", 1)[0].rstrip(b"\r")


def _ask(path: Path) -> bytes:
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigurationError(
            text_owner.unusable_key(path, "it is locked by a passphrase"),
            code="owner_key",
            hint=text_owner.LOCKED_HINT,
        )
    return getpass(text_owner.ASK_LOCKED).encode()


def read_public(path: Path) -> bytes:
    """The SubjectPublicKeyInfo (DER) of an owner's .pub file. Raises: ConfigurationError."""
    try:
        (block,) = read_blocks(read_file(path, _CAP), field="owner", most=1)
        if block.label != "PUBLIC KEY":
            hint = text_owner.WANTED_PUBLIC_HINT
            raise ConfigurationError(text_owner.wanted_public(block.label), code="owner_key", hint=hint)
        load_key(block.der)
    except AttestationError as error:
        if error.code == "unreadable":
            raise
        hint = error.hint if error.code == "owner_key" else ""
        raise ConfigurationError(text_owner.unusable_key(path, error.message), code="owner_key", hint=hint) from error
    return block.der
