"""`tools URL`: verify a server, then list its tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attestable_mcp.cli import text
from attestable_mcp.cli.command import Arguments, Parser, add_timeout
from attestable_mcp.cli.gate import add_meeting, demanded, gate_of
from attestable_mcp.cli.report import announce, show
from attestable_mcp.cli.source import address
from attestable_mcp.cli.terminal import Terminal, printable


def configure(parser: Parser) -> None:
    """`tools URL`."""
    parser.add_argument("url", metavar="URL", help=text.HELP_URL)
    add_meeting(parser)
    add_timeout(parser)


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Print the tools; the exit code is the verdict's."""
    url = address(arguments.url)
    gate = gate_of(arguments, *demanded(arguments, f"{text.PROGRAM} tools", url))
    from attestable_mcp.cli.live import list_tools

    result, tools = list_tools(url, gate, arguments.timeout)
    if terminal.json:
        show(terminal, result, {"tools": tools})
        return result.exit_code
    announce(terminal, result)
    for tool in tools:
        terminal.data(_line(terminal, tool))
    return result.exit_code


def _line(terminal: Terminal, tool: Mapping[str, Any]) -> str:
    schema = tool.get("inputSchema") or {}
    required = schema.get("required") or []
    words = [f"{name}=..." if name in required else f"[{name}=...]" for name in schema.get("properties") or {}]
    shown = printable(" ".join([str(tool.get("name", "")), *words]))
    about = printable(str(tool.get("description") or "").strip().partition("\n")[0])
    return f"{terminal.paint('name', shown)}\n    {about}" if about else terminal.paint("name", shown)
