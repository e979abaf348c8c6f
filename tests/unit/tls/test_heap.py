"""Free memory goes back to the system after many connections, and only then."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from attestable_mcp.tls import heap

pytestmark = pytest.mark.anyio
MIB = 1024 * 1024


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def scattered() -> list[bytearray]:
    """What is kept, with 40 MB of free memory between."""
    both = [(bytearray(20_000), bytearray(600)) for _ in range(2000)]
    return [small for _, small in both]


async def test_pages_go_back_once_there_were_many_connections() -> None:
    if not Path("/proc/self/statm").exists() or not heap.give_back():
        pytest.skip("this system's C library gives nothing back")
    made = 0
    tending = asyncio.create_task(heap.tend(lambda: made, seconds=0.05, many=10))
    kept = scattered()
    before = resident()
    for made in (0, 9):
        await asyncio.sleep(0.2)
        assert resident() > before - 5 * MIB, made
    made = 10
    async with asyncio.timeout(5):
        while resident() > before - 20 * MIB:
            await asyncio.sleep(0.02)
    tending.cancel()
    assert len(kept) == 2000
