"""This side's standard streams as lines, read and written by threads: Windows has no other way to wait for them.

The threads use descriptors, not Python's buffered files, whose locks a blocked thread would hold when the process ends.
"""

from __future__ import annotations

import asyncio
import os
import queue
import sys
import threading
from collections.abc import AsyncIterator

import anyio

from attestable_mcp.limits import LIMITS

_CHUNK = 65536
_AHEAD = 64
TOO_LONG = None
"""Stands for a line over the cap, which was skipped."""


class Input:
    """Lines of a descriptor, without their line ends; at most `_AHEAD` chunks are read before somebody wants them."""

    def __init__(self, descriptor: int, cap: int = LIMITS.mcp_message) -> None:
        self._descriptor = descriptor
        self._cap = cap
        self._room = threading.Semaphore(_AHEAD)
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        _binary(descriptor)
        threading.Thread(target=self._read, name="attestable-mcp stdin", daemon=True).start()

    def _read(self) -> None:
        chunk = b"-"
        while chunk:
            self._room.acquire()
            try:
                chunk = os.read(self._descriptor, _CHUNK)
            except OSError:
                chunk = b""
            try:
                self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)
            except RuntimeError:  # the loop has ended
                return

    def close(self) -> None:
        """Read no further: the lines end."""
        self._chunks.put_nowait(b"")

    async def lines(self) -> AsyncIterator[bytes | None]:
        """Each line until the other side closes; `TOO_LONG` for one that was over the cap."""
        rest, skipping = bytearray(), False
        while chunk := await self._chunks.get():
            self._room.release()
            first, *more = chunk.split(b"\n")
            rest += first
            for piece in more:
                yield TOO_LONG if skipping or len(rest) > self._cap else bytes(rest)
                rest, skipping = bytearray(piece), False
            if len(rest) > self._cap:
                rest, skipping = bytearray(), True
        if rest or skipping:
            yield TOO_LONG if skipping else bytes(rest)


class Output:
    """Lines to a descriptor, in order. `lost` is set when nobody reads there any more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._room = anyio.Semaphore(_AHEAD)
        self._loop = asyncio.get_running_loop()
        self.lost = anyio.Event()
        self._ended = anyio.Event()
        _binary(descriptor)
        threading.Thread(target=self._write, name="attestable-mcp stdout", daemon=True).start()

    async def write(self, line: bytes) -> None:
        """Queue one line; waits while the reader is far behind."""
        if not self.lost.is_set():
            await self._room.acquire()
            self._queue.put(line + b"\n")

    async def aclose(self, seconds: float) -> None:
        """Let what is queued go out, for so many seconds at most."""
        self._queue.put(None)
        with anyio.move_on_after(seconds):
            await self._ended.wait()

    def _write(self) -> None:
        try:
            while (line := self._queue.get()) is not None:
                self._put(line)
                self._loop.call_soon_threadsafe(self._room.release)
            self._loop.call_soon_threadsafe(self._ended.set)
        except RuntimeError:  # the loop has ended
            return
        except OSError:
            self._give_up()

    def _put(self, line: bytes) -> None:
        view = memoryview(line)
        while view:
            view = view[os.write(self._descriptor, view[:_CHUNK]) :]

    def _give_up(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self.lost.set)
            self._loop.call_soon_threadsafe(self._ended.set)
            while self._queue.get() is not None:
                self._loop.call_soon_threadsafe(self._room.release)
        except RuntimeError:
            return


def _binary(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(descriptor, os.O_BINARY)


def take_stdout() -> int:
    """A descriptor of stdout for ourselves; whatever else this process prints goes to stderr from now on."""
    own = os.dup(1)
    os.dup2(2, 1)
    return own
