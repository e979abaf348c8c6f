"""Who wants more than a share: connections, half-made handshakes, dripped bodies, and slow proofs of clients.

None of these clients has proven anything. None of them may keep the server from others, nor push others out.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from attestable_mcp.appraise.policy import Policy, Rules, SgxRelease, TrustPolicy
from attestable_mcp.appraise.server_policy import ServerPolicy
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.errors import AttestationError, EndorsementUnavailable
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import rpc
from attestable_mcp.mcp.child import Command
from attestable_mcp.mcp.sessions import Owners, Sessions
from attestable_mcp.mcp.stdio import StdioGateway, StdioOptions
from attestable_mcp.mcp.translate import NEWEST
from attestable_mcp.rats import EndorsementQuery, Endorsements, Tee
from attestable_mcp.tls.challenge import STATE_KEY as CHANNEL_KEY
from attestable_mcp.tls.channel import Channel
from attestable_mcp.tls.client import Gate, attest_server, attested_http_client
from attestable_mcp.tls.clients import ClientGate
from attestable_mcp.tls.crowd import Crowd
from attestable_mcp.tls.engine import ClientContext
from attestable_mcp.tls.prover import ClientProver
from attestable_mcp.tls.server import Server
from attestable_mcp.tls.streams import AsyncBackend
from attestable_mcp.tls.turns import Turns

CODE = b"\x01" * 32
ATTESTER = SimulatedAttester(CODE)
POLICY = Policy(
    rules=Rules(releases=(SgxRelease(label="both", mrenclave=CODE.hex()),)),
    trust=TrustPolicy(simulated="accept", endorsements=("stapled",)),
)


async def _app(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": b"served"})


class Bare(SimulatedAttester):
    """Evidence of a chip, and nothing stapled: whoever judges it has to ask."""

    def endorsements(self) -> Endorsements:
        return Endorsements()


@dataclass
class Slow:
    """A source that does not answer before it is let go."""

    name: str = "slow"
    asked: int = 0
    go: threading.Event = field(default_factory=threading.Event)

    def fetch(self, query: EndorsementQuery, *, deadline_seconds: float) -> Endorsements:
        self.asked += 1
        self.go.wait(deadline_seconds)
        raise EndorsementUnavailable("slow")


async def _prove_in_vain(url: str) -> None:
    gate = Gate(POLICY, prover=ClientProver(Bare(CODE, tee=Tee.SEV_SNP)))
    with contextlib.suppress(AttestationError):
        async with attested_http_client(POLICY, url=url, gate=gate) as http:
            await http.get(url)


def test_c14_clients_whose_proofs_take_long_do_not_keep_the_server_from_proving_itself() -> None:
    source = Slow()
    gate = ClientGate(ServerPolicy(clients="optional", policy=POLICY), sources=[source])

    async def run() -> None:
        async with Server(_app, ATTESTER, clients=gate) as server:
            hostile = [asyncio.create_task(_prove_in_vain(server.url)) for _ in range(12)]
            async with asyncio.timeout(5):
                while source.asked < LIMITS.client_questions_each:
                    await asyncio.sleep(0.02)
                await attest_server(POLICY, server.url)
            assert source.asked == LIMITS.client_questions_each  # the others wait: all come from one network
            source.go.set()
            await asyncio.gather(*hostile)

    asyncio.run(run())


def test_c14_one_networks_questions_leave_threads_to_others() -> None:
    async def run() -> int:
        turns, go = Turns(3, 2), threading.Event()
        waiting = [asyncio.create_task(turns.run("192.0.2.1", go.wait)) for _ in range(20)]
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            found = await turns.run("192.0.2.2", lambda: 42)
        go.set()
        await asyncio.gather(*waiting)
        return found

    assert asyncio.run(run()) == 42


# Connections


@asynccontextmanager
async def _small(most: int, **options: Any) -> AsyncIterator[Server]:
    async with Server(_app, ATTESTER, limits=replace(LIMITS, connections=most), **options) as server:
        yield server


@asynccontextmanager
async def _client(server: Server, prover: ClientProver | None = None) -> AsyncIterator[httpx2.AsyncClient]:
    gate = Gate(POLICY, prover=prover)
    async with attested_http_client(POLICY, url=server.url, gate=gate) as http:
        yield http


async def _idle(server: Server) -> Any:
    """A connection that shook hands and says nothing."""
    stream = await AsyncBackend(Gate(POLICY)).connect_tcp("127.0.0.1", server.port)
    await stream.start_tls(ClientContext(), "127.0.0.1")
    return stream


def test_c14_idle_connections_give_way_to_whoever_asks() -> None:
    async def run() -> None:
        async with _small(4) as server, contextlib.AsyncExitStack() as stack:
            for _ in range(8):
                stack.push_async_callback((await _idle(server)).aclose)
            async with _client(server) as http, asyncio.timeout(5):
                assert (await http.get(server.url)).text == "served"

    asyncio.run(run())


def test_c14_half_made_handshakes_give_way_to_whoever_asks() -> None:
    async def run() -> None:
        async with _small(4) as server, contextlib.AsyncExitStack() as stack:
            for _ in range(8):
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(b"\x16\x03\x01\x02\x00\x01")
                stack.callback(writer.transport.abort)
            async with _client(server) as http, asyncio.timeout(5):
                assert (await http.get(server.url)).text == "served"

    asyncio.run(run())


def test_c14_a_flood_leaves_the_connection_of_a_client_that_proved_itself() -> None:
    """From the same address: what a proven client holds is its own, not its network's."""
    gate = ClientGate(ServerPolicy(clients="required", policy=POLICY))

    async def run() -> None:
        async with _small(4, clients=gate) as server, _client(server, ClientProver(ATTESTER)) as http:
            await http.get(server.url)
            before = server.context.established
            async with contextlib.AsyncExitStack() as stack:
                for _ in range(12):
                    stack.push_async_callback((await _idle(server)).aclose)
                assert (await http.get(server.url)).text == "served"
            assert server.context.established == before + 12  # the client made none

    asyncio.run(run())


class _Held:
    """A connection as the crowd sees it."""

    def __init__(self, network: str, *, rests: bool = True) -> None:
        self.channel = Channel(ClientContext()._current[0], server_side=False, own=None, hostname=None)
        self.channel.network = network
        self.rests = rests
        self.gone = False

    def give_way(self) -> None:
        self.gone = True


@pytest.mark.parametrize("rests", [True, False])
def test_c14_one_network_pushes_out_its_own_connections_only(rests: bool) -> None:
    crowd = Crowd(8)
    honest = [_Held(f"192.0.2.{number}") for number in range(3)]
    assert all(map(crowd.admit, honest))
    flood = [_Held("198.51.100.1", rests=rests) for _ in range(20)]
    assert [crowd.admit(one) for one in flood] == [True] * 5 + [rests] * 15
    assert not any(one.gone for one in honest)
    late = _Held("203.0.113.1")
    assert crowd.admit(late)
    assert not any(one.gone for one in (*honest, late))
    assert len(crowd) == 8


@pytest.mark.skipif(sys.platform == "win32", reason="sockets are no descriptors there")
def test_a_server_may_open_what_it_needs_or_takes_fewer_connections() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 400))\n"
        "from attestable_mcp.tls.crowd import Crowd\n"
        "print(Crowd(150).most, resource.getrlimit(resource.RLIMIT_NOFILE)[0], Crowd(4096).most)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["150", "300", "300"]


def test_c14_a_body_that_is_dripped_ends_the_connection() -> None:
    async def run() -> None:
        async with Server(_app, ATTESTER, limits=replace(LIMITS, body_seconds=0.3)) as server:
            stream = await _idle(server)
            await stream.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n")
            with contextlib.suppress(Exception):
                for _ in range(100):
                    await stream.write(b"x")
                    await asyncio.sleep(0.01)
            async with asyncio.timeout(2):
                with contextlib.suppress(httpx2.ReadError):
                    while await stream.read(1000, 5.0):
                        pass
            await stream.aclose()

    asyncio.run(run())


# Sessions of the handshake era

NETWORKS = ("192.0.2.1", "198.51.100.1")
PLAIN = Path(__file__).parents[1] / "integration" / "mcp" / "plain_server.py"


async def _ask(app: Any, network: str, session: str | None = None, method: str = "POST") -> tuple[int, str | None]:
    """One request of the handshake era from `network`: its status, and the session that it opened."""
    channel = Channel(ClientContext()._current[0], server_side=False, own=None, hostname=None)
    channel.network = network
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    headers += [(b"accept", b"application/json, text/event-stream")]
    headers += [(b"mcp-session-id", session.encode())] if session is not None else []
    scope = {"type": "http", "method": method, "path": "/mcp", "headers": headers, "query_string": b""}
    scope |= {"raw_path": b"/mcp", "scheme": "https", "http_version": "1.1", "state": {CHANNEL_KEY: channel}}
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    asked = {"method": "initialize", "params": params} if session is None else {"method": "ping"}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, **asked}).encode() if method == "POST" else b""
    said: list[Any] = []
    sent = False

    async def receive() -> Any:
        nonlocal sent
        if sent:
            await asyncio.sleep(60)
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    await app(scope, receive, send)
    opened = [value.decode() for key, value in said[0]["headers"] if key == b"mcp-session-id"]
    return said[0]["status"], opened[0] if opened else None


def test_c14_one_networks_sessions_leave_room_for_anothers() -> None:
    """Behind a stdio command, each is a process: three in all here, and the flood had them all."""

    async def run() -> None:
        command = Command(argv=(sys.executable, str(PLAIN), "--legacy-only"))
        async with StdioGateway(command, StdioOptions(max_sessions=3)) as gateway:
            app = Sessions(gateway, most=3)
            flood = [await _ask(app, NETWORKS[0]) for _ in range(4)]
            assert [status for status, _ in flood] == [200, 200, 200, 503]
            status, mine = await _ask(app, NETWORKS[1])
            assert (status, gateway.sessions) == (200, 3)
            assert [status for status, _ in [await _ask(app, NETWORKS[0]) for _ in range(3)]] == [503] * 3
            assert (await _ask(app, NETWORKS[1], mine))[0] == 200
            assert (await _ask(app, NETWORKS[0], flood[0][1]))[0] == 404
            assert (await _ask(app, NETWORKS[0], flood[2][1]))[0] == 200

    asyncio.run(run())


def test_a_session_that_was_long_not_used_goes_for_its_own_clients_next() -> None:
    """Clients that break off never end theirs: their next ones must find room."""
    now = [0.0]

    async def run() -> None:
        app = Sessions(Counting(), most=2, spare_seconds=10, clock=lambda: now[0])
        first, second = [(await _ask(app, "here"))[1] for _ in range(2)]
        now[0] = 8.0
        assert (await _ask(app, "here", first))[0] == 200
        assert (await _ask(app, "here"))[0] == 503
        now[0] = 12.0
        assert [(await _ask(app, "here"))[0] for _ in range(2)] == [200, 503]
        assert [(await _ask(app, "here", one))[0] for one in (first, second)] == [200, 404]
        assert (await _ask(app, "here", first, "DELETE"))[0] == 200
        assert (await _ask(app, "here"))[0] == 200  # in the place of the one that its client ended

    asyncio.run(run())


def test_a_session_with_a_request_under_way_is_used() -> None:
    now = [0.0]

    async def run() -> None:
        inner = Counting()
        app = Sessions(inner, most=1, spare_seconds=10, clock=lambda: now[0])
        _, session = await _ask(app, "here")
        inner.go.clear()
        call = asyncio.create_task(_ask(app, "here", session))
        await asyncio.sleep(0)
        now[0] = 100.0
        assert (await _ask(app, "here"))[0] == 503
        inner.go.set()
        assert (await call)[0] == 200

    asyncio.run(run())


def test_c14_one_network_starts_few_processes_at_a_time() -> None:
    """Whoever opens and ends sessions without end burns processor time: others' starts do not wait for all of it."""

    async def run() -> None:
        inner = Starting()
        app = Sessions(inner, most=64, opening=2)
        flood = [asyncio.create_task(_ask(app, NETWORKS[0])) for _ in range(20)]
        await asyncio.sleep(0.01)
        assert inner.starting == 2
        honest = asyncio.create_task(_ask(app, NETWORKS[1]))
        await asyncio.sleep(0.01)
        assert inner.starting == 3
        inner.go.set()
        assert (await honest)[0] == 200
        assert {status for status, _ in await asyncio.gather(*flood)} == {200}

    asyncio.run(run())


class Starting:
    """A server whose sessions take their time to open."""

    def __init__(self) -> None:
        self.starting = 0
        self.go = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.starting += 1
        await self.go.wait()
        headers = [(b"mcp-session-id", b"%d" % id(scope))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


class Counting:
    """A server that gives sessions names of their own."""

    def __init__(self) -> None:
        self.open: set[bytes] = set()
        self.names = itertools.count()
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        session = dict(scope["headers"]).get(b"mcp-session-id")
        headers = []
        if session is None:
            session = f"session {next(self.names)}".encode()
            self.open.add(session)
            headers.append((b"mcp-session-id", session))
        else:
            await self.go.wait()
        status = 200 if session in self.open else 404
        if scope["method"] == "DELETE":
            self.open.discard(session)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def test_c14_sessions_without_end_do_not_make_the_owner_of_anothers_forgotten() -> None:
    owners: Owners[bytes, str] = Owners(most=4)
    owners.put(b"mine", "key", "client key")
    for number in range(20):
        owners.put(b"%d" % number, "", "192.0.2.1")
    assert owners.get(b"mine") == "key"
    assert owners.get(b"0") is None


def test_c14_one_networks_requests_leave_room_at_a_process_for_anothers(tmp_path: Path) -> None:
    """Of the later era all share one process: the flood's longest call goes, and the process is told."""
    log = tmp_path / "log"

    async def run() -> None:
        command = Command(argv=(sys.executable, str(PLAIN), "--modern-only", "--log", str(log)))
        async with StdioGateway(command, StdioOptions(waiting=3)) as gateway:
            slow: dict[str, Any] = {"name": "hang", "arguments": {}}
            flood = [asyncio.create_task(_call(gateway, NETWORKS[0], slow)) for _ in range(3)]
            await asyncio.sleep(0.3)
            assert (await _call(gateway, NETWORKS[0], slow))["error"]["message"].startswith("too many")
            quick = {"name": "sleep", "arguments": {"seconds": 0}}
            assert "result" in await _call(gateway, NETWORKS[1], quick)
            done, _ = await asyncio.wait(flood, timeout=5, return_when=asyncio.FIRST_COMPLETED)
            assert ["given up" in task.result()["error"]["message"] for task in done] == [True]
            async with asyncio.timeout(5):
                while "cancelled" not in log.read_text():  # where the process notes what it was told to drop
                    await asyncio.sleep(0.02)
            for task in flood:
                task.cancel()

    asyncio.run(run())


async def _call(app: Any, network: str, params: dict[str, Any]) -> dict[str, Any]:
    """One call of the later era from `network`: what is answered."""
    channel = Channel(ClientContext()._current[0], server_side=False, own=None, hostname=None)
    channel.network = network
    meta = {rpc.PROTOCOL_VERSION: NEWEST, rpc.CLIENT_CAPABILITIES: {}, rpc.CLIENT_INFO: rpc.client_info()}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {**params, "_meta": meta}}
    headers = [(b"host", b"localhost"), (b"content-type", b"application/json"), (b"mcp-method", b"tools/call")]
    headers += [(b"accept", b"application/json, text/event-stream"), (b"mcp-name", params["name"].encode())]
    headers += [(b"mcp-protocol-version", NEWEST.encode())]
    scope = {"type": "http", "method": "POST", "path": "/mcp", "headers": headers, "query_string": b""}
    said, sent = bytearray(), False

    async def receive() -> Any:
        nonlocal sent
        if sent:
            await asyncio.sleep(60)
        sent = True
        return {"type": "http.request", "body": json.dumps(asked).encode(), "more_body": False}

    async def send(message: Any) -> None:
        said.extend(message.get("body", b""))

    await app({**scope, "state": {CHANNEL_KEY: channel}}, receive, send)
    found: dict[str, Any] = json.loads(said)
    return found
