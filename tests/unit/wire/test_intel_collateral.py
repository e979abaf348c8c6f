"""Collateral is read strictly: JSON without doubles, exact spans, exact sizes, and every refusal is ours."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from attestable_mcp.errors import EvidenceError, MalformedEvidence, UnsupportedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import DocumentKind, Tee
from attestable_mcp.simulator import options as o
from attestable_mcp.simulator.intel import Vendor
from attestable_mcp.wire.collateral import (
    read_collateral_json,
    read_json,
    read_qe_identity,
    read_signed_document,
    read_tcb_info,
)

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
VENDOR = Vendor(seed=b"collateral")
TCB, QE = DocumentKind.INTEL_TCB_INFO, DocumentKind.INTEL_QE_IDENTITY
SIGNATURE = "ab" * 64


def documents(tee: Tee = Tee.TDX, options: o.Collateral | None = None) -> dict[str, Any]:
    bag = VENDOR.collateral(at=AT, tee=tee, options=options or o.Collateral())
    return {document.kind: json.loads(document.body) for document in bag.documents}


def dump(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff",
        b'{"a":1,"a":2}',
        b'{"a":{"b":1,"b":1}}',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a":' + b"9" * 10_000 + b"}",
        b'{"a":1}x',
        b"\xef\xbb\xbf{}",
        b"{" + b" " * LIMITS.endorsement + b"}",
    ],
)
def test_json_that_is_not_strict_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        read_json(text, field="x")
    for reader in (read_tcb_info, read_qe_identity, read_collateral_json):
        with pytest.raises(EvidenceError):
            reader(text)
    with pytest.raises(EvidenceError):
        read_signed_document(text, TCB)


def test_the_signed_span_is_the_served_one_with_all_its_spaces() -> None:
    body = ' {"b" : 1,\t"a": "\u00e9 , \\" }"  } '.strip()
    data = f'\n{{ "tcbInfo" :  {body} , "signature":"{SIGNATURE}" }}\n'.encode()
    document = read_signed_document(data, TCB)
    assert document.body == body.encode()
    assert document.signature == bytes.fromhex(SIGNATURE)
    turned = f'{{"signature":"{SIGNATURE}","tcbInfo":{body}}}'.encode()
    assert read_signed_document(turned, TCB).body == body.encode()


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"tcbInfo":{}}',
        f'{{"signature":"{SIGNATURE}"}}',
        f'{{"enclaveIdentity":{{}},"signature":"{SIGNATURE}"}}',
        f'{{"tcbInfo":{{}},"signature":"{SIGNATURE}","more":1}}',
        f'{{"tcbInfo":[],"signature":"{SIGNATURE}"}}',
        f'{{"tcbInfo":{{}},"tcbInfo":{{}},"signature":"{SIGNATURE}"}}',
        f'{{"tcbInfo":{{}},"signature":"{SIGNATURE}00"}}',
        f'{{"tcbInfo":{{}},"signature":"{SIGNATURE[:-2]}"}}',
        f'{{"tcbInfo":{{}},"signature":"{"zz" * 64}"}}',
        f'{{"tcbInfo":{{}},"signature":"{"ab " * 42}ab"}}',
        f'{{"tcbInfo":{{}},"signature":"{SIGNATURE}"}}x',
        '{"tcbInfo":{},"signature":7}',
    ],
)
def test_a_served_answer_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(MalformedEvidence):
        read_signed_document(text.encode(), TCB)


def test_tcb_info_is_read_field_by_field() -> None:
    info = read_tcb_info(dump(documents()[TCB]))
    platform = VENDOR.platform
    assert (info.tee, info.version, info.fmspc, info.pce_id) == (Tee.TDX, 3, platform.fmspc, platform.pceid)
    assert info.levels[1].sgx == bytes(platform.components)
    assert info.levels[1].tdx is not None
    assert info.levels[1].pcesvn == platform.pcesvn
    assert info.tdx_module is not None
    assert info.module_identities
    assert info.issue_date < AT < info.next_update


def test_levels_are_walked_from_the_highest_down_whatever_order_they_come_in() -> None:
    document = documents()[TCB]
    in_order = read_tcb_info(dump(document)).levels
    document["tcbLevels"].reverse()
    assert read_tcb_info(dump(document)).levels == in_order


def test_version_2_spells_its_components_out() -> None:
    document = documents(Tee.SGX)[TCB]
    document["version"] = 2
    del document["id"]
    for level in document["tcbLevels"]:
        parts = level["tcb"].pop("sgxtcbcomponents")
        level["tcb"] |= {f"sgxtcbcomp{n:02}svn": part["svn"] for n, part in enumerate(parts, start=1)}
    info = read_tcb_info(dump(document))
    assert (info.tee, info.version, info.levels[1].sgx) == (Tee.SGX, 2, bytes(VENDOR.platform.components))
    del document["tcbLevels"][0]["tcb"]["sgxtcbcomp16svn"]
    with pytest.raises(MalformedEvidence, match="16 components"):
        read_tcb_info(dump(document))


TCB_FAULTS: dict[str, Any] = {
    "version 1": ("version", 1),
    "version text": ("version", "3"),
    "version true": ("version", True),
    "tcbType 1": ("tcbType", 1),
    "another id": ("id", "QVE"),
    "no id": ("id", None),
    "short fmspc": ("fmspc", "00"),
    "odd fmspc": ("fmspc", "0" * 11),
    "fmspc no hex": ("fmspc", "g" * 12),
    "fmspc number": ("fmspc", 7),
    "pceid": ("pceId", "00"),
    "date": ("issueDate", "2026-01-01"),
    "date 13th month": ("issueDate", "2026-13-01T00:00:00Z"),
    "date with offset": ("nextUpdate", "2026-01-01T00:00:00+00:00"),
    "date digits": ("nextUpdate", "٢٠٢٦-01-01T00:00:00Z"),
    "number negative": ("tcbEvaluationDataNumber", -1),
    "number float": ("tcbEvaluationDataNumber", 17.0),
    "number huge": ("tcbEvaluationDataNumber", 10**30),
    "levels object": ("tcbLevels", {}),
    "levels of numbers": ("tcbLevels", [1]),
    "too many levels": ("tcbLevels", [{}] * 300),
    "module list": ("tdxModule", []),
    "module absent": ("tdxModule", None),
    "identities object": ("tdxModuleIdentities", {}),
}


@pytest.mark.parametrize("fault", TCB_FAULTS)
def test_tcb_info_with_a_wrong_member_is_refused(fault: str) -> None:
    name, value = TCB_FAULTS[fault]
    document = documents()[TCB]
    document[name] = value
    with pytest.raises((MalformedEvidence, UnsupportedEvidence)):
        read_tcb_info(dump(document))


@pytest.mark.parametrize(
    "member", ["version", "tcbType", "id", "fmspc", "pceId", "issueDate", "nextUpdate", "tcbLevels", "tdxModule"]
)
def test_tcb_info_without_a_member_is_refused(member: str) -> None:
    document = documents()[TCB]
    del document[member]
    with pytest.raises(MalformedEvidence, match=member):
        read_tcb_info(dump(document))


@pytest.mark.parametrize("svn", [-1, 256, 1.0, "1", None, True])
def test_a_component_that_is_no_byte_is_refused(svn: object) -> None:
    document = documents()[TCB]
    document["tcbLevels"][0]["tcb"]["sgxtcbcomponents"][3]["svn"] = svn
    with pytest.raises(MalformedEvidence, match="sgxtcbcomponents"):
        read_tcb_info(dump(document))


def test_a_module_identity_twice_is_refused() -> None:
    document = documents()[TCB]
    document["tdxModuleIdentities"].append(
        dict(document["tdxModuleIdentities"][0], id=document["tdxModuleIdentities"][0]["id"].lower())
    )
    with pytest.raises(MalformedEvidence, match="each module once"):
        read_tcb_info(dump(document))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", 1),
        ("id", "QVE"),
        ("miscselect", "00"),
        ("attributesMask", "0" * 30),
        ("mrsigner", ""),
        ("isvprodid", 65536),
    ],
)
def test_qe_identity_with_a_wrong_member_is_refused(name: str, value: object) -> None:
    document = documents()[QE]
    assert read_qe_identity(dump(document)).id == "TD_QE"
    document[name] = value
    with pytest.raises((MalformedEvidence, UnsupportedEvidence)):
        read_qe_identity(dump(document))


def test_a_collateral_record_gives_all_its_pieces_and_lacks_what_it_lacks() -> None:
    record = VENDOR.collateral_json(at=AT, tee=Tee.TDX)
    bag = read_collateral_json(dump(record), source="here")
    assert (len(bag.crls), len(bag.documents), bag.sources) == (2, 2, ("here",))
    assert all(len(document.issuer_chain) == 2 for document in bag.documents)
    assert bag.documents[0].body.decode() == record["tcb_info"]
    for name, left in (("root_ca_crl", (1, 2)), ("tcb_info", (2, 1))):
        for absent in ("", None):
            less = read_collateral_json(dump(dict(record) | {name: absent}))
            assert (len(less.crls), len(less.documents)) == left


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("root_ca_crl", "xyz"),
        ("root_ca_crl", 7),
        ("root_ca_crl", "30 82"),
        ("tcb_info_signature", ""),
        ("tcb_info", 5),
        ("tcb_info_issuer_chain", "text"),
        ("qe_identity_issuer_chain", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"),
    ],
)
def test_a_damaged_collateral_record_is_refused(name: str, value: object) -> None:
    record = dict(VENDOR.collateral_json(at=AT, tee=Tee.TDX)) | {name: value}
    with pytest.raises(MalformedEvidence):
        read_collateral_json(dump(record))


@pytest.mark.parametrize("text", [b"{}", b"[]", b'"text"', b'{"other":1}', b'{"tcb_info":""}'])
def test_a_record_with_nothing_of_ours_is_refused(text: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        read_collateral_json(text)
