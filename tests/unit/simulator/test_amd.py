"""The miniature AMD speaks the real grammar: what is good is accepted, and each knob is refused for its own reason."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.serialization import load_der_public_key

from attestable_mcp.errors import AttestationError
from attestable_mcp.rats import Evidence, EvidenceKind, Outcome, Verified
from attestable_mcp.simulator import rsa
from attestable_mcp.simulator.amd import AmdVendor, well_known
from attestable_mcp.simulator.amd_options import (
    ALIAS_CHECK_COMPLETE,
    AmdCertificates,
    AmdCollateral,
    Chip,
    Levels,
    Product,
    Report,
)
from attestable_mcp.simulator.keys import WELL_KNOWN_SEED
from attestable_mcp.simulator.options import EXPIRED, FUTURE, Validity
from attestable_mcp.verify import snp
from attestable_mcp.verify.anchors import TrustAnchor, TrustAnchors
from attestable_mcp.verify.memory import Memory
from attestable_mcp.wire.snp import read_certificate_table

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
DATA, MEASUREMENT = bytes(range(64)), bytes(range(48))
PAST = Validity(not_after=datetime(2025, 1, 1, tzinfo=UTC))


def verify(
    vendor: AmdVendor, report: Report, collateral: AmdCollateral, *, root: str = "", vlek: bool | None = None
) -> Verified:
    anchor = TrustAnchor(name="simulated", spki_sha256=root or vendor.root_spki_sha256)
    evidence = Evidence(kind=EvidenceKind.SNP_REPORT, body=vendor.report(DATA, MEASUREMENT, options=report))
    bag = vendor.collateral(at=AT, vlek=report.vlek if vlek is None else vlek, options=collateral)
    return snp.verify(evidence, bag, anchors=TrustAnchors(amd=(anchor,)), at=AT, memory=Memory())


@pytest.mark.parametrize("vlek", [False, True], ids=["vcek", "vlek"])
@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize("product", list(Product))
def test_every_product_version_and_key_verifies(product: Product, version: int, vlek: bool) -> None:
    verified = verify(well_known(product), Report(version=version, vlek=vlek), AmdCollateral())
    claims = verified.claims.values
    assert claims["product"] == str(product)
    assert claims["version"] == version
    assert claims["signing_key"] == ("VLEK" if vlek else "VCEK")
    assert claims["measurement"] == MEASUREMENT.hex()
    assert verified.claims.report_data == DATA
    assert (claims["tcb_bl"], claims["tcb_snp"], claims["tcb_ucode"]) == (10, 23, 84)
    assert claims.get("tcb_fmc") == (1 if product is Product.TURIN else None)
    assert ("csp_id" in claims) is vlek


def test_harmless_knobs_are_read_back() -> None:
    options = Report(
        version=5, guest_svn=3, family_id=b"f" * 16, image_id=b"i" * 16, vmpl=1, platform_info=1, author_key=True,
        host_data=b"h" * 32, id_key_digest=b"k" * 48, author_key_digest=b"a" * 48, report_id=b"r" * 32,
        report_id_ma=b"m" * 32, current=Levels(snp=24), committed=Levels(snp=22), launch=Levels(snp=21),
        firmware=b"\1\2\3", launch_mit=4, current_mit=5, debug=True, conjugate_signature=True, trailing=b"rest",
    )  # fmt: skip
    verified = verify(well_known(), options, AmdCollateral())
    claims = verified.claims.values
    assert verified.claims.debug
    assert (claims["guest_svn"], claims["vmpl"], claims["author_key_en"]) == (3, 1, 1)
    assert claims["alias_check_complete"] is False
    names = {"family_id": 16, "image_id": 16, "host_data": 32, "id_key_digest": 48, "author_key_digest": 48}
    values = {"family_id": b"f", "image_id": b"i", "host_data": b"h", "id_key_digest": b"k", "author_key_digest": b"a"}
    for name, size in names.items():
        assert claims[name] == (values[name] * size).hex()
    assert (claims["report_id"], claims["report_id_ma"]) == ((b"r" * 32).hex(), (b"m" * 32).hex())
    assert [str(claims[name])[12:14] for name in ("current_tcb", "committed_tcb", "launch_tcb")] == ["18", "16", "15"]
    assert (claims["cur_ver"], claims["launch_mit"], claims["current_mit"]) == (
        "010203",
        "04" + "00" * 7,
        "05" + "00" * 7,
    )
    assert any(f.check == "snp.report.trailing" and f.outcome is Outcome.SKIP for f in verified.findings)


def test_a_masked_chip_id_is_no_identity() -> None:
    verified = verify(well_known(), Report(mask_chip_key=True), AmdCollateral())
    assert any("masked" in sentence for sentence in verified.not_proven)


def test_a_report_may_bring_its_own_chain() -> None:
    none = AmdCollateral(with_vek=False, with_ask=False, with_ark=False, with_crl=False)
    verified = verify(well_known(), Report(certificate_table=True), none)
    assert any("revocation list" in sentence for sentence in verified.not_proven)


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("unsupported_evidence", {"report": Report(version=1)}),
    ("unsupported_evidence", {"report": Report(version=6)}),
    ("unsupported_evidence", {"report": Report(signature_algorithm=2)}),
    ("unsupported_evidence", {"report": Report(signing_key=3)}),
    ("signature_invalid", {"report": Report(signing_key=7)}),
    ("chain_invalid", {"report": Report(signing_key=1)}),
    ("malformed_evidence", {"report": Report(reserved=(0x4C, 1))}),
    ("malformed_evidence", {"report": Report(reserved=(0x29F, 1))}),
    ("malformed_evidence", {"report": Report(version=2, cpuid=b"\x19\x11\x01")}),
    ("malformed_evidence", {"report": Report(launch_mit=1)}),
    ("signature_invalid", {"report": Report(altered=0x90)}),
    ("signature_invalid", {"report": Report(altered=0x2A0)}),
    ("malformed_evidence", {"report": Report(altered=0x49F)}),
    ("signature_invalid", {"report": Report(signed_by_stranger=True)}),
    ("chain_invalid", {"report": Report(reported=Levels(snp=24))}),
    ("chain_invalid", {"report": Report(chip_id=b"\x99" * 64)}),
    ("chain_invalid", {"report": Report(mask_chip_key=True, chip_id=b"\x99" * 64)}),
    ("chain_invalid", {"report": Report(cpuid=b"\x19\x01\x01")}),
    ("chain_invalid", {"report": Report(cpuid=b"\x50\x01\x01")}),
    ("signature_invalid", {"report": Report(vlek=True), "vlek": False}),
    ("endorsement_unavailable", {"collateral": AmdCollateral(with_vek=False)}),
    ("endorsement_unavailable", {"collateral": AmdCollateral(with_ask=False)}),
    ("endorsement_unavailable", {"collateral": AmdCollateral(with_ark=False)}),
    ("endorsement_stale", {"collateral": AmdCollateral(crl=EXPIRED)}),
    ("endorsement_stale", {"collateral": AmdCollateral(crl=FUTURE)}),
    ("chain_invalid", {"collateral": AmdCollateral(crl_signed_by_stranger=True)}),
    ("revoked", {"collateral": AmdCollateral(revoke_ask=True)}),
    ("certificate_expired", {"certificates": AmdCertificates(ark=PAST)}),
    ("certificate_expired", {"certificates": AmdCertificates(ask=PAST)}),
    ("certificate_expired", {"certificates": AmdCertificates(vek=PAST)}),
    ("chain_invalid", {"certificates": AmdCertificates(ask_is_ca=False)}),
    ("chain_invalid", {"certificates": AmdCertificates(ask_key_usage=False)}),
    ("chain_invalid", {"certificates": AmdCertificates(vek_signed_by_stranger=True)}),
    ("malformed_evidence", {"certificates": AmdCertificates(vek_product="Naples")}),
    ("chain_invalid", {"certificates": AmdCertificates(vek_product="Milan-B0")}),
    ("chain_invalid", {"certificates": AmdCertificates(vek_hwid=b"\x98" * 64)}),
    ("chain_invalid", {"certificates": AmdCertificates(vek_levels=Levels(ucode=85))}),
    ("endorsement_unavailable", {"certificates": AmdCertificates(vek_without_levels=True)}),
    ("endorsement_unavailable", {"certificates": AmdCertificates(vek_unknown_critical_extension=True)}),
    ("untrusted_root", {"root": "00" * 32}),
]  # fmt: skip


@pytest.mark.parametrize(("code", "turned"), REFUSED, ids=[f"{code}-{turned}"[:90] for code, turned in REFUSED])
def test_each_knob_is_refused_for_its_own_reason(code: str, turned: dict[str, Any]) -> None:
    vendor = AmdVendor(certificates=turned["certificates"]) if "certificates" in turned else well_known()
    report, collateral = turned.get("report", Report()), turned.get("collateral", AmdCollateral())
    with pytest.raises(AttestationError) as caught:
        verify(vendor, report, collateral, root=turned.get("root", ""), vlek=turned.get("vlek"))
    assert caught.value.code == code, caught.value.message


def test_every_knob_is_turned_somewhere_here() -> None:
    turned = {field.name for field in dataclasses.fields(Report)} - {"policy"}
    seen = {"version", "vlek", "certificate_table", "conjugate_signature", "debug", "trailing"}
    for options in (value for _, case in REFUSED for value in case.values() if dataclasses.is_dataclass(value)):
        good = type(options)()
        seen |= {f.name for f in dataclasses.fields(good) if getattr(good, f.name) != getattr(options, f.name)}
    harmless = {
        "guest_svn", "family_id", "image_id", "vmpl", "platform_info", "author_key", "host_data", "id_key_digest",
        "author_key_digest", "report_id", "report_id_ma", "current", "committed", "launch", "firmware", "current_mit",
    }  # fmt: skip
    assert turned - harmless <= seen
    good_certificates = {"vek_serial", "vek_hwid_wrapped", "csp_id"}
    assert {field.name for field in dataclasses.fields(AmdCertificates)} - good_certificates <= seen
    assert {field.name for field in dataclasses.fields(AmdCollateral)} - {"with_crl", "others"} <= seen


def test_the_accepted_forms_of_certificates() -> None:
    options = AmdCertificates(vek_serial=77, vek_hwid_wrapped=True, csp_id="elsewhere")
    vendor = AmdVendor(certificates=options)
    assert verify(vendor, Report(), AmdCollateral(others=0)).claims.values["vek_serial"] == "77"
    assert verify(vendor, Report(vlek=True), AmdCollateral()).claims.values["csp_id"] == "elsewhere"


def test_a_turin_chip_has_eight_bytes_of_identity() -> None:
    vendor = well_known(Product.TURIN)
    assert verify(vendor, Report(), AmdCollateral()).claims.values["chip_id"] == "0102030405060708" + "00" * 56
    with pytest.raises(AttestationError, match="zeros after 8 bytes"):
        verify(vendor, Report(chip_id=bytes(range(1, 65))), AmdCollateral())


def test_the_certificate_table_names_its_pieces() -> None:
    vendor = well_known()
    assert read_certificate_table(vendor.certificate_table()) == {
        "ARK": vendor.ark.der, "ASK": vendor.ask.der, "VCEK": vendor.vcek.der,
    }  # fmt: skip
    assert read_certificate_table(vendor.certificate_table(vlek=True))["VLEK"] == vendor.vlek.der


def test_the_key_service_answers_what_amd_would() -> None:
    vendor = well_known()
    chain = x509.load_pem_x509_certificates(vendor.kds_answer("/vcek/v1/Genoa/cert_chain", at=AT) or b"")
    assert len(chain) == 2
    chip, levels = vendor.chip.hardware_id.hex(), "blSPL=10&teeSPL=0&snpSPL=23&ucodeSPL=84"
    assert vendor.kds_answer(f"/vcek/v1/Genoa/{chip}?{levels}", at=AT) == vendor.vcek.der
    assert vendor.kds_answer("/vlek/v1/Genoa/crl", at=AT) == vendor.crl(at=AT)
    for absent in (f"/vcek/v1/Genoa/{chip}?blSPL=9", f"/vcek/v1/Milan/{chip}?{levels}", "/vcek/v1/Genoa/00", "/"):
        assert vendor.kds_answer(absent, at=AT) is None


def test_other_libraries_read_the_list_and_the_signatures() -> None:
    """An independent reader of what our own writers wrote."""
    vendor = well_known()
    crl = x509.load_der_x509_crl(vendor.crl(at=AT, options=AmdCollateral(revoke_ask=True)))
    root = x509.load_der_x509_certificate(vendor.ark.der)
    assert crl.is_signature_valid(root.public_key())  # type: ignore[arg-type]
    assert crl.get_revoked_certificate_by_serial_number(vendor.ask.serial) is not None
    ask = x509.load_der_x509_certificate(vendor.ask.der)
    ask.verify_directly_issued_by(root)
    assert isinstance(root.signature_algorithm_parameters, padding.PSS)


def test_rsa_keys_and_signatures_follow_from_the_seed() -> None:
    key = rsa.key(b"seed", "name")
    assert key.modulus.bit_length() == 2048
    public = load_der_public_key(key.spki)
    signature = rsa.sign_pss(key, b"message")
    assert signature == rsa.sign_pss(key, b"message")
    pss = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
    public.verify(signature, b"message", pss, hashes.SHA384())  # type: ignore[union-attr,call-arg,arg-type]


def test_the_remembered_steps_lead_to_the_primes_of_the_search() -> None:
    assert rsa.key(WELL_KNOWN_SEED, "tpm ak") == rsa.search(WELL_KNOWN_SEED, "tpm ak")


@pytest.mark.slow
def test_all_remembered_steps_lead_to_the_primes_of_the_search() -> None:
    for name in rsa.WELL_KNOWN_STEPS:
        assert rsa.key(WELL_KNOWN_SEED, name) == rsa.search(WELL_KNOWN_SEED, name)


def test_a_vendor_made_again_issues_the_same_bytes() -> None:
    first = (well_known().ark.der, well_known().ask.der, well_known().crl(at=AT))
    rsa.key.cache_clear()
    again = AmdVendor()
    assert (again.ark.der, again.ask.der, again.crl(at=AT)) == first


def test_unknown_vendors_differ() -> None:
    chip = Chip(product=Product.GENOA)
    assert AmdVendor.unknown(chip=chip).root_spki_sha256 != well_known().root_spki_sha256
    assert ALIAS_CHECK_COMPLETE & Report().platform_info
