"""When a live connection must be proven again: before it carries the next request, and while a response goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from math import inf

from attestable_mcp.appraise.reattest import ReattestPolicy
from attestable_mcp.limits import LIMITS, Limits
from attestable_mcp.tls.bounded import Bounded

DEMAND = "reattest"
"""The key under which a request's `extensions` ask for a fresh proof of the connection that will carry it."""


@dataclass(slots=True)
class Turn:
    """One request on its way to a connection. `since`: a proof younger than this will do; the first write looks.

    `looked_at` is the connection that it looked at: where that ends, the request may go to another.
    """

    since: float
    looked_at: object = None


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
    """The ages that a gate's policy allows. Safe to share between threads.

    For responses that go on: a binding key stands while the quote that vouched for it last is young enough, on whatever
    connection that was; one asks for all (`claim`, `release`).
    """

    def __init__(
        self,
        policy: ReattestPolicy,
        ticks: Callable[[], float] = time.monotonic,
        *,
        limits: Limits = LIMITS,
    ) -> None:
        self.policy = policy
        self.ticks = ticks
        self._least = limits.stream_proof_seconds
        self._vouched: Bounded[bytes, float] = Bounded(limits.binding_keys)
        self._claimed: set[bytes] = set()
        self._lock = threading.Lock()
        self._since = float("-inf")

    def renew(self) -> None:
        """From now on every connection is proven again before its next request."""
        self._since = self.ticks()

    def every(self, again: float = 0) -> float:
        """Seconds for which a proof of both ends will do; inf for ever.

        `again` is in how many seconds one is wanted at the latest, 0 for never: by the server, of us, or because what
        its own rests on ends then. It is made earlier, so that nothing ends for the time that a proof takes.
        """
        every = inf if self.policy.every is None else self.policy.every
        return min(every, 0.8 * again) if again else every

    def until(self, proven_at: float, again: float = 0) -> float:
        """From when on a response is not read on before both ends, just proven, are proven again; inf for never."""
        return max(proven_at + self.every(again), self.ticks() + self._least)

    def vouched(self, key: bytes, at: float) -> None:
        """A quote that was asked for at this moment vouched for this binding key."""
        self._vouched.put(key, at)

    def stands(self, key: bytes, again: float = 0) -> float:
        """The moment `until` which this key will do; 0 where it needs a new quote at once."""
        every, at = self.every(again), self._vouched.get(key)
        if every == inf:
            return inf
        return 0.0 if at is None or self.ticks() >= at + every else self.until(at, again)

    def claim(self, key: bytes) -> bool:
        """May the caller ask for a quote that vouches for this key? False while another does."""
        with self._lock:
            free = key not in self._claimed
            self._claimed.add(key)
        return free

    def release(self, key: bytes) -> None:
        """The one who claimed it has its answer."""
        with self._lock:
            self._claimed.discard(key)

    def due(self, connection: object, proven_at: float, again: float) -> bool:
        """At the first write of a request: must this connection, proven at this moment, be proven again?"""
        current = _TURN.get()
        if current is None or current.looked_at is connection:
            return False
        current.looked_at = connection
        return proven_at < max(current.since, self._since) or self.ticks() - proven_at > self.every(again)
