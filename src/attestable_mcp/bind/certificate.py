"""Ties verified evidence to the key of the certificate that carried it (interoperable RA-TLS and its older forms)."""

from __future__ import annotations

import hmac
from datetime import datetime

from attestable_mcp.errors import ChannelMismatch, NotFresh
from attestable_mcp.rats import Verified
from attestable_mcp.wire.ratls import CertificateEvidence, RatlsCertificate

_HASH_SIZE = 32
_HINT = "the evidence was made for another key: treat the peer as hostile"


def bind_certificate(certificate: RatlsCertificate, verified: Verified, at: datetime) -> CertificateEvidence:
    """The piece of evidence that `verified` proves, once it is sure that it speaks of this certificate's key at `at`.

    Every piece must name this key, also those that are not verified further: a certificate that says two things is
    refused. The report data must equal the wanted 64 bytes, of which the upper 32 are zero in all forms read here.

    Raises:
        NotFresh: `at` lies outside the certificate's validity.
        ChannelMismatch: the evidence speaks of another key, or `verified` is of evidence that is not in here.
    """
    leaf = certificate.leaf
    if not leaf.not_before <= at <= leaf.not_after:
        raise NotFresh(f"certificate: wanted valid at {at.isoformat()}, seen until {leaf.not_after.isoformat()}")
    if not all(piece.key_matches for piece in certificate.evidence):
        raise ChannelMismatch("certificate: pubkey-hash is not the hash of this certificate's key", hint=_HINT)
    carried = [piece for piece in certificate.evidence if piece.evidence.digest == verified.evidence_digest]
    if not carried:
        raise ChannelMismatch("certificate: the verified evidence is not in this certificate", hint=_HINT)
    for piece in carried:
        _report_data(piece, verified.claims.report_data)
    return carried[0]


def _report_data(piece: CertificateEvidence, seen: bytes) -> None:
    if any(seen[_HASH_SIZE:]):
        raise ChannelMismatch(f"certificate, {piece.source}: upper half of report data wanted zero", hint=_HINT)
    if not hmac.compare_digest(piece.report_data, seen):
        raise ChannelMismatch(
            f"certificate, {piece.source}: report data wanted {piece.report_data.hex()[:16]}…, seen {seen.hex()[:16]}…",
            hint=_HINT,
        )
