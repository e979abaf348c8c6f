"""Memory that many handshakes at once have left behind, given back to the system.

A TLS handshake with evidence takes some 50 KiB of buffers for as long as it lasts. Hundreds at once, as when a server
comes back and all its clients with it, leave that much free memory between what their connections keep, and glibc
returns only what lies at the end of the heap.
"""

from __future__ import annotations

import asyncio
import ctypes
from collections.abc import Callable

SECONDS = 3.0
MANY = 64
"""Connections since the last time that make it worth the 10 ms."""


def give_back() -> bool:
    """Return free pages to the system. False where the C library has no such call (it is glibc's)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return False
    return True


async def tend(
    made: Callable[[], int], *, seconds: float = SECONDS, many: int = MANY, work: Callable[[], object] = give_back
) -> None:
    """Do `work` in a thread whenever there were many connections, until cancelled. `made` says how many in all."""
    before = made()
    while True:
        await asyncio.sleep(seconds)
        if made() - before >= many:
            before = made()
            await asyncio.to_thread(work)
