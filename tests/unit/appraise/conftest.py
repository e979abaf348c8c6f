"""Verified claims without any proof behind them: what the judge sees, for tests of the judge alone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from attestable_mcp import rats
from attestable_mcp.rats import Claims, Tee, Verified

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

SGX_VALUES = {
    "mrenclave": "aa" * 32, "mrsigner": "bb" * 32, "isvprodid": 7, "isvsvn": 3,
    "attributes": "0500000000000000" + "e700000000000000", "fmspc": "00a067110000",
}  # fmt: skip
TDX_VALUES = {
    "mr_td": "a1" * 48, "rtmr0": "b0" * 48, "rtmr1": "b1" * 48, "rtmr2": "b2" * 48, "rtmr3": "00" * 48,
    "mr_seam": "5e" * 48, "mr_config_id": "00" * 48, "mr_owner": "00" * 48, "mr_owner_config": "00" * 48,
    "td_attributes": "0000001000000000", "xfam": "e702060000000000", "fmspc": "00806f050000",
}  # fmt: skip
SNP_VALUES = {
    "measurement": "3e" * 48, "host_data": "00" * 32, "id_key_digest": "1d" * 48, "author_key_digest": "00" * 48,
    "family_id": "02" * 16, "image_id": "03" * 16, "guest_svn": 4, "vmpl": 0, "product": "Genoa", "signing_key": "VCEK",
    "smt": 1, "migrate_ma": 0, "single_socket": 0, "alias_check_complete": True, "chip_id": "c1" * 64,
    "tcb_bl": 10, "tcb_tee": 0, "tcb_snp": 25, "tcb_ucode": 84,
}  # fmt: skip
PCRS = {f"pcr{number}{bank}": f"{number:02x}" * 31 + "5a" for number in range(12) for bank in ("", "_sha256")}
PCRS |= {"pcr12": "00" * 32, "pcr12_sha256": "00" * 32}
TPM_VALUES = PCRS | {"extra_data": "ee" * 32, "secure_boot": True, "event_log_explains": "all"}
NITRO_VALUES = {"pcr0": "f0" * 48, "pcr1": "f1" * 48, "pcr2": "f2" * 48, "pcr4": "f4" * 48, "module_id": "i-0-enc1"}
VALUES: dict[Tee, dict[str, Any]] = {
    Tee.SGX: SGX_VALUES, Tee.TDX: TDX_VALUES, Tee.SEV_SNP: SNP_VALUES, Tee.NITRO: NITRO_VALUES, Tee.TPM: TPM_VALUES,
    Tee.AZURE_SEV_SNP: SNP_VALUES | TPM_VALUES, Tee.AZURE_TDX: TDX_VALUES | TPM_VALUES,
}  # fmt: skip


@pytest.fixture
def verified() -> Callable[..., Verified]:
    """Makes `Verified`: keyword arguments change claims (`values` are merged in; None takes a value away)."""

    def make(
        tee: Tee = Tee.SGX, *, values: dict[str, Any] | None = None, simulated: bool = False, **claims: Any
    ) -> Verified:
        merged = VALUES.get(tee, {}) | (values or {})
        given: dict[str, Any] = {
            "tee": tee, "values": {key: value for key, value in merged.items() if value is not None},
            "report_data": bytes(64), "debug": False, "tcb_status": "UpToDate", "tcb_evaluation_data_number": 17,
        }  # fmt: skip
        return Verified(
            rats._MINT, claims=Claims(**(given | claims)), evidence_digest="e" * 64,
            signed_digest="d" * 64, findings=(),
            anchor="f" * 64, anchor_name="a root", simulated=simulated, at=AT, valid_until=AT,
        )  # fmt: skip

    return make
