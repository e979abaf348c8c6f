"""Spans for MCP requests that pass through us: at the bridge as a client, at the stdio wrapper as a server.

A trace that comes with a message goes on: in `params._meta` (MCP 2026-07-28, basic) it is never changed, and where a
message has none it gets ours. Over HTTP the header carries our own span, and what a header brings is put into `_meta`
for a process on stdio, which has no headers. Attributes are the method, ids, the tool's name: no arguments, no results.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any

import httpx2

from attestable_mcp import telemetry
from attestable_mcp.mcp import asgi, rpc

_KNOWN = frozenset(
    {
        *("initialize", "ping", "server/discover", "subscriptions/listen", "logging/setLevel", "completion/complete"),
        *("tools/list", "tools/call", "prompts/list", "prompts/get", "resources/list", "resources/read"),
        *("resources/templates/list", "resources/subscribe", "resources/unsubscribe"),
        *("tasks/get", "tasks/update", "tasks/cancel", "tasks/list", "tasks/result"),
    }
)
"""Methods that become names of spans and metrics: a client could otherwise invent as many as it likes."""
_TARGETS = {"tools/call": "gen_ai.tool.name", "prompts/get": "gen_ai.prompt.name"}
_SHORT = 256


class Operation:
    """One request as a span and a measurement. `finish` ends it, once."""

    def __init__(self, role: str, message: rpc.Message, parent: Any, *, session: str | None = None) -> None:
        method = message["method"] if message["method"] in _KNOWN else "_OTHER"
        name = rpc.params(message).get("name") if method in _TARGETS else None
        target = name[:_SHORT] if isinstance(name, str) else ""
        version = rpc.meta(message).get(rpc.PROTOCOL_VERSION)
        self._role = role
        self._since = time.monotonic()
        self._metric = {"mcp.method.name": method}
        attributes = {
            "mcp.method.name": method,
            "jsonrpc.request.id": str(message["id"])[:_SHORT],
            "mcp.protocol.version": version[:_SHORT] if isinstance(version, str) else "",
            "mcp.session.id": session or "",
            "gen_ai.operation.name": "execute_tool" if method == "tools/call" else "",
            _TARGETS.get(method, "gen_ai.tool.name"): target,
        }
        self.span = telemetry.begin(f"{method} {target}".strip(), kind=role, attributes=attributes, parent=parent)
        self._open = True

    def finish(self, error: str = "") -> None:
        """The answer is there; `error` is its JSON-RPC code or what went wrong in one word."""
        if self._open:
            self._open = False
            if error:
                telemetry.failed(self.span, error)
            self.span.end()
            seconds = time.monotonic() - self._since
            telemetry.record(f"mcp.{self._role}.operation.duration", seconds, self._metric | {"error.type": error})


def error_of(answer: object) -> str:
    """The error of a JSON-RPC answer or of a tool's result, as a word; empty where there is none."""
    if not isinstance(answer, dict):
        return ""
    fault, result = answer.get("error"), answer.get("result")
    if isinstance(fault, dict):
        return str(fault.get("code"))[:_SHORT]
    return "tool_error" if isinstance(result, dict) and result.get("isError") is True else ""


class NoTrace:
    """What stands in for `HostTrace` where nobody set up telemetry."""

    def watch(self, lines: AsyncIterator[bytes | None]) -> AsyncIterator[bytes | None]:
        """The lines themselves."""
        return lines

    def seen(self, line: bytes) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


def host_trace() -> NoTrace:
    """What watches a host's requests, if anybody wants to know."""
    return HostTrace() if telemetry.enabled() else NoTrace()


class HostTrace(NoTrace):
    """The bridge's view: the host's lines go in through `watch`, lines for the host pass `seen`."""

    def __init__(self) -> None:
        self._running: dict[rpc.Id, Operation] = {}

    async def watch(self, lines: AsyncIterator[bytes | None]) -> AsyncIterator[bytes | None]:
        """The lines, each request under a span that is current for whatever is begun on its behalf."""
        from opentelemetry import context

        async for line in lines:
            message = rpc.parse(line) if line is not None else None
            if not isinstance(message, dict) or rpc.fault(message) is not None:
                yield line
            elif not rpc.is_request(message) or message["id"] in self._running:
                self._cancelled(message)
                yield line
            else:
                operation = Operation("client", message, telemetry.context_from(rpc.meta(message)))
                self._running[message["id"]] = operation
                token = context.attach(telemetry.context_of(operation.span))
                yield rpc.dump(with_parent(message, operation.span))
                context.detach(token)  # not where the generator is closed: that may run in another context

    def seen(self, line: bytes) -> None:
        """A line on its way to the host."""
        message = rpc.parse(line)
        if isinstance(message, dict) and rpc.is_response(message) and rpc.is_id(message.get("id")):
            operation = self._running.pop(message["id"], None)
            if operation is not None:
                operation.finish(error_of(message))

    def close(self) -> None:
        """The bridge has ended: what is still open had no answer."""
        for operation in self._running.values():
            operation.finish("closing")
        self._running.clear()

    def _cancelled(self, message: rpc.Message) -> None:
        if message.get("method") == "notifications/cancelled":
            request_id = rpc.params(message).get("requestId")
            operation = self._running.pop(request_id, None) if rpc.is_id(request_id) else None
            if operation is not None:
                operation.finish("cancelled")


def with_parent(message: rpc.Message, span: Any) -> rpc.Message:
    """The message with our span as its parent, where it names none itself."""
    if telemetry.has_parent(rpc.meta(message)) or not isinstance(message.get("params", {}), dict):
        return message
    added: dict[str, str] = {}
    telemetry.inject(added, span)
    return _with_meta(message, added)


def joined(message: rpc.Message, scope: asgi.Scope) -> rpc.Message:
    """The message with the trace that its HTTP headers name, where its own `_meta` names none."""
    carrier = _header_carrier(scope)
    if not carrier or telemetry.has_parent(rpc.meta(message)) or not isinstance(message.get("params", {}), dict):
        return message
    return _with_meta(message, carrier)


def _with_meta(message: rpc.Message, added: Mapping[str, str]) -> rpc.Message:
    return message | {"params": rpc.params(message) | {"_meta": {**rpc.meta(message), **added}}} if added else message


def _header_carrier(scope: asgi.Scope) -> dict[str, str]:
    parent = asgi.header(scope, b"traceparent")
    if parent is None or not telemetry.has_parent({"traceparent": parent}):
        return {}
    state = asgi.header(scope, b"tracestate")
    return {"traceparent": parent} | ({"tracestate": state[:512]} if state and state.isprintable() else {})


class ServerTrace:
    """`with ServerTrace(message, scope) as trace`: one request to a stdio process; `trace.send` watches its answer."""

    def __init__(self, message: rpc.Message, scope: asgi.Scope) -> None:
        parent = telemetry.context_from(rpc.meta(message), _header_carrier(scope))
        session = asgi.header(scope, b"mcp-session-id")
        self._operation = Operation("server", message, parent, session=session)
        self._error = ""
        self._answered = False
        self.message = with_parent(message, self._operation.span)

    def __enter__(self) -> ServerTrace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lost = "" if self._answered else "cancelled"
        self._operation.finish(self._error or (kind.__name__ if kind is not None else lost))

    def watching(self, send: asgi.Send) -> asgi.Send:
        """`send`, and a look at what goes out."""

        async def watched(message: asgi.Message) -> None:
            if message["type"] == "http.response.start" and message["status"] >= 400:
                self._error = str(message["status"])
            elif message["type"] == "http.response.body":
                self._error = _error_in(bytes(message.get("body", b""))) or self._error
                self._answered = self._answered or not message.get("more_body", False)
            await send(message)

        return watched


def _error_in(body: bytes) -> str:
    """The error in a JSON body or in one event of a stream."""
    if b'"error"' not in body and b'"isError"' not in body:
        return ""
    data = body.partition(b"data: ")[2] if body.startswith(b"event:") else body
    return error_of(rpc.parse(data))


def carrying(inner: httpx2.AsyncBaseTransport) -> httpx2.AsyncBaseTransport:
    """`inner`, which also carries traces if anybody wants to know."""
    return Carrying(inner) if telemetry.enabled() else inner


class Carrying(httpx2.AsyncBaseTransport):
    """`inner`, with the current span in the headers of each request."""

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """As the transport beneath."""
        telemetry.inject(request.headers)
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections beneath."""
        await self._inner.aclose()
