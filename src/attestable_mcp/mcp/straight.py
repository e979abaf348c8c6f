"""Calls of the handshake era answered straight: by the task that read them, in JSON, where nothing comes before.

The SDK's server opens an event stream for each call, with five tasks around it, before it knows whether there will be
anything but the answer: 0.7 ms of a call's 1.9. Here the first thing that the session says of a call decides: an answer
goes out as JSON, which every client must accept (MCP 2025-11-25, basic/transports, Sending Messages); anything else, or
15 seconds of silence, opens the SDK's own event stream, and nothing is lost. (Its `json_response=True` would lose
progress, sampling and elicitation.)

A session's own stream (GET), which desktop hosts keep open all day, is served by one task and one that waits for the
client to leave, instead of six: 17 KiB less a session.

The SDK has no seam for this: a session's handlers are put in place of its own, with parts of it that have no public
name. So this is done for the releases that it was tried with, and any other answers as it does by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import metadata
from typing import Any

import anyio
import pydantic_core
from anyio.streams.memory import MemoryObjectReceiveStream
from mcp.server.streamable_http import (
    GET_STREAM_KEY,
    LAST_EVENT_ID_HEADER,
    MCP_SESSION_ID_HEADER,
    REQUEST_STREAM_BUFFER_SIZE,
    EventMessage,
    StreamableHTTPServerTransport,
    check_accept_headers,
)
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp_types import JSONRPCError, JSONRPCRequest, JSONRPCResponse, jsonrpc_message_adapter
from pydantic import ValidationError
from sse_starlette import EventSourceResponse
from starlette.requests import ClientDisconnect, Request

from attestable_mcp.mcp import asgi, rpc

TRIED = ("2.3",)
"""Releases of the SDK (major, minor) whose sessions have the parts that are used here."""
_LOST = (anyio.EndOfStream, anyio.ClosedResourceError, anyio.BrokenResourceError)
_Event = dict[str, Any]
_Post = Callable[[asgi.Scope, Request, asgi.Receive, asgi.Send], Awaitable[None]]
_Get = Callable[[Request, asgi.Send], Awaitable[None]]
_STREAM = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-transform",
    "connection": "keep-alive",
    "x-accel-buffering": "no",
}


def answer_straight(manager: StreamableHTTPSessionManager, *, release: str | None = None) -> bool:
    """Have every session to come of `manager` answer straight. False for a release (the installed one) not known."""
    if ".".join((release or metadata.version("mcp")).split(".")[:2]) not in TRIED:
        return False
    admit = manager._admit_session

    def admitted(requestor: Any) -> StreamableHTTPServerTransport | None:
        session = admit(requestor)
        if session is not None:
            straight = Straight(session)
            session._handle_post_request = straight.post  # type: ignore[method-assign]
            session._handle_get_request = straight.listen  # type: ignore[method-assign]
        return session

    manager._admit_session = admitted  # type: ignore[method-assign]
    return True


class Straight:
    """The handlers of one session."""

    def __init__(self, session: StreamableHTTPServerTransport) -> None:
        self._session = session
        self._own: _Post = session._handle_post_request
        self._own_listen: _Get = session._handle_get_request

    async def post(self, scope: asgi.Scope, request: Request, receive: asgi.Receive, send: asgi.Send) -> None:
        """In place of `StreamableHTTPServerTransport._handle_post_request`; what is no plain call is left to that."""
        try:
            call = await self._call(request)
        except ClientDisconnect:
            return
        if call is None:
            await self._own(scope, request, receive, send)
            return
        key = str(call.id)
        sending, events = anyio.create_memory_object_stream[EventMessage](REQUEST_STREAM_BUFFER_SIZE)
        self._session._request_streams[key] = (sending, events)
        try:
            await self._answer(call, key, request, events, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._session._clean_up_memory_streams(key)

    async def listen(self, request: Request, send: asgi.Send) -> None:
        """In place of `StreamableHTTPServerTransport._handle_get_request`; what is no plain stream is left to that."""
        session = self._session
        plain = self._plain(request) and check_accept_headers(request)[1]
        if not plain or LAST_EVENT_ID_HEADER in request.headers or GET_STREAM_KEY in session._request_streams:
            await self._own_listen(request, send)
            return
        sending, events = anyio.create_memory_object_stream[EventMessage](REQUEST_STREAM_BUFFER_SIZE)
        session._request_streams[GET_STREAM_KEY] = (sending, events)
        gone = asyncio.create_task(asgi.wait_for_disconnect(request.receive))
        gone.add_done_callback(lambda _: sending.close())
        try:
            head = [(key.encode(), value.encode()) for key, value in _STREAM.items()]
            await send({"type": "http.response.start", "status": 200, "headers": [*head, *self._headers()]})
            await self._pour(events, send)
        finally:
            gone.cancel()
            with anyio.CancelScope(shield=True):
                await session._clean_up_memory_streams(GET_STREAM_KEY)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pour(self, events: MemoryObjectReceiveStream[EventMessage], send: asgi.Send) -> None:
        """Events as they come, and signs of life between them, until the session or the connection ends."""
        while True:
            body = b": ping\r\n\r\n"
            with anyio.move_on_after(asgi.SSE_PING_SECONDS):
                try:
                    event = await events.receive()
                except _LOST:
                    return
                body = b"event: message\r\ndata: %b\r\n\r\n" % _json(event)
            await send({"type": "http.response.body", "body": body, "more_body": True})

    def _plain(self, request: Request) -> bool:
        """Nothing wrong with the headers, nothing special about the session."""
        session = self._session
        named = request.headers.get(MCP_SESSION_ID_HEADER) == session.mcp_session_id
        whole = session._event_store is None and not session.is_json_response_enabled
        return named and whole

    async def _call(self, request: Request) -> JSONRPCRequest | None:
        """The call in a request that has nothing wrong or special about it."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if kind != "application/json" or not self._plain(request) or not all(check_accept_headers(request)):
            return None
        try:
            message = jsonrpc_message_adapter.validate_python(
                pydantic_core.from_json(await request.body()), by_name=False
            )
        except (ValueError, ValidationError):
            return None
        return message if isinstance(message, JSONRPCRequest) and message.method != "initialize" else None

    async def _answer(
        self,
        call: JSONRPCRequest,
        key: str,
        request: Request,
        events: MemoryObjectReceiveStream[EventMessage],
        send: asgi.Send,
    ) -> None:
        session = self._session
        version = request.headers.get(MCP_PROTOCOL_VERSION_HEADER, "")
        first: EventMessage | None = None
        try:
            assert session._read_stream_writer is not None
            await session._read_stream_writer.send(session._create_session_message(call, request, key, version))
            with anyio.move_on_after(asgi.SSE_PING_SECONDS):
                first = await events.receive()
        except _LOST:
            error = rpc.error(call.id, rpc.SERVER_ENDED, "the session ended before the answer")
            await asgi.reply_json(send, 500, error, self._headers())
            return
        if first is not None and _is_answer(first):
            await asgi.reply_json(send, 200, _json(first), self._headers())
        else:
            stream = EventSourceResponse(self._rest(first, events), headers=_STREAM | self._named())
            await stream(request.scope, request.receive, send)

    async def _rest(
        self, first: EventMessage | None, events: MemoryObjectReceiveStream[EventMessage]
    ) -> AsyncIterator[_Event]:
        """What is left of a call's messages, up to its answer."""
        if first is not None:
            yield self._session._create_event_data(first)
        async for event in events:
            yield self._session._create_event_data(event)
            if _is_answer(event):
                return

    def _named(self) -> dict[str, str]:
        found = self._session.mcp_session_id
        return {} if found is None else {MCP_SESSION_ID_HEADER: found}

    def _headers(self) -> list[tuple[bytes, bytes]]:
        return [(key.encode("ascii"), value.encode("ascii")) for key, value in self._named().items()]


def _is_answer(event: EventMessage) -> bool:
    return isinstance(event.message, JSONRPCResponse | JSONRPCError)


def _json(event: EventMessage) -> bytes:
    return event.message.model_dump_json(by_alias=True, exclude_unset=True).encode()
