"""What a live proof commits to: one TLS connection, one challenge, one key, one configuration.

Encoding: every part is framed by its length as u32 big-endian, parts follow in a fixed order, the whole is hashed with
SHA-512 into 64 bytes. No part can run into its neighbour, so two different transcripts never encode alike.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum

LABEL = b"attestable-mcp/bind/v1"
EXPORTER_LABEL = b"EXPORTER-attestable-mcp-bind-v1"
"""TLS exporter label (RFC 8446 section 7.5, RFC 5705 section 4), used with an empty context."""
EXPORTER_SIZE = 32
NONCE_SIZE = 32
DIGEST_SIZE = 64
COMMITMENT_SIZES = frozenset({0, 32, 48, 64})
_U64 = 1 << 64


class Role(StrEnum):
    """Which end of the connection proves itself: keeps one end's proof from being played back as the other's."""

    SERVER = "server"
    CLIENT = "client"


def frame(*parts: bytes) -> bytes:
    """Each part behind its length as u32 big-endian."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """The parts in their order on the wire. Sizes in bytes.

    `exporter`, `nonce` and both SPKI digests come from the verifier's own side of the socket, never from the peer.

    Raises:
        TypeError: a part has a size that the format does not know (the caller's fault, not the peer's).
    """

    role: Role
    counter: int = 0
    """u64; 0 for the first attestation of a conversation, one more at each later one."""
    previous: bytes = b""
    """Digest of the transcript before this one (64), empty on the first."""
    nonce: bytes
    """The verifier's fresh 32 bytes."""
    exporter: bytes
    """32 bytes of TLS exporter under `EXPORTER_LABEL`."""
    own_spki: bytes
    """SHA-256 of the proving end's leaf SubjectPublicKeyInfo."""
    peer_spki: bytes = b""
    """SHA-256 of the other end's leaf SubjectPublicKeyInfo, empty when it showed no certificate."""
    deployment_key: bytes = b""
    """SHA-256 of the deployment key's SubjectPublicKeyInfo, or empty."""
    manifest: bytes = b""
    """Digest of the tool manifest (32, 48 or 64), or empty."""
    configuration: bytes = b""
    """Digest of the configuration (32, 48 or 64), or empty."""
    binding_key: bytes = b""
    """Raw Ed25519 public key made in the TEE (32), or empty."""

    def __post_init__(self) -> None:
        if not 0 <= self.counter < _U64:
            raise TypeError(f"transcript: counter wanted a u64, seen {self.counter}")
        sizes = {
            "previous": (0, DIGEST_SIZE), "nonce": (NONCE_SIZE,), "exporter": (EXPORTER_SIZE,), "own_spki": (32,),
            "peer_spki": (0, 32), "deployment_key": (0, 32), "manifest": COMMITMENT_SIZES,
            "configuration": COMMITMENT_SIZES, "binding_key": (0, 32),
        }  # fmt: skip
        for name, allowed in sizes.items():
            if len(getattr(self, name)) not in allowed:
                raise TypeError(f"transcript: {name} wanted {sorted(allowed)} bytes, seen {len(getattr(self, name))}")

    def encode(self) -> bytes:
        """The framed parts, label first."""
        return frame(
            LABEL,
            self.role.encode("ascii"),
            self.counter.to_bytes(8, "big"),
            self.previous,
            self.nonce,
            self.exporter,
            self.own_spki,
            self.peer_spki,
            self.deployment_key,
            self.manifest,
            self.configuration,
            self.binding_key,
        )

    def digest(self) -> bytes:
        """SHA-512 of `encode()`: 64 bytes, one leaf of the tree whose root an Attester signs."""
        return hashlib.sha512(self.encode()).digest()
