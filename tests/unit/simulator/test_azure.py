"""The miniature Azure VM: every link holds where it is good, and each broken one is named."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest

from attestable_mcp.errors import AttestationError
from attestable_mcp.rats import Evidence, EvidenceKind, Tee, Verified
from attestable_mcp.simulator.amd_options import Report
from attestable_mcp.simulator.azure import Hcl, well_known
from attestable_mcp.simulator.tpm import TpmQuote
from attestable_mcp.verify import azure
from attestable_mcp.verify.anchors import TrustAnchor, TrustAnchors
from attestable_mcp.verify.memory import Memory

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
DATA = bytes(range(64))


def verify(hcl: Hcl, quote: TpmQuote) -> Verified:
    vm = well_known()
    anchor = TrustAnchor(name="simulated", spki_sha256=vm.amd.root_spki_sha256)
    evidence = Evidence(kind=EvidenceKind.AZURE_VTPM, body=vm.evidence(DATA, hcl=hcl, quote=quote))
    bag = vm.amd.collateral(at=AT) + vm.intel.collateral(at=AT, tee=Tee.TDX)
    intel = TrustAnchor(name="simulated", spki_sha256=vm.intel.root_spki_sha256)
    anchors = TrustAnchors(amd=(anchor,), intel=(intel,))
    return azure.verify(evidence, bag, anchors=anchors, at=AT, memory=Memory())


@pytest.mark.parametrize(
    "hcl",
    [Hcl(), Hcl(hash="sha384"), Hcl(hash="sha512"), Hcl(padding=700), Hcl(user_data=b"u" * 64), Hcl(secure_boot=False)],
    ids=["plain", "sha384", "sha512", "padded", "user-data", "no-secure-boot"],
)
def test_good_evidence_is_accepted_link_by_link(hcl: Hcl) -> None:
    verified = verify(hcl, TpmQuote(pcrs={11: b"\x11" * 32}))
    assert verified.claims.tee is Tee.AZURE_SEV_SNP
    assert verified.claims.report_data == hashlib.sha256(DATA).digest()
    assert verified.claims.values["measurement"] == "51" * 48
    assert verified.claims.values["pcr11"] == "11" * 32
    assert verified.claims.values["user_data"] == hcl.user_data.hex()
    assert verified.claims.values["vm_secure-boot"] is hcl.secure_boot
    passed = {finding.check for finding in verified.findings}
    assert {"azure.runtime-data", "azure.ak", "azure.report.vmpl", "tpm.quote.signature", "snp.vek.chain"} <= passed


def test_a_vm_on_tdx_is_accepted_link_by_link() -> None:
    verified = verify(Hcl(tdx=True), TpmQuote(pcrs={11: b"\x11" * 32}))
    assert verified.claims.tee is Tee.AZURE_TDX
    assert verified.claims.report_data == hashlib.sha256(DATA).digest()
    assert verified.claims.values["mr_td"] == "51" * 48
    passed = {finding.check for finding in verified.findings}
    assert {"azure.runtime-data", "azure.ak", "azure.td-quote.report-data", "tpm.quote.signature"} <= passed


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("runtime_data_mismatch", {"hcl": Hcl(runtime_altered=True)}),
    ("ak_mismatch", {"hcl": Hcl(ak_of_stranger=True)}),
    ("malformed_evidence", {"hcl": Hcl(ak_named_twice=True)}),
    ("malformed_evidence", {"hcl": Hcl(report_type=4)}),
    ("unsupported_evidence", {"hcl": Hcl(report_type=9)}),
    ("malformed_evidence", {"hcl": Hcl(tdx=True, without_td_quote=True)}),
    ("malformed_evidence", {"hcl": Hcl(tdx=True, report_type=2)}),
    ("runtime_data_mismatch", {"hcl": Hcl(tdx=True, td_quote_of_stranger=True)}),
    ("runtime_data_mismatch", {"hcl": Hcl(tdx=True, runtime_altered=True)}),
    ("vmpl", {"hcl": Hcl(report=Report(vmpl=2))}),
    ("signature_invalid", {"hcl": Hcl(report=Report(altered=0x90))}),
    ("signature_invalid", {"hcl": Hcl(report=Report(signed_by_stranger=True))}),
    ("signature_invalid", {"quote": TpmQuote(signed_by_stranger=True)}),
    ("ak_mismatch", {"quote": TpmQuote(ak_of_stranger=True, signed_by_stranger=True)}),
    ("pcr_mismatch", {"quote": TpmQuote(sent_pcrs={0: b"\1" * 32})}),
    ("no_pcr", {"quote": TpmQuote(selected=(16, 23))}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "turned"), REFUSED, ids=[f"{code}-{number}" for number, (code, _) in enumerate(REFUSED)]
)
def test_each_broken_link_is_refused_for_its_own_reason(code: str, turned: dict[str, Any]) -> None:
    with pytest.raises(AttestationError) as caught:
        verify(turned.get("hcl", Hcl()), turned.get("quote", TpmQuote()))
    assert caught.value.code == code, caught.value.message
