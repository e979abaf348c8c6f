"""One TCP connection of a client on asyncio, as an anyio stream with fewer steps a message than anyio's own.

What is sent in one turn of the event loop leaves together, with the next wait for an answer at the latest: an HTTP
library writes the head and the body of a request one after the other, and each write of its own would wake the peer
twice. Reading goes on while nobody waits, up to `HELD` bytes, so that waiting costs no system call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.abc
from anyio.abc import SocketAttribute

from attestable_mcp.tls.scratch import READ, read_buffer

HELD = 4 * READ


class Link(anyio.abc.ByteStream, asyncio.BufferedProtocol):
    """Made by `connect`. Raises as `anyio.abc.ByteStream` says."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._buffer = read_buffer()
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._unsent: list[bytes] = []
        self._ended = False
        self._closed = False
        self._error: Exception | None = None
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self._full = False

    # --- what the socket's transport says --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._chunks.append(bytes(self._buffer[:nbytes]))
        self._held += nbytes
        if self._held >= HELD:
            self._transport.pause_reading()
        _wake(self._reader)

    def eof_received(self) -> bool:
        """The other side sends no more; we still may."""
        self._ended = True
        _wake(self._reader)
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._error = exc
        self._ended = True
        self._full = False
        _wake(self._reader)
        _wake(self._writer)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        _wake(self._writer)

    # --- the stream ------------------------------------------------------------------------------------------------

    async def receive(self, max_bytes: int = READ) -> bytes:
        """Up to `max_bytes`, as soon as there are any."""
        self._flush()
        if not self._chunks and not self._ended:
            self._reader = self._loop.create_future()
            await self._reader
        if not self._chunks:
            self._demand()
            raise anyio.EndOfStream
        chunk = self._chunks.popleft()
        if len(chunk) > max_bytes:
            self._chunks.appendleft(chunk[max_bytes:])
            chunk = chunk[:max_bytes]
        paused = self._held >= HELD
        self._held -= len(chunk)
        if paused and self._held < HELD and not self._transport.is_closing():
            self._transport.resume_reading()
        return chunk

    async def send(self, item: bytes) -> None:
        """Send all of `item`, now or with what follows at once; waits while the peer is far behind."""
        self._demand()
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(item)
        if self._full or len(item) >= READ:
            self._flush()
            while self._full:
                self._writer = self._loop.create_future()
                await self._writer
            self._demand()

    async def send_eof(self) -> None:
        """Send no more."""
        self._flush()
        self._transport.write_eof()

    async def aclose(self) -> None:
        """Send what the socket takes at once, and close."""
        self._flush()
        self._closed = True
        self._transport.abort()
        await asyncio.sleep(0)

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """As anyio's own socket streams."""
        info = self._transport.get_extra_info
        return {
            SocketAttribute.raw_socket: lambda: info("socket"),
            SocketAttribute.local_address: lambda: info("sockname"),
            SocketAttribute.remote_address: lambda: info("peername"),
        }

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and not self._closed:
            self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))

    def _demand(self) -> None:
        if self._closed:
            raise anyio.ClosedResourceError
        if self._error is not None:
            raise anyio.BrokenResourceError from self._error


def _wake(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


async def connect(host: str, port: int, local_address: str | None = None) -> Link:
    """Connect to the address that answers first (RFC 8305).

    Raises: OSError.
    """
    local = None if local_address is None else (local_address, 0)
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(Link, host, port, local_addr=local, happy_eyeballs_delay=0.25, interleave=1)
    return link
