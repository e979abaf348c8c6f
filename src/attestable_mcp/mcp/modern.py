"""The stateless era behind HTTP: one process for all, requests told apart by ids of our own.

Every request that enters gets a fresh integer id towards the process; its progress token becomes that integer too, and
a subscription's id is put back in what it yields. A response stream that its client closes is a cancellation: the
process is told. A process that ends is reported to every waiting request at once and started again with back-off.
Source: MCP 2026-07-28, basic/transports, basic/versioning, basic/utilities, server/tools (x-mcp-header).
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.abc
from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    X_MCP_HEADER_KEY,
    InboundLadderRejection,
    classify_inbound_request,
    find_duplicated_routing_header,
    unsupported_protocol_version_rejection,
    validate_mcp_param_headers,
)
from mcp.types import HEADER_MISMATCH
from starlette.datastructures import Headers

from attestable_mcp.errors import AttestationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import asgi, rpc
from attestable_mcp.mcp.backoff import Backoff
from attestable_mcp.mcp.child import Child, ChildEnded, Command
from attestable_mcp.mcp.outbox import Outbox, answer
from attestable_mcp.mcp.sessions import holder_of
from attestable_mcp.mcp.translate import HANDSHAKE_VERSIONS, NEWEST, REMOVED
from attestable_mcp.shares import Shares

_log = logging.getLogger(__name__)
_LIST_PAGES = 100
_LIST_SECONDS = 10.0


@dataclass(slots=True, kw_only=True)
class _Pending:
    """A request in flight: its taker, and what the client called it."""

    outbox: Outbox
    id: rpc.Id
    token: rpc.Id | None = None
    logs: bool = False
    listens: bool = False
    given_up: bool = False


@dataclass(slots=True)
class _Catalogue:
    """Input schemas with header annotations by tool name, as the process lists them. None: a tool without any."""

    schemas: dict[str, Any] = field(default_factory=dict)
    fetched: bool = False


class SharedChild:
    """The process that serves all modern requests. `run` keeps one alive; `post` serves one HTTP request.

    `versions` holds the modern revisions that the process speaks, newest last; empty when it speaks none.
    """

    def __init__(
        self,
        command: Command,
        *,
        waiting: int = LIMITS.mcp_waiting,
        probe_seconds: float = LIMITS.mcp_probe_seconds,
        restart_seconds: float = 5.0,
    ) -> None:
        self._command = command
        self._waiting = waiting
        self._probe_seconds = probe_seconds
        self._restart_seconds = restart_seconds
        self._child: Child | None = None
        self._up = anyio.Event()
        self._ids = itertools.count(1)
        self._pending: dict[int, _Pending] = {}
        self._shares: Shares[int] = Shares()
        self._catalogue = _Catalogue()
        self._backoff = Backoff()
        self.versions: tuple[str, ...] = ()
        self.discovered: rpc.Message = {}
        """What the process said to `server/discover`."""
        self.ending = "it has not been started"
        """Why no process runs, in words."""
        self.ended_early = False
        """Did the first process end before it said which era it speaks?"""

    @property
    def pid(self) -> int | None:
        """The running process's id."""
        return self._child.pid if self._child is not None else None

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Start the process, find out whether it speaks this era, then keep one running until cancelled.

        Reports `started` once the era is known; returns at once when the process does not speak it.

        Raises: ConfigurationError when the first process cannot be started.
        """
        await self._once(task_status.started)
        while self.versions:
            _log.warning("%s: %s; next start in %.1f s", self._command.words, self.ending, self._backoff.remaining)
            await anyio.sleep(self._backoff.remaining)
            try:
                await self._once(None)
            except AttestationError as error:
                self._backoff.ended(0.0)
                self.ending = str(error)

    async def _once(self, probed: Callable[[], None] | None) -> None:
        """One process from start to end. With `probed`, ask it first which revisions it speaks."""
        started = anyio.current_time()
        async with Child(self._command) as child:
            try:
                async with anyio.create_task_group() as tasks:
                    self._child = child
                    tasks.start_soon(child.write)
                    tasks.start_soon(self._pump, child, tasks.cancel_scope)
                    if probed is None or await self._probe():
                        self._catalogue = _Catalogue()
                        self._up.set()
                        if probed is not None:
                            probed()
                            probed = None
                        await anyio.sleep_forever()
                    tasks.cancel_scope.cancel()
            finally:
                self._child = None
                self._up = anyio.Event()
                self._fail("the server process was stopped")
                self._backoff.ended(anyio.current_time() - started)
        if probed is not None:
            probed()

    async def _pump(self, child: Child, scope: anyio.CancelScope) -> None:
        async for message, _line in child.messages():
            await self._route(child, message)
        await child.settle()
        self.ending = child.ending
        self.ended_early = not self._up.is_set()
        self._fail(child.ending)
        scope.cancel()

    async def _probe(self) -> bool:
        with anyio.move_on_after(self._probe_seconds):
            envelope = {rpc.PROTOCOL_VERSION: NEWEST, rpc.CLIENT_CAPABILITIES: {}, rpc.CLIENT_INFO: rpc.client_info()}
            found = await self._ask("server/discover", {"_meta": envelope})
            self.discovered = _result(found)
            supported = self.discovered.get("supportedVersions")
            if isinstance(supported, list):
                self.versions = tuple(v for v in supported if isinstance(v, str) and v not in HANDSHAKE_VERSIONS)
        return bool(self.versions)

    # --- from clients ----------------------------------------------------------------------------------------------

    async def post(
        self, message: rpc.Message, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send, *, events: bool
    ) -> None:
        """One POSTed message. `events`: the client takes an event stream."""
        headers = Headers(raw=list(scope["headers"]))
        if not rpc.is_request(message):
            await self._acknowledge(message, headers, send)
            return
        rejection = await self._rejection(message, headers)
        if rejection is not None:
            await _reject(rejection, message["id"], send)
        elif not events:
            await asgi.reply_text(send, 406, "wanted Accept: application/json, text/event-stream\n")
        else:
            await self._exchange(message, holder_of(scope), receive, send)

    async def _acknowledge(self, message: rpc.Message, headers: Mapping[str, str], send: asgi.Send) -> None:
        """This era has no client notifications over HTTP, yet clients send them: take and drop, as the SDK does."""
        if rpc.is_response(message):
            text = "wanted a request: this revision has no client responses"
            await asgi.reply_json(send, 400, rpc.error(None, rpc.INVALID_REQUEST, text))
            return
        refused = unsupported_protocol_version_rejection(headers.get("mcp-protocol-version", ""), self.versions)
        if refused is not None:
            await _reject(refused, None, send)
        else:
            await asgi.reply(send, 202, b"", b"")

    async def _rejection(self, message: rpc.Message, headers: Headers) -> InboundLadderRejection | None:
        """Headers and body must agree: this hop's duty, since the process never sees the headers."""
        twice = find_duplicated_routing_header(headers.items())
        if twice is not None:
            return InboundLadderRejection(code=HEADER_MISMATCH, message=f"{twice} header appears more than once")
        verdict = classify_inbound_request(message, headers=headers, supported_modern_versions=self.versions)
        if isinstance(verdict, InboundLadderRejection):
            return verdict
        if message["method"] in REMOVED:
            # Over stdio a process of both eras may take these up; at this revision's HTTP endpoint they do not exist.
            return InboundLadderRejection(code=rpc.METHOD_NOT_FOUND, message="Method not found")
        return await self._parameter_rejection(message, headers)

    async def _exchange(self, message: rpc.Message, holder: str, receive: asgi.Receive, send: asgi.Send) -> None:
        request_id: rpc.Id = message["id"]
        child = await self._running()
        if child is None or not self._has_room(holder):
            reason = f"server process is not running: {self.ending}" if child is None else "too many requests in flight"
            retry = (b"retry-after", str(int(self._backoff.remaining) + 1).encode())
            await asgi.reply_json(send, 503, rpc.error(request_id, rpc.SERVER_ENDED, reason), [retry])
            return
        key, outbox = next(self._ids), Outbox(self._waiting)
        self._pending[key] = pending = _pending(message, outbox)
        self._shares.add(key, holder)
        answered = False
        try:
            await child.send(rpc.dump(_towards_child(message, key)))
            answered = await answer(outbox, receive, send) and not pending.given_up
        except ChildEnded as error:
            answered = True
            await asgi.reply_json(send, 200, rpc.error(request_id, rpc.SERVER_ENDED, str(error)))
        finally:
            self._pending.pop(key, None)
            self._shares.remove(key)
            outbox.abandon()
            if not answered:
                await _cancel(child, key, message)

    def _has_room(self, holder: str) -> bool:
        """Is there room for one more request, or could it be made at the cost of whoever has most in flight?"""
        if len(self._pending) < self._waiting:
            return True
        gone = self._shares.surplus(holder, lambda key: False)
        pending = self._pending.pop(gone, None) if gone is not None else None
        if gone is None or pending is None:
            return False
        self._shares.remove(gone)
        pending.given_up = True
        text = "too many requests in flight: this one was given up for another client's"
        pending.outbox.finish(rpc.error(pending.id, rpc.SERVER_ENDED, text))
        return True

    async def _running(self) -> Child | None:
        if self._child is None or not self._up.is_set():
            with anyio.move_on_after(self._restart_seconds):
                await self._up.wait()
        return self._child if self._up.is_set() else None

    # --- from the process ------------------------------------------------------------------------------------------

    async def _route(self, child: Child, message: rpc.Message) -> None:
        if rpc.is_response(message):
            self._answer(message)
        elif "id" in message:
            # This era has no requests from the server; an answer keeps such a server from waiting for ever.
            text = "this protocol revision has no requests from the server"
            await child.send(rpc.error(message["id"], rpc.METHOD_NOT_FOUND, text))
        else:
            self._notify(message)

    def _answer(self, message: rpc.Message) -> None:
        key = message.get("id")
        pending = self._pending.pop(key, None) if isinstance(key, int) else None
        if pending is None:
            return
        message["id"] = pending.id
        _restore_subscription(message.get("result"), key, pending.id)
        error = message.get("error")
        code = error.get("code") if isinstance(error, dict) else None
        pending.outbox.finish(rpc.dump(message), ERROR_CODE_HTTP_STATUS.get(code, 200) if error else 200)  # type: ignore[arg-type]

    def _notify(self, message: rpc.Message) -> None:
        method, params = message["method"], rpc.params(message)
        if method == "notifications/tools/list_changed":
            self._catalogue.fetched = False
        key = (
            params.get("progressToken")
            if method == "notifications/progress"
            else rpc.meta(message).get(rpc.SUBSCRIPTION_ID)
        )
        pending = self._by_key(key)
        if pending is None and method == "notifications/message":
            pending = self._only_logger()
        if pending is None:
            return
        if method == "notifications/progress":
            params["progressToken"] = pending.token
        _restore_subscription(params, key, pending.id)
        pending.outbox.put(rpc.dump(message))

    def _by_key(self, key: object) -> _Pending | None:
        """The request that a token or subscription id of ours names; some servers write it as text."""
        if isinstance(key, str) and key.isdecimal() and len(key) < 19:
            key = int(key)
        return self._pending.get(key) if isinstance(key, int) else None

    def _only_logger(self) -> _Pending | None:
        """A log line names no request: it is passed on only where it cannot reach the wrong client."""
        waiting = [pending for pending in self._pending.values() if not pending.listens]
        return waiting[0] if len(waiting) == 1 and waiting[0].logs else None

    def _fail(self, reason: str) -> None:
        for pending in list(self._pending.values()):
            pending.outbox.finish(rpc.error(pending.id, rpc.SERVER_ENDED, f"{reason} before it answered"))
        self._pending.clear()

    # --- questions of our own ---------------------------------------------------------------------------------------

    async def _ask(self, method: str, params: rpc.Message) -> rpc.Message:
        """One request of the gateway itself; an empty message where the process ends before it answers."""
        child = self._child
        if child is None:
            return {}
        key, outbox = next(self._ids), Outbox(self._waiting)
        self._pending[key] = _Pending(outbox=outbox, id=key)
        try:
            await child.send(rpc.dump({"jsonrpc": "2.0", "id": key, "method": method, "params": params}))
            while True:
                data, status = await outbox.get()
                if status is not None:
                    found = rpc.parse(data)
                    return found if isinstance(found, dict) else {}
        except (ChildEnded, anyio.EndOfStream, anyio.ClosedResourceError):
            return {}
        finally:
            self._pending.pop(key, None)
            outbox.abandon()

    async def _parameter_rejection(self, message: rpc.Message, headers: Headers) -> InboundLadderRejection | None:
        """Compare `Mcp-Param-*` headers with the arguments that they mirror (server/tools, x-mcp-header)."""
        name, arguments = rpc.params(message).get("name"), rpc.params(message).get("arguments", {})
        if message["method"] != "tools/call" or not isinstance(name, str) or not isinstance(arguments, dict):
            return None
        if not arguments and not any(key.startswith("mcp-param-") for key in headers):
            return None
        known = self._catalogue.fetched
        rejection = await self._compare(name, arguments, headers, message)
        if rejection is not None and known:
            # What we remember may be old; never refuse a call over that.
            self._catalogue.fetched = False
            rejection = await self._compare(name, arguments, headers, message)
        return rejection

    async def _compare(
        self, name: str, arguments: rpc.Message, headers: Headers, message: rpc.Message
    ) -> InboundLadderRejection | None:
        if not self._catalogue.fetched:
            await self._list_tools(rpc.meta(message))
        schema = self._catalogue.schemas.get(name)
        return validate_mcp_param_headers(schema, arguments, headers) if schema is not None else None

    async def _list_tools(self, envelope: rpc.Message) -> None:
        wanted = (rpc.PROTOCOL_VERSION, rpc.CLIENT_CAPABILITIES, rpc.CLIENT_INFO)
        params: rpc.Message = {"_meta": {key: envelope[key] for key in wanted if key in envelope}}
        catalogue = _Catalogue(fetched=True)
        with anyio.move_on_after(_LIST_SECONDS):
            for _ in range(_LIST_PAGES):
                result = _result(await self._ask("tools/list", params))
                catalogue.schemas.update(_annotated(result.get("tools")))
                cursor = result.get("nextCursor")
                if not isinstance(cursor, str):
                    break
                params = params | {"cursor": cursor}
        self._catalogue = catalogue


def _pending(message: rpc.Message, outbox: Outbox) -> _Pending:
    found = rpc.meta(message)
    token = found.get("progressToken")
    return _Pending(
        outbox=outbox,
        id=message["id"],
        token=token if rpc.is_id(token) else None,
        logs=rpc.LOG_LEVEL in found,
        listens=message["method"] == "subscriptions/listen",
    )


def _towards_child(message: rpc.Message, key: int) -> rpc.Message:
    """The message with our id, and with our id as its progress token if it asks for progress."""
    found = rpc.meta(message)
    params = rpc.params(message)
    if "progressToken" in found:
        params = params | {"_meta": found | {"progressToken": key}}
    return message | {"id": key, "params": params}


async def _cancel(child: Child, key: int, message: rpc.Message) -> None:
    """Tell the process that nobody waits any more."""
    version = rpc.meta(message).get(rpc.PROTOCOL_VERSION, NEWEST)
    params = {"requestId": key, "_meta": {rpc.PROTOCOL_VERSION: version}}
    with anyio.move_on_after(2.0, shield=True):
        try:
            await child.send(rpc.dump({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}))
        except ChildEnded:
            return


async def _reject(rejection: InboundLadderRejection, request_id: rpc.Id | None, send: asgi.Send) -> None:
    body = rpc.error(request_id, rejection.code, rejection.message, rejection.data)
    await asgi.reply_json(send, ERROR_CODE_HTTP_STATUS.get(rejection.code, 400), body)


def _restore_subscription(holder: object, key: object, original: rpc.Id) -> None:
    """Put the client's own id back where the process wrote ours as subscription id."""
    found = holder.get("_meta") if isinstance(holder, dict) else None
    if isinstance(found, dict) and key is not None and str(found.get(rpc.SUBSCRIPTION_ID)) == str(key):
        found[rpc.SUBSCRIPTION_ID] = original


def _result(message: rpc.Message) -> rpc.Message:
    found = message.get("result")
    return found if isinstance(found, dict) else {}


def _annotated(tools: object) -> dict[str, Any]:
    """Schemas that annotate headers, by tool name."""
    found: dict[str, Any] = {}
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict) and isinstance(tool.get("name"), str):
            schema = tool.get("inputSchema")
            found[tool["name"]] = schema if f'"{X_MCP_HEADER_KEY}"' in json.dumps(schema) else None
    return found
