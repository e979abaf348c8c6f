"""What must not be loaded before a desktop host has its first answer."""

from __future__ import annotations

import json
import subprocess
import sys

HELLO = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
    "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}}  # fmt: skip
SLOW = {"mcp", "mcp_types", "pydantic", "uvicorn", "starlette", "fastmcp"}


def test_connect_answers_without_the_sdk_and_without_a_server_s_parts() -> None:
    """The SDK and pydantic take longer to load than all that `connect` does before its first answer."""
    command = ["-m", "attestable_mcp", "connect", "https://127.0.0.1:9/mcp", "--genuine-only"]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command],
        input=json.dumps(HELLO) + "\n",
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert json.loads(done.stdout)["id"] == 1
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "httpx2" in loaded
    assert not loaded & SLOW
