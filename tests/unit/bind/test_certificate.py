"""Evidence must speak of the key of the certificate that carries it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.bind.certificate import bind_certificate
from attestable_mcp.errors import ChannelMismatch, NotFresh
from attestable_mcp.tls.certificate import issue
from attestable_mcp.wire import ratls
from attestable_mcp.wire.intel import read_quote
from attestable_mcp.wire.ratls import RatlsCertificate

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def certificate() -> RatlsCertificate:
    return ratls.read(issue(SimulatedAttester(b"\x01" * 32), ["localhost"], now=NOW).certificate_der)


def _verified(certificate: RatlsCertificate, report_data: bytes | None = None) -> Any:
    evidence = certificate.evidence[0].evidence
    data = read_quote(evidence.body).report_data if report_data is None else report_data
    return SimpleNamespace(evidence_digest=evidence.digest, claims=SimpleNamespace(report_data=data))


def test_an_honest_certificate_is_bound(certificate: RatlsCertificate) -> None:
    assert bind_certificate(certificate, _verified(certificate), NOW) is certificate.evidence[0]


@pytest.mark.parametrize("at", [NOW - timedelta(minutes=2), NOW + timedelta(hours=25)])
def test_c1_outside_its_validity_it_is_stale(certificate: RatlsCertificate, at: datetime) -> None:
    with pytest.raises(NotFresh) as caught:
        bind_certificate(certificate, _verified(certificate), at)
    assert caught.value.code == "stale_evidence"


def test_e4_claims_of_another_key_are_refused(certificate: RatlsCertificate) -> None:
    other = replace(certificate, evidence=(replace(certificate.evidence[0], key_matches=False),))
    with pytest.raises(ChannelMismatch, match="pubkey-hash"):
        bind_certificate(other, _verified(other), NOW)


def test_report_data_of_another_claim_is_refused(certificate: RatlsCertificate) -> None:
    with pytest.raises(ChannelMismatch, match="report data wanted"):
        bind_certificate(certificate, _verified(certificate, b"\x01" * 32 + bytes(32)), NOW)


def test_e5_the_upper_half_of_the_report_data_must_be_zero(certificate: RatlsCertificate) -> None:
    data = certificate.evidence[0].report_data[:63] + b"\x01"
    with pytest.raises(ChannelMismatch, match="report data wanted"):
        bind_certificate(certificate, _verified(certificate, data), NOW)


def test_evidence_from_elsewhere_is_refused(certificate: RatlsCertificate) -> None:
    verified = _verified(certificate)
    verified.evidence_digest = "00" * 32
    with pytest.raises(ChannelMismatch, match="not in this certificate"):
        bind_certificate(certificate, verified, NOW)
    with pytest.raises(ChannelMismatch, match="not in this certificate"):
        bind_certificate(replace(certificate, evidence=()), verified, NOW)
