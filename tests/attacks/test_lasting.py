"""Responses that go on while the proof of the client that they are for grows old (C13, the server's side).

A server that wants proof every so often must not go on sending to who gave the last one long ago. A client that means
to listen for long proves itself on another connection meanwhile.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from attestable_mcp.appraise.policy import Policy, Rules, SgxRelease, TrustPolicy
from attestable_mcp.appraise.server_policy import Mode, ServerPolicy
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.tls.client import Gate, attest_server, attested_http_client, attested_sync_http_client
from attestable_mcp.tls.clients import ClientGate
from attestable_mcp.tls.fresh import Freshness
from attestable_mcp.tls.prover import ClientProver
from attestable_mcp.tls.server import Server

CODE = b"\x01" * 32
POLICY = Policy(
    rules=Rules(releases=(SgxRelease(label="both", mrenclave=CODE.hex()),)),
    trust=TrustPolicy(simulated="accept", endorsements=("stapled",)),
)
AGAIN = 0.3


class Idle(Freshness):
    """A client's, that proves itself before requests and never for the sake of a response."""

    def until(self, proven_at: float, again: int = 0) -> float:
        return super().until(proven_at)


class Sending:
    """Answers with what never ends; after `quiet` seconds in which it has not begun."""

    def __init__(self, kind: bytes = b"text/event-stream", quiet: float = 0.0) -> None:
        self.kind, self.quiet = kind, quiet
        self.gone = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(self.quiet)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", self.kind)]})
            left = asyncio.ensure_future(_left(receive))
            while not left.done():
                await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
                await asyncio.sleep(0.02)
        finally:
            self.gone.set()


async def _left(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


@asynccontextmanager
async def _serving(app: Any, again: float = AGAIN, clients: Mode = "required") -> AsyncIterator[str]:
    gate = ClientGate(ServerPolicy(clients=clients, policy=POLICY, again=again))
    async with Server(app, SimulatedAttester(CODE), clients=gate, lifespan="off", drain_seconds=1) as server:
        yield server.url


def _gate(*, idle: bool) -> Gate:
    gate = Gate(POLICY, prover=ClientProver(SimulatedAttester(CODE)))
    if idle:
        gate.freshness = Idle(gate.freshness.policy)
    return gate


async def _read(gate: Gate, url: str, seconds: float = 5.0) -> tuple[int, bool]:
    """The status, and whether the response was still going on after so many seconds."""
    async with attested_http_client(POLICY, url=url, gate=gate) as http, http.stream("GET", url) as response:
        try:
            async with asyncio.timeout(seconds):
                async for _ in response.aiter_bytes():
                    pass
        except TimeoutError:
            return response.status_code, True
    return response.status_code, False


@pytest.mark.parametrize("clients", ["required", "optional"])
def test_c13_a_stream_ends_with_its_clients_proof(clients: Mode) -> None:
    async def run() -> None:
        app = Sending()
        async with _serving(app, clients=clients) as url:
            assert await _read(_gate(idle=True), url) == (200, False), "ended, and ended whole"
            await asyncio.wait_for(app.gone.wait(), 5)

    asyncio.run(run())


def test_c13_any_other_response_is_broken_off_so_that_a_part_is_not_taken_for_the_whole() -> None:
    async def run() -> None:
        async with _serving(Sending(b"application/json")) as url:
            with pytest.raises(httpx2.RemoteProtocolError):
                await _read(_gate(idle=True), url)

    asyncio.run(run())


def test_c13_an_answer_that_has_not_begun_becomes_the_refusal() -> None:
    async def run() -> None:
        app = Sending(quiet=20.0)
        async with _serving(app) as url:
            gate = _gate(idle=True)
            async with attested_http_client(POLICY, url=url, gate=gate) as http:
                answer = await asyncio.wait_for(http.get(url), 5)
            assert answer.status_code == 403
            error = json.loads(answer.content)["error"]
            assert (error["code"], error["data"]["code"]) == (-32013, "client_attestation_stale")
            assert "may have been done" in error["message"]
            assert app.gone.is_set()

    asyncio.run(run())


def test_c13_nor_does_another_client_prove_itself_for_this_one() -> None:
    """Genuine, the same code, the same release: but another's key."""

    async def run() -> None:
        async with _serving(Sending()) as url:

            async def others() -> None:
                while True:
                    await attest_server(POLICY, url, gate=_gate(idle=True))
                    await asyncio.sleep(0.05)

            task = asyncio.create_task(others())
            assert await _read(_gate(idle=True), url) == (200, False)
            task.cancel()

    asyncio.run(run())


@pytest.mark.parametrize("blocking", [False, True], ids=["async", "blocking"])
def test_c13_a_client_of_ours_listens_on_and_loses_nothing(blocking: bool) -> None:
    """Its own clock has it prove itself on another connection, in time, and once more."""

    def listen(gate: Gate, url: str) -> int:
        came = 0
        with attested_sync_http_client(POLICY, url=url, gate=gate) as http, http.stream("GET", url) as response:
            for _ in response.iter_bytes():
                came += 1
                if came == 170:
                    break
        return came

    async def run() -> None:
        async with _serving(Sending(), again=1.5) as url:
            if blocking:
                assert await asyncio.to_thread(listen, _gate(idle=False), url) == 170
            else:
                assert await _read(_gate(idle=False), url, 3.2) == (200, True)

    asyncio.run(run())


def test_c13_any_connection_of_the_same_client_will_do() -> None:
    async def run() -> None:
        async with _serving(Sending(), again=0.5) as url:
            gate = _gate(idle=True)

            async def prove() -> None:
                while True:
                    await asyncio.sleep(0.15)
                    await attest_server(POLICY, url, gate=gate)

            task = asyncio.create_task(prove())
            assert await _read(gate, url, 1.2) == (200, True)
            task.cancel()

    asyncio.run(run())


def test_c13_without_a_time_to_prove_again_nothing_ends() -> None:
    gate = ClientGate(ServerPolicy(clients="required", policy=POLICY))

    async def run() -> None:
        async with Server(Sending(), SimulatedAttester(CODE), clients=gate, lifespan="off", drain_seconds=1) as server:
            assert await _read(_gate(idle=True), server.url, 0.5) == (200, True)

    asyncio.run(run())
