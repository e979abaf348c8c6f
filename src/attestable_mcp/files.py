"""Small files of the user's: written whole or not at all, and by one process at a time."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

import filelock
import platformdirs

from attestable_mcp.errors import ConfigurationError

_PROGRAM = "attestable-mcp"
PRIVATE = 0o600
LOCK_SECONDS = 5.0
CANNOT_LOCK = (OSError, NotImplementedError)
"""What filelock raises where a file cannot be locked: the second on file systems that know no locks."""


def user_folder(kind: Literal["cache", "data", "state"]) -> Path:
    """Where the system keeps this program's files of that kind for the user. It need not exist."""
    match kind:
        case "cache":
            return platformdirs.user_cache_path(_PROGRAM, appauthor=False)
        case "data":
            return platformdirs.user_data_path(_PROGRAM, appauthor=False)
        case "state":
            return platformdirs.user_state_path(_PROGRAM, appauthor=False)


def make_private(path: Path) -> None:
    """An empty file with mode 0600, for a library to open that would make one for all to read; one there is stands.

    Raises:
        OSError: of the file, or of its folder, which is made too.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, PRIVATE))


def replace_file(path: Path, data: bytes, *, mode: int = PRIVATE) -> None:
    """Put `data` in the place of `path`: whoever reads meets the old bytes or the new ones, never half of them.

    `mode` are the permission bits, where the system knows any. The folder must exist.

    Raises:
        OSError: the old file stands as it was.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if mode != PRIVATE:
            Path(name).chmod(mode)
        _replace(Path(name), path)
    except OSError:
        with suppress(OSError):
            Path(name).unlink(missing_ok=True)
        raise


def _replace(new: Path, path: Path) -> None:
    """Windows refuses for as long as another process reads the old file: it is asked again for a moment."""
    for wait in (0.05, 0.1, 0.2):
        try:
            new.replace(path)
            return
        except PermissionError:
            if os.name != "nt":
                raise
            time.sleep(wait)
    new.replace(path)


@contextmanager
def locked(path: Path, *, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold the lock file `path` against other processes and threads.

    Raises:
        ConfigurationError: another holds it for longer than `seconds`, or it cannot be made.
    """
    lock = filelock.FileLock(path, timeout=seconds, mode=PRIVATE, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise ConfigurationError(
            f"{path}: another process has held this lock for {seconds:g} seconds",
            code="locked",
            hint="End the other attestable-mcp process if it hangs, then try again.",
        ) from error
    except CANNOT_LOCK as error:
        raise ConfigurationError(
            f"{path}: cannot be locked: {getattr(error, 'strerror', None) or error}",
            code="unwritable",
            hint="Make the folder writable for this user.",
        ) from error
    try:
        yield
    finally:
        lock.release()
