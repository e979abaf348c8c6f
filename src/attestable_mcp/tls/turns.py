"""Threads in which a server asks for what clients' evidence rests on: so many at a time, and for one network fewer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_T = TypeVar("_T")


class Turns:
    """`threads` questions at a time, `each` of them for one network; who comes later waits. For one event loop.

    A client names what has to be asked for before it has proven anything, and answers may take seconds: these threads
    are nobody else's, and no network has them all.
    """

    def __init__(self, threads: int, each: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="client")
        self._each = each
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._waiting: dict[str, int] = {}

    async def run(self, network: str, call: Callable[[], _T]) -> _T:
        """What `call` gives, in a thread, once it is this network's turn. Raises: as `call`."""
        turn = self._turns.setdefault(network, asyncio.Semaphore(self._each))
        self._waiting[network] = self._waiting.get(network, 0) + 1
        try:
            async with turn:
                return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        finally:
            self._waiting[network] -= 1
            if not self._waiting[network]:
                del self._waiting[network], self._turns[network]
