"""Issued certificates: what they carry, how long they live, and what does not fit."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest

from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.rats import Endorsements, Evidence
from attestable_mcp.tls.certificate import BACKDATED, issue
from attestable_mcp.tls.engine import CERTIFICATE_LIST_MAX
from attestable_mcp.wire import ratls
from attestable_mcp.wire.intel import read_quote

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
ATTESTER = SimulatedAttester(b"\x01" * 32, now=lambda: NOW)


class Stapling:
    """The simulated attester with another bag of collateral."""

    tee = ATTESTER.tee
    simulated = True

    def __init__(self, bag: Endorsements) -> None:
        self._bag = bag

    def attest(self, report_data: bytes) -> Evidence:
        return ATTESTER.attest(report_data)

    def endorsements(self) -> Endorsements:
        return self._bag


def test_a_certificate_carries_evidence_of_its_key_and_stapled_collateral() -> None:
    issued = issue(ATTESTER, ["mcp.example", "192.0.2.1", "::1"], now=NOW)
    read = ratls.read(issued.certificate_der)
    (piece,) = read.evidence
    assert piece.source == "dice-tagged-evidence"
    assert piece.key_matches
    assert piece.report_data == read_quote(piece.evidence.body).report_data
    assert hashlib.sha256(read.leaf.spki).hexdigest() == issued.spki_sha256
    assert read.endorsements is not None
    assert len(read.endorsements.documents) == 2
    assert [extension.critical for extension in read.leaf.extensions if extension.oid.startswith("2.23")] == [False] * 2


def test_keys_are_never_used_twice_nor_shown() -> None:
    first, second = issue(ATTESTER, ["a"], now=NOW), issue(ATTESTER, ["a"], now=NOW)
    assert first.spki_sha256 != second.spki_sha256
    assert "PRIVATE" not in repr(first)


def test_the_validity_is_short_and_starts_a_little_early() -> None:
    issued = issue(ATTESTER, ["a"], now=NOW)
    assert (issued.not_before, issued.not_after) == (NOW - BACKDATED, NOW + timedelta(hours=24))
    leaf = ratls.read(issued.certificate_der).leaf
    assert (leaf.not_before, leaf.not_after) == (issued.not_before, issued.not_after)


def test_without_collateral_nothing_is_stapled() -> None:
    read = ratls.read(issue(Stapling(Endorsements()), ["a"], now=NOW).certificate_der)
    assert read.endorsements is None
    assert read.evidence


def test_collateral_that_tls_peers_would_not_take_is_left_out() -> None:
    good = ATTESTER.endorsements()
    document = good.documents[0]
    chain = (*document.issuer_chain, *[document.issuer_chain[-1]] * 200)
    fat = Endorsements(
        crls=good.crls,
        documents=(type(document)(kind=document.kind, body=document.body, signature=document.signature,
                                  issuer_chain=chain), *good.documents[1:]),
    )  # fmt: skip
    issued = issue(Stapling(fat), ["a"], now=NOW)
    assert len(issued.certificate_der) < CERTIFICATE_LIST_MAX
    assert ratls.read(issued.certificate_der).endorsements is None


@pytest.mark.parametrize("host", ["", "ä" * 70, "a" * 64 + ".example"])
def test_hosts_that_no_certificate_can_name_are_a_configuration_error(host: str) -> None:
    with pytest.raises(ConfigurationError):
        issue(ATTESTER, [host], now=NOW)


def test_a_lifetime_of_nothing_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError):
        issue(ATTESTER, ["a"], lifetime=timedelta(0), now=NOW)
