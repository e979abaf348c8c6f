"""Calls of the handshake era answered straight: in JSON where nothing comes before the answer, else as the SDK does."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

from attestable_mcp.mcp import asgi
from attestable_mcp.mcp.apps import sdk_app
from attestable_mcp.mcp.guard import names_for
from attestable_mcp.mcp.straight import answer_straight
from attestable_mcp.tls.listening import PlainServer

pytestmark = pytest.mark.anyio
VERSION = "2025-11-25"
ACCEPT = {"accept": "application/json, text/event-stream", "mcp-protocol-version": VERSION}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def build() -> MCPServer:
    server = MCPServer("s")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    @server.tool()
    async def slow(context: Context[Any, Any]) -> str:
        """Report, then answer."""
        await context.report_progress(1, 2, "half")
        return "done"

    @server.tool()
    async def silent() -> str:
        """Say nothing for a while."""
        await anyio.sleep(0.3)
        return "at last"

    @server.tool()
    async def never() -> str:
        """Say nothing."""
        await anyio.sleep(60)
        return "never"

    @server.tool()
    async def change(context: Context[Any, Any]) -> str:
        """Tell the session that the list changed."""
        await context.session.send_tool_list_changed()
        return "told"

    return server


class Host:
    """A client that sees the bytes."""

    def __init__(self, http: httpx2.AsyncClient) -> None:
        self.http = http
        self.headers = dict(ACCEPT)

    async def post(self, message: dict[str, Any], **headers: str) -> httpx2.Response:
        return await self.http.post("/mcp", json={"jsonrpc": "2.0", **message}, headers={**self.headers, **headers})

    async def open(self) -> None:
        hello = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        answer = await self.post({"id": 0, "method": "initialize", "params": hello})
        self.headers["mcp-session-id"] = answer.headers["mcp-session-id"]
        await self.post({"method": "notifications/initialized"})

    async def call(self, name: str, number: int = 1, **arguments: Any) -> httpx2.Response:
        params = {"name": name, "arguments": arguments, "_meta": {"progressToken": "p"}}
        return await self.post({"id": number, "method": "tools/call", "params": params})


@asynccontextmanager
async def host(app: asgi.App) -> AsyncIterator[Host]:
    transport = httpx2.ASGITransport(app=app)
    async with asgi.Lifespan(app, {}), httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http:
        found = Host(http)
        await found.open()
        yield found


@asynccontextmanager
async def streaming() -> AsyncIterator[Host]:
    """A host on a real connection, on which streams come as they are sent."""
    served = app()
    async with asgi.Lifespan(served, {}), PlainServer(served, "127.0.0.1", 0) as server:
        async with httpx2.AsyncClient(base_url=server.url, trust_env=False, timeout=10) as http:
            found = Host(http)
            await found.open()
            yield found


def stream(found: Host, **headers: str) -> Any:
    wanted = {**found.headers, "accept": "text/event-stream", **headers}
    return found.http.stream("GET", "/mcp", headers=wanted)


def app() -> asgi.App:
    return sdk_app(build(), names=names_for("127.0.0.1"), path="/mcp")


def events(answer: httpx2.Response) -> list[dict[str, Any]]:
    assert answer.headers["content-type"].startswith("text/event-stream")
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]


async def test_the_installed_release_is_one_that_was_tried() -> None:
    server = build()
    server.streamable_http_app()
    assert answer_straight(server.session_manager)


async def test_a_call_with_nothing_but_an_answer_is_answered_in_json() -> None:
    async with host(app()) as found:
        answer = await found.call("add", a=2, b=3)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["mcp-session-id"] == found.headers["mcp-session-id"]
    assert answer.json()["result"]["structuredContent"] == {"result": 5}


async def test_an_error_is_an_answer_too() -> None:
    async with host(app()) as found:
        answer = await found.post({"id": "x", "method": "no/such"})
    assert answer.status_code == 200
    assert answer.json()["id"] == "x"
    assert answer.json()["error"]["code"] == -32601


async def test_progress_comes_before_the_answer_in_a_stream() -> None:
    async with host(app()) as found:
        notice, answer = events(await found.call("slow"))
    assert notice["params"] == {"progressToken": "p", "progress": 1.0, "total": 2.0, "message": "half"}
    assert answer["result"]["content"][0]["text"] == "done"


async def test_a_silent_call_opens_a_stream_that_shows_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "SSE_PING_SECONDS", 0.1)
    async with host(app()) as found:
        (answer,) = events(await found.call("silent"))
    assert answer["result"]["content"][0]["text"] == "at last"


async def test_a_cancelled_call_is_answered() -> None:
    async with host(app()) as found, anyio.create_task_group() as tasks:
        got: list[httpx2.Response] = []

        async def ask() -> None:
            got.append(await found.call("never", number=7))

        tasks.start_soon(ask)
        await anyio.sleep(0.1)
        await found.post({"method": "notifications/cancelled", "params": {"requestId": 7}})
    assert got[0].json() == {"jsonrpc": "2.0", "id": 7, "error": {"code": -32800, "message": "Request cancelled"}}


async def test_a_session_that_ends_meanwhile_is_no_silence() -> None:
    async with host(app()) as found, anyio.create_task_group() as tasks:
        got: list[httpx2.Response] = []

        async def ask() -> None:
            got.append(await found.call("never", number=7))

        tasks.start_soon(ask)
        await anyio.sleep(0.1)
        assert (await found.http.delete("/mcp", headers=found.headers)).status_code == 200
    assert (got[0].status_code, got[0].json()["id"]) == (500, 7)
    assert "session ended" in got[0].json()["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"accept": "application/json"}, 406),
        ({"content-type": "text/plain"}, 400),
        ({"mcp-session-id": "another"}, 404),
    ],
)
async def test_what_is_no_plain_call_is_the_sdks_to_refuse(headers: dict[str, str], status: int) -> None:
    async with host(app()) as found:
        message = {"id": 1, "method": "tools/list"}
        answer = await found.post(message, **headers)
    assert answer.status_code == status


@pytest.mark.parametrize("body", [b"{", b'{"jsonrpc":"2.0","id":1}', b'[{"jsonrpc":"2.0"}]'])
async def test_what_is_no_message_is_the_sdks_to_refuse(body: bytes) -> None:
    async with host(app()) as found:
        answer = await found.http.post(
            "/mcp", content=body, headers={**found.headers, "content-type": "application/json"}
        )
    assert answer.status_code == 400


@pytest.mark.parametrize("release", ["2.4.0", "3.3", "23.0"])
async def test_an_unknown_release_answers_as_it_does_by_itself(release: str) -> None:
    server = build()
    plain = server.streamable_http_app(transport_security=names_for("127.0.0.1").security_settings())
    assert not answer_straight(server.session_manager, release=release)
    async with host(plain) as found:
        (answer,) = events(await found.call("add", a=2, b=3))
    assert answer["result"]["structuredContent"] == {"result": 5}


# --- a session's own stream


async def test_a_sessions_stream_brings_what_belongs_to_no_call() -> None:
    async with streaming() as found, stream(found) as own:
        assert own.headers["content-type"] == "text/event-stream"
        assert own.headers["mcp-session-id"] == found.headers["mcp-session-id"]
        lines = own.aiter_lines()
        await found.call("change")
        assert [await anext(lines) for _ in range(3)] == [
            "event: message",
            'data: {"jsonrpc":"2.0","method":"notifications/tools/list_changed"}',
            "",
        ]


async def test_there_is_one_stream_and_its_place_is_free_when_the_client_has_left() -> None:
    async with streaming() as found:
        async with stream(found), stream(found) as second:
            assert second.status_code == 409
        for _ in range(100):
            async with stream(found) as again:
                if again.status_code == 200:
                    return
            await anyio.sleep(0.02)
        raise AssertionError("the place stays taken")


async def test_a_silent_stream_shows_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "SSE_PING_SECONDS", 0.05)
    async with streaming() as found, stream(found) as own:
        lines = own.aiter_lines()
        assert [await anext(lines) for _ in range(4)] == [": ping", "", ": ping", ""]


async def test_a_sessions_stream_ends_with_it() -> None:
    async with streaming() as found, stream(found) as own:
        await found.http.delete("/mcp", headers=found.headers)
        assert [line async for line in own.aiter_lines()] == []


@pytest.mark.parametrize(
    ("headers", "status"), [({"accept": "application/json"}, 406), ({"mcp-session-id": "another"}, 404)]
)
async def test_what_is_no_plain_stream_is_the_sdks_to_refuse(headers: dict[str, str], status: int) -> None:
    async with streaming() as found, stream(found, **headers) as own:
        assert own.status_code == status
