"""TLS between a socket and an asyncio protocol: the standard library's client at the other end."""

from __future__ import annotations

import asyncio
import gc
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.tls.certificate import issue
from attestable_mcp.tls.engine import ServerContext
from attestable_mcp.tls.transport import TlsProtocol

pytestmark = pytest.mark.anyio
MIB = 1024 * 1024
CLIENTS = """
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
def connect():
    found = context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1]))))
    found.sendall(b"x")
    found.recv(1)
    return found
held = [connect() for _ in range(int(sys.argv[2]))]
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def context() -> ServerContext:
    issued = issue(SimulatedAttester(bytes(32)), ("localhost",), now=datetime.now(UTC))
    return ServerContext(issued.certificate_der, issued.key_pem)


class Echo(asyncio.Protocol):
    """Sends back what it gets; notes what happens to it."""

    def __init__(self, notes: list[str]) -> None:
        self.notes = notes
        self.seen = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.notes.append("made")

    def data_received(self, data: bytes) -> None:
        self.seen += len(data)
        self.transport.write(data)

    def pause_writing(self) -> None:
        self.transport.pause_reading()
        self.notes.append("paused")

    def resume_writing(self) -> None:
        self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.notes.append("lost")


@asynccontextmanager
async def serving(
    make: Callable[[], asyncio.BaseProtocol], context: ServerContext, **options: Any
) -> AsyncIterator[int]:
    def factory() -> TlsProtocol:
        return TlsProtocol(make(), context.channel(), context, **options)

    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def trusting() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


async def test_megabytes_come_back_to_a_reader_that_takes_its_time(context: ServerContext) -> None:
    notes: list[str] = []
    sent = bytes(range(256)) * (24 * MIB // 256)
    async with serving(lambda: Echo(notes), context) as port, asyncio.timeout(30):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting())
        writer.write(sent)
        while "paused" not in notes:  # nothing is read here, until the other end has been told to wait
            await asyncio.sleep(0.01)
        back = bytearray()
        while len(back) < len(sent):
            back += await reader.read(MIB)
        assert back == sent
        writer.close()
        await until(lambda: notes[-1] == "lost")


async def test_a_peer_that_says_nothing_is_let_go(context: ServerContext) -> None:
    notes: list[str] = []
    async with serving(lambda: Echo(notes), context, handshake_seconds=0.2) as port, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
        writer.close()
    assert notes == []


async def test_what_is_no_tls_gets_an_alert_and_the_application_hears_nothing(context: ServerContext) -> None:
    notes: list[str] = []
    async with serving(lambda: Echo(notes), context) as port, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await reader.read()
        writer.close()
    assert answer[:1] in (b"", b"\x15")
    assert notes == []


async def test_a_socket_that_breaks_off_ends_the_application_once(context: ServerContext) -> None:
    notes: list[str] = []
    async with serving(lambda: Echo(notes), context) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting())
        await until(lambda: notes == ["made"])
        writer.transport.abort()
        await until(lambda: notes == ["made", "lost"])


class Big(Echo):
    """Sends more than sockets take, and ends."""

    def data_received(self, data: bytes) -> None:
        self.transport.write(bytes(24 * MIB))
        self.transport.close()


async def test_a_peer_that_reads_nothing_keeps_no_connection_that_has_ended(context: ServerContext) -> None:
    notes: list[str] = []
    async with serving(lambda: Big(notes), context, linger_seconds=0.1) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(), limit=1024)
        writer.write(b"x")
        await until(lambda: notes[-1:] == ["lost"])
        writer.transport.abort()


async def test_a_peer_that_reads_slowly_gets_all_before_the_end(context: ServerContext) -> None:
    async with serving(lambda: Big([]), context, linger_seconds=0.2) as port, asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting())
        writer.write(b"x")
        seen = 0
        while part := await reader.read(MIB):
            seen += len(part)
            await asyncio.sleep(0.005)
        assert seen == 24 * MIB
        writer.close()


async def test_what_was_sent_before_the_end_arrives_before_it(context: ServerContext) -> None:
    got = bytearray()

    class Late(Echo):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(0.2, self.transport.resume_reading)

        def data_received(self, data: bytes) -> None:
            got.extend(data)

    notes: list[str] = []
    async with serving(lambda: Late(notes), context) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting())
        writer.write(b"the end is near")
        writer.close()
        await until(lambda: "lost" in notes)
    assert got == b"the end is near"


async def test_what_is_written_in_one_turn_leaves_as_one_record(context: ServerContext) -> None:
    class Parts(Echo):
        def data_received(self, data: bytes) -> None:
            self.transport.write(b"head, ")
            self.transport.write(b"body")
            asyncio.get_running_loop().call_later(0.05, self._more)

        def _more(self) -> None:
            self.transport.write(b"; and the end")
            assert self.transport.get_write_buffer_size() == 13
            self.transport.close()

    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = trusting().wrap_bio(into, out)
    async with serving(lambda: Parts([]), context) as port, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(out.read())
                into.write(await reader.read(MIB))
        tls.write(b"go")
        writer.write(out.read())
        sent = await reader.read()
        writer.close()
    assert [size for kind, size in records(sent)][-3:] == [27, 30, 19]  # 17 bytes are TLS's own; then close_notify


def records(sent: bytes) -> list[tuple[int, int]]:
    """Type and length of each record (RFC 8446 section 5.1)."""
    found = []
    while sent:
        size = int.from_bytes(sent[3:5], "big")
        found.append((sent[0], size))
        sent = sent[5 + size :]
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="this system does not tell a process's memory")
async def test_a_connection_that_waits_holds_less_than_50_kib(context: ServerContext) -> None:
    """asyncio's own TLS layer would keep 256 KiB for each. The clients are another process."""
    notes: list[str] = []
    count = 40

    def resident() -> int:
        gc.collect()
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))

    async with serving(lambda: Echo(notes), context) as port:
        command = [sys.executable, "-c", CLIENTS, str(port), str(count)]
        before = resident()
        client = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert client.stdout is not None
        await asyncio.wait_for(client.stdout.readline(), 20)
        held = (resident() - before) / count
        await asyncio.wait_for(client.communicate(b""), 10)
    assert notes.count("made") == count
    assert held < 50
