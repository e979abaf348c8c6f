"""HTTP between the bridge and its server: every exchange goes through here, and every byte is a sign of life."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2

from attestable_mcp.errors import ConversationError
from attestable_mcp.mcp import rpc
from attestable_mcp.mcp.bridge_pulse import Pulse
from attestable_mcp.mcp.bridge_sse import EventReader

_CONNECT_SECONDS = 30.0


class Link:
    """One server. No body and no event may hold more than `max_message` bytes."""

    def __init__(self, url: str, http: httpx2.AsyncClient, *, pulse: Pulse, max_message: int) -> None:
        self.url = url
        self._http = http
        self._target = httpx2.URL(url)
        self._own = dict(http.headers)
        self._pulse = pulse
        self._max_message = max_message

    @asynccontextmanager
    async def stream(
        self, method: str, headers: dict[str, str], *, body: bytes | None = None, read: float | None = None
    ) -> AsyncIterator[httpx2.Response]:
        """One exchange, its body not yet read; `read` is the seconds that it may be silent."""
        self._pulse.begin()
        response = await self._http.send(self._request(method, headers, body, read), stream=True)
        try:
            self._pulse.heard()
            yield response
        finally:
            await response.aclose()

    def _request(self, method: str, headers: dict[str, str], body: bytes | None, read: float | None) -> httpx2.Request:
        """As the client's `build_request` would make it, which merges what is the same each time."""
        timeout = {"connect": _CONNECT_SECONDS, "read": read, "write": _CONNECT_SECONDS, "pool": None}
        return httpx2.Request(
            method,
            self._target,
            content=body,
            headers=self._own | headers,
            cookies=self._http.cookies or None,
            extensions={"timeout": timeout},
        )

    async def chunks(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        """The body as it comes."""
        async for chunk in response.aiter_bytes():
            self._pulse.heard()
            yield chunk

    async def body(self, response: httpx2.Response) -> bytes:
        """A whole body. Raises: ConversationError (`flooded`)."""
        found = bytearray()
        async for chunk in self.chunks(response):
            found += chunk
            if len(found) > self._max_message:
                cap = self._max_message
                raise ConversationError(f"answer: wanted at most {cap} bytes, seen more", code="flooded")
        return bytes(found)

    def reader(self) -> EventReader:
        """For an event stream of this server's."""
        return EventReader(self._max_message)

    async def messages(self, response: httpx2.Response) -> AsyncIterator[rpc.Message]:
        """The messages of an answer, be it JSON or an event stream; what is none is left out."""
        if "text/event-stream" not in response.headers.get("content-type", ""):
            answer = rpc.parse(await self.body(response))
            if isinstance(answer, dict) and rpc.fault(answer) is None:
                yield answer
            return
        reader = self.reader()
        async for chunk in self.chunks(response):
            for event in reader.feed(chunk):
                answer = rpc.parse(event.data)
                if isinstance(answer, dict) and rpc.fault(answer) is None:
                    yield answer
