"""What reaches the terminal: data on stdout, talk on stderr, colour only for people, control characters never."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

_STYLES = {"good": "32", "bad": "31", "warn": "33", "dim": "2", "strong": "1", "name": "36"}
_BAD = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Unicode categories that a stranger's text could use to move the cursor, hide or reorder what a person reads."""


class OutputLost(Exception):
    """Our own stdout cannot be written. `reader_left` tells a closed pipe from a full disk."""

    def __init__(self, reason: str, *, reader_left: bool) -> None:
        super().__init__(reason)
        self.reader_left = reader_left


def printable(value: object) -> str:
    """The text with every control and format character escaped, so that a server cannot draw on the terminal."""
    shown = str(value).lower() if isinstance(value, bool) else str(value)
    return "".join(_escape(char) if unicodedata.category(char) in _BAD else char for char in shown)


def printable_json(value: object) -> str:
    """JSON for a person, indented, in which the same characters are escaped as JSON does it."""
    lines = json.dumps(value, indent=2, ensure_ascii=False).split("\n")
    return "\n".join(
        "".join(json.dumps(char)[1:-1] if unicodedata.category(char) in _BAD else char for char in line)
        for line in lines
    )


def _escape(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terminal:
    """Where one command writes. `json` means: exactly one object on stdout and nothing else there."""

    out: IO[str]
    err: IO[str]
    colour: bool = False
    json: bool = False
    debug: bool = False

    def paint(self, style: str, text: str) -> str:
        """The text in a style, or unchanged where colours are off."""
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self.colour else text

    def data(self, text: str = "") -> None:
        """One piece of the answer, on stdout, at once: a reader on a pipe must not wait. Raises: OutputLost."""
        try:
            self.out.write(text + "\n")
            self.out.flush()
        except OSError as error:
            raise OutputLost(error.strerror or str(error), reader_left=isinstance(error, BrokenPipeError)) from error

    def emit(self, value: Mapping[str, Any]) -> None:
        """One JSON object on one line of stdout, ASCII only."""
        self.data(json.dumps(value, ensure_ascii=True, default=str))

    def say(self, text: str = "") -> None:
        """One line of talk, on stderr. Lost talk is no failure."""
        try:
            self.err.write(text + "\n")
            self.err.flush()
        except (OSError, ValueError):
            pass


def open_terminal(*, json_output: bool, debug: bool) -> Terminal:
    """The process's own streams. A closed stream becomes a sink; an encoding that lacks a letter escapes it."""
    out, err = _stream(sys.stdout), _stream(sys.stderr)
    return Terminal(out=out, err=err, colour=not json_output and wants_colour(out), json=json_output, debug=debug)


def _stream(stream: IO[str] | None) -> IO[str]:
    if stream is None:  # started with the descriptor closed
        return open(os.devnull, "w", encoding="utf-8")
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    return stream


def wants_colour(stream: IO[str]) -> bool:
    """Colour for a terminal that did not say no (no-color.org; TERM=dumb)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    return stream.isatty()
