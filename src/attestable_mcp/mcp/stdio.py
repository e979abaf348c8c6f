"""A stdio MCP server behind streamable HTTP, for clients of both eras, at the level of JSON-RPC messages.

A handshake-era client gets a session and a process of its own (translated for, if the server speaks the stateless era
only); clients of the stateless era share one process, if the server speaks that era at all (it is asked once, at the
start). Processes are ended on every path.
Source: MCP 2025-11-25 and 2026-07-28, basic/transports; SEP-2575 for how a dual-era client falls back.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType

import anyio
import anyio.abc

from attestable_mcp import telemetry
from attestable_mcp.errors import AttestationError, ConfigurationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import asgi, rpc, tracing
from attestable_mcp.mcp.backoff import Backoff
from attestable_mcp.mcp.child import Child, Command
from attestable_mcp.mcp.legacy import SESSION_HEADER, LegacySession
from attestable_mcp.mcp.modern import SharedChild
from attestable_mcp.mcp.translate import HANDSHAKE_VERSIONS
from attestable_mcp.mcp.translate_child import EitherEraChild

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StdioOptions:
    """How the wrapper serves. Sizes in bytes, times in seconds."""

    path: str = "/mcp"
    max_request: int = LIMITS.mcp_request
    max_message: int = LIMITS.mcp_message
    max_sessions: int = LIMITS.mcp_sessions
    waiting: int = LIMITS.mcp_waiting
    session_idle_seconds: float = LIMITS.mcp_session_idle_seconds
    probe_seconds: float = LIMITS.mcp_probe_seconds
    restart_seconds: float = 5.0
    """How long a request waits for a crashed process to come back."""


class StdioGateway:
    """An ASGI application. Enter it (`async with gateway:`) or let the server run its lifespan; then it serves.

    Raises: ConfigurationError on entering, when the command does not start or says nothing before it ends.
    """

    def __init__(self, command: Command, options: StdioOptions | None = None) -> None:
        self._command = command
        self._options = options or StdioOptions()
        self._sessions: dict[str, LegacySession] = {}
        self._opening = 0
        self._backoff = Backoff()
        self._stack: AsyncExitStack | None = None
        self._tasks: anyio.abc.TaskGroup | None = None
        self._shared: SharedChild | None = None

    async def __aenter__(self) -> StdioGateway:
        async with AsyncExitStack() as stack:
            tasks = await stack.enter_async_context(Background())
            await self._find_era(tasks)
            tasks.start_soon(self._reap_idle)
            self._tasks = tasks
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._stack is not None
        self._tasks = None
        await self._stack.aclose()

    @property
    def versions(self) -> tuple[str, ...]:
        """The stateless-era revisions that the server speaks; empty if none."""
        return self._shared.versions if self._shared is not None else ()

    @property
    def sessions(self) -> int:
        """Handshake-era sessions that are open now."""
        return len(self._sessions)

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """ASGI entry."""
        if scope["type"] == "lifespan":
            await asgi.lifespan(self, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)

    # --- HTTP ------------------------------------------------------------------------------------------------------

    async def _http(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        if scope["path"].rstrip("/") != self._options.path.rstrip("/"):
            await asgi.reply_text(send, 404, "not found\n")
            return
        version = asgi.header(scope, b"mcp-protocol-version")
        modern = version is not None and version not in HANDSHAKE_VERSIONS
        if scope["method"] == "POST":
            await self._post(scope, receive, send, modern=modern)
        elif scope["method"] in ("GET", "DELETE") and not modern:
            await self._session_request(scope, receive, send)
        else:
            allowed = b"POST" if modern else b"GET, POST, DELETE"
            await asgi.reply_text(send, 405, "method not allowed\n", [(b"allow", allowed)])

    async def _post(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send, *, modern: bool) -> None:
        try:
            body = await asgi.read_body(scope, receive, self._options.max_request)
        except asgi.Disconnected:
            return
        except asgi.TooLarge:
            await _refuse(send, 413, rpc.INVALID_REQUEST, f"wanted at most {self._options.max_request} bytes")
            return
        if not (asgi.header(scope, b"content-type") or "").lower().startswith("application/json"):
            await _refuse(send, 415, rpc.INVALID_REQUEST, "wanted Content-Type: application/json")
            return
        message = rpc.parse(body)
        problem = rpc.fault(message)
        if problem is not None:
            code = rpc.PARSE_ERROR if message is None else rpc.INVALID_REQUEST
            await _refuse(send, 400, code, problem)
        elif rpc.is_request(message) and telemetry.enabled():
            with tracing.ServerTrace(message, scope) as trace:
                await self._take(trace.message, message, body, scope, receive, trace.watching(send), modern=modern)
        else:
            await self._take(tracing.joined(message, scope), message, body, scope, receive, send, modern=modern)

    async def _take(
        self,
        message: rpc.Message,
        given: rpc.Message,
        body: bytes,
        scope: asgi.Scope,
        receive: asgi.Receive,
        send: asgi.Send,
        *,
        modern: bool,
    ) -> None:
        """`message` is `given`, as `body` holds it, perhaps with the trace that it belongs to."""
        if modern:
            await self._modern(message, scope, receive, send)
        else:
            await self._legacy(message, body if message is given else rpc.dump(message), scope, receive, send)

    async def _modern(self, message: rpc.Message, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        if self._shared is None:
            # No JSON: the specification tells dual-era clients to fall back to `initialize` on such an answer.
            await asgi.reply_text(send, 400, "this server speaks initialize-based revisions of MCP only\n")
            return
        await self._shared.post(message, scope, receive, send, events=asgi.accepts_events(scope))

    async def _legacy(
        self, message: rpc.Message, body: bytes, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send
    ) -> None:
        if not asgi.accepts_events(scope):
            text = "wanted Accept: application/json, text/event-stream"
            await _refuse(send, 406, rpc.INVALID_REQUEST, text)
            return
        if asgi.header(scope, SESSION_HEADER) is None:
            await self._open(message, body, receive, send)
            return
        session = await self._find(scope, send)
        if session is not None:
            await session.post(message, body, receive, send)

    async def _session_request(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """GET opens the session's standing event stream, DELETE ends the session."""
        session = await self._find(scope, send)
        if session is None:
            return
        if scope["method"] == "DELETE":
            session.close()
            self._sessions.pop(session.id, None)
            await asgi.reply(send, 200, b"", b"")
        elif "text/event-stream" not in (asgi.header(scope, b"accept") or ""):
            await _refuse(send, 406, rpc.INVALID_REQUEST, "wanted Accept: text/event-stream")
        else:
            await session.get(receive, send)

    async def _find(self, scope: asgi.Scope, send: asgi.Send) -> LegacySession | None:
        session_id = asgi.header(scope, SESSION_HEADER)
        session = self._sessions.get(session_id) if session_id is not None else None
        if session_id is None:
            await _refuse(send, 400, rpc.INVALID_REQUEST, "wanted an Mcp-Session-Id header")
        elif session is None:
            # 404 tells the client to start a new session (basic/transports, Session Management).
            await _refuse(send, 404, rpc.INVALID_REQUEST, "session not found: it ended, expired or never was")
        return session

    # --- sessions --------------------------------------------------------------------------------------------------

    async def _open(self, message: rpc.Message, body: bytes, receive: asgi.Receive, send: asgi.Send) -> None:
        if message.get("method") != "initialize" or not rpc.is_request(message):
            await _refuse(send, 400, rpc.INVALID_REQUEST, "wanted initialize, or an Mcp-Session-Id header")
            return
        refusal = await self._admission()
        if refusal is not None or self._tasks is None:
            retry = (b"retry-after", str(int(self._backoff.remaining) + 1).encode())
            await asgi.reply_json(send, 503, rpc.error(message["id"], rpc.SERVER_ENDED, refusal or "stopping"), [retry])
            return
        self._opening += 1
        try:
            session: LegacySession = await self._tasks.start(self._run_session)
        except AttestationError as error:
            self._backoff.ended(0.0)
            _log.error("%s", error)
            await asgi.reply_json(send, 503, rpc.error(message["id"], rpc.SERVER_ENDED, "the server does not start"))
            return
        finally:
            self._opening -= 1
        await self._initialize(session, message, body, receive, send)

    async def _admission(self) -> str | None:
        """Why no session may be opened now, or None. Waits a little for a crashing server's next start."""
        if len(self._sessions) + self._opening >= self._options.max_sessions:
            return f"too many sessions: at most {self._options.max_sessions} at a time"
        pause = self._backoff.remaining
        if pause > self._options.restart_seconds:
            return f"the server process keeps ending; next start in {pause:.0f} s"
        await anyio.sleep(pause)
        return None

    async def _initialize(
        self, session: LegacySession, message: rpc.Message, body: bytes, receive: asgi.Receive, send: asgi.Send
    ) -> None:
        """A session that was never answered is kept for nobody."""
        try:
            await session.post(message, body, receive, send)
        finally:
            if not session.answered:
                session.close()

    async def _run_session(
        self, *, task_status: anyio.abc.TaskStatus[LegacySession] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        started = anyio.current_time()
        async with Child(self._command, line_limit=self._options.max_message) as child:
            discovered = self._shared.discovered if self._shared is not None else {}
            either = EitherEraChild(child, discovered)
            session = LegacySession(secrets.token_urlsafe(24), either, waiting=self._options.waiting)
            self._sessions[session.id] = session
            try:
                task_status.started(session)
                await session.run()
            except Exception:  # noqa: BLE001 - one session's fault must not end the others; it is logged whole
                _log.exception("a session failed")
            finally:
                self._sessions.pop(session.id, None)
                if session.answered:  # one client's crash keeps no other client's session from being opened
                    self._backoff.served()
                elif session.ended_by_itself:
                    self._backoff.ended(anyio.current_time() - started)
                if session.ended_by_itself:
                    _log.warning("%s: %s; its session is over", self._command.words, child.ending)

    async def _reap_idle(self) -> None:
        limit = self._options.session_idle_seconds
        while True:
            await anyio.sleep(max(0.05, min(5.0, limit / 4)))
            now = anyio.current_time()
            for session in list(self._sessions.values()):
                if session.idle_seconds(now) > limit:
                    _log.info("a session was idle for %.0f s and ends", limit)
                    session.close()

    # --- which era -------------------------------------------------------------------------------------------------

    async def _find_era(self, tasks: anyio.abc.TaskGroup) -> None:
        shared = SharedChild(
            self._command,
            waiting=self._options.waiting,
            probe_seconds=self._options.probe_seconds,
            restart_seconds=self._options.restart_seconds,
        )
        await tasks.start(shared.run)
        if shared.versions:
            self._shared = shared
        elif shared.ended_early:
            await self._try_handshake(shared.ending)

    async def _try_handshake(self, first_ending: str) -> None:
        """A process that ended over our first question: does it answer `initialize`? If not, it serves nobody."""
        async with Child(self._command) as child:
            answered = await probe_handshake(child, self._options.probe_seconds)
        if not answered:
            raise ConfigurationError(
                f"command {self._command.words!r}: wanted an MCP server on stdio, "
                f"seen: {first_ending} without an answer",
                code="target",
                hint="run the command by hand: its messages on stderr, shown above, say why it ends",
            )


async def _refuse(send: asgi.Send, status: int, code: int, text: str) -> None:
    await asgi.reply_json(send, status, rpc.error(None, code, text))


async def probe_handshake(child: Child, seconds: float) -> bool:
    """Does this process answer `initialize`?"""
    answered = False

    async def listen(scope: anyio.CancelScope) -> None:
        nonlocal answered
        async for message, _line in child.messages():
            if rpc.is_response(message) and message.get("id") == 0:
                answered = True
                break
        scope.cancel()

    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": rpc.client_info()}
    with anyio.move_on_after(seconds):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(child.write)
            tasks.start_soon(listen, tasks.cancel_scope)
            await child.send(rpc.dump({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}))
    return answered


class Background:
    """A task group whose tasks end with its block, and which never wraps what the block raises."""

    def __init__(self) -> None:
        self._group = anyio.create_task_group()

    async def __aenter__(self) -> anyio.abc.TaskGroup:
        return await self._group.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._group.cancel_scope.cancel()
        await self._group.__aexit__(None, None, None)
