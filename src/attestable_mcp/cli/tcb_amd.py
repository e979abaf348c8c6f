"""The standing of one of AMD's platforms. AMD publishes levels, not statuses: the policy's demands are what counts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from attestable_mcp.appraise.judge import appraise
from attestable_mcp.appraise.policy import Policy
from attestable_mcp.cli import text_tcb
from attestable_mcp.cli.tcb_report import Change, Column, Report, objections
from attestable_mcp.errors import AppraisalRefused, AttestationError, EndorsementUnavailable
from attestable_mcp.rats import AttestationResult, Endorsements, Evidence, Verdict
from attestable_mcp.verifier import Verifier
from attestable_mcp.verify.weather import snp_levels


def snp_report(evidence: Evidence, stapled: Endorsements, policy: Policy, at: datetime) -> Report:
    """AMD publishes levels, not statuses: the four versions of the report, and what the policy says to them."""
    appraisal = Verifier(policy).appraise_evidence(evidence, stapled=stapled, at=at)
    verified = appraisal.verified
    if verified is None:
        raise _unverified(appraisal.result)
    levels, claims = snp_levels(verified.claims), verified.claims.values
    facts = {name: _words(found) for name, found in levels.items()} | {
        name: claims.get(name) for name in ("alias_check_complete", "launch_mit", "current_mit") if name in claims
    }
    now = Column(facts=facts, objections=tuple(objections(appraise(verified, policy).findings)))
    head = {"tee": "sev-snp", "product": claims["product"], "chip": claims["chip_id"], "trust_anchor": (
        f"{verified.anchor_name} (key sha256 {verified.anchor})"
    )}  # fmt: skip
    return Report(
        head=head, now=now, early=None, changes=(Change(at=verified.valid_until, what=text_tcb.STALE),), notes=(),
        at=at, simulated=verified.simulated,
    )  # fmt: skip


def _words(levels: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {level}" for name, level in levels.items())


def _unverified(result: AttestationResult) -> AttestationError:
    report = result.error
    assert report is not None  # nothing was verified, and that has a reason
    if result.verdict is Verdict.UNAVAILABLE:
        return EndorsementUnavailable(report.message, code=report.code, hint=report.hint)
    return AppraisalRefused(report.message, result=result, code=report.code, hint=report.hint)
