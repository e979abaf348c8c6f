"""`verify SOURCE`: prove and judge a live server or stored evidence, and say everything that was found."""

from __future__ import annotations

from datetime import UTC, datetime

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.cli import text
from attestable_mcp.cli.command import Arguments, Parser, UsageError, add_timeout, add_trust, moment
from attestable_mcp.cli.report import show
from attestable_mcp.cli.source import Address, open_source
from attestable_mcp.cli.terminal import Terminal
from attestable_mcp.cli.trust import policy_of
from attestable_mcp.rats import AttestationResult


def configure(parser: Parser) -> None:
    """`verify SOURCE (--policy FILE | --genuine-only) [...]`."""
    parser.add_argument("source", metavar="SOURCE", help=text.HELP_SOURCE)
    add_trust(parser)
    parser.add_argument("--at", metavar="RFC3339", type=moment, help=text.HELP_AT)
    add_timeout(parser)


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Print the result; its verdict is the exit code."""
    policy = policy_of(arguments, f"{text.PROGRAM} verify")
    source = open_source(arguments.source)
    if isinstance(source, Address):
        if arguments.at:
            raise UsageError(text.AT_WITH_URL, hint=text.see_help(f"{text.PROGRAM} verify"))
        result = _live(source.url, policy, arguments.timeout)
    else:
        result = _stored(source.data, policy, arguments.at or datetime.now(UTC))
    show(terminal, result)
    return result.exit_code


def _live(url: str, policy: Policy, timeout: float) -> AttestationResult:
    from attestable_mcp.cli.live import meet

    return meet(url, policy, timeout)


def _stored(data: bytes, policy: Policy, at: datetime) -> AttestationResult:
    from attestable_mcp.verifier import Verifier

    return Verifier(policy).appraise_source(data, at).result
