"""A process behind a session of the handshake era, which may turn out to speak the stateless era only.

It is used like the process itself. The client's `initialize` is tried as it is; where the process refuses it, a
translator takes the client's place from then on. The other direction is not served here: a client of the stateless
era names no session, so nothing says which client a handshake-era process asks for input (docs/decisions).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import anyio
import anyio.abc

from attestable_mcp.mcp import rpc
from attestable_mcp.mcp.child import Child, ChildEnded
from attestable_mcp.mcp.translate import Step, ToHost, ToServer, modern_version
from attestable_mcp.mcp.translate_up import Upward

_QUEUE = 64


class EitherEraChild:
    """`discovered` is what the same command said to `server/discover`; empty if it does not speak that era."""

    def __init__(self, child: Child, discovered: rpc.Message) -> None:
        self._child = child
        self._discovered = discovered
        self._version = modern_version(discovered)
        self._upward: Upward | None = None
        self._opening: rpc.Message | None = None
        self._out, self._inbox = anyio.create_memory_object_stream[tuple[rpc.Message, bytes]](_QUEUE)
        self._later: anyio.abc.TaskGroup | None = None

    @property
    def ending(self) -> str:
        """How the process ended, in words."""
        return self._child.ending

    async def settle(self) -> None:
        """Wait a moment for the exit code once output has ended."""
        await self._child.settle()

    async def send(self, line: bytes) -> None:
        """Hand one message of the client to the process. Raises: ChildEnded."""
        if self._version is None:
            await self._child.send(line)
            return
        message = rpc.parse(line)
        if message.get("method") == "initialize":
            self._opening, self._upward = message, None
        if self._upward is not None:
            await self._carry_out(self._upward.from_host(message))
        else:
            await self._child.send(line)

    async def messages(self) -> AsyncIterator[tuple[rpc.Message, bytes]]:
        """Each message for the client; ends when the process's output ends."""
        if self._version is None:
            async for message, line in self._child.messages():
                yield message, line
            return
        async with self._inbox:
            async for found in self._inbox:
                yield found

    async def write(self) -> None:
        """The task that runs beside `messages` until the process is left."""
        if self._version is None:
            await self._child.write()
            return
        async with anyio.create_task_group() as tasks:
            self._later = tasks
            tasks.start_soon(self._child.write)
            async with self._out:
                async for message, line in self._child.messages():
                    await self._from_child(message, line)

    async def _from_child(self, message: rpc.Message, line: bytes) -> None:
        if self._upward is not None:
            await self._carry_out(self._upward.from_server(message))
            return
        opening = self._opening
        if opening is not None and rpc.is_response(message) and message.get("id") == opening["id"]:
            self._opening = None
            if "error" in message and self._version is not None:
                self._upward = Upward(self._discovered, self._version)
                await self._carry_out(self._upward.from_host(opening))
                return
        await self._to_client(message, line)

    async def _carry_out(self, steps: Sequence[Step]) -> None:
        for step in steps:
            match step:
                case ToHost(message=message):
                    await self._to_client(message, rpc.dump(message))
                case ToServer(message=message, after=after):
                    if after and self._later is not None:
                        self._later.start_soon(self._send_later, message, after)
                    else:
                        await self._child.send(rpc.dump(message))

    async def _send_later(self, message: rpc.Message, after: float) -> None:
        await anyio.sleep(after)
        try:
            await self._child.send(rpc.dump(message))
        except ChildEnded:
            return  # whoever waits is told by the end of the session

    async def _to_client(self, message: rpc.Message, line: bytes) -> None:
        try:
            await self._out.send((message, line))
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            raise ChildEnded(self._child.ending) from None
