"""`tcb` on evidence whose vendors publish no statuses: what is true of each kind, and when its verdict changes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.bind.deployment import key_hash, spki_of
from attestable_mcp.bind.platforms import sign_platforms
from attestable_mcp.ear import sign
from attestable_mcp.rats import Tee
from attestable_mcp.simulator import amd, azure, tpm
from attestable_mcp.simulator.amd_options import Levels, Report
from attestable_mcp.simulator.azure import Hcl
from attestable_mcp.simulator.options import Collateral, Level, TcbInfo
from attestable_mcp.simulator.tpm import TpmQuote
from attestable_mcp.verify.token import EAR_PROFILES
from attestable_mcp.wire.pem import encode_pem
from attestable_mcp.wire.platforms import Platforms

AT, WHEN = datetime(2026, 6, 1, 12, tzinfo=UTC), "2026-06-01T12:00:00Z"
SIMULATED = ("--at", WHEN, "--danger-accept-simulated")


@pytest.fixture
def evidence(tmp_path: Path) -> Callable[[bytes], str]:
    def write(body: bytes) -> str:
        path = tmp_path / "evidence.bin"
        path.write_bytes(body)
        return str(path)

    return write


def certificates(path: Path, found: Iterable[bytes], crls: Iterable[bytes] = ()) -> str:
    path.write_bytes(b"".join(encode_pem("CERTIFICATE", der) for der in found))
    path.with_suffix(".crl").write_bytes(b"".join(encode_pem("X509 CRL", der) for der in crls))
    return str(path)


@pytest.mark.parametrize("tee", [tee for tee in Tee if tee is not Tee.TOKEN])
def test_no_kind_is_called_unsupported(cli: Any, evidence: Any, tmp_path: Path, tee: Tee) -> None:
    """Every kind that the simulator plays gets a page, with a day on which its verdict changes."""
    attester = SimulatedAttester(bytes(32), tee=tee, now=lambda: AT)
    folder = tmp_path / "endorsements"
    folder.mkdir()
    given = attester.endorsements()
    certificates(folder / "chain.pem", given.certificates)
    if given.documents:
        from attestable_mcp.simulator.intel import well_known

        inside = Tee.TDX if tee is Tee.AZURE_TDX else tee
        (folder / "collateral.json").write_text(json.dumps(well_known().collateral_json(at=AT, tee=inside)))
    ended = cli("tcb", evidence(attester.attest(bytes(64)).body), *SIMULATED, "--endorsements", str(folder), "--json")
    seen = ended.json()
    assert (ended.code, seen["tee"], seen["early"]) == (0, str(tee), None)
    assert seen["changes"], "every simulated proof runs out some day"
    assert seen["changes"][0]["days"] >= 0


def test_a_nitro_document_ages_out_within_hours_and_nothing_of_its_platform_can_be_short(
    cli: Any, vectors: Path
) -> None:
    document = str(vectors / "nitro" / "evervault-2022-valid" / "attestation.cose")
    words = ("--at", "2022-10-13T09:00:00Z")
    seen = cli("tcb", document, *words, "--json").json()
    assert seen["tee"] == "nitro"
    assert seen["enclave"].startswith("i-")
    assert [(change["at"], change["days"]) for change in seen["changes"]] == [("2022-10-13T11:58:02Z", 0)]
    assert any("AWS publishes no TCB" in note for note in seen["notes"])
    page = cli("tcb", document, *words).out
    assert "2022-10-13 11:58Z  in 2 h 58 min" in page
    late = cli("tcb", document, "--at", "2022-10-13T12:00:00Z", "--json")
    assert (late.code, late.json()["error"]["code"]) == (2, "certificate_expired")


def test_a_tpm_says_its_firmware_and_when_chain_and_list_run_out(cli: Any, evidence: Any, tmp_path: Path) -> None:
    vendor = tpm.well_known()
    body = vendor.evidence(bytes(64), options=TpmQuote(with_certificates=True))
    bag = vendor.collateral(at=AT)
    folder = tmp_path / "issuers"
    folder.mkdir()
    certificates(folder / "chain.pem", bag.certificates)
    seen = cli("tcb", evidence(body), *SIMULATED, "--endorsements", str(folder), "--json").json()
    assert len(seen["now"]["firmware_version"]) == 16
    assert "reset_count" in seen["now"]
    assert any("the certificate chain of the attestation key runs out" in item["what"] for item in seen["changes"])
    assert any("no maker of TPMs publishes a TCB" in note for note in seen["notes"])


def test_a_pinned_tpm_key_never_runs_out_and_the_page_says_so(cli: Any, evidence: Any, tmp_path: Path) -> None:
    vendor = tpm.well_known()
    pinned = tmp_path / "ak.pem"
    pinned.write_bytes(encode_pem("PUBLIC KEY", vendor.ak))
    words = ("--at", WHEN, "--anchor", f"tpm={pinned}", "--json")
    seen = cli("tcb", evidence(vendor.evidence(bytes(64))), *words).json()
    assert seen["changes"] == []
    assert any("its key is pinned" in note for note in seen["notes"])


def test_the_hardware_in_azures_evidence_is_what_the_policy_is_held_to(cli: Any, evidence: Any, tmp_path: Path) -> None:
    vm = azure.well_known()
    chain = certificates(tmp_path / "chain.pem", vm.amd.collateral(at=AT).certificates)
    rules = tmp_path / "p.toml"
    rules.write_text(f'[policy]\nmeasurement = "{"51" * 48}"\npcr0 = "{"11" * 32}"\nmin_tcb_snp = 24\n')
    report = Report(reported=Levels(snp=23), current=Levels(snp=25), committed=Levels(snp=23), launch=Levels(snp=25))
    body = evidence(vm.evidence(bytes(64), hcl=Hcl(report=report)))
    words = (body, *SIMULATED, "--endorsements", chain, "--policy", str(rules))
    ended = cli("tcb", *words, "--json")
    seen = ended.json()
    assert (ended.code, seen["tee"], seen["product"]) == (2, "azure-sev-snp", "Genoa")
    assert seen["now"]["shortfalls"] == [{"component": "tcb_snp", "name": "SEV-SNP firmware", "have": 23, "wanted": 24}]
    assert any("the firmware that runs (snp 23 of 25)" in note for note in seen["notes"])
    assert any("newer firmware runs than the one that is reported (snp 23 of 25)" in note for note in seen["notes"])
    assert "tcb_snp (SEV-SNP firmware)" in cli("tcb", *words).out


def test_the_td_in_azures_evidence_has_both_of_intels_verdicts(cli: Any, evidence: Any, tmp_path: Path) -> None:
    vm = azure.well_known()
    body = evidence(vm.evidence(bytes(64), hcl=Hcl(tdx=True)))
    high = tuple(svn + 1 for svn in vm.intel.platform.components)
    early = TcbInfo(
        evaluation_number=19,
        levels=(
            Level(components=high, pcesvn=11),
            Level(components=vm.intel.platform.components, pcesvn=11, status="OutOfDate"),
        ),
    )
    paths = []
    for name, options in (("now", Collateral()), ("early", Collateral(tcb_info=early))):
        paths.append(tmp_path / f"{name}.json")
        paths[-1].write_text(json.dumps(vm.intel.collateral_json(at=AT, tee=Tee.TDX, options=options)))
    words = (*SIMULATED, "--endorsements", str(paths[0]), "--early", str(paths[1]), "--json")
    ended = cli("tcb", body, *words)
    seen = ended.json()
    assert (ended.code, seen["tee"]) == (4, "azure-tdx")
    assert (seen["now"]["status"], seen["early"]["status"]) == ("UpToDate", "OutOfDate")
    assert len(seen["early"]["shortfalls"]) == 16
    forged = evidence(vm.evidence(bytes(64), hcl=Hcl(tdx=True, ak_of_stranger=True)))
    assert cli("tcb", forged, *words).json()["error"]["code"] == "ak_mismatch"


def test_a_td_below_every_level_is_shown_only_where_azures_links_hold(cli: Any, evidence: Any, tmp_path: Path) -> None:
    vm = azure.well_known()
    path = tmp_path / "below.json"
    options = Collateral(tcb_info=TcbInfo(below_all_levels=True))
    path.write_text(json.dumps(vm.intel.collateral_json(at=AT, tee=Tee.TDX, options=options)))
    words = (*SIMULATED, "--endorsements", str(path), "--json")
    shown = cli("tcb", evidence(vm.evidence(bytes(64), hcl=Hcl(tdx=True))), *words)
    assert (shown.code, shown.json()["now"]["status"]) == (2, "below every level")
    forged = cli("tcb", evidence(vm.evidence(bytes(64), hcl=Hcl(tdx=True, runtime_altered=True))), *words)
    assert forged.json()["error"]["code"] == "runtime_data_mismatch"


def test_the_end_of_amds_list_comes_before_that_of_its_certificates(cli: Any, evidence: Any, tmp_path: Path) -> None:
    vendor = amd.well_known()
    folder = tmp_path / "amd"
    folder.mkdir()
    bag = vendor.collateral(at=AT)
    certificates(folder / "chain.pem", bag.certificates, bag.crls)
    assert bag.crls
    words = (evidence(vendor.report(bytes(64), bytes(48))), *SIMULATED, "--endorsements", str(folder), "--json")
    changes = cli("tcb", *words).json()["changes"]
    assert [change["what"].split(" ")[1] for change in changes] == ["revocation", "certificate"]
    assert changes[0]["days"] < changes[1]["days"]


def test_the_end_of_a_platform_list_is_among_the_dates_and_its_chips_count(
    cli: Any, evidence: Any, tmp_path: Path
) -> None:
    vendor = amd.well_known()
    chain = certificates(tmp_path / "chain.pem", vendor.collateral(at=AT).certificates)
    body = evidence(vendor.report(bytes(64), bytes(48)))
    rules = tmp_path / "p.toml"
    listed = _list(tmp_path / "list.pem", vendor.chip.hardware_id.hex())
    rules.write_text(f'[policy]\nmeasurement = "{"00" * 48}"\nplatforms = {{ file = "list.pem", key = "{listed}" }}\n')
    words = (*SIMULATED, "--endorsements", chain, "--policy", str(rules), "--json")
    ended = cli("tcb", body, *words)
    assert (ended.code, ended.json()["changes"][0]["days"]) == (0, 9)
    assert ended.json()["changes"][0]["what"].startswith("the platform list rack runs out")
    listed = _list(tmp_path / "list.pem", "11" * 64)
    rules.write_text(f'[policy]\nmeasurement = "{"00" * 48}"\nplatforms = {{ file = "list.pem", key = "{listed}" }}\n')
    other = cli("tcb", body, *words)
    assert other.code == 2
    assert other.json()["now"]["objections"][0].startswith("platforms: wanted a platform of rack")


def _list(path: Path, chip: str) -> str:
    """A signed list of one chip; the hash of its signer."""
    key = Ed25519PrivateKey.generate()
    platforms = Platforms(
        signer=spki_of(key), name="rack", issued=AT - timedelta(days=1), expires=AT + timedelta(days=9, hours=1),
        ids={"chip_id": (bytes.fromhex(chip),)},
    )  # fmt: skip
    path.write_bytes(sign_platforms(key, platforms))
    return key_hash(spki_of(key))


def test_a_token_is_told_of_as_its_issuers_word(cli: Any, evidence: Any, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    claims = {
        "iss": "https://verifier.example", "iat": int(AT.timestamp()) - 60, "exp": int(AT.timestamp()) + 90 * 60,
        "eat_profile": EAR_PROFILES[0], "attester_tcb_date": "2024-03-13T00:00:00Z", "unrelated": "x",
        "submods": {"m": {"ear.status": "warning", "x": {"attester_advisory_ids": ["INTEL-SA-00828"]}}},
    }  # fmt: skip
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "keys.pem").write_bytes(public)
    rules = tmp_path / "p.toml"
    rules.write_text(
        '[[trust.tokens]]\nprofile = "ear"\nissuer = "https://verifier.example"\nkeys = "keys.pem"\n'
        '[policy]\ntoken_claims = { "unrelated" = "x" }\n'
    )
    words = (evidence(sign(claims, private).encode()), "--at", WHEN, "--policy", str(rules))
    ended = cli("tcb", *words, "--json")
    seen = ended.json()
    assert (ended.code, seen["tee"], seen["issuer"]) == (2, "token", "https://verifier.example")
    assert seen["now"]["issuer_says"] == "warning"
    assert seen["now"]["attester_tcb_date"] == "2024-03-13T00:00:00Z"
    assert seen["now"]["submods.m.x.attester_advisory_ids[0]"] == "INTEL-SA-00828"
    assert "unrelated" not in seen["now"]
    assert seen["now"]["objections"] == [
        "token_status: wanted affirming or UpToDate or azure-compliant-cvm, seen warning"
    ]
    assert seen["changes"] == [
        {
            "at": "2026-06-01T13:30:00Z",
            "days": 0,
            "what": "the token runs out: its issuer has to judge the platform anew",
        }
    ]
    assert "in 1 h 30 min" in cli("tcb", *words).out
