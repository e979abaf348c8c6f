"""When a live connection must be proven again before it carries the next request."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from attestable_mcp.appraise.reattest import ReattestPolicy

DEMAND = "reattest"
"""The key under which a request's `extensions` ask for a fresh proof of the connection that will carry it."""


@dataclass(slots=True)
class Turn:
    """One request on its way to a connection. `since`: a proof younger than this will do; the first write looks."""

    since: float
    looked: bool = False


_TURN: ContextVar[Turn | None] = ContextVar("attestable_mcp_turn", default=None)


@contextmanager
def turn(fresh: bool, ticks: Callable[[], float] = time.monotonic) -> Iterator[None]:
    """Around the sending of one request; `fresh` demands a proof that is made after this moment."""
    token = _TURN.set(Turn(ticks() if fresh else float("-inf")))
    try:
        yield
    finally:
        _TURN.reset(token)


class Freshness:
    """The ages that a gate's policy allows. Safe to share between threads."""

    def __init__(self, policy: ReattestPolicy, ticks: Callable[[], float] = time.monotonic) -> None:
        self.policy = policy
        self.ticks = ticks
        self._since = float("-inf")

    def renew(self) -> None:
        """From now on every connection is proven again before its next request."""
        self._since = self.ticks()

    def due(self, proven_at: float, again: int) -> bool:
        """At the first write of a request: must the connection, proven at this moment, be proven again?

        `again` is what the server said of our own proof: in how many seconds it wants the next, 0 for never.
        """
        current = _TURN.get()
        if current is None or current.looked:
            return False
        current.looked = True
        age = self.ticks() - proven_at
        every = self.policy.every
        return (
            proven_at < max(current.since, self._since)
            or (every is not None and age > every)
            or bool(again and age > 0.8 * again)
        )
