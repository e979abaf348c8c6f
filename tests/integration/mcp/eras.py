"""The SDK's own server, held to one era: what it says to the other era is what servers of that era only say."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio
import httpx2
from mcp.server import MCPServer
from mcp.server.lowlevel.server import NotificationOptions
from mcp.server.mcpserver import AcceptedElicitation, Context, Elicit, ElicitationResult, ListRoots, Resolve, Sample
from mcp.shared.message import SessionMessage
from mcp.types import (
    Completion,
    CreateMessageResult,
    EmptyResult,
    ListRootsResult,
    SamplingMessage,
    SubscribeRequestParams,
    TextContent,
    UnsubscribeRequestParams,
    jsonrpc_message_adapter,
)
from pydantic import BaseModel

from attestable_mcp.mcp.bridge import Bridge, BridgeOptions

LEGACY, MODERN = "legacy", "2026-07-28"


class Name(BaseModel):
    name: str


def _who() -> Elicit[Name]:
    return Elicit("who?", Name)


def _thought() -> Sample:
    return Sample([SamplingMessage(role="user", content=TextContent(type="text", text="?"))], max_tokens=9)


def _roots() -> ListRoots:
    return ListRoots()


Ctx = Context[Any, Any]


def era_server(seen: list[str] | None = None) -> MCPServer:
    """Every feature that either era has, by the SDK's means that work in both."""
    noted = seen if seen is not None else []
    server = MCPServer("eras", instructions="be kind", log_level="ERROR")

    @server.tool()
    async def add(a: int, b: int) -> int:
        return a + b

    @server.tool()
    async def steps(context: Ctx) -> str:
        for number in range(3):
            await context.report_progress(number, 3, "step")
        return "done"

    @server.tool()
    async def ask(who: Annotated[ElicitationResult[Name], Resolve(_who)]) -> str:
        return who.data.name if isinstance(who, AcceptedElicitation) else who.action

    @server.tool()
    async def sample(thought: Annotated[CreateMessageResult, Resolve(_thought)]) -> str:
        return str(thought.content.text)  # type: ignore[union-attr]

    @server.tool()
    async def roots(found: Annotated[ListRootsResult, Resolve(_roots)]) -> str:
        return str(found.roots[0].uri)

    @server.tool()
    async def log(context: Ctx) -> str:
        for level in ("debug", "warning"):
            await context.log(level, f"a {level} line")  # type: ignore[arg-type]
        return "logged"

    @server.tool()
    async def changed(context: Ctx) -> str:
        await context.notify_tools_changed()
        await context.notify_resource_updated("demo://hello")
        if context.request_context.protocol_version != MODERN:
            await context.session.send_tool_list_changed()
            await context.session.send_resource_updated("demo://hello")
        return "told"

    @server.tool()
    async def hang() -> str:
        noted.append("hanging")
        try:
            await anyio.sleep(20)
        except asyncio.CancelledError:
            noted.append("cancelled")
            raise
        return "slept"

    @server.resource("demo://hello")
    def hello() -> str:
        return "hello"

    @server.resource("demo://{name}/page")
    def page(name: str) -> str:
        return f"page of {name}"

    @server.prompt()
    def greet(name: str) -> str:
        return f"greet {name}"

    @server.completion()
    async def complete(ref: Any, argument: Any, context: Any) -> Completion:
        return Completion(values=[f"{argument.value}1"])

    _handshake_extras(server._lowlevel_server, noted)
    return server


def _handshake_extras(low: Any, noted: list[str]) -> None:
    """What the SDK offers to servers of the handshake era below its convenient surface."""

    async def subscribe(context: Any, params: SubscribeRequestParams) -> EmptyResult:
        noted.append(f"subscribe {params.uri}")
        return EmptyResult()

    async def unsubscribe(context: Any, params: UnsubscribeRequestParams) -> EmptyResult:
        noted.append(f"unsubscribe {params.uri}")
        return EmptyResult()

    async def set_level(context: Any, params: Any) -> EmptyResult:
        noted.append(f"level {params.level}")
        return EmptyResult()

    from mcp.types import SetLevelRequestParams

    low.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
    low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)
    low.add_request_handler("logging/setLevel", SetLevelRequestParams, set_level)
    options = low.create_initialization_options
    changes = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
    low.create_initialization_options = lambda *args, **kwargs: options(changes, **kwargs)


Refuse = Callable[[object], tuple[int, bytes, bytes]]
"""The id of a request: HTTP status, content type, body."""


def _error(status: int, code: int, text: str, **data: Any) -> Refuse:
    def answer(request_id: object) -> tuple[int, bytes, bytes]:
        error = {"code": code, "message": text} | ({"data": data} if data else {})
        return status, b"application/json", json.dumps({"jsonrpc": "2.0", "id": request_id, "error": error}).encode()

    return answer


def _plain(status: int) -> Refuse:
    return lambda request_id: (status, b"text/plain", b"what?")


NOT_MODERN = {
    "SDK 1": lambda _: _error(400, -32600, "Bad Request: Missing session ID")("server-error"),
    "plain 400": _plain(400),
    "plain 404": _plain(404),
    "method not found": _error(200, -32601, "Method not found"),
    "supported": _error(400, -32022, "Unsupported protocol version", supported=["2025-11-25"], requested=MODERN),
}
NOT_LEGACY = {
    "supported": _error(400, -32022, "Unsupported protocol version", supported=[MODERN], requested="2025-11-25"),
    "no envelope": _error(400, -32602, "params._meta is missing"),
    "headers": _error(400, -32020, "header missing"),
    "method not found": _error(404, -32601, "Method not found"),
    "plain 400": _plain(400),
}


def only(era: str, app: Any, refuse: Refuse) -> Any:
    """`app` for requests of one era; the others get what `refuse` says."""

    async def served(scope: Any, receive: Any, send: Any) -> None:
        modern = dict(scope.get("headers", ())).get(b"mcp-protocol-version", b"").decode() == MODERN
        if scope["type"] != "http" or modern == (era == MODERN):
            await app(scope, receive, send)
            return
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        request_id = json.loads(body).get("id") if body else None
        status, kind, text = refuse(request_id) if request_id is not None else (202, b"text/plain", b"")
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": text})

    return served


@asynccontextmanager
async def bridge_to(
    url: str, said: list[str] | None = None, tap: list[Any] | None = None, stall: float = 4.5
) -> AsyncIterator[Any]:
    """A transport for the SDK's client: the bridge in this process, to a plain server."""
    to_client, client_reads = anyio.create_memory_object_stream[SessionMessage | Exception](64)
    client_writes, from_client = anyio.create_memory_object_stream[SessionMessage](64)

    async def write(line: bytes) -> None:
        if tap is not None:
            tap.append(json.loads(line))
        await to_client.send(SessionMessage(jsonrpc_message_adapter.validate_json(line)))

    async def lines() -> AsyncIterator[bytes | None]:
        async for item in from_client:
            yield item.message.model_dump_json(by_alias=True, exclude_unset=True).encode()

    log = said if said is not None else []
    async with httpx2.AsyncClient() as http, anyio.create_task_group() as tasks:
        bridge = Bridge(
            url, http, write=write, say=log.append, options=BridgeOptions(drain_seconds=0.5, stall_seconds=stall)
        )
        tasks.start_soon(bridge.run, lines())
        try:
            yield client_reads, client_writes
        finally:
            client_writes.close()
            with anyio.move_on_after(2):
                while tasks.cancel_scope.cancel_called is False and any(bridge._state.calls):
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()


async def until(held: Callable[[], bool]) -> None:
    """Wait, for long, until this holds: how soon it must is asked elsewhere, if it is."""
    with anyio.fail_after(40):
        while not held():
            await anyio.sleep(0.01)


def refuse_methods(era: str) -> None:
    """Run the server on stdio, held to one era: it knows nothing of how the other begins."""
    server = era_server()
    forbidden = {LEGACY: "server/discover", MODERN: "initialize"}.get(era)

    outside_in = os.dup(0)
    read_end, write_end = os.pipe()
    os.dup2(read_end, 0)
    out = os.dup(1)

    def pump() -> None:
        with os.fdopen(outside_in, "rb") as lines, os.fdopen(write_end, "wb") as inner:
            for line in lines:
                message = json.loads(line)
                if message.get("method") == forbidden:
                    error = {"code": -32601, "message": "Method not found"}
                    os.write(out, json.dumps({"jsonrpc": "2.0", "id": message["id"], "error": error}).encode() + b"\n")
                else:
                    inner.write(line)
                    inner.flush()

    threading.Thread(target=pump, daemon=True).start()
    server.run()


if __name__ == "__main__":
    refuse_methods(sys.argv[1])


async def left_when(held: Callable[[], bool], call: Callable[[], Any]) -> None:
    """Begin a call, and leave it once this holds."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await until(held)
        tasks.cancel_scope.cancel()
