"""Responses that go on (a listening stream, a long answer) while the proof behind them grows old (C13).

Nothing is asked on such a connection, so nothing would prove it again. The one who reads does, by its own clock, on a
connection of its own: the key that the first proof named must be vouched for anew. Where it is not, the stream ends.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import httpx2
import pytest

from attestable_mcp.appraise.policy import Policy, Rules, SgxRelease, TrustPolicy
from attestable_mcp.appraise.reattest import ReattestPolicy
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.bind.keys import BindingKey
from attestable_mcp.bind.live import Answer, Challenge
from attestable_mcp.errors import AttestationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.tls.challenge import AttestationMiddleware
from attestable_mcp.tls.client import Gate, attest_server, attested_http_client, attested_sync_http_client
from attestable_mcp.tls.server import Server

CODE = b"\x01" * 32
LIMIT = replace(LIMITS, stream_proof_seconds=0.05)
EVERY = 0.1
Twist = Callable[[Answer, Challenge], Answer]
Enough = Callable[[int], bool]


def _gate(every: float | None = EVERY) -> Gate:
    policy = Policy(
        rules=Rules(releases=(SgxRelease(label="it", mrenclave=CODE.hex()),)),
        trust=TrustPolicy(simulated="accept", endorsements=("stapled",)),
        reattest=ReattestPolicy(every=every),
    )
    return Gate(policy, limits=LIMIT)


class Streaming:
    """Sends a line each `pause` seconds, or as much as it can where that is 0, until nobody listens any more."""

    def __init__(self, pause: float) -> None:
        self.pause = pause
        self.body = b"data: x\n\n" if pause else bytes(65536)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b": begun\n", "more_body": True})
        await receive()
        gone = asyncio.ensure_future(receive())
        while not (await asyncio.wait({gone}, timeout=self.pause))[0]:
            await send({"type": "http.response.body", "body": self.body, "more_body": True})


class Told(AttestationMiddleware):
    """Notes each challenge, and may answer with anything."""

    asked: list[Challenge]
    twist: Twist

    async def answer(self, challenge: Challenge, channel: Any) -> Answer:
        self.asked.append(challenge)
        return self.twist(await super().answer(challenge, channel), challenge)


@asynccontextmanager
async def _serving(app: Any, twist: Twist = lambda answer, challenge: answer) -> AsyncIterator[tuple[Server, Told]]:
    async with Server(app, SimulatedAttester(CODE)) as server:
        told: Any = server.challenge
        told.__class__ = Told
        told.asked, told.twist = [], twist
        yield server, told


async def _lines(
    gate: Gate, url: str, seconds: float, *, blocking: bool = False, enough: Enough = lambda count: False
) -> int:
    """Read for so long, or until so many pieces are enough; how many came. A refusal leaves as it is."""
    if blocking:
        return await asyncio.to_thread(_lines_blocking, gate, url, seconds, enough)
    count = 0
    async with attested_http_client(gate.policy, url=url, gate=gate) as http, http.stream("GET", url) as response:
        try:
            async with asyncio.timeout(seconds):
                async for chunk in response.aiter_bytes():
                    count += 1
                    if enough(count):
                        break
                    await asyncio.sleep(0.005 if len(chunk) > 1024 else 0)  # so that more is always there already
        except TimeoutError:
            pass
    return count


def _lines_blocking(gate: Gate, url: str, seconds: float, enough: Enough) -> int:
    count, end = 0, time.monotonic() + seconds
    with attested_sync_http_client(gate.policy, url=url, gate=gate) as http, http.stream("GET", url) as response:
        for _ in response.iter_bytes():
            count += 1
            if enough(count) or time.monotonic() > end:
                break
    return count


BOTH = pytest.mark.parametrize("blocking", [False, True], ids=["async", "blocking"])


@BOTH
@pytest.mark.parametrize("pause", [0.0, 0.01, 2.5 * EVERY], ids=["flooding", "busy", "silent"])
def test_c13_a_response_that_goes_on_is_proven_again_by_its_readers_clock(pause: float, blocking: bool) -> None:
    async def run() -> None:
        async with _serving(Streaming(pause)) as (server, told):
            begun = time.monotonic()
            seen = await _lines(
                _gate(), server.url, 20.0, blocking=blocking, enough=lambda count: count > 1 and len(told.asked) >= 3
            )
            assert seen > 1, "an honest server is not interrupted"
            asked = list(told.asked)
            assert 3 <= len(asked) <= 1 + (time.monotonic() - begun) / EVERY
            assert [challenge.counter for challenge in asked] == list(range(len(asked)))
            assert len({challenge.previous for challenge in asked}) == len(asked)
            assert not any(challenge.known_key for challenge in asked), "by a quote each time"
            await asyncio.sleep(2 * EVERY)
            assert len(told.asked) == len(asked), "nobody reads any more, so nothing is asked"

    asyncio.run(run())


STALE = [("last", "channel_binding_mismatch"), ("first", "channel_binding_mismatch"), ("next", "stale_evidence")]


def _replays(which: str) -> Twist:
    """Honest twice; from the third challenge on an older answer, dressed up as far as that is possible."""
    history: list[Answer] = []

    def twist(answer: Answer, challenge: Challenge) -> Answer:
        history.append(answer)
        if len(history) < 3:
            return answer
        stale = {"last": history[-2], "first": history[0], "next": answer}[which]
        return replace(stale, counter=challenge.counter + 1 if which == "next" else challenge.counter)

    return twist


@BOTH
@pytest.mark.parametrize(("which", "code"), STALE)
def test_c13_an_open_stream_ends_where_its_server_answers_with_older_evidence(
    which: str, code: str, blocking: bool
) -> None:
    async def run() -> None:
        app = Streaming(0.02)
        async with _serving(app, _replays(which)) as (server, told):
            gate = _gate()
            with pytest.raises(AttestationError) as caught:
                await asyncio.wait_for(_lines(gate, server.url, 20.0, blocking=blocking), 10)
            assert caught.value.code == code
            assert len(told.asked) == 3
            with pytest.raises(AttestationError):  # and with it the conversation: the next request is not sent either
                await _lines(gate, server.url, 1.0)

    asyncio.run(run())


@BOTH
def test_c13_an_open_stream_ends_where_its_server_can_no_longer_prove_itself(blocking: bool) -> None:
    """The machine has been given to other code, which holds the old connection still."""

    async def run() -> None:
        async with _serving(Streaming(0.02)) as (server, told):

            async def usurp() -> None:
                await asyncio.sleep(2 * EVERY)
                told.quoter._attester = SimulatedAttester(b"\x66" * 32)

            gate = _gate()
            task = asyncio.create_task(usurp())
            with pytest.raises(AttestationError):
                await asyncio.wait_for(_lines(gate, server.url, 20.0, blocking=blocking), 10)
            await task

    asyncio.run(run())


@BOTH
def test_c13_another_instance_of_the_same_code_does_not_vouch_for_this_stream(blocking: bool) -> None:
    """Behind one address stand two: genuine both, but whoever answers now is not who sends here. No refusal either."""

    async def run() -> None:
        async with _serving(Streaming(0.02)) as (server, told):
            key = told._key

            def other(answer: Answer, challenge: Challenge) -> Answer:
                told._key = BindingKey()
                return answer

            told.twist = other
            gate = _gate()
            with pytest.raises(httpx2.ReadError, match="another instance"):
                await asyncio.wait_for(_lines(gate, server.url, 20.0, blocking=blocking), 10)
            told.twist, told._key = lambda answer, challenge: answer, key
            assert await _lines(gate, server.url, 5.0, enough=lambda count: count > 1) > 1, (
                "a new connection is as good as ever"
            )

    asyncio.run(run())


def test_c13_one_proof_does_for_all_open_streams() -> None:
    async def run() -> None:
        async with _serving(Streaming(0.03)) as (server, told):
            gate = _gate()
            await attest_server(gate.policy, server.url, gate=gate)
            opened: set[int] = set()
            since: list[tuple[float, int]] = []  # once all are open: one that opens late may owe a proof of its own

            def quotes() -> int:
                return sum(not challenge.known_key for challenge in told.asked)

            def seen(which: int, count: int) -> bool:
                opened.add(which)
                if len(opened) == 8 and not since:
                    since.append((time.monotonic(), quotes()))
                return bool(since) and count > 1 and quotes() >= since[0][1] + 4

            reading = (_lines(gate, server.url, 20.0, enough=partial(seen, which)) for which in range(8))
            assert min(await asyncio.gather(*reading)) > 1
            begun, before = since[0]
            assert 4 <= quotes() - before <= 1 + (time.monotonic() - begun) / EVERY, "eight streams, one proof a turn"

    asyncio.run(run())


@BOTH
def test_c13_never_is_never(blocking: bool) -> None:
    async def run() -> None:
        async with _serving(Streaming(0.02)) as (server, told):
            assert await _lines(_gate(every=None), server.url, 2 * EVERY, blocking=blocking) > 1
            assert len(told.asked) == 1

    asyncio.run(run())


def test_c13_the_time_between_two_proofs_has_a_floor() -> None:
    """A policy of a millisecond is no way to keep a server busy, nor to starve the reader."""

    async def run() -> None:
        async with _serving(Streaming(0.01)) as (server, told):
            begun = time.monotonic()
            assert await _lines(_gate(every=0.001), server.url, 0.3) > 5
            assert len(told.asked) <= 1 + (time.monotonic() - begun) / LIMIT.stream_proof_seconds

    asyncio.run(run())


@pytest.mark.parametrize("blocking", [False, True])
def test_c13_a_read_still_ends_in_its_own_time(blocking: bool) -> None:
    """The reader's timeout is not put off by proofs that go well."""

    async def run() -> None:
        async with _serving(Streaming(20.0)) as (server, told):
            gate = _gate()
            url, timeout = server.url, httpx2.Timeout(5.0, read=0.5)

            def blockingly() -> None:
                with attested_sync_http_client(gate.policy, url=url, gate=gate, timeout=timeout) as http:
                    with http.stream("GET", url) as response:
                        list(response.iter_bytes())

            async def asynchronously() -> None:
                async with attested_http_client(gate.policy, url=url, gate=gate, timeout=timeout) as http:
                    async with http.stream("GET", url) as response:
                        [_ async for _ in response.aiter_bytes()]

            with pytest.raises(httpx2.ReadTimeout):
                await asyncio.wait_for(asyncio.to_thread(blockingly) if blocking else asynchronously(), 10)
            assert len(told.asked) >= 3

    asyncio.run(run())
