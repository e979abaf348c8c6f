"""P1 to P4: what a policy must never let through, end to end: quote, collateral, verification, judgement."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from attestable_mcp.appraise.policy import Policy, Rules, SgxRelease, TrustPolicy
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.rats import AttestationResult, Endorsements, Tee, Verdict
from attestable_mcp.simulator.intel import evidence, well_known
from attestable_mcp.simulator.options import Collateral, SgxBody, TcbInfo, TdxBody
from attestable_mcp.verifier import Verifier
from attestable_mcp.watermarks import Watermarks

AT = datetime(2026, 6, 1, tzinfo=UTC)
MRENCLAVE = bytes(range(32))
SIMULATED = TrustPolicy(simulated="accept")
SGX_DEBUG = SgxBody(debug=True)
TDX_DEBUG = TdxBody(debug=True)


def collateral(tee: Tee, number: int = 18) -> Endorsements:
    return well_known().collateral(at=AT, tee=tee, options=Collateral(tcb_info=TcbInfo(evaluation_number=number)))


def judge(quote: bytes, policy: Policy, tee: Tee = Tee.SGX) -> AttestationResult:
    return Verifier(policy, sources=[]).appraise_evidence(evidence(quote), stapled=collateral(tee), at=AT).result


def code_policy(*releases: SgxRelease, **rules: Any) -> Policy:
    return Policy(trust=SIMULATED, rules=Rules(releases=releases, **rules))


@pytest.mark.parametrize(
    "policy", [Policy.genuine_only(simulated="accept"), code_policy(SgxRelease(mrenclave=MRENCLAVE.hex()))]
)
def test_p1_a_debug_enclave_is_refused_by_every_default(policy: Policy) -> None:
    vendor = well_known()
    assert judge(vendor.quote_sgx(bytes(64), MRENCLAVE), policy).admitted
    result = judge(vendor.quote_sgx(bytes(64), MRENCLAVE, body=SGX_DEBUG), policy)
    assert result.verdict is Verdict.REFUSED
    assert result.error is not None
    assert result.error.code == "debug_enclave"


def test_p1_a_debug_td_is_refused_by_every_default() -> None:
    policy = Policy.genuine_only(simulated="accept")
    vendor = well_known()
    assert judge(vendor.quote_tdx(bytes(64)), policy, Tee.TDX).admitted
    result = judge(vendor.quote_tdx(bytes(64), body=TDX_DEBUG), policy, Tee.TDX)
    assert result.error is not None
    assert result.error.code == "debug_enclave"


def test_p1_the_switch_wears_its_name_and_taints_the_result() -> None:
    policy = code_policy(SgxRelease(mrenclave=MRENCLAVE.hex()), debug="danger-accept")
    result = judge(well_known().quote_sgx(bytes(64), MRENCLAVE, body=SGX_DEBUG), policy)
    assert result.verdict is Verdict.VERIFIED
    assert any("debuggable" in sentence for sentence in result.not_proven)


EMPTY = (
    "",
    "[policy]",
    '[policy]\ntcb_statuses = ["UpToDate"]',
    '[policy]\ntee = "sgx"',
    "[[policy.accept]]\nname = 'x'",
)


@pytest.mark.parametrize("text", EMPTY)
def test_p2_a_policy_without_an_identity_cannot_be_read(text: str) -> None:
    with pytest.raises(ConfigurationError, match="no identity rule"):
        Policy.from_toml(text)


def test_p2_a_policy_without_an_identity_cannot_be_made() -> None:
    for make in (Rules, SgxRelease, lambda: Rules(releases=()), lambda: Policy(rules=Rules())):
        with pytest.raises(ConfigurationError, match="no identity rule"):
            make()


@pytest.mark.parametrize("name", ["mrenclave", "mrsigner", "mr_td", "rtmr1"])
@pytest.mark.parametrize("value", ['""', "[]", "false", "0", '" "'])
def test_p2_an_empty_expectation_is_never_an_absent_one(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match="line 2"):
        Policy.from_toml(f"[policy]\n{name} = {value}\n")


SIGNER = SgxRelease(mrsigner=SgxBody().mrsigner.hex(), isvprodid=1, min_isvsvn=4)


@pytest.mark.parametrize(("isvsvn", "admitted"), [(0, False), (3, False), (4, True), (5, True)])
def test_p3_an_old_release_of_a_trusted_signer_is_refused(isvsvn: int, admitted: bool) -> None:
    quote = well_known().quote_sgx(bytes(64), MRENCLAVE, body=SgxBody(isvsvn=isvsvn))
    result = judge(quote, code_policy(SIGNER))
    assert result.admitted == admitted
    if not admitted:
        assert result.error is not None
        assert result.error.code == "isvsvn_too_low"


def test_p3_another_product_of_a_trusted_signer_is_refused() -> None:
    quote = well_known().quote_sgx(bytes(64), MRENCLAVE, body=SgxBody(isvprodid=2, isvsvn=9))
    result = judge(quote, code_policy(SIGNER))
    assert result.error is not None
    assert result.error.code == "product_mismatch"


@pytest.mark.parametrize(
    "parts",
    [parts for size in (1, 2) for parts in itertools.combinations(("mrsigner", "isvprodid", "min_isvsvn"), size)],
)
def test_p3_a_signer_needs_product_and_version(parts: tuple[str, ...]) -> None:
    whole = {"mrsigner": "bb" * 32, "isvprodid": 1, "min_isvsvn": 4}
    with pytest.raises(ConfigurationError, match="missing"):
        SgxRelease(**{name: whole[name] for name in parts})  # type: ignore[arg-type]


def test_p4_older_validly_signed_collateral_is_a_rollback() -> None:
    verifier = Verifier(Policy.genuine_only(simulated="accept"), sources=[])
    proof = evidence(well_known().quote_sgx(bytes(64), MRENCLAVE))

    def verdict(number: int) -> tuple[Verdict, str]:
        result = verifier.appraise_evidence(proof, stapled=collateral(Tee.SGX, number), at=AT).result
        return result.verdict, result.error.code if result.error else ""

    assert verdict(17) == (Verdict.PARTIAL, "")
    assert verdict(19) == (Verdict.PARTIAL, "")
    assert verdict(18) == (Verdict.REFUSED, "collateral_rollback")
    assert verdict(17) == (Verdict.REFUSED, "collateral_rollback")
    assert verdict(19) == (Verdict.PARTIAL, "")


def test_p4_the_memory_of_it_can_be_shared_between_verifiers() -> None:
    marks, proof = Watermarks(), evidence(well_known().quote_sgx(bytes(64), MRENCLAVE))
    first, second = (Verifier(Policy.genuine_only(simulated="accept"), sources=[], watermarks=marks) for _ in range(2))
    assert first.appraise_evidence(proof, stapled=collateral(Tee.SGX, 19), at=AT).result.admitted
    error = second.appraise_evidence(proof, stapled=collateral(Tee.SGX, 18), at=AT).result.error
    assert error is not None
    assert error.code == "collateral_rollback"


def test_p4_a_policy_can_demand_the_lowest_number() -> None:
    policy = code_policy(SgxRelease(mrenclave=MRENCLAVE.hex()), min_tcb_evaluation_data_number=19)
    result = judge(well_known().quote_sgx(bytes(64), MRENCLAVE), policy)
    assert result.error is not None
    assert result.error.code == "tcb_evaluation_too_low"
