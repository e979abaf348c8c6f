"""P6 and P11: platforms that fall behind, graces that end, and whoever still remembers a better day."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from attestable_mcp.appraise.policy import Grace, Policy, Rules, SgxRelease, TrustPolicy
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.errors import AppraisalRefused
from attestable_mcp.rats import AttestationResult, Tee, Verdict
from attestable_mcp.simulator.intel import evidence, well_known
from attestable_mcp.simulator.options import Collateral, TcbInfo
from attestable_mcp.tls.admission import Gate
from attestable_mcp.tls.client import attest_server
from attestable_mcp.tls.server import Server
from attestable_mcp.verifier import Verifier

MRENCLAVE = bytes(range(32))
START = datetime(2026, 6, 1, tzinfo=UTC)
CLIFF = START + timedelta(days=60)
"""On this day the vendor's new evaluation finds the platform out of date."""
END = START + timedelta(days=90)


def policy(*grace: Grace, **trust: Any) -> Policy:
    release = SgxRelease(mrenclave=MRENCLAVE.hex())
    return Policy(trust=TrustPolicy(simulated="accept", **trust), rules=Rules(releases=(release,), grace=grace))


def collateral(at: datetime) -> Collateral:
    outdated = at >= CLIFF
    return Collateral(
        tcb_info=TcbInfo(
            evaluation_number=19 if outdated else 18, status="OutOfDate" if outdated else "UpToDate",
            advisories=("INTEL-SA-00828",) if outdated else (),
        )
    )  # fmt: skip


def test_p6_the_same_quote_passes_then_has_grace_then_fails_each_with_its_reason() -> None:
    proof = evidence(well_known().quote_sgx(bytes(64), MRENCLAVE))
    verifier = Verifier(policy(Grace(status="OutOfDate", until=END)), sources=[])

    def judge(at: datetime) -> AttestationResult:
        stapled = well_known().collateral(at=at, tee=Tee.SGX, options=collateral(at))
        return verifier.appraise_evidence(proof, stapled=stapled, at=at).result

    def reason(result: AttestationResult) -> str:
        return next(item.reason for item in result.findings if item.check == "policy.tcb_status")

    before = judge(CLIFF - timedelta(seconds=1))
    assert (before.verdict, before.tcb_status, reason(before)) == (Verdict.VERIFIED, "UpToDate", "")
    during = judge(CLIFF)
    assert (during.verdict, during.tcb_status) == (Verdict.VERIFIED, "OutOfDate")
    assert reason(during) == "in grace, 30 whole days left"
    assert any("accepts OutOfDate until 2026-08-30T00:00:00Z only" in words for words in during.not_proven)
    assert during.holds_until == min(END, CLIFF + timedelta(days=29))
    last = judge(END - timedelta(seconds=1))
    assert (last.verdict, last.holds_until) == (Verdict.VERIFIED, END)
    after = judge(END)
    assert after.verdict is Verdict.REFUSED
    assert after.error is not None
    assert after.error.code == "tcb_grace_ended"
    assert "its grace ended 0 whole days ago" in reason(after)
    assert "attestable-mcp tcb" in after.error.hint
    assert reason(judge(END + timedelta(days=3, hours=1))) == "its grace ended 3 whole days ago"


def test_p6_without_a_grace_the_cliff_is_a_refusal() -> None:
    proof = evidence(well_known().quote_sgx(bytes(64), MRENCLAVE))
    stapled = well_known().collateral(at=CLIFF, tee=Tee.SGX, options=collateral(CLIFF))
    for grace in ((), (Grace(status="ConfigurationNeeded", until=END),)):
        result = Verifier(policy(*grace), sources=[]).appraise_evidence(proof, stapled=stapled, at=CLIFF).result
        assert result.error is not None
        assert result.error.code == "tcb_status_refused"
        assert "OutOfDate" in result.error.message


def test_p6_old_collateral_does_not_bring_the_better_day_back() -> None:
    """Within its validity the older evaluation still says UpToDate; whoever has met the newer one is not fooled."""
    proof = evidence(well_known().quote_sgx(bytes(64), MRENCLAVE))
    verifier = Verifier(policy(Grace(status="OutOfDate", until=END)), sources=[])
    old = well_known().collateral(at=CLIFF - timedelta(days=5), tee=Tee.SGX, options=collateral(START))
    new = well_known().collateral(at=CLIFF, tee=Tee.SGX, options=collateral(CLIFF))
    assert verifier.appraise_evidence(proof, stapled=new, at=CLIFF).result.admitted
    late = verifier.appraise_evidence(proof, stapled=old, at=CLIFF).result
    assert late.error is not None
    assert late.error.code == "collateral_rollback"


async def _app(scope: Any, receive: Any, send: Any) -> None: ...


@pytest.mark.parametrize("binding", ["key", "quote"])
def test_p11_a_client_that_remembers_does_not_outlive_the_grace(tmp_path: Path, binding: Any) -> None:
    """Certificate, collateral and attested key are remembered for minutes: never past the end of what they rest on."""
    path = tmp_path / "collateral.json"
    now = datetime.now(UTC)
    options = Collateral(tcb_info=TcbInfo(status="OutOfDate"))
    path.write_text(json.dumps(well_known().collateral_json(at=now, tee=Tee.SGX, options=options)))
    grace = Grace(status="OutOfDate", until=now + timedelta(minutes=5))
    chosen = policy(grace, endorsements=(str(path),), binding=binding)

    async def run() -> None:
        clock = [now + timedelta(seconds=1)]
        gate = Gate(chosen, clock=lambda: clock[0])
        async with Server(_app, SimulatedAttester(MRENCLAVE)) as server:
            for minutes in (0, 1, 4):
                clock[0] = now + timedelta(minutes=minutes, seconds=1)
                assert (await attest_server(chosen, server.url, gate=gate)).result.verdict is Verdict.VERIFIED
            clock[0] = grace.until
            with pytest.raises(AppraisalRefused) as caught:
                await attest_server(chosen, server.url, gate=gate)
            assert caught.value.code == "tcb_grace_ended"

    asyncio.run(run())


@pytest.mark.parametrize("binding", ["key", "quote"])
def test_p11_a_client_that_remembers_does_not_outlive_the_collateral(tmp_path: Path, binding: Any) -> None:
    path = tmp_path / "collateral.json"
    now = datetime.now(UTC)
    made = now - timedelta(days=28, hours=23, minutes=55)  # five minutes of it are left
    path.write_text(json.dumps(well_known().collateral_json(at=made, tee=Tee.SGX, options=Collateral())))
    chosen = policy(endorsements=(str(path),), binding=binding)

    async def run() -> None:
        clock = [now + timedelta(seconds=1)]
        gate = Gate(chosen, clock=lambda: clock[0])
        async with Server(_app, SimulatedAttester(MRENCLAVE)) as server:
            peer = await attest_server(chosen, server.url, gate=gate)
            assert peer.result.verdict is Verdict.VERIFIED
            left = peer.verified.valid_until - now
            assert timedelta(minutes=4) < left < timedelta(minutes=6)
            clock[0] = peer.verified.valid_until + timedelta(seconds=1)
            with pytest.raises(AppraisalRefused) as caught:
                await attest_server(replace(chosen), server.url, gate=gate)
            assert caught.value.code == "endorsement_stale" or caught.value.code == "stale_evidence"

    asyncio.run(run())
