"""Devices that must not be hurried: hosts hand out about ten SEV-SNP reports in ten seconds and refuse more.

`Pace` spaces the requests of this process so that a busy server does not run into the host's throttle, and asks again
where it does, a few times, ever later, within a deadline. Callers wait: they never pile up without bound, because
`tls.challenge.Quoter` asks for one quote at a time for all who wait.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from attestable_mcp.errors import AttesterError

_T = TypeVar("_T")
TRANSIENT = frozenset({errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ETIMEDOUT})
"""What a driver says when the host is busy or throttles; anything else will not get better by asking again."""
_FIRST_PAUSE_SECONDS = 0.05


class Pace:
    """A request each `every` seconds, of which `burst` may come at once; a transient failure is tried again.

    With the defaults there are at most ten in any ten seconds, and where one asks at a time, as `Quoter` does, nobody
    waits longer than 1.25 seconds for a turn. A request takes up to `patience` seconds with all its waits. Safe to
    share between threads. `clock` and `sleep` are for tests.
    """

    def __init__(
        self,
        *,
        every: float = 1.25,
        burst: int = 2,
        patience: float = 8.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._every = every
        self._credit = (burst - 1) * every
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self._next = clock()
        self._lock = threading.Lock()

    def run(self, request: Callable[[], _T], what: str) -> _T:
        """The request's result, perhaps after a wait and after further attempts.

        Raises:
            AttesterError: with the code `attester_busy`, when patience ends.
            OSError: as the request raised it, where trying again is no use.
        """
        until = self._clock() + self._patience
        pause = _FIRST_PAUSE_SECONDS
        while True:
            self._take_turn(until, what)
            try:
                return request()
            except OSError as error:
                if error.errno not in TRANSIENT:
                    raise
                self._wait(pause, until, what, error.strerror or "busy")
                pause *= 2

    def _take_turn(self, until: float, what: str) -> None:
        """Wait until the requests so far leave room for another (generic cell rate algorithm)."""
        with self._lock:
            self._wait(self._next - self._credit - self._clock(), until, what, "asked too often")
            self._next = max(self._next, self._clock()) + self._every

    def _wait(self, seconds: float, until: float, what: str, reason: str) -> None:
        if seconds <= 0:
            return
        if self._clock() + seconds > until:
            raise AttesterError(
                f"{what}: {reason}, for {self._patience:.0f} seconds",
                code="attester_busy",
                hint="the host limits how often it makes evidence; try again later",
            )
        self._sleep(seconds)
