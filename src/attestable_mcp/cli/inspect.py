"""`inspect SOURCE`: what evidence says about itself. Nothing is verified, and every line says so."""

from __future__ import annotations

from attestable_mcp.cli import text
from attestable_mcp.cli.command import Arguments, Parser, add_timeout
from attestable_mcp.cli.source import Address, open_source
from attestable_mcp.cli.terminal import Terminal, printable


def configure(parser: Parser) -> None:
    """`inspect SOURCE`."""
    parser.add_argument("source", metavar="SOURCE", help=text.HELP_SOURCE)
    add_timeout(parser)


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Print the parsed source; 0 if it could be parsed, which proves nothing."""
    from attestable_mcp.cli.describe import describe, rows

    source = open_source(arguments.source)
    data = _certificate(source.url, arguments.timeout) if isinstance(source, Address) else source.data
    found = {"source": arguments.source, **describe(data)}
    if terminal.json:
        terminal.emit(found)
        return 0
    terminal.say(terminal.paint("warn", text.UNVERIFIED_BANNER))
    for name, value in rows(found):
        mark = terminal.paint("warn", text.UNVERIFIED)
        terminal.data(f"{mark}  {terminal.paint('dim', f'{printable(name):<40}')} {printable(value)}")
    return 0


def _certificate(url: str, timeout: float) -> bytes:
    from attestable_mcp.cli.live import certificate_of

    return certificate_of(url, timeout)
