"""Files that a verb writes where its user says: whole or not at all, and never over another one without --force."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from attestable_mcp.cli import text
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.files import PRIVATE

_SHARED = 0o666
"""What the user's umask takes bits from."""


def refuse_overwrite(path: Path | None, force: bool) -> None:
    """Before any server is met, so that nobody waits for a no. Raises: ConfigurationError."""
    if path is not None and not force and os.path.lexists(path):
        raise _exists(path)


def write_file(path: Path, content: str | bytes, *, force: bool, private: bool = False) -> None:
    """Create the file; without `force` never touch one that exists. `private`: its user's alone from the first moment.

    Raises: ConfigurationError: it exists, or cannot be written; the old file stands as it was.
    """
    write_parts(path, (content,), force=force, private=private)


def write_parts(path: Path, parts: Iterable[str | bytes], *, force: bool, private: bool = False) -> None:
    """As `write_file`, one part after the other; an error of `parts` leaves no half file.

    Raises: ConfigurationError.
    """
    try:
        with _replacing(path, private) if force else _created(path, private) as stream:
            for part in parts:
                stream.write(part if isinstance(part, bytes) else part.encode())
    except FileExistsError as error:
        raise _exists(path) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(text.cannot_write(path, reason), code="unwritable") from error


@contextmanager
def _created(path: Path, private: bool) -> Iterator[BinaryIO]:
    mode = PRIVATE if private else _SHARED
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as stream:
        try:
            yield stream
        except BaseException:
            with suppress(OSError):
                path.unlink()
            raise


@contextmanager
def _replacing(path: Path, private: bool) -> Iterator[BinaryIO]:
    """Whoever reads meets the old file or the new one. A device or a pipe is written to: it cannot be replaced."""
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file():
        with open(path, "wb") as stream:
            yield stream
        return
    new = path.with_name(f".{path.name[:40]}.{secrets.token_hex(4)}")
    try:
        with _created(new, private) as stream:
            yield stream
        if path.exists() and not private:
            shutil.copymode(path, new)
        new.replace(path)
    except BaseException:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise


def _exists(path: Path) -> ConfigurationError:
    return ConfigurationError(text.exists(path), code="file_exists", hint=text.EXISTS_HINT)
