"""The binding key: Ed25519 (RFC 8032), born in the TEE, attested through a transcript, never stored.

Its signature over a later connection's transcript binds that connection in microseconds, without a new quote.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from attestable_mcp.bind.transcript import DIGEST_SIZE, frame
from attestable_mcp.errors import ChannelMismatch

SIGNATURE_LABEL = b"attestable-mcp/bind/v1/key"
PUBLIC_SIZE = 32
SIGNATURE_SIZE = 64


class BindingKey:
    """A private Ed25519 key that signs nothing but transcript digests, behind a label of its own."""

    __slots__ = ("_private", "public")

    def __init__(self) -> None:
        self._private = Ed25519PrivateKey.generate()
        self.public = self._private.public_key().public_bytes_raw()

    def sign(self, transcript_digest: bytes) -> bytes:
        """64-byte signature over the framed label and digest.

        Raises:
            TypeError: the digest is not one of `Transcript.digest()`.
        """
        return self._private.sign(_message(transcript_digest))


def check_signature(public: bytes, signature: bytes, transcript_digest: bytes) -> None:
    """Does the attested key vouch for this very transcript?

    Raises:
        ChannelMismatch: the signature does not hold: another key, or another connection's transcript.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _message(transcript_digest))
    except (InvalidSignature, ValueError) as error:
        raise ChannelMismatch(
            "binding key: its signature does not cover this connection's transcript",
            hint="someone stands between you and the server, or answers with another connection's proof",
        ) from error


def _message(transcript_digest: bytes) -> bytes:
    if len(transcript_digest) != DIGEST_SIZE:
        raise TypeError(f"binding key signs transcript digests of {DIGEST_SIZE} bytes, seen {len(transcript_digest)}")
    return frame(SIGNATURE_LABEL, transcript_digest)
