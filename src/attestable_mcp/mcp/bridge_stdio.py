"""This side's standard streams as lines.

Pipes and sockets, which is what hosts give their servers, are read and written by the event loop itself, without a
change to their blocking mode: that belongs to whoever shares them. Files, terminals and all of Windows, which an event
loop cannot wait for, and lines for a reader that is behind are left to threads. These use descriptors, not Python's
buffered files, whose locks a blocked thread would hold when the process ends.
"""

from __future__ import annotations

import asyncio
import os
import queue
import socket
import stat
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
        self._ahead = 0
        self._watching = False
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        _binary(descriptor)
        self._waitable = sys.platform != "win32" and _kind(descriptor) in (stat.S_IFIFO, stat.S_IFSOCK)
        if self._waitable:
            self._watch(True)
        else:
            threading.Thread(target=self._read, name="attestable-mcp stdin", daemon=True).start()

    def _watch(self, wanted: bool) -> None:
        if wanted and not self._watching:
            self._loop.add_reader(self._descriptor, self._ready)
        elif self._watching and not wanted:
            self._loop.remove_reader(self._descriptor)
        self._watching = wanted

    def _ready(self) -> None:
        """There is something to read, or the end."""
        try:
            chunk = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        self._chunks.put_nowait(chunk)
        self._ahead += 1
        if not chunk or self._ahead >= _AHEAD:
            self._watch(False)

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

    def _taken(self) -> None:
        """A chunk is out of the queue: there is room for another."""
        if not self._waitable:
            self._room.release()
            return
        self._ahead -= 1
        self._watch(True)

    def close(self) -> None:
        """Read no further: the lines end."""
        self._chunks.put_nowait(b"")

    async def lines(self) -> AsyncIterator[bytes | None]:
        """Each line until the other side closes; `TOO_LONG` for one that was over the cap."""
        rest, skipping = bytearray(), False
        while chunk := await self._chunks.get():
            self._taken()
            first, *more = chunk.split(b"\n")
            rest += first
            for piece in more:
                yield TOO_LONG if skipping or len(rest) > self._cap else bytes(rest)
                rest, skipping = bytearray(piece), False
            if len(rest) > self._cap:
                rest, skipping = bytearray(), True
        self._watch(False)
        if rest or skipping:
            yield TOO_LONG if skipping else bytes(rest)


class Output:
    """Lines to a descriptor, in order. `lost` is set when nobody reads there any more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._room = anyio.Semaphore(_AHEAD)
        self._behind = 0
        self._thread: threading.Thread | None = None
        self._loop = asyncio.get_running_loop()
        self.lost = anyio.Event()
        self._ended = anyio.Event()
        _binary(descriptor)
        self._direct = _Direct.to(descriptor)

    async def write(self, line: bytes) -> None:
        """Write one line, or queue it for a reader that is behind; waits while it is far behind."""
        if self.lost.is_set():
            return
        left = self._at_once(line + b"\n") if not self._behind else line + b"\n"
        if left:
            await self._hand_over(left)

    def _at_once(self, data: bytes) -> bytes:
        """Write what fits without waiting; what is left."""
        if self._direct is None:
            return data
        try:
            return data[self._direct.offer(data) :]
        except BlockingIOError:
            return data
        except OSError:
            self.lost.set()
            return b""

    async def _hand_over(self, data: bytes) -> None:
        """Leave it to the thread. While nothing is behind there is room at once: no line is torn by a cancellation."""
        if self._behind:
            await self._room.acquire()
        else:
            self._room.acquire_nowait()
        self._behind += 1
        self._queue.put(data)
        if self._thread is None:
            self._thread = threading.Thread(target=self._write, name="attestable-mcp stdout", daemon=True)
            self._thread.start()

    def _written(self) -> None:
        self._behind -= 1
        self._room.release()

    async def aclose(self, seconds: float) -> None:
        """Let what is queued go out, for so many seconds at most."""
        if self._thread is not None:
            self._queue.put(None)
            with anyio.move_on_after(seconds):
                await self._ended.wait()
        if self._direct is not None:
            self._direct.close()
            self._direct = None

    def _write(self) -> None:
        try:
            while (line := self._queue.get()) is not None:
                self._put(line)
                self._loop.call_soon_threadsafe(self._written)
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
                self._loop.call_soon_threadsafe(self._written)
        except RuntimeError:
            return


def _kind(descriptor: int) -> int:
    """What a descriptor is of, as `stat` names it; 0 where that cannot be told."""
    try:
        return stat.S_IFMT(os.fstat(descriptor).st_mode)
    except OSError:
        return 0


class _Direct:
    """Writes as much as fits without waiting, whatever blocking mode the descriptor is in."""

    def __init__(self, own: int | socket.socket) -> None:
        self._own = own

    @classmethod
    def to(cls, descriptor: int) -> _Direct | None:
        """None where that cannot be done. A pipe is opened once more, by Linux's name for it, in a mode of its own."""
        kind = _kind(descriptor)
        try:
            if sys.platform != "win32" and kind == stat.S_IFSOCK:
                return cls(socket.socket(fileno=os.dup(descriptor)))
            if sys.platform == "linux" and kind == stat.S_IFIFO:
                return cls(os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            pass
        return None

    def offer(self, data: bytes) -> int:
        """How many bytes were taken. Raises: BlockingIOError for none; OSError when nobody reads there any more."""
        if isinstance(self._own, int):
            return os.write(self._own, data)
        return self._own.send(data, socket.MSG_DONTWAIT)

    def close(self) -> None:
        """Leave the descriptor to its owner."""
        if isinstance(self._own, int):
            os.close(self._own)
        else:
            self._own.close()


def _binary(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(descriptor, os.O_BINARY)


def take_stdout() -> int:
    """A descriptor of stdout for ourselves; whatever else this process prints goes to stderr from now on."""
    own = os.dup(1)
    os.dup2(2, 1)
    return own
