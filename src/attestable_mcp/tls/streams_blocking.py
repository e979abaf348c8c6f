"""As `tls.streams`, blocking."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress
from math import inf
from types import ModuleType
from typing import Any, TypeVar

import httpcore2
from OpenSSL import SSL

from attestable_mcp.errors import AttestationError, ConversationError
from attestable_mcp.tls.admission import AttestedPeer, Gate, Origin
from attestable_mcp.tls.channel import Channel, reason
from attestable_mcp.tls.drive import CHUNK, drive_sync
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

_T = TypeVar("_T")


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
        self._channel = admitted.channel
        return self._met(admitted.peer)

    def _driven(self, steps: Steps[_T]) -> _T:
        """As `AsyncStream._driven`."""
        begun = self._gate.freshness.ticks()
        try:
            done = drive_sync(steps, self._sock)
        except BaseException:
            self._broken_off()
            raise
        self._proven_at = begun
        return done

    def _met(self, peer: AttestedPeer) -> AttestedPeer:
        self._peer, self._until = peer, self._gate.freshness.until(self._proven_at, again_of(peer))
        return peer

    def _broken_off(self) -> None:
        self._channel = None
        self._sock.close()

    def _renewed(self, channel: Channel) -> None:
        """As `AsyncStream._renewed`."""
        if not self._gate.freshness.due(self, self._proven_at, again_of(self._peer)):
            return
        try:
            self._met(self._driven(self._gate.again(channel, self._origin)))
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
            raise plaintext_refused()
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
                fed(channel, cipher)
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
        freshness, key, again = self._gate.freshness, binding_key(self._peer), again_of(self._peer)
        while not (until := freshness.stands(key, again)) and not freshness.claim(key):
            time.sleep(TURN_SECONDS)
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
        if binding_key(fresh) != key:
            self._broken_off()
            raise self._core.ReadError(ANOTHER)
        return freshness.until(begun, again_of(fresh))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of `buffer`."""
        channel = self._channel
        if channel is None:
            raise plaintext_refused()
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
                return readable(self._sock)
            case _:
                return info_of(info, self._channel, self._peer)


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
            raise self._core.ConnectError(f"{host}:{port}: {why(error)}") from error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in socket_options or ():
            sock.setsockopt(*option)
        return SyncStream(sock, self._gate, Origin("https", host.lower(), port), self._core)

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> SyncStream:
        """Never: a socket file names no origin."""
        raise plaintext_refused()

    def sleep(self, seconds: float) -> None:
        """Between the pool's attempts to connect."""
        time.sleep(seconds)


def prove_sync(gate: Gate, origin: Origin, core: ModuleType = httpcore2, *, quote: bool = False) -> AttestedPeer:
    """As `prove`, blocking."""
    try:
        stream = SyncBackend(gate, core).connect_tcp(origin.host, origin.port)
    except (core.ConnectError, core.ConnectTimeout) as error:
        raise unreachable(origin, error) from error
    peer = stream.admit(origin.host, quote=quote)
    stream.close()
    return peer
