"""The simulated attester: real quotes, collateral that stays valid, safe between threads."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import dcap_qvl
import pytest

from attestable_mcp.attest.base import Attester
from attestable_mcp.attest.measurement import Measurement
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.errors import ChainInvalid
from attestable_mcp.rats import EvidenceKind
from attestable_mcp.simulator.intel import Vendor, well_known
from attestable_mcp.verify.anchors import SIMULATED_ROOT, TrustAnchors
from attestable_mcp.verify.intel import verify
from attestable_mcp.verify.memory import Memory
from attestable_mcp.wire.intel import SgxReport, read_quote

AT = datetime(2026, 6, 1, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = AT

    def __call__(self) -> datetime:
        return self.now


def expiry(attester: SimulatedAttester) -> datetime:
    bodies = [json.loads(document.body) for document in attester.endorsements().documents]
    return min(datetime.fromisoformat(body["nextUpdate"]) for body in bodies)


def test_it_is_an_attester_and_says_that_it_is_simulated() -> None:
    attester: Attester = SimulatedAttester(bytes(32))
    assert isinstance(attester, Attester)
    assert (attester.tee, attester.simulated) == ("sgx", True)


def test_quotes_carry_measurement_and_report_data() -> None:
    measured = Measurement({"code/server.py": bytes(32)})
    attester = SimulatedAttester(measured)
    evidence = attester.attest(b"\5" * 64)
    quote = read_quote(evidence.body)
    assert evidence.kind is EvidenceKind.INTEL_QUOTE
    assert isinstance(quote.body, SgxReport)
    assert quote.body.mrenclave == measured.digest == attester.mrenclave
    assert quote.report_data == b"\5" * 64


def test_quote_and_endorsements_verify_together_under_the_simulated_root() -> None:
    clock = Clock()
    attester = SimulatedAttester(bytes(32), now=clock)
    record = well_known().collateral_json(at=AT)
    assert [document.body.decode() for document in attester.endorsements().documents] == [
        record["tcb_info"],
        record["qe_identity"],
    ]
    collateral = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(record))
    quote = attester.attest(bytes(64)).body
    seen = dcap_qvl.verify_with_root_ca(quote, collateral, well_known().root_der, int(AT.timestamp()))
    assert seen.status == "UpToDate"
    with pytest.raises(ValueError, match="erification failed"):
        dcap_qvl.verify_with_root_ca(quote, collateral, Vendor.unknown().root_der, int(AT.timestamp()))
    with pytest.raises(ValueError, match="erification failed"):
        dcap_qvl.verify(quote, collateral, int(AT.timestamp()))


def test_our_verifier_takes_it_only_where_the_simulated_root_is_named() -> None:
    attester = SimulatedAttester(b"\7" * 32, now=Clock())
    quote, endorsements = read_quote(attester.attest(bytes(64)).body), attester.endorsements()
    trusting = TrustAnchors(intel=(SIMULATED_ROOT,))
    verified = verify(quote, endorsements, anchors=trusting, at=AT, memory=Memory())
    assert (verified.simulated, verified.claims.tcb_status) == (True, "UpToDate")
    with pytest.raises(ChainInvalid) as caught:
        verify(quote, endorsements, anchors=TrustAnchors(), at=AT, memory=Memory())
    assert caught.value.code == "simulated_evidence"


def test_another_vendor_can_be_named() -> None:
    vendor = Vendor(seed=b"elsewhere")
    quote = read_quote(SimulatedAttester(bytes(32), vendor=vendor).attest(bytes(64)).body)
    assert quote.certificates[-1] == vendor.root_der


def test_collateral_is_kept_then_issued_anew_before_it_expires() -> None:
    clock = Clock()
    attester = SimulatedAttester(bytes(32), now=clock)
    first = attester.endorsements()
    clock.now += timedelta(days=6)
    assert attester.endorsements() is first
    for _ in range(20):
        clock.now += timedelta(days=3)
        assert expiry(attester) > clock.now + timedelta(days=14)


def test_a_clock_set_back_gets_collateral_that_is_not_from_the_future() -> None:
    clock = Clock()
    attester = SimulatedAttester(bytes(32), now=clock)
    attester.endorsements()
    clock.now -= timedelta(days=100)
    assert expiry(attester) < clock.now + timedelta(days=31)


def test_threads_share_it() -> None:
    attester = SimulatedAttester(bytes(32))
    with ThreadPoolExecutor(8) as pool:
        wanted = [bytes([number]) * 64 for number in range(64)]
        assert [read_quote(item.body).report_data for item in pool.map(attester.attest, wanted)] == wanted
        assert len({id(bag) for bag in pool.map(lambda _: attester.endorsements(), range(64))}) == 1


def test_quoting_is_fast() -> None:
    attester = SimulatedAttester(bytes(32))
    attester.attest(bytes(64))
    times = []
    for _ in range(50):
        start = time.thread_time()
        attester.attest(bytes(64))
        times.append(time.thread_time() - start)
    assert sorted(times)[25] < 0.002


@pytest.mark.parametrize("measured", [b"", bytes(31), bytes(33), "0" * 32, None])
def test_a_measurement_is_32_bytes(measured: object) -> None:
    with pytest.raises(TypeError, match="measured"):
        SimulatedAttester(measured)  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [b"", bytes(63), bytes(65), "0" * 64])
def test_c12_report_data_is_a_digest_of_64_bytes_or_a_fault(data: object) -> None:
    with pytest.raises(TypeError, match="report data"):
        SimulatedAttester(bytes(32)).attest(data)  # type: ignore[arg-type]
