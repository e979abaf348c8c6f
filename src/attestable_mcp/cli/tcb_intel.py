"""The standing of one of Intel's platforms: under the vendor's standard collateral, and under the early one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from attestable_mcp.appraise.judge import appraise
from attestable_mcp.appraise.policy import Policy
from attestable_mcp.cli import text, text_tcb
from attestable_mcp.cli.command import Arguments
from attestable_mcp.cli.tcb_report import WHEN, Change, Column, Report, dates_of_policy, objections
from attestable_mcp.endorse.base import serves
from attestable_mcp.endorse.files import FileSource
from attestable_mcp.endorse.pcs import INTEL_PCS, PcsSource
from attestable_mcp.errors import AttestationError, EndorsementUnavailable, Revoked, VerificationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind, Tee
from attestable_mcp.verifier import resolve_anchors, resolve_sources
from attestable_mcp.verify import table
from attestable_mcp.verify.anchors import TrustAnchors
from attestable_mcp.verify.memory import Memory
from attestable_mcp.verify.tcb import REVOKED
from attestable_mcp.verify.weather import BELOW, Weather, intel_weather
from attestable_mcp.wire.hcl import read_evidence as read_azure
from attestable_mcp.wire.intel import IntelQuote, read_quote

_OF_LEVELS = ("tcb_level_not_found", Revoked.code)
"""Why a quote does not verify whose platform stands below every level, or at a revoked one."""


def td_quote_of(evidence: Evidence) -> IntelQuote | None:
    """Intel's quote in this evidence: itself, or the one beside Azure's report on TDX. Raises: EvidenceError."""
    if evidence.kind is EvidenceKind.INTEL_QUOTE:
        return read_quote(evidence.body)
    if evidence.kind is EvidenceKind.AZURE_VTPM and (inside := read_azure(evidence.body).td_quote):
        return read_quote(inside)
    return None


def intel_report(
    evidence: Evidence, quote: IntelQuote, stapled: Endorsements, policy: Policy, at: datetime, arguments: Arguments
) -> Report:
    """Look the platform up under both, and say what the policy thinks of either. Raises: AttestationError.

    `quote` is the one in `evidence`.
    """
    notes: list[str] = []
    anchors = resolve_anchors(policy.trust)
    bag = _standard(evidence, stapled, policy, notes)
    weather, now = _look(evidence, quote, bag, policy, at, anchors)
    early: Column | None = None
    later: Weather | None = None
    if (upcoming := _early(evidence, policy, arguments, notes)) is not None:
        try:
            later, early = _look(evidence, quote, upcoming, policy, at, anchors)
        except AttestationError as error:
            notes.append(f"early: {error.message}")
    if later is not None and later.evaluation_number > weather.evaluation_number:
        notes.append(text_tcb.UNKNOWN_DAY)
    notes += _what_to_do(weather, later)
    tee = str(weather.tee)
    if evidence.kind is EvidenceKind.AZURE_VTPM:
        tee = str(Tee.AZURE_TDX)
        notes.append(text_tcb.AZURE_VTPM)
    head = {"tee": tee, "fmspc": weather.platform, "trust_anchor": weather.trust_anchor}
    return Report(
        head=head, now=now, early=early, changes=_changes(weather, policy, at), notes=tuple(notes), at=at,
        simulated=weather.simulated,
    )  # fmt: skip


def _look(
    evidence: Evidence, quote: IntelQuote, bag: Endorsements, policy: Policy, at: datetime, anchors: TrustAnchors
) -> tuple[Weather, Column]:
    """The standing, and what the policy says to it. The evidence is proven whole, whatever its platform's level."""
    memory = Memory()
    weather = intel_weather(quote, bag, anchors=anchors, at=at, memory=memory)
    try:
        verified = table.verify(evidence, bag, anchors=anchors, at=at, memory=memory)
        found = tuple(objections(appraise(verified, policy).findings))
    except VerificationError as error:
        if weather.status not in (BELOW, REVOKED) or error.code not in _OF_LEVELS:
            raise
        found = (f"tcb_status: seen {weather.status}, which no policy accepts",)
    return weather, Column(facts=_facts(weather), objections=found)


def _facts(weather: Weather) -> dict[str, Any]:
    return {
        "status": weather.status,
        "level_of": None if weather.date is None else f"{weather.date:%Y-%m-%d}",
        "up_to_date_is": None if weather.wanted_date is None else f"{weather.wanted_date:%Y-%m-%d}",
        "evaluation_number": weather.evaluation_number,
        "issued": weather.issue_date.strftime(WHEN),
        "next_update": weather.next_update.strftime(WHEN),
        "advisories": list(weather.advisories),
        "shortfalls": [
            {"component": s.component, "name": s.name, "have": s.have, "wanted": s.wanted} for s in weather.shortfalls
        ],
    }


def _standard(evidence: Evidence, stapled: Endorsements, policy: Policy, notes: list[str]) -> Endorsements:
    """What the policy's sources give; only where they give nothing, what the server staples."""
    query, troubles = table.query(evidence), []
    for source in (source for source in resolve_sources(policy.trust) if serves(source, query)):
        try:
            return source.fetch(query, deadline_seconds=LIMITS.endorsement_seconds)
        except EndorsementUnavailable as error:
            troubles.append(error.message)
    if not (stapled.documents or stapled.certificates):
        raise EndorsementUnavailable(
            "; ".join(troubles) or "no source of collateral", hint=text.NEXT_STEPS["unavailable"]
        )
    notes.append(text_tcb.stapled_only("; ".join(troubles) or "no source is named"))
    return stapled


def _early(evidence: Evidence, policy: Policy, arguments: Arguments, notes: list[str]) -> Endorsements | None:
    if arguments.no_early or (arguments.endorsements and not arguments.early):
        return None
    named = [INTEL_PCS if name == "pcs" else name for name in policy.trust.endorsements]
    address = next((name for name in named if name.startswith(("https://", "http://"))), None)
    try:
        if arguments.early:
            return FileSource(arguments.early).fetch(table.query(evidence), deadline_seconds=LIMITS.endorsement_seconds)
        if address is None:
            return None
        source = PcsSource(address, update="early")
        return source.fetch(table.query(evidence), deadline_seconds=LIMITS.endorsement_seconds)
    except EndorsementUnavailable as error:
        notes.append(f"early: {error.message}")
        return None


def _changes(weather: Weather, policy: Policy, at: datetime) -> tuple[Change, ...]:
    found = [Change(at=weather.valid_until, what=text_tcb.STALE), *dates_of_policy(policy, at)]
    accepted = policy.rules.tcb_statuses
    found += [
        Change(at=grace.until, what=text_tcb.GRACE.format(grace.status))
        for grace in policy.rules.grace
        if grace.status == weather.status and grace.status not in accepted and grace.until > at
    ]
    return tuple(sorted(found, key=lambda change: change.at))


def _what_to_do(weather: Weather, later: Weather | None) -> Iterator[str]:
    names = {item.name.split(",")[0] for each in (weather, later) if each is not None for item in each.shortfalls}
    if "BIOS" in names:
        yield text_tcb.BIOS_NEXT
    if "OS/VMM" in names or any(name.startswith("TDX_") for name in names):
        yield text_tcb.OS_NEXT
