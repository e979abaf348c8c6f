"""One row a kind of evidence: who verifies it, who says what it asks of an endorsement source, who describes it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Protocol

from attestable_mcp.errors import UnsupportedEvidence
from attestable_mcp.rats import EndorsementQuery, Endorsements, Evidence, EvidenceKind, Verified
from attestable_mcp.verify import azure, intel, nitro, snp, token, tpm
from attestable_mcp.verify.anchors import TrustAnchors
from attestable_mcp.verify.description import Description
from attestable_mcp.verify.memory import Memory
from attestable_mcp.wire.intel import quote_fields, read_quote


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


def _describe_intel(evidence: Evidence) -> Description:
    quote = read_quote(evidence.body)
    certificates = tuple(hashlib.sha256(certificate).hexdigest() for certificate in quote.certificates)
    return Description(tee=quote.tee, values=quote_fields(quote), certificates=certificates)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one kind of evidence needs of this room."""

    verify: _Verify
    query: Callable[[Evidence], EndorsementQuery]
    describe: Callable[[Evidence], Description]


TABLE: Mapping[EvidenceKind, Row] = MappingProxyType(
    {
        EvidenceKind.INTEL_QUOTE: Row(verify=_verify_intel, query=_query_intel, describe=_describe_intel),
        EvidenceKind.SNP_REPORT: Row(verify=snp.verify, query=snp.query, describe=snp.describe),
        EvidenceKind.NITRO_DOCUMENT: Row(verify=nitro.verify, query=nitro.query, describe=nitro.describe),
        EvidenceKind.TPM_QUOTE: Row(verify=tpm.verify, query=tpm.query, describe=tpm.describe),
        EvidenceKind.AZURE_VTPM: Row(verify=azure.verify, query=azure.query, describe=azure.describe),
        EvidenceKind.TOKEN: Row(verify=token.verify, query=token.query, describe=token.describe),
    }
)


def _row(kind: EvidenceKind) -> Row:
    if kind not in TABLE:
        raise UnsupportedEvidence(f"evidence kind {kind}: no verifier")
    return TABLE[kind]


def verify(
    evidence: Evidence, endorsements: Endorsements, *, anchors: TrustAnchors, at: datetime, memory: Memory
) -> Verified:
    """Verify evidence of any kind at the time `at` (timezone-aware).

    Raises:
        EvidenceError: the bytes are no evidence that we verify.
        VerificationError: a proof failed; carries the findings.
        EndorsementUnavailable: nothing failed, but a piece of collateral is missing.
    """
    return _row(evidence.kind).verify(evidence, endorsements, anchors=anchors, at=at, memory=memory)


def query(evidence: Evidence) -> EndorsementQuery:
    """What this evidence asks of an endorsement source, unverified.

    Raises:
        EvidenceError: the bytes are no evidence that we verify.
        EndorsementUnavailable: the evidence does not say for which platform it is.
    """
    return _row(evidence.kind).query(evidence)


def describe(evidence: Evidence) -> Description:
    """Everything that this evidence says of itself, UNVERIFIED, under the names that claims have.

    Raises:
        EvidenceError: the bytes are no evidence that we read.
    """
    return _row(evidence.kind).describe(evidence)
