"""Quotes are read strictly, by their lengths, into the vendor's fields."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from attestable_mcp.errors import MalformedEvidence, UnsupportedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Tee
from attestable_mcp.simulator import options as o
from attestable_mcp.simulator.intel import Vendor
from attestable_mcp.wire.intel import (
    SgxReport,
    TdReport,
    quote_fields,
    read_pem_chain,
    read_quote,
)

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
VENDOR = Vendor(seed=b"wire")
DATA = bytes(range(64))


@pytest.mark.parametrize("version", [3, 4, 5])
def test_sgx_quotes_of_every_version_read_alike(version: int) -> None:
    mrenclave = bytes(range(32))
    quote = read_quote(VENDOR.quote_sgx(DATA, mrenclave, options=o.Quote(version=version)))
    assert isinstance(quote.body, SgxReport)
    assert (quote.tee, quote.version, quote.report_data) == (Tee.SGX, version, DATA)
    assert (quote.body.mrenclave, quote.body.isvprodid, quote.body.isvsvn) == (mrenclave, 1, 1)
    assert quote.signed == quote.raw[: len(quote.signed)]
    assert len(quote.signed) == 48 + 384 + (6 if version == 5 else 0)
    assert len(quote.certificates) == 3
    assert quote.trailing == 0


@pytest.mark.parametrize(
    ("version", "td15", "body_type", "size"), [(4, False, None, 584), (5, False, 2, 590), (5, True, 3, 654)]
)
def test_td_quotes_read_with_their_body(version: int, td15: bool, body_type: int | None, size: int) -> None:
    body = o.TdxBody(td15=td15, mrservicetd=b"s" * 48, rtmr=tuple(bytes([n]) * 48 for n in range(4)))  # type: ignore[arg-type]
    quote = read_quote(VENDOR.quote_tdx(DATA, body=body, options=o.Quote(version=version)))
    assert isinstance(quote.body, TdReport)
    assert (quote.tee, quote.body_type, len(quote.signed)) == (Tee.TDX, body_type, 48 + size)
    assert (quote.body.mr_td, quote.body.rtmr3, quote.report_data) == (body.mrtd, bytes([3]) * 48, DATA)
    assert quote.body.mr_service_td == (b"s" * 48 if td15 else None)
    fields = quote_fields(quote)
    assert fields["tee_type"] == "0x81"
    assert ("mr_service_td" in fields) is td15
    assert fields.get("quote_v5_body_type") == body_type


@pytest.mark.parametrize("debug", [True, False])
def test_debug_is_read_from_the_attributes(debug: bool) -> None:
    sgx = read_quote(VENDOR.quote_sgx(DATA, bytes(32), body=o.SgxBody(debug=debug)))
    tdx = read_quote(VENDOR.quote_tdx(DATA, body=o.TdxBody(debug=debug)))
    assert (sgx.debug, tdx.debug) == (debug, debug)


@pytest.mark.parametrize(
    "options",
    [
        o.Quote(version=2),
        o.Quote(version=6),
        o.Quote(attestation_key_type=3),
        o.Quote(tee_type=5),
        o.Quote(certification_type=1),
    ],
)
def test_other_kinds_are_unsupported(options: o.Quote) -> None:
    with pytest.raises(UnsupportedEvidence):
        read_quote(VENDOR.quote_sgx(DATA, bytes(32), options=options))


def test_certification_data_type_3_has_no_certificates() -> None:
    quote = read_quote(VENDOR.quote_sgx(DATA, bytes(32), options=o.Quote(certification_type=3)))
    assert (quote.certification_data_type, quote.certificates) == (3, ())
    assert quote.certification_data


def test_size_is_capped_before_anything_is_read() -> None:
    with pytest.raises(MalformedEvidence, match=str(LIMITS.evidence)):
        read_quote(bytes(LIMITS.evidence + 1))


@pytest.mark.parametrize("size", [0, 1, 583, 585, 648, 0xFFFFFFFF])
def test_a_body_size_that_is_not_its_types_is_malformed(size: int) -> None:
    data = bytearray(VENDOR.quote_tdx(DATA, options=o.Quote(version=5)))
    data[50:54] = size.to_bytes(4, "little")
    with pytest.raises(MalformedEvidence, match="body_size"):
        read_quote(bytes(data))


PEM = VENDOR.pck_chain_pem.encode()


@pytest.mark.parametrize("tail", [b"", b"\0", b"\n\0\0", b" \r\n\t"])
def test_a_pem_chain_may_end_in_blanks_and_nul(tail: bytes) -> None:
    assert len(read_pem_chain(PEM + tail, field="x")) == 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        PEM + b"x",
        b"x" + PEM,
        PEM.replace(b"\n-----END", b"=\n-----END", 1),
        PEM * 3,
        PEM[:-20],
        PEM.replace(b"MII", b"M!I", 1),
    ],
)
def test_a_pem_chain_with_anything_else_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedEvidence):
        read_pem_chain(data, field="x")
