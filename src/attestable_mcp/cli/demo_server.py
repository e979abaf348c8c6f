"""A small MCP server for the demo. It is copied to a file of its own before it is served."""

from mcp.server import MCPServer

server = MCPServer("sums", log_level="WARNING")


@server.tool()
def add(a: int, b: int) -> int:
    """Add two whole numbers."""
    return a + b
