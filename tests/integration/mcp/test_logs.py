"""Nothing that is asked or answered stands in a log of `serve` or `connect`, however much they are told to say."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(os.name == "nt", reason="no SIGTERM between processes")]
CANARY = "CANARY-7f3a"
SERVER = """
from mcp.server import MCPServer
mcp = MCPServer("quoter")

@mcp.tool()
def fail(text: str) -> str:
    raise ValueError("the tool says " + text)

@mcp.tool()
def add(a: int) -> str:
    return "CANARY" + "-7f3a result"
"""
CALLS: list[tuple[str, Any]] = [
    ("fail", {"text": CANARY}), ("add", {"a": CANARY}), ("add", {"a": 1}), (CANARY, {}), ("add", [CANARY]),
]  # fmt: skip


@asynccontextmanager
async def started(folder: Path, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "attestable_mcp", *words, cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def lines() -> bytes:
    opening = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": CANARY, "version": "1"}}
    sent: list[Any] = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": opening},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
    ]
    for number, (name, arguments) in enumerate(CALLS, 10):
        params = {"name": name, "arguments": arguments}
        sent.append({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
    sent.append({"jsonrpc": "2.0", "id": 99, "method": f"{CANARY}/x", "params": {CANARY: 1}})
    sent.append({"jsonrpc": "2.0", "method": "notifications/x", "params": {"x": CANARY}})
    return b"\n".join([*(json.dumps(message).encode() for message in sent), CANARY.encode(), b""])


@pytest.mark.parametrize("kind", ["sdk", pytest.param("stdio", marks=pytest.mark.slow)])
async def test_no_content_in_any_log(tmp_path: Path, kind: str) -> None:
    (tmp_path / "quoter.py").write_text(SERVER)
    (tmp_path / "run.py").write_text("from quoter import mcp\nimport logging\nlogging.disable()\nmcp.run()\n")
    target = ["quoter.py:mcp"] if kind == "sdk" else []
    command = [] if kind == "sdk" else ["--", sys.executable, "run.py"]
    loud = ["--json", "--verbose", "--debug"]
    async with started(tmp_path, "serve", *target, "--attester", "simulated", *loud, *command) as server:
        assert server.stdout is not None
        with anyio.fail_after(20):
            url = json.loads(await server.stdout.readline())["url"]
        trust = ["--genuine-only", "--danger-accept-simulated"]
        async with started(tmp_path, "connect", url, *trust, *loud) as bridge:
            assert bridge.stdin is not None
            assert bridge.stdout is not None
            bridge.stdin.write(lines())
            answered: set[Any] = set()
            with anyio.fail_after(20):
                while not {1, 10, 11, 12, 13, 14, 99} <= answered:
                    answered.add(json.loads(await bridge.stdout.readline()).get("id"))
            _, said = await bridge.communicate(b"")
        server.send_signal(signal.SIGTERM)
        out, err = await asyncio.wait_for(server.communicate(), 20)
    assert server.returncode == 0
    assert bridge.returncode == 0
    assert out == b""
    for text in (said, err):
        assert CANARY.encode() not in text
        assert all(json.loads(line)["level"] for line in text.splitlines()), text
    assert b"SIMULATED" in said
    assert b"stopping" in err


async def test_the_health_port_of_serve(tmp_path: Path, unused_port: Any) -> None:
    port = unused_port()
    (tmp_path / "quoter.py").write_text(SERVER)
    words = ["serve", "quoter.py:mcp", "--attester", "simulated", "--health", f"127.0.0.1:{port}", "--json"]
    async with started(tmp_path, *words) as server:
        assert server.stdout is not None
        with anyio.fail_after(20):
            await server.stdout.readline()
        assert await _status(port, "/healthz") == 200
        assert await _status(port, "/readyz") == 200
        assert await _status(port, "/mcp") == 404


async def _status(port: int, path: str) -> int:
    def ask() -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    return await asyncio.to_thread(ask)
