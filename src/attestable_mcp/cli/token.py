"""`--token`: the result of `verify` as a signed EAR."""

from __future__ import annotations

from collections.abc import Callable

from attestable_mcp.cli import text, text_token
from attestable_mcp.cli.command import Arguments, Parser, UsageError, existing_path
from attestable_mcp.cli.output import write_file
from attestable_mcp.cli.source import read_file
from attestable_mcp.rats import AttestationResult

_KEY_MOST = 64 * 1024


def add_token(parser: Parser) -> None:
    """`--token FILE --token-key PEM [--token-issuer NAME] [--token-nonce TEXT]`."""
    group = parser.add_argument_group(text_token.GROUP)
    group.add_argument("--token", metavar="FILE", type=existing_path, help=text_token.HELP)
    group.add_argument("--token-key", metavar="PEM", type=existing_path, help=text_token.HELP_KEY)
    group.add_argument("--token-issuer", metavar="NAME", default="", help=text_token.HELP_ISSUER)
    group.add_argument("--token-nonce", metavar="TEXT", default="", help=text_token.HELP_NONCE)


def add_nonce(parser: Parser) -> None:
    """`--nonce TEXT`."""
    parser.add_argument("--nonce", metavar="TEXT", default="", help=text_token.HELP_DEMANDED)


def token_writer(arguments: Arguments) -> Callable[[AttestationResult], None]:
    """What writes the token, with a key that is known to sign; nothing where none is asked for.

    Raises: UsageError, ConfigurationError.
    """
    if bool(arguments.token) != bool(arguments.token_key):
        raise UsageError(text_token.TOGETHER, hint=text.see_help(f"{text.PROGRAM} verify"))
    if not arguments.token:
        return lambda result: None
    from attestable_mcp.ear import claims_of, sign

    key = read_file(arguments.token_key, _KEY_MOST)
    sign({}, key)

    def write(result: AttestationResult) -> None:
        claims = claims_of(result, issuer=arguments.token_issuer, nonce=arguments.token_nonce)
        write_file(arguments.token, sign(claims, key) + "\n", force=True)

    return write
