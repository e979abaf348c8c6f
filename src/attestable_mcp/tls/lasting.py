"""A response that goes on no longer than the proof of the client that it is for.

Nothing can be asked on a connection that is busy with a response. A client that listens for long proves itself on
another connection meanwhile, by the same binding key, and its response goes on; without that it ends.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from attestable_mcp.tls.asgi import App, Message, Receive, Scope, Send

_log = logging.getLogger(__name__)


class Lasting:
    """One response. `left` says in how many seconds the proof is too old; it is asked anew once they are over.

    Then an event stream ends between two chunks, as when a server stops: what is no whole event yet is none to its
    reader. A response that has not begun becomes what `refuse` sends; any other is broken off as if the connection
    were lost, so that nobody takes a part for the whole. To the application the client has gone.
    """

    def __init__(self, send: Send, *, left: Callable[[], float], refuse: Callable[[], Awaitable[None]]) -> None:
        self._send = send
        self._left = left
        self._refuse = refuse
        self._over = self._begun = self._ended = self._events = False

    async def run(self, app: App, scope: Scope, receive: Receive) -> None:
        """Let the application answer, for as long as it may."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle | None = None

        def look() -> None:
            nonlocal timer
            timer = None if self._is_over() else loop.call_later(self._left(), look)
            if self._over:
                limit.reschedule(loop.time())

        try:
            async with asyncio.timeout(None) as limit:
                look()
                try:
                    await app(scope, receive, self._passed)
                finally:
                    if timer is not None:
                        timer.cancel()
        except TimeoutError:
            if not self._over:
                raise
        if self._over and not self._ended:
            await self._end()

    def _is_over(self) -> bool:
        self._over = self._over or self._left() <= 0
        return self._over

    async def _passed(self, message: Message) -> None:
        if self._is_over():
            return
        if message["type"] == "http.response.start":
            self._begun = True
            self._events = any(
                bytes(key).lower() == b"content-type" and bytes(value).lower().startswith(b"text/event-stream")
                for key, value in message.get("headers", ())
            )
        elif message["type"] == "http.response.body":
            self._ended = not message.get("more_body", False)
        await self._send(message)

    async def _end(self) -> None:
        _log.info("a response ended: the client's proof is older than the policy accepts")
        if not self._begun:
            await self._refuse()
        elif self._events:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
