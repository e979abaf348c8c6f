"""A server proves itself again before what matters, and a session ends where it cannot."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.types import ToolAnnotations

from attestable_mcp import AttestationError, Policy, attested_client, serve
from attestable_mcp.appraise.reattest import ReattestPolicy
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.bind.deployment import key_hash, sign_revocation, spki_of
from attestable_mcp.mcp.bridge import Bridge
from attestable_mcp.mcp.client import make_gate
from attestable_mcp.mcp.watched import watched
from attestable_mcp.tls.client import attested_transport
from attestable_mcp.tls.deployment import DeploymentHolder
from attestable_mcp.wire.grant import GRANT_LABEL, REVOCATION_LABEL, Grant, Revocation, to_pem

pytestmark = pytest.mark.anyio
CODE = b"\x01" * 32
POLICY = f'[trust]\nsimulated = "accept"\nendorsements = ["stapled"]\n[policy]\nmrenclave = "{CODE.hex()}"\n'
OWNER = Ed25519PrivateKey.generate()
RUN: list[str] = []


def build() -> MCPServer:
    server = MCPServer("s")
    RUN.clear()

    @server.tool()
    def look() -> str:
        RUN.append("look")
        return "seen"

    @server.tool(annotations=ToolAnnotations(destructive_hint=True))
    def wipe() -> str:
        RUN.append("wipe")
        return "gone"

    @server.tool()
    async def change(ctx: Context[Any, Any]) -> str:
        RUN.append("change")
        await ctx.session.send_tool_list_changed()
        return "changed"

    return server


def policy(extra: str = "") -> Policy:
    return Policy.from_toml(POLICY + extra)


async def counter(client: Any, tool: str) -> int:
    await client.call_tool(tool, {})
    return int(client.peer.counter)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_destructive_and_named_tools_go_out_on_a_proof_of_their_own(mode: str) -> None:
    async with serve(build(), attester=SimulatedAttester(CODE)) as server:
        async with attested_client(server.url, policy=policy(), mode=mode) as client:
            before = await counter(client, "look")
            assert await counter(client, "look") == before
            assert await counter(client, "wipe") == before + 1
            assert client.peer.binding.method == "quote"
            assert await counter(client, "wipe") == before + 2
            assert await counter(client, "look") == before + 2
        named = policy('[reattest]\ndestructive = false\nbefore = ["lo*"]\n')
        async with attested_client(server.url, policy=named, mode=mode) as client:
            before = await counter(client, "wipe")
            assert await counter(client, "wipe") == before
            assert await counter(client, "look") == before + 1


async def test_a_changed_list_is_followed_by_a_new_proof() -> None:
    async with serve(build(), attester=SimulatedAttester(CODE)) as server:
        for extra, more in (("", True), ("[reattest]\nlist_changed = false\n", False)):
            async with attested_client(server.url, policy=policy(extra), mode="legacy") as client:
                await client.call_tool("look", {})
                before = await counter(client, "look")
                await client.call_tool("change", {})
                with anyio.move_on_after(10 if more else 0.5):
                    while await counter(client, "look") == before:
                        await anyio.sleep(0.05)
                assert (client.peer.counter > before) is more


class Owned:
    """A server of an owner's, whose grant can be taken back."""

    def __init__(self, folder: Path) -> None:
        from datetime import UTC, datetime, timedelta

        ticks = iter(range(10**6)).__next__
        self.now = datetime.now(UTC).replace(microsecond=0)
        self.list = folder / "list.pem"
        self.holder = DeploymentHolder(
            spki_of(OWNER), grant_file=folder / "g.pem", revocation_file=self.list, clock=lambda: 2.0 * ticks()
        )
        grant = Grant(
            owner=spki_of(OWNER), name="prod", hosts=("127.0.0.1",), key=self.holder.key.spki_sha256, serial=1,
            not_before=self.now - timedelta(minutes=1), not_after=self.now + timedelta(hours=1),
        )  # fmt: skip
        from attestable_mcp.bind.deployment import sign_grant

        (folder / "g.pem").write_bytes(to_pem(GRANT_LABEL, sign_grant(OWNER, grant)))
        self.policy = policy(f'[deployment]\nowner = "{key_hash(spki_of(OWNER))}"\nname = "prod"\n')

    def revoke(self) -> None:
        listed = Revocation(owner=spki_of(OWNER), name="prod", number=1, issued_at=self.now, serials=(1,))
        self.list.write_bytes(to_pem(REVOCATION_LABEL, sign_revocation(OWNER, listed)))


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_where_the_proof_fails_the_call_is_not_sent_and_the_session_ends_with_the_reason(
    tmp_path: Path, mode: str
) -> None:
    owned = Owned(tmp_path)
    async with serve(build(), attester=SimulatedAttester(CODE), deployment=owned.holder) as server:

        async def session() -> None:
            async with attested_client(server.url, policy=owned.policy, mode=mode) as client:
                await client.call_tool("wipe", {})
                owned.revoke()
                with anyio.fail_after(20):
                    await client.call_tool("wipe", {})

        with pytest.raises(AttestationError) as caught:
            await session()
        assert caught.value.code == "grant_revoked"
    assert RUN == ["wipe"]


async def test_the_bridge_answers_such_a_call_with_the_refusal(tmp_path: Path) -> None:
    import json

    import httpx2

    owned, out = Owned(tmp_path), []

    async def write(line: bytes) -> None:
        out.append(json.loads(line))

    name = "io.modelcontextprotocol"
    meta = {f"{name}/protocolVersion": "2026-07-28", f"{name}/clientCapabilities": {}}

    def call(number: int) -> bytes:
        params = {"name": "wipe", "arguments": {}, "_meta": meta}
        return json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}).encode()

    async def lines() -> Any:
        yield call(1)
        while not out:
            await anyio.sleep(0.01)
        owned.revoke()
        yield call(2)
        while len(out) < 2:
            await anyio.sleep(0.01)

    async with serve(build(), attester=SimulatedAttester(CODE), deployment=owned.holder) as server:
        gate = make_gate(owned.policy)
        transport = watched(attested_transport(gate, server.url), gate, server.url)
        async with httpx2.AsyncClient(transport=transport) as http:
            with anyio.fail_after(20):
                await Bridge(server.url, http, write=write, say=lambda words: None).run(lines())
    assert out[0]["result"]["content"][0]["text"] == "gone"
    assert out[1]["error"]["data"]["code"] == "grant_revoked"
    assert RUN == ["wipe"]


@pytest.mark.parametrize("era", ["2026-07-28", "2025-11-25"])
async def test_a_bridge_that_only_listens_hears_of_the_refusal_and_serves_no_more(tmp_path: Path, era: str) -> None:
    """No request is sent that could be refused: the open stream's own clock finds it out."""
    import json

    import httpx2

    owned, out, said = Owned(tmp_path), [], []
    owned.policy = replace(owned.policy, reattest=ReattestPolicy(every=1.0))

    async def write(line: bytes) -> None:
        out.append(json.loads(line))

    name = "io.modelcontextprotocol"
    meta = {f"{name}/protocolVersion": era, f"{name}/clientCapabilities": {}}
    opening = {"protocolVersion": era, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    listening = {"notifications": {"toolsListChanged": True}, "_meta": meta}

    def line(method: str, params: Any, **more: Any) -> bytes:
        return json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **more}).encode()

    async def until(condition: Any) -> None:
        with anyio.fail_after(10):
            while not condition():
                await anyio.sleep(0.02)

    async def modern() -> Any:
        yield line("subscriptions/listen", listening, id=1)
        await until(lambda: out)
        owned.revoke()
        await until(lambda: [message for message in out if "error" in message])
        yield None

    async def legacy() -> Any:
        yield line("initialize", opening, id=1)
        await until(lambda: out)
        yield line("notifications/initialized", {})
        await anyio.sleep(0.3)
        owned.revoke()
        await until(lambda: said)
        yield line("tools/list", {}, id=2)
        await until(lambda: [message for message in out if message.get("id") == 2])

    async with serve(build(), attester=SimulatedAttester(CODE), deployment=owned.holder) as server:
        gate = make_gate(owned.policy)
        transport = watched(attested_transport(gate, server.url), gate, server.url)
        async with httpx2.AsyncClient(transport=transport) as http:
            bridge = Bridge(server.url, http, write=write, say=said.append)
            await bridge.run(modern() if era == "2026-07-28" else legacy())
    refusals = [message for message in out if "error" in message]
    assert refusals[0]["error"]["data"]["code"] == "grant_revoked"
    assert refusals[0]["id"] == (1 if era == "2026-07-28" else 2)
    if era == "2025-11-25":
        assert "revoked" in said[0], "whoever reads the log is told when the stream ends"


@pytest.mark.parametrize("kind", ["sdk", "stdio", "relay", "asgi"])
async def test_host_and_origin_are_checked_for_every_kind_of_target(kind: str, tmp_path: Path) -> None:
    """DNS rebinding (MCP, basic/transports): whatever stands behind, other names and foreign pages are refused."""
    from attestable_mcp.tls.client import attested_http_client

    (tmp_path / "s.py").write_text("from mcp.server import MCPServer\nMCPServer('s').run()\n")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"reached"})

    stdio = [sys.executable, str(tmp_path / "s.py")]
    targets: dict[str, Any] = {"sdk": build(), "stdio": stdio, "relay": "http://127.0.0.1:9/mcp", "asgi": app}
    async with serve(targets[kind], attester=SimulatedAttester(CODE), manifest=False) as server:
        async with attested_http_client(policy(), url=server.url) as http:
            for headers, status in (
                ({"host": "rebound.example"}, 421),
                ({"origin": "https://evil.example"}, 403),
                ({"origin": "null"}, 403),
            ):
                assert (await http.post(server.url, headers=headers, json={})).status_code == status, headers
