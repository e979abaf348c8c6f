"""`inspect` shows every kind of evidence under the names of its claims, marked, and nothing that is not there."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from attestable_mcp.cli.describe import describe
from attestable_mcp.simulator import amd, aws, azure, tpm

AT = datetime(2026, 11, 1, tzinfo=UTC)
EVIDENCE = {
    "sev-snp": lambda: amd.well_known().report(b"\x0a" * 64, b"\1" * 48),
    "nitro": lambda: aws.well_known().document(b"\x0a" * 64, at=AT),
    "tpm": lambda: tpm.well_known().evidence(b"\x0a" * 64),
    "azure-sev-snp": lambda: azure.well_known().evidence(b"\x0a" * 64),
}
NAMES = {
    "sev-snp": {"measurement", "tcb_bl", "product", "vmpl", "debug", "report_data"},
    "nitro": {"pcr0", "module_id", "user_data"},
    "tpm": {"pcr0_sha256", "extra_data", "ak_sha256", "selection"},
    "azure-sev-snp": {"measurement", "pcr0_sha256", "ak_sha256", "user_data"},
}


@pytest.mark.parametrize("tee", EVIDENCE)
def test_each_kind_is_described_and_marked(tee: str) -> None:
    found = describe(EVIDENCE[tee]())
    assert (found["tee"], found["unverified"]) == (tee, True)
    assert found["claims"]["unverified"] is True
    assert NAMES[tee] <= set(found["claims"])
