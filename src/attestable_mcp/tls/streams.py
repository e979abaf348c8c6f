"""Network backends for httpcore2 and httpcore, asynchronous and blocking: a stream is handed out once it is proven.

Nothing of a proxy, of the environment or of the caller's SSL context plays a part. Refusals leave as they are: they are
no connect errors, so that no pool retries them and no HTTP client gives them another name.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
import ssl
import sys
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from math import inf
from types import ModuleType
from typing import Any, TypeVar

import anyio
import anyio.abc
import anyio.to_thread
import httpcore2
from anyio.abc import SocketAttribute
from OpenSSL import SSL

from attestable_mcp.errors import AttestationError, ConversationError
from attestable_mcp.tls import link
from attestable_mcp.tls.admission import AttestedPeer, Gate, Origin
from attestable_mcp.tls.channel import Channel, reason
from attestable_mcp.tls.steps import Receive, Send, Steps, Within, Work

CHUNK = 65536
FAREWELL_SECONDS = 0.5
GONE = "connection_closed"
"""The code of a conversation that ended because the other end left."""
_T = TypeVar("_T")
_ANOTHER = "the server behind this connection cannot be proven again: another instance answers at its address"
_TURN_SECONDS = 0.02
"""How often one who waits for another's proof looks whether it is there."""
_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError)


def _plaintext_refused() -> ConversationError:
    return ConversationError(
        "connection: refusing to speak before TLS and attestation", code="plaintext_refused", hint="use an https URL"
    )


def _stalled(what: str) -> ConversationError:
    return ConversationError(f"{what}: no answer in time", code="stalled", hint="the server is slow, or holds us up")


def _broken(what: str, error: Exception) -> ConversationError:
    return ConversationError(f"{what}: the connection broke: {error or type(error).__name__}", code="connection_closed")


async def drive(steps: Steps[_T], tcp: anyio.abc.ByteStream) -> _T:
    """Run the steps of a gate over an anyio stream.

    Raises:
        AttestationError: of the steps; ConversationError with code `stalled` or `connection_closed`.
    """
    what = "connection"
    with anyio.CancelScope() as scope:
        value: Any = None
        while True:
            try:
                step = steps.send(value)
            except StopIteration as stop:
                done: _T = stop.value
                return done
            value = None
            match step:
                case Within(seconds, words):
                    scope.deadline, what = anyio.current_time() + seconds, words
                case Work(call):
                    value = await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
                case _:
                    value = await _exchange(step, tcp, what)
    raise _stalled(what)


async def _exchange(step: Send | Receive, tcp: anyio.abc.ByteStream, what: str) -> bytes | None:
    try:
        if isinstance(step, Receive):
            return await _receive(tcp)
        await tcp.send(step.data)
    except _BROKEN as error:
        raise _broken(what, error) from error
    return None


async def _receive(tcp: anyio.abc.ByteStream) -> bytes:
    try:
        return await tcp.receive(CHUNK)
    except anyio.EndOfStream:
        return b""


def drive_sync(steps: Steps[_T], sock: socket.socket) -> _T:
    """Run the steps of a gate over a blocking socket. Raises as `drive`."""
    value: Any = None
    deadline, what = time.monotonic(), "connection"
    while True:
        try:
            step = steps.send(value)
        except StopIteration as stop:
            done: _T = stop.value
            return done
        value = None
        try:
            match step:
                case Within(seconds, words):
                    deadline, what = time.monotonic() + seconds, words
                case Send(data):
                    _within(sock, deadline)
                    sock.sendall(data)
                case Receive():
                    _within(sock, deadline)
                    value = sock.recv(CHUNK)
                case Work(call):
                    value = call()
        except TimeoutError as error:
            raise _stalled(what) from error
        except OSError as error:
            raise _broken(what, error) from error


def _within(sock: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    sock.settimeout(left)


def _attribute(tcp: anyio.abc.ByteStream, name: Any) -> Any:
    return tcp.extra(name, None)  # noqa: S610 - anyio's typed attributes, no database


def _info(name: str, channel: Channel | None, peer: AttestedPeer | None) -> Any:
    match name:
        case "ssl_object":
            return channel
        case "attested_peer":
            return peer
        case _:
            return None


def _readable(sock: socket.socket) -> bool:
    """Whether bytes or an end wait on an idle connection: the pool then drops it."""
    if sock.fileno() < 0:
        return True
    if sys.platform == "win32":
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _fed(channel: Channel, cipher: bytes) -> None:
    if cipher:
        channel.feed(cipher)
    else:
        channel.feed_eof()


def _binding_key(peer: AttestedPeer | None) -> bytes:
    return peer.binding.binding_key if peer is not None and peer.binding is not None else b""


def _unreachable(origin: Origin, error: Exception) -> ConversationError:
    return ConversationError(
        f"server {origin}: cannot be reached: {error}", code="unreachable", hint="check the address, and that it runs"
    )


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
        self._peer, self._channel = admitted.peer, admitted.channel
        return admitted.peer

    async def _driven(self, steps: Steps[_T]) -> _T:
        """What the steps come to; the socket does not outlive their failure."""
        begun = self._gate.freshness.ticks()
        try:
            done = await drive(steps, self._tcp)
        except BaseException:
            await self._broken_off()
            raise
        self._proven_at, self._until = begun, self._gate.freshness.until(begun)
        return done

    async def _broken_off(self) -> None:
        self._channel = None
        with anyio.CancelScope(shield=True):
            await anyio.aclose_forcefully(self._tcp)

    async def _renewed(self, channel: Channel) -> None:
        """Prove the connection again where that is due, before the first byte of a request.

        Raises:
            AttestationError: the server is refused; nothing of the request was sent.
        """
        said = self._peer.said if self._peer is not None else None
        if not self._gate.freshness.due(self, self._proven_at, said.again if said is not None else 0):
            return
        try:
            self._peer = await self._driven(self._gate.again(channel, self._origin))
        except ConversationError as error:
            if error.code != GONE:
                raise
            raise self._core.ConnectionNotAvailable from error  # the pool takes another connection, proven from scratch

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Up to `max_bytes` of plaintext; b"" after close_notify."""
        channel = self._channel
        if channel is None:
            raise _plaintext_refused()
        try:
            if self._left() <= 0:
                await self._vouched()
            data = channel.read_all(max_bytes)
            return await self._more(channel, max_bytes, timeout) if data is None else data
        except TimeoutError as error:
            raise self._core.ReadTimeout(str(error)) from error
        except SSL.Error as error:
            raise self._core.ReadError(reason(error)) from error
        except (*_BROKEN, OSError) as error:
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
                cipher = await _receive(self._tcp)
            rest -= anyio.current_time() - began
            if cipher is not None:
                _fed(channel, cipher)
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
        freshness, key = self._gate.freshness, _binding_key(self._peer)
        while not (until := freshness.stands(key)) and not freshness.claim(key):  # noqa: ASYNC110 across threads and loops
            await anyio.sleep(_TURN_SECONDS)
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
        if _binding_key(fresh) != key:
            await self._broken_off()
            raise self._core.ReadError(_ANOTHER)
        return freshness.until(begun)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of `buffer`."""
        channel = self._channel
        if channel is None:
            raise _plaintext_refused()
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
        except (*_BROKEN, OSError) as error:
            raise self._core.WriteError(str(error)) from error

    async def aclose(self) -> None:
        """Say close_notify as far as the socket takes it at once, and close."""
        channel, self._channel = self._channel, None
        if channel is not None:
            with anyio.move_on_after(FAREWELL_SECONDS, shield=True), suppress(OSError, *_BROKEN):
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
                return self._sock is None or _readable(self._sock)
            case _:
                return _info(info, self._channel, self._peer)


def _why(error: Exception) -> str:
    """Why nobody was reached, in the system's own words, whichever library met it."""
    known = isinstance(error, OSError) and error.errno is not None and error.errno > 0
    return os.strerror(error.errno).lower() if known else str(error)  # type: ignore[attr-defined]


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
            raise self._core.ConnectError(f"{host}:{port}: {_why(error)}") from error
        for option in socket_options or ():
            _attribute(tcp, SocketAttribute.raw_socket).setsockopt(*option)
        return AsyncStream(tcp, self._gate, Origin("https", host.lower(), port), self._core)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> AsyncStream:
        """Never: a socket file names no origin."""
        raise _plaintext_refused()

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
        raise _unreachable(origin, error) from error
    peer = await stream.admit(origin.host, quote=quote)
    await stream.aclose()
    return peer


class SyncStream(httpcore2.NetworkStream):
    """As `AsyncStream`, blocking."""

    def __init__(self, sock: socket.socket, gate: Gate, origin: Origin, core: ModuleType) -> None:
        self._sock = sock
        self._gate = gate
        self._origin = origin
        self._core = core
        self._channel: Channel | None = None
        self._peer: AttestedPeer | None = None
        self._proven_at = 0.0
        self._until = inf

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> SyncStream:
        """As `AsyncStream.start_tls`."""
        self.admit(server_hostname or self._origin.host)
        return self

    def admit(self, hostname: str, *, quote: bool = False) -> AttestedPeer:
        """As `AsyncStream.admit`."""
        admitted = self._driven(self._gate.set_up(self._origin, hostname, quote=quote))
        self._peer, self._channel = admitted.peer, admitted.channel
        return admitted.peer

    def _driven(self, steps: Steps[_T]) -> _T:
        """As `AsyncStream._driven`."""
        begun = self._gate.freshness.ticks()
        try:
            done = drive_sync(steps, self._sock)
        except BaseException:
            self._broken_off()
            raise
        self._proven_at, self._until = begun, self._gate.freshness.until(begun)
        return done

    def _broken_off(self) -> None:
        self._channel = None
        self._sock.close()

    def _renewed(self, channel: Channel) -> None:
        """As `AsyncStream._renewed`."""
        said = self._peer.said if self._peer is not None else None
        if not self._gate.freshness.due(self, self._proven_at, said.again if said is not None else 0):
            return
        try:
            self._peer = self._driven(self._gate.again(channel, self._origin))
        except ConversationError as error:
            if error.code != GONE:
                raise
            raise self._core.ConnectionNotAvailable from error

    @contextmanager
    def _mapped(self, slow: type[Exception], broken: type[Exception]) -> Generator[None, None, None]:
        try:
            yield
        except TimeoutError as error:
            raise slow(str(error)) from error
        except SSL.Error as error:
            raise broken(reason(error)) from error
        except OSError as error:
            raise broken(str(error)) from error

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Up to `max_bytes` of plaintext; b"" after close_notify."""
        channel = self._channel
        if channel is None:
            raise _plaintext_refused()
        with self._mapped(self._core.ReadTimeout, self._core.ReadError):
            if self._left() <= 0:
                self._vouched()
            data = channel.read_all(max_bytes)
            return self._more(channel, max_bytes, timeout) if data is None else data

    def _more(self, channel: Channel, max_bytes: int, timeout: float | None) -> bytes:
        """As `AsyncStream._more`."""
        rest = inf if timeout is None else timeout
        while True:
            left, began, cipher = self._left(), time.monotonic(), None
            last, soonest = rest <= left, min(left, rest)
            self._sock.settimeout(None if soonest == inf else max(soonest, 0.001))
            with suppress(TimeoutError):
                cipher = self._sock.recv(CHUNK)
            rest -= time.monotonic() - began
            if cipher is not None:
                _fed(channel, cipher)
                if (data := channel.read_all(max_bytes)) is not None:
                    return data
            elif last:
                raise TimeoutError
            else:
                self._vouched()

    def _left(self) -> float:
        """As `AsyncStream._left`."""
        return self._until - self._gate.freshness.ticks()

    def _vouched(self) -> None:
        """As `AsyncStream._vouched`."""
        freshness, key = self._gate.freshness, _binding_key(self._peer)
        while not (until := freshness.stands(key)) and not freshness.claim(key):
            time.sleep(_TURN_SECONDS)
        self._until = until or self._vouch(key)

    def _vouch(self, key: bytes) -> float:
        """Ask for the quote: until when it will do. The key was claimed."""
        freshness, begun = self._gate.freshness, self._gate.freshness.ticks()
        try:
            fresh = prove_sync(self._gate, self._origin, self._core, quote=True)
        except AttestationError:
            freshness.renew()
            self._broken_off()
            raise
        finally:
            freshness.release(key)
        if _binding_key(fresh) != key:
            self._broken_off()
            raise self._core.ReadError(_ANOTHER)
        return freshness.until(begun)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of `buffer`."""
        channel = self._channel
        if channel is None:
            raise _plaintext_refused()
        if buffer:
            self._renewed(channel)
        with self._mapped(self._core.WriteTimeout, self._core.WriteError):
            self._sock.settimeout(timeout)
            self._sock.sendall(channel.write(buffer))

    def close(self) -> None:
        """Say close_notify as far as the socket takes it at once, and close."""
        channel, self._channel = self._channel, None
        try:
            if channel is not None:
                self._sock.settimeout(0)
                self._sock.send(channel.close())
        except (OSError, SSL.Error):
            pass
        self._sock.close()

    def get_extra_info(self, info: str) -> Any:
        """As httpcore names them, and `attested_peer`."""
        match info:
            case "client_addr":
                return self._sock.getsockname()
            case "server_addr":
                return self._sock.getpeername()
            case "socket":
                return self._sock
            case "is_readable":
                return _readable(self._sock)
            case _:
                return _info(info, self._channel, self._peer)


class SyncBackend(httpcore2.NetworkBackend):
    """As `AsyncBackend`, blocking."""

    def __init__(self, gate: Gate, core: ModuleType = httpcore2) -> None:
        self._gate = gate
        self._core = core

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> SyncStream:
        """As `AsyncBackend.connect_tcp`."""
        limit = self._gate.limits.connect_seconds
        source = None if local_address is None else (local_address, 0)
        try:
            sock = socket.create_connection(
                (host, port), limit if timeout is None else min(timeout, limit), source_address=source
            )
        except TimeoutError as error:
            raise self._core.ConnectTimeout(f"{host}:{port}") from error
        except OSError as error:
            raise self._core.ConnectError(f"{host}:{port}: {_why(error)}") from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in socket_options or ():
            sock.setsockopt(*option)
        return SyncStream(sock, self._gate, Origin("https", host.lower(), port), self._core)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> SyncStream:
        """Never: a socket file names no origin."""
        raise _plaintext_refused()

    def sleep(self, seconds: float) -> None:
        """Between the pool's attempts to connect."""
        time.sleep(seconds)


def prove_sync(gate: Gate, origin: Origin, core: ModuleType = httpcore2, *, quote: bool = False) -> AttestedPeer:
    """As `prove`, blocking."""
    try:
        stream = SyncBackend(gate, core).connect_tcp(origin.host, origin.port)
    except (core.ConnectError, core.ConnectTimeout) as error:
        raise _unreachable(origin, error) from error
    peer = stream.admit(origin.host, quote=quote)
    stream.close()
    return peer
