"""One stdio server process: newline-delimited JSON-RPC, bounded both ways, reaped on every path.

The process gets a session (POSIX) of its own, so that a server started through npx, uv or a shell dies with all it
started. Its stderr is ours: what it says there is seen at once and unchanged. Source: MCP 2025-11-25, basic/transports
(stdio) and basic/lifecycle (shutdown: close stdin, wait, terminate, kill).
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import anyio
import anyio.abc

from attestable_mcp.errors import ConfigurationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import rpc
from attestable_mcp.mcp.caller import TOLD_BY_META
from attestable_mcp.mcp.groups import Group, group_of, spawn_options

_log = logging.getLogger(__name__)
_GONE = (anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream, OSError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A stdio server to start: its argument vector, variables added to our environment, and its folder."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] | None = None
    folder: Path | None = None

    def __post_init__(self) -> None:
        if not self.argv or not self.argv[0]:
            raise ConfigurationError("command: wanted a program and its arguments, seen nothing", code="target")
        if any("\0" in word for word in self.argv):
            raise ConfigurationError("command: a word holds a NUL character", code="target")

    @property
    def words(self) -> str:
        """The program's name for messages; never its arguments, which may hold secrets."""
        return self.argv[0]


class ChildEnded(Exception):
    """The process takes no more messages. Internal: told to clients as a JSON-RPC error."""


@dataclass(frozen=True, slots=True)
class Grace:
    """Seconds given to a process to end: after its stdin closes, and after it is told to terminate."""

    close: float = 2.0
    terminate: float = 2.0


class Child:
    """A running stdio server. Use as `async with Child(command) as child`; leaving ends the process and its group."""

    def __init__(self, command: Command, *, line_limit: int = LIMITS.mcp_message, grace: Grace | None = None) -> None:
        self._command = command
        self._limit = line_limit
        self._grace = grace or Grace()
        self._process: anyio.abc.Process | None = None
        self._send_queue, self._to_write = anyio.create_memory_object_stream[bytes](64)
        self._flushed = anyio.Event()

    async def __aenter__(self) -> Child:
        self._process = await _spawn(self._command)
        self._group = group_of(self._process.pid, self._process.kill)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._send_queue.close()
        with anyio.CancelScope(shield=True):
            await _end(self._process, self._group, self._grace, flushed=self._flushed)

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    @property
    def ending(self) -> str:
        """How the process ended, in words, for a client and the log."""
        code = self._process.returncode if self._process is not None else None
        if code is None:
            return "the server process closed its output"
        if code < 0:
            return f"the server process was ended by signal {-code}"
        return f"the server process ended with exit code {code}"

    async def send(self, line: bytes) -> None:
        """Hand one message (JSON text without line break) to the process; waits while its pipe and our queue are full.

        Cancelling never leaves half a line in the pipe: a task of its own writes whole lines.

        Raises: ChildEnded.
        """
        try:
            await self._send_queue.send(line)
        except _GONE:
            raise ChildEnded(self.ending) from None

    async def messages(self) -> AsyncIterator[tuple[rpc.Message, bytes]]:
        """Each message that the process writes, parsed and as it was written; ends when its output ends.

        A line that is no JSON-RPC message is logged and left out: many servers print a banner.
        """
        async for line in self._lines():
            message = rpc.parse(line)
            if rpc.fault(message) is None:
                yield message, rpc.one_line(line, message)
            elif line.strip():
                _log.warning("%s wrote a line of %d bytes that is no JSON-RPC message", self._command.words, len(line))

    async def write(self) -> None:
        """The task that writes what `send` was given; run it beside `messages` until the process is left."""
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            with self._to_write, suppress(*_GONE):
                async for line in self._to_write:
                    await self._process.stdin.send(line + b"\n")
        finally:
            self._flushed.set()

    async def settle(self) -> None:
        """Wait a moment for the exit code once output has ended, so that a report can name it."""
        assert self._process is not None
        await _wait_exit(self._process, 0.5)

    async def _lines(self) -> AsyncIterator[bytes]:
        assert self._process is not None
        assert self._process.stdout is not None
        buffer = bytearray()
        searched = 0
        with suppress(*_GONE):
            while True:
                buffer += await self._process.stdout.receive()
                while 0 <= (end := buffer.find(b"\n", searched)) <= self._limit:
                    line = bytes(buffer[:end])
                    del buffer[: end + 1]
                    searched = 0
                    yield line
                searched = len(buffer)
                if searched > self._limit:
                    _log.error("%s wrote a line of more than %d bytes", self._command.words, self._limit)
                    return


async def _spawn(command: Command) -> anyio.abc.Process:
    environment = dict(os.environ) | dict(command.environment or {}) | {TOLD_BY_META: "meta"}
    try:
        return await anyio.open_process(
            list(command.argv),
            env=environment,
            cwd=command.folder,
            stderr=None,
            **spawn_options(),
        )
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"command {command.words!r}: wanted a program that starts, seen {error}",
            code="target",
            hint="check the program's name, that it is installed, and the PATH of this process",
        ) from error


async def _end(process: anyio.abc.Process, group: Group, grace: Grace, *, flushed: anyio.Event) -> None:
    """Let the writer finish, close stdin, wait, terminate the group, wait, kill the group, reap."""
    assert process.stdin is not None
    with anyio.move_on_after(0.5):
        await flushed.wait()
    with suppress(*_GONE), anyio.move_on_after(0.5):
        await process.stdin.aclose()
    async with anyio.create_task_group() as tasks:
        # A server that flushes its last words must not block on a full pipe and so miss its chance to end by itself.
        tasks.start_soon(_drain, process)
        if not await _wait_exit(process, grace.close):
            group.terminate()
            await _wait_exit(process, grace.terminate)
        # Always: descendants may outlive the leader, and a killed group is gone for certain.
        group.kill()
        if not await _wait_exit(process, 5.0):
            _log.error("process %d is still there after it was killed", process.pid)
        tasks.cancel_scope.cancel()
    group.close()
    _close_transport(process)


async def _drain(process: anyio.abc.Process) -> None:
    assert process.stdout is not None
    with suppress(*_GONE, anyio.BusyResourceError):
        while True:
            await process.stdout.receive()


async def _wait_exit(process: anyio.abc.Process, seconds: float) -> bool:
    """Poll the exit code: `wait()` also waits for the pipes, which a descendant may hold open."""
    deadline = anyio.current_time() + seconds
    pause = 0.002
    while process.returncode is None:
        if anyio.current_time() >= deadline:
            return False
        await anyio.sleep(pause)
        pause = min(0.05, pause * 2)
    return True


def _close_transport(process: anyio.abc.Process) -> None:
    """Close asyncio's subprocess transport, which otherwise keeps descriptors while a descendant holds a pipe.

    Nothing public exposes it: `anyio.Process` has no synchronous close, and its `aclose` waits for the pipes.
    """
    transport = getattr(getattr(process, "_process", None), "_transport", None)
    close = getattr(transport, "close", None)
    if callable(close):
        with suppress(OSError):
            close()


def command(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Command:
    """A Command from any sequence of words."""
    return Command(argv=tuple(argv), environment=environment)
