"""An MCP server that proves itself. Needs a TEE, or ATTESTER=simulated to try it out."""

import asyncio
import os

from mcp.server import MCPServer

from attestable_mcp import serve

mcp = MCPServer("sums")


@mcp.tool()
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b


async def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    async with serve(mcp, listen="127.0.0.1:8443", attester=os.environ.get("ATTESTER", "auto")) as server:
        print(server.url)
        await server.wait_for_signal()


if __name__ == "__main__":
    asyncio.run(main())
