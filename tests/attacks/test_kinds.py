"""Attacks E9, E10, P9 and the hardware table, all the way: simulated evidence, a policy, the verifier's verdict."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.attest.eventlogs import log_endorsements
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.rats import AttestationResult, Endorsements, Evidence, EvidenceKind, Tee, Verdict
from attestable_mcp.simulator import amd, azure, tpm
from attestable_mcp.simulator.amd_options import (
    MIGRATE_MA,
    RESERVED_ONE,
    SMT,
    AmdCertificates,
    AmdCollateral,
    Chip,
    Levels,
    Product,
    Report,
)
from attestable_mcp.simulator.eventlog import NO_ACTION, Event, write_log
from attestable_mcp.simulator.intel import Vendor
from attestable_mcp.simulator.options import TdxBody
from attestable_mcp.simulator.tpm import TpmCertificates, TpmCollateral, TpmQuote, TpmVendor
from attestable_mcp.verifier import Verifier, Watermarks

AT = datetime(2026, 11, 1, tzinfo=UTC)
CODE = b"\xc0" * 48
TRUST = '[trust]\nsimulated = "accept"\n[policy]\n'
GUEST = f'measurement = "{CODE.hex()}"\n'


def judge(kind: EvidenceKind, body: bytes, bag: Endorsements, rules: str) -> AttestationResult:
    policy = Policy.from_toml(TRUST + rules, "p.toml")
    verifier = Verifier(policy, sources=[], watermarks=Watermarks())
    return verifier.appraise_evidence(Evidence(kind=kind, body=body), stapled=bag, at=AT).result


def refused(result: AttestationResult) -> str:
    assert result.verdict is Verdict.REFUSED, result.verdict
    assert result.error is not None
    return result.error.code


def snp(
    rules: str = "", *, vendor: amd.AmdVendor | None = None, collateral: AmdCollateral | None = None, **report: Any
) -> AttestationResult:
    maker = vendor or amd.well_known()
    body = maker.report(bytes(64), CODE, options=Report(**report))
    bag = maker.collateral(at=AT, vlek=report.get("vlek", False), options=collateral or AmdCollateral())
    return judge(EvidenceKind.SNP_REPORT, body, bag, GUEST + rules)


# --- E9: what the report says of itself, and what AMD says of the key -------------------------------------------------


@pytest.mark.parametrize(
    ("certificates", "check"),
    [
        (AmdCertificates(vek_levels=Levels(snp=22)), "snp.vek.tcb"),
        (AmdCertificates(vek_hwid=b"\x99" * 64), "snp.vek.hwid"),
        (AmdCertificates(vek_product="Milan-B0"), "snp.vek.product"),
    ],
)
def test_e9_a_report_is_held_to_what_amd_signed_of_its_key(certificates: AmdCertificates, check: str) -> None:
    result = snp(vendor=amd.AmdVendor(certificates=certificates))
    assert refused(result) == "chain_invalid"
    assert [finding.check for finding in result.findings if finding.outcome == "fail"] == [check]


def test_e9_a_masked_or_leased_chip_is_no_identity_and_the_result_says_so() -> None:
    assert not any("identity" in line for line in snp().not_proven)
    for report in ({"mask_chip_key": True}, {"vlek": True}):
        result = snp(**report)
        assert result.verdict is Verdict.VERIFIED, result.error
        assert any("the platform's identity" in line for line in result.not_proven)
    assert refused(snp('signing_keys = ["VCEK"]', vlek=True)) == "signing_key_refused"


# --- the hardware table -----------------------------------------------------------------------------------------------


def test_milan_is_refused_with_the_reason_until_a_policy_or_a_flag_names_it() -> None:
    maker = amd.AmdVendor(chip=Chip(product=Product.MILAN))
    result = snp(vendor=maker)
    assert refused(result) == "product_not_trusted"
    assert result.error is not None
    assert "can be extracted in software" in result.error.message
    assert "--accept-product" in result.error.hint
    assert snp('products = ["Milan", "Genoa"]', vendor=maker).verdict is Verdict.VERIFIED
    flag = Policy.from_toml(TRUST + GUEST).with_overrides(accept_products=["Milan"])
    assert "accepted product Milan" in flag.name
    evidence = Evidence(kind=EvidenceKind.SNP_REPORT, body=maker.report(bytes(64), CODE))
    verifier = Verifier(flag, sources=[], watermarks=Watermarks())
    again = verifier.appraise_evidence(evidence, stapled=maker.collateral(at=AT), at=AT)
    assert again.result.verdict is Verdict.VERIFIED


def test_milan_is_refused_behind_azures_paravisor_too() -> None:
    machine = azure.AzureVm(amd=amd.AmdVendor(chip=Chip(product=Product.MILAN)))
    body, bag = machine.evidence(bytes(64)), machine.amd.collateral(at=AT)
    policy = Policy.genuine_only(simulated="accept")
    verifier = Verifier(policy, sources=[], watermarks=Watermarks())
    result = verifier.appraise_evidence(Evidence(kind=EvidenceKind.AZURE_VTPM, body=body), stapled=bag, at=AT).result
    assert refused(result) == "product_not_trusted"


def test_badram_without_the_alias_check_is_said_or_refused() -> None:
    for rules, platform, verdict in (
        ("", 1, Verdict.VERIFIED), ('alias_check = "require"', 1, Verdict.REFUSED),
        ('alias_check = "require"', 1 | 1 << 5, Verdict.VERIFIED),
    ):  # fmt: skip
        result = snp(rules, platform_info=platform)
        assert result.verdict is verdict
        assert any("BadRAM" in line for line in result.not_proven) == (platform == 1)


def test_p9_a_report_that_another_level_asked_for_says_that_its_code_is_not_the_measured_one() -> None:
    for level in (0, 1, 3):
        result = snp(vmpl=level)
        assert result.verdict is Verdict.VERIFIED
        assert any(f"VMPL {level}" in line for line in result.not_proven) == (level > 0)
        assert (snp("vmpl = [0]", vmpl=level).verdict is Verdict.VERIFIED) == (level == 0)


@pytest.mark.parametrize("level", ["bl", "snp", "ucode"])
def test_firmware_below_the_floor_is_refused(level: str) -> None:
    current = {"bl": 10, "snp": 23, "ucode": 84}[level]
    assert snp(f"min_tcb_{level} = {current}").verdict is Verdict.VERIFIED
    assert refused(snp(f"min_tcb_{level} = {current + 1}")) == "tcb_too_low"
    assert refused(snp("min_tcb_fmc = 1")) == "tcb_too_low"  # a level that this product does not have


def test_amds_list_is_missed_in_words_or_demanded() -> None:
    without = AmdCollateral(with_crl=False)
    missed = snp(collateral=without)
    assert missed.verdict is Verdict.VERIFIED
    assert any("revocation list" in line for line in missed.not_proven)
    assert refused(snp('amd_crl = "require"', collateral=without)) == "amd_crl_missing"
    assert snp('amd_crl = "require"').verdict is Verdict.VERIFIED
    assert refused(snp(collateral=AmdCollateral(revoke_ask=True))) == "revoked"


# --- P9: exact bits and lists -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "report", "code"),
    [
        ("", {"policy": SMT | RESERVED_ONE | MIGRATE_MA}, "migration_allowed"), ('smt = "refuse"', {}, "smt_allowed"),
        ("vmpl = [0]", {"vmpl": 1}, "vmpl_refused"), ('single_socket = "require"', {}, "several_sockets"),
        ("", {"debug": True}, "debug_enclave"), (f'host_data = "{"11" * 32}"', {}, "measurement_mismatch"),
        ("min_guest_svn = 1", {}, "guest_svn_too_low"), (f'id_key_digest = "{"11" * 48}"', {}, "signer_mismatch"),
    ],
)  # fmt: skip
def test_p9_what_a_guest_was_launched_with_is_held_to_the_policy(rules: str, report: dict[str, Any], code: str) -> None:
    assert refused(snp(rules, **report)) == code


TD = "\n".join(f'{name} = "{value * 48}"' for name, value in
               {"mr_td": "51", "rtmr0": "00", "rtmr1": "00", "rtmr2": "00", "rtmr3": "00"}.items())  # fmt: skip


def tdx(rules: str, **body: Any) -> AttestationResult:
    maker = Vendor()
    quote = maker.quote_tdx(bytes(64), body=TdxBody(mrtd=b"\x51" * 48, **body))
    return judge(EvidenceKind.INTEL_QUOTE, quote, maker.collateral(at=AT, tee=Tee.TDX), f"{TD}\n{rules}")


@pytest.mark.parametrize(
    ("rules", "body"),
    [
        ('xfam = "e702060000000000"', {"xfam": bytes.fromhex("e702060000000100")}),
        ('xfam = "0300000000000000"\nxfam_mask = "0f00000000000000"', {}),
        ('td_attributes = "0000001000000000"', {"tdattributes": 1 << 28 | 1 << 30}),
        (f'mr_seam = "{"99" * 48}"', {}),
        (f'mr_owner = "{"99" * 48}"', {}),
    ],
)
def test_p9_bits_and_modules_of_a_td_are_exact(rules: str, body: dict[str, Any]) -> None:
    assert tdx('xfam = "e702060000000000"\ntd_attributes = "0000001000000000"').verdict is Verdict.VERIFIED
    assert refused(tdx(rules, **body)) in ("attributes_mismatch", "mr_seam_mismatch", "mr_owner_mismatch")


# --- E10: TPM quotes --------------------------------------------------------------------------------------------------


def machine(
    options: TpmQuote, *, maker: TpmVendor | None = None, collateral: TpmCollateral | None = None, rules: str = ""
) -> AttestationResult:
    vendor = maker or tpm.well_known()
    pinned = vendor.pcrs(TpmQuote())[7].hex()
    given = rules or f'tee = "tpm"\npcr7 = "{pinned}"'
    return judge(
        EvidenceKind.TPM_QUOTE, vendor.evidence(bytes(64), options=options),
        vendor.collateral(at=AT, options=collateral or TpmCollateral()), given,
    )  # fmt: skip


def measured(**options: Any) -> TpmQuote:
    return TpmQuote(pcrs={7: b"\x77" * 32}, **options)


RULES = f'tee = "tpm"\npcr7 = "{"77" * 32}"'


def test_e10_a_genuine_quote_is_accepted() -> None:
    assert machine(measured(), rules=RULES).verdict is Verdict.VERIFIED


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"signed_by_stranger": True}, "signature_invalid"), ({"altered": True}, "signature_invalid"),
        ({"sent_pcrs": {7: b"\x78" * 32}}, "pcr_mismatch"), ({"magic": 0}, "malformed_evidence"),
        ({"selected": (16, 23)}, "no_pcr"), ({"trailing": b"\0"}, "trailing_bytes"),
        ({"ak_of_stranger": True}, "signature_invalid"), ({"bank": "sha1"}, "no_pcr"),
    ],
)  # fmt: skip
def test_e10_a_forged_quote_is_refused_for_its_own_reason(options: dict[str, Any], code: str) -> None:
    given = measured(**options) if options.get("bank") != "sha1" else TpmQuote(bank="sha1")
    assert refused(machine(given, rules=RULES)) == code


def test_e10_the_key_needs_a_certificate_of_its_own_under_a_trusted_root() -> None:
    other = TpmVendor(certificates=TpmCertificates(ak_of_another_key=True))
    assert refused(machine(measured(), maker=other, rules=RULES)) == "ak_certificate_mismatch"
    assert refused(machine(measured(), maker=TpmVendor.unknown(), rules=RULES)) == "untrusted_root"
    nobody = machine(measured(), collateral=TpmCollateral(with_ak=False), rules=RULES)
    assert nobody.verdict is Verdict.UNAVAILABLE
    assert refused(machine(measured(), collateral=TpmCollateral(revoke_ak=True), rules=RULES)) == "revoked"


@pytest.mark.parametrize("number", [16, 23])
def test_e10_resettable_pcrs_are_no_policy(number: int) -> None:
    with pytest.raises(ConfigurationError, match="can reset this PCR"):
        Policy.from_toml(f'[policy]\ntee = "tpm"\npcr{number} = "{"aa" * 32}"')


@pytest.mark.parametrize("number", [20, 21, 22])
@pytest.mark.parametrize("tee", ["tpm", "azure-sev-snp"])
def test_e10_pcrs_that_a_kernel_can_reset_name_no_code(number: int, tee: str) -> None:
    """They may stand beside one that lasts."""
    rules = f'[policy]\ntee = "{tee}"\nmeasurement = "{"01" * 48}"\n' if tee != "tpm" else '[policy]\ntee = "tpm"\n'
    alone = f'{rules}pcr{number} = "{"aa" * 32}"\n'
    with pytest.raises(ConfigurationError):
        Policy.from_toml(alone)
    assert Policy.from_toml(f'{alone}pcr4 = "{"bb" * 32}"')


def test_p8_a_log_of_the_tds_registers_does_not_speak_for_azures_vtpm() -> None:
    """The vTPM sends no log; the sender staples one for the TD instead, which explains the RTMRs: none is extended."""
    vm = azure.well_known()
    body = vm.evidence(bytes(64), hcl=azure.Hcl(tdx=True), quote=TpmQuote(pcrs={4: b"\x44" * 32}))
    log = write_log((Event(pcr=1, data=b"nothing", kind=NO_ACTION),), "sha384")
    bag = vm.intel.collateral(at=AT, tee=Tee.TDX) + log_endorsements(log, "stapled")
    zeros = "".join(f'rtmr{number} = "{bytes(48).hex()}"\n' for number in range(4))
    rules = f'mr_td = "{"51" * 48}"\n{zeros}pcr4 = "{"44" * 32}"\n'
    assert judge(EvidenceKind.AZURE_VTPM, body, bag, rules).verdict is Verdict.VERIFIED
    result = judge(EvidenceKind.AZURE_VTPM, body, bag, rules + 'event_log = "require"\n')
    assert refused(result) == "event_log_missing"
    assert "event_log_explains" not in result.claims
