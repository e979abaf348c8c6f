"""Turns: what costs much is done a few at a time for one holder (see `shares`), so that others get theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

_T = TypeVar("_T")


class Each:
    """`most` at a time for each holder; who comes later waits. For one event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._waiting: dict[str, int] = {}

    @asynccontextmanager
    async def turn(self, holder: str) -> AsyncIterator[None]:
        """Around what it is this holder's turn for."""
        turn = self._turns.setdefault(holder, asyncio.Semaphore(self._most))
        self._waiting[holder] = self._waiting.get(holder, 0) + 1
        try:
            async with turn:
                yield
        finally:
            self._waiting[holder] -= 1
            if not self._waiting[holder]:
                del self._waiting[holder], self._turns[holder]


class Turns:
    """Threads in which a server asks for what clients' evidence rests on: `threads` at a time, `each` for one network.

    A client names what has to be asked for before it has proven anything, and answers may take seconds: these threads
    are nobody else's, and no network has them all.
    """

    def __init__(self, threads: int, each: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="client")
        self._each = Each(each)

    async def run(self, network: str, call: Callable[[], _T]) -> _T:
        """What `call` gives, in a thread, once it is this network's turn. Raises: as `call`."""
        async with self._each.turn(network):
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
