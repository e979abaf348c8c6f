"""Every real SGX and TDX set gets the verdict that our rules give it, and gives back its stated measurements."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dcap_qvl
import pytest

from attestable_mcp.endorse.files import FileSource
from attestable_mcp.errors import AttestationError, EndorsementUnavailable, MalformedEvidence
from attestable_mcp.rats import EndorsementQuery, Endorsements, Evidence, EvidenceKind, Outcome, Tee, Verified
from attestable_mcp.verify import intel, table
from attestable_mcp.verify.anchors import INTEL_SGX_ROOT, TrustAnchors
from attestable_mcp.verify.memory import Memory
from attestable_mcp.wire.intel import read_quote

UNAVAILABLE = "endorsement_unavailable"
DEBUG = "debug"
EXPECTED: dict[str, dict[str, tuple[str, ...]]] = {
    "sgx": {
        "automata-v3-processor-debug": ("ConfigurationAndSWHardeningNeeded", DEBUG),
        "azure-sample-v3-securityversion": (UNAVAILABLE,),
        "dcapqvl-v3-processor-config-swhardening": ("ConfigurationAndSWHardeningNeeded",),
        "fortanix-v3-2020-bad-isv-signature": ("signature_invalid",),
        "fortanix-v3-cert-type-3": (UNAVAILABLE,),
        "oasis-v3-cert-type-3-encrypted-ppid": (UNAVAILABLE,),
        "oasis-v3-platform-2022": (UNAVAILABLE,),
        "openenclave-v3-2022-with-endorsements": (UNAVAILABLE,),
        "openenclave-v3-coffeelake-debug": (UNAVAILABLE,),
        "trustee-occlum-debug": ("OutOfDate", DEBUG),
    },
    "tdx": {
        "automata-v4-out-of-date": ("OutOfDate",),
        "dcapqvl-near-v4-uptodate-20a06f": ("UpToDate",),
        "dcapqvl-tappd-v4-below-all-levels": ("tcb_level_not_found",),
        "dcapqvl-v4-below-all-levels": ("tcb_level_not_found",),
        "dcapqvl-v4-uptodate": ("UpToDate",),
        "flashbots-gcp-v4-uptodate-2026-01": ("UpToDate",),
        "gotdx-v4-cos113-with-ccel": ("UpToDate",),
        "gotdx-v4-spr-e4-no-tcb-level": ("malformed_evidence",),
        "oak-v4-tdx-oc": ("UpToDate",),
        "oasis-v4-out-of-date-2023": (UNAVAILABLE,),
        "oasis-v4-pass-2024": (UNAVAILABLE,),
        "oasis-v4-trailing-data": (UNAVAILABLE,),
        "openenclave-v4-sept-ve-disable-clear": ("OutOfDate",),
        "openenclave-v5-out-of-date-eval21": ("OutOfDate",),
        "trustee-v4-debug-td-with-ccel": ("OutOfDate", DEBUG),
    },
}
"""What verification answers, before any policy: a TCB status (and debug), or the code of the error.

The spr-e4 set has text after the quote, which no signature covers; a set without complete collateral is unavailable.
"""
WHEN = datetime(2025, 7, 19, 9, tzinfo=UTC)
QUERY = EndorsementQuery(tee=Tee.SGX, parameters={})


def meta_of(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "meta.toml").read_text())


def at_of(folder: Path) -> datetime:
    time = meta_of(folder).get("verify", {}).get("time")
    return WHEN if time is None else datetime.fromtimestamp(time, UTC)


def endorsements_of(folder: Path) -> Endorsements:
    """All collateral of the set; the chain that its origin keeps as a negative input is left out."""
    found = Endorsements()
    for path in sorted((folder / "collateral").glob("*")):
        if path.suffix in (".json", ".pem", ".der") and not path.name.endswith("_bad.pem"):
            try:
                found += FileSource(path).fetch(QUERY, deadline_seconds=1)
            except AttestationError:
                assert path.name == "root_ca_crl.der", path  # one stray byte after the DER: left out
    return found


def verify_set(folder: Path, body: bytes | None = None) -> Verified:
    quote = (folder / "quote.bin").read_bytes() if body is None else body
    evidence = Evidence(kind=EvidenceKind.INTEL_QUOTE, body=quote)
    at = at_of(folder)
    return table.verify(evidence, endorsements_of(folder), anchors=TrustAnchors(), at=at, memory=Memory())


def outcome_of(folder: Path) -> tuple[str, ...]:
    try:
        verified = verify_set(folder)
    except AttestationError as error:
        return (error.code,)
    assert all(finding.outcome is Outcome.PASS for finding in verified.findings)
    assert (verified.anchor, verified.simulated) == (INTEL_SGX_ROOT.spki_sha256, False)
    claims = verified.claims
    return (claims.tcb_status, DEBUG) if claims.debug else (claims.tcb_status,)


@pytest.mark.parametrize(("kind", "count"), [("sgx", 10), ("tdx", 15)])
def test_every_set_gets_its_verdict(vectors: Path, kind: str, count: int) -> None:
    seen = {path.parent.name: outcome_of(path.parent) for path in sorted((vectors / kind).glob("*/meta.toml"))}
    assert seen == EXPECTED[kind]
    assert len(seen) == count


@pytest.mark.parametrize(("kind", "count"), [("sgx", 10), ("tdx", 15)])
def test_every_set_gives_back_its_measurements(vectors: Path, kind: str, count: int) -> None:
    compared = 0
    for path in sorted((vectors / kind).glob("*/meta.toml")):
        stated = meta_of(path.parent)["measurements"]
        body = (path.parent / "quote.bin").read_bytes()
        if path.parent.name == "gotdx-v4-spr-e4-no-tcb-level":
            body = body[:4935] + bytes(39)
        seen = intel.describe(read_quote(body))
        assert {name: seen.get(name) for name in stated} == stated, path.parent.name
        assert len(stated) >= 12
        compared += 1
    assert compared == count


def test_claims_hold_the_measurements_of_every_verified_set(vectors: Path) -> None:
    verified = 0
    for kind, sets in EXPECTED.items():
        for name, outcome in sets.items():
            if outcome[0][0].isupper():
                folder = vectors / kind / name
                claims = verify_set(folder).claims
                stated = meta_of(folder)["measurements"]
                assert {key: claims.values.get(key) for key in stated} == stated, name
                checked = meta_of(folder)["checked_here"]
                assert claims.tcb_evaluation_data_number == checked["tcb_evaluation_data_number"]
                assert claims.tcb_date == datetime.fromisoformat(checked["matched_tcb_level_date"])
                assert claims.tcb_status == checked["intel_tcb_algorithm_reimplemented_here"]
                verified += 1
    assert verified == 12


def test_advisories_are_those_that_the_sets_state(vectors: Path) -> None:
    stated = 0
    for kind, sets in EXPECTED.items():
        for name in sets:
            advisories = meta_of(vectors / kind / name)["expect"].get("advisories")
            if advisories is not None:
                assert list(verify_set(vectors / kind / name).claims.advisories) == advisories
                stated += 1
    assert stated == 3


def test_spr_e4_without_the_text_behind_it_reaches_no_level(vectors: Path) -> None:
    folder = vectors / "tdx" / "gotdx-v4-spr-e4-no-tcb-level"
    body = (folder / "quote.bin").read_bytes()
    with pytest.raises(MalformedEvidence, match="4935"):
        verify_set(folder)
    for tail in (b"", bytes(39)):
        with pytest.raises(AttestationError) as caught:
            verify_set(folder, body[:4935] + tail)
        assert caught.value.code == "tcb_level_not_found"


def test_the_bad_signing_chain_of_oasis_is_refused_once_collateral_is_complete(vectors: Path) -> None:
    """The set has no CRLs; without them nothing is said of its documents."""
    folder = vectors / "sgx" / "oasis-v3-platform-2022"
    with pytest.raises(EndorsementUnavailable) as caught:
        verify_set(folder)
    assert "PCK CRL" in str(caught.value)
    assert "root CA CRL" in str(caught.value)
    assert "TCB info" not in str(caught.value)


def test_dcap_qvl_agrees_wherever_it_can_judge(vectors: Path) -> None:
    """It refuses debug by itself, SEPT_VE_DISABLE clear and service TDs outright; we leave these to a policy."""
    agreed = 0
    for kind, sets in EXPECTED.items():
        for name, outcome in sets.items():
            folder = vectors / kind / name
            record = folder / "collateral" / "collateral.json"
            left_to_policy = DEBUG in outcome or name in (
                "openenclave-v4-sept-ve-disable-clear", "openenclave-v5-out-of-date-eval21",
                "gotdx-v4-spr-e4-no-tcb-level",
            )  # fmt: skip
            if not record.exists() or left_to_policy:
                continue
            collateral = dcap_qvl.QuoteCollateralV3.from_json(record.read_text())
            when = int(at_of(folder).timestamp())
            try:
                theirs = dcap_qvl.verify((folder / "quote.bin").read_bytes(), collateral, when)
            except ValueError as error:
                assert "No matching TCB level" in str(error)  # noqa: PT017
                assert outcome == ("tcb_level_not_found",)
            else:
                claims = verify_set(folder).claims
                assert (theirs.status, set(theirs.advisory_ids)) == (claims.tcb_status, set(claims.advisories))
            agreed += 1
    assert agreed == 9


def test_real_collateral_expires(vectors: Path) -> None:
    folder = vectors / "tdx" / "dcapqvl-v4-uptodate"
    evidence = Evidence(kind=EvidenceKind.INTEL_QUOTE, body=(folder / "quote.bin").read_bytes())
    bag = endorsements_of(folder)
    verified = verify_set(folder)
    memory = Memory()
    for at in (verified.valid_until, datetime(2026, 1, 1, tzinfo=UTC), datetime(2025, 6, 18, tzinfo=UTC)):
        table.verify(evidence, bag, anchors=TrustAnchors(), at=at_of(folder), memory=memory)
        with pytest.raises(AttestationError) as caught:
            table.verify(evidence, bag, anchors=TrustAnchors(), at=at, memory=memory)
        assert caught.value.code == "endorsement_stale"


def test_a_root_crl_in_place_of_the_pck_crl_is_not_enough(vectors: Path) -> None:
    folder = vectors / "tdx" / "automata-v4-out-of-date"
    bag = endorsements_of(folder)
    evidence = Evidence(kind=EvidenceKind.INTEL_QUOTE, body=(folder / "quote.bin").read_bytes())
    with pytest.raises(EndorsementUnavailable, match="PCK CRL"):
        table.verify(
            evidence, replace(bag, crls=bag.crls[:1] * 2), anchors=TrustAnchors(), at=at_of(folder), memory=Memory()
        )
