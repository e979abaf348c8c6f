"""Trust on first use, from the host's side: `connect` without a policy, and `attested_client(pins=...)`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.server import MCPServer

from attestable_mcp import AppraisalRefused, ConfigurationError, Pins, Verdict, attested_client, serve
from attestable_mcp.bind.live import Commitments

pytestmark = pytest.mark.anyio
FIRST, OTHER = bytes(range(32)), bytes(32)
OPEN = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
    "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}}  # fmt: skip


def demo() -> MCPServer:
    server = MCPServer("demo", log_level="ERROR")

    @server.tool()
    def add(a: int, b: int) -> int:
        return a + b

    return server


def serving(measured: bytes = FIRST, listen: str = "127.0.0.1:0", **options: Any) -> Any:
    return serve(demo(), attester="simulated", measured=measured, listen=listen, **options)


@asynccontextmanager
async def connecting(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "attestable_mcp", "connect", url, "--danger-accept-simulated",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def ask(process: asyncio.subprocess.Process, message: dict[str, Any]) -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(message).encode() + b"\n")
    with anyio.fail_after(30):
        return json.loads(await process.stdout.readline())


async def test_connect_pins_refuses_a_changed_server_readably_and_goes_on_when_it_is_accepted() -> None:
    async with serving() as server:
        url, listen = server.url, f"127.0.0.1:{server.port}"
        async with connecting(url) as process:
            assert "result" in await ask(process, OPEN)
            _, told = await process.communicate(b"")
    assert b"met for the first time, and pinned" in told
    assert b"mrenclave 0001020304050607" in told
    async with serving(OTHER, listen) as server, connecting(url) as process:
        refusal = (await ask(process, OPEN))["error"]
        assert refusal["code"] == -32010
        assert refusal["data"]["code"] == "pin_mismatch"
        assert (refusal["data"]["wanted"], refusal["data"]["seen"]) == (FIRST.hex(), OTHER.hex())
        assert f"attestable-mcp pin --update https://{listen}" in refusal["message"]
        update = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "attestable_mcp", "pin", "--update", url, "--yes", "--danger-accept-simulated",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        shown, _ = await update.communicate()
        assert update.returncode == 0
        assert FIRST.hex().encode() in shown
        assert OTHER.hex().encode() in shown
        assert "result" in await ask(process, {**OPEN, "id": 2}), "the same bridge goes on"
        _, told = await process.communicate(b"")
    assert b"it is the pinned server" in told


async def test_connect_with_a_damaged_pin_refuses_and_says_which_file(tmp_path: Path) -> None:
    folder = Path(os.environ["XDG_DATA_HOME"]) / "attestable-mcp" / "pins"
    async with serving() as server:
        origin = server.url.removesuffix("/mcp")
        path = Pins(folder).path(origin)
        path.parent.mkdir(parents=True)
        path.write_text("{")
        async with connecting(server.url) as process:
            refusal = (await ask(process, OPEN))["error"]
    assert refusal["code"] == -32010
    assert refusal["message"].startswith("refused, for something on this side: "), "no word about the server"
    assert refusal["data"]["hint"] in refusal["message"]
    assert refusal["data"]["code"] == "pin_damaged"
    assert str(path) in refusal["message"]
    assert path.read_text() == "{"


async def test_the_client_takes_pins_in_the_place_of_a_policy(tmp_path: Path) -> None:
    pins = Pins(tmp_path)
    async with serving() as server:
        listen = f"127.0.0.1:{server.port}"
        async with attested_client(server.url, pins=pins, danger_accept_simulated=True) as client:
            assert client.attestation.verdict is Verdict.PARTIAL
            assert (await client.call_tool("add", {"a": 2, "b": 3})).structured_content == {"result": 5}
        async with attested_client(server.url, pins=pins, danger_accept_simulated=True) as client:
            assert client.attestation.verdict is Verdict.VERIFIED
        url = server.url
    async with serving(FIRST, listen, commitments=lambda: Commitments(deployment_key=b"\1" * 32)):
        with pytest.raises(AppraisalRefused) as caught:
            async with attested_client(url, pins=pins, danger_accept_simulated=True):
                pass
    assert caught.value.code == "pin_mismatch"
    assert "deployment_key: pinned none" in caught.value.message


async def test_simulated_evidence_needs_its_flag_under_pins_too(tmp_path: Path) -> None:
    async with serving() as server:
        with pytest.raises(AppraisalRefused) as caught:
            async with attested_client(server.url, pins=Pins(tmp_path)):
                pass
    assert caught.value.code == "simulated_evidence"
    assert not list(tmp_path.iterdir()), "who is refused is not pinned"


async def test_neither_policy_nor_pins_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="policy"):
        attested_client("https://mcp.example:8443/mcp")


async def test_the_entry_that_install_writes_starts_a_bridge_that_answers(tmp_path: Path) -> None:
    """What a host does: read its own file, start the command, speak MCP; nothing of ours stands between."""
    file = tmp_path / "mcp.json"
    async with serving() as server:
        install = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "attestable_mcp", "install", "cursor", "demo", server.url, "--file", str(file),
            "--danger-accept-simulated", stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, told = await install.communicate()
        assert install.returncode == 0, told
        entry = json.loads(file.read_text())["mcpServers"]["demo"]
        process = await asyncio.create_subprocess_exec(
            entry["command"], *entry["args"], cwd="/", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert (await ask(process, OPEN))["result"]["serverInfo"]["name"] == "demo"
        await process.communicate(b"")
    assert process.returncode == 0
