"""The judge: every rule passes what it should, refuses what it should, under its own code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from attestable_mcp.appraise.judge import HINTS, appraise
from attestable_mcp.appraise.policy import ACCEPTABLE_STATUSES, JUDGED, Policy
from attestable_mcp.rats import AttestationResult, Outcome, Tee, Verdict, Verified

Make = Callable[..., Verified]
SGX = f'mrenclave = "{"aa" * 32}"'
SIGNER = f'mrsigner = "{"bb" * 32}"\nisvprodid = 7\nmin_isvsvn = 3'
TDX_LINES = {"mr_td": "a1", "rtmr0": "b0", "rtmr1": "b1", "rtmr2": "b2", "rtmr3": "00"}
TDX = "\n".join(f'{name} = "{byte * 48}"' for name, byte in TDX_LINES.items())


def judge(verified: Verified, rules: str, trust: str = "") -> AttestationResult:
    return appraise(verified, Policy.from_toml(f"[trust]\n{trust}\n[policy]\n{rules}\n", "prod.toml"))


@pytest.mark.parametrize(
    ("tee", "rules"), [(Tee.SGX, SGX), (Tee.SGX, SIGNER), (Tee.TDX, TDX), (Tee.SGX, SGX + "\n" + SIGNER)]
)
def test_what_the_policy_names_is_verified(verified: Make, tee: Tee, rules: str) -> None:
    result = judge(verified(tee), rules)
    assert result.verdict is Verdict.VERIFIED
    assert result.error is None
    assert result.exit_code == 0
    assert {finding.outcome for finding in result.findings} == {Outcome.PASS}
    assert result.policy == "prod.toml"
    assert result.trust_anchor.startswith("a root (key sha256 ffff")


OTHER = "cc" * 48
# tee, rules, changed claims, code, words of the message
# ruff: noqa: E501 - a table reads best with a row a line
REFUSALS: dict[str, tuple[Tee, str, dict[str, Any], str, str]] = {
    "mrenclave": (
        Tee.SGX, SGX, {"values": {"mrenclave": "ab" * 32}}, "measurement_mismatch",
        f"mrenclave: wanted {'aa' * 32}, seen {'ab' * 32} (prod.toml, line 4)",
    ),
    "mrenclave absent": (Tee.SGX, SGX, {"values": {"mrenclave": None}}, "measurement_mismatch", "seen absent"),
    "signer": (Tee.SGX, SIGNER, {"values": {"mrsigner": "ab" * 32}}, "signer_mismatch", "line 4"),
    "product": (Tee.SGX, SIGNER, {"values": {"isvprodid": 8}}, "product_mismatch", "isvprodid: wanted 7, seen 8 (prod.toml, line 5)"),
    "svn": (Tee.SGX, SIGNER, {"values": {"isvsvn": 2}}, "isvsvn_too_low", "wanted at least 3, seen 2 (prod.toml, line 6)"),
    "svn absent": (Tee.SGX, SIGNER, {"values": {"isvsvn": None}}, "isvsvn_too_low", "seen absent"),
    "debug sgx": (Tee.SGX, SGX, {"debug": True}, "debug_enclave", "seen debuggable"),
    "not initialised": (Tee.SGX, SGX, {"values": {"attributes": "04" + "00" * 15}}, "enclave_not_initialised", "INIT clear"),
    "attributes": (
        Tee.SGX, f'{SGX}\nattributes = "{"05" + "00" * 15}"', {}, "attributes_mismatch", "(prod.toml, line 5)",
    ),
    "other tee": (Tee.TDX, SGX, {}, "tee_not_accepted", "wanted sgx, seen tdx"),
    **{
        name: (Tee.TDX, TDX, {"values": {name: OTHER}}, "measurement_mismatch", f"{name}: wanted")
        for name in ("mr_td", "rtmr0", "rtmr1", "rtmr2", "rtmr3")
    },
    "rtmr absent": (Tee.TDX, TDX, {"values": {"rtmr2": None}}, "measurement_mismatch", "rtmr2: wanted"),
    "debug tdx": (Tee.TDX, TDX, {"values": {"td_attributes": "0100001000000000"}}, "debug_enclave", "debug"),
    "other untrusted bit": (Tee.TDX, TDX, {"values": {"td_attributes": "8000001000000000"}}, "debug_enclave", "debug"),
    "td attributes absent": (Tee.TDX, TDX, {"values": {"td_attributes": None}}, "debug_enclave", "debug"),
    "sept clear": (Tee.TDX, TDX, {"values": {"td_attributes": "00" * 8}}, "sept_ve_disable_clear", "wanted set, seen clear"),
    "migratable": (Tee.TDX, TDX, {"values": {"td_attributes": "0000003000000000"}}, "migratable_td", "seen migratable"),
    "service td": (Tee.TDX, TDX, {"values": {"mr_service_td": OTHER}}, "service_td", "seen service TD cccc"),
    "service td other": (
        Tee.TDX, f'{TDX}\nmr_service_td = "{"dd" * 48}"', {"values": {"mr_service_td": OTHER}}, "mr_service_td_mismatch", "",
    ),
    "service td absent": (Tee.TDX, f'{TDX}\nmr_service_td = "{OTHER}"', {}, "mr_service_td_mismatch", "seen absent"),
    "seam": (Tee.TDX, f'{TDX}\nmr_seam = ["{OTHER}"]', {}, "mr_seam_mismatch", "(prod.toml, line 9)"),
    "config id": (Tee.TDX, f'{TDX}\nmr_config_id = "{OTHER}"', {}, "mr_config_id_mismatch", "mr_config_id"),
    "owner": (Tee.TDX, f'{TDX}\nmr_owner = "{OTHER}"', {}, "mr_owner_mismatch", "mr_owner"),
    "owner config": (Tee.TDX, f'{TDX}\nmr_owner_config = "{OTHER}"', {}, "mr_owner_config_mismatch", "mr_owner_config"),
    "xfam": (Tee.TDX, f'{TDX}\nxfam = "e702000000000000"', {}, "attributes_mismatch", "xfam"),
    "td attributes": (Tee.TDX, f'{TDX}\ntd_attributes = "0000001000000080"', {}, "attributes_mismatch", "td_attributes"),
    "advisory": (
        Tee.SGX, f'{SGX}\nadvisories = ["A"]', {"advisories": ("A", "B")}, "advisory_refused", "wanted none but A, seen A, B",
    ),
    "any advisory": (Tee.SGX, f'{SGX}\nadvisories = "none"', {"advisories": ("A",)}, "advisory_refused", "wanted none, seen A"),
    "refused advisory": (
        Tee.SGX, f'{SGX}\nrefused_advisories = ["B"]', {"advisories": ("A", "B")}, "advisory_refused", "wanted none of B",
    ),
    "evaluation": (
        Tee.SGX, f"{SGX}\nmin_tcb_evaluation_data_number = 18", {}, "tcb_evaluation_too_low", "at least 18, seen 17",
    ),
    "evaluation absent": (
        Tee.SGX, f"{SGX}\nmin_tcb_evaluation_data_number = 18", {"tcb_evaluation_data_number": None},
        "tcb_evaluation_too_low", "seen absent",
    ),
    "simulated": (Tee.SGX, SGX, {"simulated": True}, "simulated_evidence", "simulated"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_what_the_policy_does_not_name_is_refused(verified: Make, name: str) -> None:
    tee, rules, changed, code, words = REFUSALS[name]
    result = judge(verified(tee, **changed), rules)
    assert result.verdict is Verdict.REFUSED
    assert result.error is not None
    assert result.error.code == code
    assert words in result.error.message
    assert result.error.hint
    assert "disabl" not in result.error.hint.lower().replace("sept_ve_disable", "")
    failed = [finding for finding in result.findings if finding.outcome is Outcome.FAIL]
    assert failed
    assert all(
        finding.check.startswith("policy.") and finding.code and finding.wanted and finding.seen for finding in failed
    )


@pytest.mark.parametrize(
    ("tee", "rules", "changed"),
    [
        (Tee.TDX, f'{TDX}\nsept_ve_disable = "accept-clear"', {"values": {"td_attributes": "00" * 8}}),
        (Tee.TDX, f'{TDX}\nmigratable = "accept"', {"values": {"td_attributes": "0000003000000000"}}),
        (Tee.TDX, f'{TDX}\nservice_td = "accept"', {"values": {"mr_service_td": OTHER}}),
        (Tee.TDX, f'{TDX}\nmr_service_td = "{OTHER}"', {"values": {"mr_service_td": OTHER}}),
        (Tee.TDX, TDX, {"values": {"mr_service_td": "00" * 48}}),
        (Tee.TDX, f'{TDX}\nmr_seam = ["{OTHER}", "{"5e" * 48}"]', {}),
        (Tee.TDX, f'{TDX}\nxfam = "e702060000000000"\ntd_attributes = "0000001000000000"', {}),
        (Tee.TDX, f'{TDX}\nxfam = "0700000000000000"\nxfam_mask = "0700000000000000"', {}),
        (Tee.SGX, f'{SGX}\ntcb_statuses = ["OutOfDate"]', {"tcb_status": "OutOfDate"}),
        (Tee.SGX, f'{SGX}\nadvisories = ["A", "B"]', {"advisories": ("B",)}),
        (Tee.SGX, SGX, {"advisories": ("B",)}),
        (Tee.SGX, f"{SGX}\nmin_tcb_evaluation_data_number = 17", {}),
        (Tee.SGX, SIGNER, {"values": {"isvsvn": 9, "mrenclave": "12" * 32}}),
    ],
)
def test_what_is_named_passes(verified: Make, tee: Tee, rules: str, changed: dict[str, Any]) -> None:
    assert judge(verified(tee, **changed), rules).verdict is Verdict.VERIFIED


@pytest.mark.parametrize("status", [*ACCEPTABLE_STATUSES, "Revoked", "", "uptodate", "Surprise"])
def test_tcb_statuses_by_default_and_by_name(verified: Make, status: str) -> None:
    by_default = judge(verified(tcb_status=status), SGX)
    assert (by_default.verdict is Verdict.VERIFIED) == (status in ("UpToDate", "SWHardeningNeeded"))
    if by_default.error:
        assert by_default.error.code == ("revoked" if status == "Revoked" else "tcb_status_refused")
    named = Policy.genuine_only(accept_statuses=ACCEPTABLE_STATUSES)
    assert appraise(verified(tcb_status=status), named).admitted == (status in ACCEPTABLE_STATUSES)


def test_all_objections_are_gathered_in_one_refusal(verified: Make) -> None:
    bad = verified(
        Tee.TDX, simulated=True, debug=True, tcb_status="OutOfDate", advisories=("A",),
        values={"mr_td": OTHER, "rtmr3": OTHER, "td_attributes": "0100002000000000", "mr_service_td": OTHER},
    )  # fmt: skip
    result = judge(bad, f'{TDX}\nadvisories = "none"\nmin_tcb_evaluation_data_number = 99\nmr_seam = "{OTHER}"')
    failed = {finding.check for finding in result.findings if finding.outcome is Outcome.FAIL}
    assert failed == {
        "policy.simulated", "policy.debug", "policy.mr_td", "policy.rtmr3", "policy.sept_ve_disable", "policy.migratable",
        "policy.service_td", "policy.mr_seam", "policy.tcb_status", "policy.advisories", "policy.tcb_evaluation",
    }  # fmt: skip
    assert result.error is not None
    assert result.error.code == "simulated_evidence"
    assert all(check.removeprefix("policy.") in result.error.message for check in failed)


def test_one_of_several_releases_is_enough_but_must_hold_whole(verified: Make) -> None:
    two = f'[[policy.accept]]\nname = "one"\n{TDX}\n[[policy.accept]]\nname = "two"\n{TDX.replace("a1", "a2").replace("b1", "c1")}'
    policy = Policy.from_toml(two, "prod.toml")
    assert appraise(verified(Tee.TDX), policy).verdict is Verdict.VERIFIED
    second = {"mr_td": "a2" * 48, "rtmr1": "c1" * 48}
    assert appraise(verified(Tee.TDX, values=second), policy).verdict is Verdict.VERIFIED
    mixed = appraise(verified(Tee.TDX, values={"mr_td": "a2" * 48}), policy)
    assert mixed.verdict is Verdict.REFUSED
    assert mixed.error is not None
    assert "release one (prod.toml, line 3)" in mixed.error.message
    assert "release two (prod.toml, line 12)" in mixed.error.message
    assert appraise(verified(Tee.SGX), policy).error.code == "tee_not_accepted"  # type: ignore[union-attr]


def test_genuine_only_is_partial_and_says_what_is_open(verified: Make) -> None:
    result = appraise(verified(values={"mrenclave": "12" * 32}), Policy.genuine_only())
    assert result.verdict is Verdict.PARTIAL
    assert result.exit_code == 4
    assert any("which code" in sentence for sentence in result.not_proven)
    assert [finding.outcome for finding in result.findings if finding.check == "policy.code"] == [Outcome.SKIP]


@pytest.mark.parametrize("tee", JUDGED)
def test_genuine_only_keeps_every_other_default(verified: Make, tee: Tee) -> None:
    policy = Policy.genuine_only()
    assert appraise(verified(tee, debug=True), policy).error.code == "debug_enclave"  # type: ignore[union-attr]
    assert appraise(verified(tee, simulated=True), policy).error.code == "simulated_evidence"  # type: ignore[union-attr]
    if tee in (Tee.SGX, Tee.TDX, Tee.AZURE_TDX):
        assert appraise(verified(tee, tcb_status="OutOfDate"), policy).error.code == "tcb_status_refused"  # type: ignore[union-attr]
    if tee in (Tee.SEV_SNP, Tee.AZURE_SEV_SNP):
        milan = appraise(verified(tee, values={"product": "Milan"}), policy)
        assert milan.error.code == "product_not_trusted"  # type: ignore[union-attr]
    assert appraise(verified(tee), policy).verdict is Verdict.PARTIAL


def test_accepted_simulated_evidence_stays_marked(verified: Make) -> None:
    for policy in (
        Policy.genuine_only(simulated="accept"),
        Policy.from_toml(f'[trust]\nsimulated="accept"\n[policy]\n{SGX}'),
    ):
        result = appraise(verified(simulated=True), policy)
        assert result.admitted
        assert result.simulated
        assert any("SIMULATED" in sentence for sentence in result.not_proven)
        assert not appraise(verified(), policy).simulated


def test_what_a_policy_leaves_open_is_said(verified: Make) -> None:
    loose = "\n".join(line for line in TDX.splitlines() if not line.startswith("rtmr3")) + '\nnot_compared = ["rtmr3"]'
    result = judge(verified(Tee.TDX, values={"rtmr3": OTHER}), loose)
    assert result.verdict is Verdict.VERIFIED
    assert any(sentence.startswith("rtmr3") for sentence in result.not_proven)
    assert any("which build" in sentence for sentence in judge(verified(), SIGNER).not_proven)
    danger = judge(verified(debug=True), f'{SGX}\ndebug = "danger-accept"')
    assert danger.verdict is Verdict.VERIFIED
    assert any("debuggable" in sentence for sentence in danger.not_proven)
    assert judge(verified(), SGX).not_proven == ()


def test_the_result_shows_vendor_names_in_lower_case_hex(verified: Make) -> None:
    claims = judge(verified(), SGX).to_json()["claims"]
    assert claims["mrenclave"] == "aa" * 32
    assert claims["report_data"] == "00" * 64
    assert claims["debug"] is False
    assert claims["tcb_evaluation_data_number"] == 17


def test_a_default_rule_says_that_nobody_wrote_it(verified: Make) -> None:
    error = judge(verified(tcb_status="OutOfDate"), SGX).error
    assert error is not None
    assert "(prod.toml, default)" in error.message


def test_every_code_has_a_hint(verified: Make) -> None:
    codes = {code for _, _, _, code, _ in REFUSALS.values()} | {"tcb_status_refused", "revoked"}
    assert {code for code in codes if code not in HINTS} == set()


def test_a_kind_that_the_rules_do_not_know_is_refused(verified: Make) -> None:
    result = appraise(verified("riscv"), Policy.genuine_only())
    assert result.error is not None
    assert result.error.code == "tee_not_accepted"


def test_every_kind_of_tee_is_known() -> None:
    assert set(JUDGED) == set(Tee)


def test_a_dstack_application_stands_in_for_rtmr3_where_the_log_proves_it(verified: Make) -> None:
    toml = "\n".join(line for line in TDX.splitlines() if not line.startswith("rtmr3"))
    toml += f'\ncompose_hash = "{"c0" * 32}"'
    proven = judge(verified(Tee.TDX, values={"rtmr3": OTHER, "compose_hash": "c0" * 32}), toml)
    assert proven.verdict is Verdict.VERIFIED
    assert any("what else rtmr3 measures" in sentence for sentence in proven.not_proven)
    for values in ({}, {"compose_hash": "c1" * 32}):
        refused = judge(verified(Tee.TDX, values=values), toml)
        assert refused.error is not None
        assert refused.error.code == "measurement_mismatch"
