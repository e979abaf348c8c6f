"""Runs the steps of a gate over a socket, asynchronous or blocking: what generators ask for is done here."""

from __future__ import annotations

import socket
import time
from typing import Any, TypeVar

import anyio
import anyio.abc
import anyio.to_thread

from attestable_mcp.errors import ConversationError
from attestable_mcp.tls.steps import Receive, Send, Steps, Within, Work

CHUNK = 65536
BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError)
_T = TypeVar("_T")


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
            return await receive(tcp)
        await tcp.send(step.data)
    except BROKEN as error:
        raise _broken(what, error) from error
    return None


async def receive(tcp: anyio.abc.ByteStream) -> bytes:
    """What came, or nothing at the end."""
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
