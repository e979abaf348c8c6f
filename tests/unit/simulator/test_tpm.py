"""The miniature maker of TPMs: what is good is accepted, and each knob is refused for its own reason."""

from __future__ import annotations

import dataclasses
import hashlib
from datetime import UTC, datetime
from typing import Any

import pytest

from attestable_mcp.errors import AttestationError
from attestable_mcp.rats import Evidence, EvidenceKind, Verified
from attestable_mcp.simulator.options import EXPIRED, FUTURE, Validity
from attestable_mcp.simulator.tpm import Event, TpmCertificates, TpmCollateral, TpmQuote, TpmVendor, well_known
from attestable_mcp.verify import tpm
from attestable_mcp.verify.anchors import TrustAnchor, TrustAnchors
from attestable_mcp.verify.memory import Memory

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
DATA = bytes(range(64))
PAST = Validity(not_after=datetime(2025, 1, 1, tzinfo=UTC))
BOOT = (Event(pcr=0, data=b"firmware"), Event(pcr=4, data=b"loader"), Event(pcr=4, data=b"kernel"))


def verify(vendor: TpmVendor, quote: TpmQuote, collateral: TpmCollateral, root: str = "") -> Verified:
    anchor = TrustAnchor(name="simulated", spki_sha256=root or vendor.root_spki_sha256)
    evidence = Evidence(kind=EvidenceKind.TPM_QUOTE, body=vendor.evidence(DATA, options=quote))
    bag = vendor.collateral(at=AT, options=collateral)
    return tpm.verify(evidence, bag, anchors=TrustAnchors(tpm=(anchor,)), at=AT, memory=Memory())


ACCEPTED = [
    TpmQuote(),
    TpmQuote(bank="sha384"),
    TpmQuote(bank="sha512"),
    TpmQuote(hash="sha384"),
    TpmQuote(events=BOOT),
    TpmQuote(events=BOOT, with_log=False),
    TpmQuote(selected=(0, 7, 16, 23)),
    TpmQuote(selected=(17, 18)),
    TpmQuote(clock=1, reset_count=2, restart_count=3, safe=False, firmware_version=4),
]


@pytest.mark.parametrize("quote", ACCEPTED, ids=range(len(ACCEPTED)))
@pytest.mark.parametrize("vendor", [well_known(), TpmVendor(rsa_key=True)], ids=["ecdsa", "rsassa"])
def test_good_quotes_are_accepted(vendor: TpmVendor, quote: TpmQuote) -> None:
    verified = verify(vendor, dataclasses.replace(quote, hash="sha256") if vendor._rsa else quote, TpmCollateral())
    claims = verified.claims
    assert claims.report_data == hashlib.sha256(DATA).digest()
    lasting = [number for number in quote.selected if number not in (16, 23)]
    values = vendor.pcrs(quote)
    assert {f"pcr{number}": values[number].hex() for number in lasting}.items() <= claims.values.items()
    assert "pcr16" not in claims.values
    assert "pcr23" not in claims.values
    assert claims.values["reset_count"] == quote.reset_count
    explained = bool(quote.events) and quote.with_log
    assert any("event log" in sentence for sentence in verified.not_proven) is not explained


def test_a_pcr_that_the_log_does_not_explain_is_named() -> None:
    verified = verify(well_known(), TpmQuote(events=BOOT, pcrs={7: b"\x07" * 32}), TpmCollateral())
    assert verified.claims.values["pcr7"] == "07" * 32
    assert any("sha256 PCR 7" in sentence for sentence in verified.not_proven)


def test_a_missing_revocation_list_is_named() -> None:
    verified = verify(well_known(), TpmQuote(), TpmCollateral(with_crl=False))
    assert any("revocation" in sentence for sentence in verified.not_proven)


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("signature_invalid", {"quote": TpmQuote(signed_by_stranger=True)}),
    ("signature_invalid", {"quote": TpmQuote(altered=True)}),
    ("signature_invalid", {"quote": TpmQuote(ak_of_stranger=True)}),
    ("ak_certificate_mismatch", {"quote": TpmQuote(ak_of_stranger=True, signed_by_stranger=True)}),
    ("malformed_evidence", {"quote": TpmQuote(magic=0x00544347)}),
    ("unsupported_evidence", {"quote": TpmQuote(kind=0x8017)}),
    ("trailing_bytes", {"quote": TpmQuote(trailing=b"\0")}),
    ("malformed_evidence", {"quote": TpmQuote(extra_data=bytes(600))}),
    ("pcr_mismatch", {"quote": TpmQuote(pcr_digest=bytes(32))}),
    ("pcr_mismatch", {"quote": TpmQuote(sent_pcrs={11: b"\x11" * 32})}),
    ("no_pcr", {"quote": TpmQuote(selected=(16, 23))}),
    ("no_pcr", {"quote": TpmQuote(selected=())}),
    ("no_pcr", {"quote": TpmQuote(bank="sha1")}),
    ("endorsement_unavailable", {"collateral": TpmCollateral(with_issuer=False)}),
    ("endorsement_stale", {"collateral": TpmCollateral(crl=EXPIRED)}),
    ("endorsement_stale", {"collateral": TpmCollateral(crl=FUTURE)}),
    ("revoked", {"collateral": TpmCollateral(revoke_ak=True)}),
    ("certificate_expired", {"certificates": TpmCertificates(root=PAST)}),
    ("certificate_expired", {"certificates": TpmCertificates(issuer=PAST)}),
    ("certificate_expired", {"certificates": TpmCertificates(ak=PAST)}),
    ("chain_invalid", {"certificates": TpmCertificates(issuer_is_ca=False)}),
    ("chain_invalid", {"certificates": TpmCertificates(ak_signed_by_stranger=True)}),
    ("ak_certificate_mismatch", {"certificates": TpmCertificates(ak_of_another_key=True)}),
    ("untrusted_root", {"root": "00" * 32}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "turned"), REFUSED, ids=[f"{code}-{number}" for number, (code, _) in enumerate(REFUSED)]
)
def test_each_knob_is_refused_for_its_own_reason(code: str, turned: dict[str, Any]) -> None:
    vendor = TpmVendor(certificates=turned["certificates"]) if "certificates" in turned else well_known()
    with pytest.raises(AttestationError) as caught:
        verify(
            vendor, turned.get("quote", TpmQuote()), turned.get("collateral", TpmCollateral()), turned.get("root", "")
        )
    assert caught.value.code == code, caught.value.message


def test_evidence_may_bring_its_own_certificates() -> None:
    none = TpmCollateral(with_ak=False, with_issuer=False, with_crl=False)
    assert verify(well_known(), TpmQuote(with_certificates=True), none).claims.values["pcr0"] == "00" * 32


def test_without_any_certificate_the_key_is_nobodys() -> None:
    vendor = well_known()
    evidence = Evidence(kind=EvidenceKind.TPM_QUOTE, body=vendor.evidence(DATA))
    from attestable_mcp.rats import Endorsements

    with pytest.raises(AttestationError) as caught:
        tpm.verify(evidence, Endorsements(), anchors=TrustAnchors(tpm=()), at=AT, memory=Memory())
    assert caught.value.code == "endorsement_unavailable"


def test_every_knob_is_turned_somewhere_here() -> None:
    seen = {"with_crl", "with_ak", "with_certificates", "pcrs"}
    cases = [*ACCEPTED, *(value for _, case in REFUSED for value in case.values() if dataclasses.is_dataclass(value))]
    for options in cases:
        good = type(options)()
        seen |= {f.name for f in dataclasses.fields(good) if getattr(good, f.name) != getattr(options, f.name)}
    for kind in (TpmQuote, TpmCertificates, TpmCollateral):
        assert {field.name for field in dataclasses.fields(kind)} <= seen


def test_the_same_seed_makes_the_same_bytes() -> None:
    assert TpmVendor().certificate.der == well_known().certificate.der
    assert TpmVendor.unknown().ak != well_known().ak
