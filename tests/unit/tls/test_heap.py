"""Free memory goes back to the system after many connections, and only then."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import subprocess
import sys
import threading

import pytest

from attestable_mcp.tls import heap

pytestmark = pytest.mark.anyio
SCATTERED = """
from pathlib import Path
from attestable_mcp.tls import heap
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
both = [(bytearray(20_000), bytearray(600)) for _ in range(2000)]
kept = [small for _, small in both]
del both
before = resident()
assert heap.give_back()
print(before - resident())
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_it_is_done_after_many_connections_and_beside_the_event_loop() -> None:
    made, done = 5, list[int]()
    tending = asyncio.create_task(
        heap.tend(lambda: made, seconds=0.02, many=10, work=lambda: done.append(threading.get_ident()))
    )
    await asyncio.sleep(0.05)
    made = 14
    await asyncio.sleep(0.1)
    assert not done, "nine are few"
    made = 25
    async with asyncio.timeout(5):
        while not done:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert len(done) == 1, "once for each burst"
    assert done[0] != threading.get_ident()
    tending.cancel()


async def test_it_waits_until_no_more_come() -> None:
    steps = itertools.count(0, 10)
    done: list[int] = []
    tending = asyncio.create_task(heap.tend(lambda: next(steps), seconds=0.01, many=10, work=lambda: done.append(1)))
    await asyncio.sleep(0.1)
    assert not done
    tending.cancel()


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc"
)
def test_pages_between_what_is_kept_go_back() -> None:
    told = subprocess.run([sys.executable, "-c", SCATTERED], capture_output=True, text=True, check=True, timeout=30)
    assert int(told.stdout) > 16_000_000
