"""How far a platform is from being up to date, component by component: what `attestable-mcp tcb` shows.

The collateral is proven as for a verdict (`verify.intel`); then the platform's levels are compared with the highest one
that Intel calls UpToDate. Unlike a verdict this also speaks of platforms below every level. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from attestable_mcp.errors import EvidenceError, Revoked, VerificationError
from attestable_mcp.rats import Claims, DocumentKind, Endorsements, Tee
from attestable_mcp.verify import intel
from attestable_mcp.verify.anchors import TrustAnchors
from attestable_mcp.verify.memory import Memory
from attestable_mcp.verify.tcb import REVOKED, UP_TO_DATE, judge_qe, judge_tcb
from attestable_mcp.verify.trail import Trail
from attestable_mcp.wire.collateral import (
    COMPONENTS,
    IsvLevel,
    QeIdentity,
    TcbInfo,
    TcbLevel,
    read_component_names,
    read_tcb_info,
)
from attestable_mcp.wire.intel import IntelQuote, TdReport
from attestable_mcp.wire.snp import Product, Tcb, read_tcb

_Names = tuple[tuple[str, ...], tuple[str, ...]]
BELOW = "below every level"
"""The status of a platform that no level of the TCB info speaks of any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """One component that keeps the platform from being up to date. `name` is the vendor's word, or its place."""

    component: str
    name: str
    have: int
    wanted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """A platform's standing under one set of Intel's collateral. `date` is that of the level reached, None for none.

    `wanted_date` is the date of the level that `shortfalls` lead up to; `valid_until` the first moment at which a piece
    of the proof runs out.
    """

    tee: Tee
    platform: str
    status: str
    date: datetime | None
    advisories: tuple[str, ...]
    evaluation_number: int
    issue_date: datetime
    next_update: datetime
    valid_until: datetime
    wanted_date: datetime | None
    shortfalls: tuple[Shortfall, ...]
    simulated: bool
    trust_anchor: str


def intel_weather(
    quote: IntelQuote, endorsements: Endorsements, *, anchors: TrustAnchors, at: datetime, memory: Memory
) -> Weather:
    """Where the quote's platform stands at `at` (timezone-aware) under `endorsements`.

    Raises:
        VerificationError, EvidenceError, EndorsementUnavailable: as `verify.intel.verify`, but never for a TCB level.
    """
    trail = Trail()
    proof = intel.prove(quote, endorsements, anchors=anchors, at=at, memory=memory, trail=trail)
    info, identity, pck = proof.collateral.tcb_info, proof.collateral.qe_identity, proof.pck
    status, date, advisories = _standing(quote, proof, trail)
    best, short = _nearest(quote, proof, _component_names(endorsements, info))
    return Weather(
        tee=quote.tee,
        platform=pck.extension.fmspc.hex(),
        status=status,
        date=date,
        advisories=advisories,
        evaluation_number=info.evaluation_number,
        issue_date=info.issue_date,
        next_update=min(info.next_update, identity.next_update),
        valid_until=proof.collateral.window.end,
        wanted_date=None if best is None else best.date,
        shortfalls=(*short, *_short_qe(quote, identity)),
        simulated=pck.path.simulated,
        trust_anchor=f"{pck.path.anchor.name} (key sha256 {pck.path.anchor.spki_sha256})",
    )


def _component_names(endorsements: Endorsements, info: TcbInfo) -> _Names:
    """The words of the very document that was proven, out of a bag that may hold others."""
    for document in endorsements.documents:
        with suppress(EvidenceError):
            if document.kind == DocumentKind.INTEL_TCB_INFO and read_tcb_info(document.body) == info:
                return read_component_names(document.body)
    return ("",) * COMPONENTS, ("",) * COMPONENTS


def _standing(quote: IntelQuote, proof: intel.Proof, trail: Trail) -> tuple[str, datetime | None, tuple[str, ...]]:
    try:
        level = judge_qe(quote.qe_report, proof.collateral.qe_identity, trail)
        standing = judge_tcb(proof.pck.extension, quote.body, proof.collateral.tcb_info, level, trail)
    except Revoked:
        return REVOKED, None, ()
    except VerificationError as error:
        if error.code != "tcb_level_not_found":
            raise
        return BELOW, None, ()
    return standing.status, standing.date, standing.advisories


def _nearest(quote: IntelQuote, proof: intel.Proof, names: _Names) -> tuple[TcbLevel | None, list[Shortfall]]:
    """The UpToDate level that is least far away, and the way to it; where Intel calls none so, the highest one."""
    levels = proof.collateral.tcb_info.levels
    candidates = [level for level in levels if level.status == UP_TO_DATE] or list(levels[:1])
    ways = [(level, _shortfalls(quote, proof, level, names)) for level in candidates]
    if not ways:
        return None, []
    return min(ways, key=lambda way: sum(item.wanted - item.have for item in way[1]))


def _shortfalls(quote: IntelQuote, proof: intel.Proof, level: TcbLevel, names: _Names) -> list[Shortfall]:
    have = proof.pck.extension
    found = _short("SGX component", have.components, level.sgx, names[0])
    if have.pcesvn < level.pcesvn:
        found.append(Shortfall(component="PCESVN", name="PCE", have=have.pcesvn, wanted=level.pcesvn))
    if isinstance(quote.body, TdReport) and level.tdx is not None:
        found += _short_tdx(quote.body, proof.collateral.tcb_info, level.tdx, names[1])
    return found


def _short(kind: str, have: bytes, wanted: bytes, names: tuple[str, ...], first: int = 0) -> list[Shortfall]:
    return [
        Shortfall(component=f"{kind} {n + 1}", name=names[n], have=have[n], wanted=wanted[n])
        for n in range(first, len(wanted))
        if have[n] < wanted[n]
    ]


def _short_tdx(body: TdReport, info: TcbInfo, wanted: bytes, names: tuple[str, ...]) -> list[Shortfall]:
    """The first two components are the TDX module's, and from version 1 on its own identity speaks for them."""
    svn = body.tee_tcb_svn
    version = svn[1]
    found = _short("TDX component", svn, wanted, names, 2 if version > 0 else 0)
    module = next((item for item in info.module_identities if item.id == f"TDX_{version:02X}"), None)
    if version > 0 and module is not None:
        found += _short_isv("TDX module", module.id, svn[0], module.levels)
    return found


def _short_qe(quote: IntelQuote, identity: QeIdentity) -> list[Shortfall]:
    return _short_isv("quoting enclave", identity.id, quote.qe_report.isvsvn, identity.levels)


def _short_isv(component: str, name: str, have: int, levels: tuple[IsvLevel, ...]) -> list[Shortfall]:
    wanted = min((level.isvsvn for level in levels if level.status == UP_TO_DATE), default=have)
    return [Shortfall(component=component, name=name, have=have, wanted=wanted)] if have < wanted else []


# --- AMD --------------------------------------------------------------------------------------------------------------

SNP_TCBS = ("reported_tcb", "committed_tcb", "current_tcb", "launch_tcb")
"""What the certificate speaks for; what the firmware cannot go back behind; what runs; what ran at launch."""
SNP_LEVELS = ("fmc", "bl", "tee", "snp", "ucode")


def snp_levels(claims: Claims) -> dict[str, dict[str, int]]:
    """The four TCB versions of a verified report, each level by its name; `fmc` from Turin on."""
    product = Product(str(claims.values["product"]))
    return {name: _levels(read_tcb(bytes.fromhex(str(claims.values[name])), product)) for name in SNP_TCBS}


def levels_behind(levels: Mapping[str, Mapping[str, int]], which: str, other: str) -> str:
    """The levels of version `which` that are below those of `other`, in words; empty where none is."""
    have, wanted = levels[which], levels[other]
    return ", ".join(f"{name} {have[name]} of {wanted[name]}" for name in have if have[name] < wanted[name])


def _levels(tcb: Tcb) -> dict[str, int]:
    found = {name: getattr(tcb, name) for name in SNP_LEVELS}
    return {name: level for name, level in found.items() if level is not None}
