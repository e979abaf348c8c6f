"""A small SQLite file of our own: for its owner only, one writer at a time across processes, whole or not at all.

SQLite gives what a file of state needs on every system: a lock that dies with its holder, commits that a crash cannot
tear, and a format that notices damage.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from attestable_mcp.errors import ConfigurationError
from attestable_mcp.files import make_private


@contextmanager
def exclusive(path: Path, schema: str, *, seconds: float, hint: str = "") -> Iterator[sqlite3.Connection]:
    """The file's connection inside one exclusive transaction: committed at the end, rolled back on an error.

    Waits up to `seconds` for other processes and threads.

    Raises:
        TimeoutError: another process held it all that time.
        ConfigurationError: it cannot be opened or written, or is damaged; `hint` says what to do then.
    """
    try:
        make_private(path)
        with closing(sqlite3.connect(path, timeout=seconds, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(schema)
            yield connection
            connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise TimeoutError(f"{path} is held by another process") from error
        raise _unusable(path, str(error), hint) from error
    except sqlite3.Error as error:
        raise _unusable(path, str(error), hint) from error
    except OSError as error:
        if isinstance(error, TimeoutError):
            raise
        raise _unusable(path, error.strerror or str(error), hint) from error


@contextmanager
def reading(path: Path, *, hint: str = "") -> Iterator[sqlite3.Connection]:
    """The file's connection for reading only, whether or not its folder can be written.

    Raises:
        ConfigurationError: it cannot be read, or is damaged; `hint` says what to do then.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2)) as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != ("ok",):
                raise sqlite3.DatabaseError(f"damaged: {found[0] if found else 'no answer'}")
            yield connection
    except (sqlite3.Error, OSError) as error:
        raise _unusable(path, str(error), hint) from error


def _unusable(path: Path, reason: str, hint: str) -> ConfigurationError:
    return ConfigurationError(f"state file {path}: {reason}", code="state_unusable", hint=hint)
