"""The highest TCB evaluation number met, by trust anchor, TEE and FMSPC: older collateral is then refused (attack P4).

Only an admitted peer moves a mark: whoever is refused changes no state. With a `path` the marks outlive the process, in
a file that all processes of the user share (`endorse.state`): only higher numbers are ever written, and what is damaged
or writable by others is refused, never read as empty. Marks of simulated evidence stay in memory.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from pathlib import Path

from attestable_mcp.endorse.state import exclusive, reading
from attestable_mcp.errors import ConfigurationError, EndorsementStale
from attestable_mcp.files import user_folder
from attestable_mcp.rats import Finding, Outcome, Verified

_log = logging.getLogger(__name__)
_SCHEMA = """CREATE TABLE IF NOT EXISTS mark (
  anchor TEXT NOT NULL, tee TEXT NOT NULL, fmspc TEXT NOT NULL, number INTEGER NOT NULL CHECK (number >= 0),
  PRIMARY KEY (anchor, tee, fmspc)
) WITHOUT ROWID, STRICT"""
_RAISE = """INSERT INTO mark VALUES (?, ?, ?, ?)
  ON CONFLICT DO UPDATE SET number = max(number, excluded.number)"""
_RESET = (
    "It holds the highest TCB evaluation numbers met, against rollback. `attestable-mcp tcb --forget` starts it anew; "
    "older collateral is then accepted once more."
)
_WAIT_SECONDS = 2.0
NOT_KEPT = "that collateral stays as new as this for later runs: the numbers met could not be kept ({})"

Key = tuple[str, str, str]
"""Trust anchor, TEE, FMSPC."""


def default_path() -> Path:
    """Where a user's marks lie: `evaluations.sqlite` in the state folder that the system names."""
    return user_folder("state") / "evaluations.sqlite"


class Watermarks:
    """Marks in memory, and in the file at `path` where one is given. Safe between threads and processes; bounded."""

    MOST = 4096

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.trouble = ""
        self._marks: dict[Key, int] = {}
        self._stamp: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def check(self, verified: Verified) -> None:
        """Refuse collateral that is older than what was admitted before.

        Raises:
            EndorsementStale: with the code `collateral_rollback`.
            ConfigurationError: `state_unusable`: the file is damaged, or others may write to it.
        """
        key, number = _mark(verified)
        if number is None:
            return
        highest = self.highest(key, simulated=verified.simulated)
        if number >= highest:
            return
        finding = Finding(
            check="intel.tcb_info.rollback",
            outcome=Outcome.FAIL,
            wanted=f"evaluation number {highest} or higher, as met before",
            seen=str(number),
            code="collateral_rollback",
        )
        raise EndorsementStale(
            f"TCB evaluation number of FMSPC {key[2]}: wanted {highest} or higher, as met before, seen {number}",
            findings=(*verified.findings, finding),
            code="collateral_rollback",
            hint="Somebody serves validly signed, but older collateral. Fetch it anew, or ask the server to.",
        )

    def highest(self, key: Key, *, simulated: bool = False) -> int:
        """The highest number admitted so far for `key`, 0 where none was. Raises: ConfigurationError."""
        with self._lock:
            if not simulated:
                self._refresh()
            return self._marks.get(key, 0)

    def raise_to(self, verified: Verified) -> str:
        """Remember the number of an admitted peer. Answers what could not be kept, in words, or nothing."""
        key, number = _mark(verified)
        with self._lock:
            if number is None or number <= self._marks.get(key, -1):
                return self.trouble
            if key in self._marks or len(self._marks) < self.MOST:
                self._marks[key] = number
                if not verified.simulated:
                    self._keep(key, number)
        return self.trouble

    def forget(self) -> int:
        """Start anew: remove the file, damaged or not. Answers how many marks it held, 0 where nobody can tell.

        Raises:
            ConfigurationError: it cannot be removed.
        """
        with self._lock:
            self._marks.clear()
            self._stamp = None
            if self.path is None:
                return 0
            try:
                held = len(self._read(self.path)) if self.path.exists() else 0
            except ConfigurationError:
                held = 0
            try:
                self.path.unlink(missing_ok=True)
            except OSError as error:
                raise ConfigurationError(f"{self.path}: {error.strerror or error}", code="state_unusable") from error
            return held

    def _refresh(self) -> None:
        """Read the file where it has changed since; a file that is not there holds no mark."""
        if self.path is None:
            return
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        stamp = (status.st_mtime_ns, status.st_size)
        if stamp == self._stamp or status.st_size == 0:
            return
        if sys.platform != "win32" and (status.st_mode & 0o022 or status.st_uid not in (os.geteuid(), 0)):
            raise ConfigurationError(
                f"state file {self.path}: wanted one that only you can write, seen mode {status.st_mode & 0o777:o} "
                f"of user {status.st_uid}",
                code="state_unusable",
                hint=_RESET,
            )
        for key, number in self._read(self.path).items():
            self._marks[key] = max(number, self._marks.get(key, 0))
        self._stamp = stamp

    def _read(self, path: Path) -> dict[Key, int]:
        with reading(path, hint=_RESET) as connection:
            rows = connection.execute("SELECT anchor, tee, fmspc, number FROM mark LIMIT ?", (self.MOST,)).fetchall()
        if not all(isinstance(row[3], int) and all(isinstance(word, str) for word in row[:3]) for row in rows):
            raise ConfigurationError(
                f"state file {path}: a row that is none of ours", code="state_unusable", hint=_RESET
            )
        return {(anchor, tee, fmspc): number for anchor, tee, fmspc, number in rows}

    def _keep(self, key: Key, number: int) -> None:
        if self.path is None:
            return
        try:
            with exclusive(self.path, _SCHEMA, seconds=_WAIT_SECONDS, hint=_RESET) as connection:
                connection.execute(_RAISE, (*key, number))
            self.trouble = ""
        except (ConfigurationError, TimeoutError) as error:
            self._lose(str(error))

    def _lose(self, reason: str) -> None:
        """No place to write is no reason to refuse a peer; it is said in every result instead."""
        self.trouble = NOT_KEPT.format(reason)
        _log.warning("%s", self.trouble)


def _mark(verified: Verified) -> tuple[Key, int | None]:
    claims = verified.claims
    return (verified.anchor, str(claims.tee), str(claims.values.get("fmspc", ""))), claims.tcb_evaluation_data_number
