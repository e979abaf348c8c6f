"""Attacks on the bytes of a quote: E6 (bytes that nothing covers), E8 (two valid forms of a signature), and what memory
must not let through (attacks.md)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from attestable_mcp.errors import (
    AttestationError,
    ChainInvalid,
    EvidenceError,
    SignatureInvalid,
    VerificationError,
)
from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind, Outcome, Tee, Verified
from attestable_mcp.simulator import options as o
from attestable_mcp.simulator.intel import Vendor
from attestable_mcp.verify.anchors import INTEL_SGX_ROOT, SIMULATED_ROOT, TrustAnchor, TrustAnchors
from attestable_mcp.verify.memory import Memory
from attestable_mcp.verify.table import verify

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
VENDOR = Vendor(seed=b"quotes")
TEES = pytest.mark.parametrize("tee", [Tee.SGX, Tee.TDX])
ANCHORS = TrustAnchors(intel=(TrustAnchor(name="test", spki_sha256=VENDOR.root_spki_sha256),))


def quote_of(tee: Tee, options: o.Quote | None = None, vendor: Vendor = VENDOR) -> bytes:
    options = options or o.Quote()
    if tee is Tee.TDX:
        return vendor.quote_tdx(bytes(range(64)), options=options)
    return vendor.quote_sgx(bytes(range(64)), bytes(32), options=options)


def judge(
    quote: bytes, endorsements: Endorsements, memory: Memory, *, anchors: TrustAnchors = ANCHORS, at: datetime = AT
) -> Verified:
    evidence = Evidence(kind=EvidenceKind.INTEL_QUOTE, body=quote)
    return verify(evidence, endorsements, anchors=anchors, at=at, memory=memory)


@TEES
def test_e6_every_flipped_byte_is_refused_or_changes_nothing(tee: Tee) -> None:
    """Under a memory that has just accepted the good quote, which is the lenient case.

    The certificates are read alike for both kinds, each of which has every other of their bytes flipped.
    """
    good, bag, memory = quote_of(tee), VENDOR.collateral(at=AT, tee=tee), Memory()
    reference = judge(good, bag, memory)
    chain = good.index(b"-----BEGIN")
    refused = 0
    for position in (*range(chain), *range(chain + (tee is Tee.TDX), len(good), 2)):
        flipped = bytearray(good)
        flipped[position] ^= 0x80 if position % 3 else 0x01
        try:
            seen = judge(bytes(flipped), bag, memory)
        except (EvidenceError, VerificationError):
            refused += 1
            continue
        assert position >= chain, position
        assert dict(seen.claims.values) == dict(reference.claims.values)
        assert seen.signed_digest == reference.signed_digest
    assert refused >= chain
    assert judge(good, bag, memory).signed_digest == reference.signed_digest


@TEES
def test_e6_every_truncation_is_malformed_and_says_where(tee: Tee) -> None:
    good, bag, memory = quote_of(tee), VENDOR.collateral(at=AT, tee=tee), Memory()
    for size in range(len(good)):
        with pytest.raises(EvidenceError) as caught:
            judge(good[:size], bag, memory)
        offset = getattr(caught.value, "offset", None)
        assert offset is not None
        assert 0 <= offset <= len(good)


@TEES
@pytest.mark.parametrize("tail", [b"\1", bytes(100) + b"x", b"\n"])
def test_e6_bytes_after_the_quote_are_refused_unless_zero(tee: Tee, tail: bytes) -> None:
    good, bag, memory = quote_of(tee), VENDOR.collateral(at=AT, tee=tee), Memory()
    with pytest.raises(EvidenceError):
        judge(good + tail, bag, memory)
    padded = judge(good + bytes(len(tail)), bag, memory)
    assert padded.claims.values["trailing_bytes_after_quote"] == len(tail)
    assert any(finding.check == "intel.quote.trailing" for finding in padded.findings)


def test_e6_slack_inside_the_signature_data_is_refused() -> None:
    good, bag = bytearray(quote_of(Tee.SGX)), VENDOR.collateral(at=AT)
    at = 48 + 384
    size = int.from_bytes(good[at : at + 4], "little")
    good[at : at + 4] = (size + 8).to_bytes(4, "little")
    with pytest.raises(EvidenceError, match="left over"):
        judge(bytes(good + bytes(8)), bag, Memory())


@TEES
def test_e8_conjugate_signatures_get_the_same_verdict_and_the_same_memory(tee: Tee) -> None:
    plain, twin = quote_of(tee), quote_of(tee, o.Quote(conjugate_signatures=True))
    assert plain != twin
    bag, memory = VENDOR.collateral(at=AT, tee=tee), Memory()
    first = judge(plain, bag, memory)
    entries = len(memory)
    second = judge(twin, bag, memory)
    assert len(memory) == entries
    assert first.signed_digest == second.signed_digest
    assert first.evidence_digest != second.evidence_digest
    assert first.findings == second.findings
    assert dict(first.claims.values) == dict(second.claims.values)


@TEES
@pytest.mark.parametrize("fault", ["bad_isv_signature", "bad_qe_signature"])
def test_e8_a_bad_signature_over_a_known_body_is_refused_after_the_good_one(tee: Tee, fault: str) -> None:
    bag, memory = VENDOR.collateral(at=AT, tee=tee), Memory()
    judge(quote_of(tee), bag, memory)
    with pytest.raises(SignatureInvalid):
        judge(quote_of(tee, o.Quote(**{fault: True})), bag, memory)


@TEES
@pytest.mark.parametrize("fault", ["bad_isv_signature", "bad_qe_signature"])
def test_e1_a_forgery_is_refused_even_where_collateral_is_missing(tee: Tee, fault: str) -> None:
    """Unavailable invites another try; a forgery must not look like one."""
    with pytest.raises(SignatureInvalid):
        judge(quote_of(tee, o.Quote(**{fault: True})), Endorsements(), Memory())
    broken = Vendor(seed=b"quotes", certificates=o.Certificates(pck_signed_by_stranger=True))
    with pytest.raises(ChainInvalid):
        judge(quote_of(tee, vendor=broken), Endorsements(), Memory())
    with pytest.raises(ChainInvalid):
        judge(quote_of(tee, vendor=Vendor.unknown()), Endorsements(), Memory())
    with pytest.raises(ChainInvalid) as caught:
        judge(quote_of(tee, o.Quote(chain_order=("pck", "root"))), Endorsements(), Memory())
    assert caught.value.code == "chain_broken"


@TEES
def test_e1_nothing_is_believed_under_other_anchors_than_it_was_proven_under(tee: Tee) -> None:
    quote, bag, memory = quote_of(tee), VENDOR.collateral(at=AT, tee=tee), Memory()
    judge(quote, bag, memory)
    for anchors in (TrustAnchors(), TrustAnchors(intel=()), TrustAnchors(intel=(INTEL_SGX_ROOT, SIMULATED_ROOT))):
        with pytest.raises(ChainInvalid):
            judge(quote, bag, memory, anchors=anchors)


@TEES
def test_p5_a_revocation_reaches_a_verifier_that_remembers(tee: Tee) -> None:
    """New collateral is another digest: what was remembered of the older list does not answer for it."""
    quote, memory = quote_of(tee), Memory()
    judge(quote, VENDOR.collateral(at=AT, tee=tee), memory)
    revoking = VENDOR.collateral(at=AT, tee=tee, options=o.Collateral(crls=o.Crls(revoke_pck=True)))
    with pytest.raises(VerificationError) as caught:
        judge(quote, revoking, memory)
    assert caught.value.code == "revoked"


@TEES
def test_p5_what_is_remembered_expires(tee: Tee) -> None:
    quote, bag, memory = quote_of(tee), VENDOR.collateral(at=AT, tee=tee), Memory()
    verified = judge(quote, bag, memory)
    judge(quote, bag, memory, at=verified.valid_until - timedelta(seconds=1))
    for at in (verified.valid_until, AT - timedelta(days=2)):
        with pytest.raises(VerificationError) as caught:
            judge(quote, bag, memory, at=at)
        assert caught.value.code == "endorsement_stale"


@TEES
def test_e1_remembered_and_fresh_verification_tell_the_same(tee: Tee) -> None:
    quote, bag, memory = quote_of(tee), VENDOR.collateral(at=AT, tee=tee), Memory()
    cold, warm = judge(quote, bag, memory), judge(quote, bag, memory)
    assert cold.findings == warm.findings
    assert (cold.valid_until, cold.anchor, cold.not_proven) == (warm.valid_until, warm.anchor, warm.not_proven)
    assert all(finding.outcome is Outcome.PASS for finding in warm.findings)


def test_e1_simulated_evidence_is_named_where_its_root_is_not_trusted() -> None:
    known = Vendor()
    for anchors in (TrustAnchors(), ANCHORS):
        with pytest.raises(AttestationError) as caught:
            judge(quote_of(Tee.SGX, vendor=known), known.collateral(at=AT), Memory(), anchors=anchors)
        assert caught.value.code == "simulated_evidence"
    accepted = judge(
        quote_of(Tee.SGX, vendor=known),
        known.collateral(at=AT),
        Memory(),
        anchors=TrustAnchors(intel=(SIMULATED_ROOT,)),
    )
    assert accepted.simulated


def test_e1_a_simulated_root_under_another_name_of_anchor_stays_simulated() -> None:
    """An operator who pins a simulated root as `theirs` still gets evidence that says what it is."""
    assert not ANCHORS.intel[0].simulated
    assert judge(quote_of(Tee.SGX), VENDOR.collateral(at=AT), Memory()).simulated
