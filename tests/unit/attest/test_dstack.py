"""The dstack attester against an agent on a Unix socket, as dstack's guest agent answers."""

from __future__ import annotations

import json
import logging
import socketserver
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from dstack_double import in_msgpack, in_scale

from attestable_mcp.attest import unix_http
from attestable_mcp.attest.dstack import DstackAttester
from attestable_mcp.attest.eventlogs import LOG_MOST
from attestable_mcp.errors import AttesterError
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Endorsements, EvidenceKind
from attestable_mcp.simulator import amd, aws
from attestable_mcp.simulator.intel import Vendor
from attestable_mcp.wire.intel import read_quote
from attestable_mcp.wire.snp import read_report

VENDOR, AMD = Vendor(), amd.well_known()
Answer = Callable[[str, dict[str, Any]], tuple[int, bytes]]


def good(path: str, asked: dict[str, Any]) -> tuple[int, bytes]:
    quote = VENDOR.quote_tdx(bytes.fromhex(asked["report_data"]))
    return 200, json.dumps({"quote": quote.hex(), "event_log": "[]", "vm_config": "{}"}).encode()


@contextmanager
def agent(answer: Answer = good, name: str = "dstack.sock") -> Iterator[Path]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status, body = answer(self.path, asked)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "unix"

        def log_message(self, format: str, *arguments: object) -> None:
            return

    with tempfile.TemporaryDirectory(prefix="agent") as folder:
        path = Path(folder) / name
        with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            try:
                yield path
            finally:
                server.shutdown()
                thread.join(10)


@pytest.mark.parametrize(("name", "target"), [("dstack.sock", "/GetQuote"), ("tappd.sock", "/prpc/Tappd.RawQuote")])
def test_quotes_carry_the_data(name: str, target: str) -> None:
    paths: list[str] = []

    def noted(path: str, asked: dict[str, Any]) -> tuple[int, bytes]:
        paths.append(path)
        return good(path, asked)

    with agent(noted, name) as socket:
        attester = DstackAttester(socket)
        evidence = attester.attest(b"\x0a" * 64)
    assert evidence.kind is EvidenceKind.INTEL_QUOTE
    assert read_quote(evidence.body).report_data == b"\x0a" * 64
    assert paths == [target] * 2, "one at the start, to learn the platform"
    assert attester.endorsements() == Endorsements()
    assert (attester.tee, attester.simulated) == ("tdx", False)


def logged(log: object) -> Answer:
    def answer(path: str, asked: dict[str, Any]) -> tuple[int, bytes]:
        status, body = good(path, asked)
        return status, json.dumps(json.loads(body) | {"event_log": log}).encode()

    return answer


def test_the_event_log_of_the_quote_goes_along() -> None:
    event = {"imr": 3, "event_type": 0x08000001, "digest": "", "event": "app-id", "event_payload": "0a"}
    log = json.dumps([event, event | {"event": "system-ready", "version": 2}])
    with agent(logged(log)) as socket:
        attester = DstackAttester(socket)
        attester.attest(bytes(64))
    assert [item.body for item in attester.endorsements().event_logs] == [log.encode()]


def versioned(make: Callable[[bytes], bytes]) -> Answer:
    """An agent on another platform than TDX."""

    def answer(path: str, asked: dict[str, Any]) -> tuple[int, bytes]:
        sent = make(bytes.fromhex(asked["report_data"]))
        return 200, json.dumps({"quote": "", "event_log": "", "attestation": sent.hex()}).encode()

    return answer


def test_on_amd_the_report_comes_with_its_chain() -> None:
    chain = (AMD.vcek.der, AMD.ask.der, AMD.ark.der)
    with agent(versioned(lambda data: in_scale("sev-snp", AMD.report(data, bytes(48)), chain=chain))) as socket:
        attester = DstackAttester(socket)
        evidence = attester.attest(b"\x0b" * 64)
    assert (attester.tee, evidence.kind) == ("sev-snp", EvidenceKind.SNP_REPORT)
    assert read_report(evidence.body).report_data == b"\x0b" * 64
    assert attester.endorsements().certificates == chain


def test_in_a_nitro_enclave_the_document_comes() -> None:
    now = datetime.now(UTC)
    with agent(versioned(lambda data: in_msgpack("nitro-enclave", aws.well_known().document(data, at=now)))) as socket:
        attester = DstackAttester(socket)
        evidence = attester.attest(b"\x0c" * 64)
    assert (attester.tee, evidence.kind) == ("nitro", EvidenceKind.NITRO_DOCUMENT)
    assert attester.endorsements() == Endorsements()


def test_a_platform_that_nobody_here_verifies_is_named() -> None:
    with agent(versioned(lambda data: in_scale("aws-nitro-tpm", data))) as socket:
        with pytest.raises(AttesterError, match="NitroTPM"):
            DstackAttester(socket)


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        (None, ""),
        ([], ""),
        ("", ""),
        ("{}", "wanted a list"),
        ('[{"imr": 7, "digest": ""}]', "wanted imr 0 to 3"),
        (json.dumps([{"imr": 0, "digest": "00" * 48}] * 1000).ljust(LOG_MOST + 1), f"at most {LOG_MOST} travel"),
    ],
)
def test_a_log_that_verifiers_would_refuse_stays_here(
    log: object, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with agent(logged(log)) as socket:
        attester = DstackAttester(socket)
        with caplog.at_level(logging.WARNING):
            attester.attest(bytes(64))
    assert attester.endorsements() == Endorsements()
    assert reason in caplog.text


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda *_: (500, b"no quote"), "wanted 200, seen 500: 'no quote'"),
        (lambda *_: (200, b"[]"), "wanted a JSON object"),
        (lambda *_: (200, b"{"), "wanted JSON"),
        (lambda *_: (200, b"[" * 100_000), "wanted JSON"),
        (lambda *_: (200, b"{}"), "wanted a quote in hex, seen none"),
        (lambda *_: (200, b'{"quote": 7}'), "seen none"),
        (lambda *_: (200, b'{"quote": "zz"}'), "wanted quote in hex, seen 'zz'"),
        (lambda *_: (200, b'{"quote": "00"}'), "of kind intel-quote"),
        (lambda *_: (200, b'{"quote": "", "attestation": "07"}'), "wanted SCALE"),
        (lambda *_: (200, b'{"quote": "", "attestation": "zz"}'), "wanted attestation in hex"),
        (lambda *_: (200, b" " * (LIMITS.endorsement + 2)), "more than"),
        (lambda *_: good("", {"report_data": "ff" * 64}), "the report data just given"),
    ],
)
def test_wrong_answers_are_faults(answer: Answer, message: str) -> None:
    with agent(answer) as socket, pytest.raises(AttesterError, match=message):
        DstackAttester(socket).attest(bytes(64))


def test_a_silent_agent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def silent(path: str, asked: dict[str, Any]) -> tuple[int, bytes]:
        release.wait(10)
        return 200, b"{}"

    monkeypatch.setattr(unix_http.unix, "__defaults__", (0.05,))
    with agent(silent) as socket:
        with pytest.raises(AttesterError, match="timed out"):
            DstackAttester(socket).attest(bytes(64))
        release.set()


def test_no_socket_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(AttesterError, match="No such file") as caught:
        DstackAttester(tmp_path / "dstack.sock")
    assert "volumes" in caught.value.hint


def test_a_socket_without_an_agent(tmp_path: Path) -> None:
    (tmp_path / "dstack.sock").touch()
    with pytest.raises(AttesterError, match="refused"):
        DstackAttester(tmp_path / "dstack.sock").attest(bytes(64))
