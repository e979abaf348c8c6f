"""The handshake era behind HTTP: one session, one process, messages passed on as they are.

A stdio server says nothing of which request a message of its own belongs to, save for progress. So a request from the
server and a log line go to the newest request that still waits (most clients await them there), all else to the GET
stream; what finds no taker waits, a few messages long, for a GET stream to open.
Source: MCP 2025-11-25, basic/transports (Streamable HTTP) and basic/utilities (progress, cancellation).
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

import anyio

from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import asgi, rpc
from attestable_mcp.mcp.child import ChildEnded
from attestable_mcp.mcp.outbox import Outbox, answer, stream
from attestable_mcp.mcp.translate_child import EitherEraChild

_log = logging.getLogger(__name__)
_ASIDE = frozenset({"notifications/message", "notifications/cancelled"})
_BACKLOG = 64
SESSION_HEADER = b"mcp-session-id"


class LegacySession:
    """One client's conversation with one process. `run` lives as long as the session; `post` and `get` serve HTTP."""

    def __init__(self, session_id: str, child: EitherEraChild, *, waiting: int = LIMITS.mcp_waiting) -> None:
        self.id = session_id
        self._child = child
        self._waiting = waiting
        self._requests: dict[rpc.Id, Outbox] = {}
        self._tokens: dict[rpc.Id, rpc.Id] = {}
        self._standing: Outbox | None = None
        self._backlog: deque[bytes] = deque(maxlen=_BACKLOG)
        self._serving = 0
        self._quiet_since = anyio.current_time()
        self._scope = anyio.CancelScope()
        self.ended = False
        self.ended_by_itself = False
        self.answered = False

    async def run(self) -> None:
        """Pump messages until the process ends or `close` is called; every waiting request is answered either way."""
        reason = "the session was closed"
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._child.write)
                with self._scope:
                    async for message, line in self._child.messages():
                        self._route(message, line)
                    self.ended_by_itself = True
                    await self._child.settle()
                    reason = self._child.ending
                tasks.cancel_scope.cancel()
        finally:
            self._finish(reason)

    def close(self) -> None:
        """End the session: its requests are answered with an error and its process is stopped."""
        self._scope.cancel()

    def idle_seconds(self, now: float) -> float:
        """Seconds since anything was asked of this session; 0 while a request or a GET stream is open."""
        return 0.0 if self._serving else now - self._quiet_since

    # --- from the client -------------------------------------------------------------------------------------------

    async def post(self, message: rpc.Message, body: bytes, receive: asgi.Receive, send: asgi.Send) -> None:
        """One POSTed message."""
        with self._busy():
            if rpc.is_request(message):
                await self._ask(message, body, receive, send)
            else:
                await self._tell(message, body, send)

    async def get(self, receive: asgi.Receive, send: asgi.Send) -> None:
        """The standing event stream. A newer one takes over: the old connection may be dead without our knowing."""
        with self._busy():
            outbox = Outbox(self._waiting)
            if self._standing is not None:
                self._standing.close()
            self._standing = outbox
            while self._backlog and outbox.put(self._backlog[0]):
                self._backlog.popleft()
            try:
                await stream(outbox, receive, send, self._headers())
            finally:
                outbox.abandon()
                if self._standing is outbox:
                    self._standing = None

    async def _ask(self, message: rpc.Message, body: bytes, receive: asgi.Receive, send: asgi.Send) -> None:
        request_id: rpc.Id = message["id"]
        if self.ended:
            await self._report(request_id, "the session has ended", send)
            return
        problem = self._refusal(request_id)
        if problem:
            await asgi.reply_json(send, 400, rpc.error(request_id, rpc.INVALID_REQUEST, problem), self._headers())
            return
        outbox = Outbox(self._waiting)
        self._requests[request_id] = outbox
        self._remember_token(message, request_id)
        try:
            await self._child.send(rpc.one_line(body, message))
            await answer(outbox, receive, send, self._headers)
        except ChildEnded as error:
            await self._report(request_id, str(error), send)
        finally:
            # Leaving is not cancelling in this era: the process works on, and its answer finds no taker.
            outbox.abandon()

    def _refusal(self, request_id: rpc.Id) -> str | None:
        if request_id in self._requests:
            return f"request id {request_id!r} is already in flight"
        if len(self._requests) >= self._waiting:
            self._drop_abandoned()
        if len(self._requests) >= self._waiting:
            return f"wanted at most {self._waiting} requests in flight"
        return None

    def _drop_abandoned(self) -> None:
        for request_id in [request_id for request_id, outbox in self._requests.items() if outbox.closed]:
            self._forget(request_id)

    async def _tell(self, message: rpc.Message, body: bytes, send: asgi.Send) -> None:
        try:
            await self._child.send(rpc.one_line(body, message))
        except ChildEnded as error:
            await self._report(None, str(error), send)
            return
        if message.get("method") == "notifications/cancelled":
            self._cancelled(message)
        await asgi.reply(send, 202, b"", b"", self._headers())

    async def _report(self, request_id: rpc.Id | None, reason: str, send: asgi.Send) -> None:
        status = 200 if request_id is not None else 502
        await asgi.reply_json(send, status, rpc.error(request_id, rpc.SERVER_ENDED, reason), self._headers())

    def _cancelled(self, message: rpc.Message) -> None:
        """The process will not answer a request that it was told to drop, but this era's HTTP response must end."""
        request_id = rpc.params(message).get("requestId")
        if rpc.is_id(request_id):
            outbox = self._forget(request_id)
            if outbox is not None:
                outbox.finish(rpc.error(request_id, rpc.REQUEST_CANCELLED, "request cancelled"))

    def _remember_token(self, message: rpc.Message, request_id: rpc.Id) -> None:
        token = rpc.meta(message).get("progressToken")
        if rpc.is_id(token):
            self._tokens[token] = request_id

    # --- from the process ------------------------------------------------------------------------------------------

    def _route(self, message: rpc.Message, line: bytes) -> None:
        if rpc.is_response(message):
            self._answer(message, line)
        elif message["method"] == "notifications/progress":
            self._deliver(self._by_token(message), line)
        elif "id" in message or message["method"] in _ASIDE:
            self._deliver(self._newest(), line)
        else:
            self._deliver(None, line)

    def _answer(self, message: rpc.Message, line: bytes) -> None:
        self.answered = True
        request_id = message.get("id")
        outbox = self._forget(request_id) if rpc.is_id(request_id) else None
        if outbox is not None:
            outbox.finish(line)
        elif request_id is None:
            self._deliver(self._newest(), line)

    def _deliver(self, outbox: Outbox | None, line: bytes) -> None:
        for taker in (outbox, self._standing):
            if taker is not None and taker.put(line):
                return
        self._backlog.append(line)

    def _by_token(self, message: rpc.Message) -> Outbox | None:
        token = rpc.params(message).get("progressToken")
        request_id = self._tokens.get(token) if rpc.is_id(token) else None
        return self._requests.get(request_id) if request_id is not None else None

    def _newest(self) -> Outbox | None:
        return next((outbox for outbox in reversed(self._requests.values()) if not outbox.closed), None)

    def _forget(self, request_id: rpc.Id) -> Outbox | None:
        outbox = self._requests.pop(request_id, None)
        for token in [token for token, owner in self._tokens.items() if owner == request_id]:
            del self._tokens[token]
        return outbox if outbox is None or not outbox.closed else None

    # --- ends ------------------------------------------------------------------------------------------------------

    def _finish(self, reason: str) -> None:
        self.ended = True
        for request_id, outbox in list(self._requests.items()):
            outbox.finish(rpc.error(request_id, rpc.SERVER_ENDED, f"{reason} before it answered"))
        self._requests.clear()
        self._tokens.clear()
        if self._standing is not None:
            self._standing.close()

    def _headers(self) -> asgi.Headers:
        return ((SESSION_HEADER, self.id.encode()),)

    def _busy(self) -> _Busy:
        return _Busy(self._enter, self._leave)

    def _enter(self) -> None:
        self._serving += 1

    def _leave(self) -> None:
        self._serving -= 1
        self._quiet_since = anyio.current_time()


class _Busy:
    """Counts the HTTP requests that a session serves."""

    __slots__ = ("_enter", "_leave")

    def __init__(self, enter: Callable[[], None], leave: Callable[[], None]) -> None:
        self._enter = enter
        self._leave = leave

    def __enter__(self) -> None:
        self._enter()

    def __exit__(self, *_: object) -> None:
        self._leave()
