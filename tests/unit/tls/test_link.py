"""A client's TCP connection: what leaves together, what waits, and how it ends."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from attestable_mcp.tls import link
from attestable_mcp.tls.scratch import READ

pytestmark = pytest.mark.anyio
MIB = 1024 * 1024
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def linked(serve: Serve) -> AsyncIterator[link.Link]:
    """A link to a server whose one connection `serve` takes."""
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        found = await link.connect("127.0.0.1", server.sockets[0].getsockname()[1])
        try:
            yield found
        finally:
            await found.aclose()


async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


class Noted(asyncio.Transport):
    """Notes each write, which would be a system call."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def abort(self) -> None:
        self.writes.append(b"(end)")


def noted() -> tuple[link.Link, Noted]:
    found, transport = link.Link(), Noted()
    found.connection_made(transport)
    return found, transport


async def test_head_and_body_leave_together_when_the_answer_is_waited_for() -> None:
    found, transport = noted()
    await found.send(b"head ")
    await found.send(b"body")
    assert transport.writes == []
    found.buffer_updated(0)
    await found.receive()
    assert transport.writes == [b"head body"]


async def test_what_is_sent_leaves_although_nobody_waits_for_an_answer() -> None:
    found, transport = noted()
    await found.send(b"one")
    await asyncio.sleep(0)
    await found.send(b"two")
    await asyncio.sleep(0)
    assert transport.writes == [b"one", b"two"]


async def test_closing_sends_what_waits_first() -> None:
    found, transport = noted()
    await found.send(b"farewell")
    await found.aclose()
    assert transport.writes == [b"farewell", b"(end)"]
    with pytest.raises(anyio.ClosedResourceError):
        await found.send(b"late")
    found.connection_lost(None)
    with pytest.raises(anyio.ClosedResourceError):
        await found.receive()


async def test_sending_waits_for_a_peer_that_does_not_read() -> None:
    may_read = asyncio.Event()
    got = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await may_read.wait()
        while len(got) < 32 * MIB:
            got.extend(await reader.read(MIB))

    async with linked(serve) as found, asyncio.timeout(20):
        sending = asyncio.create_task(_send_all(found, 32))
        _, late = await asyncio.wait({sending}, timeout=0.3)
        assert late, "32 MiB fit into no socket's buffers"
        may_read.set()
        await sending
        while len(got) < 32 * MIB:
            await asyncio.sleep(0.01)
    assert got == b"x" * (32 * MIB)


async def _send_all(found: link.Link, count: int) -> None:
    for _ in range(count):
        await found.send(b"x" * MIB)


async def test_a_peer_that_sends_on_while_nobody_reads_has_to_wait() -> None:
    size = 16 * MIB

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(range(256)) * (size // 256))
        await writer.drain()
        writer.close()

    async with linked(serve) as found, asyncio.timeout(20):
        await asyncio.sleep(0.3)
        assert found._held <= link.HELD + READ
        got = b"".join([piece async for piece in found])  # until EndOfStream
    assert got == bytes(range(256)) * (size // 256)


async def test_a_broken_connection_is_told_as_one() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()  # with a reset

    async with linked(serve) as found, asyncio.timeout(5):
        await found.send(b"x")
        with pytest.raises(anyio.BrokenResourceError):
            await found.receive()
        with pytest.raises(anyio.BrokenResourceError):
            await found.send(b"x")


async def test_a_wait_that_is_given_up_loses_nothing() -> None:
    answer = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answer.wait()
        writer.write(b"late")
        await writer.drain()

    async with linked(serve) as found, asyncio.timeout(5):
        with anyio.move_on_after(0.05) as scope:
            await found.receive()
        assert scope.cancelled_caught
        answer.set()
        assert await found.receive() == b"late"


async def test_nobody_at_the_address_is_an_os_error() -> None:
    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
    with pytest.raises(OSError):
        await link.connect("127.0.0.1", port)
