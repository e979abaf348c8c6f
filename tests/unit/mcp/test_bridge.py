"""The bridge against scripted servers: streams in any cut, broken answers, forgotten sessions, unknown headers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import httpx2
import pytest
from hurried import Hurried

from attestable_mcp.errors import ConversationError
from attestable_mcp.mcp.bridge import Bridge, BridgeOptions
from attestable_mcp.mcp.bridge_session_keeper import _pause
from attestable_mcp.mcp.bridge_sse import EventReader

pytestmark = pytest.mark.anyio
URL = "https://server.test/mcp"
META = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
STREAM = b"\xef\xbb\xbf: hello\r\nid: 7\r\ndata: a\r\ndata: b\r\n\r\nretry: 20\rdata:c\r\revent: other\ndata: d\n\n"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("size", range(1, 20))
def test_events_are_the_same_however_the_bytes_are_cut(size: int) -> None:
    reader = EventReader()
    events = [e for at in range(0, len(STREAM), size) for e in reader.feed(STREAM[at : at + size])]
    assert [event.data for event in events] == [b"a\nb", b"c"]
    assert (reader.last_id, reader.retry_seconds) == ("7", 0.02)


def test_an_event_over_the_cap_is_refused() -> None:
    reader = EventReader(10)
    with pytest.raises(ConversationError) as caught:
        list(reader.feed(b"data: 0123456789\n"))
    assert caught.value.code == "flooded"


async def talk(
    handler: Callable[[httpx2.Request], Any], *lines: dict[str, Any] | bytes, **options: Any
) -> tuple[list[Any], list[str]]:
    """What the host reads and what its log says, when it sends these lines, each after the last was answered."""
    out: list[Any] = []
    said: list[str] = []

    async def write(line: bytes) -> None:
        assert b"\n" not in line
        out.append(json.loads(line))

    async def source() -> AsyncIterator[bytes | None]:
        for line in lines:
            asked = line.get("id") if isinstance(line, dict) else None
            yield line if isinstance(line, bytes) else json.dumps(line).encode()
            with anyio.move_on_after(2):
                while asked is not None and asked not in [a.get("id") for a in out]:
                    await anyio.sleep(0.005)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(handler)) as http:
        bridge = Bridge(
            URL, http, write=write, say=said.append, options=BridgeOptions(**{"drain_seconds": 1.0, **options})
        )
        with anyio.fail_after(10):
            await bridge.run(source())
    return out, said


def ask(request_id: object, method: str = "tools/call", **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def ok(request: httpx2.Request, result: Any = None, **headers: str) -> httpx2.Response:
    request_id = json.loads(request.content)["id"]
    body = {"jsonrpc": "2.0", "id": request_id, "result": result if result is not None else {}}
    return httpx2.Response(200, json=body, headers=headers)


BROKEN = {
    "accepted": lambda request: httpx2.Response(202),
    "server error": lambda request: httpx2.Response(503, text="no"),
    "no JSON": lambda request: httpx2.Response(200, text="{", headers={"content-type": "application/json"}),
    "another id": lambda request: httpx2.Response(200, json={"jsonrpc": "2.0", "id": "other", "result": {}}),
    "an empty stream": lambda request: httpx2.Response(200, text="", headers={"content-type": "text/event-stream"}),
    "a redirect": lambda request: httpx2.Response(307, headers={"location": "/elsewhere"}),
    "HTML": lambda request: httpx2.Response(200, text="<html>", headers={"content-type": "text/html"}),
    "too much": lambda request: httpx2.Response(200, json={"jsonrpc": "2.0", "id": 1, "result": "x" * 3000}),
}


@pytest.mark.parametrize("handler", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("meta", [{}, {"_meta": META}], ids=["legacy", "modern"])
async def test_a_broken_answer_is_told_once(handler: Any, meta: dict[str, Any]) -> None:
    out, said = await talk(handler, ask(1, **meta), max_message=2000)
    assert [message["id"] for message in out] == [1]
    assert out[0]["error"]["data"]["hint"] is not None
    assert out[0]["error"]["data"]["code"] in ("http", "no_response", "flooded")
    assert len(said) == 1


async def test_an_error_without_an_id_is_tied_to_its_request() -> None:
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32602, "message": "bad"}}
    out, _ = await talk(lambda request: httpx2.Response(400, json=error), ask(1))
    assert out == [{**error, "id": 1}]


async def test_bytes_of_a_request_and_of_its_answer_are_not_rewritten() -> None:
    seen: list[bytes] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.content)
        return httpx2.Response(
            200,
            content=b'{"jsonrpc":"2.0","id":1,"result":{"n":1.50,"big":123456789012345678901234567890}}',
            headers={"content-type": "application/json"},
        )

    line = b'{"jsonrpc": "2.0", "id":1,"method":"x","params":{"n":1.0e2}}'
    out, _ = await talk(handler, line)
    assert seen == [line]
    assert out[0]["result"]["big"] == 123456789012345678901234567890


async def test_a_forgotten_session_is_opened_again_once() -> None:
    log: list[tuple[str, str | None]] = []
    opened = 0

    def handler(request: httpx2.Request) -> httpx2.Response:
        nonlocal opened
        session = request.headers.get("mcp-session-id")
        message = json.loads(request.content) if request.content else {}
        log.append((message.get("method", request.method), session))
        if request.method == "GET":
            return httpx2.Response(405)
        if message.get("method") == "initialize":
            opened += 1
            return ok(request, {"protocolVersion": "2025-11-25"}, **{"mcp-session-id": f"s{opened}"})
        if session == "s1" and message.get("method") == "tools/call":
            return httpx2.Response(404, json={"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "?"}})
        return ok(request) if "id" in message else httpx2.Response(202)

    initialized = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    out, said = await talk(handler, ask(1, "initialize"), initialized, ask(2), ask(3))
    assert [message["id"] for message in out] == [1, 2, 3]
    assert "result" in out[1]
    assert opened == 2
    assert ("notifications/initialized", "s2") in log
    assert log[-1] == ("DELETE", "s2")
    assert any("forgotten the session" in sentence for sentence in said)


async def test_headers_of_the_stateless_era_are_learnt_when_the_server_wants_them() -> None:
    schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    seen: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        if json.loads(request.content)["method"] == "tools/list":
            return ok(request, {"tools": [{"name": "t", "inputSchema": schema}]})
        if "mcp-param-region" not in request.headers:
            error = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32020, "message": "header"}}
            return httpx2.Response(400, json=error)
        return ok(request, {"region": request.headers["mcp-param-region"]})

    out, _ = await talk(handler, ask(1, name="t", arguments={"region": "eu"}, _meta=META))
    assert out == [{"jsonrpc": "2.0", "id": 1, "result": {"region": "eu"}}]
    assert [request.headers["mcp-method"] for request in seen] == ["tools/call", "tools/list", "tools/call"]
    assert {request.headers["mcp-protocol-version"] for request in seen} == {"2026-07-28"}
    assert seen[0].headers["mcp-name"] == "t"


async def test_a_response_stream_is_resumed_where_the_server_asks_for_it() -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        kind = {"content-type": "text/event-stream"}
        if request.method == "GET":
            assert request.headers["last-event-id"] == "e1"
            answer = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"late": True}})
            return httpx2.Response(200, text=f"data: {answer}\n\n", headers=kind)
        return httpx2.Response(200, text="id: e1\nretry: 1\ndata:\n\n", headers=kind)

    out, _ = await talk(handler, ask(1))
    assert out == [{"jsonrpc": "2.0", "id": 1, "result": {"late": True}}]


async def test_arguments_and_results_are_not_in_the_log() -> None:
    out, said = await talk(lambda request: httpx2.Response(500, text="SECRET-R"), ask(1, arguments={"x": "SECRET-A"}))
    assert "SECRET" not in json.dumps(out) + "".join(said)


async def test_an_id_in_flight_is_not_taken_twice() -> None:
    async def handler(request: httpx2.Request) -> httpx2.Response:
        await anyio.sleep(0.1)
        return ok(request)

    line = json.dumps(ask("a")).encode()
    out, _ = await talk(handler, line, line)
    assert sorted("error" in message for message in out) == [False, True]


def refused(request: httpx2.Request, code: int, status: int = 400, **data: Any) -> httpx2.Response:
    error = {"code": code, "message": "no"} | ({"data": data} if data else {})
    body = {"jsonrpc": "2.0", "id": json.loads(request.content).get("id"), "error": error}
    return httpx2.Response(status, json=body)


async def test_a_translated_call_has_the_headers_that_its_tool_mirrors() -> None:
    """A handshake host knows nothing of headers; the server of the other era insists on them."""
    schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    discovered = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
    seen: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        method = json.loads(request.content)["method"]
        if request.headers.get("mcp-protocol-version") != "2026-07-28":
            return refused(request, -32022, supported=["2026-07-28"])
        if request.headers["mcp-method"] != method:
            return refused(request, -32020)
        if method == "server/discover":
            return ok(request, discovered)
        if method == "tools/list":
            return ok(request, {"resultType": "complete", "tools": [{"name": "t", "inputSchema": schema}]})
        if "mcp-param-region" not in request.headers or request.headers["mcp-name"] != "t":
            return refused(request, -32020)
        return ok(request, {"resultType": "complete", "content": [], "region": request.headers["mcp-param-region"]})

    opening = ask(0, "initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo={"name": "h"})
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    out, said = await talk(handler, opening, ready, ask(1, name="t", arguments={"region": "eu"}))
    assert out[0]["result"]["protocolVersion"] == "2025-11-25"
    assert out[1] == {"jsonrpc": "2.0", "id": 1, "result": {"content": [], "region": "eu"}}
    assert [json.loads(request.content)["method"] for request in seen] == [
        "initialize", "server/discover", "tools/call", "tools/list", "tools/call",
    ]  # fmt: skip
    assert len(said) == 1


async def test_a_session_that_is_forgotten_under_a_translated_host_is_opened_again() -> None:
    log: list[tuple[str, str | None]] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        message = json.loads(request.content) if request.content else {}
        session = request.headers.get("mcp-session-id")
        log.append((message.get("method", request.method), session))
        if request.method != "POST":
            return httpx2.Response(405)
        if message["method"] == "initialize":
            opened = sum(method == "initialize" for method, _ in log)
            assert message["params"]["clientInfo"] == {"name": "h", "version": "1"}
            result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}, "logging": {}}}
            return ok(request, result, **{"mcp-session-id": f"s{opened}"})
        if session is None:
            return refused(request, -32600)
        if session == "s1" and message.get("params", {}).get("name") == "late":
            return refused(request, -32600, 404)
        return ok(request, {"content": []}) if "id" in message else httpx2.Response(202)

    meta = {
        **META,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "h", "version": "1"},
        "io.modelcontextprotocol/logLevel": "info",
    }
    out, said = await talk(handler, ask(1, name="early", _meta=meta), ask(2, name="late", _meta=meta))
    assert [message["result"]["resultType"] for message in out] == ["complete", "complete"]
    assert ("notifications/initialized", "s2") in log
    assert ("logging/setLevel", "s2") in log
    assert log[-1] == ("DELETE", "s2")
    assert len(said) == 2


def test_the_stream_of_notices_comes_back_after_a_night_without_a_network() -> None:
    """Unreachable, then a gateway without its server, for minutes; no call is made meanwhile."""
    attempts, said = 0, list[str]()

    def handler(request: httpx2.Request) -> httpx2.Response:
        nonlocal attempts
        if request.method == "GET":
            attempts += 1
            if attempts < 12:
                raise httpx2.ConnectError("network is unreachable")
            notice = b'data: {"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n\n'
            back = httpx2.Response(200, content=notice, headers={"content-type": "text/event-stream"})
            return httpx2.Response(503) if attempts < 16 else back
        if b"initialize" in request.content and b"notifications/" not in request.content:
            return ok(request, {"protocolVersion": "2025-11-25"}, **{"mcp-session-id": "s"})
        return httpx2.Response(202)

    async def night() -> list[bytes]:
        out: list[bytes] = []

        async def write(line: bytes) -> None:
            out.append(line)

        async def source() -> AsyncIterator[bytes | None]:
            yield json.dumps(ask(1, "initialize")).encode()
            yield b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
            with anyio.move_on_after(3600):
                while len(out) < 2:
                    await anyio.sleep(10)

        async with httpx2.AsyncClient(transport=httpx2.MockTransport(handler)) as http:
            await Bridge(URL, http, write=write, say=said.append).run(source())
        return out

    _, notice = anyio.run(night, backend_options={"loop_factory": Hurried})[:2]
    reason = "the server cannot be reached: network is unreachable"
    assert said == [f"the stream of notices ended, and is opened again by itself: {reason}"]
    assert b"list_changed" in notice
    assert attempts >= 16


def test_pauses_between_attempts_stay_bounded() -> None:
    assert [_pause(EventReader(), failures) for failures in (0, 1, 4, 5, 10_000)] == [1.0, 2.0, 16.0, 30.0, 30.0]
