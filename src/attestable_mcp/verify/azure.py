"""Azure confidential VMs on SEV-SNP: hardware report -> runtime data -> attestation key -> vTPM quote, every link.

The report alone proves nothing about the quote: published evidence exists with damaged runtime data behind an intact
report. The report has to come from VMPL 0, where the paravisor lives: a report from a lower level has report data of
the guest's choosing. TDX is read (`wire.hcl`) but not verified here yet. Source: Azure documentation on guest
attestation of confidential VMs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from attestable_mcp.errors import UnsupportedEvidence, VerificationError
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
from attestable_mcp.verify import snp
from attestable_mcp.verify.tpm import QuoteClaims, check_quote
from attestable_mcp.verify.trail import Trail
from attestable_mcp.wire.hcl import AzureEvidence, HclReport, read_evidence, read_hcl
from attestable_mcp.wire.tpm import read_signature

if TYPE_CHECKING:
    from attestable_mcp.verify.anchors import TrustAnchors
    from attestable_mcp.verify.memory import Memory

_CONFIGURATION = ("secure-boot", "tpm-enabled", "console-enabled", "vmUniqueId")


def query(evidence: Evidence) -> EndorsementQuery:
    """What the hardware report needs, asked of the hardware's vendor. Raises: EvidenceError."""
    return snp.query(_hardware(_read_snp(read_evidence(evidence.body))))


def verify(
    evidence: Evidence, endorsements: Endorsements, *, anchors: TrustAnchors, at: datetime, memory: Memory
) -> Verified:
    """Verify all links. The ones that need no collateral come first, so that a forgery is refused without any.

    Raises: EvidenceError, VerificationError (`runtime_data_mismatch`, `ak_mismatch`, `vmpl`), and what `snp.verify`
        and `tpm.check_quote` raise.
    """
    trail = Trail()
    sent = read_evidence(evidence.body)
    hcl = _read_snp(sent)
    proven = _check_links(sent, hcl, trail)
    try:
        hardware = snp.verify(_hardware(hcl), endorsements, anchors=anchors, at=at, memory=memory)
    except VerificationError as error:
        error.findings = trail.findings + error.findings
        raise
    if hardware.claims.values["vmpl"] != 0:
        wanted, seen = "a report from VMPL 0", f"VMPL {hardware.claims.values['vmpl']}"
        trail.refuse(VerificationError, "azure.report.vmpl", wanted=wanted, seen=seen, code="vmpl")
    trail.passed("azure.report.vmpl", "0")
    return _mint(evidence, hcl, proven, hardware, trail.findings)


def _read_snp(sent: AzureEvidence) -> HclReport:
    hcl = read_hcl(sent.hcl)
    if hcl.kind != "snp" or sent.td_quote:
        raise UnsupportedEvidence("Azure evidence: wanted SEV-SNP, seen TDX, which is not verified yet")
    return hcl


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
            tee=Tee.AZURE_SEV_SNP,
            values=dict(hardware.claims.values)
            | dict(proven.values)
            | _configuration(hcl.configuration, hcl.user_data),
            report_data=proven.quote.extra_data,
            debug=hardware.claims.debug,
            tcb_status=hardware.claims.tcb_status,
        ),
        evidence_digest=evidence.digest,
        signed_digest=hashlib.sha256(proven.quote.raw).hexdigest(),
        findings=hardware.findings + findings,
        anchor=hardware.anchor,
        anchor_name=hardware.anchor_name,
        simulated=hardware.simulated,
        at=hardware.at,
        valid_until=hardware.valid_until,
        not_proven=hardware.not_proven + proven.not_proven,
    )


def _configuration(stated: Mapping[str, Any], user_data: bytes) -> dict[str, ClaimValue]:
    """The paravisor's own words about the VM, proven by the hash in the hardware report."""
    found: dict[str, ClaimValue] = {"user_data": user_data.hex()}
    for name in _CONFIGURATION:
        if isinstance(value := stated.get(name), (bool, str)):
            found[f"vm_{name}"] = value
    return found
