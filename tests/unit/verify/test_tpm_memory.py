"""What is remembered of attestation keys: the same certificates and lists, in the time in which they hold, no more."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from attestable_mcp.errors import AttestationError, EndorsementStale, EndorsementUnavailable, Revoked, SignatureInvalid
from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind, Verified
from attestable_mcp.simulator import tpm
from attestable_mcp.verify import table
from attestable_mcp.verify.anchors import SIMULATED_ROOTS, TrustAnchors
from attestable_mcp.verify.memory import Memory

AT = datetime(2026, 6, 1, tzinfo=UTC)
VENDOR = tpm.well_known()


def _verify(
    memory: Memory,
    bag: Endorsements,
    *,
    at: datetime = AT,
    options: tpm.TpmQuote | None = None,
    anchors: TrustAnchors = SIMULATED_ROOTS,
) -> Verified:
    body = VENDOR.evidence(bytes(64), options=options or tpm.TpmQuote())
    evidence = Evidence(kind=EvidenceKind.TPM_QUOTE, body=body)
    return table.verify(evidence, bag, anchors=anchors, at=at, memory=memory)


def test_a_remembered_key_has_the_findings_and_the_end_that_it_had() -> None:
    memory, bag = Memory(), VENDOR.collateral(at=AT)
    first, second = _verify(memory, bag), _verify(memory, bag)
    assert second.findings == first.findings == _verify(Memory(), bag).findings
    assert (second.valid_until, second.not_proven, second.anchor) == (first.valid_until, first.not_proven, first.anchor)
    assert [item.check for item in first.findings][-2:] == ["tpm.ak.chain", "tpm.ak.revocation"]


def test_a_list_is_stale_for_a_remembered_key_too() -> None:
    memory, bag = Memory(), VENDOR.collateral(at=AT)
    until = _verify(memory, bag).valid_until
    for at in (until + timedelta(seconds=1), AT - timedelta(days=365)):
        with pytest.raises(AttestationError) as error:
            _verify(memory, bag, at=at)
        assert isinstance(error.value, EndorsementStale)


def test_other_lists_and_certificates_are_looked_at_anew() -> None:
    memory = Memory()
    _verify(memory, VENDOR.collateral(at=AT))
    with pytest.raises(Revoked):
        _verify(memory, VENDOR.collateral(at=AT, options=tpm.TpmCollateral(revoke_ak=True)))
    with pytest.raises(EndorsementUnavailable):
        _verify(memory, Endorsements())


def test_other_anchors_know_nothing_of_a_remembered_key() -> None:
    memory, bag = Memory(), VENDOR.collateral(at=AT)
    _verify(memory, bag)
    with pytest.raises(AttestationError):
        _verify(memory, bag, anchors=TrustAnchors())


def test_the_signature_of_each_quote_is_verified() -> None:
    memory, bag = Memory(), VENDOR.collateral(at=AT)
    _verify(memory, bag)
    for options in (tpm.TpmQuote(altered=True), tpm.TpmQuote(signed_by_stranger=True)):
        with pytest.raises(SignatureInvalid):
            _verify(memory, bag, options=options)


def test_claims_follow_the_values_of_each_quote() -> None:
    memory, bag = Memory(), VENDOR.collateral(at=AT)
    for value in (b"\1" * 32, b"\2" * 32, b"\1" * 32):
        verified = _verify(memory, bag, options=tpm.TpmQuote(pcrs={7: value}))
        assert verified.claims.values["pcr7"] == verified.claims.values["pcr7_sha256"] == value.hex()
