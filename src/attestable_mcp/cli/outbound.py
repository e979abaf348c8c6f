"""The options that say what goes out with each request to a server: headers. Their values are never shown."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

from attestable_mcp.cli import text_connect as text
from attestable_mcp.cli.command import Arguments, Parser, UsageError, existing_path
from attestable_mcp.cli.source import read_file

_FILE_CAP = 256 * 1024


def add_headers(parser: Parser) -> None:
    """`--header-env NAME=VAR` and `--header-file FILE`; a value on the command line would stand in the process list."""
    group = parser.add_argument_group(text.GROUP_HEADERS)
    group.add_argument(
        "--header-env", metavar="NAME=VAR", type=_pair, action="append", default=[], help=text.HELP_HEADER_ENV
    )
    group.add_argument(
        "--header-file", metavar="FILE", type=existing_path, action="append", default=[], help=text.HELP_HEADER_FILE
    )


def headers_of(arguments: Arguments) -> dict[str, str]:
    """The headers that the options name, checked. Raises: UsageError, ConfigurationError."""
    from attestable_mcp.mcp.outbound import collect

    return collect([*_from_environment(arguments.header_env), *_from_files(arguments.header_file)])


def _pair(word: str) -> tuple[str, str]:
    name, equals, variable = word.partition("=")
    if not equals or not name or not variable:
        raise argparse.ArgumentTypeError(text.bad_header_pair(word))
    return name, variable


def _from_environment(pairs: list[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    from attestable_mcp.mcp.outbound import check_header

    for name, variable in pairs:
        value = os.environ.get(variable)
        if not value:
            raise UsageError(text.unset_variable(variable, name), hint=text.UNSET_VARIABLE_HINT)
        yield check_header(name, value, f"--header-env {variable}")


def _from_files(paths: list[Path]) -> Iterator[tuple[str, str]]:
    from attestable_mcp.mcp.outbound import check_header

    for path in paths:
        for number, line in enumerate(_lines(path), 1):
            if line.strip() and not line.startswith("#"):
                name, colon, value = line.partition(":")
                if not colon:
                    raise UsageError(text.bad_header_line(path, number))
                yield check_header(name.strip(), value, f"{path}, line {number}")


def _lines(path: Path) -> list[str]:
    try:
        return read_file(path, _FILE_CAP).decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UsageError(text.not_utf8(path)) from error
