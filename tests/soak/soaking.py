"""How long a soak is, what is looked at meanwhile, and when it has failed.

`ATTESTABLE_SOAK_CALLS` and `ATTESTABLE_SOAK_SESSIONS` are the sums over all parts; `ATTESTABLE_SOAK_SEED` chooses the
faults.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

CALLS = int(os.environ.get("ATTESTABLE_SOAK_CALLS", "20000"))
SESSIONS = int(os.environ.get("ATTESTABLE_SOAK_SESSIONS", "500"))
SEED = int(os.environ.get("ATTESTABLE_SOAK_SEED", "1"))
SHARES = {"sdk": 0.2, "stdio": 0.4, "bridge": 0.4}
"""Of the calls and sessions, by what is soaked. The SDK's own server is the slowest, and least ours."""
AT_ONCE = 16
SAMPLES = 12
DESCRIPTORS = 8
QUIET_SECONDS = 9
"""The server ends an idle connection after 5 s; a session that was left after 5 s, seen within 1.25 s."""
HERE = Path(__file__).parent
VERSION = "2025-11-25"
HELLO = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "soak", "version": "1"}}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "soak", "version": "1"},
}
needs_proc = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="this system does not tell a process's memory and descriptors"
)
Say = Callable[[str], None]


def share(part: str) -> tuple[int, int]:
    """Calls and sessions of one part."""
    return int(CALLS * SHARES[part]), int(SESSIONS * SHARES[part])


@dataclass(slots=True, kw_only=True)
class Tally:
    """What happened, and what the process looked like meanwhile."""

    name: str
    pid: int
    say: Say
    samples: int = SAMPLES
    done: Counter[str] = field(default_factory=Counter)
    resident_mib: list[float] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)

    async def sample(self) -> None:
        """Look at the process, in a moment of quiet: idle connections and sessions that were left have time to end."""
        most = max(self.descriptors[:3], default=10**6) + DESCRIPTORS
        for _ in range(QUIET_SECONDS * 5):
            await asyncio.sleep(0.2)
            if (open_now := len(os.listdir(f"/proc/{self.pid}/fd"))) <= most:
                break
        self.descriptors.append(open_now)
        self.resident_mib.append(resident(self.pid))
        self.threads.append(len(os.listdir(f"/proc/{self.pid}/task")))
        self.say(
            f"  soak, {self.name}: {len(self.resident_mib)}/{self.samples}, {self.done['calls']} calls, "
            f"{self.resident_mib[-1]:.1f} MiB, {self.descriptors[-1]} descriptors, "
            f"{time.monotonic() - self.begun:.0f} s"
        )

    def check(self, *, growth_mib: float) -> None:
        """Memory flat once it has settled, no descriptor and no thread left over."""
        self.say(f"  soak, {self.name}: {dict(self.done)}")
        settled = self.resident_mib[self.samples // 4 :]
        assert max(settled[-3:]) - settled[0] < growth_mib, f"memory grows: {self.resident_mib}"
        assert max(self.descriptors[-3:]) <= max(self.descriptors[:3]) + DESCRIPTORS, f"leak: {self.descriptors}"
        assert max(self.threads[-3:]) <= max(self.threads[:3]) + DESCRIPTORS, f"leak: {self.threads}"


def resident(pid: int) -> float:
    """MiB of memory that are this process's alone: what it shares with others changes as those come and go."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1024


def children(pid: int) -> list[int]:
    """The processes that this one has started and that still are."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


@asynccontextmanager
async def serving(*target: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """`attestable-mcp serve` in a process of its own."""
    options = ("--attester", "simulated", "--json", "--max-sessions", "128", "--session-idle", "5")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "attestable_mcp", "serve", *(options if target[0] == "--" else options[:3]), *target,
        cwd=HERE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        yield json.loads(line)["url"], process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.communicate(), 30)
