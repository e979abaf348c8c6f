"""The hardware table of attacks: what a verifier can hold against each is held; what it cannot is said in docs."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestable_mcp.appraise.policy import Policy, Rules, SgxRelease, TrustPolicy
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.bind.deployment import key_hash, spki_of
from attestable_mcp.bind.platforms import sign_platforms
from attestable_mcp.errors import AttestationError, Revoked
from attestable_mcp.rats import AttestationResult, Endorsements, Evidence, EvidenceKind, Tee, Verdict
from attestable_mcp.simulator import amd, tpm
from attestable_mcp.simulator.amd_options import AmdCollateral, Product, Report
from attestable_mcp.simulator.tpm import TpmCollateral
from attestable_mcp.tls.client import attest_server
from attestable_mcp.tls.server import Server
from attestable_mcp.verifier import Verifier
from attestable_mcp.verify import table
from attestable_mcp.verify.anchors import SIMULATED_ROOTS
from attestable_mcp.verify.memory import Memory
from attestable_mcp.wire.platforms import Platforms

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
MEASUREMENT = bytes(range(48))
LEVELS = {"bl": 10, "tee": 0, "snp": 23, "ucode": 84}


def policy(rules: str = "") -> Policy:
    text = f'[trust]\nsimulated = "accept"\n[policy]\nmeasurement = "{MEASUREMENT.hex()}"\n{rules}'
    return Policy.from_toml(text, "prod.toml")


def judge(
    chosen: Policy,
    *,
    product: Product = Product.GENOA,
    options: Report | None = None,
    stapled: Endorsements | None = None,
) -> AttestationResult:
    vendor = amd.well_known(product)
    report = vendor.report(bytes(64), MEASUREMENT, options=options or Report())
    evidence = Evidence(kind=EvidenceKind.SNP_REPORT, body=report)
    verifier = Verifier(chosen, sources=[], anchors=SIMULATED_ROOTS if product is Product.GENOA else anchors(vendor))
    bag = vendor.collateral(at=AT) if stapled is None else stapled
    return verifier.appraise_evidence(evidence, stapled=bag, at=AT).result


def anchors(vendor: amd.AmdVendor) -> Any:
    from attestable_mcp.verify.anchors import TrustAnchor

    root = TrustAnchor(name="SIMULATED", spki_sha256=vendor.root_spki_sha256, simulated=True)
    return replace(SIMULATED_ROOTS, amd=(root,))


def code(result: AttestationResult) -> str:
    return result.error.code if result.error else ""


def test_hw_badram_the_alias_check_is_held_where_it_is_demanded() -> None:
    demanding, missing = policy('alias_check = "require"\n'), Report(platform_info=1)
    assert judge(demanding).verdict is Verdict.VERIFIED
    assert code(judge(demanding, options=missing)) == "alias_check_missing"
    lenient = judge(policy(), options=missing)
    assert lenient.verdict is Verdict.VERIFIED
    assert any("BadRAM" in sentence for sentence in lenient.not_proven)


def test_hw_milanlaunchy_milan_is_refused_until_it_is_named() -> None:
    refused = judge(policy(), product=Product.MILAN)
    assert code(refused) == "product_not_trusted"
    assert refused.error is not None
    assert "extracted in software" in refused.error.message
    assert judge(policy('products = ["Milan"]\n'), product=Product.MILAN).verdict is Verdict.VERIFIED


@pytest.mark.parametrize("level", LEVELS)
def test_hw_firmware_floors_are_held_level_by_level(level: str) -> None:
    assert judge(policy(f"min_tcb_{level} = {LEVELS[level]}\n")).verdict is Verdict.VERIFIED
    assert code(judge(policy(f"min_tcb_{level} = {LEVELS[level] + 1}\n"))) == "tcb_too_low"


def listed(path: Path, chip: bytes) -> str:
    key = Ed25519PrivateKey.generate()
    platforms = Platforms(
        signer=spki_of(key), name="hall 2", issued=AT - timedelta(days=1), expires=AT + timedelta(days=9),
        ids={"chip_id": (chip,)},
    )  # fmt: skip
    path.write_bytes(sign_platforms(key, platforms))
    return f'platforms = {{ file = "{path}", key = "{key_hash(spki_of(key))}" }}\n'


def test_hw_tee_fail_a_chip_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    chip = amd.well_known().chip.identity
    assert judge(policy(listed(tmp_path / "a", chip))).verdict is Verdict.VERIFIED
    assert code(judge(policy(listed(tmp_path / "b", chip[::-1])))) == "platform_unknown"


def test_hw_tee_fail_a_masked_chip_is_no_chip(tmp_path: Path) -> None:
    rule = listed(tmp_path / "a", amd.well_known().chip.identity)
    masked = Report(mask_chip_key=True, chip_id=bytes(64))
    assert code(judge(policy(rule), options=masked)) == "platform_identity_missing"


def test_p5_amd_a_revocation_reaches_a_verifier_that_remembers() -> None:
    vendor = amd.well_known()
    verifier = Verifier(policy(), sources=[], anchors=SIMULATED_ROOTS)
    evidence = Evidence(kind=EvidenceKind.SNP_REPORT, body=vendor.report(bytes(64), MEASUREMENT))
    good = vendor.collateral(at=AT)
    for _ in range(2):  # the second time from memory
        assert verifier.appraise_evidence(evidence, stapled=good, at=AT).result.verdict is Verdict.VERIFIED
    revoked = vendor.collateral(at=AT, options=AmdCollateral(revoke_ask=True))
    assert code(verifier.appraise_evidence(evidence, stapled=revoked, at=AT).result) == "revoked"
    both = good + revoked
    assert code(verifier.appraise_evidence(evidence, stapled=both, at=AT).result) == "revoked"
    forged = vendor.collateral(at=AT, options=AmdCollateral(crl_signed_by_stranger=True))
    assert code(verifier.appraise_evidence(evidence, stapled=forged, at=AT).result) == "chain_invalid"
    late = AT + timedelta(days=60)
    assert code(verifier.appraise_evidence(evidence, stapled=good, at=late).result) == "endorsement_stale"


def test_p5_tpm_a_revoked_attestation_key_is_refused_also_from_memory() -> None:
    vendor = tpm.well_known()
    quote = Evidence(kind=EvidenceKind.TPM_QUOTE, body=vendor.evidence(bytes(64)))
    memory = Memory()

    def verify(options: TpmCollateral) -> None:
        bag = vendor.collateral(at=AT, options=options)
        table.verify(quote, bag, anchors=SIMULATED_ROOTS, at=AT, memory=memory)

    for _ in range(2):
        verify(TpmCollateral())
    with pytest.raises(Revoked):
        verify(TpmCollateral(revoke_ak=True))


class _Listed:
    """A source that holds AMD's list and nothing else."""

    name = "list"

    def __init__(self, endorsements: Endorsements) -> None:
        self.endorsements, self.asked = endorsements, 0

    def fetch(self, query: Any, *, deadline_seconds: float) -> Endorsements:
        self.asked += 1
        return self.endorsements


def test_p5_amd_a_demanded_list_is_fetched_where_nobody_staples_it() -> None:
    vendor = amd.well_known()
    stapled = vendor.collateral(at=AT, options=AmdCollateral(with_crl=False))
    demanding = policy('amd_crl = "require"\n')
    assert code(judge(demanding, stapled=stapled)) == "amd_crl_missing"
    source = _Listed(Endorsements(crls=(vendor.crl(at=AT),)))
    evidence = Evidence(kind=EvidenceKind.SNP_REPORT, body=vendor.report(bytes(64), MEASUREMENT))
    verifier = Verifier(demanding, sources=[source], anchors=SIMULATED_ROOTS)
    assert verifier.appraise_evidence(evidence, stapled=stapled, at=AT).result.verdict is Verdict.VERIFIED
    assert source.asked == 1
    lenient = Verifier(policy(), sources=[source], anchors=SIMULATED_ROOTS)
    assert lenient.appraise_evidence(evidence, stapled=stapled, at=AT).result.admitted
    assert source.asked == 1  # nobody is asked for what is not demanded


class _Throttled:
    """A host that gives one report at a time, each after a while, and counts."""

    simulated = True

    def __init__(self, seconds: float) -> None:
        self.inner = SimulatedAttester(bytes(32))
        self.tee: Tee = self.inner.tee
        self.seconds, self.running, self.most, self.quotes = seconds, 0, 0, 0

    def attest(self, report_data: bytes) -> Evidence:
        self.running += 1
        self.most, self.quotes = max(self.most, self.running), self.quotes + 1
        time.sleep(self.seconds)
        self.running -= 1
        return self.inner.attest(report_data)

    def endorsements(self) -> Endorsements:
        return self.inner.endorsements()


async def _app(scope: Any, receive: Any, send: Any) -> None: ...


def test_hw_host_throttling_a_crowd_shares_the_reports_that_there_are() -> None:
    """~10 reports in 10 seconds is what hosts were seen to allow: thirty connects must not need thirty."""
    chosen = Policy(
        trust=TrustPolicy(simulated="accept", endorsements=("stapled",)),
        rules=Rules(releases=(SgxRelease(mrenclave="00" * 32),)),
    )

    async def run() -> _Throttled:
        attester = _Throttled(0.4)
        async with Server(_app, attester) as server:
            before = attester.quotes
            peers = await asyncio.gather(
                *(attest_server(chosen, server.url) for _ in range(30)), return_exceptions=True
            )
            failed = [peer for peer in peers if isinstance(peer, AttestationError)]
            assert failed == []
            attester.quotes -= before
        return attester

    attester = asyncio.run(run())
    assert attester.most == 1
    assert attester.quotes <= 10
