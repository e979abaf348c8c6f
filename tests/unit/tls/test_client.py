"""The clients: both HTTP stacks, asynchronous and blocking, many requests, and what a response tells."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import httpx2
import pytest

from attestable_mcp.appraise.policy import Policy, Rules, SgxRelease, TrustPolicy
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.errors import AppraisalRefused, ConfigurationError, ConversationError
from attestable_mcp.rats import Verdict
from attestable_mcp.tls.client import (
    Gate,
    attested_http_client,
    attested_sync_http_client,
    gate_of,
)
from attestable_mcp.tls.client_httpx import attested_httpx_client, attested_sync_httpx_client
from attestable_mcp.tls.origins import origin_of
from attestable_mcp.tls.server import Server

ATTESTER = SimulatedAttester(b"\x01" * 32)


def _policy(mrenclave: str = "01" * 32) -> Policy:
    return Policy(
        rules=Rules(releases=(SgxRelease(mrenclave=mrenclave),)),
        trust=TrustPolicy(simulated="accept", endorsements=("stapled",)),
    )


async def _app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body or scope["path"].encode()})


@pytest.mark.parametrize("build", [attested_http_client, attested_httpx_client])
def test_asynchronous_clients_carry_requests_and_name_the_peer(build: Any) -> None:
    async def run() -> None:
        async with Server(_app, ATTESTER) as server, build(_policy(), url=server.url + "/mcp") as client:
            response = await client.post(server.url + "/mcp", content=b"x" * 300_000)
            assert response.content == b"x" * 300_000
            peer = response.extensions["attestation"]
            assert peer.result.verdict is Verdict.VERIFIED
            assert peer.result.simulated
            assert peer.url == server.url
            assert len(peer.transcript) == 64
            answers = await asyncio.gather(*(client.get(f"{server.url}/{number}") for number in range(30)))
            assert [answer.text for answer in answers] == [f"/{number}" for number in range(30)]

    asyncio.run(run())


@pytest.mark.parametrize("build", [attested_sync_http_client, attested_sync_httpx_client])
def test_blocking_clients_carry_requests_and_name_the_peer(build: Any) -> None:
    def talk(url: str) -> None:
        with build(_policy(), url=url) as client:
            response = client.post(url, content=b"y" * 300_000)
            assert response.content == b"y" * 300_000
            first = response.extensions["attestation"]
            assert first.result.verdict is Verdict.VERIFIED
            assert client.get(url).extensions["attestation"] is first

    async def run() -> None:
        async with Server(_app, ATTESTER) as server:
            await asyncio.to_thread(talk, server.url)

    asyncio.run(run())


@pytest.mark.parametrize("build", [attested_http_client, attested_httpx_client])
def test_a_refusal_surfaces_as_itself(build: Any) -> None:
    async def run() -> None:
        async with Server(_app, ATTESTER) as server, build(_policy("02" * 32), url=server.url) as client:
            with pytest.raises(AppraisalRefused) as caught:
                await client.get(server.url)
            assert caught.value.code == "measurement_mismatch"
            assert caught.value.result.verdict is Verdict.REFUSED  # type: ignore[attr-defined]

    asyncio.run(run())


@pytest.mark.parametrize(("build", "error"), [(attested_http_client, httpx2), (attested_httpx_client, httpx)])
def test_a_server_that_stops_is_a_plain_network_error(build: Any, error: Any) -> None:
    async def run() -> None:
        async with Server(_app, ATTESTER) as server:
            url = server.url
            async with build(_policy(), url=url) as client:
                assert (await client.get(url)).status_code == 200
                await server.aclose()
                with pytest.raises(error.ConnectError):
                    await client.get(url)

    asyncio.run(run())


def test_keep_alive_connections_are_proven_once() -> None:
    async def run() -> int:
        async with Server(_app, ATTESTER) as server:
            async with attested_http_client(_policy(), url=server.url) as client:
                for _ in range(5):
                    await client.get(server.url)
                assert gate_of(client).newest is not None
            return server.challenge.quoter.quotes

    assert asyncio.run(run()) == 1


def test_a_gate_shared_by_clients_shares_what_is_known() -> None:
    async def run() -> tuple[int, list[int]]:
        gate = Gate(_policy())
        counters = []
        async with Server(_app, ATTESTER) as server:
            for _ in range(3):
                async with attested_http_client(gate.policy, url=server.url, gate=gate) as client:
                    counters.append((await client.get(server.url)).extensions["attestation"].counter)
            return server.challenge.quoter.quotes, counters

    assert asyncio.run(run()) == (1, [0, 1, 2])


@pytest.mark.parametrize("url", ["http://h/", "ftp://h", "h:1", "", "https://", "https://h:99999/", "https://[::1"])
def test_addresses_that_cannot_be_attested_are_configuration_errors(url: str) -> None:
    with pytest.raises(ConfigurationError):
        origin_of(url)


@pytest.mark.parametrize(
    ("url", "origin"),
    [("https://H.Example/x?y", "https://h.example:443"), ("https://[::1]:8443", "https://[::1]:8443")],
)
def test_origins_are_normal_forms(url: str, origin: str) -> None:
    assert str(origin_of(url)) == origin


def test_more_origins_can_be_declared_and_others_given_a_transport_of_their_own() -> None:
    async def run() -> list[int]:
        ordinary = httpx2.MockTransport(lambda request: httpx2.Response(202))
        async with Server(_app, ATTESTER) as one, Server(_app, ATTESTER) as two:
            async with attested_http_client(
                _policy(), url=one.url, origins=[two.url], mounts={"https://auth.example": ordinary}
            ) as client:
                codes = [(await client.get(url)).status_code for url in (one.url, two.url, "https://auth.example/t")]
                with pytest.raises(ConversationError):
                    await client.get("https://elsewhere.example/")
                return codes

    assert asyncio.run(run()) == [200, 200, 202]


def test_only_attested_clients_have_a_gate() -> None:
    with pytest.raises(TypeError):
        gate_of(httpx2.Client())


def test_a_server_without_tls_is_told_as_that() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(64)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        writer.close()

    async def run() -> ConversationError:
        plain = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = plain.sockets[0].getsockname()[1]
        async with plain, attested_http_client(_policy()) as client:
            with pytest.raises(ConversationError) as caught:
                await client.get(f"https://127.0.0.1:{port}/mcp")
            return caught.value

    error = asyncio.run(run())
    assert error.code == "tls"
    assert "wanted TLS 1.3, seen no TLS at all" in error.message
    assert "plain HTTP" in error.hint
