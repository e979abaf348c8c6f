"""The engine under asyncio, under blocking sockets, and fed as uvloop feeds it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from OpenSSL import SSL

from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.errors import ConversationError
from attestable_mcp.tls.certificate import Issued, issue
from attestable_mcp.tls.channel import Channel, Identity, _renew
from attestable_mcp.tls.engine import ClientContext, ServerContext, TlsObject


@pytest.fixture(scope="module")
def issued() -> Issued:
    return issue(SimulatedAttester(b"\x01" * 32), ["localhost"])


@pytest.fixture
def context(issued: Issued) -> ServerContext:
    return ServerContext(issued.certificate_der, issued.key_pem)


def _shake(server: Channel, client: Channel) -> None:
    for _ in range(4):
        client.handshake()
        server.feed(client.take())
        server.handshake()
        client.feed(server.take())
    assert client.established
    assert server.established


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def _serving(context: ssl.SSLContext) -> AsyncIterator[int]:
    server = await asyncio.start_server(_echo, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _open(port: int, context: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")


@pytest.mark.parametrize("size", [1, 16384, 16385, 70_000, 1_000_000])
def test_asyncio_carries_any_size_both_ways(context: ServerContext, size: int) -> None:
    async def run() -> bytes:
        async with _serving(context) as port:
            reader, writer = await _open(port, ClientContext())
            writer.write(b"z" * size)
            data = await asyncio.wait_for(reader.readexactly(size), 10)
            writer.close()
            await writer.wait_closed()
            return data

    assert asyncio.run(run()) == b"z" * size


def test_both_ends_export_the_same_secret_and_no_two_connections_do(context: ServerContext) -> None:
    secrets = set()
    for _ in range(2):
        server, client = context.channel(), ClientContext().channel("localhost")
        with pytest.raises(ConversationError):
            client.export_keying_material(b"EXPORTER-x", 32)
        _shake(server, client)
        assert server.export_keying_material(b"EXPORTER-x", 32) == client.export_keying_material(b"EXPORTER-x", 32)
        assert client.export_keying_material(b"EXPORTER-y", 32) != client.export_keying_material(b"EXPORTER-x", 32)
        secrets.add(client.export_keying_material(b"EXPORTER-x", 32))
    assert len(secrets) == 2


def test_the_peer_certificate_is_the_very_one_that_was_issued(context: ServerContext, issued: Issued) -> None:
    server, client = context.channel(), ClientContext().channel("localhost")
    _shake(server, client)
    assert client.peer_certificate_der() == issued.certificate_der == server.own_certificate_der()
    assert client.own_certificate_der() is None
    assert server.own is not None
    assert server.own.spki_sha256.hex() == issued.spki_sha256
    assert client.alpn() == "http/1.1"
    assert client.version() == "TLSv1.3"


def test_a_swap_changes_connections_to_come_and_none_that_live(context: ServerContext, issued: Issued) -> None:
    old_server, old_client = context.channel(), ClientContext().channel()
    half_server, half_client = context.channel(), ClientContext().channel()
    _shake(old_server, old_client)
    following = issue(SimulatedAttester(b"\x01" * 32), ["localhost"])
    context.swap(following.certificate_der, following.key_pem)
    _shake(half_server, half_client)
    new_server, new_client = context.channel(), ClientContext().channel()
    _shake(new_server, new_client)
    assert half_client.peer_certificate_der() == half_server.own_certificate_der() == issued.certificate_der
    assert new_client.peer_certificate_der() == new_server.own_certificate_der() == following.certificate_der
    old_server.feed(old_client.write(b"still here"))
    assert old_server.read(100) == b"still here"


def test_no_session_is_ever_resumed(context: ServerContext) -> None:
    async def run() -> None:
        async with _serving(context) as port:
            stock = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            stock.check_hostname, stock.verify_mode = False, ssl.CERT_NONE

            def twice() -> bool | None:
                with stock.wrap_socket(socket.create_connection(("127.0.0.1", port), 5)) as first:
                    first.sendall(b"x")
                    first.recv(1)
                    session = first.session
                sock = socket.create_connection(("127.0.0.1", port), 5)
                with stock.wrap_socket(sock, session=session) as second:
                    second.sendall(b"x")
                    second.recv(1)
                    return second.session_reused

            assert await asyncio.to_thread(twice) is False

    asyncio.run(run())


def test_c9_older_clients_are_refused(context: ServerContext) -> None:
    async def run() -> None:
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        async with _serving(context) as port:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await _open(port, old)

    asyncio.run(run())


@pytest.fixture
def blocking(issued: Issued, tmp_path: Path) -> Iterator[Callable[[], socket.socket]]:
    """Connected sockets to a stock TLS echo server in a thread."""
    pem = tmp_path / "server.pem"
    pem.write_bytes(ssl.DER_cert_to_PEM_cert(issued.certificate_der).encode() + issued.key_pem)
    stock = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    stock.load_cert_chain(pem)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def serve() -> None:
        with contextlib.suppress(OSError):
            bare, _ = listener.accept()
            with stock.wrap_socket(bare, server_side=True) as tls:
                while data := tls.recv(65536):
                    tls.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    yield lambda: socket.create_connection(listener.getsockname(), 5)
    listener.close()
    thread.join(10)


def test_a_blocking_socket_talks_to_a_stock_server(blocking: Callable[[], socket.socket], issued: Issued) -> None:
    with ClientContext().wrap_socket(blocking(), server_hostname="localhost") as tls:
        assert tls.getpeercert(True) == issued.certificate_der
        assert tls.version() == "TLSv1.3"
        tls.sendall(b"a" * 50_000)
        seen = b""
        while len(seen) < 50_000:
            seen += tls.recv(65536)
        assert seen == b"a" * 50_000


def _objects(context: ServerContext) -> tuple[TlsObject, TlsObject, Callable[[], None]]:
    """Two objects over BIOs and a pump that moves what waits."""
    up, down, into, out = ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(into, out, server_side=True)
    client = ClientContext().wrap_bio(down, up, server_hostname="localhost")

    def pump() -> None:
        into.write(up.read())
        down.write(out.read())

    for _ in range(4):
        for end in (client, server):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
            pump()
    return server, client, pump


@pytest.mark.parametrize("size", [1024, 65536, 262144])
@pytest.mark.parametrize("total", [10, 40_000, 500_000])
def test_a_loop_that_stops_at_an_empty_bio_loses_nothing(context: ServerContext, size: int, total: int) -> None:
    """uvloop reads again only while the incoming BIO has bytes: what it would leave behind must still be there."""
    server, client, pump = _objects(context)
    for _ in range(3):
        client.write(b"q" * total)
        pump()
        incoming = server._incoming
        seen = 0
        with contextlib.suppress(ssl.SSLWantReadError):
            while incoming.pending or server.pending():
                seen += len(server.read(size))
        assert seen == total


def test_close_notify_is_an_end_and_a_bare_end_is_an_error(context: ServerContext) -> None:
    server, client, pump = _objects(context)
    client.write(b"last words")
    client.unwrap()
    pump()
    assert server.read(100) == b"last words"
    assert server.read(100) == b""
    buffer = bytearray(10)
    assert server.read(10, buffer) == 0
    server, client, pump = _objects(context)
    client.write(b"cut")
    pump()
    server._incoming.write_eof()
    assert server.read(100) == b"cut"
    with pytest.raises(ssl.SSLEOFError):
        server.read(100)


def test_a_tampered_record_is_an_error(context: ServerContext) -> None:
    server, client = context.channel(), ClientContext().channel()
    _shake(server, client)
    record = bytearray(client.write(b"hello"))
    record[-1] ^= 1
    server.feed(bytes(record))
    with pytest.raises(SSL.Error):
        server.read(100)


def _pair(context: ServerContext) -> tuple[Channel, Channel]:
    server, client = context.channel(), ClientContext().channel("localhost")
    _shake(server, client)
    return server, client


def test_what_openssl_buffered_is_given_back_and_nothing_is_lost(context: ServerContext) -> None:
    server, client = _pair(context)
    first = server._connection._from_ssl, server._connection._into_ssl
    sent = bytes(range(256)) * 1000
    cipher = server.write(sent)
    assert server._connection._from_ssl != first[0], "256 kB went through"
    client.feed(cipher[:100_001])  # ends within a record
    got = client.read_all(1 << 20) or b""
    held = client._connection._into_ssl
    assert client.read(1) is None
    client.feed(cipher[100_001:])
    got += client.read_all(1 << 20) or b""
    assert client.read(1) is None
    assert client._connection._into_ssl != held
    assert got == sent
    server.feed(client.write(b"and back"))
    assert server.read_all(100) == b"and back"
    assert server._connection._into_ssl == first[1], "little went through"
    client.feed(server.write(b"little"))
    assert client.read(100) == b"little"


def test_what_waits_to_be_sent_is_not_given_back(context: ServerContext) -> None:
    server, client = _pair(context)
    server._connection.send(b"x" * 9000)
    assert not _renew(server._connection, "_from_ssl")
    client.feed(server.take())
    assert client.read_all(10_000) == b"x" * 9000


def test_an_end_is_an_end_after_buffers_were_given_back(context: ServerContext) -> None:
    server, client = _pair(context)
    server.feed(client.write(b"x" * 9000))
    assert server.read_all(9000) == b"x" * 9000
    assert server.read(1) is None
    server.feed_eof()
    with pytest.raises(SSL.SysCallError):
        server.read(1)


def test_contexts_know_their_side(context: ServerContext) -> None:
    with pytest.raises(ValueError, match="server side only"):
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=False)


def test_a_pair_that_openssl_refuses_is_one_of_our_errors() -> None:
    with pytest.raises(ConversationError):
        Identity(b"no certificate", b"no key")
