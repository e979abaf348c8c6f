"""Ending politely: standing event streams end at once, requests under way are given the server's drain time."""

from __future__ import annotations

import anyio

from attestable_mcp.mcp import asgi


class Drain:
    """ASGI middleware. After `stop`, streams that would never end by themselves end now.

    Those are a handshake-era session's GET stream and the stateless era's `subscriptions/listen`.
    """

    def __init__(self, app: asgi.App) -> None:
        self._app = app
        self._standing: set[anyio.CancelScope] = set()
        self._stopping = False

    def stop(self) -> None:
        """End every standing stream, and each that is opened from now on."""
        self._stopping = True
        for scope in self._standing:
            scope.cancel()

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http" or not _stands(scope):
            await self._app(scope, receive, send)
        elif self._stopping:
            await asgi.reply_text(send, 503, "the server is stopping\n", [(b"connection", b"close")])
        else:
            await self._stand(scope, receive, send)

    async def _stand(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        started = ended = False

        async def watched(message: asgi.Message) -> None:
            nonlocal started, ended
            started = True
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        cancel = anyio.CancelScope()
        self._standing.add(cancel)
        try:
            with cancel:
                await self._app(scope, receive, watched)
        finally:
            self._standing.discard(cancel)
        if cancel.cancelled_caught and started and not ended:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        elif cancel.cancelled_caught and not started:
            await asgi.reply_text(send, 503, "the server is stopping\n")


def _stands(scope: asgi.Scope) -> bool:
    if scope["method"] == "GET":
        return "text/event-stream" in (asgi.header(scope, b"accept") or "")
    return asgi.header(scope, b"mcp-method") == "subscriptions/listen"
