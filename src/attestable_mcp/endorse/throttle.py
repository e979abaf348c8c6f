"""One request at a time across processes, and no faster than a service bears.

The time at which the next request may go stands in a small file that all processes of a user share, since the service
counts by address. Damage to it costs politeness, not safety: it is made anew.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from attestable_mcp.endorse.state import exclusive
from attestable_mcp.errors import ConfigurationError, EndorsementUnavailable

_log = logging.getLogger(__name__)
_SCHEMA = "CREATE TABLE IF NOT EXISTS turn (lane TEXT PRIMARY KEY, not_before REAL NOT NULL)"
WORTH_SAYING = 1.5
"""Seconds of waiting that a person is told about."""
LONGEST = 600.0
"""A mark further ahead than this is a clock that jumped, not a service that asked to wait."""


class Turn:
    """One's turn at the service, held until the block ends. `put_off(seconds)` says when the next request may go."""

    def __init__(self, not_before: float, deadline: float, throttle: Throttle) -> None:
        self.not_before = not_before
        self._deadline = deadline
        self._throttle = throttle

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self._deadline - self._throttle.monotonic()

    def put_off(self, seconds: float) -> None:
        """No request for `seconds` from now, by anybody who shares the file."""
        self.not_before = max(self.not_before, self._throttle.now() + seconds)

    def wait(self) -> None:
        """Sleep until a request may go. Raises: EndorsementUnavailable where that is past the deadline."""
        wait = self.not_before - self._throttle.now()
        if wait <= 0 or wait > LONGEST:
            return
        if wait > self.left:
            raise EndorsementUnavailable(
                f"{self._throttle.name}: asked as often as it allows, the next request may go in {wait:.0f} seconds",
                hint="Try again then, give the certificate with --endorsements, or have the server staple it.",
            )
        self._throttle.announce(f"{self._throttle.name}: waiting {wait:.0f} seconds for our turn", wait)
        self._throttle.sleep(wait)


class _Marks:
    """When the next request of each lane may go: in the file of `connection`, or in `own` without one."""

    def __init__(self, own: dict[str, float], connection: sqlite3.Connection | None) -> None:
        self._own = own
        self._connection = connection

    def get(self, lane: str) -> float:
        if self._connection is None:
            return self._own.get(lane, 0.0)
        row = self._connection.execute("SELECT not_before FROM turn WHERE lane = ?", (lane,)).fetchone()
        return float(row[0]) if row else 0.0

    def set(self, lane: str, not_before: float) -> None:
        self._own[lane] = not_before
        if self._connection is not None:
            self._connection.execute("INSERT OR REPLACE INTO turn VALUES (?, ?)", (lane, not_before))


class Throttle:
    """The queue before one service. `name` is the service in words; `path` the file that processes share.

    `now` and `monotonic` count seconds, of the day and of this process; `sleep` waits.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.name = name
        self.path = path
        self.now = now
        self.monotonic = monotonic
        self.sleep = sleep
        self._own: dict[str, float] = {}
        self._lock = threading.Lock()

    @contextmanager
    def turn(self, lane: str, seconds: float) -> Iterator[Turn]:
        """Wait for one's turn, at most `seconds`, which are also all that the turn has.

        Turns of all lanes go one by one; each lane keeps its own time.

        Raises:
            EndorsementUnavailable: others were served all that time.
        """
        deadline = self.monotonic() + seconds
        self.announce(f"{self.name}: another process is asking; waiting", WORTH_SAYING if self._held() else 0)
        with self._marks(seconds) as marks:
            turn = Turn(marks.get(lane), deadline, self)
            try:
                yield turn
            finally:  # what the service asked of us is to be remembered on every path
                marks.set(lane, turn.not_before)

    @contextmanager
    def _marks(self, seconds: float) -> Iterator[_Marks]:
        """The marks, alone: those of the file, or this process's own where the disk refuses."""
        with ExitStack() as stack:
            try:
                connection = stack.enter_context(exclusive(self.path, _SCHEMA, seconds=max(0.0, seconds)))
            except TimeoutError as error:
                raise EndorsementUnavailable(
                    f"{self.name}: other processes asked it for all of {seconds:.0f} seconds", hint="Try again."
                ) from error
            except ConfigurationError:
                connection = None
            if connection is None:
                stack.enter_context(self._lock)
                yield _Marks(self._own, None)
                return
            trouble: BaseException | None = None
            try:
                yield _Marks(self._own, connection)
            except BaseException as error:  # noqa: BLE001 - raised again once the marks are written
                trouble = error
            with suppress(ConfigurationError, TimeoutError):
                stack.close()
        if trouble is not None:
            raise trouble

    def announce(self, words: str, seconds: float) -> None:
        """Tell of a long wait; the command line shows it on stderr."""
        if seconds >= WORTH_SAYING:
            _log.info(words)

    def _held(self) -> bool:
        """Is somebody else's turn running? Also the place where a damaged file is thrown away."""
        try:
            with exclusive(self.path, _SCHEMA, seconds=0) as connection:
                connection.execute("SELECT not_before FROM turn").fetchone()
        except TimeoutError:
            return True
        except ConfigurationError:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)
        return False
