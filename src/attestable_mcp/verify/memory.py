"""What has been verified of chains and collateral, remembered until it expires.

Keys are digests of signed bytes together with the anchors that they were proven under: what was proven under one set of
anchors is never believed under another. Signatures of evidence are not remembered and are no part of a key: ECDSA has
two valid forms of each, and every quote has its own.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from threading import Lock
from typing import Any

from attestable_mcp.limits import LIMITS
from attestable_mcp.verify.anchors import TrustAnchor

Key = tuple[object, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Half-open span of time in which a proof holds: `start` is inside, `end` is not."""

    start: datetime
    end: datetime

    def __contains__(self, at: datetime) -> bool:
        return self.start <= at < self.end

    def __and__(self, other: Window) -> Window:
        return Window(start=max(self.start, other.start), end=min(self.end, other.end))


@lru_cache(maxsize=LIMITS.remembered)
def anchor_digest(anchors: tuple[TrustAnchor, ...]) -> bytes:
    """SHA-256 over a set of anchors with all that a verdict takes from them, whatever their order."""
    lines = sorted(f"{a.spki_sha256} {a.simulated:d} {a.replaced:d} {a.name!a}" for a in anchors)
    return hashlib.sha256("\n".join(lines).encode()).digest()


class Memory:
    """A bounded, thread-safe store: the oldest untouched entry goes when `entries` are reached."""

    def __init__(self, *, entries: int = LIMITS.remembered) -> None:
        self._entries = entries
        self._store: OrderedDict[Key, tuple[Any, Window]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._store)

    def recall(self, key: Key, at: datetime) -> Any | None:
        """What was remembered under `key`, if it holds at `at`; else None."""
        with self._lock:
            entry = self._store.get(key)
            if entry is None or at not in entry[1]:
                return None
            self._store.move_to_end(key)
            return entry[0]

    def remember(self, key: Key, value: Any, window: Window) -> None:
        """Keep `value` for questions about a time inside `window`."""
        with self._lock:
            self._store[key] = (value, window)
            self._store.move_to_end(key)
            while len(self._store) > self._entries:
                self._store.popitem(last=False)
