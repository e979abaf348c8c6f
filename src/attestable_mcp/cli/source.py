"""SOURCE on the command line: an https address, or bytes from a file or stdin, read up to a cap."""

from __future__ import annotations

import errno
import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from attestable_mcp.cli import text
from attestable_mcp.cli.command import UsageError
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.limits import LIMITS

CAP = max(4 * LIMITS.certificate, 4 * LIMITS.evidence, LIMITS.bundle)
"""Bytes read of a source: room for a bundle, and for PEM, base64 or hex of the largest certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A live server."""

    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Bytes from a file. `name` is for messages."""

    name: str
    data: bytes


def open_source(word: str) -> Address | Stored:
    """Tell an address from a file by its scheme, and read the file. Raises: UsageError, ConfigurationError."""
    if not word:
        raise UsageError(text.EMPTY_PATH, hint=text.READ_HINT)
    if "://" in word:
        return Address(url=address(word))
    return Stored(name=word, data=_read_stdin() if word == "-" else read_file(Path(word), CAP, hint=text.READ_HINT))


def address(word: str) -> str:
    """An https URL with a host and no user info. Raises: UsageError."""
    try:
        parts = urlsplit(word)
        port_fits = parts.port is None or parts.port > 0
    except ValueError as error:
        raise UsageError(f"{word!r} is not an address: {error}", hint=text.READ_HINT) from error
    if parts.scheme.lower() != "https":
        raise UsageError(text.NOT_HTTPS, hint=text.NOT_HTTPS_HINT)
    if not parts.hostname or not port_fits or parts.username is not None:
        raise UsageError(text.not_an_url(word), hint=text.READ_HINT)
    return word


def read_file(path: Path, cap: int, *, hint: str = "") -> bytes:
    """The whole file if it has 1 to `cap` bytes; never waits for a pipe's writer. Raises: ConfigurationError."""
    try:
        with open(path, "rb", opener=_open_without_waiting) as stream:
            mode = os.fstat(stream.fileno()).st_mode
            if stat.S_ISDIR(mode):
                raise ConfigurationError(text.is_directory(path), code="unreadable", hint=hint)
            data = stream.read(cap + 1)
    except IsADirectoryError as error:
        raise ConfigurationError(text.is_directory(path), code="unreadable", hint=hint) from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _unreadable(path, error, hint) from error
    return _sized(data or b"", path, cap, hint)


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _read_stdin() -> bytes:
    if sys.stdin is None:
        raise ConfigurationError(text.unreadable("stdin", os.strerror(errno.EBADF)), code="unreadable")
    try:
        return _sized(sys.stdin.buffer.read(CAP + 1), "stdin", CAP, text.READ_HINT)
    except OSError as error:
        raise _unreadable("stdin", error, text.READ_HINT) from error


def _sized(data: bytes, name: object, cap: int, hint: str) -> bytes:
    if not data:
        raise ConfigurationError(text.empty_file(name), code="empty_file", hint=hint)
    if len(data) > cap:
        raise ConfigurationError(text.too_large(name, cap), code="too_large", hint=hint)
    return data


def _unreadable(name: object, error: Exception, hint: str) -> ConfigurationError:
    reason = getattr(error, "strerror", None) or str(error)
    return ConfigurationError(text.unreadable(name, reason), code="unreadable", hint=hint)
