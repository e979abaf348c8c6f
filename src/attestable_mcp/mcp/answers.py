"""The ASGI side of answers that are looked at on their way: the request read ahead, the response held or rewritten."""

from __future__ import annotations

from collections.abc import Callable

from attestable_mcp.errors import ConversationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import asgi
from attestable_mcp.mcp.rewrite import EventRewriter, Look, rewrite_json

_LIST_CHANGED = b"/list_changed"


class Replay:
    """The request body read ahead of the application, then given to it as it was; what is over the cap streams on."""

    __slots__ = ("_held", "_receive")

    def __init__(self, receive: asgi.Receive) -> None:
        self._receive = receive
        self._held: list[asgi.Message] = []

    async def read(self, cap: int) -> bytes:
        """The whole body, or nothing where it is over the cap or the client left."""
        body = bytearray()
        while True:
            message = await self._receive()
            self._held.append(message)
            body += message.get("body", b"")
            if message["type"] != "http.request" or len(body) > cap:
                return b""
            if not message.get("more_body", False):
                self._held = [{"type": "http.request", "body": bytes(body), "more_body": False}]
                return bytes(body)

    async def receive(self) -> asgi.Message:
        """ASGI receive."""
        return self._held.pop(0) if self._held else await self._receive()


class Listen:
    """A response that is passed on as it is, save that a changed list is noticed."""

    __slots__ = ("_changed", "_send", "_tail")

    def __init__(self, send: asgi.Send, changed: Callable[[], None]) -> None:
        self._send = send
        self._changed = changed
        self._tail = b""

    async def send(self, message: asgi.Message) -> None:
        """ASGI send."""
        if message["type"] == "http.response.body":
            body = message.get("body", b"")
            if _LIST_CHANGED in self._tail + body:
                self._changed()
            self._tail = body[-len(_LIST_CHANGED) :]
        await self._send(message)


class Answers:
    """The sending side of one response whose answer is looked at: JSON is held until it is whole, events are not.

    JSON over the cap passes as it is; if `whole`, not at all: ConversationError (`flooded`).
    """

    __slots__ = ("_body", "_events", "_look", "_plain", "_start", "_whole")

    def __init__(self, send: asgi.Send, look: Look, changed: Callable[[], None], *, whole: bool = False) -> None:
        self._whole = whole
        self._plain = Listen(send, changed)
        self._look = look
        self._start: asgi.Message | None = None
        self._body: bytearray | None = None
        self._events: EventRewriter | None = None

    async def send(self, message: asgi.Message) -> None:
        """ASGI send."""
        if message["type"] == "http.response.start":
            await self._begin(message)
        elif message["type"] != "http.response.body":
            await self._plain.send(message)
        elif self._body is not None:
            await self._json(message)
        elif self._events is not None:
            await self._event(message)
        else:
            await self._plain.send(message)

    async def _begin(self, message: asgi.Message) -> None:
        headers = {key.lower(): value for key, value in message.get("headers", ())}
        kind = headers.get(b"content-type", b"").lower()
        if kind.startswith(b"application/json") and b"content-encoding" not in headers:
            self._start, self._body = message, bytearray()
            return
        if kind.startswith(b"text/event-stream") and b"content-encoding" not in headers:
            self._events = EventRewriter(self._look)
        await self._plain.send(message)

    async def _json(self, message: asgi.Message) -> None:
        assert self._body is not None
        assert self._start is not None
        self._body += message.get("body", b"")
        more = message.get("more_body", False)
        if more and len(self._body) <= LIMITS.mcp_message:
            return
        if more and self._whole:
            raise ConversationError("answer: wanted one that can be looked at, seen more", code="flooded")
        start, body, self._body = self._start, bytes(self._body), None
        if not more:
            body = await rewrite_json(body, self._look)
            headers = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
            start = {**start, "headers": [*headers, (b"content-length", b"%d" % len(body))]}
        await self._plain.send(start)
        await self._plain.send({"type": "http.response.body", "body": body, "more_body": more})

    async def _event(self, message: asgi.Message) -> None:
        assert self._events is not None
        more = message.get("more_body", False)
        body = await self._events.feed(message.get("body", b""))
        body += b"" if more else self._events.finish()
        if body or not more:
            await self._plain.send({"type": "http.response.body", "body": body, "more_body": more})
