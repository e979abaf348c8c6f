"""The rules: each looks at verified claims and gives findings, passes and objections alike.

All of them run, whatever the others say, so that one refusal shows everything that is wrong. A claim that a rule needs
and that is absent is an objection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attestable_mcp.appraise.policy import JUDGED, RTMRS, TDX_LISTS, Policy, Release, SgxRelease, TdxRelease
from attestable_mcp.rats import Claims, Finding, Outcome, Tee, Verified

Rule = Callable[[Verified, Policy], Iterator[Finding]]

SGX_INIT = 1
"""SGX ATTRIBUTES.FLAGS bit 0 (Intel SDM vol. 3D, 34.7.1)."""
TDX_UNTRUSTED = 0xFF
"""TD_ATTRIBUTES bits 7..0, the TUD group: any of them makes the TD untrusted, DEBUG being bit 0 (TDX module ABI)."""
TDX_SEPT_VE_DISABLE = 1 << 28
TDX_MIGRATABLE = 1 << 29
CODE_NOT_COMPARED = "which code runs: only the hardware was proven, no measurement was compared"


def _source(policy: Policy, *path: str | int) -> str:
    where = policy.places.where(*path)
    return f"({where})" if where else ""


def _finding(check: str, held: bool, wanted: str, seen: str, code: str, reason: str = "") -> Finding:
    return Finding(
        check=f"policy.{check}",
        outcome=Outcome.PASS if held else Outcome.FAIL,
        wanted=wanted,
        seen=seen,
        reason=reason,
        code="" if held else code,
    )


def _seen(claims: Claims, name: str) -> str:
    value = claims.values.get(name)
    return "absent" if value is None else str(value)


def _bits(claims: Claims, name: str, size: int) -> int | None:
    """A little-endian field of `size` bytes as a number; None where the claims have no such field."""
    value = claims.values.get(name)
    if not isinstance(value, str) or len(value) < size * 2:
        return None
    return int.from_bytes(bytes.fromhex(value)[:size], "little")


def simulated(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """Simulated evidence is refused until the policy names it."""
    accepted = policy.trust.simulated == "accept"
    held = accepted or not verified.simulated
    seen = "simulated evidence" if verified.simulated else "real hardware's root"
    wanted = "simulated or real evidence" if accepted else "evidence under a hardware vendor's root"
    yield _finding("simulated", held, wanted, seen, "simulated_evidence", _source(policy, "trust", "simulated"))


def tee(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """The kind of TEE is one whose code the policy names."""
    wanted = (
        {policy.rules.tee} if policy.rules.tee else {release.tee for release in policy.rules.releases} or set(JUDGED)
    )
    kind = verified.claims.tee
    source = _source(policy, "policy", "tee") if policy.rules.tee else _source(policy, "policy")
    yield _finding("tee", kind in wanted, " or ".join(sorted(wanted)), str(kind), "tee_not_accepted", source)


def debug(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """Whoever debugs an enclave reads its memory: refused by every policy that does not name the danger (attack P1)."""
    claims = verified.claims
    seen = claims.debug
    if claims.tee is Tee.TDX:
        bits = _bits(claims, "td_attributes", 8)
        seen = seen or bits is None or bool(bits & TDX_UNTRUSTED)
    accepted = policy.rules.debug == "danger-accept"
    wanted = "debuggable or not" if accepted else "not debuggable"
    shown = "debuggable" if seen else "not debuggable"
    yield _finding("debug", accepted or not seen, wanted, shown, "debug_enclave", _source(policy, "policy", "debug"))
    if claims.tee is Tee.SGX:
        flags = _bits(claims, "attributes", 8)
        ready = flags is not None and bool(flags & SGX_INIT)
        yield _finding("init", ready, "INIT set", "INIT set" if ready else "INIT clear", "enclave_not_initialised")


def code(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """One release holds whole, or the objections to each of the same kind are listed."""
    if policy.rules.code_not_compared:
        yield Finding(check="policy.code", outcome=Outcome.SKIP, reason="this request compares no code (genuine only)")
        return
    lists = [
        list(_release(verified.claims, release, policy, index))
        for index, release in enumerate(policy.rules.releases)
        if release.tee == verified.claims.tee
    ]
    whole = next((findings for findings in lists if all(item.outcome is Outcome.PASS for item in findings)), None)
    if whole is not None:
        yield from whole
        return
    for findings in lists:
        yield from findings


def _release(claims: Claims, release: Release, policy: Policy, index: int) -> Iterator[Finding]:
    table = ("policy", "accept", index) if ("policy", "accept", index) in policy.places.lines else ("policy",)

    def same(name: str, wanted: str, code: str = "measurement_mismatch") -> Finding:
        seen = _seen(claims, name)
        label = f"release {release.label} " if release.label else ""
        return _finding(name, seen == wanted, wanted, seen, code, label + _source(policy, *table, name))

    if isinstance(release, TdxRelease):
        for name in ("mr_td", *RTMRS):
            if (value := getattr(release, name)) is not None:
                yield same(name, value)
        return
    if release.mrenclave is not None:
        yield same("mrenclave", release.mrenclave)
    if release.mrsigner is not None and release.min_isvsvn is not None:
        yield same("mrsigner", release.mrsigner, "signer_mismatch")
        yield same("isvprodid", str(release.isvprodid), "product_mismatch")
        svn = claims.values.get("isvsvn")
        held = isinstance(svn, int) and svn >= release.min_isvsvn
        source = _source(policy, *table, "min_isvsvn")
        yield _finding(
            "isvsvn", held, f"at least {release.min_isvsvn}", _seen(claims, "isvsvn"), "isvsvn_too_low", source
        )


def bits(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """Exact attribute bits, where the policy names them (attack P9)."""
    names = ("attributes",) if verified.claims.tee is Tee.SGX else ("td_attributes", "xfam")
    for name in names:
        rule = getattr(policy.rules, name)
        if rule is not None:
            seen = _seen(verified.claims, name)
            held = seen != "absent" and rule.holds(seen)
            yield _finding(name, held, rule.words, seen, "attributes_mismatch", _source(policy, "policy", name))


def td_state(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """SEPT_VE_DISABLE set, no service TD, not migratable: each until the policy says otherwise."""
    if verified.claims.tee is not Tee.TDX:
        return
    attributes, rules = _bits(verified.claims, "td_attributes", 8), policy.rules
    sept = attributes is not None and bool(attributes & TDX_SEPT_VE_DISABLE)
    any_sept = rules.sept_ve_disable == "accept-clear"
    yield _finding(
        "sept_ve_disable", sept or any_sept, "set or clear" if any_sept else "set", "set" if sept else "clear",
        "sept_ve_disable_clear", _source(policy, "policy", "sept_ve_disable"),
    )  # fmt: skip
    migratable = attributes is None or bool(attributes & TDX_MIGRATABLE)
    yield _finding(
        "migratable", not migratable or rules.migratable == "accept",
        "fixed to its platform" if rules.migratable == "refuse" else "fixed or migratable",
        "migratable" if migratable else "fixed to its platform",
        "migratable_td", _source(policy, "policy", "migratable"),
    )  # fmt: skip
    yield from _service_td(verified.claims, policy)


def _service_td(claims: Claims, policy: Policy) -> Iterator[Finding]:
    """A bound service TD can act on this one. Quotes before version 5 have no such field."""
    if policy.rules.mr_service_td:
        return  # held to a list by `lists`
    seen = str(claims.values.get("mr_service_td", ""))
    bound = bool(seen.strip("0"))
    accepted = policy.rules.service_td == "accept"
    yield _finding(
        "service_td", accepted or not bound, "any service TD or none" if accepted else "no service TD",
        f"service TD {seen}" if bound else "no service TD", "service_td", _source(policy, "policy", "service_td"),
    )  # fmt: skip


def lists(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """TDX fields that the policy holds to a list of values: module (SEAM), configuration, owner, service TD."""
    if verified.claims.tee is not Tee.TDX:
        return
    for name in TDX_LISTS:
        accepted = getattr(policy.rules, name)
        if accepted:
            seen = _seen(verified.claims, name)
            source = _source(policy, "policy", name)
            yield _finding(name, seen in accepted, " or ".join(accepted), seen, f"{name}_mismatch", source)


def tcb(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """The platform's TCB status is accepted; `Revoked` never is (attack E3)."""
    status, accepted = verified.claims.tcb_status, policy.rules.tcb_statuses
    refusal = "revoked" if status == "Revoked" else "tcb_status_refused"
    held = status in accepted and status != "Revoked"
    source = _source(policy, "policy", "tcb_statuses")
    yield _finding("tcb_status", held, " or ".join(accepted), status or "absent", refusal, source)


def advisories(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """No refused advisory; and where accepted ones are listed, no other."""
    rules, seen = policy.rules, verified.claims.advisories
    shown = ", ".join(seen) or "none"
    if rules.advisories is not None:
        wanted = f"none but {', '.join(rules.advisories)}" if rules.advisories else "none"
        held = set(seen) <= set(rules.advisories)
        source = _source(policy, "policy", "advisories")
        yield _finding("advisories", held, wanted, shown, "advisory_refused", source)
    if rules.refused_advisories:
        held = not set(seen) & set(rules.refused_advisories)
        source = _source(policy, "policy", "refused_advisories")
        wanted = f"none of {', '.join(rules.refused_advisories)}"
        yield _finding("refused_advisories", held, wanted, shown, "advisory_refused", source)


def evaluation(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """Intel's collateral is of an evaluation at least as new as demanded (attack P4)."""
    least = policy.rules.min_tcb_evaluation_data_number
    if least is None:
        return
    number = verified.claims.tcb_evaluation_data_number
    source = _source(policy, "policy", "min_tcb_evaluation_data_number")
    seen = "absent" if number is None else str(number)
    held = number is not None and number >= least
    yield _finding("tcb_evaluation", held, f"at least {least}", seen, "tcb_evaluation_too_low", source)


RULES: tuple[Rule, ...] = (simulated, tee, debug, code, bits, td_state, lists, tcb, advisories, evaluation)
"""In the order in which a person wants to hear objections: the first one names the refusal's code."""


def left_open(verified: Verified, policy: Policy) -> Iterator[str]:
    """What this policy, by its own words, does not prove."""
    if policy.rules.code_not_compared:
        yield CODE_NOT_COMPARED
    if verified.simulated:
        yield "any hardware: this evidence is SIMULATED, made by software under a root that anyone can use"
    if verified.claims.debug and policy.rules.debug == "danger-accept":
        yield "confidentiality: the enclave is debuggable, its host can read and change its memory"
    release = _matching(verified, policy)
    if isinstance(release, TdxRelease) and release.not_compared:
        yield f"{', '.join(release.not_compared)}: the policy leaves these registers uncompared, and what they measure"
    if isinstance(release, SgxRelease) and release.mrenclave is None:
        yield "which build: any enclave of this signer and product at or above the named security version would pass"


def _matching(verified: Verified, policy: Policy) -> Release | None:
    for index, release in enumerate(policy.rules.releases):
        if release.tee == verified.claims.tee:
            findings = _release(verified.claims, release, policy, index)
            if all(finding.outcome is Outcome.PASS for finding in findings):
                return release
    return None
