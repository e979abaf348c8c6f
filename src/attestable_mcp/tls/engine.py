"""OpenSSL through pyOpenSSL under the surface of `ssl.SSLContext`, so that event loops and servers stay as they are.

TLS 1.3 only, no tickets, no session cache, hence no resumption and no 0-RTT; renegotiation does not exist in TLS 1.3.
Works wherever `wrap_bio` is used (asyncio, uvloop, anyio, uvicorn, hypercorn) and, for blocking code, `wrap_socket`.

OpenSSL takes at most 100 KiB of certificates from a peer (`SSL_MAX_CERT_LIST_DEFAULT`; pyOpenSSL cannot change it): a
hostile certificate of any size is refused at its length field, before it is read.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import Any

from OpenSSL import SSL

from attestable_mcp.tls.channel import RECORD, RECORD_OVERHEAD, Channel, Identity, reason

CERTIFICATE_LIST_MAX = 100 * 1024
ALPN = (b"http/1.1",)
_BULK = 4 * RECORD
_PARTIAL = RECORD + RECORD_OVERHEAD


class TlsObject:
    """The part of `ssl.SSLObject` that asyncio, uvloop, anyio and httpcore call, over a `Channel`."""

    __slots__ = ("_buffer", "_eof", "_incoming", "_outgoing", "channel", "context", "server_hostname", "server_side")
    session = None
    session_reused = False

    def __init__(
        self,
        channel: Channel,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        context: ssl.SSLContext,
        server_hostname: str | None,
    ) -> None:
        self.channel = channel
        self._incoming = incoming
        self._outgoing = outgoing
        self.context = context
        self.server_side = channel.server_side
        self.server_hostname = server_hostname
        self._eof = False
        self._buffer = b""

    def do_handshake(self) -> None:
        """One step; raises `ssl.SSLWantReadError` until the handshake stands."""
        try:
            while not self.channel.handshake():
                if not self._feed_record():
                    raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "want read")
        except SSL.Error as error:
            raise _ssl_error(error) from error
        finally:
            self._drain()

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        """As `ssl.SSLObject.read`: bytes, or a count when `buffer` is given; b"" or 0 after close_notify."""
        try:
            while (data := self.channel.read_all(len)) is None:
                if not self._feed(len):
                    raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "want read")
        except SSL.Error as error:
            self._drain()
            raise _ssl_error(error) from error
        if buffer is None:
            return data
        size = data.__len__()
        buffer[:size] = data
        return size

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Encrypt all of `data` into the outgoing BIO; its length."""
        try:
            self._outgoing.write(self.channel.write(data))
        except SSL.Error as error:
            self._drain()
            raise _ssl_error(error) from error
        return len(data)

    def unwrap(self) -> None:
        """Say close_notify. The peer's own is not waited for: in TLS 1.3 each side closes for itself (RFC 8446 6.1).

        Waiting would hold a server's drain up until each idle client has read from its connection.
        """
        self._outgoing.write(self.channel.close())

    def _feed(self, size: int) -> bool:
        """Hand over no more than one read of `size` can empty: uvloop stops reading once the BIO is empty."""
        if size < _BULK or self._buffer:
            return self._feed_record()
        data = self._incoming.read(size - _PARTIAL)
        if not data:
            return self._feed_eof()
        self.channel.feed(data)
        return True

    def _feed_record(self) -> bool:
        """Hand over one whole record, so that records that OpenSSL does not need yet stay in the BIO."""
        for wanted in (5, 0):
            need = (wanted or 5 + int.from_bytes(self._buffer[3:5], "big")) - len(self._buffer)
            if need > 0:
                more = self._incoming.read(need)
                self._buffer += more
                if len(more) < need:
                    return self._feed_eof()
        self.channel.feed(self._buffer)
        self._buffer = b""
        return True

    def _feed_eof(self) -> bool:
        if not self._incoming.eof or self._eof:
            return False
        self._eof = True
        self.channel.feed(self._buffer)
        self.channel.feed_eof()
        self._buffer = b""
        return True

    def _drain(self) -> None:
        if cipher := self.channel.take():
            self._outgoing.write(cipher)

    def export_keying_material(self, label: bytes, length: int, context: bytes | None = b"") -> bytes:
        """See `Channel.export_keying_material`."""
        return self.channel.export_keying_material(label, length, context)

    def peer_certificate_der(self) -> bytes | None:
        """See `Channel.peer_certificate_der`."""
        return self.channel.peer_certificate_der()

    def own_certificate_der(self) -> bytes | None:
        """See `Channel.own_certificate_der`."""
        return self.channel.own_certificate_der()

    def getpeercert(self, binary_form: bool = False) -> Any:
        """DER when `binary_form`; otherwise an empty dict, as nothing here is validated against a PKI."""
        der = self.channel.peer_certificate_der()
        return der if binary_form or der is None else {}

    def get_channel_binding(self, cb_type: str = "tls-exporter") -> bytes:
        """RFC 9266 `tls-exporter`, the only type that TLS 1.3 defines."""
        if cb_type != "tls-exporter":
            raise ValueError(f"channel binding {cb_type!r} does not exist in TLS 1.3")
        return self.channel.export_keying_material(b"EXPORTER-Channel-Binding", 32)

    def selected_alpn_protocol(self) -> str | None:
        """See `Channel.alpn`."""
        return self.channel.alpn()

    def selected_npn_protocol(self) -> None:
        """NPN does not exist in TLS 1.3."""

    def cipher(self) -> tuple[str, str, int] | None:
        """See `Channel.cipher`."""
        return self.channel.cipher()

    def shared_ciphers(self) -> None:
        """Not told."""

    def compression(self) -> None:
        """TLS 1.3 has none."""

    def version(self) -> str | None:
        """`TLSv1.3` once the handshake stands."""
        return self.channel.version() if self.channel.established else None

    def pending(self) -> int:
        """Plaintext bytes already decrypted."""
        return self.channel.pending()


class TlsSocket:
    """A blocking TLS connection over a connected socket; the calls of `socket.socket` that HTTP clients use."""

    def __init__(self, sock: socket.socket, channel: Channel, *, handshake: bool = True) -> None:
        self._sock = sock
        self.channel = channel
        if handshake:
            self.do_handshake()

    def do_handshake(self) -> None:
        """Complete the handshake.

        Raises:
            ssl.SSLError: it failed. TimeoutError, OSError: of the socket.
        """
        try:
            while not self.channel.handshake():
                self._flush()
                self._receive()
        except SSL.Error as error:
            raise _ssl_error(error) from error
        finally:
            self._flush()

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Up to `size` bytes; b"" after close_notify."""
        try:
            while (data := self.channel.read(size)) is None:
                self._receive()
        except SSL.Error as error:
            raise _ssl_error(error) from error
        return data

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As `socket.recv_into`."""
        data = self.recv(nbytes or len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def sendall(self, data: bytes, flags: int = 0) -> None:
        """Send all of `data`."""
        try:
            self._sock.sendall(self.channel.write(data))
        except SSL.Error as error:
            raise _ssl_error(error) from error

    def send(self, data: bytes, flags: int = 0) -> int:
        """Send all of `data`; its length."""
        self.sendall(data)
        return len(data)

    def _receive(self) -> None:
        data = self._sock.recv(_BULK)
        if data:
            self.channel.feed(data)
        else:
            self.channel.feed_eof()

    def _flush(self) -> None:
        if cipher := self.channel.take():
            self._sock.sendall(cipher)

    def unwrap(self) -> socket.socket:
        """Say close_notify; the bare socket."""
        self._sock.sendall(self.channel.close())
        return self._sock

    def close(self) -> None:
        """Say close_notify as far as the socket lets us, and close it."""
        try:
            self._sock.sendall(self.channel.close())
        except OSError:
            pass
        self._sock.close()

    def settimeout(self, seconds: float | None) -> None:
        """Of the socket underneath."""
        self._sock.settimeout(seconds)

    def gettimeout(self) -> float | None:
        """Of the socket underneath."""
        return self._sock.gettimeout()

    def fileno(self) -> int:
        """Of the socket underneath."""
        return self._sock.fileno()

    def getsockname(self) -> Any:
        """Of the socket underneath."""
        return self._sock.getsockname()

    def getpeername(self) -> Any:
        """Of the socket underneath."""
        return self._sock.getpeername()

    def setsockopt(self, *args: Any) -> None:
        """Of the socket underneath."""
        self._sock.setsockopt(*args)

    def shutdown(self, how: int) -> None:
        """Of the socket underneath."""
        self._sock.shutdown(how)

    def selected_alpn_protocol(self) -> str | None:
        """See `Channel.alpn`."""
        return self.channel.alpn()

    def getpeercert(self, binary_form: bool = False) -> Any:
        """DER when `binary_form`, otherwise an empty dict."""
        der = self.channel.peer_certificate_der()
        return der if binary_form or der is None else {}

    def version(self) -> str | None:
        """`TLSv1.3` once the handshake stands."""
        return self.channel.version() if self.channel.established else None

    def __enter__(self) -> TlsSocket:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Context(ssl.SSLContext):
    """The surface; the settings of the inherited object play no part."""

    _current: tuple[SSL.Context, Identity | None]
    _server: bool

    def set_alpn_protocols(self, alpn_protocols: Any) -> None:
        """ALPN is settled when the context is made: only HTTP/1.1 is offered."""

    def channel(self, server_hostname: str | None = None) -> Channel:
        """A new connection with the identity of this moment."""
        openssl, identity = self._current
        return Channel(openssl, server_side=self._server, own=identity, hostname=server_hostname)

    def wrap_bio(  # type: ignore[override]
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: Any = None,
    ) -> TlsObject:
        """As `ssl.SSLContext.wrap_bio`; the object has `channel` besides."""
        self._check_side(server_side)
        name = server_hostname.decode("ascii") if isinstance(server_hostname, bytes) else server_hostname
        return TlsObject(self.channel(name), incoming, outgoing, self, name)

    def wrap_socket(  # type: ignore[override]
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | None = None,
        session: Any = None,
    ) -> TlsSocket:
        """A blocking connection over `sock`."""
        self._check_side(server_side)
        return TlsSocket(sock, self.channel(server_hostname), handshake=do_handshake_on_connect)

    def _check_side(self, server_side: bool) -> None:
        if server_side != self._server:
            raise ValueError(f"this context is for the {'server' if self._server else 'client'} side only")


class ServerContext(_Context):
    """Serves with one identity at a time; `swap` changes it for connections to come, live ones keep theirs.

    With `ask_client` each client is asked for a certificate. Any is taken, and none: that a client holds its key is
    proven by the handshake, what it is worth is for whoever appraises `peer_certificate_der()`.
    """

    def __new__(cls, certificate_der: bytes, key_pem: bytes, *, ask_client: bool = False) -> ServerContext:
        return super().__new__(cls, ssl.PROTOCOL_TLS_SERVER)

    def __init__(self, certificate_der: bytes, key_pem: bytes, *, ask_client: bool = False) -> None:
        self._server = True
        self._ask_client = ask_client
        self.established = 0
        """How many connections have come to stand."""
        self.swap(certificate_der, key_pem)

    @property
    def identity(self) -> Identity:
        """The identity that the next connection gets."""
        identity = self._current[1]
        assert identity is not None
        return identity

    def swap(self, certificate_der: bytes, key_pem: bytes) -> None:
        """Take another certificate (DER) and key (PEM) from now on. Atomic.

        Raises:
            ConversationError: as `Identity`.
        """
        identity = Identity(certificate_der, key_pem)
        context = _openssl_context(SSL.TLS_SERVER_METHOD)
        context.use_certificate(identity.certificate)
        context.use_privatekey(identity.key)
        context.set_alpn_select_callback(_select_alpn)
        if self._ask_client:
            context.set_session_id(b"attestable-mcp")
            context.set_verify(SSL.VERIFY_PEER, _any_certificate)
            context.set_verify_depth(0)
        self._current = (context, identity)


class ClientContext(_Context):
    """Verifies nothing by itself: whoever uses it must appraise `peer_certificate_der()` before sending a byte.

    `swap` gives it a certificate of its own, for servers that ask for one.
    """

    def __new__(cls) -> ClientContext:
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self) -> None:
        self._server = False
        self.check_hostname = False
        self.verify_mode = ssl.CERT_NONE
        self._current = (self._fresh(), None)

    @property
    def identity(self) -> Identity | None:
        """What the next connection shows to a server that asks."""
        return self._current[1]

    @staticmethod
    def _fresh() -> SSL.Context:
        openssl = _openssl_context(SSL.TLS_CLIENT_METHOD)
        openssl.set_alpn_protos(list(ALPN))
        return openssl

    def swap(self, certificate_der: bytes, key_pem: bytes) -> None:
        """Show this certificate (DER), with its key (PEM), on connections to come. Atomic.

        Raises:
            ConversationError: as `Identity`.
        """
        identity = Identity(certificate_der, key_pem)
        openssl = self._fresh()
        openssl.use_certificate(identity.certificate)
        openssl.use_privatekey(identity.key)
        self._current = (openssl, identity)


def _openssl_context(method: int) -> SSL.Context:
    context = SSL.Context(method)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # a connection that waits then holds 34 KiB less
    return context


def _any_certificate(connection: SSL.Connection, certificate: object, error: int, depth: int, ok: int) -> bool:
    """Evidence, not a certificate authority, says who the client is: see `tls.clients`."""
    return True


def _select_alpn(connection: SSL.Connection, offered: Sequence[bytes]) -> Any:
    return next((wanted for wanted in ALPN if wanted in offered), SSL.NO_OVERLAPPING_PROTOCOLS)


def _ssl_error(error: SSL.Error) -> ssl.SSLError:
    """The exceptions that event loops know."""
    if isinstance(error, SSL.SysCallError):
        return ssl.SSLEOFError(ssl.SSL_ERROR_EOF, reason(error))
    return ssl.SSLError(ssl.SSL_ERROR_SSL, reason(error))
