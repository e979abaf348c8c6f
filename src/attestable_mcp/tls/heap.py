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
"""Connections that make it worth the 10 ms; fewer within `SECONDS` are calm."""


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
    """Do `work` in a thread when many connections were made and no more come, until cancelled.

    `made` says how many have come to stand in all; while they come, what is free is soon in use again.
    """
    done = last = made()
    while True:
        await asyncio.sleep(seconds)
        now = made()
        if now - done >= many and now - last < many:
            done = now
            await asyncio.to_thread(work)
        last = now
