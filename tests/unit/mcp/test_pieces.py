"""The small pieces: JSON-RPC checks, Host and Origin, one answer as JSON, targets, draining, unwrapping."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.server import MCPServer

from attestable_mcp.errors import AppraisalRefused, ConfigurationError
from attestable_mcp.mcp import asgi, rpc
from attestable_mcp.mcp.advertise import IDENTIFIER, AttestationExtension
from attestable_mcp.mcp.backoff import Backoff
from attestable_mcp.mcp.child import Command
from attestable_mcp.mcp.collapse import Collapse
from attestable_mcp.mcp.drain import Drain
from attestable_mcp.mcp.guard import Guard, names_for
from attestable_mcp.mcp.health import Health
from attestable_mcp.mcp.outbox import Outbox
from attestable_mcp.mcp.relay import Relay
from attestable_mcp.mcp.serve import parse_listen
from attestable_mcp.mcp.target import AsgiApp, FastMcpServer, SdkServer, StdioServer, Upstream, resolve

pytestmark = pytest.mark.anyio
BOTH = {"accept": "application/json, text/event-stream"}
ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{}}'
NOTE = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}'


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def client(app: Any, base: str = "https://localhost") -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=base)


async def echo_app(scope: Any, receive: Any, send: Any) -> None:
    headers = {key.decode(): value.decode() for key, value in scope["headers"]}
    body = await asgi.read_body(scope, receive, 1000)
    await asgi.reply_json(send, 200, json.dumps({"headers": headers, "body": body.decode()}).encode())


# --- JSON-RPC


@pytest.mark.parametrize("text", [b"", b"{", b"NaN", b'{"a":Infinity}', b"[" * 100_000, b"\xff", b"1" * 5000])
def test_what_is_not_json_is_none(text: bytes) -> None:
    assert rpc.parse(text) is None


@pytest.mark.parametrize(
    "message",
    [
        [],
        "text",
        {},
        {"jsonrpc": "2.0"},
        {"jsonrpc": "2.0", "method": 1},
        {"jsonrpc": "2.0", "method": "m", "id": True},
        {"jsonrpc": "2.0", "method": "m", "id": None},
        {"jsonrpc": "2.0", "method": "m", "id": 1.5},
        {"jsonrpc": "2.0", "method": "m", "params": "x"},
    ],
)
def test_faulty_messages_are_named(message: object) -> None:
    assert rpc.fault(message)


def test_lone_surrogates_and_line_breaks_survive_framing() -> None:
    message = {"text": "\ud800 a\nb\r\u2028"}
    line = rpc.dump(message)
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.loads(line) == message
    assert rpc.one_line(b'{"a":\r\n 1}\n', {"a": 1}) == b'{"a":1}'
    assert rpc.one_line(b' {"a": 1.0}\r\n', {"a": 1.0}) == b'{"a": 1.0}'


# --- Host and Origin


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:8443", None, 200),
        ("LOCALHOST", None, 200),
        ("127.0.0.1:1", "https://localhost", 200),
        ("[::1]:9", "https://[::1]:4", 200),
        ("mcp.example", "https://mcp.example:8443", 200),
        ("localhost", "https://page.example", 200),
        ("evil.example", None, 421),
        ("localhost.evil.example", None, 421),
        ("localhost:80@evil.example", None, 421),
        ("localhost:", None, 421),
        ("[::1", None, 421),
        ("", None, 421),
        ("localhost", "http://localhost", 403),
        ("localhost", "https://evil.example", 403),
        ("localhost", "null", 403),
        ("localhost", "https://localhost/path", 403),
    ],
)
async def test_only_our_hosts_and_origins_pass(host: str, origin: str | None, status: int) -> None:
    names = names_for("127.0.0.1", ["mcp.example"], ["https://page.example"])
    headers = {"host": host} | ({"origin": origin} if origin is not None else {})
    async with client(Guard(echo_app, names)) as http:
        assert (await http.get("/", headers=headers)).status_code == status


async def test_a_host_header_twice_is_refused() -> None:
    async with client(Guard(echo_app, names_for("127.0.0.1"))) as http:
        answer = await http.get("/", headers=[("host", "localhost"), ("host", "localhost")])
        assert answer.status_code == 421


async def test_a_clients_copies_of_our_headers_are_stripped() -> None:
    headers = {"Attestation-Result": "affirming", "x-attestation-x": "1", "attestable-mcp-peer": "1", "keep": "yes"}
    async with client(Guard(echo_app, names_for("127.0.0.1"))) as http:
        seen = (await http.get("/", headers=headers)).json()["headers"]
    assert "keep" in seen
    assert not [name for name in seen if "attest" in name]


def test_the_sdk_gets_the_same_names() -> None:
    settings = names_for("127.0.0.1", ["mcp.example"]).security_settings()
    assert settings.enable_dns_rebinding_protection
    assert {"mcp.example", "mcp.example:*", "[::1]:*"} <= set(settings.allowed_hosts)
    assert "https://mcp.example:*" in settings.allowed_origins


# --- one answer, one JSON body


def events(*pieces: bytes) -> Callable[..., Any]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        head = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"mcp-session-id", b"s")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


def event(data: bytes, before: bytes = b"event: message\r\n") -> bytes:
    return before + b"data: " + data + b"\r\n\r\n"


async def test_a_lone_answer_becomes_json() -> None:
    async with client(Collapse(events(event(ANSWER)))) as http:
        answer = await http.post("/", headers=BOTH)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["mcp-session-id"] == "s"
    assert answer.content == ANSWER


@pytest.mark.parametrize(
    "pieces",
    [
        (event(NOTE), event(ANSWER)),
        (b": ping\r\n\r\n", event(ANSWER)),
        (event(ANSWER), event(NOTE)),
        (event(ANSWER) + event(NOTE),),
        (event(ANSWER, b"id: 7\r\nevent: message\r\n"),),
        (event(ANSWER)[:-2], b"\r\n"),
        (event(b"no json"),),
        (),
    ],
)
async def test_anything_else_stays_the_stream_it_was(pieces: tuple[bytes, ...]) -> None:
    async with client(Collapse(events(*pieces))) as http:
        answer = await http.post("/", headers=BOTH)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content == b"".join(pieces)


# --- targets


def test_targets_are_told_apart(tmp_path: Path) -> None:
    server = MCPServer("s")
    (tmp_path / "a_target.py").write_text("from mcp.server import MCPServer\nmcp = MCPServer('x')\nother = mcp\n")
    assert isinstance(resolve(server), SdkServer)
    assert isinstance(resolve(server.streamable_http_app()), AsgiApp)
    assert isinstance(resolve(echo_app), AsgiApp)
    assert isinstance(resolve(["npx", "server"]), StdioServer)
    assert isinstance(resolve(f"{tmp_path / 'a_target.py'}:other"), SdkServer)
    assert isinstance(resolve(str(tmp_path / "a_target.py")), SdkServer)
    assert resolve("http://127.0.0.1:8000/mcp") == Upstream(origin="http://127.0.0.1:8000", path="/mcp")
    assert resolve("http://[::1]:8000") == Upstream(origin="http://[::1]:8000", path="/mcp")
    assert isinstance(resolve("http://mcp.example/mcp", danger_remote_upstream=True), Upstream)


def test_fastmcp_objects_are_recognised() -> None:
    fastmcp = pytest.importorskip("fastmcp")
    assert isinstance(resolve(fastmcp.FastMCP("f")), FastMcpServer)


@pytest.mark.parametrize(
    "target",
    [
        "http://mcp.example/mcp",
        "https://10.0.0.1/mcp",
        "http://localhost.evil.example/",
        "http://user:secret@127.0.0.1/mcp",
        "http://127.0.0.1:99999/",
        "no_such_module_here:mcp",
        "json:no_such_name",
        "json",
        "json:",
        ":x",
        "bad name:x",
        "absent.py:x",
        [],
        [1],
        ["a\0b"],
        7,
        None,
        MCPServer,
    ],
)
def test_bad_targets_are_configuration_errors(target: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        resolve(target)
    assert "secret" not in str(caught.value)


def test_a_module_that_fails_to_import_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "raises_at_import.py").write_text("raise RuntimeError('boom')\n")
    with pytest.raises(ConfigurationError, match="boom"):
        resolve(f"{tmp_path / 'raises_at_import.py'}:mcp")
    assert "raises_at_import" not in sys.modules


@pytest.mark.parametrize("listen", ["", "localhost", "localhost:", ":80", "::1:80", "a:70000", "a:-1", "a:x", "a:٣"])
def test_bad_listen_addresses_are_configuration_errors(listen: str) -> None:
    with pytest.raises(ConfigurationError):
        parse_listen(listen)


def test_listen_addresses() -> None:
    assert parse_listen("127.0.0.1:0") == ("127.0.0.1", 0)
    assert parse_listen("[::1]:8443") == ("::1", 8443)


# --- relay


async def test_the_relay_strips_hops_forwards_bodies_and_keeps_no_cookies() -> None:
    seen: list[httpx2.Request] = []

    async def upstream(request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        seen.append(request)
        headers = {"set-cookie": "a=1", "connection": "x-hop", "x-hop": "1", "x-kept": "2", "keep-alive": "5"}
        return httpx2.Response(201, headers=headers, content=b"out")

    relay = Relay("http://127.0.0.1:9", transport=httpx2.MockTransport(upstream))
    sent = {
        "connection": "x-private", "x-private": "1", "te": "trailers", "x-forwarded-for": "6.6.6.6",
        "attestation-result": "forged", "origin": "https://localhost", "authorization": "Bearer t",
    }  # fmt: skip
    async with client(relay) as http:
        answer = await http.post("/mcp?a=%2F", headers=sent, content=b"in")
    async with client(relay) as http:
        await http.get("/mcp")
    first, second = seen
    assert (answer.status_code, answer.content, answer.headers.get("x-kept")) == (201, b"out", "2")
    assert not {"x-hop", "keep-alive"} & set(answer.headers)
    assert first.content == b"in"
    assert first.url.raw_path == b"/mcp?a=%2F"
    assert first.headers["host"] == "127.0.0.1:9"
    assert first.headers["origin"] == "http://127.0.0.1:9"
    assert first.headers["authorization"] == "Bearer t"
    assert not {"x-private", "te", "x-forwarded-for", "attestation-result"} & set(first.headers)
    assert "cookie" not in second.headers


async def test_an_absent_upstream_is_a_502() -> None:
    async with Relay("http://127.0.0.1:9") as relay, client(relay) as http:
        assert (await http.get("/mcp")).status_code == 502


# --- health


async def test_ready_only_between_the_start_and_the_end() -> None:
    async with Health("127.0.0.1", 0) as health, httpx2.AsyncClient(base_url=health.url) as http:
        seen = []
        for step in (lambda: None, health.ready, health.drain):
            step()
            seen.append([(await http.get(path)).status_code for path in ("/healthz", "/readyz")])
        assert seen == [[200, 503], [200, 200], [200, 503]]
        assert (await http.post("/readyz")).status_code == 405
        assert (await http.get("/mcp")).status_code == 404


# --- ends


async def test_draining_ends_standing_streams_only() -> None:
    async def forever(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await anyio.sleep_forever()

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    drain = Drain(forever)
    scope = {"type": "http", "method": "GET", "headers": [(b"accept", b"text/event-stream")]}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain, scope, None, send)  # type: ignore[arg-type]
        await anyio.sleep(0.01)
        drain.stop()
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    sent.clear()
    await drain(scope, None, send)  # type: ignore[arg-type]
    assert sent[0]["status"] == 503


async def test_a_full_outbox_closes_instead_of_growing() -> None:
    outbox = Outbox(2)
    assert [outbox.put(b"x") for _ in range(4)] == [True, True, False, False]
    assert outbox.overflowed


async def test_back_off_doubles_up_to_its_cap() -> None:
    backoff = Backoff(first=0.1, most=1.0)
    pauses = []
    for _ in range(6):
        backoff.ended(0.0)
        pauses.append(round(backoff.remaining, 1))
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    backoff.ended(60.0)
    assert round(backoff.remaining, 1) == 0.1


def test_the_extension_has_a_valid_identifier() -> None:
    assert MCPServer("s", extensions=[AttestationExtension(tee="sgx")]).name == "s"
    assert IDENTIFIER.partition("/")[0].count(".") >= 1
    assert AttestationExtension(tee="sgx").settings()["challenge"] == "/.well-known/attestation"


def test_a_command_needs_a_program() -> None:
    with pytest.raises(ConfigurationError):
        Command(argv=())


def test_a_refusal_is_found_in_groups_and_causes() -> None:
    from attestable_mcp.mcp.client import told
    from attestable_mcp.mcp.refusal import find_refusal

    refusal = AppraisalRefused("no")
    wrapped = RuntimeError("failed to connect")
    wrapped.__cause__ = ExceptionGroup("g", [ValueError(), ExceptionGroup("h", [refusal])])
    assert find_refusal(wrapped) is refusal
    assert told(ExceptionGroup("g", [refusal])) is refusal
    assert told(ValueError()) is None
    loop = ValueError()
    loop.__context__ = loop
    assert find_refusal(loop) is None
