"""The few ASGI pieces that the rooms of this package share: types, bounded bodies, short replies.

Every reader here has a cap, and every reply closes its response.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any

from attestable_mcp.errors import AttestationError, ConfigurationError
from attestable_mcp.tls.asgi import App as App
from attestable_mcp.tls.asgi import Message as Message
from attestable_mcp.tls.asgi import Receive as Receive
from attestable_mcp.tls.asgi import Scope as Scope
from attestable_mcp.tls.asgi import Send as Send

_log = logging.getLogger(__name__)

Headers = Iterable[tuple[bytes, bytes]]

SSE_PING_SECONDS = 15.0
"""A silent response stream says something at least this often, so that dead peers and idle proxies are noticed."""


class TooLarge(Exception):
    """A request body is over its cap. Internal: answered with 413, never raised out of an application."""


class Disconnected(Exception):
    """The client went away while its request was read. Internal."""


def header(scope: Scope, name: bytes) -> str | None:
    """The first value of a header of this request, or None. `name` in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value).decode("latin-1")
    return None


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole request body, at most `limit` bytes.

    Raises: TooLarge, before more than `limit` bytes are held; Disconnected.
    """
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdecimal() and int(declared[:20]) > limit:
        raise TooLarge
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        body += message.get("body", b"")
        if len(body) > limit:
            raise TooLarge
        if not message.get("more_body", False):
            return bytes(body)


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def reply(send: Send, status: int, body: bytes, content_type: bytes, headers: Headers = ()) -> None:
    """One complete response."""
    fields = [(b"content-type", content_type)] if body else []
    fields += [(b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def reply_text(send: Send, status: int, text: str, headers: Headers = ()) -> None:
    """One complete plain-text response."""
    await reply(send, status, text.encode(), b"text/plain; charset=utf-8", headers)


async def reply_json(send: Send, status: int, body: bytes, headers: Headers = ()) -> None:
    """One complete JSON response; `body` is the JSON text."""
    await reply(send, status, body, b"application/json", headers)


def accepts_events(scope: Scope) -> bool:
    """Does the client take both forms of answer, as every POST must (basic/transports, Sending Messages)?"""
    offered = {part.split(";")[0].strip().lower() for part in (header(scope, b"accept") or "").split(",")}
    json = offered & {"*/*", "application/*", "application/json"}
    return bool(json and offered & {"*/*", "text/*", "text/event-stream"})


async def lifespan(context: AbstractAsyncContextManager[object], receive: Receive, send: Send) -> None:
    """Serve the lifespan protocol with a context manager: entered on startup, left on shutdown."""
    await receive()
    try:
        async with context:
            await send({"type": "lifespan.startup.complete"})
            await receive()
    except AttestationError as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    await send({"type": "lifespan.shutdown.complete"})


class Lifespan:
    """Runs an application's lifespan around a block. An application that has none is served as it is (ASGI lifespan 2).

    Raises: ConfigurationError on entering, when the application refuses to start.
    """

    def __init__(self, app: App, state: dict[str, Any]) -> None:
        self._app = app
        self._state = state
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._run())
        message = await self._exchange("lifespan.startup")
        if message["type"] == "lifespan.startup.failed":
            await self._task
            raise ConfigurationError(f"the application refuses to start: {message.get('message') or 'no reason given'}")

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        try:
            if not self._task.done():
                await self._exchange("lifespan.shutdown")
        finally:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _exchange(self, word: str) -> Message:
        self._to_app.put_nowait({"type": word})
        return await self._from_app.get()

    async def _run(self) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        try:
            await self._app(scope, self._to_app.get, self._from_app.put)
        except Exception:  # noqa: BLE001 - raising is how an application says that it has no lifespan
            _log.debug("the application has no lifespan", exc_info=True)
        self._from_app.put_nowait({"type": "lifespan.ended"})


def sse_event(data: bytes) -> bytes:
    """One JSON text as a server-sent event. `data` must hold no line break (WHATWG HTML §9.2.5)."""
    return b"event: message\ndata: " + data + b"\n\n"


SSE_HEADERS = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)
