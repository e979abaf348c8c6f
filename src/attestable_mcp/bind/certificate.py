"""Ties verified evidence to the key of the certificate that carried it (interoperable RA-TLS and its older forms)."""

from __future__ import annotations

import hmac
from datetime import datetime

from attestable_mcp.errors import ChannelMismatch, NotFresh
from attestable_mcp.rats import Verified, carried
from attestable_mcp.wire.ratls import CertificateEvidence, RatlsCertificate

_HINT = "the evidence was made for another key: treat the peer as hostile"


def bind_certificate(certificate: RatlsCertificate, verified: Verified, at: datetime) -> CertificateEvidence:
    """The piece of evidence that `verified` proves, once it is sure that it speaks of this certificate's key at `at`.

    Every piece must name this key, also those that are not verified further: a certificate that says two things is
    refused. The evidence must carry what its kind carries for the wanted 64 bytes (`rats.carried`); where a form hashes
    the key to 32 bytes, the upper 32 are wanted zero.

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
    wanted = carried(piece.report_data, piece.evidence.kind)
    if not hmac.compare_digest(wanted, seen):
        raise ChannelMismatch(
            f"certificate, {piece.source}: report data wanted {wanted.hex()}, seen {seen.hex()}",
            hint=_HINT,
        )
