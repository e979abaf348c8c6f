"""What manifests and receipts cost: tool calls per second with each, beside the attested channel without them.

And how long a hundred thousand receipts take to verify offline, on one core, with how much memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from attestable_mcp import Policy, attested_client, attested_http_client
from attestable_mcp.appraise.offer import ReceiptPolicy
from attestable_mcp.bind.audit import audit
from attestable_mcp.bind.keys import BindingKey
from attestable_mcp.bind.receipt import Ledger
from attestable_mcp.mcp.client import AttestedClient
from calls import calls
from measure import table
from servers import running

TURNS, WARM_UP, CLIENTS, RECEIPTS, AIM, AIM_SECONDS = 1500, 50, 4, 100_000, 0.9, 60
SETTLED = 50
"""Turns after which what receipts put off is done: a session alone has some 50 calls in the half second."""
MODES = ("bare", "manifest", "receipts")
NAMES = {"bare": "attested channel alone", "manifest": "with manifest checks", "receipts": "with receipts as well"}

Seconds = dict[str, list[float]]


@contextlib.asynccontextmanager
async def connected(mode: str, url: str, folder: Path) -> AsyncIterator[Client]:
    policy = Policy.genuine_only(simulated="accept")
    if mode == "bare":
        async with (
            attested_http_client(policy) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            yield client
    else:
        policy = replace(policy, receipts=ReceiptPolicy(required=mode == "receipts", store=str(folder / "receipts")))
        async with attested_client(url, policy=policy) as client:
            yield client


async def turn(clients: list[Client]) -> float:
    """Seconds of one call in each session at once."""
    begun = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(calls(client, 1))
    return time.perf_counter() - begun


def settled(clients: list[Client]) -> float:
    """Seconds of all that receipts put off."""
    begun = time.perf_counter()
    for client in clients:
        if isinstance(client, AttestedClient) and (notary := client._watch.notary) is not None:
            notary.settle()
    return time.perf_counter() - begun


async def measure(urls: dict[str, str], folder: Path) -> tuple[Seconds, Seconds]:
    """Seconds of each turn and of each settling. The modes take turns: what else the machine does meets them alike."""
    turns: Seconds = {mode: [] for mode in MODES}
    settlings: Seconds = {mode: [] for mode in MODES}
    async with contextlib.AsyncExitStack() as stack:
        clients = {
            mode: [await stack.enter_async_context(connected(mode, urls[mode], folder)) for _ in range(CLIENTS)]
            for mode in MODES
        }
        for _ in range(WARM_UP):
            for mode in MODES:
                await turn(clients[mode])
        for number in range(TURNS):
            for mode in MODES:
                turns[mode].append(await turn(clients[mode]))
            for mode in MODES if number % SETTLED == 0 else ():
                settlings[mode].append(settled(clients[mode]))
    return turns, settlings


def write(path: Path) -> bytes:
    """Receipts in a file, each behind its length; gives the key that signed them."""
    key, name = BindingKey(), bytes(16)
    ledger = Ledger(key, names=lambda: name)
    with path.open("wb") as stream:
        for number in range(RECEIPTS):
            ledger.begin(name, number)
            message = ledger.issue(
                name,
                method="tools/call",
                name="add",
                request=bytes(32),
                result=bytes(32),
                item=bytes(32),
                manifest=bytes(32),
                transcript=bytes(64),
            )
            stream.write(len(message).to_bytes(4, "big") + message)
    return key.public


def read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while size := stream.read(4):
            yield stream.read(int.from_bytes(size, "big"))


def verify(path: Path, public: str) -> None:
    """In a process of its own: CPU seconds, and how much the peak of its memory grew."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.process_time()
    found = audit(read(path), [], bytes.fromhex(public), bytes(16))
    seconds = time.process_time() - begun
    assert found.whole
    assert found.receipts == RECEIPTS
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def main() -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        urls = {mode: stack.enter_context(running("bare" if mode == "bare" else "attested")) for mode in MODES}
        turns, settlings = asyncio.run(measure(urls, folder))
        later = {mode: statistics.median(values) / SETTLED for mode, values in settlings.items()}
        quick = {mode: statistics.quantiles(values, n=10)[0] + later[mode] for mode, values in turns.items()}
        usual = {mode: statistics.median(values) + later[mode] for mode, values in turns.items()}
        rows = [(NAMES["bare"], f"{CLIENTS / quick['bare']:.0f} calls/s", "1.00", "the floor")]
        for mode, floor in {"manifest": "bare", "receipts": "manifest"}.items():
            ratio = f"{quick[floor] / quick[mode]:.2f} in the best tenth, median {usual[floor] / usual[mode]:.2f}"
            figure = f"{CLIENTS / quick[mode]:.0f} calls/s"
            rows.append((NAMES[mode], figure, f"{ratio} x {NAMES[floor]}", f"at least {AIM}"))
        table(f"tool calls over {CLIENTS} live sessions", rows)
        path = folder / "chain"
        command = [sys.executable, __file__, "verify", str(path), write(path).hex()]
        seconds, grown = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        figure = f"{float(seconds):.1f} s of CPU, {int(grown) / 1024:.1f} MiB more memory"
        what = f"{RECEIPTS} receipts verified offline"
        table("receipts", [(what, figure, f"{RECEIPTS / float(seconds):.0f}/s", f"at most {AIM_SECONDS} s")])


if __name__ == "__main__":
    if sys.argv[1:2] == ["verify"]:
        verify(Path(sys.argv[2]), sys.argv[3])
    else:
        main()
