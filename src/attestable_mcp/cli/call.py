"""`call URL TOOL [name=value ...]`: verify a server, then call one of its tools."""

from __future__ import annotations

from typing import Any

from attestable_mcp.cli import text
from attestable_mcp.cli.command import Arguments, Parser, add_timeout
from attestable_mcp.cli.gate import add_meeting, demanded, gate_of
from attestable_mcp.cli.report import announce, show
from attestable_mcp.cli.source import address
from attestable_mcp.cli.terminal import Terminal, printable
from attestable_mcp.cli.toolargs import tool_arguments
from attestable_mcp.errors import EXIT_USAGE


def configure(parser: Parser) -> None:
    """`call URL TOOL [name=value ...] [--args-json JSON]`."""
    parser.add_argument("url", metavar="URL", help=text.HELP_URL)
    parser.add_argument("tool", metavar="TOOL", help=text.HELP_TOOL)
    parser.add_argument("words", metavar="name=value", nargs="*", default=[], help=text.HELP_ARGUMENTS)
    parser.add_argument("--args-json", metavar="JSON", help=text.HELP_ARGS_JSON)
    add_meeting(parser)
    add_timeout(parser)


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Print what the tool answered; the exit code is the verdict's, or 1 if the tool itself reports an error."""
    url = address(arguments.url)
    values = tool_arguments(arguments.words, arguments.args_json)
    gate = gate_of(arguments, *demanded(arguments, f"{text.PROGRAM} call", url))
    from attestable_mcp.cli.live import call_tool

    result, answer = call_tool(url, gate, arguments.tool, values, arguments.timeout)
    if terminal.json:
        show(terminal, result, {"tool": arguments.tool, "result": answer})
    else:
        announce(terminal, result)
        for line in _lines(answer):
            terminal.data(line)
    return EXIT_USAGE if answer.get("isError") else result.exit_code


def _lines(answer: dict[str, Any]) -> list[str]:
    """Text as it is, line by line, with its control characters escaped; other content by its type."""
    lines: list[str] = []
    for block in answer.get("content", []):
        if block.get("type") == "text":
            lines += [printable(line) for line in str(block.get("text", "")).split("\n")]
        else:
            lines.append(text.other_content(printable(block.get("type", "?"))))
    return lines
