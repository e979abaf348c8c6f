"""What one HTTP answer holds: a JSON message, or an event stream that is picked up again where it broke off.

Source: MCP 2025-11-25, basic/transports (resumability); SEP-1699 (a server may end a stream and be asked again).
"""

from __future__ import annotations

import anyio
import httpx2

from attestable_mcp.mcp import bridge_headers, rpc
from attestable_mcp.mcp.bridge_calls import Call
from attestable_mcp.mcp.bridge_link import Link
from attestable_mcp.mcp.bridge_sse import EventReader
from attestable_mcp.mcp.bridge_state import State
from attestable_mcp.mcp.bridge_to_host import HostSide

_TRIES = 5
"""Reconnections in a row to a response stream that gives nothing new."""
_RETRY_SECONDS = 1.0
"""Before a reconnection, where the server names no other time."""


class Answers:
    """Passes on what answers hold; an answer may be silent for `silence_seconds`."""

    def __init__(self, link: Link, host: HostSide, state: State, *, silence_seconds: float) -> None:
        self._link = link
        self._host = host
        self._state = state
        self._silence = silence_seconds

    async def json(self, call: Call, body: bytes, response: httpx2.Response) -> None:
        """A JSON answer; an error that the server could not tie to the request is tied to it here."""
        answer = rpc.parse(body)
        for message in answer if isinstance(answer, list) else [answer]:
            if rpc.fault(message) is not None:
                continue
            line = rpc.dump(message) if message is not answer else rpc.one_line(body, message)
            if rpc.is_response(message) and message.get("id") is None:
                message = message | {"id": call.id}
                line = rpc.dump(message)
            await self._host.deliver(message, line, call, response)

    async def events(self, call: Call, response: httpx2.Response) -> None:
        """A response stream, reconnected to where the server asks for that."""
        reader = self._link.reader()
        if await self.read(reader, response, call) or call.version is not None or reader.last_id is None:
            return
        await response.aclose()
        tries = 0
        seen: str | None = reader.last_id
        while tries < _TRIES and call.id in self._state.calls and reader.last_id is not None:
            await anyio.sleep(_RETRY_SECONDS if reader.retry_seconds is None else reader.retry_seconds)
            reader = reader.again()
            headers = self._state.session.headers() | {bridge_headers.LAST_EVENT: reader.last_id or ""}
            async with self._link.stream("GET", headers, read=self._silence) as resumed:
                if resumed.status_code != 200 or await self.read(reader, resumed, call):
                    return
            tries, seen = (tries + 1 if reader.last_id == seen else 0), reader.last_id

    async def read(self, reader: EventReader, response: httpx2.Response, call: Call | None) -> bool:
        """Pass on what a stream holds. True when it held the answer to the call; a broken stream is an ended one."""
        try:
            async for chunk in self._link.chunks(response):
                for event in reader.feed(chunk):
                    message = rpc.parse(event.data)
                    if rpc.fault(message) is None:
                        await self._host.deliver(message, rpc.one_line(event.data, message), call, response)
                    if call is not None and call.id not in self._state.calls:
                        return True
        except httpx2.TransportError:
            if call is None or call.version is not None or reader.last_id is None:
                raise
        return False
