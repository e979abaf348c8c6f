"""What verification of an Intel quote says: which checks, what is missing, which of several pieces it believes."""

from __future__ import annotations

import warnings
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from attestable_mcp.errors import EndorsementUnavailable, SignatureInvalid, VerificationError
from attestable_mcp.rats import Endorsements, Tee, Verified
from attestable_mcp.simulator import options as o
from attestable_mcp.simulator.intel import Vendor, evidence, well_known
from attestable_mcp.verify import intel, table
from attestable_mcp.verify.anchors import TrustAnchor, TrustAnchors
from attestable_mcp.verify.memory import Memory
from attestable_mcp.verify.x509 import read_certificate
from attestable_mcp.wire.intel import read_quote

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
VENDOR = Vendor(seed=b"unit")
ANCHORS = TrustAnchors(intel=(TrustAnchor(name="test", spki_sha256=VENDOR.root_spki_sha256),))
SGX = VENDOR.quote_sgx(bytes(64), bytes(32))
GOOD = VENDOR.collateral(at=AT)

ALWAYS = {
    "intel.quote.qe_vendor", "intel.quote.signature", "intel.qe.attestation_key_hash", "intel.qe.report_signature",
    "intel.pck.chain", "intel.pck.crl", "intel.root.crl", "intel.tcb_info.signer", "intel.tcb_info.signature",
    "intel.tcb_info.validity", "intel.qe_identity.signer", "intel.qe_identity.signature", "intel.qe_identity.validity",
    "intel.qe.identity", "intel.tcb.platform", "intel.tcb.status",
}  # fmt: skip


def judge(quote: bytes = SGX, endorsements: Endorsements = GOOD, at: datetime = AT) -> Verified:
    return table.verify(evidence(quote), endorsements, anchors=ANCHORS, at=at, memory=Memory())


def test_every_check_is_named_once() -> None:
    checks = [finding.check for finding in judge().findings]
    assert set(checks) >= ALWAYS
    assert len(checks) == len(set(checks))
    tdx = judge(VENDOR.quote_tdx(bytes(64)), VENDOR.collateral(at=AT, tee=Tee.TDX))
    assert {finding.check for finding in tdx.findings} >= ALWAYS | {"intel.tdx.module_identity"}


def test_claims_say_what_the_quote_and_the_pck_say() -> None:
    values = judge().claims.values
    platform = VENDOR.platform
    assert values["fmspc"] == platform.fmspc.hex()
    assert values["ppid"] == platform.ppid.hex()
    assert values["piid"] == platform.platform_instance_id.hex()
    assert (values["pck_ca"], values["pck_cpusvn"]) == ("platform", platform.cpusvn.hex())
    assert dict(values) == intel.describe(read_quote(SGX)) | {"tcb_evaluation_data_number": 18}


@pytest.mark.parametrize(
    ("lacking", "named"),
    [
        (replace(GOOD, documents=GOOD.documents[1:]), "TCB info (https://api.trustedservices.intel.com/sgx/certification/v4/tcb?fmspc="),
        (replace(GOOD, documents=GOOD.documents[:1]), "QE identity"),
        (replace(GOOD, crls=GOOD.crls[:1]), "CRL"),
        (replace(GOOD, crls=()), "PCK CRL (https://api.trustedservices.intel.com/sgx/certification/v4/pckcrl?ca=platform"),
        (Endorsements(), "root CA CRL"),
    ],
)  # fmt: skip
def test_missing_pieces_are_named_with_their_place(lacking: Endorsements, named: str) -> None:
    with pytest.raises(EndorsementUnavailable) as caught:
        judge(endorsements=lacking)
    assert named in caught.value.message
    assert "--endorsements" in caught.value.hint


def test_type_3_needs_a_pck_in_the_collateral_and_takes_the_right_one() -> None:
    quote = VENDOR.quote_sgx(bytes(64), bytes(32), options=o.Quote(certification_type=3))
    with pytest.raises(EndorsementUnavailable, match="encrypted PPID"):
        judge(quote)
    with pytest.raises(EndorsementUnavailable):
        table.query(evidence(quote))
    complete = VENDOR.collateral(at=AT, options=o.Collateral(with_pck_chain=True))
    assert judge(quote, complete).claims.values["certification_data_type"] == 3
    other = Vendor(seed=b"unit", platform=o.Platform(ppid=bytes(16)))
    theirs = other.collateral(at=AT, options=o.Collateral(with_pck_chain=True))
    assert judge(quote, theirs + complete).claims.values["ppid"] == VENDOR.platform.ppid.hex()
    with pytest.raises(SignatureInvalid):
        judge(quote, theirs)


@pytest.mark.parametrize("ca", ["platform", "processor"])
@pytest.mark.parametrize("tee", [Tee.SGX, Tee.TDX])
def test_the_query_says_what_to_ask_for(ca: str, tee: Tee) -> None:
    vendor = Vendor(seed=b"unit", platform=o.Platform(pck_ca=ca))
    quote = vendor.quote_sgx(bytes(64), bytes(32)) if tee is Tee.SGX else vendor.quote_tdx(bytes(64))
    query = table.query(evidence(quote))
    assert query.tee is tee
    assert dict(query.parameters) == {"fmspc": vendor.platform.fmspc.hex(), "pck_ca": ca}


def test_of_several_documents_the_newest_that_proves_is_believed() -> None:
    older = VENDOR.collateral(at=AT, options=o.Collateral(tcb_info=o.TcbInfo(evaluation_number=17)))
    status = o.TcbStatus.OUT_OF_DATE
    newer = VENDOR.collateral(at=AT, options=o.Collateral(tcb_info=o.TcbInfo(evaluation_number=19, status=status)))
    forged = o.TcbInfo(evaluation_number=99, signer=o.Signer.STRANGER)
    junk = VENDOR.collateral(at=AT, options=o.Collateral(tcb_info=forged))
    for bag in (older + newer + junk, junk + newer + older):
        claims = judge(endorsements=bag).claims
        assert (claims.tcb_evaluation_data_number, claims.tcb_status) == (19, "OutOfDate")
    with pytest.raises(SignatureInvalid):
        judge(endorsements=replace(junk, documents=(junk.documents[0], GOOD.documents[1])))


def test_documents_for_other_platforms_beside_the_right_ones_do_not_disturb() -> None:
    other = Vendor(seed=b"unit", platform=o.Platform(fmspc=bytes(6)))
    bag = other.collateral(at=AT) + VENDOR.collateral(at=AT, tee=Tee.TDX) + GOOD
    assert judge(endorsements=bag).claims.values["fmspc"] == VENDOR.platform.fmspc.hex()
    with pytest.raises(VerificationError) as caught:
        judge(endorsements=replace(other.collateral(at=AT), documents=other.collateral(at=AT).documents))
    assert caught.value.code == "tcb_info_mismatch"


def test_the_signer_may_come_beside_the_documents() -> None:
    """A PCS answer saved to a file has lost the header with its chain."""
    bare = tuple(replace(document, issuer_chain=()) for document in GOOD.documents)
    with pytest.raises(EndorsementUnavailable, match="signer"):
        judge(endorsements=replace(GOOD, documents=bare))
    chain = GOOD.documents[0].issuer_chain
    assert judge(endorsements=replace(GOOD, documents=bare, certificates=chain)).claims.tcb_status == "UpToDate"


@pytest.mark.parametrize("order", [("pck", "ca", "root"), ("root", "pck", "ca"), ("ca", "root", "pck"), ("pck", "ca")])
def test_the_order_of_the_chain_is_free_and_the_root_may_be_absent(order: tuple[str, ...]) -> None:
    assert judge(VENDOR.quote_sgx(bytes(64), bytes(32), options=o.Quote(chain_order=order)))


def test_the_proof_ends_with_its_first_piece_to_expire() -> None:
    spans = o.Collateral(crls=o.Crls(pck=o.Span(expires=timedelta(hours=3))))
    assert judge(endorsements=VENDOR.collateral(at=AT, options=spans)).valid_until == AT + timedelta(hours=3)


def test_a_time_without_zone_is_a_programmers_mistake() -> None:
    with pytest.raises(TypeError):
        judge(at=AT.replace(tzinfo=None))


def test_what_is_not_proven_is_said() -> None:
    words = " ".join(judge().not_proven)
    assert "no time" in words
    assert "physical" in words
    bound = VENDOR.quote_tdx(bytes(64), body=o.TdxBody(td15=True, mrservicetd=b"s" * 48), options=o.Quote(version=5))
    said = " ".join(judge(bound, VENDOR.collateral(at=AT, tee=Tee.TDX)).not_proven)
    assert "event log" in said
    assert "mr_service_td" in said


def test_a_certificate_with_odd_names_is_read_without_a_word_on_stderr() -> None:
    """`cryptography` warns of a country of 28 letters; a peer must not write on our stderr."""
    odd = well_known().root_der.replace(bytes.fromhex("060355040a"), bytes.fromhex("0603550406"))
    assert odd != well_known().root_der
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = read_certificate(odd)
        assert read.common_name == read_certificate(well_known().root_der).common_name != ""
