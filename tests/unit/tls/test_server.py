"""The server: start, readiness, limits, renewal under live connections, drain, and failures to start."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from attestable_mcp.appraise.policy import Policy, Rules, SgxRelease, TrustPolicy
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.bind.live import Commitments
from attestable_mcp.errors import AttesterError, ConfigurationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Endorsements, Evidence
from attestable_mcp.tls.client import Gate, attest_server, attested_http_client
from attestable_mcp.tls.engine import ClientContext
from attestable_mcp.tls.listening import listen
from attestable_mcp.tls.server import Server, serve_app
from attestable_mcp.tls.streams import AsyncBackend

ATTESTER = SimulatedAttester(b"\x01" * 32)
POLICY = Policy(
    rules=Rules(releases=(SgxRelease(mrenclave="01" * 32),)),
    trust=TrustPolicy(simulated="accept", endorsements=("stapled",)),
)


async def _echo(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message.get("body", b""), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def test_it_tells_where_and_who_it_is() -> None:
    async def run() -> None:
        async with Server(_echo, ATTESTER) as server:
            assert server.url == f"https://127.0.0.1:{server.port}"
            assert (server.tee, server.simulated) == ("sgx", True)
            peer = await attest_server(POLICY, server.url)
            assert peer.spki_sha256 == server.spki_sha256

    asyncio.run(run())


def test_what_is_committed_to_reaches_the_client_as_it_is_now() -> None:
    async def run() -> list[bytes]:
        now = [Commitments(manifest=b"a" * 32)]
        seen = []
        async with Server(_echo, ATTESTER, commitments=lambda: now[0]) as server:
            for value in (b"a" * 32, b"b" * 32):
                now[0] = Commitments(manifest=value)
                seen.append((await attest_server(POLICY, server.url)).commitments.manifest)
        return seen

    assert asyncio.run(run()) == [b"a" * 32, b"b" * 32]


@pytest.mark.parametrize("chunked", [False, True])
def test_bodies_over_the_limit_are_refused(chunked: bool) -> None:
    async def run() -> list[int]:
        seen = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                seen.append(1)
                await _echo(scope, receive, send)

        async def pieces() -> Any:
            for _ in range(30):
                yield b"x" * 1000

        async with Server(app, ATTESTER, max_body=10_000) as server:
            async with attested_http_client(POLICY, url=server.url) as client:
                fits = await client.post(server.url, content=b"x" * 10_000)
                over = await client.post(server.url, content=pieces() if chunked else b"x" * 10_001)
        return [fits.status_code, over.status_code, len(seen)]

    assert asyncio.run(run()) == [200, 413, 2 if chunked else 1]


def test_headers_over_the_limit_are_refused() -> None:
    async def run() -> int:
        async with Server(_echo, ATTESTER) as server:
            async with attested_http_client(POLICY, url=server.url) as client:
                return (await client.get(server.url, headers={"x-big": "y" * 70_000})).status_code

    assert asyncio.run(run()) == 431


def test_a_head_that_is_dripped_ends_the_connection() -> None:
    """Also after a request that was answered; and a body or an answer may take longer than a head."""

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.6)
        await _echo(scope, receive, send)

    async def run() -> None:
        async with Server(slow, ATTESTER, limits=replace(LIMITS, head_seconds=0.3)) as server:
            stream = await AsyncBackend(Gate(POLICY)).connect_tcp("127.0.0.1", server.port)
            await stream.start_tls(server.context, "127.0.0.1")
            await stream.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n")
            await asyncio.sleep(0.5)
            await stream.write(b"ab")
            assert b"200" in await stream.read(1000, 5.0)
            for byte in b"GET / HT":
                await stream.write(bytes((byte,)))
                await asyncio.sleep(0.01)
            while await stream.read(1000, 5.0):
                pass
            await stream.aclose()

    asyncio.run(run())


def test_a_connection_on_which_nothing_is_asked_ends() -> None:
    def idle(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), 5.0) as sock:
            return ClientContext().wrap_socket(sock).recv(1)

    async def run() -> bytes:
        async with Server(_echo, ATTESTER, limits=replace(LIMITS, head_seconds=0.3)) as server:
            return await asyncio.to_thread(idle, server.port)

    assert asyncio.run(run()) == b""


def test_trailers_are_no_headers() -> None:
    """What stands after a body reaches no application that has already looked at the headers."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        seen.append([name for name, _ in scope["headers"]])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async def run() -> None:
        async with Server(app, ATTESTER) as server:
            stream = await AsyncBackend(Gate(POLICY)).connect_tcp("127.0.0.1", server.port)
            await stream.start_tls(server.context, "127.0.0.1")
            head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
            await stream.write(head + b"1\r\na\r\n0\r\nmcp-session-id: theirs\r\n\r\n")
            assert b"200" in await stream.read(1000, 5.0)
            await stream.aclose()

    asyncio.run(run())
    assert seen == [[b"host", b"transfer-encoding"]]


def test_renewal_swaps_the_certificate_while_connections_live() -> None:
    async def run() -> None:
        async with Server(_echo, ATTESTER, lifetime=timedelta(seconds=2)) as server:
            first = server.spki_sha256
            async with attested_http_client(POLICY, url=server.url) as client:
                before = (await client.post(server.url, content=b"1")).extensions["attestation"]
                async with asyncio.timeout(5):
                    while server.spki_sha256 == first:
                        await asyncio.sleep(0.05)
                after = (await client.post(server.url, content=b"2")).extensions["attestation"]
                assert before is after, "the same connection lived on"
            peer = await attest_server(POLICY, server.url)
            assert before.spki_sha256 == first
            assert peer.spki_sha256 == server.spki_sha256 != first

    asyncio.run(run())


class Failing:
    """Attests once, then its device is gone."""

    tee = "sgx"
    simulated = True

    def __init__(self, good: int) -> None:
        self._left = good

    def attest(self, report_data: bytes) -> Evidence:
        self._left -= 1
        if self._left < 0:
            raise AttesterError("device gone")
        return ATTESTER.attest(report_data)

    def endorsements(self) -> Endorsements:
        return ATTESTER.endorsements()


def test_a_device_that_fails_at_renewal_leaves_the_old_certificate() -> None:
    async def run() -> None:
        async with Server(_echo, Failing(1)) as server:
            first = server.spki_sha256
            with pytest.raises(AttesterError):
                await server.renew()
            assert server.spki_sha256 == first == server.context.identity.spki_sha256.hex()

    asyncio.run(run())


def test_a_device_that_fails_at_once_is_told() -> None:
    async def run() -> None:
        async with Server(_echo, Failing(0)):
            pass

    with pytest.raises(AttesterError, match="device gone"):
        asyncio.run(run())


def test_requests_under_way_are_answered_before_it_stops() -> None:
    async def run() -> bytes:
        entered = asyncio.Event()

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                entered.set()
                await asyncio.sleep(0.3)
                await _echo(scope, receive, send)

        server = Server(slow, ATTESTER)
        async with server, attested_http_client(POLICY, url=server.url) as client:
            request = asyncio.create_task(client.post(server.url, content=b"drained"))
            await entered.wait()
            await server.aclose()
            return (await request).content

    assert asyncio.run(run()) == b"drained"


def test_a_request_that_outlasts_the_time_to_drain_is_cut_off() -> None:
    async def run() -> list[str]:
        entered, met = asyncio.Event(), []

        async def endless(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                entered.set()
                try:
                    await asyncio.sleep(60)
                except asyncio.CancelledError:
                    met.append("cut off")
                    raise

        async with Server(endless, ATTESTER, drain_seconds=0) as server:
            async with attested_http_client(POLICY, url=server.url) as client:
                request = asyncio.create_task(client.post(server.url))
                await entered.wait()
                await server.aclose()
                assert (await request).status_code == 500
        return met

    assert asyncio.run(asyncio.wait_for(run(), 10)) == ["cut off"]


def test_it_stops_at_once_where_nothing_is_under_way() -> None:
    """Also with a connection on which nothing is asked. On a busy machine the fastest of some counts."""

    async def once() -> float:
        async with Server(_echo, ATTESTER) as server, attested_http_client(POLICY, url=server.url) as client:
            assert (await client.post(server.url, content=b"1")).content == b"1"
            begun = time.monotonic()
            await server.aclose()
            return time.monotonic() - begun

    assert any(asyncio.run(once()) < 0.05 for _ in range(10))


def test_nothing_wakes_it_while_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> list[float]:
        loop, timers = asyncio.get_running_loop(), []
        at = loop.call_at
        async with Server(_echo, ATTESTER):
            monkeypatch.setattr(loop, "call_at", lambda when, *rest, **kw: timers.append(when) or at(when, *rest, **kw))
            await asyncio.sleep(0.11)
            return timers.copy()

    assert len(asyncio.run(run())) == 1, "this test's own"


def test_a_port_that_is_taken_and_a_bad_address_are_configuration_errors() -> None:
    async def run(**options: Any) -> None:
        async with Server(_echo, ATTESTER, **options):
            pass

    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(ConfigurationError, match="listen address"):
            asyncio.run(run(port=taken.getsockname()[1]))
    with pytest.raises(ConfigurationError, match="listen address"):
        asyncio.run(run(host="no such host"))
    with pytest.raises(ConfigurationError, match="listen address"):
        asyncio.run(run(port=70_000))


def test_an_application_that_refuses_to_start_is_a_configuration_error() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no"})

    async def run() -> None:
        async with Server(broken, ATTESTER, lifespan="on"):
            pass

    with pytest.raises(ConfigurationError, match="refused to start"):
        asyncio.run(run())


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to send to oneself")
def test_serve_app_ends_at_sigterm_and_gives_the_handlers_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    urls = []

    def ready(server: Server) -> None:
        urls.append(server.url)
        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()

    asyncio.run(asyncio.wait_for(serve_app(_echo, ATTESTER, ready=ready), 10))
    assert urls
    assert signal.getsignal(signal.SIGTERM) is before


def test_why_an_address_cannot_be_listened_at_is_told_with_a_step_that_fits() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(ConfigurationError) as caught:
        listen("127.0.0.1", taken.getsockname()[1])
    assert "0 takes a free one" in caught.value.hint
    with pytest.raises(ConfigurationError) as caught:
        listen("192.0.2.1", 0)  # RFC 5737: nobody's
    assert "an address of this machine" in caught.value.hint
