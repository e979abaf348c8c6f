"""What users keep while the server changes under them: sessions through a renewal, calls through SIGTERM."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from processes import is_alive

from attestable_mcp import Policy, attested_client, serve
from attestable_mcp.tls.client import attest_server, attested_http_client

pytestmark = pytest.mark.anyio
MEASURED = bytes(range(32))
SESSIONS = 6
RENEWALS = 4


BOTH = {"content-type": "application/json", "accept": "application/json, text/event-stream"}


def opening(request_id: int) -> dict[str, Any]:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    return {"jsonrpc": "2.0", "id": request_id, "method": "initialize", "params": params}


def policy() -> Policy:
    text = '[trust]\nsimulated = "accept"\nendorsements = ["stapled"]\n\n[policy]\nmrenclave = "{}"\n'
    return Policy.from_toml(text.format(MEASURED.hex()))


def busy_server(done: anyio.Event) -> MCPServer:
    found = MCPServer("busy")

    @found.tool()
    def add(a: int, b: int) -> int:
        return a + b

    @found.tool()
    async def stream(ctx: Context[Any, Any]) -> str:
        count = 0
        while not done.is_set():
            count += 1
            await ctx.report_progress(count)
            await anyio.sleep(0.02)
        return str(count)

    return found


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_sessions_and_a_long_stream_live_through_renewals_under_load(mode: Any) -> None:
    done, ready = anyio.Event(), anyio.Event()
    heard: list[float] = []
    at_renewal: list[int] = []
    calls = 0
    keys: set[str] = set()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)
        ready.set()

    async def caller() -> None:
        nonlocal calls
        async with attested_client(server.url, policy=policy(), mode=mode) as client:
            while not done.is_set():
                result = await client.call_tool("add", {"a": calls, "b": 1})
                assert not result.is_error
                calls += 1

    async def listener() -> None:
        async with attested_client(server.url, policy=policy(), mode=mode) as client:
            result = await client.call_tool("stream", {}, progress_callback=note)
            assert int(result.content[0].text) >= len(heard)

    async with serve(busy_server(done), attester="simulated", measured=MEASURED) as server:
        async with anyio.create_task_group() as tasks:
            for _ in range(SESSIONS):
                tasks.start_soon(caller)
            tasks.start_soon(listener)
            with anyio.fail_after(20):
                await ready.wait()
            for _ in range(RENEWALS):
                keys.add(server.spki_sha256)
                before = calls, len(heard)
                await server.server.renew()
                peer = await attest_server(policy(), server.url)
                assert peer.spki_sha256 == server.spki_sha256
                with anyio.fail_after(20):
                    while calls < before[0] + SESSIONS or len(heard) <= before[1]:
                        await anyio.sleep(0.01)
                at_renewal.append(len(heard))
            done.set()
        keys.add(server.spki_sha256)
    assert len(keys) == RENEWALS + 1
    assert at_renewal == sorted(set(at_renewal))
    assert heard == sorted(heard)
    assert calls >= RENEWALS * SESSIONS


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM between processes")
async def test_sigterm_lets_a_stdio_call_end_and_leaves_no_process(tmp_path: Path, unused_port: Any) -> None:
    (tmp_path / "slow.py").write_text(
        "import os, anyio\nfrom pathlib import Path\nfrom mcp.server import MCPServer\nmcp = MCPServer('slow')\n"
        "Path(f'pid-{os.getpid()}').touch()\n"
        "@mcp.tool()\nasync def wait() -> str:\n"
        "    Path('begun').touch()\n    await anyio.sleep(1.5)\n    return 'done'\n"
        "mcp.run()\n"
    )
    port = unused_port()
    words = ["serve", "--attester", "simulated", "--json", "--health", f"127.0.0.1:{port}", "--drain", "8"]
    words += ["--max-sessions", "1", "--", sys.executable, "slow.py"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "attestable_mcp", *words, cwd=tmp_path, stdout=pipe, stderr=pipe
    )
    answers: list[Any] = []
    try:
        assert process.stdout is not None
        with anyio.fail_after(30):
            url = json.loads(await process.stdout.readline())["url"]
        trusting = Policy.genuine_only().with_overrides(simulated=True)
        async with attested_http_client(trusting, url=url, headers=BOTH, timeout=20) as http:
            opened = await http.post(url, json=opening(1))
            session = {"mcp-session-id": opened.headers["mcp-session-id"]}
            second = await http.post(url, json=opening(2))
            assert second.status_code == 503
            assert "too many sessions" in second.json()["error"]["message"]

            async def ask() -> None:
                call = {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "wait", "arguments": {}}}
                answers.append((await http.post(url, json=call, headers=session)).text)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                with anyio.fail_after(20):
                    while not (tmp_path / "begun").exists():
                        await anyio.sleep(0.02)
                process.send_signal(signal.SIGTERM)
                await anyio.sleep(0.3)
                assert await _status(port, "/readyz") == 503
                assert await _status(port, "/healthz") == 200
        await asyncio.wait_for(process.wait(), 20)
    finally:
        if process.returncode is None:
            process.kill()
        _, err = await process.communicate()
    assert "done" in answers[0]
    assert process.returncode == 0, err
    pids = [int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*")]
    assert len(pids) >= 2
    assert not [pid for pid in pids if is_alive(pid)]


async def _status(port: int, path: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status
