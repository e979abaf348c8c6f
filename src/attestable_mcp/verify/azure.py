"""Azure confidential VMs: hardware report -> runtime data -> attestation key -> vTPM quote, every link.

The report alone proves nothing about the quote: published evidence exists with damaged runtime data behind an intact
report. On SEV-SNP the report has to come from VMPL 0, where the paravisor lives: a report from a lower level has report
data of the guest's choosing. On TDX the HCL report holds a TDREPORT, which only its own machine can check: the TD quote
beside it carries the same report data, and Intel's chain proves that. Source: Azure documentation on guest attestation
of confidential VMs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from attestable_mcp.errors import MalformedEvidence, VerificationError
from attestable_mcp.rats import (
    _MINT,
    Claims,
    ClaimValue,
    EndorsementQuery,
    Endorsements,
    Evidence,
    EvidenceKind,
    Finding,
    Tee,
    Verified,
)
from attestable_mcp.verify import intel, snp
from attestable_mcp.verify.description import Description
from attestable_mcp.verify.tpm import QuoteClaims, check_quote, stated_values
from attestable_mcp.verify.trail import Trail
from attestable_mcp.wire.hcl import AzureEvidence, HclReport, read_evidence, read_hcl
from attestable_mcp.wire.intel import quote_fields, read_quote
from attestable_mcp.wire.tpm import read_signature

if TYPE_CHECKING:
    from attestable_mcp.verify.anchors import TrustAnchors
    from attestable_mcp.verify.memory import Memory

_CONFIGURATION = ("secure-boot", "tpm-enabled", "console-enabled", "vmUniqueId")


def query(evidence: Evidence) -> EndorsementQuery:
    """What the hardware report needs, asked of the hardware's vendor. Raises: EvidenceError."""
    sent = read_evidence(evidence.body)
    if sent.td_quote:
        return intel.query(read_quote(sent.td_quote))
    return snp.query(_hardware(read_hcl(sent.hcl)))


def describe(evidence: Evidence) -> Description:
    """Every field of hardware report, runtime data and quote, unverified. Raises: EvidenceError."""
    sent = read_evidence(evidence.body)
    hcl = read_hcl(sent.hcl)
    if hcl.kind == "tdx":
        tee, hardware = Tee.AZURE_TDX, quote_fields(read_quote(sent.td_quote)) if sent.td_quote else {}
    else:
        tee, hardware = Tee.AZURE_SEV_SNP, dict(snp.describe(_hardware(hcl)).values)
    values = hardware | stated_values(sent.tpm) | _configuration(hcl.configuration, hcl.user_data)
    return Description(tee=tee, values=values)


def verify(
    evidence: Evidence, endorsements: Endorsements, *, anchors: TrustAnchors, at: datetime, memory: Memory
) -> Verified:
    """Verify all links. The ones that need no collateral come first, so that a forgery is refused without any.

    Raises: EvidenceError, VerificationError (`runtime_data_mismatch`, `ak_mismatch`, `vmpl`), and what `snp.verify`,
        `intel.verify` and `tpm.check_quote` raise.
    """
    trail = Trail()
    sent = read_evidence(evidence.body)
    hcl = read_hcl(sent.hcl)
    if (hcl.kind == "tdx") != bool(sent.td_quote):
        wanted = "a TD quote beside an HCL report of TDX, and only there"
        raise MalformedEvidence(f"Azure evidence: wanted {wanted}, seen {hcl.kind}", field="td_quote")
    proven = _check_links(sent, hcl, trail)
    check = _check_td if hcl.kind == "tdx" else _check_snp
    try:
        hardware = check(sent, hcl, endorsements, anchors=anchors, at=at, memory=memory, trail=trail)
    except VerificationError as error:
        if error.findings[: len(trail.findings)] != trail.findings:
            error.findings = trail.findings + error.findings
        raise
    return _mint(evidence, hcl, proven, hardware, trail.findings)


def _check_snp(
    sent: AzureEvidence,
    hcl: HclReport,
    endorsements: Endorsements,
    *,
    anchors: TrustAnchors,
    at: datetime,
    memory: Memory,
    trail: Trail,
) -> Verified:
    hardware = snp.verify(_hardware(hcl), endorsements, anchors=anchors, at=at, memory=memory)
    if hardware.claims.values["vmpl"] != 0:
        wanted, seen = "a report from VMPL 0", f"VMPL {hardware.claims.values['vmpl']}"
        trail.refuse(VerificationError, "azure.report.vmpl", wanted=wanted, seen=seen, code="vmpl")
    trail.passed("azure.report.vmpl", "0")
    return hardware


def _check_td(
    sent: AzureEvidence,
    hcl: HclReport,
    endorsements: Endorsements,
    *,
    anchors: TrustAnchors,
    at: datetime,
    memory: Memory,
    trail: Trail,
) -> Verified:
    """The TD quote is of a trust domain, and carries the runtime data's hash. This link needs no collateral."""
    quote = read_quote(sent.td_quote)
    trail.demand(quote.tee is Tee.TDX, VerificationError, "azure.td-quote.tee", str(Tee.TDX), str(quote.tee))
    if quote.report_data != hcl.expected_report_data:
        trail.refuse(
            VerificationError, "azure.td-quote.report-data", wanted=hcl.expected_report_data.hex(),
            seen=quote.report_data.hex(), reason="the TD quote is not of this runtime data",
            code="runtime_data_mismatch",
        )  # fmt: skip
    trail.passed("azure.td-quote.report-data", hcl.hash)
    return intel.verify(quote, _without_logs(endorsements), anchors=anchors, at=at, memory=memory)


def _without_logs(endorsements: Endorsements) -> Endorsements:
    """Claims on the boot are the vTPM's here: a log of the TD's registers must not speak in its place (attack P8)."""
    logs = endorsements.event_logs
    return replace(endorsements, documents=tuple(item for item in endorsements.documents if item not in logs))


def _hardware(hcl: HclReport) -> Evidence:
    return Evidence(kind=EvidenceKind.SNP_REPORT, body=hcl.hardware)


def _check_links(sent: AzureEvidence, hcl: HclReport, trail: Trail) -> QuoteClaims:
    if hcl.report_data != hcl.expected_report_data:
        trail.refuse(
            VerificationError, "azure.runtime-data", wanted=hcl.report_data.hex(), seen=hcl.expected_report_data.hex(),
            reason="the runtime data is not that of the hardware report", code="runtime_data_mismatch",
        )  # fmt: skip
    trail.passed("azure.runtime-data", hcl.hash)
    if sent.tpm.ak != hcl.ak:
        trail.refuse(
            VerificationError, "azure.ak", wanted=hashlib.sha256(hcl.ak).hexdigest(), code="ak_mismatch",
            seen=hashlib.sha256(sent.tpm.ak).hexdigest(), reason="the runtime data names another attestation key",
        )  # fmt: skip
    trail.passed("azure.ak", hashlib.sha256(hcl.ak).hexdigest())
    return check_quote(sent.tpm, read_signature(sent.tpm.signature), trail)


def _mint(
    evidence: Evidence, hcl: HclReport, proven: QuoteClaims, hardware: Verified, findings: tuple[Finding, ...]
) -> Verified:
    return Verified(
        _MINT,
        claims=Claims(
            tee=Tee.AZURE_TDX if hcl.kind == "tdx" else Tee.AZURE_SEV_SNP,
            values=dict(hardware.claims.values)
            | dict(proven.values)
            | _configuration(hcl.configuration, hcl.user_data),
            report_data=proven.quote.extra_data,
            debug=hardware.claims.debug,
            tcb_status=hardware.claims.tcb_status,
            advisories=hardware.claims.advisories,
            tcb_evaluation_data_number=hardware.claims.tcb_evaluation_data_number,
            tcb_date=hardware.claims.tcb_date,
            signed=hardware.claims.signed,
            asserted=hardware.claims.asserted,
        ),
        evidence_digest=evidence.digest,
        signed_digest=hashlib.sha256(proven.quote.raw).hexdigest(),
        findings=hardware.findings + findings,
        anchor=hardware.anchor,
        anchor_name=hardware.anchor_name,
        simulated=hardware.simulated,
        at=hardware.at,
        valid_until=hardware.valid_until,
        ends=hardware.ends,
        not_proven=hardware.not_proven + proven.not_proven,
    )


def _configuration(stated: Mapping[str, Any], user_data: bytes) -> dict[str, ClaimValue]:
    """The paravisor's own words about the VM, proven by the hash in the hardware report."""
    found: dict[str, ClaimValue] = {"user_data": user_data.hex()}
    for name in _CONFIGURATION:
        if isinstance(value := stated.get(name), (bool, str)):
            found[f"vm_{name}"] = value
    return found
