"""Tool calls per second through an attested connection, beside plain TLS 1.3 (standard library) and plain HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import statistics
import time
from collections.abc import AsyncIterator

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from attestable_mcp import Policy, attested_http_client
from measure import table
from servers import running

ROUNDS, CALLS, CLIENTS, AIM = 7, 200, 4, 0.9
MODES = ("plain", "tls", "attested")


def http_client(mode: str) -> httpx2.AsyncClient:
    if mode == "attested":
        return attested_http_client(Policy.genuine_only(simulated="accept"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return httpx2.AsyncClient(verify=context, trust_env=False, timeout=30)


@contextlib.asynccontextmanager
async def connected(mode: str, url: str) -> AsyncIterator[Client]:
    async with http_client(mode) as http, Client(streamable_http_client(url, http_client=http)) as client:
        yield client


async def calls(client: Client, count: int) -> None:
    for number in range(count):
        await client.call_tool("add", {"a": number, "b": 1})


async def rate(clients: list[Client]) -> float:
    """Calls per second over all clients at once."""
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(calls(client, CALLS // len(clients)))
    return CALLS / (time.perf_counter() - begun)


async def measure(urls: dict[str, str]) -> dict[str, float]:
    rates: dict[str, list[float]] = {mode: [] for mode in MODES}
    async with contextlib.AsyncExitStack() as stack:
        clients = {
            mode: [await stack.enter_async_context(connected(mode, urls[mode])) for _ in range(CLIENTS)]
            for mode in MODES
        }
        for mode in MODES:
            await rate(clients[mode])
        for _ in range(ROUNDS):
            for mode in MODES:
                rates[mode].append(await rate(clients[mode]))
    return {mode: statistics.median(values) for mode, values in rates.items()}


def main() -> None:
    with contextlib.ExitStack() as stack:
        urls = {mode: stack.enter_context(running(mode)) for mode in MODES}
        rates = asyncio.run(measure(urls))
    aims = {"plain": "peer", "tls": "peer", "attested": f"at least {AIM} x plain TLS"}
    names = {"plain": "plain HTTP", "tls": "plain TLS 1.3 (ssl)", "attested": "attested"}
    rows = [
        (
            names[mode],
            f"{rates[mode]:.0f} calls/s",
            f"{rates[mode] / rates['tls']:.2f} x plain TLS, {rates[mode] / rates['plain']:.2f} x plain HTTP",
            aims[mode],
        )
        for mode in MODES
    ]
    table(f"tool calls over {CLIENTS} live sessions", rows)


if __name__ == "__main__":
    main()
