"""Who has to give way where room is short: whoever holds most, and of that what has rested longest.

One client's appetite then costs itself: it can push out its own, never one of somebody who holds less.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


class Shares(Generic[_K]):
    """What is held, by holder, in the order in which it was used last. Nothing here waits; not for several threads."""

    def __init__(self) -> None:
        self._holders: dict[_K, str] = {}
        self._held: dict[str, OrderedDict[_K, None]] = {}

    def __len__(self) -> int:
        return len(self._holders)

    def add(self, key: _K, holder: str) -> None:
        """One more, as the one used last."""
        self.remove(key)
        self._holders[key] = holder
        self._held.setdefault(holder, OrderedDict())[key] = None

    def touch(self, key: _K) -> None:
        """It is used now."""
        if (holder := self._holders.get(key)) is not None:
            self._held[holder].move_to_end(key)

    def remove(self, key: _K) -> None:
        """It is held no more; no matter if it never was."""
        if (holder := self._holders.pop(key, None)) is not None:
            held = self._held[holder]
            del held[key]
            if not held:
                del self._held[holder]

    def surplus(self, newcomer: str, rests: Callable[[_K], bool] = lambda key: True) -> _K | None:
        """What has to go so that `newcomer` gets one; None where it is the newcomer who has to go without.

        Of whoever holds most, the newcomer with its new one counted: what has rested longest of all that `rests`. What
        does not rest goes only where its holder keeps more than the newcomer then has.
        """
        if not self._held:
            return None
        own = len(self._held.get(newcomer, ())) + 1
        most = max(self._held, key=lambda holder: len(self._held[holder]) + (holder == newcomer))
        if (found := next((key for key in self._held[most] if rests(key)), None)) is not None:
            return found
        return next(iter(self._held[most])) if most != newcomer and len(self._held[most]) > own else None


class Shared(Generic[_K, _V]):
    """At most `most` values by key: one more pushes out what has to give way."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._shares: Shares[_K] = Shares()
        self._values: dict[_K, _V] = {}

    def get(self, key: _K) -> _V | None:
        """The value, which is used now; None where there is none."""
        self._shares.touch(key)
        return self._values.get(key)

    def put(self, key: _K, value: _V, holder: str) -> None:
        """Keep it, as the one used last."""
        while len(self._values) >= self._most and (gone := self._shares.surplus(holder)) is not None:
            self._shares.remove(gone)
            del self._values[gone]
        self._values[key] = value
        self._shares.add(key, holder)
