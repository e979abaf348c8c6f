"""An opaque HTTP relay to one local server: streams both ways and parses nothing of MCP, so every revision passes.

A client that leaves closes the upstream response: in the stateless era that is the cancellation itself. Nothing is
kept between requests: no cookies, no redirects followed, no proxy of the environment.
Source: RFC 9110 §7.6.1 (hop-by-hop fields); MCP 2026-07-28, basic/transports.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

import anyio
import httpx2

from attestable_mcp.errors import AttestationError
from attestable_mcp.mcp import asgi
from attestable_mcp.mcp.caller import HEADER, STATE_KEY, header_value
from attestable_mcp.mcp.guard import OWN_HEADERS, is_own
from attestable_mcp.rats import Caller

_log = logging.getLogger(__name__)
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_FORWARDED = (b"forwarded", b"x-forwarded-", b"x-real-ip")
_CONNECT_SECONDS = 10.0


class Relay:
    """An ASGI application in front of `origin` (scheme, host and port). Leave it to close its connections.

    `transport` stands in for a plain connection; the relay owns it. Of a request's body up to `keep` bytes are read
    before the server behind is spoken to, so that they can be sent again; with 0 the first piece.
    """

    def __init__(self, origin: str, transport: httpx2.AsyncBaseTransport | None = None, *, keep: int = 0) -> None:
        self._origin = httpx2.URL(origin)
        self._keep = keep
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=32)
        self._transport = transport or httpx2.AsyncHTTPTransport(limits=limits, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self._transport.aclose()

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """ASGI entry."""
        if scope["type"] == "lifespan":
            await asgi.lifespan(self, receive, send)
        elif scope["type"] == "http":
            await self._relay(scope, receive, send)

    async def failed(self, error: Exception, body: Body, send: asgi.Send) -> None:
        """Answer a request that found no server."""
        _log.warning("upstream %s: %s: %s", self._origin, type(error).__name__, error)
        await asgi.reply_text(send, 502, "the server behind does not answer\n")

    def forwarded(self, scope: asgi.Scope) -> asgi.Headers:
        """Headers that tell the server behind how the client came, and who it proved to be."""
        host = (asgi.header(scope, b"host") or "").encode("latin-1")
        caller = scope.get("state", {}).get(STATE_KEY)
        who = [(HEADER, header_value(caller))] if isinstance(caller, Caller) else []
        return [(b"x-forwarded-proto", b"https"), (b"x-forwarded-host", host), *who]

    def added(self, response: httpx2.Response) -> asgi.Headers:
        """Headers of our own in a response."""
        return ()

    async def _relay(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        body = Body(receive)
        try:
            await body.open(self._keep)
        except asgi.Disconnected:
            return
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_watch, body, receive, tasks.cancel_scope)
            await self._forward(self._request(scope, body), body, send)
            tasks.cancel_scope.cancel()

    async def _forward(self, request: httpx2.Request, body: Body, send: asgi.Send) -> None:
        try:
            response = await self._transport.handle_async_request(request)
        except asgi.Disconnected:
            return
        except (httpx2.HTTPError, AttestationError) as error:
            await self.failed(error, body, send)
            return
        try:
            await _pass_back(response, send, self.added(response))
        except (httpx2.HTTPError, AttestationError) as error:
            # Returning without an end makes the HTTP server in front break the connection off: the client sees the cut.
            _log.warning("upstream %s broke off: %s: %s", self._origin, type(error).__name__, error)
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    def _request(self, scope: asgi.Scope, body: Body) -> httpx2.Request:
        path = scope.get("raw_path") or scope["path"].encode()
        query = scope.get("query_string", b"")
        url = self._origin.copy_with(raw_path=path + (b"?" + query if query else b""))
        return httpx2.Request(
            scope["method"],
            url,
            headers=self._headers(scope),
            content=body if body.more else body.first,
            extensions={"timeout": {"connect": _CONNECT_SECONDS, "pool": None, "read": None, "write": None}},
        )

    def _headers(self, scope: asgi.Scope) -> list[tuple[bytes, bytes]]:
        """The client's headers for the next hop. Host and Origin, checked before, become the upstream's own.

        None has an underscore in its name: servers of the CGI family take it for the one with a hyphen, which was
        looked at, or which only this side may set.
        """
        named = _connection_options(scope["headers"])
        headers = [
            (key, value)
            for key, value in ((key.lower(), value) for key, value in scope["headers"])
            if key not in _HOP_BY_HOP
            and key not in named
            and key not in (b"host", b"origin")
            and b"_" not in key
            and not key.startswith((*OWN_HEADERS, *_FORWARDED))
        ]
        headers.append((b"host", self._origin.netloc))
        if asgi.header(scope, b"origin") is not None:
            headers.append((b"origin", f"{self._origin.scheme}://{self._origin.netloc.decode('ascii')}".encode()))
        return [*headers, *self.forwarded(scope)]


class Body(httpx2.AsyncByteStream):
    """The request body as it comes in. `first` is what was read of it at the start, `more` whether others follow."""

    def __init__(self, receive: asgi.Receive) -> None:
        self._receive = receive
        self.first = b""
        self.more = False
        self.done = anyio.Event()

    async def open(self, keep: int) -> None:
        """Take the first piece, and more as long as at most `keep` bytes are held. Raises: Disconnected."""
        self.first, self.more = await self._next()
        while self.more and len(self.first) < keep:
            piece, self.more = await self._next()
            self.first += piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.first
        while self.more:
            piece, self.more = await self._next()
            yield piece

    async def _next(self) -> tuple[bytes, bool]:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise asgi.Disconnected
        more = bool(message.get("more_body", False))
        if not more:
            self.done.set()
        return message.get("body", b""), more


async def _watch(body: Body, receive: asgi.Receive, scope: anyio.CancelScope) -> None:
    await body.done.wait()
    await asgi.wait_for_disconnect(receive)
    scope.cancel()


async def _pass_back(response: httpx2.Response, send: asgi.Send, added: asgi.Headers) -> None:
    named = _connection_options(response.headers.raw)
    headers = [
        (key.lower(), value)
        for key, value in response.headers.raw
        if key.lower() not in _HOP_BY_HOP and key.lower() not in named and not is_own(key)
    ]
    await send({"type": "http.response.start", "status": response.status_code, "headers": [*headers, *added]})
    stream = response.stream
    assert isinstance(stream, httpx2.AsyncByteStream)
    async for chunk in stream:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _connection_options(headers: asgi.Headers) -> set[bytes]:
    """Fields that a Connection header makes hop-by-hop."""
    values = [value for key, value in headers if key.lower() == b"connection"]
    return {option.strip().lower() for value in values for option in value.split(b",")}
