"""The miniature AWS speaks the real grammar: what is good is accepted, and each knob is refused for its own reason."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any

import cbor2
import pytest

from attestable_mcp.errors import AttestationError
from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind, Verified
from attestable_mcp.simulator import cbor
from attestable_mcp.simulator.aws import AwsCertificates, AwsVendor, Document, well_known
from attestable_mcp.simulator.options import EXPIRED, FUTURE, Validity
from attestable_mcp.verify import nitro
from attestable_mcp.verify.anchors import TrustAnchor, TrustAnchors
from attestable_mcp.verify.memory import Memory

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
DATA = bytes(range(64))
LONG_SIGNED = dataclasses.replace(EXPIRED, expires=timedelta(days=1))
PAST = Validity(not_after=datetime(2025, 1, 1, tzinfo=UTC))


def verify(vendor: AwsVendor, options: Document, root: str = "") -> Verified:
    anchor = TrustAnchor(name="simulated", spki_sha256=root or vendor.root_spki_sha256)
    evidence = Evidence(kind=EvidenceKind.NITRO_DOCUMENT, body=vendor.document(DATA, at=AT, options=options))
    return nitro.verify(evidence, Endorsements(), anchors=TrustAnchors(aws=(anchor,)), at=AT, memory=Memory())


ACCEPTED = [
    Document(),
    Document(indefinite=True),
    Document(tagged=True),
    Document(pcr_count=17),
    Document(nonce=b"n", public_key=b"k"),
    Document(without=("nonce", "public_key")),
    Document(pcrs={8: b"\x08" * 48}),
    Document(age=timedelta(hours=2)),
    Document(module_id="i-5151"),
]


@pytest.mark.parametrize("options", ACCEPTED, ids=range(len(ACCEPTED)))
def test_good_documents_are_accepted(options: Document) -> None:
    verified = verify(well_known(), options)
    claims = verified.claims
    assert claims.report_data == DATA
    assert not claims.debug
    assert claims.values["pcr0"] == "50" * 48
    assert claims.values["pcr_count"] == options.pcr_count
    assert claims.values["payload_map_indefinite_length"] is options.indefinite
    assert claims.values["cose_tagged"] is options.tagged
    assert claims.values["nonce"] == (options.nonce or b"").hex()
    assert claims.values.get("pcr8") == ("08" * 48 if options.pcrs else None)


def test_debug_documents_are_genuine_and_say_debug() -> None:
    verified = verify(well_known(), Document(debug=True))
    assert verified.claims.debug
    assert verified.claims.values["pcr0"] == "00" * 48


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("signature_invalid", {"document": Document(signed_by_stranger=True)}),
    ("signature_invalid", {"document": Document(payload_altered=True)}),
    ("unsupported_evidence", {"document": Document(algorithm=-7)}),
    ("unsupported_evidence", {"document": Document(digest="SHA256")}),
    ("malformed_evidence", {"document": Document(without=("pcrs",))}),
    ("malformed_evidence", {"document": Document(without=("cabundle",))}),
    ("malformed_evidence", {"document": Document(extra={"other": 1})}),
    ("malformed_evidence", {"document": Document(pcrs={0: b"short"})}),
    ("malformed_evidence", {"document": Document(pcr_count=33)}),
    ("malformed_evidence", {"document": Document(nonce=bytes(1025))}),
    ("malformed_evidence", {"document": Document(module_id="x" * 257)}),
    ("certificate_expired", {"document": Document(age=timedelta(hours=4))}),
    ("certificate_expired", {"document": Document(leaf=EXPIRED)}),
    ("certificate_expired", {"document": Document(leaf=FUTURE)}),
    ("chain_invalid", {"document": Document(age=timedelta(minutes=-6), leaf=LONG_SIGNED)}),
    ("chain_invalid", {"document": Document(leaf_signed_by_stranger=True)}),
    ("chain_invalid", {"document": Document(cabundle_without_regional=True)}),
    ("certificate_expired", {"certificates": AwsCertificates(root=PAST)}),
    ("certificate_expired", {"certificates": AwsCertificates(regional=PAST)}),
    ("certificate_expired", {"certificates": AwsCertificates(zonal=PAST)}),
    ("certificate_expired", {"certificates": AwsCertificates(instance=PAST)}),
    ("chain_invalid", {"certificates": AwsCertificates(zonal_is_ca=False)}),
    ("chain_invalid", {"certificates": AwsCertificates(zonal_signed_by_stranger=True)}),
    ("untrusted_root", {"root": "00" * 32}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "turned"), REFUSED, ids=[f"{code}-{number}" for number, (code, _) in enumerate(REFUSED)]
)
def test_each_knob_is_refused_for_its_own_reason(code: str, turned: dict[str, Any]) -> None:
    vendor = AwsVendor(certificates=turned["certificates"]) if "certificates" in turned else well_known()
    with pytest.raises(AttestationError) as caught:
        verify(vendor, turned.get("document", Document()), turned.get("root", ""))
    assert caught.value.code == code, caught.value.message


def test_every_knob_is_turned_somewhere_here() -> None:
    seen = {"debug"}
    cases = [*ACCEPTED, *(value for _, case in REFUSED for value in case.values() if dataclasses.is_dataclass(value))]
    for options in cases:
        good = type(options)()
        seen |= {f.name for f in dataclasses.fields(good) if getattr(good, f.name) != getattr(options, f.name)}
    for kind in (Document, AwsCertificates):
        assert {field.name for field in dataclasses.fields(kind)} <= seen


@pytest.mark.parametrize("indefinite", [False, True])
def test_another_library_reads_the_same_document(indefinite: bool) -> None:
    raw = well_known().document(DATA, at=AT, options=Document(indefinite=indefinite))
    protected, unprotected, payload, signature = cbor2.loads(raw)
    assert cbor2.loads(protected) == {1: -35}
    assert unprotected == {}
    assert len(signature) == 96
    found = cbor2.loads(payload)
    assert found["user_data"] == DATA
    assert len(found["pcrs"]) == 16
    assert found["cabundle"][0] == well_known().root.der


@pytest.mark.parametrize(
    "value",
    [0, 23, 24, 255, 256, 65535, 65536, 1 << 32, -1, -25, b"x" * 300, "ü", None, True, [1, [2]], {"a": {1: b""}}],
)
def test_the_cbor_writer_agrees_with_another_library(value: cbor.Value) -> None:
    assert cbor.encode(value) == cbor2.dumps(value)
    if isinstance(value, (list, dict)):
        assert cbor2.loads(cbor.encode(value, indefinite=True)) == value


def test_unknown_vendors_differ() -> None:
    assert AwsVendor.unknown().root_spki_sha256 != well_known().root_spki_sha256
    assert AwsVendor().root.der == well_known().root.der
