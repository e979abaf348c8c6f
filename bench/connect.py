"""A fresh connection and one request: attested (certificate, live quote, both verified) beside plain TLS 1.3."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import httpx2

from attestable_mcp import Policy, attested_http_client
from attestable_mcp.appraise.policy import TrustPolicy
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.tls.client import Gate
from attestable_mcp.tls.prover import ClientProver
from measure import table
from servers import running

ROUNDS, AIM_MS, MUTUAL_AIM = 60, 3.0, 1.6
BY: dict[Literal["quote", "key"], str] = {"quote": "live quote", "key": "bound by key"}
PATH = "/.well-known/attestation"


def plain(url: str) -> Callable[[], Awaitable[None]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    async def once() -> None:
        async with httpx2.AsyncClient(verify=context, trust_env=False) as http:
            await http.get(url)

    return once


def attested(url: str, binding: Literal["key", "quote"], *, mutual: bool = False) -> Callable[[], Awaitable[None]]:
    policy = Policy.genuine_only(trust=TrustPolicy(simulated="accept", binding=binding))
    prover = ClientProver(SimulatedAttester(b"\x05" * 32)) if mutual else None
    gate = Gate(
        policy, prover=prover
    )  # shared, so that collateral and the certificate are remembered; binding "quote" asks anew

    async def once() -> None:
        async with attested_http_client(policy, gate=gate) as http:
            await http.get(url)

    return once


async def measure(subjects: dict[str, Callable[[], Awaitable[None]]]) -> dict[str, float]:
    samples: dict[str, list[float]] = {name: [] for name in subjects}
    for call in subjects.values():
        await call()
    for _ in range(ROUNDS):
        for name, call in subjects.items():
            begun = time.perf_counter()
            await call()
            samples[name].append((time.perf_counter() - begun) * 1e3)
    return {name: statistics.median(values) for name, values in samples.items()}


def _aim(name: str, peer: bool) -> str:
    if peer:
        return "peer"
    return "see below" if name.startswith("mutual") else f"at most {AIM_MS:.0f} ms over plain"


def main() -> None:
    with contextlib.ExitStack() as stack:
        tls = stack.enter_context(running("tls")).removesuffix("/mcp") + PATH
        ours = stack.enter_context(running("attested")).removesuffix("/mcp") + PATH
        subjects = {
            "plain TLS 1.3": plain(tls),
            "attested, live quote": attested(ours, "quote"),
            "attested, bound by key": attested(ours, "key"),
        }
        for binding in BY:
            both = stack.enter_context(running(f"mutual-{binding}")).removesuffix("/mcp") + PATH
            subjects[f"mutual, {BY[binding]}"] = attested(both, binding, mutual=True)
        times = asyncio.run(measure(subjects))
    floor = times["plain TLS 1.3"]
    rows = [
        (
            name,
            f"{ms:.2f} ms",
            f"{ms / floor:.2f} x plain, {ms - floor:+.2f} ms",
            _aim(name, ms == floor),
        )
        for name, ms in times.items()
    ]
    rows += [
        (
            f"mutual over one-sided, {words}",
            "",
            f"{times[f'mutual, {words}'] / times[f'attested, {words}']:.2f} x one-sided",
            f"at most {MUTUAL_AIM} x",
        )
        for words in BY.values()
    ]
    table("connect and one request", rows)


if __name__ == "__main__":
    main()
