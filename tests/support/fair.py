"""Seconds since a fault, as the programs had them: on a machine that is busy with other things, a bound on what a
program does is no bound on how long it waits for a processor.

Linux tells how long each thread was ready to run and had no processor (`/proc/PID/task/TID/schedstat`, second field, in
nanoseconds). That much is taken off what the clock says; where it cannot be read, nothing is. On a quiet machine it is
next to nothing, so a bound that is measured in this way is as hard as one by the clock.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

_T = TypeVar("_T")
_LOOK_SECONDS = 0.05


class Since:
    """Begins with the fault. `pids` are the programs whose answer is waited for; this one is always among them."""

    def __init__(self, *pids: int) -> None:
        self._before = {pid: queued(pid) for pid in (os.getpid(), *pids)}
        self._waited = dict.fromkeys(self._before, 0.0)
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """Of the programs' own time."""
        self._look()
        return time.monotonic() - self._begun - sum(self._waited.values())

    async def during(self, end: Awaitable[_T]) -> _T:
        """Wait for this, which may be the end of a program: it is looked at as long as it is there."""
        looking = asyncio.create_task(self._keep_looking())
        try:
            return await end
        finally:
            looking.cancel()

    async def _keep_looking(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(_LOOK_SECONDS)

    def _look(self) -> None:
        for pid, before in self._before.items():
            self._waited[pid] = max(self._waited[pid], queued(pid) - before)


def queued(pid: int) -> float:
    """Seconds that the threads of a process have been ready to run without a processor; 0 where nobody tells."""
    return sum(_queued(thread) for thread in _threads(pid)) / 1e9


def _threads(pid: int) -> Iterable[Path]:
    with suppress(OSError):
        return list(Path(f"/proc/{pid}/task").iterdir())
    return ()


def _queued(thread: Path) -> int:
    with suppress(OSError, IndexError, ValueError):
        return int((thread / "schedstat").read_text().split()[1])
    return 0
