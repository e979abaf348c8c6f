"""The binding key: Ed25519 (RFC 8032), born in the TEE, attested through a transcript, never stored.

Its signature over a later connection's transcript binds that connection in microseconds, without a new quote.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from attestable_mcp.bind.transcript import DIGEST_SIZE, frame
from attestable_mcp.errors import ChannelMismatch

SIGNATURE_LABEL = b"attestable-mcp/bind/v1/key"
SIG_STRUCTURE = b"\x84\x6aSignature1"
"""How the `Sig_structure` of every COSE_Sign1 begins: an array of four, the text Signature1."""
PUBLIC_SIZE = 32
SIGNATURE_SIZE = 64


class BindingKey:
    """A private Ed25519 key that signs two things only: transcript digests behind a label, and receipts.

    What it signs of either begins differently, so that neither can pass for the other: a framed label (four bytes of
    length, the first of them zero), or the array head 0x84 of a COSE `Sig_structure` (RFC 9052 section 4.4).
    """

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

    def sign_receipt(self, sig_structure: bytes) -> bytes:
        """64-byte signature over the `Sig_structure` of a COSE_Sign1 (`bind.receipt`).

        Raises:
            TypeError: it is none.
        """
        if not sig_structure.startswith(SIG_STRUCTURE):
            raise TypeError("binding key: wanted the Sig_structure of a COSE_Sign1")
        return self._private.sign(sig_structure)


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
