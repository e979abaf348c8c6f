"""The standing of platforms whose vendors publish no statuses: all but Intel's. What is true is said, no more.

AMD publishes levels, and the policy's demands are what counts; AWS and the makers of TPMs publish no TCB at all, and
what there is to say is when the proof ages out; an issuer of tokens says what it says. None has an early set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from attestable_mcp.appraise.judge import appraise
from attestable_mcp.appraise.kinds.snp import SnpRules
from attestable_mcp.appraise.policy import Policy
from attestable_mcp.cli import text_tcb
from attestable_mcp.cli.tcb_report import WHEN, Change, Column, Report, dates_of_policy, objections
from attestable_mcp.errors import AppraisalRefused, AttestationError, EndorsementUnavailable
from attestable_mcp.rats import (
    AttestationResult,
    Claims,
    ClaimValue,
    Endorsements,
    Evidence,
    Tee,
    Verdict,
    Verified,
)
from attestable_mcp.verifier import Verifier
from attestable_mcp.verify.weather import SNP_LEVELS, levels_behind, snp_levels

_OF_THE_PLATFORM = re.compile(r"tcb|svn|advisory|hwmodel|driver[-_]version|vbios[-_]version", re.IGNORECASE)
"""Names of claims by which issuers speak of the platform that they judged."""
_MOST_CLAIMS = 32
_TPM_FACTS = ("firmware_version", "reset_count", "restart_count", "secure_boot", "event_log_explains")


def kind_report(evidence: Evidence, stapled: Endorsements, policy: Policy, at: datetime) -> Report:
    """Prove the evidence, and say of its platform what its kind can say. Raises: AttestationError."""
    appraisal = Verifier(policy).appraise_evidence(evidence, stapled=stapled, at=at)
    if appraisal.verified is None:
        raise _unverified(appraisal.result)
    return report_of(appraisal.verified, policy)


def report_of(verified: Verified, policy: Policy) -> Report:
    """What proven evidence says of its platform; a kind without a row has its dates."""
    claims, row = verified.claims, _ROWS.get(verified.claims.tee, _PLAIN)
    found = objections(appraise(verified, policy).findings)
    head = {"tee": str(claims.tee), **{shown: _said(claims, name) for shown, name in row.head.items()}}
    return Report(
        head={name: value for name, value in head.items() if value != ""} | {"trust_anchor": _anchor(verified)},
        now=Column(facts=row.facts(claims, policy), objections=tuple(found)),
        early=None,
        changes=_changes(verified, policy, row.ends),
        notes=(*row.notes(claims), *(() if verified.ends else (text_tcb.NOTHING_ENDS,))),
        at=verified.at,
        simulated=verified.simulated,
    )


def _said(claims: Claims, name: str) -> ClaimValue:
    value = claims.values.get(name, "")
    return value if not isinstance(value, str) or value.strip("0") else ""


def _anchor(verified: Verified) -> str:
    return f"{verified.anchor_name} (key sha256 {verified.anchor})"


def _unverified(result: AttestationResult) -> AttestationError:
    report = result.error
    assert report is not None  # nothing was verified, and that has a reason
    if result.verdict is Verdict.UNAVAILABLE:
        return EndorsementUnavailable(report.message, code=report.code, hint=report.hint)
    return AppraisalRefused(report.message, result=result, code=report.code, hint=report.hint)


def _changes(verified: Verified, policy: Policy, words: Mapping[str, str]) -> tuple[Change, ...]:
    found = [Change(at=moment, what=words.get(piece, text_tcb.ENDS[piece])) for piece, moment in verified.ends]
    return tuple(sorted((*found, *dates_of_policy(policy, verified.at)), key=lambda change: change.at))


# SEV-SNP, also inside Azure's evidence


def _snp_facts(claims: Claims, policy: Policy) -> dict[str, Any]:
    """The four versions of the report, and which of their levels are below what the policy demands."""
    facts: dict[str, Any] = {name: _levels(found) for name, found in snp_levels(claims).items()}
    facts |= {
        name: claims.values[name] for name in ("alias_check_complete", "launch_mit", "current_mit")
        if name in claims.values
    }  # fmt: skip
    return facts | {"shortfalls": list(_snp_shortfalls(claims, policy.rules.state(SnpRules)))}


def _snp_shortfalls(claims: Claims, rules: SnpRules) -> Iterator[dict[str, Any]]:
    have = snp_levels(claims)["reported_tcb"]
    for name in SNP_LEVELS:
        wanted = getattr(rules, f"min_tcb_{name}")
        if wanted is not None and have.get(name, 0) < wanted:
            meaning = text_tcb.AMD_LEVELS[name]
            yield {"component": f"tcb_{name}", "name": meaning, "have": have.get(name, 0), "wanted": wanted}


def _levels(found: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {level}" for name, level in found.items())


def _snp_notes(claims: Claims) -> Iterator[str]:
    levels = snp_levels(claims)
    if behind := levels_behind(levels, "reported_tcb", "current_tcb"):
        yield text_tcb.SNP_REPORTED_BEHIND.format(behind)
    if behind := levels_behind(levels, "committed_tcb", "current_tcb"):
        yield text_tcb.SNP_NOT_COMMITTED.format(behind)
    yield text_tcb.AMD_NO_STATUS


def _azure_notes(claims: Claims) -> Iterator[str]:
    yield from _snp_notes(claims)
    yield text_tcb.AZURE_VTPM


# The others


def _nitro_facts(claims: Claims, policy: Policy) -> dict[str, Any]:
    made = datetime.fromtimestamp(int(claims.values["timestamp_ms"]) // 1000, UTC)
    return {"document_made": made.strftime(WHEN), "debug_mode": claims.debug}


def _tpm_facts(claims: Claims, policy: Policy) -> dict[str, Any]:
    facts = {name: claims.values[name] for name in _TPM_FACTS if name in claims.values}
    return facts | {"firmware_pcr0": claims.values.get("pcr0", "")}


def _token_facts(claims: Claims, policy: Policy) -> dict[str, Any]:
    """The issuer's verdict and what it says of the platform, in its own words."""
    said = {name: value for name, value in claims.values.items() if _OF_THE_PLATFORM.search(name)}
    return {"issuer_says": claims.tcb_status or "nothing of a status"} | dict(list(said.items())[:_MOST_CLAIMS])


def _only(*sentences: str) -> Callable[[Claims], Iterator[str]]:
    return lambda claims: iter(sentences)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One kind: claims for the head by the name shown, facts, notes, and what the end of each piece means."""

    head: Mapping[str, str]
    facts: Callable[[Claims, Policy], dict[str, Any]]
    notes: Callable[[Claims], Iterator[str]]
    ends: Mapping[str, str]


_PLAIN = _Row(head={}, facts=lambda *_: {}, notes=_only(text_tcb.NO_STATEMENT), ends={})
_CHIP = MappingProxyType({"product": "product", "chip": "chip_id"})
_ROWS: Mapping[Tee, _Row] = MappingProxyType(
    {
        Tee.SEV_SNP: _Row(head=_CHIP, facts=_snp_facts, notes=_snp_notes, ends=text_tcb.AMD_ENDS),
        Tee.AZURE_SEV_SNP: _Row(head=_CHIP, facts=_snp_facts, notes=_azure_notes, ends=text_tcb.AMD_ENDS),
        Tee.NITRO: _Row(
            head={"enclave": "module_id"}, facts=_nitro_facts, notes=_only(text_tcb.AWS_NO_TCB, text_tcb.AWS_NO_CRL),
            ends=text_tcb.AWS_ENDS,
        ),
        Tee.TPM: _Row(head={}, facts=_tpm_facts, notes=_only(text_tcb.TPM_NO_TCB), ends=text_tcb.TPM_ENDS),
        Tee.TOKEN: _Row(
            head={"issuer": "iss"}, facts=_token_facts, notes=_only(text_tcb.ISSUERS_WORD), ends=text_tcb.TOKEN_ENDS
        ),
    }
)  # fmt: skip
