"""`/healthz` and `/readyz` for those who watch over a process: plain HTTP on a port of its own, and nothing else there.

Alive means that the event loop answers; it depends on nothing. Ready means that requests are taken: not before the
start is complete, and not while the process drains, so that a balancer looks elsewhere in time. The port says nothing
of MCP and asks for no authorization; it exists only where it was asked for.
"""

from __future__ import annotations

from types import TracebackType

from attestable_mcp.mcp import asgi
from attestable_mcp.tls.listening import PlainServer


class Health:
    """`async with Health(host, port) as health`: not ready until `health.ready()`, and no more after `drain()`."""

    def __init__(self, host: str, port: int) -> None:
        self._server = PlainServer(self, host, port)
        self.state = "starting"

    async def __aenter__(self) -> Health:
        await self._server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._server.__aexit__(kind, error, trace)

    @property
    def url(self) -> str:
        """`http://HOST:PORT`."""
        return self._server.url

    def ready(self) -> None:
        """The start is complete."""
        self.state = "ready"

    def drain(self) -> None:
        """The end has begun."""
        self.state = "draining"

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http":
            return
        fresh = [(b"cache-control", b"no-store")]
        if scope["method"] not in ("GET", "HEAD"):
            await asgi.reply_text(send, 405, "method not allowed\n", [(b"allow", b"GET, HEAD")])
        elif scope["path"] == "/healthz":
            await asgi.reply_text(send, 200, "ok\n", fresh)
        elif scope["path"] == "/readyz":
            await asgi.reply_text(send, 200 if self.state == "ready" else 503, f"{self.state}\n", fresh)
        else:
            await asgi.reply_text(send, 404, "not found\n")
