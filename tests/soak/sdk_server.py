"""The SDK's server with the tools of `child.py`."""

import anyio
from mcp.server import MCPServer

mcp = MCPServer("soak")


@mcp.tool()
def add(a: int, b: int) -> str:
    return str(a + b)


@mcp.tool()
async def sleep(seconds: float) -> str:
    await anyio.sleep(seconds)
    return "0"
