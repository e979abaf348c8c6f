"""Verified claims and a policy in, an Attestation Result out. Pure; a refusal is a value."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType

from attestable_mcp.appraise.policy import TDX_LISTS, Policy
from attestable_mcp.appraise.rules import RULES, left_open
from attestable_mcp.rats import AttestationResult, ClaimValue, ErrorReport, Finding, Outcome, Verdict, Verified

HINTS = {
    "simulated_evidence": (
        "The peer runs on the simulated attester. Reach a server on real hardware; for tests and demonstrations only, "
        'a policy may say simulated = "accept" under [trust].'
    ),
    "tee_not_accepted": "If you meant to accept this kind of TEE, name its code in a [[policy.accept]] table.",
    "debug_enclave": "Ask the operator for a production build: enclave signed without debug, or TD started without it.",
    "enclave_not_initialised": "No running enclave looks like this; treat the peer as hostile.",
    "measurement_mismatch": (
        "Compare the seen value with the release that you meant to accept. If it is a release that you have reviewed, "
        "add a [[policy.accept]] table with its values."
    ),
    "signer_mismatch": "Another key signed this enclave. Ask the operator who signs, and how you can check that.",
    "product_mismatch": "The signer's other product runs here. Check the address, or name this product in the policy.",
    "isvsvn_too_low": "An old release runs here. Ask the operator to update.",
    "attributes_mismatch": "Compare the bits with those of the release that you meant to accept.",
    "sept_ve_disable_clear": "The TD's kernel can be fed pages by its host. Ask the operator to set SEPT_VE_DISABLE.",
    "migratable_td": "The TD can move to another platform. Ask the operator, or name it with migratable in [policy].",
    "service_td": "A service TD can act on this one. Name its measurement in mr_service_td once you have reviewed it.",
    "revoked": "Intel has revoked this platform's TCB. Nothing makes it acceptable; ask the operator to move.",
    "tcb_status_refused": (
        "Read the advisories, then ask the operator to update; if you accept the risk, name the status in "
        "tcb_statuses or with --accept-status."
    ),
    "advisory_refused": "Read the advisory at Intel's security centre; list it under advisories once you accept it.",
    "tcb_evaluation_too_low": "The collateral is of an older evaluation. Fetch or staple newer collateral.",
} | {
    f"{name}_mismatch": f"Find out where this value comes from; add it to {name} in [policy] once you accept it."
    for name in TDX_LISTS
}
"""What to do next, by the code of the first objection."""


def appraise(verified: Verified, policy: Policy) -> AttestationResult:
    """Judge `verified` by `policy`. Every rule runs; every objection is in the findings; the first names the code."""
    findings = tuple(finding for rule in RULES for finding in rule(verified, policy))
    claims = verified.claims
    error = refusal(findings)
    return AttestationResult(
        verdict=_verdict(error, policy),
        at=verified.at,
        tee=str(claims.tee),
        tcb_status=claims.tcb_status,
        advisories=claims.advisories,
        claims=MappingProxyType(_shown(verified)),
        findings=verified.findings + findings,
        not_proven=tuple(dict.fromkeys((*verified.not_proven, *left_open(verified, policy)))),
        simulated=verified.simulated,
        error=error,
        evidence_digest=verified.evidence_digest,
        trust_anchor=f"{verified.anchor_name} (key sha256 {verified.anchor})",
        policy=policy.name,
    )


def refusal(findings: Iterable[Finding]) -> ErrorReport | None:
    """All objections as one error, or None where there is none."""
    objections = [finding for finding in findings if finding.outcome is Outcome.FAIL]
    if not objections:
        return None
    code = objections[0].code
    return ErrorReport(code=code, message="; ".join(map(_sentence, objections)), hint=HINTS.get(code, ""))


def _sentence(finding: Finding) -> str:
    words = f"{finding.check.removeprefix('policy.')}: wanted {finding.wanted}, seen {finding.seen}"
    return f"{words} {finding.reason}".rstrip()


def _verdict(error: ErrorReport | None, policy: Policy) -> Verdict:
    if error is not None:
        return Verdict.REFUSED
    return Verdict.PARTIAL if policy.rules.code_not_compared else Verdict.VERIFIED


def _shown(verified: Verified) -> dict[str, ClaimValue]:
    """The claims as results show them: the vendor's fields, and those that this package reads out of them."""
    claims = verified.claims
    shown: dict[str, ClaimValue] = dict(claims.values)
    shown.setdefault("report_data", claims.report_data.hex())
    shown.setdefault("debug", claims.debug)
    if claims.tcb_evaluation_data_number is not None:
        shown.setdefault("tcb_evaluation_data_number", claims.tcb_evaluation_data_number)
    if claims.tcb_date is not None:
        shown.setdefault("tcb_date", claims.tcb_date.strftime("%Y-%m-%dT%H:%M:%SZ"))
    return shown
