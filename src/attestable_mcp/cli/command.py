"""The grammar that all verbs share: what a verb is, its parser, and the options that several verbs take."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import re
import sys
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, Protocol

from attestable_mcp.cli import text
from attestable_mcp.cli.terminal import Terminal
from attestable_mcp.errors import ConfigurationError

Arguments = argparse.Namespace
_HOST = re.compile(r"[\w-]+(\.[\w-]+)*")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")


class UsageError(ConfigurationError):
    """The command line itself is wrong."""

    code = "usage"


class Verb(Protocol):
    """One verb is one module with these names."""

    def configure(self, parser: Parser) -> None:
        """Add the verb's own arguments."""

    def run(self, arguments: Arguments, terminal: Terminal) -> int:
        """Do it and return the exit code. Raises: the AttestationError family."""


class Parser(argparse.ArgumentParser):
    """argparse that raises `UsageError` instead of ending the process with 2, which means "refused" here."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        if sys.version_info >= (3, 14):
            options.setdefault("color", False)
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raises: UsageError, always."""
        raise UsageError(message, hint=text.see_help(self.prog))

    def parse(self, words: Sequence[str]) -> Arguments:
        """Positional and optional arguments in any order; `given` names those that are not as by default.

        Raises: UsageError.
        """
        arguments = self.parse_intermixed_args(list(words))
        arguments.given = frozenset(name for name, found in vars(arguments).items() if found != self.get_default(name))
        return arguments


TRUST = frozenset(
    {"policy", "genuine_only", "endorsements", "anchor", "accept_status", "accept_product", "danger_accept_simulated"}
)
"""The options of `add_trust`."""
_EVERYWHERE = frozenset({"action", "json", "debug"})


def demand_use(arguments: Arguments, verb: str, used: Collection[str]) -> None:
    """An option that the action has no use for was meant for something: refused, never passed over.

    `used` are the names of those that it reads. Raises: UsageError.
    """
    for name in sorted(arguments.given - _EVERYWHERE - set(used)):
        allowed = [text.option(each) for each in sorted(used)]
        program = f"{text.PROGRAM} {verb}"
        message = text.no_use(f"{verb} {arguments.action}", text.option(name), allowed)
        raise UsageError(message, hint=text.see_help(program))


def add_common(parser: argparse.ArgumentParser) -> None:
    """`--json` and `--debug`, which every verb takes."""
    parser.add_argument("--json", action="store_true", help=text.HELP_JSON)
    parser.add_argument("--debug", action="store_true", help=text.HELP_DEBUG)


def add_trust(parser: argparse.ArgumentParser) -> None:
    """What to demand of a server: `--policy FILE` or `--genuine-only`, and the switches that go with them."""
    group = parser.add_argument_group(text.GROUP_TRUST)
    group.add_argument("--policy", metavar="FILE", type=existing_path, help=text.HELP_POLICY)
    group.add_argument("--genuine-only", action="store_true", help=text.HELP_GENUINE)
    group.add_argument("--endorsements", metavar="PATH", type=existing_path, help=text.HELP_ENDORSEMENTS)
    group.add_argument("--anchor", metavar="PEM", type=existing_path, help=text.HELP_ANCHOR)
    group.add_argument("--accept-status", metavar="STATUS", action="append", default=[], help=text.HELP_ACCEPT_STATUS)
    group.add_argument("--accept-product", metavar="NAME", action="append", default=[], help=text.HELP_ACCEPT_PRODUCT)
    group.add_argument("--danger-accept-simulated", action="store_true", help=text.HELP_SIMULATED)


def add_timeout(parser: argparse.ArgumentParser) -> None:
    """`--timeout SECONDS`, for the verbs that meet a server."""
    parser.add_argument("--timeout", metavar="SECONDS", type=seconds, default=30.0, help=text.HELP_TIMEOUT)


def seconds(value: str) -> float:
    """A duration above zero and up to a day."""
    try:
        number = float(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(text.not_seconds(value)) from error
    if not 0 < number <= 86400:
        raise argparse.ArgumentTypeError(text.not_seconds(value))
    return number


def existing_path(value: str) -> Path:
    """A path that a person gave. An empty one is mostly an unset shell variable: an error, never "not given"."""
    if not value:
        raise argparse.ArgumentTypeError(text.EMPTY_PATH)
    return Path(value)


def moment(value: str) -> datetime:
    """An RFC 3339 time with its zone, as UTC. A bare date is refused: it would hide a day of doubt."""
    if not _RFC3339.fullmatch(value):
        raise argparse.ArgumentTypeError(text.not_a_time(value))
    try:
        return datetime.fromisoformat(value.upper().replace("Z", "+00:00")).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(text.not_a_time(value)) from error


def host_name(value: str) -> str:
    """A name or an address, as clients dial it: no scheme, no port, no blanks."""
    bare = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(bare))
    if not _HOST.fullmatch(value) or len(value) > 253:
        raise argparse.ArgumentTypeError(text.not_a_host(value))
    return value


def listen_address(value: str) -> tuple[str, int]:
    """`HOST:PORT`, `[V6]:PORT` or `:PORT`; port 0 takes a free one."""
    host, colon, port = value.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise argparse.ArgumentTypeError(text.not_an_address(value))
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if ":" in bare and bare == host:
        raise argparse.ArgumentTypeError(text.not_an_address(value))
    return bare or "127.0.0.1", int(port)
