"""How many sessions of the handshake era a server has open, and whose ends where one more comes (see `shares`).

ASGI middleware around any server that speaks streamable HTTP. A session costs memory, behind a stdio command a process;
clients open one by a single request and may never end it. Where all are taken, one of whoever holds most is ended as
its client would have: by DELETE. Its client is told that it is gone (404), and opens another.
Source: MCP 2025-11-25, basic/transports, Session Management.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import asgi, rpc
from attestable_mcp.mcp.caller import STATE_KEY
from attestable_mcp.mcp.legacy import SESSION_HEADER
from attestable_mcp.mcp.translate import HANDSHAKE_VERSIONS
from attestable_mcp.rats import Caller
from attestable_mcp.shares import Shared, Shares
from attestable_mcp.tls.challenge import STATE_KEY as CHANNEL_KEY
from attestable_mcp.tls.channel import Channel
from attestable_mcp.tls.turns import Each

_VERSION = b"mcp-protocol-version"
_KEPT = frozenset((b"host", b"authorization", _VERSION))
_END_SECONDS = 5.0
_log = logging.getLogger(__name__)
_K = TypeVar("_K", bound=Hashable)
_O = TypeVar("_O")


def holder_of(scope: asgi.Scope) -> str:
    """Who asks, for shares: the client that proved itself by its key, else the network that it comes from."""
    state = scope.get("state", {})
    caller, channel = state.get(STATE_KEY), state.get(CHANNEL_KEY)
    if isinstance(caller, Caller):
        return f"client {caller.key}"
    return channel.network if isinstance(channel, Channel) else ""


class Owners(Shared[_K, _O]):
    """To whom something belongs that a client had opened, a session or a task."""

    def __init__(self, most: int = LIMITS.mcp_owners) -> None:
        super().__init__(most)


@dataclass(slots=True, kw_only=True)
class _Session:
    """`opened` is the request that opened it, as far as ending it needs that."""

    opened: asgi.Scope
    used_at: float
    serving: int = 0


class Sessions:
    """Around `app`: at most `most` sessions, `opening` of them being opened at a time for one holder.

    One that was not used for `spare_seconds` may go for its own holder's next.
    """

    def __init__(
        self,
        app: asgi.App,
        *,
        most: int = LIMITS.mcp_http_sessions,
        opening: int | None = None,
        spare_seconds: float = LIMITS.mcp_session_spare_seconds,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._most = most
        self._spare_seconds = spare_seconds
        self._clock = clock
        self._opening = 0
        self._each = Each(opening or most)
        self._sessions: dict[bytes, _Session] = {}
        self._shares: Shares[bytes] = Shares()

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif (session := asgi.header(scope, SESSION_HEADER)) is not None:
            await self._used(session.encode("latin-1"), scope, receive, send)
        elif scope["method"] == "POST" and _handshake_era(scope):
            await self._opened(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _opened(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        async with self._each.turn(holder_of(scope)):
            with self._counted():
                if await self._has_room(scope):
                    await self._app(scope, receive, self._noting(scope, send))
                else:
                    text = f"too many sessions: at most {self._most} at a time"
                    body = rpc.error(None, rpc.SERVER_ENDED, text)
                    await asgi.reply_json(send, 503, body, [(b"retry-after", b"60")])

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._opening += 1
        try:
            yield
        finally:
            self._opening -= 1

    async def _has_room(self, scope: asgi.Scope) -> bool:
        """Is there room for one more, or could it be made?"""
        while len(self._sessions) + self._opening > self._most:
            gone = self._shares.surplus(holder_of(scope), self._spare)
            if gone is None:
                return False
            await self._end(gone, self._forget(gone))
        return True

    def _spare(self, session: bytes) -> bool:
        found = self._sessions[session]
        return not found.serving and self._clock() - found.used_at >= self._spare_seconds

    def _noting(self, scope: asgi.Scope, send: asgi.Send) -> asgi.Send:
        async def noted(message: asgi.Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300:
                for key, value in message.get("headers", ()):
                    if bytes(key).lower() == SESSION_HEADER:
                        self._note(bytes(value), scope)
            await send(message)

        return noted

    def _note(self, session: bytes, scope: asgi.Scope) -> None:
        headers = [pair for pair in scope["headers"] if pair[0] in _KEPT]
        self._sessions[session] = _Session(opened={**scope, "headers": headers}, used_at=self._clock())
        self._shares.add(session, holder_of(scope))

    async def _used(self, session: bytes, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        found = self._sessions.get(session)
        if found is None:
            await self._app(scope, receive, send)
            return
        self._shares.touch(session)
        found.serving += 1
        try:
            await self._app(scope, receive, self._ending(session, scope, send))
        finally:
            found.serving -= 1
            found.used_at = self._clock()

    def _ending(self, session: bytes, scope: asgi.Scope, send: asgi.Send) -> asgi.Send:
        """Forget a session that its client ended, or that the server does not know any more."""

        async def ended(message: asgi.Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                if status == 404 or (scope["method"] == "DELETE" and status < 300):
                    self._forget(session)
            await send(message)

        return ended

    def _forget(self, session: bytes) -> _Session | None:
        self._shares.remove(session)
        return self._sessions.pop(session, None)

    async def _end(self, session: bytes, found: _Session | None) -> None:
        """As its client would."""
        if found is None:
            return
        _log.warning("all %d sessions are taken: one of whoever has most ends for another client's", self._most)
        headers = [*found.opened["headers"], (SESSION_HEADER, session)]
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._app({**found.opened, "method": "DELETE", "headers": headers}, _nothing, _unheard)
        except TimeoutError:
            _log.warning("a session did not end within %.0f s", _END_SECONDS)


def _handshake_era(scope: asgi.Scope) -> bool:
    version = asgi.header(scope, _VERSION)
    return version is None or version in HANDSHAKE_VERSIONS


async def _nothing() -> asgi.Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _unheard(message: asgi.Message) -> None:
    """Nobody waits for this response."""
