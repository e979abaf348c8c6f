"""The memory that sockets are read into: one piece a thread, since each connection of its own would take as much."""

from __future__ import annotations

import sys
import threading

READ = 64 * 1024
"""Bytes that are read at once."""
_OF_THREAD = threading.local()


def read_buffer() -> memoryview:
    """For `asyncio.BufferedProtocol.get_buffer`, of a protocol that belongs to the calling thread's event loop.

    Loops that wait for readiness fill it and hand it over in one step, so that all connections of a thread share it.
    Threads may not: a read lets other threads run. Windows fills it while other things happen, so that each connection
    has one.
    """
    if sys.platform == "win32":
        return memoryview(bytearray(READ))
    found: memoryview | None = getattr(_OF_THREAD, "buffer", None)
    if found is None:
        found = _OF_THREAD.buffer = memoryview(bytearray(READ))
    return found
