"""Many sessions at once: memory for each, and calls per second over all of them, attested beside plain HTTP.

Each session keeps its event stream open, as desktop hosts do, and then all call at the same time, so that every one
holds two connections. Memory is the proportional set size of the server's process, where /proc tells it, `SETTLE`
seconds after: once with the streams alone, once with the connections of the calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import httpx2

from attestable_mcp import Policy, attested_http_client
from measure import table
from servers import running_with_pid

SESSIONS, CALLS, KIB, SETTLE = 500, 4, 200, 8
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
ACCEPT = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}


def client(mode: str) -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=2 * SESSIONS + 10, max_keepalive_connections=2 * SESSIONS)
    if mode == "attested":
        return attested_http_client(Policy.genuine_only(simulated="accept"), pool=limits, timeout=120)
    return httpx2.AsyncClient(trust_env=False, timeout=120, limits=limits)


def resident(pid: int) -> int:
    """Bytes of the process that no other shares, or 0 where this system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


class Session:
    """One session with its event stream."""

    def __init__(self, http: httpx2.AsyncClient, url: str) -> None:
        self._http, self._url = http, url
        self._headers = dict(ACCEPT)
        self._stack = contextlib.AsyncExitStack()

    async def _post(self, message: dict[str, Any]) -> httpx2.Response:
        answer = await self._http.post(self._url, json={"jsonrpc": "2.0", **message}, headers=self._headers)
        answer.raise_for_status()
        return answer

    async def open(self) -> None:
        answer = await self._post({"id": 0, "method": "initialize", "params": HELLO})
        self._headers["Mcp-Session-Id"] = answer.headers["mcp-session-id"]
        await self._post({"method": "notifications/initialized"})
        await self._stack.enter_async_context(self._http.stream("GET", self._url, headers=self._headers))

    async def call(self, number: int) -> None:
        params = {"name": "add", "arguments": {"a": number, "b": 1}}
        answer = await self._post({"id": number + 1, "method": "tools/call", "params": params})
        if str(number + 1) not in answer.text:
            raise SystemExit(f"wrong answer: {answer.text[:200]}")

    async def close(self) -> None:
        await self._stack.aclose()
        await self._http.delete(self._url, headers=self._headers)


async def at_most(limit: int, work: list[Any]) -> None:
    """Run the coroutines, `limit` at a time."""
    gate = asyncio.Semaphore(limit)

    async def one(each: Any) -> None:
        async with gate:
            await each

    async with asyncio.TaskGroup() as group:
        for each in work:
            group.create_task(one(each))


async def settled(pid: int) -> int:
    """Bytes of the process once a burst is over."""
    await asyncio.sleep(SETTLE)
    return resident(pid)


async def measure(mode: str, url: str, pid: int) -> tuple[float, float, float, float]:
    """Bytes a session with its calls and without, seconds to open them all, calls a second over all."""
    async with client(mode) as http:
        for _ in range(20):  # what the first sessions cost is the server's start, not theirs
            warm = Session(http, url)
            await warm.open()
            await warm.call(1)
            await warm.close()
        before = await settled(pid)
        sessions = [Session(http, url) for _ in range(SESSIONS)]
        begun = time.perf_counter()
        await at_most(32, [session.open() for session in sessions])
        opening = time.perf_counter() - begun
        listening = (await settled(pid) - before) / SESSIONS
        begun = time.perf_counter()
        await at_most(SESSIONS, [session.call(n) for n in range(CALLS) for session in sessions])
        rate = SESSIONS * CALLS / (time.perf_counter() - begun)
        held = (await settled(pid) - before) / SESSIONS
        await at_most(32, [session.close() for session in sessions])
    return held, listening, opening, rate


def main() -> None:
    figures = {}
    for mode in ("plain", "attested"):
        with running_with_pid(mode) as (url, pid):
            figures[mode] = asyncio.run(measure(mode, url, pid))
    rows = []
    for mode, (held, listening, opening, rate) in figures.items():
        ratio = f"{held / figures['plain'][0]:.2f} x memory, {rate / figures['plain'][3]:.2f} x calls"
        figure = f"{held / 1024:.0f} KiB a session ({listening / 1024:.0f} before its call)"
        figure += f", open in {opening:.1f} s, {rate:.0f} calls/s"
        rows.append((mode, figure, ratio, f"under {KIB} KiB a session" if mode == "attested" else "floor"))
    table(f"{SESSIONS} sessions at once, each with its stream", rows)


if __name__ == "__main__":
    sys.exit(main())
