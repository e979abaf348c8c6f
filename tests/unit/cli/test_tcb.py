"""`tcb`: what a platform is short of, now and under the early verdict, and what ends the command."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from attestable_mcp.rats import Tee
from attestable_mcp.simulator import amd
from attestable_mcp.simulator.amd_options import Levels, Report
from attestable_mcp.simulator.intel import well_known
from attestable_mcp.simulator.options import Collateral, IsvLevel, Level, ModuleIdentity, QeIdentity, TcbInfo
from attestable_mcp.watermarks import default_path
from attestable_mcp.wire.pem import encode_pem

AT, WHEN = datetime(2026, 6, 1, 12, tzinfo=UTC), "2026-06-01T12:00:00Z"
GOOD = well_known().platform.components
HIGH = (9, 8, 2, 2, 4, 1, 0, 7, *([0] * 8))
EARLY = TcbInfo(
    evaluation_number=19,
    levels=(
        Level(components=HIGH, pcesvn=13, tdx=(5, 0, 9, *([0] * 13)), date=datetime(2026, 5, 1, tzinfo=UTC)),
        Level(components=GOOD, pcesvn=11, status="OutOfDate", advisories=("INTEL-SA-00828", "INTEL-SA-09999")),
    ),
)


@pytest.fixture
def collateral(tmp_path: Path) -> Callable[..., str]:
    def write(name: str, options: Collateral | None = None, tee: Tee = Tee.SGX, at: datetime = AT) -> str:
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(well_known().collateral_json(at=at, tee=tee, options=options or Collateral())))
        return str(path)

    return write


@pytest.fixture
def quote(tmp_path: Path) -> str:
    path = tmp_path / "quote.bin"
    path.write_bytes(well_known().quote_sgx(bytes(64), bytes(32)))
    return str(path)


def common(*words: str) -> tuple[str, ...]:
    return ("--at", WHEN, "--danger-accept-simulated", *words)


def test_a_platform_in_order_is_accepted_now_and_later(cli: Any, quote: str, collateral: Callable[..., str]) -> None:
    now, early = collateral("now"), collateral("early", Collateral(tcb_info=TcbInfo(evaluation_number=19)))
    ended = cli("tcb", quote, *common("--endorsements", now, "--early", early, "--json"))
    seen = ended.json()
    assert (ended.code, seen["now"]["status"], seen["early"]["status"]) == (0, "UpToDate", "UpToDate")
    assert (seen["now"]["evaluation_number"], seen["early"]["evaluation_number"]) == (18, 19)
    assert seen["now"]["shortfalls"] == []
    assert seen["simulated"] is True
    assert [change["days"] for change in seen["changes"]] == [29]


def test_the_early_verdict_names_each_component_and_by_how_much(
    cli: Any, quote: str, collateral: Callable[..., str]
) -> None:
    now, early = collateral("now"), collateral("early", Collateral(tcb_info=EARLY))
    words = common("--endorsements", now, "--early", early)
    ended = cli("tcb", quote, *words, "--json")
    seen = ended.json()
    assert ended.code == 4
    assert seen["now"]["accepted"]
    assert not seen["early"]["accepted"]
    assert seen["early"]["objections"] == ["tcb_status: wanted UpToDate or SWHardeningNeeded, seen OutOfDate"]
    short = {item["component"]: (item["have"], item["wanted"]) for item in seen["early"]["shortfalls"]}
    assert short == {"SGX component 1": (8, 9), "SGX component 8": (6, 7), "PCESVN": (11, 13)}
    page = cli("tcb", quote, *words).out
    assert "SGX component 1" in page
    assert "8 of 9  (1 short)" in page
    assert "gather data sampling (Downfall)" in page
    assert "INTEL-SA-09999  https://www.intel.com" in page
    assert "in 29 days" in page
    assert "SIMULATED" in page


def test_the_policy_decides_what_is_accepted(cli: Any, quote: str, collateral: Callable[..., str]) -> None:
    outdated = collateral("old", Collateral(tcb_info=EARLY))
    assert cli("tcb", quote, *common("--endorsements", outdated)).code == 2
    assert cli("tcb", quote, *common("--endorsements", outdated, "--accept-status", "OutOfDate")).code == 0


def test_the_end_of_a_grace_is_among_the_dates(
    cli: Any, quote: str, tmp_path: Path, collateral: Callable[..., str]
) -> None:
    rules = tmp_path / "p.toml"
    rules.write_text(
        f'[policy]\nmrenclave = "{"00" * 32}"\n[[policy.grace]]\nstatus = "OutOfDate"\nuntil = 2026-06-11\n'
    )
    outdated = collateral("old", Collateral(tcb_info=EARLY))
    ended = cli("tcb", quote, "--policy", str(rules), *common("--endorsements", outdated, "--json"))
    assert ended.code == 0
    first = ended.json()["changes"][0]
    assert (first["at"], first["days"]) == ("2026-06-11T00:00:00Z", 9)
    assert "the grace for OutOfDate ends" in first["what"]
    late = cli("tcb", quote, "--policy", str(rules), "--danger-accept-simulated", "--endorsements", outdated,
               "--at", "2026-06-12T00:00:00Z", "--json")  # fmt: skip
    assert late.code == 2
    assert "OutOfDate until 2026-06-11" in late.json()["now"]["objections"][0]


def test_below_every_level_is_said_with_what_is_missing(cli: Any, quote: str, collateral: Callable[..., str]) -> None:
    path = collateral("below", Collateral(tcb_info=TcbInfo(below_all_levels=True)))
    ended = cli("tcb", quote, *common("--endorsements", path, "--json"))
    assert ended.code == 2
    assert ended.json()["now"]["status"] == "below every level"
    assert len(ended.json()["now"]["shortfalls"]) > 0


def test_quoting_enclave_and_tdx_module_count_too(cli: Any, tmp_path: Path, collateral: Callable[..., str]) -> None:
    from attestable_mcp.simulator.options import TdxBody

    path = tmp_path / "td.bin"
    body = TdxBody(tee_tcb_svn=bytes((5, 1, 8, *([0] * 13))))
    path.write_bytes(well_known().quote_tdx(bytes(64), body=body))
    levels = (IsvLevel(isvsvn=7), IsvLevel(isvsvn=3, status="OutOfDate"))
    identity = QeIdentity(levels=(IsvLevel(isvsvn=9), IsvLevel(isvsvn=6, status="OutOfDate")))
    info = TcbInfo(modules=(ModuleIdentity(version=1, levels=levels),))
    given = collateral("tdx", Collateral(tcb_info=info, qe_identity=identity), Tee.TDX)
    seen = cli("tcb", str(path), *common("--endorsements", given, "--json")).json()
    short = {(item["component"], item["name"]): (item["have"], item["wanted"]) for item in seen["now"]["shortfalls"]}
    assert short == {("TDX module", "TDX_01"): (5, 7), ("quoting enclave", "TD_QE"): (8, 9)}


def test_forged_collateral_gets_no_forecast(cli: Any, quote: str, collateral: Callable[..., str]) -> None:
    path = collateral("forged", Collateral(tcb_info=TcbInfo(tampered=True)))
    ended = cli("tcb", quote, *common("--endorsements", path, "--json"))
    assert ended.code == 2
    assert ended.json()["error"]["code"] == "signature_invalid"
    early = collateral("early", Collateral(tcb_info=TcbInfo(tampered=True)))
    seen = cli("tcb", quote, *common("--endorsements", collateral("now"), "--early", early, "--json")).json()
    assert seen["early"] is None
    assert any(note.startswith("early: ") for note in seen["notes"])


def test_simulated_evidence_is_refused_unless_named(cli: Any, quote: str, collateral: Callable[..., str]) -> None:
    ended = cli("tcb", quote, "--endorsements", collateral("now"), "--at", WHEN, "--json")
    assert ended.code == 2


def test_real_platforms(cli: Any, vectors: Path) -> None:
    folder = vectors / "tdx" / "automata-v4-out-of-date"
    ended = cli(
        "tcb", str(folder / "quote.bin"), "--endorsements", str(folder / "collateral"), "--at", "2025-07-01T00:00:00Z",
        "--json",
    )  # fmt: skip
    assert ended.code == 2
    assert ended.json()["now"]["shortfalls"] == [
        {"component": "SGX component 1", "name": "BIOS, Early Microcode Update", "have": 6, "wanted": 7},
        {"component": "SGX component 2", "name": "OS/VMM, SGX Late Microcode Update", "have": 6, "wanted": 7},
    ]


def test_an_snp_platform_shows_its_four_versions_and_what_the_policy_demands(cli: Any, tmp_path: Path) -> None:
    vendor = amd.well_known()
    report, chain = tmp_path / "report.bin", tmp_path / "chain.pem"
    report.write_bytes(vendor.report(bytes(64), bytes(48), options=Report(committed=Levels(snp=22))))
    chain.write_bytes(b"".join(encode_pem("CERTIFICATE", der) for der in vendor.collateral(at=AT).certificates))
    rules = tmp_path / "p.toml"
    rules.write_text(f'[policy]\nmeasurement = "{"00" * 48}"\nmin_tcb_snp = 24\n')
    words = ("--at", WHEN, "--danger-accept-simulated", "--endorsements", str(chain), "--json")
    seen = cli("tcb", str(report), *words)
    assert (seen.code, seen.json()["now"]["committed_tcb"]) == (0, "bl 10, tee 0, snp 22, ucode 84")
    assert seen.json()["now"]["reported_tcb"] == "bl 10, tee 0, snp 23, ucode 84"
    held = cli("tcb", str(report), "--policy", str(rules), *words)
    assert held.code == 2
    assert held.json()["now"]["objections"] == ["tcb_snp: wanted at least 24, seen 23"]


def test_forgetting_is_named_and_alone(cli: Any, quote: str) -> None:
    assert cli("tcb", "--forget", "--json").json() == {"forgot": 0, "file": str(default_path())}
    default_path().parent.mkdir(parents=True, exist_ok=True)
    default_path().write_bytes(b"damaged")
    assert cli("tcb", "--forget").code == 0
    assert not default_path().exists()
    assert cli("tcb", quote, "--forget").code == 1
    assert cli("tcb").code == 1
