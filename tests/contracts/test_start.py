"""What must not be loaded before a desktop host has its first answer."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
import attestable_mcp.cli.connect, attestable_mcp.mcp.bridge, attestable_mcp.mcp.bridge_stdio
import attestable_mcp.mcp.gate, attestable_mcp.mcp.outbound, attestable_mcp.mcp.watched, attestable_mcp.tls.pins
slow = {"mcp", "mcp_types", "pydantic", "uvicorn", "starlette", "fastmcp"}
print(sorted(slow & {name.partition(".")[0] for name in sys.modules}))
"""


def test_connect_starts_without_the_sdk_and_without_a_server() -> None:
    """The SDK and pydantic take longer to load than all that `connect` does before its first answer."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
