"""Receipts on disk: one SQLite file of the user's, with the evidence that vouches for each signing key beside them.

Receipts and heads are kept as they came, byte by byte. What proves a key is kept once, as a bundle (docs/bundle.md)
that can be replayed offline, with the verdict of the day. The file is the user's alone (0600). It is bounded: the
oldest chains go first, whole.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from attestable_mcp.bind.receipt import Head, Receipt, receipt_hash
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.files import make_private, user_folder
from attestable_mcp.limits import LIMITS
from attestable_mcp.tls.admission import AttestedPeer

VERSION: Final = 1
_EVERY: Final = 1024
"""Receipts between two looks at how many there are."""
_TOGETHER: Final = 64
"""Receipts that are written at once."""
_SCHEMA: Final = f"""
CREATE TABLE IF NOT EXISTS keys (
    id INTEGER PRIMARY KEY, public BLOB NOT NULL UNIQUE, verdict TEXT NOT NULL, bundle BLOB
);
CREATE TABLE IF NOT EXISTS chains (
    id INTEGER PRIMARY KEY, name BLOB NOT NULL, key INTEGER NOT NULL REFERENCES keys (id), origin TEXT NOT NULL,
    begun INTEGER NOT NULL, UNIQUE (name, key)
);
CREATE TABLE IF NOT EXISTS receipts (
    chain INTEGER NOT NULL REFERENCES chains (id), counter INTEGER NOT NULL, hash BLOB NOT NULL, message BLOB NOT NULL,
    PRIMARY KEY (chain, counter, hash)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS heads (
    chain INTEGER NOT NULL REFERENCES chains (id), size INTEGER NOT NULL, hash BLOB NOT NULL, message BLOB NOT NULL,
    PRIMARY KEY (chain, size, hash)
) WITHOUT ROWID;
PRAGMA user_version = {VERSION};
"""


def _tables(connection: sqlite3.Connection) -> set[tuple[str, str, str | None]]:
    return set(connection.execute("SELECT type, name, sql FROM sqlite_master LIMIT 100"))


def _ours() -> set[tuple[str, str, str | None]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(_SCHEMA)
        return _tables(connection)


_OURS: Final = _ours()
"""What SQLite makes of the schema, to the letter: a change of `_SCHEMA` needs another `VERSION`."""
LATEST: Final = 253_402_300_799_999
"""The last millisecond of the year 9999, which is the last that a datetime holds."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredChain:
    """One chain as it is stored. `public` is the signing key; `begun` is in milliseconds since 1970."""

    id: int
    name: bytes
    origin: str
    begun: int
    public: bytes
    verdict: dict[str, Any]
    receipts: int
    heads: int
    has_bundle: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """A chain that is being written, and its key."""

    name: bytes
    public: bytes
    verdict: str
    origin: str
    begun: int


def default_path() -> Path:
    """Where receipts are kept where no policy says otherwise."""
    return user_folder("data") / "receipts.sqlite3"


class ReceiptStore:
    """Opens on first use; several processes may write it at once. `read_only` never makes a file.

    A few receipts wait to be written together: `flush` when nobody has called for a moment, `close` at the end.

    Raises (from every method): ConfigurationError (`receipt_store`): a receipt that is not kept proves nothing later.
    """

    def __init__(self, path: Path, *, most: int = LIMITS.receipt_store, read_only: bool = False) -> None:
        self.path = path
        self._most = most
        self._read_only = read_only
        self._opened: sqlite3.Connection | None = None
        self._chains: dict[tuple[bytes, bytes], _Begun] = {}
        self._written = 0
        self._waiting: list[tuple[_Begun, int, bytes]] = []

    # --- writing ---------------------------------------------------------------------------------------------------

    def keep(self, message: bytes, receipt: Receipt, peer: AttestedPeer) -> None:
        """One receipt."""
        begun = self._begun(receipt.chain, peer)
        self._waiting.append((begun, _signed(receipt.counter), message))
        if len(self._waiting) >= _TOGETHER:
            self.flush()
        self._written += 1
        if self._written % _EVERY == 1:
            self._prune(begun)

    def flush(self) -> None:
        """Write down what waits: one write for several receipts costs little more than for one."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        self._together(lambda connection: self._write(connection, waiting))

    def _write(self, connection: sqlite3.Connection, waiting: list[tuple[_Begun, int, bytes]]) -> None:
        chains = {begun: self._stored(connection, begun) for begun, _, _ in waiting}
        rows = [(chains[begun], counter, receipt_hash(message), message) for begun, counter, message in waiting]
        connection.executemany("INSERT OR IGNORE INTO receipts VALUES (?, ?, ?, ?)", rows)

    def _together(self, write: Callable[[sqlite3.Connection], object]) -> None:
        """All that `write` does, or nothing of it, and no other process in between."""
        try:
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                write(connection)
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def keep_head(self, message: bytes, head: Head, peer: AttestedPeer) -> None:
        """One tree head, and all that waits before it."""
        self.flush()
        values = (_signed(head.size), receipt_hash(message), message)
        begun = self._begun(head.chain, peer)
        self._together(
            lambda connection: connection.execute(
                "INSERT OR IGNORE INTO heads VALUES (?, ?, ?, ?)", (self._stored(connection, begun), *values)
            )
        )

    def keep_bundle(self, public: bytes, bundle: bytes) -> None:
        """What vouches for a key. The first that comes stays."""
        self.flush()  # which makes the key's row, with its verdict

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR IGNORE INTO keys (public, verdict) VALUES (?, ?)", (public, "{}"))
            connection.execute("UPDATE keys SET bundle = ? WHERE public = ? AND bundle IS NULL", (bundle, public))

        self._together(write)

    def vouched(self, public: bytes) -> bool:
        """Is there a bundle for this key?"""
        return bool(self._rows("SELECT 1 FROM keys WHERE public = ? AND bundle IS NOT NULL", (public,)))

    def _begun(self, name: bytes, peer: AttestedPeer) -> _Begun:
        public = peer.binding.binding_key if peer.binding is not None else b""
        found = self._chains.get((name, public))
        if found is None:
            verdict = json.dumps(peer.result.to_json(), sort_keys=True)
            now = time.time_ns() // 1_000_000
            found = _Begun(name=name, public=public, verdict=verdict, origin=str(peer.origin), begun=now)
            self._chains[name, public] = found
        return found

    @staticmethod
    def _stored(connection: sqlite3.Connection, chain: _Begun) -> int:
        """The chain's row; made, also where another process has given it up since."""
        connection.execute("INSERT OR IGNORE INTO keys (public, verdict) VALUES (?, ?)", (chain.public, chain.verdict))
        key = connection.execute("SELECT id FROM keys WHERE public = ?", (chain.public,)).fetchone()[0]
        values = (chain.name, key, chain.origin, chain.begun)
        connection.execute("INSERT OR IGNORE INTO chains (name, key, origin, begun) VALUES (?, ?, ?, ?)", values)
        found = connection.execute("SELECT id FROM chains WHERE name = ? AND key = ?", (chain.name, key)).fetchone()
        return int(found[0])

    def _prune(self, current: _Begun) -> None:
        """Give up the oldest chains, whole, until what is left fits; never the one that is being written."""
        self.flush()
        while self._rows("SELECT count(*) FROM receipts")[0][0] > self._most:
            oldest = self._rows("SELECT id FROM chains WHERE name <> ? ORDER BY begun, id LIMIT 1", (current.name,))
            if not oldest:
                return
            self._together(partial(_give_up, chain=oldest[0][0]))

    # --- reading ---------------------------------------------------------------------------------------------------

    def chains(self) -> list[StoredChain]:
        """All chains, the oldest first."""
        rows = self._rows(
            "SELECT c.id, c.name, c.origin, c.begun, k.public, k.verdict, k.bundle IS NOT NULL,"
            " (SELECT count(*) FROM receipts r WHERE r.chain = c.id),"
            " (SELECT count(*) FROM heads h WHERE h.chain = c.id)"
            " FROM chains c JOIN keys k ON k.id = c.key ORDER BY c.begun, c.id"
        )
        return [
            StoredChain(
                id=row[0], name=self._kept(row[1], bytes), origin=self._kept(row[2], str), begun=self._moment(row[3]),
                public=self._kept(row[4], bytes), verdict=_json(self._kept(row[5], str)), has_bundle=bool(row[6]),
                receipts=row[7], heads=row[8],
            )
            for row in rows
        ]  # fmt: skip

    def _kept(self, value: object, kind: type[_T]) -> _T:
        """A cell of a file that somebody may have edited: SQLite holds columns to no type."""
        if not isinstance(value, kind):
            raise self._damaged(f"wanted {kind.__name__}, seen {type(value).__name__}")
        return value

    def _moment(self, value: object) -> int:
        found = self._kept(value, int)
        if not 0 <= found <= LATEST:
            raise self._damaged("a chain was begun at no time that there is")
        return found

    def _damaged(self, what: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self.path}: {what}: no store of receipts, or not as it was written",
            code="receipt_store",
            hint="name another file under [receipts] store in the policy, and keep this one: receipts in it may hold",
        )

    def receipts(self, chain: int) -> Iterator[bytes]:
        """A chain's receipts in their order, one after the other."""
        return self._stream("SELECT message FROM receipts WHERE chain = ? ORDER BY counter, hash", chain)

    def heads(self, chain: int) -> Iterator[bytes]:
        """A chain's tree heads, by size."""
        return self._stream("SELECT message FROM heads WHERE chain = ? ORDER BY size, hash", chain)

    def bundle(self, public: bytes) -> bytes | None:
        """What vouches for a key."""
        rows = self._rows("SELECT bundle FROM keys WHERE public = ?", (public,))
        return self._kept(rows[0][0], bytes) if rows and rows[0][0] is not None else None

    # --- SQLite ----------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write everything down. Opened again on the next use."""
        self.flush()
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _stream(self, query: str, chain: int) -> Iterator[bytes]:
        try:
            for (message,) in self._connection().execute(query, (chain,)):
                yield self._kept(message, bytes)
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def _rows(self, query: str, values: tuple[Any, ...] = ()) -> list[Any]:
        try:
            return self._connection().execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise self._fault(error) from error

    def _connection(self) -> sqlite3.Connection:
        if self._opened is None:
            try:
                self._opened = self._open()
            except (sqlite3.Error, OSError) as error:
                raise self._fault(error) from error
        return self._opened

    def _open(self) -> sqlite3.Connection:
        if self._read_only:
            if not self.path.is_file():
                raise ConfigurationError(
                    f"{self.path}: no receipts are kept there",
                    code="receipt_store",
                    hint="receipts come in where a policy says [receipts] required = true",
                )
            connection = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
        else:
            make_private(self.path)
            connection = sqlite3.connect(self.path, isolation_level=None, timeout=5.0, check_same_thread=False)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, VERSION):
            raise ConfigurationError(
                f"{self.path}: wanted receipts of version {VERSION}, seen {version}",
                code="receipt_store",
                hint="it was written by another version of attestable-mcp: use that one",
            )
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2 * LIMITS.bundle)
        if (found := _tables(connection)) != _OURS and (found or version):
            raise self._damaged("other tables than ours")  # a view may go on for ever, a trigger write elsewhere
        if not self._read_only:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            if version == 0:
                connection.executescript(_SCHEMA)

    def _fault(self, error: Exception) -> ConfigurationError:
        return ConfigurationError(
            f"{self.path}: {getattr(error, 'strerror', None) or error}",
            code="receipt_store",
            hint="name another file under [receipts] store in the policy, or make this one readable and writable",
        )


def _give_up(connection: sqlite3.Connection, *, chain: int) -> None:
    for table, column in (("receipts", "chain"), ("heads", "chain"), ("chains", "id")):
        connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (chain,))  # noqa: S608 - our own names
    connection.execute("DELETE FROM keys WHERE id NOT IN (SELECT key FROM chains)")


def _signed(number: int) -> int:
    """SQLite's integers are signed: no server counts that far honestly."""
    return min(number, sys.maxsize)


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
