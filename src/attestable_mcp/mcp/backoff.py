"""How long a server process that keeps crashing stays down."""

from __future__ import annotations

import anyio

HEALTHY_SECONDS = 10.0
"""A process that lived this long was not started in vain."""


class Backoff:
    """Doubling pauses between starts: 0, then `first`, 2 x `first`, ... up to `most` seconds."""

    __slots__ = ("_first", "_most", "_open_at", "failures")

    def __init__(self, *, first: float = 0.1, most: float = 10.0) -> None:
        self._first = first
        self._most = most
        self._open_at = 0.0
        self.failures = 0

    def ended(self, lived: float) -> None:
        """A process ended by itself after `lived` seconds."""
        self.failures = 1 if lived >= HEALTHY_SECONDS else self.failures + 1
        pause = min(self._most, self._first * 2.0 ** min(self.failures - 1, 20))
        self._open_at = anyio.current_time() + pause

    def served(self) -> None:
        """A process has answered: starting it was not in vain."""
        self.failures = 0

    @property
    def remaining(self) -> float:
        """Seconds until the next start may happen."""
        return max(0.0, self._open_at - anyio.current_time())
