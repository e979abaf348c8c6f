"""What a stdio server says to one HTTP request, on its way out.

A request whose first message is its answer gets plain JSON; any other opens a server-sent event stream that ends with
the answer. So plain calls never cost the legacy SDK client its connection (it closes each event stream that it has read
an answer from), and progress, logging, sampling and elicitation still pass. Source: MCP 2025-11-25, basic/transports,
Sending Messages; 2026-07-28 the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import asgi

JSON_STATUS_OK = 200


class Outbox:
    """A bounded queue of JSON texts for one response. Full means closed: a reader that stands still stops no other."""

    __slots__ = ("_inbox", "_outlet", "closed", "overflowed")

    def __init__(self, capacity: int = LIMITS.mcp_waiting) -> None:
        self._inbox, self._outlet = anyio.create_memory_object_stream[tuple[bytes, int | None]](capacity)
        self.closed = False
        self.overflowed = False

    def put(self, data: bytes) -> bool:
        """Queue a message that is not the answer. False: it has no taker any more."""
        return self._put(data, None)

    def finish(self, data: bytes, status: int = JSON_STATUS_OK) -> bool:
        """Queue the answer; nothing follows. `status` is the HTTP status if nothing has been sent yet."""
        put = self._put(data, status)
        self.close()
        return put

    def close(self) -> None:
        """Take no more; what is queued is still sent."""
        self.closed = True
        self._inbox.close()

    def abandon(self) -> None:
        """The client is gone: drop what is queued."""
        self.close()
        self._outlet.close()

    def _put(self, data: bytes, status: int | None) -> bool:
        if self.closed:
            return False
        try:
            self._inbox.send_nowait((data, status))
        except anyio.WouldBlock:
            self.overflowed = True
            self.abandon()
        except anyio.BrokenResourceError:
            self.abandon()
        return not self.closed

    async def get(self) -> tuple[bytes, int | None]:
        """The next message, with its status if it is the answer. Raises: anyio.EndOfStream, ClosedResourceError."""
        return await self._outlet.receive()


async def answer(
    outbox: Outbox, receive: asgi.Receive, send: asgi.Send, headers: Callable[[], asgi.Headers] | None = None
) -> bool:
    """Send what comes out of `outbox` as one HTTP response until the answer. False: the client left before it.

    `headers` is asked when the response starts.
    """
    done = False
    extra = headers or _no_headers
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            await asgi.wait_for_disconnect(receive)
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        done = await _first(outbox, send, extra)
        tasks.cancel_scope.cancel()
    return done


async def stream(outbox: Outbox, receive: asgi.Receive, send: asgi.Send, headers: asgi.Headers = ()) -> None:
    """Send what comes out of `outbox` as an event stream until it is closed or the client leaves."""
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            await asgi.wait_for_disconnect(receive)
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        await _start_events(send, headers)
        await _events(outbox, send)
        tasks.cancel_scope.cancel()


def _no_headers() -> Sequence[tuple[bytes, bytes]]:
    return ()


async def _first(outbox: Outbox, send: asgi.Send, headers: Callable[[], asgi.Headers]) -> bool:
    first = b": ping\n\n"
    with anyio.move_on_after(asgi.SSE_PING_SECONDS):
        try:
            data, status = await outbox.get()
        except (anyio.EndOfStream, anyio.ClosedResourceError):
            await asgi.reply_text(send, 503, "the response was given up\n", headers())
            return True
        if status is not None:
            await asgi.reply_json(send, status, data, headers())
            return True
        first = asgi.sse_event(data)
    await _start_events(send, headers())
    await send({"type": "http.response.body", "body": first, "more_body": True})
    return await _events(outbox, send)


async def _start_events(send: asgi.Send, headers: asgi.Headers) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [*asgi.SSE_HEADERS, *headers]})


async def _events(outbox: Outbox, send: asgi.Send) -> bool:
    """Events until the answer (True) or until the outbox is closed without one (False)."""
    while True:
        body, status = b": ping\n\n", None
        with anyio.move_on_after(asgi.SSE_PING_SECONDS):
            try:
                data, status = await outbox.get()
            except (anyio.EndOfStream, anyio.ClosedResourceError):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return False
            body = asgi.sse_event(data)
        await send({"type": "http.response.body", "body": body, "more_body": status is None})
        if status is not None:
            return True
