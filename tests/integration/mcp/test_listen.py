"""`connect --listen`: hosts that want a URL, an opaque relay, a server that must prove itself first."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client, MCPError
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

from attestable_mcp import Policy, serve
from attestable_mcp.cli.main import main
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.mcp.guard import names_for
from attestable_mcp.mcp.local import AttestedRelay, kept_token, local_app, new_token
from attestable_mcp.mcp.outbound import Outbound
from attestable_mcp.tls.admission import Gate
from attestable_mcp.tls.client import attested_transport
from attestable_mcp.tls.listening import PlainServer

pytestmark = pytest.mark.anyio
MEASURED = bytes(range(32))
TOKEN = new_token()
POST = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
OPEN = {"jsonrpc": "2.0", "id": 7, "method": "initialize", "params": {
    "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}}  # fmt: skip


class Seen:
    """What an attested server saw."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.cancelled = anyio.Event()
        self.started = anyio.Event()


@pytest.fixture
def seen() -> Seen:
    return Seen()


def leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def server(seen: Seen) -> MCPServer:
    found = MCPServer("behind")

    @found.tool()
    async def add(a: int, b: int, ctx: Context[Any, Any]) -> int:
        seen.headers.append(dict(ctx.headers or {}))
        await ctx.report_progress(1, 2)
        return a + b

    @found.tool()
    async def hang() -> str:
        seen.started.set()
        try:
            await anyio.sleep_forever()
        finally:
            seen.cancelled.set()

    return found


def policy(measured: bytes = MEASURED) -> Policy:
    text = '[trust]\nsimulated = "accept"\nendorsements = ["stapled"]\n\n[policy]\nmrenclave = "{}"\n'
    return Policy.from_toml(text.format(measured.hex()))


@asynccontextmanager
async def local(url: str, chosen: Policy, headers: dict[str, str] | None = None) -> AsyncIterator[str]:
    """The local URL of an attested server."""
    gate = Gate(chosen)
    transport = Outbound(attested_transport(gate, url), headers=headers)
    async with AttestedRelay(url, transport, say=lambda _: None, met=lambda _: None) as relay:
        names = names_for("127.0.0.1", scheme="http")
        app = local_app(relay, token=TOKEN, path="/mcp", names=names, newest=lambda: gate.newest)
        async with PlainServer(app, "127.0.0.1", 0) as plain:
            yield f"{plain.url}/{TOKEN}/mcp"


@asynccontextmanager
async def both(seen: Seen, chosen: Policy | None = None, headers: dict[str, str] | None = None) -> AsyncIterator[str]:
    behind = serve(server(seen), attester="simulated", measured=MEASURED)
    async with behind as running, local(running.url, chosen or policy(), headers) as url:
        yield url


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_host_of_either_era_calls_through_the_local_url(seen: Seen, mode: Any) -> None:
    progress: list[float] = []

    async def note(done: float, total: float | None, message: str | None) -> None:
        progress.append(done)

    async with both(seen) as url, Client(url, mode=mode) as client:
        result = await client.call_tool("add", {"a": 2, "b": 3}, progress_callback=note)
        assert result.content[0].text == "5"
    assert progress == [1]


async def test_the_verdict_stands_in_a_header_and_no_server_can_forge_it(seen: Seen) -> None:
    async def forge(scope: Any, receive: Any, send: Any) -> None:
        fields = [(b"attestation-verdict", b'verified;tee="moon"'), (b"x-kept", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": b"data: {}\n\n"})

    async with serve(forge, attester="simulated", measured=MEASURED) as running, local(running.url, policy()) as url:
        async with httpx2.AsyncClient() as http:
            early = await http.get(url.replace("/mcp", "/attestation"))
            answer = await http.post(url, content=b"{}")
            details = await http.get(url.replace("/mcp", "/attestation"))
    assert early.status_code == 404
    values = answer.headers.get_list("attestation-verdict")
    assert len(values) == 1
    assert values[0].startswith('verified;tee="sgx";tcb="UpToDate";')
    assert values[0].endswith(";simulated")
    assert answer.headers["x-kept"] == "1"
    assert answer.content == b"data: {}\n\n"
    assert details.json()["verdict"] == "verified"
    assert details.json()["evidence_sha256"] in values[0]


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"path": f"/{TOKEN[:-1]}x/mcp"}, 404),
        ({"path": "/mcp"}, 404),
        ({"path": f"/{TOKEN}/other"}, 404),
        ({"path": f"/{TOKEN}/mcp/../x"}, 404),
        ({"path": f"/{TOKEN}"}, 404),
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
async def test_strangers_on_this_machine_are_kept_out(seen: Seen, change: dict[str, str], status: int) -> None:
    asked: list[Any] = []

    async def record(request: Any) -> Any:
        asked.append(request)
        return httpx2.Response(200)

    url = "https://127.0.0.1:1/mcp"
    relay = AttestedRelay(url, httpx2.MockTransport(record), say=lambda _: None, met=lambda _: None)
    names = names_for("127.0.0.1", scheme="http")
    app = local_app(relay, token=TOKEN, path="/mcp", names=names, newest=lambda: None)
    headers = {key: value for key, value in change.items() if key != "path"}
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:9") as http:
        answer = await http.post(change.get("path", f"/{TOKEN}/mcp"), headers=headers, content=b"{}")
        assert answer.status_code == status
        assert not asked
        good = await http.post(f"/{TOKEN}/mcp", headers={"origin": "http://localhost:6274"}, content=b"{}")
    assert good.status_code == 200
    assert asked[0].url == url
    assert not [name for name in asked[0].headers if name.startswith("x-forwarded")]


async def test_a_refusal_is_a_status_and_an_error_that_a_host_shows(seen: Seen) -> None:
    async with both(seen, policy(b"\1" * 32)) as url:
        async with httpx2.AsyncClient() as http:
            answer = await http.post(url, json=OPEN, headers=POST)
        with pytest.raises(ExceptionGroup) as shown:
            async with Client(url, mode="legacy"):
                pass
    assert answer.status_code == 502
    assert answer.headers["attestation-verdict"].startswith('refused;code="measurement_mismatch";check="policy.')
    error = answer.json()
    assert error["id"] == 7
    assert error["error"]["code"] == -32010
    assert "0101010101" in error["error"]["data"]["wanted"]
    told = leaf(shown.value)
    assert isinstance(told, MCPError)
    assert "attestation refused, nothing was sent" in told.message


async def test_an_absent_server_is_told_and_the_next_request_tries_again(seen: Seen) -> None:
    async with serve(server(seen), attester="simulated", measured=MEASURED) as running:
        url, port = running.url, running.port
    async with local(url, policy()) as here, httpx2.AsyncClient() as http:
        answer = await http.post(here, json=OPEN, headers=POST)
        assert answer.status_code == 502
        assert answer.headers["attestation-verdict"] == 'unavailable;code="unreachable"'
        assert answer.json()["error"]["code"] == -32000
        again = serve(server(seen), attester="simulated", measured=MEASURED, listen=f"127.0.0.1:{port}")
        async with again:
            answer = await http.post(here, json=OPEN, headers=POST)
            assert answer.status_code == 200


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
async def test_a_cancelled_call_reaches_the_handler(seen: Seen, mode: Any) -> None:
    async with both(seen) as url, Client(url, mode=mode) as client:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.call_tool, "hang", {})
                await seen.started.wait()
                scope.cancel()
        with anyio.fail_after(40):
            await seen.cancelled.wait()
        await anyio.sleep(0.2)  # the SDK's client trips over an answer that comes while it closes


async def test_headers_reach_the_attested_server_and_replace_the_hosts_own(seen: Seen) -> None:
    async with both(seen, headers={"x-api-key": "k-1", "authorization": "Bearer mine"}) as url:
        async with httpx2.AsyncClient(headers={"authorization": "Bearer hosts"}) as http:
            from mcp.client.streamable_http import streamable_http_client

            async with Client(streamable_http_client(url, http_client=http)) as client:
                await client.call_tool("add", {"a": 1, "b": 1})
    assert seen.headers[0]["x-api-key"] == "k-1"
    assert seen.headers[0]["authorization"] == "Bearer mine"


async def test_a_large_body_passes_in_pieces(seen: Seen) -> None:
    async def size(scope: Any, receive: Any, send: Any) -> None:
        total = 0
        while True:
            message = await receive()
            total += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(total).encode()})

    async with serve(size, attester="simulated", measured=MEASURED) as running, local(running.url, policy()) as url:
        async with httpx2.AsyncClient() as http:
            answer = await http.post(url, content=b"x" * 6_000_000)
    assert answer.content == b"6000000"


def test_a_token_file_is_made_for_its_owner_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "token"
    first = kept_token(path)
    assert kept_token(path) == first
    assert len(first) >= 43
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o640)
        with pytest.raises(ConfigurationError, match="wanted mode 600, seen 640"):
            kept_token(path)
        path.chmod(0o600)
    path.write_text("short\n")
    with pytest.raises(ConfigurationError, match="32 to 128"):
        kept_token(path)


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Any]:
    (tmp_path / "p.toml").write_text(
        f'[trust]\nsimulated = "accept"\nendorsements = ["stapled"]\n\n[policy]\nmrenclave = "{MEASURED.hex()}"\n\n'
        f'[receipts]\nrequired = true\nstore = "r.sqlite3"\n'
    )

    async def run(url: str, *more: str, **variables: str) -> asyncio.subprocess.Process:
        words = ["-m", "attestable_mcp", "connect", url, "--policy", str(tmp_path / "p.toml"), *more]
        pipe = asyncio.subprocess.PIPE
        environment = {**os.environ, **variables}
        return await asyncio.create_subprocess_exec(sys.executable, *words, stdout=pipe, stderr=pipe, env=environment)

    return run


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM between processes")
async def test_the_command_prints_the_url_and_ends_by_signal(seen: Seen, start: Any, tmp_path: Path) -> None:
    (tmp_path / "headers").write_text("# ours\nX-Two: 2\n")
    async with serve(server(seen), attester="simulated", measured=MEASURED) as running:
        process = await start(
            running.url, "--listen", "127.0.0.1:0", "--json", "--token-file", str(tmp_path / "t"),
            "--header-env", "X-One=ONE", "--header-file", str(tmp_path / "headers"), ONE="canary-1",
        )  # fmt: skip
        ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 40))
        async with Client(ready["url"]) as client:
            for number in range(3):
                await client.call_tool("add", {"a": number, "b": 1})
            process.send_signal(signal.SIGTERM)
            out, err = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode == 0
    assert ready["server"] == running.url
    assert (tmp_path / "t").read_text().strip() in ready["url"]
    assert (seen.headers[0]["x-one"], seen.headers[0]["x-two"]) == ("canary-1", "2")
    assert out == b""
    assert b"canary-1" not in err
    assert b"Traceback" not in err
    with closing(sqlite3.connect(tmp_path / "r.sqlite3")) as store:
        assert store.execute("SELECT count(*) FROM receipts").fetchone() == (3,), "receipts that waited are lost"
        assert store.execute("SELECT size FROM heads").fetchall() == [(3,)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--listen", "0.0.0.0:0"], "this machine only"),
        (["--token-file", "t"], "goes with --listen"),
        (["--header-env", "X-One=NOT_SET_ANYWHERE"], "is not set or empty"),
        (["--header-env", "Mcp-Session-Id=CANARY"], "belongs to the protocol"),
        (["--header-env", "Host=CANARY"], "belongs to the protocol"),
        (["--header-env", "Content-Length=CANARY"], "belongs to the protocol"),
        (["--header-env", "X-One=CANARY", "--header-env", "x-one=CANARY"], "given twice"),
        (["--header-env", "secret-value"], "wanted NAME=VAR"),
    ],
)
def test_wrong_options_are_told_before_anything_is_done(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CANARY", "/home/canary")
    assert main(["connect", "https://127.0.0.1:1/mcp", "--genuine-only", *words]) == 1
    out, err = capsys.readouterr()
    assert said in err
    assert out == ""
    assert "/home/canary" not in err
