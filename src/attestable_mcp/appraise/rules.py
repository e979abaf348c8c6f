"""The rules that hold for every kind of TEE: each looks at verified claims and gives findings, passes and objections.

All of them run, whatever the others say, so that one refusal shows everything that is wrong. A claim that a rule needs
and that is absent is an objection. Rules of one kind alone stand in `kinds`.
"""

from __future__ import annotations

from collections.abc import Iterator

from attestable_mcp.appraise.findings import Comparison, Rule, finding, source
from attestable_mcp.appraise.kinds.base import Release
from attestable_mcp.appraise.kinds.intel import grace_of
from attestable_mcp.appraise.kinds.table import KINDS
from attestable_mcp.appraise.platforms import platform
from attestable_mcp.appraise.policy import Policy
from attestable_mcp.rats import Finding, Outcome, Verified

CODE_NOT_COMPARED = "which code runs: only the hardware was proven, no measurement was compared"


def simulated(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """Simulated evidence is refused until the policy names it."""
    accepted = policy.trust.simulated == "accept"
    held = accepted or not verified.simulated
    seen = "simulated evidence" if verified.simulated else "no simulated root"
    wanted = "simulated or real evidence" if accepted else "evidence under a hardware vendor's root"
    yield finding("simulated", held, wanted, seen, "simulated_evidence", source(policy, "trust", "simulated"))


def tee(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """The kind of TEE is one whose code the policy names, and whose rules are known."""
    wanted, kind = policy.rules.tees, verified.claims.tee
    where = source(policy, "policy", "tee") if policy.rules.tee else source(policy, "policy")
    held = kind in wanted and kind in KINDS
    yield finding("tee", held, " or ".join(sorted(wanted)), str(kind), "tee_not_accepted", where)


def debug(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """Whoever debugs an enclave reads its memory: refused by every policy that does not name the danger (attack P1)."""
    row = KINDS.get(verified.claims.tee)
    seen = verified.claims.debug if row is None else row.debug(verified.claims)
    accepted = policy.rules.debug == "danger-accept"
    wanted = "debuggable or not" if accepted else "not debuggable"
    shown = "debuggable" if seen else "not debuggable"
    yield finding("debug", accepted or not seen, wanted, shown, "debug_enclave", source(policy, "policy", "debug"))


def code(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """One release holds whole, or the objections to each of the same kind are listed."""
    if policy.rules.code_not_compared:
        yield Finding(check="policy.code", outcome=Outcome.SKIP, reason="this request compares no code (genuine only)")
        return
    lists = [findings for _, findings in _compared(verified, policy)]
    whole = next((findings for findings in lists if _holds(findings)), None)
    yield from whole if whole is not None else (item for findings in lists for item in findings)


def _compared(verified: Verified, policy: Policy) -> Iterator[tuple[Release, list[Finding]]]:
    """Each release of the same kind with what comparing it found."""
    for index, release in enumerate(policy.rules.releases):
        if release.tee == verified.claims.tee:
            table: tuple[str | int, ...] = ("policy", "accept", index)
            place = table if table in policy.places.lines else ("policy",)
            held = Comparison(claims=verified.claims, policy=policy, label=release.label, table=place)
            yield release, list(KINDS[release.tee].compare(held, release))


def matching(verified: Verified, policy: Policy) -> Release | None:
    """The accepted release that these claims are of, or None."""
    return next((release for release, findings in _compared(verified, policy) if _holds(findings)), None)


def _holds(findings: list[Finding]) -> bool:
    """A release that compared nothing at all has not held."""
    return bool(findings) and all(item.outcome is Outcome.PASS for item in findings)


def of_this_kind(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """The rules of the evidence's own kind."""
    row = KINDS.get(verified.claims.tee)
    for rule in row.rules if row is not None else ():
        yield from rule(verified, policy)


RULES: tuple[Rule, ...] = (simulated, tee, debug, code, of_this_kind, platform)
"""In the order in which a person wants to hear objections: the first one names the refusal's code."""


def left_open(verified: Verified, policy: Policy) -> Iterator[str]:
    """What this policy, by its own words, does not prove."""
    if policy.rules.code_not_compared:
        yield CODE_NOT_COMPARED
    if verified.simulated:
        yield "any hardware: this evidence is SIMULATED, made by software under a root that anyone can use"
    grace = grace_of(verified, policy)
    if grace is not None and verified.at < grace.until:
        yield f"that the platform is patched: the policy accepts {grace.words} only"
    if verified.claims.debug and policy.rules.debug == "danger-accept":
        yield "confidentiality: the enclave is debuggable, its host can read and change its memory"
    for release, findings in _compared(verified, policy):
        if _holds(findings):
            yield from KINDS[release.tee].open_ends(release, verified.claims)
            return
