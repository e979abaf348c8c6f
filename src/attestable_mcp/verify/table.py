"""One row a kind of evidence: who verifies it, and who says what it asks of an endorsement source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Protocol

from attestable_mcp.errors import UnsupportedEvidence
from attestable_mcp.rats import EndorsementQuery, Endorsements, Evidence, EvidenceKind, Verified
from attestable_mcp.verify import azure, intel, nitro, snp, tpm
from attestable_mcp.verify.anchors import TrustAnchors
from attestable_mcp.verify.memory import Memory
from attestable_mcp.wire.intel import read_quote


class _Verify(Protocol):
    def __call__(
        self, evidence: Evidence, endorsements: Endorsements, *, anchors: TrustAnchors, at: datetime, memory: Memory
    ) -> Verified: ...


def _verify_intel(
    evidence: Evidence, endorsements: Endorsements, *, anchors: TrustAnchors, at: datetime, memory: Memory
) -> Verified:
    return intel.verify(read_quote(evidence.body), endorsements, anchors=anchors, at=at, memory=memory)


def _query_intel(evidence: Evidence) -> EndorsementQuery:
    return intel.query(read_quote(evidence.body))


_Query = Callable[[Evidence], EndorsementQuery]

_TABLE: Mapping[EvidenceKind, tuple[_Verify, _Query]] = MappingProxyType(
    {
        EvidenceKind.INTEL_QUOTE: (_verify_intel, _query_intel),
        EvidenceKind.SNP_REPORT: (snp.verify, snp.query),
        EvidenceKind.NITRO_DOCUMENT: (nitro.verify, nitro.query),
        EvidenceKind.TPM_QUOTE: (tpm.verify, tpm.query),
        EvidenceKind.AZURE_VTPM: (azure.verify, azure.query),
    }
)


def _row(kind: EvidenceKind) -> tuple[_Verify, _Query]:
    if kind not in _TABLE:
        raise UnsupportedEvidence(f"evidence kind {kind}: no verifier")
    return _TABLE[kind]


def verify(
    evidence: Evidence, endorsements: Endorsements, *, anchors: TrustAnchors, at: datetime, memory: Memory
) -> Verified:
    """Verify evidence of any kind at the time `at` (timezone-aware).

    Raises:
        EvidenceError: the bytes are no evidence that we verify.
        VerificationError: a proof failed; carries the findings.
        EndorsementUnavailable: nothing failed, but a piece of collateral is missing.
    """
    check, _ = _row(evidence.kind)
    return check(evidence, endorsements, anchors=anchors, at=at, memory=memory)


def query(evidence: Evidence) -> EndorsementQuery:
    """What this evidence asks of an endorsement source, unverified.

    Raises:
        EvidenceError: the bytes are no evidence that we verify.
        EndorsementUnavailable: the evidence does not say for which platform it is.
    """
    _, ask = _row(evidence.kind)
    return ask(evidence)
