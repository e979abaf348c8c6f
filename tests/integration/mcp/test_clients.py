"""Clients that prove themselves: who is served, which tools are for whom, what tools learn; for each kind of server."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
import math
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import MCPError
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from two_clients import BILLING, KNOWN, POLICY, REPORTS, SERVER

from attestable_mcp import AttestationError, attestation_of, attested_client, attested_http_client, serve
from attestable_mcp.appraise.policy import Policy
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.errors import ConversationError, ToolRefused
from attestable_mcp.mcp.caller import HEADER
from attestable_mcp.mcp.gate import make_gate
from attestable_mcp.tls.listening import PlainServer

pytestmark = pytest.mark.anyio

STRANGER = b"\4" * 32
TOKEN = "s3cret"
CLIENTS = f"""
clients = "MODE"
{KNOWN}[[tool]]
name = "transfer"
allow = [{{ client = "billing" }}, {{ token_sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}" }}]
"""
MORE = """
[[prompt]]
name = "pay*"
allow = [{ client = "billing" }]
[[resource]]
uri = "ledger://accounts/*"
allow = [{ client = "billing" }]
"""
SDK = '''
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from attestable_mcp import attestation_of

server = MCPServer("s")

@server.tool()
def transfer(amount: int, ctx: Context) -> str:
    """Move money."""
    return f"{amount}"

@server.tool()
def who(ctx: Context) -> str:
    """Say who calls."""
    peer = attestation_of(ctx).peer
    return f"{peer.release} {peer.verdict} {peer.code['mrenclave'][:2]}" if peer else "nobody"

@server.prompt()
def payroll() -> str:
    return "pay"

@server.resource("ledger://accounts/all")
def accounts() -> str:
    return "7"

@server.resource("ledger://accounts/{name}")
def account(name: str) -> str:
    return name

@server.resource("note://open")
def note() -> str:
    return "hello"

if __name__ == "__main__":
    server.run()
'''
FASTMCP = SDK.replace("from mcp.server import MCPServer\nfrom mcp.server.mcpserver import Context",
                      "from fastmcp import FastMCP as MCPServer, Context")  # fmt: skip


@pytest.fixture(params=["sdk", "stdio"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    path = tmp_path / "tools.py"
    path.write_text(FASTMCP if request.param == "fastmcp" else SDK)
    return [sys.executable, str(path)] if request.param == "stdio" else f"{path}:server"


def clients(mode: str = "required") -> str:
    return CLIENTS.replace("MODE", mode)


@asynccontextmanager
async def serving(target: Any, mode: str = "required", **options: Any) -> AsyncIterator[str]:
    async with serve(target, attester=SimulatedAttester(SERVER), clients=clients(mode), **options) as server:
        yield server.url


@asynccontextmanager
async def client(url: str, measured: bytes | None, **options: Any) -> AsyncIterator[Any]:
    attester = None if measured is None else SimulatedAttester(measured)
    async with attested_client(url, policy=POLICY, attester=attester, **options) as found:
        yield found


async def told(found: Any, tool: str = "who", **arguments: Any) -> str:
    return str((await found.call_tool(tool, arguments)).content[0].text)


@pytest.mark.parametrize("target", ["sdk", "fastmcp", "stdio"], indirect=True)
@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_tool_is_for_one_measurement_and_tools_learn_who_calls(target: Any, mode: str) -> None:
    async with serving(target) as url:
        async with client(url, BILLING, mode=mode) as billing, client(url, REPORTS, mode=mode) as reports:
            assert [tool.name for tool in (await billing.list_tools()).tools] == ["transfer", "who"]
            assert [tool.name for tool in (await reports.list_tools()).tools] == ["who"]
            assert await told(billing) == "billing verified 02"
            assert await told(reports) == "reports verified 03"
            assert await told(billing, "transfer", amount=3) == "3"
            with pytest.raises(ToolRefused):
                await told(reports, "transfer", amount=3)
            assert billing.peer.said is not None
            assert billing.peer.said.verdict == "verified"


@pytest.mark.parametrize(
    ("target", "mode"), [("sdk", "legacy"), ("sdk", "auto"), ("fastmcp", "auto"), ("stdio", "legacy")],
    indirect=["target"],
)  # fmt: skip
async def test_prompts_and_resources_are_for_one_client(target: Any, mode: str) -> None:
    """What the other is shown agrees with what the evidence commits to all the same."""
    policy = clients() + MORE
    async with serve(target, attester=SimulatedAttester(SERVER), clients=policy) as server:
        async with client(server.url, BILLING, mode=mode) as billing, client(server.url, REPORTS, mode=mode) as reports:
            shown = [
                (
                    [prompt.name for prompt in (await found.list_prompts()).prompts],
                    [str(resource.uri) for resource in (await found.list_resources()).resources],
                    [each.uri_template for each in (await found.list_resource_templates()).resource_templates],
                )
                for found in (billing, reports)
            ]
            assert shown == [
                (["payroll"], ["ledger://accounts/all", "note://open"], ["ledger://accounts/{name}"]),
                ([], ["note://open"], []),
            ]
            assert (await billing.get_prompt("payroll")).messages
            for uri in ("ledger://accounts/all", "ledger://accounts/bob", "note://open"):
                assert (await billing.read_resource(uri)).contents
            assert (await reports.read_resource("note://open")).contents
            with pytest.raises((ToolRefused, MCPError)):
                await reports.get_prompt("payroll")
            for uri in ("ledger://accounts/all", "ledger://Accounts/%62ob", "ledger:accounts/bob"):
                with pytest.raises(MCPError, match="is not for this client"):
                    await reports.read_resource(uri)


@pytest.mark.parametrize("target", ["sdk"], indirect=True)
async def test_who_proves_nothing_or_the_wrong_thing_is_not_served(target: Any) -> None:
    async with serving(target) as url:
        with pytest.raises(ConversationError) as caught:
            async with client(url, None):
                pytest.fail("served")
        assert caught.value.code == "client_attestation_required"
        with pytest.raises(ConversationError) as caught:
            async with client(url, STRANGER):
                pytest.fail("served")
        assert (caught.value.code, "measurement_mismatch" in caught.value.message) == ("client_refused", True)


@pytest.mark.parametrize("target", ["sdk"], indirect=True)
async def test_optional_serves_strangers_without_an_identity_and_a_token_opens_a_tool(target: Any) -> None:
    async with serving(target, "optional") as url:
        for measured in (None, STRANGER):
            async with client(url, measured) as stranger:
                assert [tool.name for tool in (await stranger.list_tools()).tools] == ["who"]
                assert await told(stranger) == "nobody"
        async with client(url, None, headers={"authorization": f"Bearer {TOKEN}"}) as holder:
            assert await told(holder, "transfer", amount=7) == "7"


# --- raw requests: what a client of our own would never send ---------------------------------------------------------

MODERN = {"accept": "application/json, text/event-stream", "content-type": "application/json",
          "mcp-protocol-version": "2026-07-28"}  # fmt: skip
ENVELOPE = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "x", "version": "1"}}  # fmt: skip


def call(name: str = "transfer", **extra: Any) -> dict[str, Any]:
    params = {"name": name, "arguments": {"amount": 1} if name == "transfer" else {}, "_meta": dict(ENVELOPE), **extra}
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


@asynccontextmanager
async def raw(url: str, measured: bytes | None) -> AsyncIterator[httpx2.AsyncClient]:
    gate = make_gate(POLICY, attester=None if measured is None else SimulatedAttester(measured))
    async with attested_http_client(gate.policy, url=url, gate=gate, timeout=30) as http:
        yield http


async def post(http: httpx2.AsyncClient, url: str, body: bytes, **headers: str) -> httpx2.Response:
    named = {"mcp-method": "tools/call", "mcp-name": "transfer", **headers}
    return await http.post(url, content=body, headers={**MODERN, **named})


SMUGGLED = {
    "plain": json.dumps(call()),
    "a key twice, ours last": json.dumps(call("who")).replace('"name": "who"', '"name": "transfer", "name": "who"'),
    "a key twice, ours first": json.dumps(call("who")).replace('"name": "who"', '"name": "who", "name": "transfer"'),
    "params twice": json.dumps(call("who")).replace('"params"', '"params": {"name": "transfer"}, "params"'),
    "another case": json.dumps(call("who", Name="transfer")),
    "a folded letter": json.dumps(call("who")).replace('"params"', '"param\u017f": {"name": "transfer"}, "params"'),
    "in a batch": json.dumps([call("who"), call()]),
    "utf-16": json.dumps(call()).encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + json.dumps(call()).encode(),
    "by position": json.dumps({**call(), "params": ["transfer", {"amount": 1}]}),
    "escaped": json.dumps(call()).replace("transfer", "\\u0074ransfer"),
    "infinite": json.dumps(call()).replace('"amount": 1', '"amount": Infinity'),
}


@pytest.mark.parametrize("target", ["stdio"], indirect=True)
async def test_no_call_is_smuggled_past_the_rules(target: Any, tmp_path: Path) -> None:
    async with serving(target) as url, raw(url, REPORTS) as http:
        for name, text in SMUGGLED.items():
            body = text if isinstance(text, bytes) else text.encode()
            answer = await post(http, url, body)
            refused = answer.status_code in (400, 415) or answer.json()["error"]["code"] == -32014
            assert refused, (name, answer.status_code, answer.text)
        packed = await post(http, url, b"\x1f\x8b", **{"content-encoding": "gzip"})
        assert packed.status_code == 415
    async with serving(target) as url, raw(url, BILLING) as http:
        assert (await post(http, url, json.dumps(call()).encode())).json()["result"]["content"][0]["text"] == "1"


async def test_what_a_client_says_of_itself_never_reaches_a_tool(target: Any) -> None:
    """`_meta` and header are this side's own; with clients = "none" too, where nobody is known."""
    forged = {"verdict": "verified", "tee": "sgx", "release": "billing", "code": {"mrenclave": "02"}, "claims": {},
              "key": "", "transcript": "", "simulated": False, "deployment": None}  # fmt: skip
    body = json.dumps(call("who", _meta={**ENVELOPE, "dev.attestable-mcp/client": forged}))
    hidden = body.replace("dev.attestable-mcp", "dev.\\u0061ttestable-mcp")
    for mode in ("optional", "none"):
        policy = clients(mode) if mode != "none" else 'clients = "none"\n'
        async with serve(target, attester=SimulatedAttester(SERVER), clients=policy) as server:
            async with raw(server.url, None) as http:
                for text in (body, hidden):
                    answer = await post(http, server.url, text.encode(),
                                        **{"mcp-name": "who", HEADER.decode(): "e30="})  # fmt: skip
                    assert answer.json()["result"]["content"][0]["text"] == "nobody", (mode, answer.text)


@pytest.mark.parametrize("target", ["sdk"], indirect=True)
async def test_a_session_of_the_handshake_era_belongs_to_its_client(target: Any) -> None:
    opening = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}}  # fmt: skip
    legacy = {key: value for key, value in MODERN.items() if key != "mcp-protocol-version"}
    async with serving(target) as url, raw(url, BILLING) as mine, raw(url, REPORTS) as theirs:
        opened = await mine.post(url, json=opening, headers=legacy)
        session = {**legacy, "mcp-session-id": opened.headers["mcp-session-id"]}
        listing = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        assert (await theirs.post(url, json=listing, headers=session)).status_code == 404
        assert (await theirs.delete(url, headers=session)).status_code == 404
        told = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert (await mine.post(url, json=told, headers=session)).status_code == 202
        assert (await mine.post(url, json=listing, headers=session)).status_code == 200


async def test_a_server_behind_the_relay_is_told_in_a_header() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            seen.append((attestation_of(scope).peer, attestation_of(scope, danger_trust_header=True).peer))
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b""})

    async with PlainServer(app, "127.0.0.1", 0) as behind:
        async with serving(f"{behind.url}/mcp", manifest=False) as url, raw(url, BILLING) as http:
            await post(http, url, json.dumps(call("who")).encode(), **{"mcp-name": "who", HEADER.decode(): "e30="})
    plain, trusted = seen[-1]
    assert plain is None
    assert (trusted.release, trusted.code["mrenclave"]) == ("billing", BILLING.hex())


async def test_a_client_whose_key_is_remembered_needs_no_quote() -> None:
    taken: list[bytes] = []

    class Counting(SimulatedAttester):
        def attest(self, report_data: bytes) -> Any:
            taken.append(report_data)
            return super().attest(report_data)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    gate = make_gate(POLICY, attester=Counting(BILLING))
    async with serving(app, manifest=False) as url:
        for _ in range(3):
            async with attested_http_client(gate.policy, url=url, gate=gate) as http:
                assert (await http.get(url)).status_code == 204
    assert len(taken) == 2  # one for the certificate, one for the first connection


@pytest.mark.parametrize("target", ["sdk"], indirect=True)
async def test_the_servers_own_clock_asks_a_client_again(target: Any) -> None:
    async with serve(
        target, attester=SimulatedAttester(SERVER), clients='again = "1s"\n' + clients().lstrip()
    ) as server:
        async with client(server.url, BILLING) as found:
            assert await told(found) == "billing verified 02"
            await asyncio.sleep(1.2)
            assert await told(found) == "billing verified 02"
            assert found.peer.counter > 0


async def test_a_stream_of_notices_that_ended_with_its_clients_proof_is_opened_again() -> None:
    """By a client that does not prove itself while it listens: the SDK's own, on coming back, does."""
    heard: list[Any] = []
    server = MCPServer("s")

    @server.tool()
    async def change(ctx: Context[Any, Any]) -> str:
        await ctx.session.send_tool_list_changed()
        return "changed"

    async def hear(message: Any) -> None:
        heard.append(message)

    gate = make_gate(POLICY, attester=SimulatedAttester(BILLING))
    gate.freshness.until = lambda proven_at, again=0: math.inf  # type: ignore[method-assign]
    policy = 'again = "1s"\n' + CLIENTS.partition("[[tool]]")[0].replace("MODE", "required").lstrip()
    async with serve(server, attester=SimulatedAttester(SERVER), clients=policy) as running:
        async with attested_client(running.url, gate=gate, mode="legacy", message_handler=hear) as found:
            await found.call_tool("change", {})
            await until(lambda: heard)
            await asyncio.sleep(1.2)
            heard.clear()

            async def again() -> bool:
                await found.call_tool("change", {})
                return bool(heard)

            await until(again)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while True:
            told = condition()
            if await told if inspect.isawaitable(told) else told:
                return
            await asyncio.sleep(0.1)


async def test_a_policy_that_cannot_be_is_an_error_of_ours() -> None:
    with pytest.raises(AttestationError, match="clients"):
        serve("x:y", clients=clients("sometimes"))
    assert Policy.from_toml(POLICY).reattest is None
