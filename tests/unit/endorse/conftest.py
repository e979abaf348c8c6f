"""Local doubles of Intel's PCS and AMD's KDS: the real addresses and rules, and ways to misbehave at each."""

from __future__ import annotations

import http.server
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from attestable_mcp.endorse.kds import KdsSource
from attestable_mcp.endorse.throttle import Throttle
from attestable_mcp.rats import EndorsementQuery, Tee
from attestable_mcp.simulator.intel import Vendor, well_known

Misbehaviour = Callable[[http.server.BaseHTTPRequestHandler], None]


class Double:
    """`asked` lists the targets as they came; `wrong` maps a part of a target to what happens there."""

    def __init__(self, at: datetime) -> None:
        self.vendor: Vendor = well_known()
        self.at = at
        self.answers = self.vendor.pcs_answers(at=at)
        self.asked: list[str] = []
        self.wrong: dict[str, Misbehaviour] = {}
        self.url = ""
        self.over = threading.Event()

    def query(self, tee: Tee = Tee.TDX, **parameters: str) -> EndorsementQuery:
        known = {"fmspc": self.vendor.platform.fmspc.hex(), "pck_ca": self.vendor.platform.pck_ca}
        return EndorsementQuery(tee=tee, parameters=known | parameters)

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        self.asked.append(handler.path)
        for part, misbehave in self.wrong.items():
            if part in handler.path:
                return misbehave(handler)
        found = self.answers.get(handler.path)
        if found is None:
            return send(handler, b"", status=404)
        return send(handler, found.body, dict(found.headers))


def send(
    handler: http.server.BaseHTTPRequestHandler, body: bytes, headers: dict[str, str] | None = None, status: int = 200
) -> None:
    handler.send_response(status)
    for name, value in (headers or {}).items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def double() -> Iterator[Double]:
    double = Double(datetime.now(UTC))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                double.answer(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *args: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    double.url = f"http://127.0.0.1:{server.server_port}"
    yield double
    double.over.set()
    server.shutdown()
    server.server_close()
    thread.join()


# --- AMD's key service ------------------------------------------------------------------------------------------------

_VCEK = re.compile(r"/vcek/v1/(Milan|Genoa|Turin)/([0-9a-f]+)")
_LEVELS = {
    "Milan": ["blSPL", "teeSPL", "snpSPL", "ucodeSPL"],
    "Genoa": ["blSPL", "teeSPL", "snpSPL", "ucodeSPL"],
    "Turin": ["fmcSPL", "blSPL", "teeSPL", "snpSPL", "ucodeSPL"],
}
RATION = 10.0


@dataclass
class Clock:
    """Time that passes only where somebody sleeps."""

    seconds: float = 1_000_000.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds


@dataclass
class Kds:
    """`veks` maps (product, hwid, query) to DER; `files` other paths. It rations VCEKs by its clock, as AMD's does."""

    clock: Clock
    veks: dict[tuple[str, str, str], bytes] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    retry_after: bool = True
    faults: list[int] = field(default_factory=list)
    last: float = float("-inf")
    running: int = 0
    most_running: int = 0
    hold: Callable[[], None] = lambda: None
    other: Callable[[str], bytes | None] = lambda target: None
    """Who answers where `veks` and `files` hold nothing: a vendor of the simulator."""
    url: str = ""

    def answer(self, target: str) -> tuple[int, bytes, dict[str, str]]:
        if self.faults:
            return self.faults.pop(0), b"", {}
        parts = urlsplit(target)
        found = _VCEK.fullmatch(parts.path)
        if found is None:
            body = self.files.get(parts.path) or self.other(target)
            return (404, b"", {}) if body is None else (200, body, {})
        return self.vcek(found[1], found[2], parts.query)

    def vcek(self, product: str, hwid: str, query: str) -> tuple[int, bytes, dict[str, str]]:
        waited = self.clock.now() - self.last
        if waited < RATION:
            left = str(int(RATION - waited) + 1)
            return 429, b"", {"Retry-After": left} if self.retry_after else {}
        self.last = self.clock.now()
        if len(hwid) != (16 if product == "Turin" else 128) or [n for n, _ in parse_qsl(query)] != _LEVELS[product]:
            return 400, b"", {}
        body = self.veks.get((product, hwid, query)) or self.other(f"/vcek/v1/{product}/{hwid}?{query}")
        return (404, b"", {}) if body is None else (200, body, {"Content-Type": "application/x-x509-ca-cert"})

    def source(self, folder: Path) -> KdsSource:
        clock = self.clock
        throttle = Throttle("KDS", folder / "turn.sqlite", now=clock.now, monotonic=clock.now, sleep=clock.sleep)
        return KdsSource(self.url, folder, throttle=throttle)


@contextmanager
def running(kds: Kds) -> Iterator[Kds]:
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with lock:
                kds.running += 1
                kds.most_running = max(kds.most_running, kds.running)
                kds.asked.append(self.path)
                status, body, headers = kds.answer(self.path)
                kds.statuses.append(status)
            kds.hold()
            with lock:
                kds.running -= 1
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    kds.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield kds
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def kds() -> Iterator[Kds]:
    with running(Kds(clock=Clock())) as double:
        yield double
