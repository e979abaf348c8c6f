"""The asynchronous network backend for httpcore2 and httpcore: a stream is handed out once it is proven.

Nothing of a proxy, of the environment or of the caller's SSL context plays a part. Refusals leave as they are: they are
no connect errors, so that no pool retries them and no HTTP client gives them another name.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable
from contextlib import suppress
from math import inf
from types import ModuleType
from typing import Any, TypeVar

import anyio
import anyio.abc
import httpcore2
from anyio.abc import SocketAttribute
from OpenSSL import SSL

from attestable_mcp.errors import AttestationError, ConversationError
from attestable_mcp.tls import link
from attestable_mcp.tls.admission import AttestedPeer, Gate, Origin
from attestable_mcp.tls.channel import Channel, reason
from attestable_mcp.tls.drive import BROKEN, drive, receive
from attestable_mcp.tls.steps import Steps
from attestable_mcp.tls.stream_parts import (
    ANOTHER,
    GONE,
    TURN_SECONDS,
    again_of,
    binding_key,
    fed,
    info_of,
    plaintext_refused,
    readable,
    unreachable,
    why,
)

FAREWELL_SECONDS = 0.5
_T = TypeVar("_T")


def _attribute(tcp: anyio.abc.ByteStream, name: Any) -> Any:
    return tcp.extra(name, None)  # noqa: S610 - anyio's typed attributes, no database


class AsyncStream(httpcore2.AsyncNetworkStream):
    """A TCP connection that becomes readable and writable in `start_tls`, once its peer is admitted.

    `core` is httpcore2 or httpcore: whose exceptions the pool above expects.
    """

    def __init__(self, tcp: anyio.abc.ByteStream, gate: Gate, origin: Origin, core: ModuleType) -> None:
        self._tcp = tcp
        self._gate = gate
        self._origin = origin
        self._core = core
        self._channel: Channel | None = None
        self._peer: AttestedPeer | None = None
        self._proven_at = 0.0
        self._sock: socket.socket | None = _attribute(tcp, SocketAttribute.raw_socket)
        self._until = inf

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> AsyncStream:
        """Handshake, appraise, challenge, bind, admit. The context given plays no part.

        Raises:
            AttestationError: and the socket is closed.
        """
        await self.admit(server_hostname or self._origin.host)
        return self

    async def admit(self, hostname: str, *, quote: bool = False) -> AttestedPeer:
        """What `start_tls` does; by a quote if one is demanded. Raises as `start_tls`."""
        admitted = await self._driven(self._gate.set_up(self._origin, hostname, quote=quote))
        self._channel = admitted.channel
        return self._met(admitted.peer)

    async def _driven(self, steps: Steps[_T]) -> _T:
        """What the steps come to; the socket does not outlive their failure."""
        begun = self._gate.freshness.ticks()
        try:
            done = await drive(steps, self._tcp)
        except BaseException:
            await self._broken_off()
            raise
        self._proven_at = begun
        return done

    def _met(self, peer: AttestedPeer) -> AttestedPeer:
        self._peer, self._until = peer, self._gate.freshness.until(self._proven_at, again_of(peer))
        return peer

    async def _broken_off(self) -> None:
        self._channel = None
        with anyio.CancelScope(shield=True):
            await anyio.aclose_forcefully(self._tcp)

    async def _renewed(self, channel: Channel) -> None:
        """Prove the connection again where that is due, before the first byte of a request.

        Raises:
            AttestationError: the server is refused; nothing of the request was sent.
        """
        if not self._gate.freshness.due(self, self._proven_at, again_of(self._peer)):
            return
        try:
            self._met(await self._driven(self._gate.again(channel, self._origin)))
        except ConversationError as error:
            if error.code != GONE:
                raise
            raise self._core.ConnectionNotAvailable from error  # the pool takes another connection, proven from scratch

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Up to `max_bytes` of plaintext; b"" after close_notify."""
        channel = self._channel
        if channel is None:
            raise plaintext_refused()
        try:
            if self._left() <= 0:
                await self._vouched()
            data = channel.read_all(max_bytes)
            return await self._more(channel, max_bytes, timeout) if data is None else data
        except TimeoutError as error:
            raise self._core.ReadTimeout(str(error)) from error
        except SSL.Error as error:
            raise self._core.ReadError(reason(error)) from error
        except (*BROKEN, OSError) as error:
            raise self._core.ReadError(str(error)) from error

    async def _more(self, channel: Channel, max_bytes: int, timeout: float | None) -> bytes:
        """What comes next, whole; the server is proven again as often as that is due while nothing comes.

        Raises: TimeoutError after `timeout` seconds of waiting for it.
        """
        rest = inf if timeout is None else timeout
        while True:
            left, began, cipher = self._left(), anyio.current_time(), None
            last = rest <= left
            with anyio.move_on_after(min(left, rest)):
                cipher = await receive(self._tcp)
            rest -= anyio.current_time() - began
            if cipher is not None:
                fed(channel, cipher)
                if (data := channel.read_all(max_bytes)) is not None:
                    return data
            elif last:
                raise TimeoutError
            else:
                await self._vouched()

    def _left(self) -> float:
        """Seconds for which a response may be read on as things stand."""
        return self._until - self._gate.freshness.ticks()

    async def _vouched(self) -> None:
        """The key that stands for the other end is vouched for by a new quote, or nothing more is read.

        That takes a connection of its own: this one is busy with a response. One quote does for all of them.

        Raises:
            AttestationError: the server is refused; this connection is closed. ReadError: another instance answers.
        """
        freshness, key, again = self._gate.freshness, binding_key(self._peer), again_of(self._peer)
        while not (until := freshness.stands(key, again)) and not freshness.claim(key):  # noqa: ASYNC110 across threads and loops
            await anyio.sleep(TURN_SECONDS)
        self._until = until or await self._vouch(key)

    async def _vouch(self, key: bytes) -> float:
        """Ask for the quote: until when it will do. The key was claimed."""
        freshness, begun = self._gate.freshness, self._gate.freshness.ticks()
        try:
            fresh = await prove(self._gate, self._origin, self._core, quote=True)
        except AttestationError:
            freshness.renew()
            await self._broken_off()
            raise
        finally:
            freshness.release(key)
        if binding_key(fresh) != key:
            await self._broken_off()
            raise self._core.ReadError(ANOTHER)
        return freshness.until(begun, again_of(fresh))

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of `buffer`."""
        channel = self._channel
        if channel is None:
            raise plaintext_refused()
        if not buffer:
            return
        await self._renewed(channel)
        try:
            cipher = channel.write(buffer)
            if timeout is None:
                await self._tcp.send(cipher)
            else:
                with anyio.fail_after(timeout):
                    await self._tcp.send(cipher)
        except TimeoutError as error:
            raise self._core.WriteTimeout(str(error)) from error
        except SSL.Error as error:
            raise self._core.WriteError(reason(error)) from error
        except (*BROKEN, OSError) as error:
            raise self._core.WriteError(str(error)) from error

    async def aclose(self) -> None:
        """Say close_notify as far as the socket takes it at once, and close."""
        channel, self._channel = self._channel, None
        if channel is not None:
            with anyio.move_on_after(FAREWELL_SECONDS, shield=True), suppress(OSError, *BROKEN):
                await self._tcp.send(channel.close())
        await self._tcp.aclose()

    def get_extra_info(self, info: str) -> Any:
        """As httpcore names them, and `attested_peer`."""
        match info:
            case "client_addr":
                return _attribute(self._tcp, SocketAttribute.local_address)
            case "server_addr":
                return _attribute(self._tcp, SocketAttribute.remote_address)
            case "socket":
                return self._sock
            case "is_readable":
                return self._sock is None or readable(self._sock)
            case _:
                return info_of(info, self._channel, self._peer)


async def _connect(host: str, port: int, local_address: str | None) -> anyio.abc.ByteStream:
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # another kind of event loop
        return await anyio.connect_tcp(host, port, local_host=local_address)
    return await link.connect(host, port, local_address)


class AsyncBackend(httpcore2.AsyncNetworkBackend):
    """Connects to TCP ports only, directly, and lets `gate` judge who is there."""

    def __init__(self, gate: Gate, core: ModuleType = httpcore2) -> None:
        self._gate = gate
        self._core = core

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncStream:
        """A connected stream on which nothing can be said before `start_tls`."""
        limit = self._gate.limits.connect_seconds
        try:
            with anyio.fail_after(limit if timeout is None else min(timeout, limit)):
                tcp = await _connect(host, port, local_address)
        except TimeoutError as error:
            raise self._core.ConnectTimeout(f"{host}:{port}") from error
        except (OSError, anyio.BrokenResourceError) as error:
            raise self._core.ConnectError(f"{host}:{port}: {why(error)}") from error
        for option in socket_options or ():
            _attribute(tcp, SocketAttribute.raw_socket).setsockopt(*option)
        return AsyncStream(tcp, self._gate, Origin("https", host.lower(), port), self._core)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> AsyncStream:
        """Never: a socket file names no origin."""
        raise plaintext_refused()

    async def sleep(self, seconds: float) -> None:
        """Between the pool's attempts to connect."""
        await anyio.sleep(seconds)


async def prove(gate: Gate, origin: Origin, core: ModuleType = httpcore2, *, quote: bool = False) -> AttestedPeer:
    """Prove the server at `origin` on a connection of its own, and close it: no application byte is sent.

    Raises:
        AttestationError: the refusal; ConversationError with code `unreachable` when nobody answers at all.
    """
    try:
        stream = await AsyncBackend(gate, core).connect_tcp(origin.host, origin.port)
    except (core.ConnectError, core.ConnectTimeout) as error:
        raise unreachable(origin, error) from error
    peer = await stream.admit(origin.host, quote=quote)
    await stream.aclose()
    return peer
