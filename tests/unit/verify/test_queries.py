"""What each kind of evidence asks of an endorsement source, read from real evidence."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestable_mcp.rats import Evidence, EvidenceKind, Tee
from attestable_mcp.verify import table
from attestable_mcp.wire.kinds import kind_of


def _query(path: Path) -> dict[str, str]:
    body = path.read_bytes()
    kind = kind_of(body)
    assert kind is not None
    query = table.query(Evidence(kind=kind, body=body))
    assert query.tee is (Tee.NITRO if kind is EvidenceKind.NITRO_DOCUMENT else Tee.SEV_SNP)
    return dict(query.parameters)


def test_an_snp_query_holds_what_the_key_service_asks_for(vectors: Path) -> None:
    genoa = _query(vectors / "snp/oak-genoa-oc-v5/report.bin")
    assert set(genoa) == {"signing_key", "product", "chip_id", "reported_tcb"}
    assert (genoa["signing_key"], genoa["product"]) == ("VCEK", "Genoa")
    assert (len(genoa["chip_id"]), len(genoa["reported_tcb"])) == (128, 16)


def test_version_2_names_no_product_and_a_leased_key_no_chip(vectors: Path) -> None:
    assert _query(vectors / "snp/trustee-milan-v2-vcek/report.bin")["product"] == ""
    leased = _query(vectors / "snp/trustee-milan-v3-vlek-aws/report.bin")
    assert (leased["signing_key"], leased["chip_id"], leased["product"]) == ("VLEK", "00" * 64, "Milan")


def test_turin_is_asked_for_by_eight_bytes_of_its_chip() -> None:
    report = bytearray(0x4A0)
    report[0], report[0x34] = 3, 1
    report[0x188:0x18B] = bytes((0x1A, 0x02, 0))
    report[0x1A0:0x1A8] = b"\x11" * 8
    query = table.query(Evidence(kind=EvidenceKind.SNP_REPORT, body=bytes(report)))
    assert (query.parameters["product"], query.parameters["chip_id"]) == ("Turin", "11" * 8)


@pytest.mark.parametrize("name", ["evervault-2022-valid", "fastcrypto-2025-pcr16-indefinite-cbor"])
def test_nitro_asks_for_nothing(vectors: Path, name: str) -> None:
    assert _query(vectors / "nitro" / name / "attestation.cose") == {}
