"""The stdio wrapper against a real process, both eras, over plain loopback HTTP."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from eras import left_when, until
from mcp import Client, MCPError

from attestable_mcp.errors import ConfigurationError
from attestable_mcp.mcp.child import Command
from attestable_mcp.mcp.stdio import StdioGateway

pytestmark = pytest.mark.anyio
ERAS = ("legacy", "auto")
BOTH = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}},
}


def modern(method: str, params: dict[str, Any], request_id: object = 1, meta: dict[str, Any] | None = None) -> Any:
    body = {
        "jsonrpc": "2.0",
        "id": request_id,
        "method": method,
        "params": {**params, "_meta": {**META, **(meta or {})}},
    }
    headers = {**BOTH, "mcp-protocol-version": "2026-07-28", "mcp-method": method}
    if "name" in params:
        headers["mcp-name"] = params["name"]
    return {"content": json.dumps(body), "headers": headers}


def text_of(result: Any) -> str:
    return str(result.content[0].text)


@pytest.mark.parametrize("era", ERAS)
async def test_a_call_passes_and_comes_back(era: str, wrapped: Any, plain_command: Any) -> None:
    async with wrapped(plain_command()) as (_, url), Client(url, mode=era) as client:
        assert len((await client.list_tools()).tools) == 9
        answer = await client.call_tool("echo", {"größe": "ü\u2028 \\ud83d", "n": 2**60})
        assert json.loads(text_of(answer)) == {"größe": "ü\u2028 \\ud83d", "n": 2**60}


@pytest.mark.parametrize("era", ERAS)
async def test_progress_reaches_the_caller(era: str, wrapped: Any, plain_command: Any) -> None:
    seen: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    async with wrapped(plain_command()) as (_, url), Client(url, mode=era) as client:
        assert text_of(await client.call_tool("progress", {}, progress_callback=note)) == "done"
    assert seen == [0, 1, 2]


async def test_each_legacy_session_has_a_process_and_modern_clients_share_one(wrapped: Any, plain_command: Any) -> None:
    async with wrapped(plain_command()) as (_, url):
        async with Client(url, mode="legacy") as one, Client(url, mode="legacy") as two:
            pids = {text_of(await client.call_tool("pid", {})) for client in (one, two)}
        async with Client(url) as three, Client(url) as four:
            shared = {text_of(await client.call_tool("pid", {})) for client in (three, four)}
    assert len(pids) == 2
    assert len(shared) == 1


async def test_requests_of_the_server_reach_a_legacy_client(wrapped: Any, plain_command: Any) -> None:
    from mcp.types import ListRootsResult, Root

    async def roots(context: Any) -> ListRootsResult:
        return ListRootsResult(roots=[Root(uri="file:///here")])  # type: ignore[arg-type]

    async with wrapped(plain_command()) as (_, url):
        async with Client(url, mode="legacy", list_roots_callback=roots) as client:
            assert "file:///here" in text_of(await client.call_tool("ask", {}))


@pytest.mark.parametrize("era", ERAS)
async def test_a_crash_is_reported_at_once_and_the_process_starts_again(
    era: str, wrapped: Any, plain_command: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    async with wrapped(plain_command()) as (_, url):
        async with Client(url, mode=era) as client:
            started = time.monotonic()
            with pytest.raises(MCPError, match="exit code 5"):
                await client.call_tool("crash", {"code": 5})
            assert time.monotonic() - started < 2
            if era == "auto":
                assert text_of(await client.call_tool("echo", {})) == "{}"
        async with Client(url, mode=era) as again:
            assert text_of(await again.call_tool("echo", {})) == "{}"
    assert "last words on stderr" in capfd.readouterr().err


async def test_one_clients_crashes_keep_no_other_client_waiting(wrapped: Any, plain_command: Any) -> None:
    """Back-off is for processes that do not start, not for those that one client has crashed in its own session."""
    async with wrapped(plain_command("--legacy-only")) as (gateway, url), httpx2.AsyncClient() as http:
        for number in range(8):
            opened = await http.post(url, json=INITIALIZE, headers=BOTH)
            assert opened.status_code == 200, f"session {number} had to wait: {opened.text}"
            session = {**BOTH, "mcp-session-id": opened.headers["mcp-session-id"]}
            crash = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "crash"}}
            assert "error" in (await http.post(url, json=crash, headers=session)).json()
            with anyio.fail_after(40):
                while gateway.sessions:
                    await anyio.sleep(0.01)
        assert gateway._backoff.remaining == 0


async def test_a_dead_session_answers_404_so_that_clients_start_anew(wrapped: Any, plain_command: Any) -> None:
    async with wrapped(plain_command()) as (gateway, url), httpx2.AsyncClient() as http:
        opened = await http.post(url, json=INITIALIZE, headers=BOTH)
        session = {**BOTH, "mcp-session-id": opened.headers["mcp-session-id"]}
        crash = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "crash"}}
        answer = (await http.post(url, json=crash, headers=session)).json()
        assert (answer["id"], answer["error"]["code"]) == (2, -32000)
        with anyio.fail_after(40):
            while gateway.sessions:
                await anyio.sleep(0.01)
        assert (await http.post(url, json={**INITIALIZE, "method": "ping"}, headers=session)).status_code == 404


async def test_leaving_a_modern_request_cancels_it_at_the_server(
    wrapped: Any, plain_command: Any, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with wrapped(plain_command("--log", str(log))) as (_, url), Client(url) as client:
        log.touch()
        await left_when(lambda: "hang" in log.read_text(), lambda: client.call_tool("hang", {}))
        await until(lambda: "cancelled" in log.read_text())
        assert text_of(await client.call_tool("echo", {})) == "{}"


async def test_a_legacy_cancellation_reaches_the_server_and_ends_the_response(
    wrapped: Any, plain_command: Any, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with wrapped(plain_command("--log", str(log))) as (_, url), httpx2.AsyncClient() as http:
        opened = await http.post(url, json=INITIALIZE, headers=BOTH)
        session = {**BOTH, "mcp-session-id": opened.headers["mcp-session-id"]}
        hang = {"jsonrpc": "2.0", "id": "h", "method": "tools/call", "params": {"name": "hang"}}
        waiting = asyncio.create_task(http.post(url, json=hang, headers=session))
        with anyio.fail_after(40):
            while not log.exists():
                await anyio.sleep(0.02)
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "h"}}
        assert (await http.post(url, json=cancel, headers=session)).status_code == 202
        assert (await asyncio.wait_for(waiting, 5)).json()["error"]["code"] == -32800
        with anyio.fail_after(40):
            while "cancelled" not in log.read_text():
                await anyio.sleep(0.02)


async def test_subscriptions_carry_the_clients_own_id(wrapped: Any, plain_command: Any) -> None:
    async with wrapped(plain_command()) as (_, url), httpx2.AsyncClient() as http:
        async with http.stream("POST", url, **modern("subscriptions/listen", {}, "my-id")) as response:
            lines = response.aiter_lines()
            found = []
            async for line in lines:
                if line.startswith("data:"):
                    found.append(json.loads(line[5:]))
                if len(found) == 2:
                    break
    assert [m["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] for m in found] == ["my-id", "my-id"]


async def test_unsolicited_messages_wait_for_the_get_stream(wrapped: Any, plain_command: Any) -> None:
    async with wrapped(plain_command()) as (_, url), httpx2.AsyncClient() as http:
        opened = await http.post(url, json=INITIALIZE, headers=BOTH)
        session = {**BOTH, "mcp-session-id": opened.headers["mcp-session-id"]}
        ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert (await http.post(url, json=ready, headers=session)).status_code == 202
        ping = {"jsonrpc": "2.0", "id": 3, "method": "tools/list"}
        await http.post(url, json=ping, headers=session)
        async with http.stream("GET", url, headers={**session, "accept": "text/event-stream"}) as stream:
            async for line in stream.aiter_lines():
                if line.startswith("data:"):
                    assert json.loads(line[5:])["method"] == "notifications/tools/list_changed"
                    break


async def test_an_idle_session_ends_and_its_process_with_it(
    wrapped: Any, plain_command: Any, started: Any, alive: Any
) -> None:
    async with wrapped(plain_command(), session_idle_seconds=0.2) as (gateway, url), httpx2.AsyncClient() as http:
        await http.post(url, json=INITIALIZE, headers=BOTH)
        assert gateway.sessions == 1
        with anyio.fail_after(40):
            while gateway.sessions or len(alive()) > 1:
                await anyio.sleep(0.02)
        assert len(started()) == 2


async def test_sessions_are_limited(wrapped: Any, plain_command: Any) -> None:
    async with wrapped(plain_command(), max_sessions=1) as (_, url), httpx2.AsyncClient() as http:
        assert (await http.post(url, json=INITIALIZE, headers=BOTH)).status_code == 200
        refused = await http.post(url, json=INITIALIZE, headers=BOTH)
        assert refused.status_code == 503
        assert "at most 1" in refused.json()["error"]["message"]
        assert refused.json()["id"] == 1


async def test_delete_ends_a_session(wrapped: Any, plain_command: Any) -> None:
    async with wrapped(plain_command()) as (_, url), httpx2.AsyncClient() as http:
        opened = await http.post(url, json=INITIALIZE, headers=BOTH)
        session = {**BOTH, "mcp-session-id": opened.headers["mcp-session-id"]}
        assert (await http.delete(url, headers=session)).status_code == 200
        assert (await http.delete(url, headers=session)).status_code == 404


@pytest.mark.parametrize("flags", [(), ("--slow-end",)])
async def test_no_process_is_left_behind(
    flags: tuple[str, ...], plain_command: Any, wrapped: Any, started: Any, alive: Any
) -> None:
    async with wrapped(plain_command(*flags)) as (_, url), httpx2.AsyncClient() as http:
        for _ in range(3):
            await http.post(url, json=INITIALIZE, headers=BOTH)
    assert len(started()) == 4
    assert alive() == []


async def test_a_cancelled_owner_leaves_no_process_behind(plain_command: Any, started: Any, alive: Any) -> None:
    async def own() -> None:
        async with StdioGateway(plain_command()):
            await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(own)
        with anyio.fail_after(30):
            while not started():
                await anyio.sleep(0.02)
        group.cancel_scope.cancel()
    assert len(started()) == 1
    assert alive() == []


async def test_a_legacy_only_server_sends_modern_clients_back_to_initialize(
    wrapped: Any, plain_command: Any, alive: Any
) -> None:
    async with wrapped(plain_command("--legacy-only")) as (gateway, url):
        assert gateway.versions == ()
        assert alive() == []
        async with Client(url) as client:
            assert client.protocol_version == "2025-11-25"
            assert text_of(await client.call_tool("echo", {})) == "{}"


async def test_a_command_that_ends_at_once_is_a_configuration_error(plain_command: Any) -> None:
    with pytest.raises(ConfigurationError, match="exit code 7"):
        async with StdioGateway(plain_command("--exit")):
            pass


async def test_a_command_that_is_not_there_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="no-such-program"):
        async with StdioGateway(Command(argv=("no-such-program-here",))):
            pass


async def test_header_and_body_must_agree(wrapped: Any, plain_command: Any) -> None:
    async with wrapped(plain_command()) as (_, url), httpx2.AsyncClient() as http:
        call = modern("tools/call", {"name": "echo", "arguments": {}})
        for header, value in (("mcp-method", "tools/list"), ("mcp-name", "crash")):
            answer = await http.post(url, content=call["content"], headers={**call["headers"], header: value})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)
        routed = modern("tools/call", {"name": "routed", "arguments": {"region": "eu"}})
        for region in ({}, {"mcp-param-region": "us"}):
            answer = await http.post(url, content=routed["content"], headers={**routed["headers"], **region})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, -32020)
        agreed = await http.post(
            url, content=routed["content"], headers={**routed["headers"], "mcp-param-region": "eu"}
        )
        assert agreed.json()["error"]["code"] == -32602


async def test_an_unknown_revision_is_told_which_are_served(wrapped: Any, plain_command: Any) -> None:
    async with wrapped(plain_command()) as (_, url), httpx2.AsyncClient() as http:
        meta = {"io.modelcontextprotocol/protocolVersion": "2099-01-01"}
        ask = modern("tools/list", {}, meta=meta)
        answer = await http.post(
            url, content=ask["content"], headers={**ask["headers"], "mcp-protocol-version": "2099-01-01"}
        )
        assert answer.status_code == 400
        assert answer.json()["error"]["data"]["supported"] == ["2026-07-28"]


async def test_the_handshake_does_not_exist_at_the_stateless_endpoint(wrapped: Any, plain_command: Any) -> None:
    async with wrapped(plain_command()) as (_, url), httpx2.AsyncClient() as http:
        answer = await http.post(url, **modern("initialize", INITIALIZE["params"]))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, -32601)


@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b"{", BOTH, 400, -32700),
        (b"[]", BOTH, 400, -32600),
        (b'{"jsonrpc":"2.0","id":true,"method":"ping"}', BOTH, 400, -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', BOTH, 400, -32600),
        (b"[" * 100_000, BOTH, 400, -32700),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', {**BOTH, "content-type": "text/plain"}, 415, -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', {**BOTH, "accept": "application/json"}, 406, -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', BOTH, 400, -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"}', {**BOTH, "mcp-session-id": "x"}, 404, -32600),
        (b"x" * 3000, BOTH, 413, -32600),
    ],
)
async def test_bad_requests_get_an_error_with_a_reason(
    content: bytes, headers: dict[str, str], status: int, code: int, wrapped: Any, plain_command: Any
) -> None:
    limit = 2048 if status == 413 else 200_000
    async with wrapped(plain_command("--legacy-only"), max_request=limit) as (_, url), httpx2.AsyncClient() as http:
        answer = await http.post(url, content=content, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert answer.json()["error"]["message"]


async def test_a_client_that_does_not_read_stops_nobody_else(wrapped: Any, plain_command: Any) -> None:
    async with wrapped(plain_command(), waiting=8) as (_, url), httpx2.AsyncClient() as http:
        flood = modern("tools/call", {"name": "flood", "arguments": {"count": 60_000}}, "f", {"progressToken": "t"})
        async with http.stream("POST", url, **flood) as response:
            assert response.status_code == 200
            with anyio.fail_after(20):
                answer = await http.post(url, **modern("tools/call", {"name": "echo", "arguments": {}}, "e"))
            assert answer.json()["id"] == "e"


async def test_a_line_over_the_cap_ends_the_process_not_the_wrapper(plain_command: Any, wrapped: Any) -> None:
    async with wrapped(plain_command("--legacy-only"), max_message=2000) as (_, url):
        async with Client(url, mode="legacy") as client:
            with pytest.raises(MCPError):
                await client.call_tool("echo", {"long": "x" * 4000})
        async with Client(url, mode="legacy") as client:
            assert text_of(await client.call_tool("echo", {})) == "{}"
