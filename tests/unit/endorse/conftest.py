"""A local double of Intel's PCS: the real addresses, the simulated vendor's answers, and a way to misbehave at each."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

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
