"""A `Channel` between a socket's transport and an asyncio protocol: the serving side of TLS, connection by connection.

asyncio has a TLS layer of its own, which would take `engine.TlsObject`. It keeps a buffer of 256 KiB for each
connection and copies every byte twice; a server of desktop hosts holds hundreds of connections that mostly wait.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any

from OpenSSL import SSL

from attestable_mcp.limits import LIMITS, Limits
from attestable_mcp.tls.address import network_of
from attestable_mcp.tls.channel import BULKY, Channel, wrap
from attestable_mcp.tls.crowd import Crowd
from attestable_mcp.tls.engine import ServerContext
from attestable_mcp.tls.scratch import READ, read_buffer

LINGER_SECONDS = 30.0
"""How long a connection that ends may take to send on: one whose peer reads nothing for so long is cut off."""
_log = logging.getLogger(__name__)


class TlsTransport(asyncio.Transport):
    """What the application protocol writes to. Nothing that it does blocks."""

    def __init__(self, below: TlsProtocol, context: ssl.SSLContext) -> None:
        super().__init__({"sslcontext": context, "channel": below.channel})
        self._below = below

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`channel`, `sslcontext`, or what the socket's transport says."""
        own = super().get_extra_info(name)
        return own if own is not None else self._below.raw.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._below.app = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        app: asyncio.BaseProtocol = self._below.app
        return app

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._below.write(data)

    def can_write_eof(self) -> bool:
        """TLS 1.3 has half-closed connections (RFC 8446 section 6.1); HTTP/1.1 has no use for them."""
        return False

    def close(self) -> None:
        self._below.close()

    def abort(self) -> None:
        self._below.raw.abort()

    def is_closing(self) -> bool:
        return self._below.closing or self._below.raw.is_closing()

    def pause_reading(self) -> None:
        self._below.pause()

    def resume_reading(self) -> None:
        self._below.resume()

    def is_reading(self) -> bool:
        return not self._below.paused and not self.is_closing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._below.raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._below.raw.get_write_buffer_size() + self._below.unsent

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._below.raw.get_write_buffer_limits()


class TlsProtocol(asyncio.BufferedProtocol):
    """What the socket's transport speaks to: it brings the handshake about, then hands plaintext to `app`.

    `app` learns of the connection once the handshake stands; where it never does, `app` learns nothing at all.
    """

    raw: asyncio.Transport

    def __init__(
        self,
        app: asyncio.BaseProtocol,
        channel: Channel,
        context: ServerContext,
        *,
        crowd: Crowd | None = None,
        handshake_seconds: float = LIMITS.handshake_seconds,
        linger_seconds: float = LINGER_SECONDS,
    ) -> None:
        self.app: Any = app
        self._crowd = Crowd(LIMITS.connections) if crowd is None else crowd
        self._handshake_seconds = handshake_seconds
        self._linger_seconds = linger_seconds
        self.channel = channel
        self.paused = False
        self.closing = False
        self.unsent = 0
        self._parts: list[bytes] = []
        self._context = context
        self._announced = False
        self._ended = False
        self._timer: asyncio.TimerHandle | None = None
        self._buffer = read_buffer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.raw = transport
        peer = transport.get_extra_info("peername")
        self.channel.network = network_of(peer[0]) if isinstance(peer, tuple) else ""
        if self._crowd.admit(self):
            self._timer = asyncio.get_running_loop().call_later(self._handshake_seconds, transport.abort)
        else:
            self.closing = True
            transport.abort()

    @property
    def rests(self) -> bool:
        """Does it neither serve a request nor read one?"""
        return self.closing or not self._announced or bool(getattr(self.app, "rests", True))

    def give_way(self) -> None:
        """Make room for another connection: politely, where the peer can be told at once."""
        if not self._announced or self.raw.get_write_buffer_size():
            self.raw.abort()
        else:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.leave(self.channel)
        if self._timer is not None:
            self._timer.cancel()
        self.closing = True
        if self._announced:
            self.app.connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._crowd.touch(self.channel)
        self.channel.feed(self._buffer[:nbytes])
        self._advance()

    def eof_received(self) -> bool:
        """The socket's other side is closed: what was sent before still counts, and nothing comes after."""
        self.channel.feed_eof()
        self._advance()
        return False

    def pause_writing(self) -> None:
        if self._announced:
            self.app.pause_writing()

    def resume_writing(self) -> None:
        if self._announced:
            self.app.resume_writing()

    def pause(self) -> None:
        """Hand nothing to the application for a while; what was read waits decrypted or in its records."""
        self.paused = True
        if not self.raw.is_closing():
            self.raw.pause_reading()

    def resume(self) -> None:
        """Hand over what waited, then read on."""
        self.paused = False
        if not self.raw.is_closing():
            self.raw.resume_reading()
            asyncio.get_running_loop().call_soon(self._advance)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send. After the end it is dropped, as asyncio's transports do.

        What is written in one turn of the event loop leaves as one: HTTP servers write the head of a response and its
        body one after the other, and each write of its own would wake the peer twice.
        """
        if self.closing or not data:
            return
        if not self._parts:
            asyncio.get_running_loop().call_soon(self._send)
        self._parts.append(bytes(data))
        self.unsent += len(data)
        if self.unsent > BULKY:  # nor is it held while others are served
            self._send()

    def _send(self) -> None:
        parts, self._parts, self.unsent = self._parts, [], 0
        if not parts or self.raw.is_closing():
            return
        try:
            self.raw.write(self.channel.write(parts[0] if len(parts) == 1 else b"".join(parts)))
        except SSL.Error as error:
            self._fail(error)

    def close(self) -> None:
        """Say close_notify, send what waits, and end. The peer's own is not waited for (RFC 8446 section 6.1)."""
        if self.closing:
            return
        self._send()
        self.closing = True
        self.raw.write(self.channel.close())
        self._end()

    def _advance(self) -> None:
        try:
            if self.channel.established or self._handshake():
                self._deliver()
        except SSL.Error as error:
            self._fail(error)
        else:
            self._flush()

    def _handshake(self) -> bool:
        if not self.channel.handshake():
            return False
        assert self._timer is not None
        self._timer.cancel()
        self._flush()
        self._context.established += 1
        self._announced = True
        self.app.connection_made(TlsTransport(self, self._context))
        return True

    def _deliver(self) -> None:
        """Hand on what can be decrypted, for as long as the application wants it."""
        while not self.paused and not self.closing and not self._ended:
            data = self.channel.read_all(READ)
            if data is None:
                return
            if data:
                self.app.data_received(data)
            else:
                self._ended = True
                if not self.app.eof_received():
                    self.close()

    def _flush(self) -> None:
        if (cipher := self.channel.take()) and not self.raw.is_closing():
            self.raw.write(cipher)

    def _fail(self, error: SSL.Error) -> None:
        """Send the alert that OpenSSL has for the peer, and end."""
        _log.debug("a connection ended: %s", wrap(error, "TLS").message)
        self._flush()
        self.closing = True
        self._end()

    def _end(self) -> None:
        """End once all is sent; a peer that reads nothing does not keep the connection for ever."""
        self.raw.close()
        self._linger(self.raw.get_write_buffer_size() + 1)

    def _linger(self, before: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        left = self.raw.get_write_buffer_size()
        if left >= before:
            self.raw.abort()
        else:
            self._timer = asyncio.get_running_loop().call_later(self._linger_seconds, self._linger, left)


def tls_protocol_factory(
    app: Callable[..., asyncio.BaseProtocol], context: Any, *, crowd: Crowd, limits: Limits = LIMITS
) -> Callable[..., TlsProtocol]:
    """Make a factory of protocols over TLS from one of protocols and a `ServerContext`; arguments go to `app`."""

    def make(*args: Any, **options: Any) -> TlsProtocol:
        return TlsProtocol(
            app(*args, **options),
            context.channel(),
            context,
            crowd=crowd,
            handshake_seconds=limits.handshake_seconds,
        )

    return make
