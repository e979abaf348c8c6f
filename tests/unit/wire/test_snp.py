"""The SEV-SNP reader: sizes, versions, reserved bytes, products, TCB layouts, certificate tables."""

from __future__ import annotations

import uuid

import pytest

from attestable_mcp.errors import MalformedEvidence, UnsupportedEvidence
from attestable_mcp.wire.snp import (
    CERTIFICATE_GUIDS,
    REPORT_SIZE,
    Product,
    SigningKey,
    hardware_id,
    product_of,
    read_certificate_table,
    read_report,
    read_tcb,
)


def _report(version: int = 3, **patches: tuple[int, bytes]) -> bytes:
    body = bytearray(REPORT_SIZE)
    body[0:4], body[0x34] = version.to_bytes(4, "little"), 1
    for offset, value in patches.values():
        body[offset : offset + len(value)] = value
    return bytes(body)


def test_versions_two_to_five_are_read_and_no_others() -> None:
    for version in (2, 3, 4, 5):
        assert read_report(_report(version)).version == version
    for version in (0, 1, 6):
        with pytest.raises(UnsupportedEvidence):
            read_report(_report(version))


def test_short_and_oversized_input_is_refused() -> None:
    for data in (b"", _report()[:-1], _report() + bytes(1 << 20)):
        with pytest.raises(MalformedEvidence):
            read_report(data)


@pytest.mark.parametrize(("version", "offset"), [(3, 0x4C), (3, 0x18B), (4, 0x1F8), (5, 0x208), (2, 0x188), (5, 0x49F)])
def test_reserved_bytes_have_to_be_zero(version: int, offset: int) -> None:
    with pytest.raises(MalformedEvidence) as error:
        read_report(_report(version, change=(offset, b"\1")))
    assert error.value.offset is not None
    assert error.value.offset <= offset


def test_flags_and_policy() -> None:
    report = read_report(_report(flags=(0x48, b"\x07"), policy=(8, (0x2B011F).to_bytes(8, "little"))))
    assert (report.signing_key, report.mask_chip_key, report.author_key_en) == (SigningKey.VLEK, True, True)
    assert (report.policy.abi, report.policy.debug) == ("1.31", True)
    with pytest.raises(UnsupportedEvidence):
        read_report(_report(flags=(0x48, b"\x08")))


def test_products_by_cpuid() -> None:
    met = {(0x19, 0x01): Product.MILAN, (0x19, 0x11): Product.GENOA, (0x19, 0xA0): Product.GENOA}
    met |= {(0x1A, 0x02): Product.TURIN, (0x1A, 0x11): Product.TURIN}
    assert {key: product_of(bytes((*key, 0))) for key in met} == met
    assert product_of(b"\x19\x50\0") is product_of(b"\x17\x01\0") is None


def test_tcb_layouts_and_hardware_ids_differ_by_product() -> None:
    raw = bytes(range(1, 9))
    old, new = read_tcb(raw, Product.GENOA), read_tcb(raw, Product.TURIN)
    assert (old.bl, old.tee, old.snp, old.ucode, old.fmc) == (1, 2, 7, 8, None)
    assert (new.fmc, new.bl, new.tee, new.snp, new.ucode) == (1, 2, 3, 4, 8)
    assert len(hardware_id(bytes(64), Product.TURIN)) == 8
    with pytest.raises(MalformedEvidence):
        read_tcb(raw[:7], Product.MILAN)


def _entry(guid: uuid.UUID, start: int, size: int) -> bytes:
    return guid.bytes + start.to_bytes(4, "little") + size.to_bytes(4, "little")


def test_certificate_tables() -> None:
    guid = next(guid for guid, name in CERTIFICATE_GUIDS.items() if name == "VCEK")
    table = _entry(guid, 72, 4) + _entry(uuid.UUID(int=1), 72, 4) + bytes(24) + b"leaf"
    assert read_certificate_table(table) == {"VCEK": b"leaf"}
    bad = [table[:30], _entry(guid, 48, 400) + bytes(24), _entry(guid, 72, 4) * 2 + bytes(24) + b"leaf", b""]
    for data in bad:
        with pytest.raises(MalformedEvidence):
            read_certificate_table(data)
