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


@pytest.fixture
def verified() -> Callable[..., Verified]:
    """Makes `Verified`: keyword arguments change claims (`values` are merged in; None takes a value away)."""

    def make(
        tee: Tee = Tee.SGX, *, values: dict[str, Any] | None = None, simulated: bool = False, **claims: Any
    ) -> Verified:
        merged = dict(SGX_VALUES if tee is Tee.SGX else TDX_VALUES) | (values or {})
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
