"""Verified claims and a policy in, an Attestation Result out. Pure; a refusal is a value."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from types import MappingProxyType

from attestable_mcp.appraise import platforms
from attestable_mcp.appraise.kinds.intel import grace_of
from attestable_mcp.appraise.kinds.table import KINDS
from attestable_mcp.appraise.policy import Policy
from attestable_mcp.appraise.rules import RULES, left_open
from attestable_mcp.rats import (
    AttestationResult,
    Claims,
    ClaimValue,
    ErrorReport,
    Finding,
    Origin,
    Outcome,
    Verdict,
    Verified,
)  # fmt: skip

HINTS = {
    "simulated_evidence": (
        "The peer runs on the simulated attester. Reach a server on real hardware; for tests and demonstrations only, "
        'a policy may say simulated = "accept" under [trust].'
    ),
    "tee_not_accepted": "If you meant to accept this kind of TEE, name its code in a [[policy.accept]] table.",
    "debug_enclave": "Ask the operator for a production build: enclave signed without debug, or TD started without it.",
    "measurement_mismatch": (
        "Compare the seen value with the release that you meant to accept. If it is a release that you have reviewed, "
        "add a [[policy.accept]] table with its values."
    ),
    **platforms.HINTS,
} | {code: hint for kind in KINDS.values() for code, hint in kind.hints.items()}
"""What to do next, by the code of the first objection."""


def appraise(verified: Verified, policy: Policy) -> AttestationResult:
    """Judge `verified` by `policy`. Every rule runs; every objection is in the findings; the first names the code."""
    findings = tuple(finding for rule in RULES for finding in rule(verified, policy))
    claims = verified.claims
    error = refusal(findings)
    shown = _shown(verified)
    return AttestationResult(
        verdict=_verdict(error, policy),
        at=verified.at,
        tee=str(claims.tee),
        tcb_status=claims.tcb_status,
        advisories=claims.advisories,
        claims=MappingProxyType(shown),
        origins=MappingProxyType({name: _origin(claims, name) for name in shown}),
        findings=verified.findings + findings,
        not_proven=tuple(dict.fromkeys((*verified.not_proven, *left_open(verified, policy)))),
        simulated=verified.simulated,
        error=error,
        evidence_digest=verified.evidence_digest,
        trust_anchor=f"{verified.anchor_name} (key sha256 {verified.anchor})",
        policy=policy.name,
        holds_until=holds_until(verified, policy),
    )


def holds_until(verified: Verified, policy: Policy) -> datetime:
    """The first moment at which this verdict may be another one: a proof runs out, or a grace ends."""
    grace = grace_of(verified, policy)
    ends = [] if grace is None or grace.until <= verified.at else [grace.until]
    listed = None if policy.rules.platforms is None else policy.rules.platforms.listed
    if listed is not None and verified.at < listed.expires:
        ends.append(listed.expires)
    return min((verified.valid_until, *ends))


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


_VENDORS_WORD = {"tcb_evaluation_data_number", "tcb_date"}
"""What results show of the vendor's documents beside the evidence's own values."""


def _origin(claims: Claims, name: str) -> Origin:
    """Of what this package reads out of the values, the origin is that of what it was read from."""
    only_signed = bool(claims.values) and claims.signed >= set(claims.values)
    return Origin.SIGNED if only_signed or name in _VENDORS_WORD else claims.origin(name)
