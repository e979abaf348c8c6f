"""PcsSource against the double: the real addresses, the exact bytes, and every way in which a service can fail."""

from __future__ import annotations

import asyncio
import gzip
import http.server
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from attestable_mcp.endorse.pcs import INTEL_PCS, PcsSource
from attestable_mcp.errors import ConfigurationError, EndorsementUnavailable
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import DocumentKind, EndorsementQuery, Tee
from attestable_mcp.simulator.options import EXPIRED, Collateral, TcbInfo

Handler = http.server.BaseHTTPRequestHandler


@pytest.fixture
def source(double: Any, tmp_path: Path) -> PcsSource:
    return PcsSource(double.url, tmp_path)


@pytest.mark.parametrize("tee", [Tee.SGX, Tee.TDX])
def test_the_whole_collateral_comes_from_the_real_addresses(double: Any, source: PcsSource, tee: Tee) -> None:
    found = source.fetch(double.query(tee), deadline_seconds=5)
    fmspc, ca = double.vendor.platform.fmspc.hex(), double.vendor.platform.pck_ca
    assert sorted(double.asked) == sorted([
        f"/{tee}/certification/v4/tcb?fmspc={fmspc}",
        f"/{tee}/certification/v4/qe/identity",
        f"/sgx/certification/v4/pckcrl?ca={ca}&encoding=der",
        "/sgx/certification/v4/rootcacrl",
    ])  # fmt: skip
    wanted = double.vendor.collateral(at=double.at, tee=tee)
    assert found.documents == wanted.documents
    assert [document.kind for document in found.documents] == [
        DocumentKind.INTEL_TCB_INFO,
        DocumentKind.INTEL_QE_IDENTITY,
    ]
    assert set(found.crls) == set(wanted.crls)
    assert len(found.certificates) == 2
    assert found.sources == (f"PCS {double.url}",)


def test_early_updates_are_asked_for_by_name(double: Any, tmp_path: Path) -> None:
    PcsSource(double.url + "/", tmp_path, "early").fetch(double.query(), deadline_seconds=5)
    assert any(target.startswith("/tdx/certification/v4/tcb?") and "update=early" in target for target in double.asked)
    assert "/tdx/certification/v4/qe/identity?update=early" in double.asked


def test_intel_serves_the_root_list_elsewhere() -> None:
    pieces = PcsSource()._pieces(
        EndorsementQuery(tee=Tee.SGX, parameters={"fmspc": "00a067110000", "pck_ca": "processor"})
    )
    assert [piece.url for piece in pieces] == [
        f"{INTEL_PCS}/sgx/certification/v4/tcb?fmspc=00a067110000",
        f"{INTEL_PCS}/sgx/certification/v4/qe/identity",
        f"{INTEL_PCS}/sgx/certification/v4/pckcrl?ca=processor&encoding=der",
        "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der",
    ]


def test_a_second_fetch_asks_nobody(double: Any, source: PcsSource, tmp_path: Path) -> None:
    first = source.fetch(double.query(), deadline_seconds=5)
    double.asked.clear()
    assert source.fetch(double.query(), deadline_seconds=5) == first
    assert PcsSource(double.url, tmp_path).fetch(double.query(), deadline_seconds=5) == first
    assert double.asked == []
    source.fetch(double.query(Tee.SGX), deadline_seconds=5)
    assert len(double.asked) == 2  # the revocation lists are the same for both kinds


def test_the_cache_never_outlives_next_update(double: Any, tmp_path: Path) -> None:
    PcsSource(double.url, tmp_path).fetch(double.query(), deadline_seconds=5)
    double.asked.clear()
    late = datetime.now(UTC) + timedelta(days=29, minutes=1)  # the simulated vendor's documents live 29 days
    PcsSource(double.url, tmp_path, now=lambda: late).fetch(double.query(), deadline_seconds=5)
    assert len(double.asked) == 4


def test_answers_are_asked_for_again_after_a_day(double: Any, tmp_path: Path) -> None:
    PcsSource(double.url, tmp_path).fetch(double.query(), deadline_seconds=5)
    double.asked.clear()
    for hours, asked in ((23, 0), (25, 4)):
        later = datetime.now(UTC) + timedelta(hours=hours)
        PcsSource(double.url, tmp_path, now=lambda later=later: later).fetch(double.query(), deadline_seconds=5)
        assert len(double.asked) == asked


def test_collateral_that_has_run_out_is_handed_over_but_not_kept(double: Any, source: PcsSource) -> None:
    double.answers = double.vendor.pcs_answers(at=double.at, options=Collateral(tcb_info=TcbInfo(span=EXPIRED)))
    assert source.fetch(double.query(), deadline_seconds=5).documents  # judging is not this room's task
    double.asked.clear()
    source.fetch(double.query(), deadline_seconds=5)
    assert [target.split("?")[0] for target in double.asked] == ["/tdx/certification/v4/tcb"]


def test_a_cache_that_cannot_be_written_is_no_failure(double: Any, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    assert PcsSource(double.url, blocked / "pcs").fetch(double.query(), deadline_seconds=5).documents


def test_it_works_inside_a_running_loop(double: Any, source: PcsSource) -> None:
    async def inside() -> int:
        return len(source.fetch(double.query(), deadline_seconds=5).crls)

    assert asyncio.run(inside()) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fmspc", ""), ("fmspc", "00"), ("fmspc", "00A067110000"), ("fmspc", "00a06711000g"),
        ("fmspc", "00a0671100000"),
        ("fmspc", "00a067110000&x=1"), ("fmspc", "../../../../x"), ("fmspc", "00a067110000\n"), ("fmspc", "٠" * 12),
        ("pck_ca", ""), ("pck_ca", "root"), ("pck_ca", "platform&encoding=pem"), ("pck_ca", "Platform"),
    ],
)  # fmt: skip
def test_nothing_unchecked_enters_an_address(double: Any, source: PcsSource, name: str, value: str) -> None:
    with pytest.raises(EndorsementUnavailable, match=name):
        source.fetch(double.query(**{name: value}), deadline_seconds=5)
    assert double.asked == []


def _send(body: bytes, headers: dict[str, str] | None = None, status: int = 200) -> Callable[[Handler], None]:
    def act(handler: Handler) -> None:
        handler.send_response(status)
        for key, value in (headers or {}).items():
            handler.send_header(key, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return act


def _raw(data: bytes) -> Callable[[Handler], None]:
    def act(handler: Handler) -> None:
        handler.wfile.write(data)
        handler.close_connection = True

    return act


# ruff: noqa: E501 - a table reads best with a row a line
SIGNATURE = b"00" * 64
TCB, QE, PCK_CRL, ROOT_CRL = "/tcb?", "/qe/identity", "/pckcrl", "/rootcacrl"
ODD_LIST = (
    x509.CertificateRevocationListBuilder(
        x509.Name([]), datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    )
    .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    .public_bytes(Encoding.DER)
    .replace(b"\x02\x01\x01", b"\x02\x01\x05", 1)
)
FAULTS: dict[str, tuple[str, Callable[[Handler], None], str]] = {
    "not found": (TCB, _send(b"", status=404), "status 404"),
    "too many": (TCB, _send(b"", {"Retry-After": "30"}, 429), "status 429: too many requests, asks to wait 30 seconds"),
    "too many, odd": (TCB, _send(b"", {"Retry-After": "x" * 99}, 429), "status 429: too many requests"),
    "broken": (QE, _send(b"oops", status=500), "wanted status 200, seen 500"),
    "no content": (QE, _send(b"", status=204), "wanted status 200, seen 204"),
    "redirect": (TCB, _send(b"", {"Location": "http://127.0.0.1:1/tcb"}, 302), "redirects are not followed"),
    "no json": (TCB, _send(b"<html>hello</html>"), "wanted a signed JSON document"),
    "no utf-8": (TCB, _send(b"\xff\xfe{}"), "wanted a signed JSON document"),
    "empty": (TCB, _send(b""), "wanted a signed JSON document"),
    "deep json": (TCB, _send(b'{"tcbInfo":' + b"[" * 200_000), "wanted a signed JSON document"),
    "long number": (TCB, _send(b'{"tcbInfo":' + b"9" * 9000 + b',"signature":"%s"}' % SIGNATURE), "wanted a signed JSON document"),
    "unsigned": (TCB, _send(b'{"tcbInfo":{"nextUpdate":"2030-01-01T00:00:00Z"}}'), "signature"),
    "two documents": (TCB, _send(b'{"a":{},"b":{},"signature":"%s"}' % SIGNATURE), "wanted the members"),
    "key twice": (TCB, _send(b'{"a":{},"a":{},"signature":"%s"}' % SIGNATURE), "wanted a signed JSON document"),
    "odd signature": (TCB, _send(b'{"tcbInfo":{},"signature":"zz"}'), "signature: wanted 128 hex digits"),
    "no date": (TCB, _send(b'{"tcbInfo":{},"signature":"%s"}' % SIGNATURE), "no readable nextUpdate"),
    "odd date": (TCB, _send(b'{"tcbInfo":{"nextUpdate":7},"signature":"%s"}' % SIGNATURE), "no readable nextUpdate"),
    "date past the end": (
        TCB, _send(b'{"tcbInfo":{"nextUpdate":"9999-12-31T23:59:59-10:00"},"signature":"%s"}' % SIGNATURE), "no readable nextUpdate",
    ),
    "no chain": (TCB, _send(b'{"tcbInfo":{"nextUpdate":"2099-01-01T00:00:00Z"},"signature":"%s"}' % SIGNATURE), "tcb-info-issuer-chain"),
    "list of no version": (PCK_CRL, _send(ODD_LIST), "wanted a revocation list"),
    "garbage list": (PCK_CRL, _send(b"0\x82garbage"), "wanted a revocation list"),
    "text list": (ROOT_CRL, _send(b"not hex"), "wanted a revocation list"),
    "empty list": (ROOT_CRL, _send(b""), "wanted a revocation list"),
    "too large": (TCB, _send(b" " * (LIMITS.endorsement + 1)), f"wanted at most {LIMITS.endorsement} bytes"),
    "compressed": (TCB, _send(gzip.compress(b" " * 10_000_000), {"Content-Encoding": "gzip"}), "content encoding"),
    "no http": (TCB, _raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), "RemoteProtocolError"),
    "half a head": (TCB, _raw(b"HTTP/1.1 200 OK\r\nContent-"), "RemoteProtocolError"),
    "half a body": (TCB, _raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nxx"), "RemoteProtocolError"),
    "endless head": (TCB, _raw(b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * 100_000), "RemoteProtocolError"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_faulty_answer_is_unavailable_and_not_kept(double: Any, source: PcsSource, name: str) -> None:
    part, misbehave, words = FAULTS[name]
    double.wrong[part] = misbehave
    with pytest.raises(EndorsementUnavailable) as caught:
        source.fetch(double.query(), deadline_seconds=10)
    assert words in caught.value.message
    assert double.url in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 3
    double.wrong.clear()
    assert source.fetch(double.query(), deadline_seconds=5).documents


def _stall(double: Any, before: bytes) -> Callable[[Handler], None]:
    def act(handler: Handler) -> None:
        handler.wfile.write(before)
        handler.wfile.flush()
        double.over.wait(20)
        handler.close_connection = True

    return act


def _drip(double: Any, before: bytes) -> Callable[[Handler], None]:
    def act(handler: Handler) -> None:
        handler.wfile.write(before)
        while not double.over.wait(0.05):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    return act


@pytest.mark.parametrize("part", [TCB, ROOT_CRL])
@pytest.mark.parametrize(
    ("behave", "before"),
    [
        (_stall, b""),
        (_stall, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nx"),
        (_drip, b"HTTP/1.1 200 OK\r\nX: "),
        (_drip, b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"),
    ],
    ids=["silent", "silent body", "dripping head", "dripping body"],
)
def test_a_stalling_service_costs_no_more_than_the_deadline(
    double: Any, source: PcsSource, part: str, behave: Callable[..., Any], before: bytes
) -> None:
    double.wrong[part] = behave(double, before)
    started = time.monotonic()
    with pytest.raises(EndorsementUnavailable, match=r"no whole answer within 0\.2 seconds|Timeout"):
        source.fetch(double.query(), deadline_seconds=0.2)
    assert time.monotonic() - started < 2


def test_an_endless_body_is_cut_at_the_cap(double: Any, source: PcsSource) -> None:
    sent = 0

    def flood(handler: Handler) -> None:
        nonlocal sent
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while sent < 100 * LIMITS.endorsement:
            handler.wfile.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
            sent += 65536

    double.wrong[TCB] = flood
    with pytest.raises(EndorsementUnavailable, match="wanted at most"):
        source.fetch(double.query(), deadline_seconds=10)
    assert sent < 20 * LIMITS.endorsement


def test_nobody_listens(double: Any, tmp_path: Path) -> None:
    with pytest.raises(EndorsementUnavailable, match="ConnectError"):
        PcsSource("http://127.0.0.1:1", tmp_path).fetch(double.query(), deadline_seconds=5)


@pytest.mark.parametrize(
    "url",
    ["", "pccs", "ftp://x/", "https://", "https://u:p@x/", "https://x/?a=b", "https://x/#f", "https://x:99999/",
     "https://x y/", "https://x/\r\nHost: y", "file:///etc/passwd"],
)  # fmt: skip
def test_addresses_that_cannot_be(url: str) -> None:
    with pytest.raises(ConfigurationError):
        PcsSource(url)


def test_an_update_kind_that_cannot_be() -> None:
    with pytest.raises(ConfigurationError):
        PcsSource(update="latest")  # type: ignore[arg-type]
