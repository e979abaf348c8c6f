"""One answer, one JSON body: an event stream that holds nothing but the answer is sent as plain JSON.

The SDK's server answers each handshake-era call with an event stream, and its client closes such a connection once it
has read the answer: 53 connections for 50 calls. With us each connection costs a handshake and a binding. The SDK's own
`json_response=True` would cure that and lose progress, sampling and elicitation. So we hold a stream's start until its
first event: if that is the answer, the client gets JSON, which every client must accept (MCP 2025-11-25,
basic/transports, Sending Messages); if it is anything else, the stream goes out untouched.
"""

from __future__ import annotations

from attestable_mcp.mcp import asgi, rpc


class Collapse:
    """ASGI middleware for a server that speaks streamable HTTP."""

    def __init__(self, app: asgi.App) -> None:
        self._app = app

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """ASGI entry."""
        if scope["type"] == "http" and scope["method"] == "POST" and asgi.accepts_events(scope):
            send = _Hold(send).send
        await self._app(scope, receive, send)


class _Hold:
    """The sending side of one response, held back while it may still become JSON."""

    def __init__(self, send: asgi.Send) -> None:
        self._send = send
        self._start: asgi.Message | None = None
        self._answer: bytes | None = None
        self._held: asgi.Message | None = None

    async def send(self, message: asgi.Message) -> None:
        """Pass on, hold, or turn into JSON."""
        if message["type"] == "http.response.start" and _is_event_stream(message):
            self._start = message
        elif self._start is None or message["type"] != "http.response.body":
            await self._send(message)
        elif self._answer is None:
            await self._first_body(message)
        else:
            await self._after_answer(message)

    async def _first_body(self, message: asgi.Message) -> None:
        self._answer = _only_answer(message.get("body", b""))
        if self._answer is None:
            if message.get("body") or not message.get("more_body", False):
                await self._release(message)
        elif not message.get("more_body", False):
            await self._as_json()
        else:
            self._held = message

    async def _after_answer(self, message: asgi.Message) -> None:
        """The answer is held: an end confirms it, anything more means a stream after all."""
        if message.get("body"):
            held = self._held
            self._answer = None
            if held is not None:
                await self._release(held)
            await self._send(message)
        elif not message.get("more_body", False):
            await self._as_json()

    async def _release(self, message: asgi.Message) -> None:
        start, self._start = self._start, None
        if start is not None:
            await self._send(start)
        await self._send(message)

    async def _as_json(self) -> None:
        assert self._start is not None
        assert self._answer is not None
        start, self._start = self._start, None
        headers = [pair for pair in start["headers"] if pair[0].lower() not in (b"content-type", b"connection")]
        await asgi.reply_json(self._send, start["status"], self._answer, headers)


def _is_event_stream(message: asgi.Message) -> bool:
    kinds = [value for key, value in message.get("headers", ()) if key.lower() == b"content-type"]
    return message["status"] == 200 and len(kinds) == 1 and bytes(kinds[0]).lower().startswith(b"text/event-stream")


def _only_answer(body: bytes) -> bytes | None:
    """The JSON text of a body that is exactly one event holding an answer; None for anything else.

    An event with an id belongs to a resumable stream (basic/transports, Resumability): it stays an event.
    """
    data = b""
    for line in bytes(body).replace(b"\r\n", b"\n").strip(b"\n").split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data" and not data:
            data = value.removeprefix(b" ")
        elif field != b"event" or value.strip() != b"message":
            return None
    message = rpc.parse(data) if data[:1] == b"{" and body.endswith((b"\n\n", b"\r\n\r\n")) else None
    return data if isinstance(message, dict) and rpc.is_response(message) else None
