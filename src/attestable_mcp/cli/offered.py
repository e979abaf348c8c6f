"""What a policy promises of a server's tools, held against what the server's evidence commits to: for `verify`."""

from __future__ import annotations

from dataclasses import replace

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.cli import text_offer
from attestable_mcp.mcp.manifest import Manifest
from attestable_mcp.mcp.watched import promised
from attestable_mcp.rats import AttestationResult, ErrorReport, Finding, Outcome, Verdict

CHECK = "policy.manifest"


def with_offer(result: AttestationResult, policy: Policy, committed: bytes) -> AttestationResult:
    """The result, refused where the policy names all tools and the server commits to others.

    A conversation refuses call by call, and only what differs; a verdict without one has to say it of the whole. Names
    that may change (`dynamic`), and manifests of version 1, need the lists themselves: there nothing is added.

    Raises:
        ConfigurationError, MalformedEvidence, VerificationError: the document of the policy cannot be used.
    """
    wanted = promised(policy.manifest)
    if wanted is None or wanted.version == 1 or policy.manifest.dynamic or not result.admitted:
        return result
    finding = _finding(wanted, committed, policy)
    told = replace(result, findings=(*result.findings, finding))
    if finding.outcome is Outcome.PASS:
        return told
    error = ErrorReport(
        code=finding.code,
        message=text_offer.other_offer(finding.wanted, finding.seen),
        hint=text_offer.OTHER_OFFER_HINT,
    )
    return replace(told, verdict=Verdict.REFUSED, error=error)


def _finding(wanted: Manifest, committed: bytes, policy: Policy) -> Finding:
    holds = wanted.digest == committed
    return Finding(
        check=CHECK,
        outcome=Outcome.PASS if holds else Outcome.FAIL,
        wanted=wanted.digest.hex(),
        seen=committed.hex() or text_offer.NO_MANIFEST_SEEN,
        reason=f"({policy.name})",
        code="" if holds else "manifest_mismatch",
    )
