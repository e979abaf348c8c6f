"""Attacks on collateral and on the quoting enclave: E1, E2, E3, the stale part of P4, and P5 (attacks.md)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from attestable_mcp.errors import (
    AttestationError,
    ChainInvalid,
    EndorsementStale,
    EndorsementUnavailable,
    EvidenceError,
    Revoked,
    SignatureInvalid,
    VerificationError,
)
from attestable_mcp.rats import Endorsements, Outcome, Tee, Verified
from attestable_mcp.simulator import options as o
from attestable_mcp.simulator.intel import Vendor
from attestable_mcp.verify.anchors import TrustAnchor, TrustAnchors
from attestable_mcp.verify.intel import verify
from attestable_mcp.verify.memory import Memory
from attestable_mcp.wire.intel import read_quote

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
VENDOR = Vendor(seed=b"attacked")
MODULE_1 = o.Platform(tdx_components=(5, 1, 8, *([0] * 13)))
STATUSES = [status for status in o.TcbStatus if status is not o.TcbStatus.REVOKED]
TEES = pytest.mark.parametrize("tee", [Tee.SGX, Tee.TDX])


def judge(quote: bytes, endorsements: Endorsements, *, vendor: Vendor = VENDOR, at: datetime = AT) -> Verified:
    anchor = TrustAnchor(name="test", spki_sha256=vendor.root_spki_sha256, simulated=True, replaced=True)
    return verify(read_quote(quote), endorsements, anchors=TrustAnchors(intel=(anchor,)), at=at, memory=Memory())


def quote_of(tee: Tee, options: o.Quote | None = None, vendor: Vendor = VENDOR) -> bytes:
    if tee is Tee.TDX:
        return vendor.quote_tdx(bytes(64), options=options or o.Quote())
    return vendor.quote_sgx(bytes(64), bytes(32), options=options or o.Quote())


def attempt(
    tee: Tee, collateral: o.Collateral | None = None, *, quote: o.Quote | None = None, vendor: Vendor = VENDOR
) -> Verified:
    endorsements = vendor.collateral(at=AT, tee=tee, options=collateral or o.Collateral())
    return judge(quote_of(tee, quote, vendor), endorsements, vendor=vendor)


def refused(
    kind: type[AttestationError], tee: Tee, collateral: o.Collateral | None = None, **rest: object
) -> AttestationError:
    with pytest.raises(kind) as caught:
        attempt(tee, collateral, **rest)  # type: ignore[arg-type]
    findings = getattr(caught.value, "findings", ())
    assert not findings or findings[-1].outcome is Outcome.FAIL
    return caught.value


@TEES
def test_untouched_pairs_are_good(tee: Tee) -> None:
    """Without this, every refusal below could have another cause."""
    assert attempt(tee).claims.tcb_status == "UpToDate"


# --- E1: the QE identity is signed and compared in full ---------------------------------------------------------------


@TEES
@pytest.mark.parametrize("forgery", [{"signer": o.Signer.STRANGER}, {"tampered": True}], ids=["signed anew", "edited"])
def test_e1_forged_qe_identity_is_refused(tee: Tee, forgery: dict[str, object]) -> None:
    identity = o.QeIdentity(**forgery)  # type: ignore[arg-type]
    refused(SignatureInvalid, tee, o.Collateral(qe_identity=identity))


@TEES
def test_e1_forged_qe_with_its_own_forged_identity_is_refused(tee: Tee) -> None:
    """The published attack: an enclave of the attacker poses as QE and brings an identity document that fits it."""
    theirs = bytes.fromhex("66") * 32
    identity = o.QeIdentity(mrsigner=theirs, signer=o.Signer.STRANGER)
    quote = o.Quote(qe=o.QuotingEnclave(mrsigner=theirs))
    refused(SignatureInvalid, tee, o.Collateral(qe_identity=identity), quote=quote)


@TEES
@pytest.mark.parametrize("signer", [o.Signer.PCK_LEAF, o.Signer.PCK_CA, o.Signer.OTHER_NAME])
@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
def test_e1_documents_signed_by_another_certificate_of_the_root_are_refused(
    tee: Tee, signer: o.Signer, document: str
) -> None:
    options = o.TcbInfo(signer=signer) if document == "tcb_info" else o.QeIdentity(signer=signer)
    refused(VerificationError, tee, replace(o.Collateral(), **{document: options}))


QE_FAULTS = {
    "mrsigner": o.QuotingEnclave(mrsigner=bytes.fromhex("66") * 32),
    "isvprodid": o.QuotingEnclave(isvprodid=77),
    "miscselect": o.QuotingEnclave(miscselect=b"\1\0\0\0"),
    "debug attribute": o.QuotingEnclave(attributes=bytes.fromhex("1700000000000000e700000000000000")),
    "provision-key attribute clear": o.QuotingEnclave(attributes=bytes.fromhex("0500000000000000e700000000000000")),
    "last attribute under the mask": o.QuotingEnclave(attributes=bytes.fromhex("1500000000000080e700000000000000")),
}


@TEES
@pytest.mark.parametrize("fault", QE_FAULTS)
def test_e1_qe_that_is_not_the_identitys_is_refused(tee: Tee, fault: str) -> None:
    refused(VerificationError, tee, quote=o.Quote(qe=QE_FAULTS[fault]))


@TEES
def test_e1_mask_is_applied_and_only_the_mask(tee: Tee) -> None:
    """Bits outside the mask (INIT, XFRM) may differ; with a full mask the very same QE is refused."""
    assert attempt(tee, quote=o.Quote(qe=o.QuotingEnclave(attributes=bytes.fromhex("11" + "00" * 7 + "ff" * 8))))
    refused(VerificationError, tee, o.Collateral(qe_identity=o.QeIdentity(attributes_mask=b"\xff" * 16)))


@TEES
def test_e1_mask_that_hides_a_demanded_bit_makes_no_qe_fit(tee: Tee) -> None:
    """An identity that demands bits outside its own mask must not be read as demanding less."""
    identity = o.QeIdentity(attributes=bytes.fromhex("11" + "00" * 15), attributes_mask=bytes.fromhex("ef" + "00" * 15))
    odd = o.Collateral(qe_identity=identity)
    quote = o.Quote(qe=o.QuotingEnclave(attributes=bytes.fromhex("05" + "00" * 15)))
    refused(VerificationError, tee, odd, quote=quote)


@pytest.mark.parametrize(("tee", "other"), [(Tee.SGX, Tee.TDX), (Tee.TDX, Tee.SGX)])
def test_e1_identity_of_the_other_qe_is_refused(tee: Tee, other: Tee) -> None:
    """A TDX quote judged by /sgx/ documents would lose its TDX checks, and the other way round."""
    own, foreign = (VENDOR.collateral(at=AT, tee=kind) for kind in (tee, other))
    mixed = replace(own, documents=(own.documents[0], foreign.documents[1]))
    for endorsements in (foreign, mixed):
        with pytest.raises(AttestationError):
            judge(quote_of(tee), endorsements)


QUOTE_FAULTS = {
    "attestation key that the QE does not name": (
        o.Quote(qe=o.QuotingEnclave(report_data=bytes(64))),
        VerificationError,
    ),
    "bad QE signature": (o.Quote(bad_qe_signature=True), SignatureInvalid),
    "QE signed by a stranger": (o.Quote(qe=o.QuotingEnclave(signed_by_stranger=True)), SignatureInvalid),
    "bad ISV signature": (o.Quote(bad_isv_signature=True), SignatureInvalid),
}


@TEES
@pytest.mark.parametrize("fault", QUOTE_FAULTS)
def test_e1_broken_link_from_pck_to_report_is_refused(tee: Tee, fault: str) -> None:
    quote, kind = QUOTE_FAULTS[fault]
    refused(kind, tee, quote=quote)


@TEES
def test_e1_high_bytes_of_the_qe_report_data_must_be_zero(tee: Tee) -> None:
    """SHA-256 fills 32 of 64 bytes; what stands in the rest would be signed by the PCK and checked by nobody."""
    good = quote_of(tee)
    start = good.index(b"-----BEGIN") - 6 - 34 - 64 - 64
    commitment = good[start : start + 32]
    assert good[start + 32 : start + 64] == bytes(32)
    refused(VerificationError, tee, quote=o.Quote(qe=o.QuotingEnclave(report_data=commitment + b"\1" * 32)))


# --- E2: vendor id and component counts -------------------------------------------------------------------------------


@TEES
@pytest.mark.parametrize("vendor_id", [bytes(16), b"\xff" * 16, o.INTEL_QE_VENDOR_ID[::-1]])
def test_e2_unknown_qe_vendor_is_refused(tee: Tee, vendor_id: bytes) -> None:
    refused(AttestationError, tee, quote=o.Quote(qe_vendor_id=vendor_id))


@TEES
@pytest.mark.parametrize("count", [0, 1, 15, 17])
def test_e2_any_count_but_16_sgx_components_is_refused(tee: Tee, count: int) -> None:
    refused(AttestationError, tee, o.Collateral(tcb_info=o.TcbInfo(component_count=count)))


@pytest.mark.parametrize("count", [0, 1, 15, 17])
def test_e2_any_count_but_16_tdx_components_is_refused(count: int) -> None:
    refused(AttestationError, Tee.TDX, o.Collateral(tcb_info=o.TcbInfo(tdx_component_count=count)))


@TEES
@pytest.mark.parametrize("count", [0, 15, 17])
def test_e2_any_count_but_16_components_in_the_pck_is_refused(tee: Tee, count: int) -> None:
    vendor = Vendor(seed=b"attacked", certificates=o.Certificates(pck_components=count))
    refused(AttestationError, tee, vendor=vendor)


def test_e2_each_tdx_component_counts() -> None:
    """One component below the level, wherever it stands, and the level is not reached."""
    level = o.Level(components=(0,) * 16, pcesvn=0, tdx=(3, 0, *([3] * 14)))
    collateral = o.Collateral(tcb_info=o.TcbInfo(levels=(level,)))
    for position in (0, *range(2, 16)):
        svns = [3, 0, *([3] * 14)]
        assert attempt_svn(collateral, svns).claims.tcb_status == "UpToDate"
        svns[position] = 2
        with pytest.raises(AttestationError):
            attempt_svn(collateral, svns)


def attempt_svn(collateral: o.Collateral, svns: list[int]) -> Verified:
    quote = VENDOR.quote_tdx(bytes(64), body=o.TdxBody(tee_tcb_svn=bytes(svns)))
    return judge(quote, VENDOR.collateral(at=AT, tee=Tee.TDX, options=collateral))


@TEES
@pytest.mark.parametrize("which", ["fmspc", "pceid"])
def test_e2_tcb_info_of_another_platform_is_refused(tee: Tee, which: str) -> None:
    tcb = o.TcbInfo(fmspc=bytes(6)) if which == "fmspc" else o.TcbInfo(pceid=b"\1\0")
    refused(AttestationError, tee, o.Collateral(tcb_info=tcb))


# --- E3: seven statuses, of which Revoked is never a success ----------------------------------------------------------

WHERE: dict[str, tuple[Tee, Callable[[str], o.Collateral]]] = {
    "sgx platform": (Tee.SGX, lambda status: o.Collateral(tcb_info=o.TcbInfo(status=status, advisories=("A-1",)))),
    "tdx platform": (Tee.TDX, lambda status: o.Collateral(tcb_info=o.TcbInfo(status=status, advisories=("A-1",)))),
    "sgx qe": (Tee.SGX, lambda status: o.Collateral(qe_identity=o.QeIdentity(status=status, advisories=("A-1",)))),
    "tdx qe": (Tee.TDX, lambda status: o.Collateral(qe_identity=o.QeIdentity(status=status, advisories=("A-1",)))),
    "tdx module": (
        Tee.TDX,
        lambda status: o.Collateral(tcb_info=o.TcbInfo(module_status=status, module_advisories=("A-1",))),
    ),
}
E3_VENDOR = Vendor(seed=b"attacked", platform=MODULE_1)


@pytest.mark.parametrize("where", ["sgx platform", "tdx platform"])
@pytest.mark.parametrize("status", STATUSES)
def test_e3_platform_status_is_reported_as_it_is(where: str, status: o.TcbStatus) -> None:
    tee, collateral = WHERE[where]
    claims = attempt(tee, collateral(status), vendor=E3_VENDOR).claims
    assert (claims.tcb_status, claims.advisories) == (status.value, ("A-1",))


@pytest.mark.parametrize("where", ["sgx qe", "tdx qe", "tdx module"])
def test_e3_outdated_qe_or_module_makes_an_up_to_date_platform_out_of_date(where: str) -> None:
    tee, collateral = WHERE[where]
    claims = attempt(tee, collateral(o.TcbStatus.OUT_OF_DATE), vendor=E3_VENDOR).claims
    assert (claims.tcb_status, claims.advisories) == ("OutOfDate", ("A-1",))


@pytest.mark.parametrize("where", ["sgx qe", "tdx qe", "tdx module"])
@pytest.mark.parametrize("status", [status for status in STATUSES if status is not o.TcbStatus.UP_TO_DATE])
def test_e3_no_worse_word_for_qe_or_module_ever_ends_up_to_date(where: str, status: o.TcbStatus) -> None:
    """Intel uses three of the words there. Any other must at least not vanish."""
    tee, collateral = WHERE[where]
    try:
        seen = attempt(tee, collateral(status), vendor=E3_VENDOR).claims.tcb_status
    except VerificationError:
        return
    assert seen != "UpToDate"


@pytest.mark.parametrize("where", WHERE)
def test_e3_revoked_is_fatal_wherever_it_stands(where: str) -> None:
    tee, collateral = WHERE[where]
    refused(Revoked, tee, collateral(o.TcbStatus.REVOKED), vendor=E3_VENDOR)


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("status", ["", "Fine", "uptodate", "UpToDate "])
def test_e3_unknown_words_are_refused(where: str, status: str) -> None:
    tee, collateral = WHERE[where]
    refused(AttestationError, tee, collateral(status), vendor=E3_VENDOR)


@TEES
@pytest.mark.parametrize("options", [{"below_all_levels": True}, {"levels": ()}], ids=["below all", "no levels"])
def test_e3_platform_that_reaches_no_level_is_refused(tee: Tee, options: dict[str, object]) -> None:
    refused(VerificationError, tee, o.Collateral(tcb_info=o.TcbInfo(**options)))  # type: ignore[arg-type]


# --- P4 (the part that needs no memory): documents outside their validity ---------------------------------------------


@TEES
@pytest.mark.parametrize("document", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize("span", [o.EXPIRED, o.FUTURE], ids=["expired", "of the future"])
def test_p4_document_outside_its_validity_is_refused(tee: Tee, document: str, span: o.Span) -> None:
    options = o.TcbInfo(span=span) if document == "tcb_info" else o.QeIdentity(span=span)
    refused(EndorsementStale, tee, replace(o.Collateral(), **{document: options}))


@TEES
@pytest.mark.parametrize("which", ["root", "pck"])
@pytest.mark.parametrize("span", [o.EXPIRED, o.FUTURE], ids=["expired", "of the future"])
def test_p4_crl_outside_its_validity_is_refused(tee: Tee, which: str, span: o.Span) -> None:
    crls = o.Crls(root=span) if which == "root" else o.Crls(pck=span)
    refused(EndorsementStale, tee, o.Collateral(crls=crls))


@TEES
def test_p4_good_collateral_goes_stale_with_the_clock(tee: Tee) -> None:
    endorsements, quote = VENDOR.collateral(at=AT, tee=tee), quote_of(tee)
    last = AT + o.CURRENT.expires
    assert judge(quote, endorsements, at=last - timedelta(seconds=1)).valid_until <= last
    for at in (last + timedelta(seconds=1), AT + timedelta(days=400), AT + o.CURRENT.issued - timedelta(seconds=1)):
        with pytest.raises(EndorsementStale):
            judge(quote, endorsements, at=at)


@TEES
def test_p4_evaluation_number_reaches_the_claims(tee: Tee) -> None:
    """A policy's floor compares this: the same quote under older, validly signed TCB info shows its lower number."""
    for number in (17, 21):
        collateral = o.Collateral(
            tcb_info=o.TcbInfo(evaluation_number=number), qe_identity=o.QeIdentity(evaluation_number=number)
        )
        assert attempt(tee, collateral).claims.tcb_evaluation_data_number == number


# --- P5: revocation is demanded and believed --------------------------------------------------------------------------


@TEES
@pytest.mark.parametrize("who", ["revoke_pck", "revoke_pck_ca", "revoke_tcb_signing"])
def test_p5_revoked_certificate_is_refused(tee: Tee, who: str) -> None:
    refused(Revoked, tee, o.Collateral(crls=o.Crls(**{who: True})))


@TEES
@pytest.mark.parametrize("which", ["with_root", "with_pck"])
def test_p5_missing_crl_makes_the_answer_unavailable(tee: Tee, which: str) -> None:
    refused(EndorsementUnavailable, tee, o.Collateral(crls=o.Crls(**{which: False})))


@TEES
@pytest.mark.parametrize("which", ["with_tcb_info", "with_qe_identity"])
def test_p5_missing_document_makes_the_answer_unavailable(tee: Tee, which: str) -> None:
    refused(EndorsementUnavailable, tee, replace(o.Collateral(), **{which: False}))


@TEES
@pytest.mark.parametrize("which", ["root_signed_by_stranger", "pck_signed_by_stranger"])
def test_p5_forged_crl_is_refused(tee: Tee, which: str) -> None:
    refused(VerificationError, tee, o.Collateral(crls=o.Crls(**{which: True})))


@TEES
def test_p5_crl_of_another_issuer_does_not_stand_in(tee: Tee) -> None:
    refused(AttestationError, tee, o.Collateral(crls=o.Crls(pck_issued_by_root=True)))


@TEES
def test_p5_crl_of_another_root_does_not_stand_in(tee: Tee) -> None:
    stranger = Vendor.unknown().collateral(at=AT, tee=tee)
    endorsements = replace(VENDOR.collateral(at=AT, tee=tee), crls=stranger.crls)
    with pytest.raises(AttestationError):
        judge(quote_of(tee), endorsements)


@TEES
def test_p5_an_older_crl_beside_the_revoking_one_does_not_help(tee: Tee) -> None:
    """Both lists are signed and in force: whoever supplies collateral must not pick the one that forgives."""
    clean = VENDOR.collateral(at=AT, tee=tee)
    options = o.Collateral(crls=o.Crls(revoke_pck=True, pck=o.Span(issued=timedelta(hours=-1))))
    revoking = VENDOR.collateral(at=AT, tee=tee, options=options)
    for crls in (clean.crls + revoking.crls, revoking.crls + clean.crls):
        with pytest.raises(Revoked):
            judge(quote_of(tee), replace(clean, crls=crls))


CERTIFICATE_FAULTS = {
    "pck expired": o.Certificates(pck=o.Validity(not_after=datetime(2021, 1, 1, tzinfo=UTC))),
    "pck of the future": o.Certificates(pck=o.Validity(not_before=datetime(2030, 1, 1, tzinfo=UTC))),
    "pck ca expired": o.Certificates(pck_ca=o.Validity(not_after=datetime(2021, 1, 1, tzinfo=UTC))),
    "tcb signer expired": o.Certificates(tcb_signing=o.Validity(not_after=datetime(2021, 1, 1, tzinfo=UTC))),
    "pck ca is no ca": o.Certificates(pck_ca_is_ca=False),
    "pck ca may not sign": o.Certificates(pck_ca_key_usage=False),
    "pck signed by a stranger": o.Certificates(pck_signed_by_stranger=True),
    "unknown critical extension": o.Certificates(pck_unknown_critical_extension=True),
    "no sgx extension": o.Certificates(pck_sgx_extension=False),
    "fmspc twice": o.Certificates(pck_fmspc_twice=True),
}


@TEES
@pytest.mark.parametrize("fault", CERTIFICATE_FAULTS)
def test_p5_broken_chain_is_refused(tee: Tee, fault: str) -> None:
    vendor = Vendor(seed=b"attacked", certificates=CERTIFICATE_FAULTS[fault])
    error = refused(AttestationError, tee, vendor=vendor)
    assert isinstance(error, VerificationError | EvidenceError), error


@TEES
def test_p5_everything_good_under_another_root_is_refused(tee: Tee) -> None:
    stranger = Vendor.unknown()
    with pytest.raises(ChainInvalid):
        judge(quote_of(tee, vendor=stranger), stranger.collateral(at=AT, tee=tee))
