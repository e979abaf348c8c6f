"""Every kind of target served by the simulated attester and called by a client that proves it first."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from eras import left_when, until
from mcp import Client, MCPError
from mcp.server import MCPServer
from mcp.server.mcpserver import Context

from attestable_mcp import (
    AppraisalRefused,
    AttestationError,
    Policy,
    Verdict,
    attested_client,
    fastmcp_client_factory,
    serve,
)
from attestable_mcp.errors import ConfigurationError, ConversationError
from attestable_mcp.mcp.advertise import IDENTIFIER
from attestable_mcp.mcp.refusal import find_refusal

pytestmark = pytest.mark.anyio
ERAS = ("legacy", "auto")
MEASURED = bytes(range(32))
OTHER = bytes(32)


def policy_text(mrenclave: bytes = MEASURED, simulated: str = "accept") -> str:
    return f"""
[trust]
simulated = "{simulated}"
endorsements = ["stapled"]

[policy]
mrenclave = "{mrenclave.hex()}"
"""


def sdk_server(seen: list[str] | None = None) -> MCPServer:
    server = MCPServer("sums", log_level="ERROR")

    @server.tool()
    async def add(a: int, b: int) -> int:
        if seen is not None:
            seen.append("add")
        return a + b

    @server.tool()
    async def steps(context: Context[Any, Any]) -> str:
        for number in range(3):
            await context.report_progress(number, 3, "step")
        return "done"

    return server


async def add(client: Any) -> Any:
    return (await client.call_tool("add", {"a": 1, "b": 2})).structured_content


@pytest.mark.parametrize("era", ERAS)
async def test_an_sdk_server(era: str) -> None:
    seen: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    async with serve(sdk_server(), attester="simulated", measured=MEASURED) as server:
        assert (server.tee, server.simulated, len(server.spki_sha256)) == ("sgx", True, 64)
        async with attested_client(server.url, policy=policy_text(), mode=era) as client:
            assert isinstance(client, Client)
            assert await add(client) == {"result": 3}
            answer = await client.call_tool("steps", {}, progress_callback=note)
            assert answer.content[0].text == "done"
            assert client.attestation.verdict is Verdict.VERIFIED
            assert client.attestation.simulated
            assert client.attestation.claims["mrenclave"] == MEASURED.hex()
            assert client.peer.spki_sha256 == server.spki_sha256
            if era == "auto":
                assert client.server_capabilities.extensions is not None
                assert client.server_capabilities.extensions[IDENTIFIER]["challenge"] == "/.well-known/attestation"
    assert seen == [0, 1, 2]


async def test_plain_legacy_calls_keep_their_connection() -> None:
    """One for the calls, one for the GET stream: an event stream for each call would cost a connection each."""
    async with serve(sdk_server(), attester="simulated", measured=MEASURED) as server:
        async with attested_client(server.url, policy=policy_text(), mode="legacy") as client:
            for _ in range(10):
                await add(client)
            assert client.peer.counter <= 2


async def test_the_extension_is_taken_back_afterwards() -> None:
    server = sdk_server()
    low = server.streamable_http_app() and server.session_manager.app
    async with serve(server, attester="simulated", measured=MEASURED):
        assert IDENTIFIER in low.extensions
    assert IDENTIFIER not in low.extensions


@pytest.mark.parametrize("era", ERAS)
async def test_a_fastmcp_server_and_its_client(era: str) -> None:
    fastmcp = pytest.importorskip("fastmcp")
    from fastmcp.client.transports import StreamableHttpTransport

    target = fastmcp.FastMCP("sums")

    @target.tool
    def add_numbers(a: int, b: int) -> int:
        return a + b

    async with serve(target, attester="simulated", measured=MEASURED) as server:
        async with attested_client(server.url, policy=policy_text(), mode=era) as client:
            assert (await client.call_tool("add_numbers", {"a": 1, "b": 2})).structured_content == {"result": 3}
        factory = fastmcp_client_factory(policy_text(), url=server.url)
        async with fastmcp.Client(StreamableHttpTransport(server.url, httpx_client_factory=factory)) as client:
            assert (await client.call_tool("add_numbers", {"a": 1, "b": 2})).data == 3
        assert factory.attestation is not None
        assert factory.attestation.verdict is Verdict.VERIFIED
        refusing = fastmcp_client_factory(policy_text(OTHER), url=server.url)
        with pytest.raises(RuntimeError) as caught:
            async with fastmcp.Client(StreamableHttpTransport(server.url, httpx_client_factory=refusing)):
                pass
        assert isinstance(find_refusal(caught.value), AppraisalRefused)


@pytest.mark.parametrize("era", ERAS)
async def test_a_stdio_server_of_the_package_index(era: str) -> None:
    pytest.importorskip("mcp_server_time")
    command = [sys.executable, "-m", "mcp_server_time", "--local-timezone", "UTC"]
    async with serve(command, attester="simulated") as server:
        async with attested_client(server.url, policy=Policy.genuine_only(simulated=True), mode=era) as client:
            assert client.attestation.verdict is Verdict.PARTIAL
            answer = await client.call_tool("get_current_time", {"timezone": "UTC"})
            assert "UTC" in answer.content[0].text


@pytest.mark.parametrize("era", ERAS)
async def test_an_asgi_application(era: str) -> None:
    app = sdk_server().streamable_http_app(streamable_http_path="/here")
    async with serve(app, attester="simulated", measured=MEASURED, mcp_path="/here") as server:
        assert server.url.endswith("/here")
        async with attested_client(server.url, policy=policy_text(), mode=era) as client:
            assert await add(client) == {"result": 3}


@pytest.mark.parametrize("era", ERAS)
async def test_a_local_http_server_behind_the_relay(era: str, serve_plain: Any) -> None:
    server = sdk_server()
    app = server.streamable_http_app()
    seen: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    async with server.session_manager.run(), serve_plain(app) as origin:
        async with serve(f"{origin}/mcp", attester="simulated", measured=MEASURED) as running:
            async with attested_client(running.url, policy=policy_text(), mode=era) as client:
                assert await add(client) == {"result": 3}
                await client.call_tool("steps", {}, progress_callback=note)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_that_leaves_is_noticed_through_the_relay(
    era: str, serve_plain: Any, plain_command: Any, wrapped: Any, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    async with wrapped(plain_command("--log", str(log))) as (_, url):
        async with serve(url, attester="simulated", measured=MEASURED) as running:
            async with attested_client(running.url, policy=policy_text(), mode=era) as client:
                log.touch()
                await left_when(lambda: "hang" in log.read_text(), lambda: client.call_tool("hang", {}))
                await until(lambda: "cancelled" in log.read_text())


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (policy_text(OTHER), "measurement_mismatch"),
        (policy_text(simulated="refuse"), "simulated_evidence"),
    ],
)
async def test_a_refused_server_gets_no_byte_of_mcp_and_the_refusal_comes_out_as_itself(policy: str, code: str) -> None:
    met: list[str] = []
    inner = sdk_server().streamable_http_app()

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            met.append(scope["path"])
        await inner(scope, receive, send)

    async with serve(counting, attester="simulated", measured=MEASURED) as server:
        met.clear()  # what the wrapper itself asked at the start
        with pytest.raises(AttestationError) as caught:
            async with attested_client(server.url, policy=policy):
                pytest.fail("a refused server was spoken to")
    assert isinstance(caught.value, AppraisalRefused)
    assert caught.value.code == code
    assert caught.value.result is not None
    assert met == []


async def test_another_server_at_the_same_address_is_refused_later(unused_port: Callable[[], int]) -> None:
    listen = f"127.0.0.1:{unused_port()}"
    seen: list[str] = []

    async def converse() -> None:
        first = await serve(sdk_server(), listen=listen, attester="simulated", measured=MEASURED, drain_seconds=1)
        async with attested_client(first.url, policy=policy_text()) as client:
            assert await add(client) == {"result": 3}
            await first.aclose()
            async with serve(sdk_server(seen), listen=listen, attester="simulated", measured=OTHER):
                await add(client)

    with pytest.raises(AppraisalRefused):
        await converse()
    assert seen == []


async def test_an_absent_server_is_unreachable_not_a_group(unused_port: Callable[[], int]) -> None:
    with pytest.raises(ConversationError) as caught:
        async with attested_client(f"https://127.0.0.1:{unused_port()}/mcp", policy=policy_text()):
            pass
    assert caught.value.code == "unreachable"


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/mcp", "127.0.0.1/mcp", "ftp://x/", ""])
def test_only_https_urls_are_taken(url: str) -> None:
    with pytest.raises(ConfigurationError):
        attested_client(url, policy=policy_text())


async def test_the_blocks_own_exception_comes_out_as_itself() -> None:
    async with serve(sdk_server(), attester="simulated", measured=MEASURED) as server:
        with pytest.raises(KeyError):
            async with attested_client(server.url, policy=policy_text()):
                raise KeyError("mine")


async def test_a_policy_may_be_a_path(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(policy_text())
    async with serve(sdk_server(), attester="simulated", measured=MEASURED) as server:
        for policy in (path, str(path)):
            async with attested_client(server.url, policy=policy) as client:
                assert await add(client) == {"result": 3}


async def test_a_foreign_host_header_is_refused() -> None:
    async with serve(sdk_server(), attester="simulated", measured=MEASURED) as server:
        async with httpx2.AsyncClient(verify=False) as http:  # the Host check, not the proof, is looked at here
            for path in ("/mcp", "/"):
                answer = await http.post(server.origin + path, headers={"host": "rebound.example"})
                assert answer.status_code == 421


async def test_the_deprecated_sse_transport_is_not_mounted() -> None:
    async with serve(sdk_server(), attester="simulated", measured=MEASURED) as server:
        async with httpx2.AsyncClient(verify=False) as http:
            assert (await http.get(server.origin + "/sse")).status_code == 404
            assert (await http.post(server.origin + "/messages/")).status_code == 404


async def test_closing_does_not_wait_for_standing_streams() -> None:
    async with serve(sdk_server(), attester="simulated", measured=MEASURED) as server:
        async with attested_client(server.url, policy=policy_text(), mode="legacy") as client:
            await add(client)
            await anyio.sleep(0.2)
            started = time.monotonic()
            await server.aclose()
            assert time.monotonic() - started < 3


async def test_a_crash_behind_the_proof_is_told(plain_command: Any, alive: Any, started: Any) -> None:
    async with serve(plain_command(), attester="simulated", measured=MEASURED) as server:
        async with attested_client(server.url, policy=policy_text()) as client:
            with pytest.raises(MCPError, match="exit code 3"):
                await client.call_tool("crash", {})
            assert (await client.call_tool("echo", {})).content[0].text == "{}"
    assert len(started()) == 2
    assert alive() == []


async def test_a_target_that_does_not_start_fails_serve() -> None:
    with pytest.raises(ConfigurationError, match="exit code 7"):
        async with serve([sys.executable, "-c", "import sys; sys.exit(7)"], attester="simulated", measured=MEASURED):
            pass


async def test_a_taken_port_fails_serve() -> None:
    async with serve(sdk_server(), attester="simulated", measured=MEASURED) as server:
        with pytest.raises(ConfigurationError):
            await serve(sdk_server(), listen=f"127.0.0.1:{server.port}", attester="simulated", measured=MEASURED)


async def test_an_application_that_refuses_to_start_fails_serve() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    with pytest.raises(ConfigurationError, match="no database"):
        await serve(app, attester="simulated", measured=MEASURED)


async def test_an_application_without_lifespan_is_served() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with serve(app, attester="simulated", measured=MEASURED) as server:
        async with httpx2.AsyncClient(verify=False) as http:
            assert (await http.get(server.origin + "/")).status_code == 204
