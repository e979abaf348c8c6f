"""A long life of the server, compressed: calls and sessions with random faults; memory flat, nothing left over.

`make test-slow` runs a tenth of a day, `make soak` a day (`soaking` says by what it is sized).
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from soaking import (
    AT_ONCE,
    HELLO,
    META,
    SAMPLES,
    SEED,
    VERSION,
    Say,
    Tally,
    children,
    needs_proc,
    serving,
    share,
)

from attestable_mcp import Policy, attested_http_client

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(7200), needs_proc]
ACCEPT = {"Accept": "application/json, text/event-stream"}
GROWTH_MIB = 24


class Soak:
    """One client program with many sessions, some of which behave badly."""

    def __init__(self, url: str, tally: Tally, *, crashes: bool) -> None:
        self._url, self.tally, self._crashes = url, tally, crashes
        self._random = random.Random(SEED)
        pool = httpx2.Limits(max_connections=64, max_keepalive_connections=64)
        self._http = attested_http_client(Policy.genuine_only(simulated="accept"), url=url, pool=pool, timeout=60)

    async def run(self, calls: int, sessions: int) -> None:
        each = max(1, calls // sessions)
        async with self._http:
            for number in range(SAMPLES):
                share = sessions * (number + 1) // SAMPLES - sessions * number // SAMPLES
                gate = asyncio.Semaphore(AT_ONCE)
                async with asyncio.TaskGroup() as group:
                    for _ in range(share):
                        group.create_task(self._within(gate, each))
                await self.tally.sample()

    async def _within(self, gate: asyncio.Semaphore, calls: int) -> None:
        async with gate:
            await self._fault()
            if self._random.random() < 0.5:
                await self._session(calls)
            else:
                await self._stateless(calls)

    async def _session(self, calls: int) -> None:
        """A handshake-era session from `initialize` to DELETE; now and then it is just left."""
        headers = {**ACCEPT, "MCP-Protocol-Version": VERSION}
        opened = await self._post({"id": 0, "method": "initialize", "params": HELLO}, headers)
        headers["Mcp-Session-Id"] = opened.headers["mcp-session-id"]
        await self._post({"method": "notifications/initialized"}, headers)
        crashed = False
        for number in range(1, calls + 1):
            if self._crashes and self._random.random() < 0.0005:
                crashed = True
                break
            await self._add(number, headers, {})
        if crashed:
            await self._crash(headers)
        elif self._crashes and self._random.random() < 0.05:
            self.tally.done["left"] += 1
        else:
            await self._http.delete(self._url, headers=headers)
            self.tally.done["ended"] += 1

    async def _stateless(self, calls: int) -> None:
        headers = {**ACCEPT, "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call"}
        for number in range(1, calls + 1):
            if self._random.random() < 0.003:
                await self._cancelled({**headers, "Mcp-Name": "sleep"})
            await self._add(number, {**headers, "Mcp-Name": "add"}, {"_meta": META})
        self.tally.done["stateless"] += 1

    async def _add(self, number: int, headers: dict[str, str], more: dict[str, Any]) -> None:
        a = self._random.randrange(10**6)
        params = {"name": "add", "arguments": {"a": a, "b": number}, **more}
        answer = await self._post({"id": number, "method": "tools/call", "params": params}, headers)
        assert _result(answer)["content"][0]["text"] == str(a + number)
        self.tally.done["calls"] += 1

    async def _crash(self, headers: dict[str, str]) -> None:
        """The child of this session dies in the call: the client is told, and the server lives."""
        params = {"name": "crash", "arguments": {}}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        answer = await self._http.post(self._url, json=message, headers=headers)
        assert "error" in _message(answer)
        self.tally.done["crashed"] += 1

    async def _cancelled(self, headers: dict[str, str]) -> None:
        params = {"name": "sleep", "arguments": {"seconds": 0.05}, "_meta": META}
        with suppress(TimeoutError, httpx2.TransportError):
            async with asyncio.timeout(0.02):
                await self._post({"id": 7, "method": "tools/call", "params": params}, headers)
        self.tally.done["cancelled"] += 1

    async def _fault(self) -> None:
        """What the network and bad clients do."""
        kind = self._random.random()
        host, port = httpx2.URL(self._url).host, httpx2.URL(self._url).port
        if kind < 0.1:
            _, writer = await asyncio.open_connection(host, port)
            writer.write(self._random.randbytes(300))
            await writer.drain()
            writer.transport.abort()
            self.tally.done["no TLS"] += 1
        elif kind < 0.2:
            answer = await self._http.post(
                self._url, content=b"{", headers={**ACCEPT, "Content-Type": "application/json"}
            )
            assert 400 <= answer.status_code < 500
            self.tally.done["no JSON"] += 1
        elif kind < 0.3:
            headers = {**ACCEPT, "MCP-Protocol-Version": VERSION, "Mcp-Session-Id": "f" * 32}
            answer = await self._http.post(
                self._url, json={"jsonrpc": "2.0", "id": 1, "method": "ping"}, headers=headers
            )
            assert answer.status_code == 404
            self.tally.done["dead session"] += 1

    async def _post(self, message: dict[str, Any], headers: dict[str, str]) -> httpx2.Response:
        while True:
            answer = await self._http.post(self._url, json={"jsonrpc": "2.0", **message}, headers=headers)
            if answer.status_code != 503:
                break
            self.tally.done["told to wait"] += 1  # processes that ended in a row: the next starts are spaced out
            await asyncio.sleep(1)
        assert answer.status_code in (200, 202), (answer.status_code, answer.text[:300])
        return answer


def _message(answer: httpx2.Response) -> dict[str, Any]:
    """The response in JSON, or the last event of a stream."""
    text = answer.text
    if answer.headers["content-type"].startswith("text/event-stream"):
        text = [line[6:] for line in text.splitlines() if line.startswith("data: ")][-1]
    found: dict[str, Any] = json.loads(text)
    return found


def _result(answer: httpx2.Response) -> dict[str, Any]:
    found: dict[str, Any] = _message(answer)["result"]
    return found


def check(tally: Tally, calls: int, sessions: int) -> None:
    tally.check(growth_mib=GROWTH_MIB)
    done = tally.done
    assert done["calls"] >= 0.9 * (calls // sessions) * sessions
    assert sum(done[kind] for kind in ("ended", "left", "crashed", "stateless")) == sessions
    if calls >= 2500:  # fewer may meet no fault of a kind
        assert all(done[kind] for kind in ("no TLS", "no JSON", "dead session", "cancelled"))


async def until_gone(pid: int, most: int) -> list[int]:
    for _ in range(120):
        if len(left := children(pid)) <= most:
            return left
        await asyncio.sleep(0.25)
    return left


@pytest.mark.parametrize("kind", ["sdk", "stdio"])
async def test_a_day_of_use_leaves_nothing_behind(kind: str, progress: Say) -> None:
    stdio = kind == "stdio"
    target = ("--", sys.executable, "-S", "child.py") if stdio else ("sdk_server.py:mcp",)
    calls, sessions = share(kind)
    async with serving(*target) as (url, process):
        soak = Soak(url, Tally(name=kind, pid=process.pid, say=progress), crashes=stdio)
        await soak.run(calls, sessions)
        check(soak.tally, calls, sessions)
        left = await until_gone(process.pid, 1 if stdio else 0)
        assert len(left) <= (1 if stdio else 0), f"processes left over: {left}"
    for pid in left:
        assert not Path(f"/proc/{pid}").exists(), "the shared process outlived the server"
