"""Requests that one reader takes for another than the next: what a client could slip past the rules of a front door.

Each is sent as bytes on a proven connection, since no HTTP client would send it. Behind stands either a server that
notes what reaches it, or a process that says whom a line of its input names.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from two_clients import BILLING, KNOWN, POLICY, REPORTS, SERVER

from attestable_mcp import serve
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.mcp.gate import make_gate
from attestable_mcp.tls.client import origin_of
from attestable_mcp.tls.listening import PlainServer
from attestable_mcp.tls.streams import AsyncBackend

pytestmark = pytest.mark.anyio

CLIENTS = f'clients = "optional"\n{KNOWN}'
RULES = f'{CLIENTS}[[tool]]\nname = "transfer"\nallow = [{{ client = "billing" }}]\n'
ENVELOPE = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "x", "version": "1"}}  # fmt: skip
FORGED = {"verdict": "verified", "tee": "sgx", "release": "billing", "code": {"mrenclave": "02"}, "claims": {},
          "key": "", "transcript": "", "simulated": False, "deployment": None}  # fmt: skip
WHO = """
import json, sys

DISCOVERED = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "public"}
for line in sys.stdin.buffer:
    message = json.loads(line)
    told = {"content": [{"type": "text", "text": "billing" if b"billing" in line else "nobody"}]}
    result = DISCOVERED if message["method"] == "server/discover" else told
    answer = {"jsonrpc": "2.0", "id": message.get("id"), "result": {**result, "resultType": "complete"}}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def call(name: str = "transfer", **meta: Any) -> bytes:
    params = {"name": name, "arguments": {}, "_meta": {**ENVELOPE, **meta}}
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()


@asynccontextmanager
async def behind() -> AsyncIterator[tuple[str, list[tuple[str, str, dict[str, str], bytes]]]]:
    """A plain HTTP server: its URL, and what reached it (method, path, headers, body)."""
    seen: list[tuple[str, str, dict[str, str], bytes]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive()).get("body", b"")
        headers = {key.decode(): value.decode("latin-1") for key, value in scope["headers"]}
        seen.append((scope["method"], scope["path"], headers, body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with PlainServer(app, "127.0.0.1", 0) as server:
        yield f"{server.url}/mcp", seen


async def send(url: str, head: str, body: bytes, measured: bytes | None = REPORTS) -> str:
    """The answer to these very bytes on a proven connection; `head` is a request line and the odd headers."""
    gate = make_gate(POLICY, attester=None if measured is None else SimulatedAttester(measured))
    origin = origin_of(url)
    stream = await AsyncBackend(gate).connect_tcp(origin.host, origin.port)
    await stream.start_tls(gate.context, origin.host)
    fixed = f"host: {origin.host}\r\naccept: application/json, text/event-stream\r\nconnection: close\r\n"
    length = f"content-length: {len(body)}\r\n"
    await stream.write(head.replace("\n", "\r\n").encode("latin-1") + (fixed + length + "\r\n").encode() + body)
    answer = bytearray()
    try:
        while piece := await stream.read(65536, timeout=10.0):
            answer += piece
    finally:
        await stream.aclose()
    return answer.decode("latin-1")


JSON = "content-type: application/json\n"
PAST = {
    "a method in small letters": (f"post /mcp HTTP/1.1\n{JSON}", call()),
    "a method in mixed letters": (f"Post /mcp HTTP/1.1\n{JSON}", call()),
    "up from the attestation's own path": (f"POST /.well-known/attestation/../../mcp HTTP/1.1\n{JSON}", call()),
    "the same, encoded": (f"POST /.well-known/attestation/%2e%2e/%2e%2e/mcp HTTP/1.1\n{JSON}", call()),
    "beneath the attestation's own path": (f"POST /.well-known/attestation/mcp HTTP/1.1\n{JSON}", call()),
    "encoded twice over": (f"POST /mcp HTTP/1.1\n{JSON}content-encoding: identity\ncontent-encoding: gzip\n",
                           b"\x1f\x8b" + call()),
    "a byte order mark in plain text": ("POST /mcp HTTP/1.1\ncontent-type: text/plain\n", b"\xef\xbb\xbf" + call()),
    "UTF-16 in plain text": ("POST /mcp HTTP/1.1\ncontent-type: text/plain\n", call().decode().encode("utf-16")),
    "UTF-16, its high byte first": ("POST /mcp HTTP/1.1\n", call().decode().encode("utf-16-be")),
    "UTF-7 by its charset": (
        "POST /mcp HTTP/1.1\ncontent-type: application/json; charset=utf-7\n",
        call().replace(b'"tools/call"', b'"+AHQAbwBvAGwAcw-/call"')),
    "UTF-7 in quotes, beside UTF-8": (
        'POST /mcp HTTP/1.1\ncontent-type: application/json; charset=utf-8; Charset = "UTF-7"\n',
        call().replace(b'"tools/call"', b'"+AHQAbwBvAGwAcw-/call"')),
    "UTF-7 in another form of the parameter": (
        "POST /mcp HTTP/1.1\ncontent-type: application/json; charset*=utf-7''\n",
        call().replace(b'"tools/call"', b'"+AHQAbwBvAGwAcw-/call"')),
    "EBCDIC in plain text": ("POST /mcp HTTP/1.1\ncontent-type: text/plain; charset=ibm500\n",
                             call().decode().encode("cp500")),
    "with PUT": (f"PUT /mcp HTTP/1.1\n{JSON}", call()),
    "with GET and a body": (f"GET /mcp HTTP/1.1\n{JSON}", call()),
    "another method in its header": (f"POST /mcp HTTP/1.1\n{JSON}mcp-method: tools/call\nmcp-name: transfer\n",
                                     call("who")),
    "two methods in headers": (f"POST /mcp HTTP/1.1\n{JSON}mcp-name: who\nmcp-name: transfer\n", call("who")),
}  # fmt: skip


async def test_smuggling_no_call_gets_past_the_rules_to_a_server_behind_the_relay() -> None:
    async with behind() as (upstream, seen):
        async with serve(
            upstream, attester=SimulatedAttester(SERVER), clients=RULES, manifest=False, hosts=["127.0.0.1"]
        ) as server:
            for name, (head, body) in PAST.items():
                answer = await send(server.url, head, body)
                assert not seen, (name, answer, seen)
            assert "200 OK" in await send(server.url, f"POST /mcp HTTP/1.1\n{JSON}", call(), BILLING)
            assert seen.pop()[3] == call()
            plainly = "POST /mcp HTTP/1.1\ncontent-type: application/json; charset=UTF-8\n"
            assert "200 OK" in await send(server.url, plainly, call(), BILLING)
            for bodiless in ("GET", "DELETE", "OPTIONS"):
                assert "200 OK" in await send(server.url, f"{bodiless} /mcp HTTP/1.1\n", b"")


async def test_smuggling_the_path_of_receipts_is_no_way_around_the_rules() -> None:
    """Requests for a chain's head are not MCP and are held to no rules. Where none are given, that path is any."""
    head = f"POST /.well-known/attestation/receipts HTTP/1.1\n{JSON}"
    async with behind() as (upstream, seen):
        async with serve(
            upstream, attester=SimulatedAttester(SERVER), clients=RULES, manifest=False, hosts=["127.0.0.1"]
        ) as server:
            answer = await send(server.url, head, call())
            assert not seen
            assert "tool_not_allowed" in answer


async def test_smuggling_headers_that_only_this_side_may_set_come_in_no_spelling() -> None:
    odd = "Attestation_Client: Zm9yZ2Vk\nattestable_verdict: x\nX_Attestation_Client: x\nMcp_Session_Id: theirs\n"
    async with behind() as (upstream, seen):
        async with serve(upstream, attester=SimulatedAttester(SERVER), clients=CLIENTS, manifest=False) as server:
            answer = await send(server.url, f"POST /mcp HTTP/1.1\n{JSON}{odd}", call("who"), None)
            assert "200 OK" in answer
            assert not [name for name in seen[0][2] if "_" in name or name.startswith("attest")]


async def test_smuggling_a_session_header_that_stands_twice_is_refused() -> None:
    twice = "mcp-session-id: mine\nmcp-session-id: theirs\n"
    async with behind() as (upstream, seen):
        async with serve(upstream, attester=SimulatedAttester(SERVER), clients=CLIENTS, manifest=False) as server:
            assert " 400 " in (await send(server.url, f"POST /mcp HTTP/1.1\n{JSON}{twice}", call("who")))[:20]
            assert not seen


async def test_smuggling_nobody_takes_up_a_session_that_was_not_seen_to_open() -> None:
    """After a restart the server behind may still know sessions whose owner is forgotten here."""
    async with behind() as (upstream, seen):
        async with serve(upstream, attester=SimulatedAttester(SERVER), clients=CLIENTS, manifest=False) as server:
            answer = await send(server.url, f"POST /mcp HTTP/1.1\n{JSON}mcp-session-id: older\n", call("who"))
            assert " 404 " in answer[:20]
            assert not seen


def _forged() -> dict[str, bytes]:
    plain = call("who", **{"dev.attestable-mcp/client": FORGED})
    first = plain.replace(b'"params"', b'"params": {"name": "who"}, "params"', 1)
    last = call("who").replace(b'"params"', b'"params": ' + json.dumps(json.loads(plain)["params"]).encode()
                               + b', "params"', 1)  # fmt: skip
    return {
        "plain": plain,
        "UTF-16": plain.decode().encode("utf-16"),
        "UTF-16 without a mark": plain.decode().encode("utf-16-le"),
        "UTF-32": plain.decode().encode("utf-32"),
        "another case": plain.replace(b"dev.attestable", b"Dev.Attestable"),
        "another case of _meta": plain.replace(b'"_meta"', b'"_META"'),
        "params twice, theirs last": first,
        "params twice, theirs first": last,
    }


MODERN = f"POST /mcp HTTP/1.1\n{JSON}mcp-protocol-version: 2026-07-28\nmcp-method: tools/call\nmcp-name: who\n"


@pytest.mark.parametrize("policy", ['clients = "none"\n', CLIENTS])
async def test_smuggling_no_spelling_of_a_callers_name_reaches_a_process(tmp_path: Path, policy: str) -> None:
    path = tmp_path / "who.py"
    path.write_text(WHO)
    command = [sys.executable, "-S", str(path)]
    async with serve(command, attester=SimulatedAttester(SERVER), clients=policy, manifest=False) as server:
        for name, body in _forged().items():
            answer = await send(server.url, MODERN, body, None)
            assert "billing" not in answer, (name, answer)
            assert '"nobody"' in answer or " 400 " in answer[:20], (name, answer)
        assert '"nobody"' in await send(server.url, MODERN, call("who"), None)


async def test_smuggling_what_a_process_reads_has_each_key_once(tmp_path: Path) -> None:
    """A process may be written in any language, whose reader may take the first of two keys, or mind no case."""
    path, log = tmp_path / "echo.py", tmp_path / "log"
    path.write_text(
        "import json, sys\n"
        f"for line in sys.stdin.buffer:\n    open({str(log)!r}, 'ab').write(line)\n"
        "    print(json.dumps({'jsonrpc': '2.0', 'id': json.loads(line).get('id'), 'result': {'protocolVersion': "
        "'2025-11-25', 'capabilities': {}, 'serverInfo': {'name': 'x', 'version': '1'}}}), flush=True)\n"
    )
    opening = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    forged = {**opening, "_meta": {"dev.attestable-mcp/client": FORGED}}
    message = json.dumps({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": opening})
    twice = message.replace('"params"', f'"params": {json.dumps(forged)}, "params"')
    command = [sys.executable, "-S", str(path)]
    async with serve(command, attester=SimulatedAttester(SERVER), clients='clients = "none"\n', manifest=False) as mine:
        await send(mine.url, f"POST /mcp HTTP/1.1\n{JSON}", twice.encode(), None)
        assert b"billing" not in log.read_bytes()
