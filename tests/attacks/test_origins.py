"""Attack E12: what somebody else says must never pass for what hardware attested. Typed in results, shown to people."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.cli.main import main
from attestable_mcp.endorse.files import FileSource
from attestable_mcp.rats import AttestationResult, Claims, Origin, Tee
from attestable_mcp.simulator import amd
from attestable_mcp.simulator.intel import Vendor
from attestable_mcp.verifier import Verifier, Watermarks

AT = datetime(2026, 11, 1, tzinfo=UTC)


def claims(**more: frozenset[str]) -> Claims:
    return Claims(tee=Tee.SGX, values={"a": 1, "b": 2, "c": 3}, report_data=b"", debug=False, tcb_status="", **more)


def test_e12_every_value_has_exactly_one_origin() -> None:
    made = claims(signed=frozenset("b"), asserted=frozenset("c"))
    assert [made.origin(name) for name in "abc"] == [Origin.ATTESTED, Origin.SIGNED, Origin.ASSERTED]
    for bad in (
        {"signed": frozenset("b"), "asserted": frozenset("b")},
        {"signed": frozenset("x")},
        {"asserted": frozenset("x")},
    ):
        with pytest.raises(ValueError, match="origins"):
            claims(**bad)


def test_e12_a_result_says_of_each_claim_who_stands_behind_it() -> None:
    vendor = Vendor()
    verifier = Verifier(Policy.genuine_only(simulated="accept"), sources=[], watermarks=Watermarks())
    quote = vendor.quote_tdx(bytes(64))
    result = verifier.appraise_source(quote, AT, stapled=vendor.collateral(at=AT, tee=Tee.TDX)).result
    origins = _complete(result)
    assert origins["mr_td"] == origins["report_data"] == "attested"
    assert origins["fmspc"] == origins["tcb_evaluation_data_number"] == origins["tcb_date"] == "signed"
    assert origins["certification_data_type"] == "asserted"
    genoa = amd.well_known()
    report = genoa.report(bytes(64), b"\1" * 48)
    result = verifier.appraise_source(report, AT, stapled=genoa.collateral(at=AT)).result
    origins = _complete(result)
    assert origins["measurement"] == origins["tcb_snp"] == "attested"
    assert origins["product"] == origins["vek_serial"] == "signed"


def _complete(result: AttestationResult) -> dict[str, str]:
    shown = result.to_json()
    assert set(shown["origins"]) == set(shown["claims"])
    assert set(shown["origins"].values()) <= set(Origin)
    return dict(shown["origins"])


def test_e12_the_command_line_shows_each_claim_under_who_stands_behind_it(
    vectors: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = vectors / "snp" / "oak-genoa-oc-v5"
    FileSource(folder / "collateral")
    words = ["verify", str(folder / "report.bin"), "--genuine-only", "--endorsements", str(folder / "collateral"),
             "--at", "2025-09-11T00:00:00Z"]  # fmt: skip
    assert main(words) == 4
    page = capsys.readouterr().out
    attested, signed = page.index("attested by the TEE"), page.index("signed by others than the TEE")
    assert attested < page.index("  measurement ") < signed < page.index("  vek_serial ")
    assert main([*words, "--json"]) == 4
    found = json.loads(capsys.readouterr().out)
    assert (found["origins"]["measurement"], found["origins"]["vek_serial"]) == ("attested", "signed")
