"""A long life of one `connect`, compressed: sessions, calls, all that can break; nothing is left over or lost.

A host of both eras on its stdio; behind it a network that drops connections and stands still, and a server whose
processes crash and which is killed and started again. Each request is answered once: by its result, or by an error that
names what became of it. Sized as the server's soak is; a minute of it is in `make test`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
from soaking import AT_ONCE, HELLO, META, SAMPLES, SEED, Say, Tally, children, needs_proc, serving, share

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(7200), needs_proc]
GROWTH_MIB = 8
STALL_SECONDS = 1.0
ANSWER_SECONDS = 30.0
BROKEN = {"connection_lost", "connection_closed", "no_response", "unreachable", "stalled", "tls"}
"""What may become of a request when its connection or its server goes."""
Message = dict[str, Any]


class Network:
    """A TCP proxy: what goes through it can be cut off, or stand still."""

    def __init__(self) -> None:
        self.target = 0
        self.port = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._pumps: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Network]:
        server = await asyncio.start_server(self._met, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            for pump in list(self._pumps):
                pump.cancel()
            await asyncio.gather(*self._pumps, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection."""
        for writer in list(self._writers):
            writer.transport.abort()

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[None]:
        """Connections are taken and bytes too, and nothing is passed on."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    async def _met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flowing.wait()
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        for one, other in ((reader, back), (there, writer)):
            pump = asyncio.create_task(self._pump(one, other))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with suppress(OSError):
                while data := await reader.read(65536):
                    await self._flowing.wait()
                    writer.write(data)
                    await writer.drain()
        finally:
            self._writers.discard(writer)
            writer.close()


class Host:
    """An MCP host on the stdio of a `connect`. Each request of its own has one answer, or the soak has failed."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._dropped: set[int] = set()
        self.strange: list[Message] = []
        self.faults = 0

    async def listen(self) -> None:
        """Until stdout ends."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            message = json.loads(line)
            if "method" in message:
                continue
            answer = self._waiting.pop(message["id"], None) if message["id"] is not None else None
            if answer is not None:
                answer.set_result(message)
            elif message["id"] is None:
                self.faults += 1
            elif message["id"] in self._dropped:
                self._dropped.discard(message["id"])
            else:
                self.strange.append(message)

    async def ask(self, method: str, params: Message) -> Message:
        """A request and its answer. Raises: TimeoutError for one that is lost."""
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self.say({"id": number, "method": method, "params": params})
        return await asyncio.wait_for(answer, ANSWER_SECONDS)

    async def drop(self, method: str, params: Message, *, answered: bool) -> None:
        """A request that is cancelled soon after; in the stateless era no answer need come."""
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self.say({"id": number, "method": method, "params": params})
        await asyncio.sleep(0.01)
        meta = {} if answered else {"_meta": META}
        await self.say({"method": "notifications/cancelled", "params": {"requestId": number, **meta}})
        if answered:
            await asyncio.wait_for(answer, ANSWER_SECONDS)
        elif self._waiting.pop(number, None) is not None:
            self._dropped.add(number)

    async def say(self, message: Message) -> None:
        await self.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")

    async def write(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)
        await self.process.stdin.drain()


class Life:
    """One `connect` among everything that can happen to it."""

    def __init__(self, host: Host, network: Network, tally: Tally) -> None:
        self._host, self._network, self.tally = host, network, tally
        self._random = random.Random(SEED)
        self._server = AsyncExitStack()

    async def run(self, calls: int, sessions: int) -> None:
        each, rounds = max(1, calls // sessions), self.tally.samples
        for number in range(rounds):
            for _ in range(sessions * (number + 1) // rounds - sessions * number // rounds):
                await self._session(each)
            await self._stall()
            await self._restart()
            await self.tally.sample()

    async def start(self) -> None:
        url, self._process = await self._server.enter_async_context(serving("--", sys.executable, "-S", "child.py"))
        self._network.target = httpx2.URL(url).port or 0

    async def stop(self) -> None:
        await self._server.aclose()

    # --- what a host does ------------------------------------------------------------------------------------------

    async def _session(self, calls: int) -> None:
        """A session of the handshake era, or as many calls of the stateless one; it begins in the same `connect`."""
        stateless = self._random.random() < 0.5
        if not stateless:
            await self._open()
        meta = {"_meta": META} if stateless else {}
        cut, crash = self._random.random() < 0.1, not stateless and self._random.random() < 0.1
        for begin in range(0, calls, AT_ONCE):
            numbers = range(begin, min(begin + AT_ONCE, calls))
            async with asyncio.TaskGroup() as group:
                for number in numbers:
                    group.create_task(self._add(number, meta))
                if cut:
                    cut = False
                    self._network.cut()
                    self.tally.done["cut"] += 1
            if self._random.random() < 0.003 * len(numbers):
                sleep = {"name": "sleep", "arguments": {"seconds": 0.05}, **meta}
                await self._host.drop("tools/call", sleep, answered=not stateless)
                self.tally.done["cancelled"] += 1
            if crash:
                crash = False
                await self._crash()
            if self._random.random() < 0.02:
                await self._host.write(b"{\n")
                self.tally.done["no JSON"] += 1
        self.tally.done["stateless" if stateless else "sessions"] += 1

    async def _open(self) -> None:
        while "result" not in (answer := await self._host.ask("initialize", HELLO)):
            self._excused(answer)
        await self._host.say({"method": "notifications/initialized"})

    async def _add(self, number: int, meta: Message) -> None:
        a = self._random.randrange(10**6)
        params = {"name": "add", "arguments": {"a": a, "b": number}, **meta}
        answer = await self._host.ask("tools/call", params)
        if "result" in answer:
            assert answer["result"]["content"][0]["text"] == str(a + number)
            self.tally.done["calls"] += 1
        else:
            self._excused(answer)

    def _excused(self, answer: Message) -> None:
        """An error that says what became of the request."""
        code = answer["error"].get("data", {}).get("code")
        assert code in BROKEN, answer
        self.tally.done[code] += 1

    # --- what happens to it ----------------------------------------------------------------------------------------

    async def _crash(self) -> None:
        """The process of this session dies in the call: the server forgets the session, the bridge opens another."""
        answer = await self._host.ask("tools/call", {"name": "crash", "arguments": {}})
        assert "ended" in answer["error"]["message"], answer
        self.tally.done["crashed"] += 1

    async def _stall(self) -> None:
        """The network stands still under running calls."""
        await self._open()
        before = self.tally.done["stalled"]
        async with self._network.frozen(), asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(self._add(number, {} if number else {"_meta": META}))
        assert self.tally.done["stalled"] >= before + 3
        self.tally.done["stalls"] += 1

    async def _restart(self) -> None:
        """The server is killed under running calls, and another one takes its place."""
        async with asyncio.TaskGroup() as group:
            for number in range(AT_ONCE):
                group.create_task(self._add(number, {} if number % 2 else {"_meta": META}))
            await asyncio.sleep(0.002)
            self._process.kill()
        await self._add(0, {})
        await self._server.aclose()
        await self.start()
        while self.tally.done["back"] <= self.tally.done["restarts"]:
            before = self.tally.done["calls"]
            await self._add(0, {})  # in the session that the new server does not know
            self.tally.done["back"] += self.tally.done["calls"] > before
        self.tally.done["restarts"] += 1


@asynccontextmanager
async def connected(port: int, log: Path) -> AsyncIterator[Host]:
    """A `connect` in a process of its own, which ends with code 0 and leaves no process behind."""
    url = f"https://127.0.0.1:{port}/mcp"
    trust = ("--genuine-only", "--danger-accept-simulated", "--stall", str(STALL_SECONDS))
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "attestable_mcp", "connect", url, *trust, stdin=-1, stdout=-1, stderr=stderr
        )
    host = Host(process)
    listening = asyncio.create_task(host.listen())
    assert process.stdin is not None
    try:
        yield host
        assert children(process.pid) == []
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 10) == 0
        await listening
    finally:
        listening.cancel()
        if process.returncode is None:
            process.kill()
            await process.wait()


async def soak(name: str, calls: int, sessions: int, *, samples: int, log: Path, progress: Say) -> Tally:
    network = Network()
    async with network.running(), connected(network.port, log) as host:
        life = Life(host, network, Tally(name=name, pid=host.process.pid, say=progress, samples=samples))
        await life.start()
        try:
            await life.run(calls, sessions)
        finally:
            await life.stop()
        assert host.strange == [], "answered twice, or never asked"
        assert host.faults == life.tally.done["no JSON"]
    assert "Traceback" not in log.read_text()
    return life.tally


@pytest.mark.slow
async def test_a_day_of_one_bridge_leaves_nothing_behind(tmp_path: Path, progress: Say) -> None:
    calls, sessions = share("bridge")
    tally = await soak("bridge", calls, sessions, samples=SAMPLES, log=tmp_path / "log", progress=progress)
    tally.check(growth_mib=GROWTH_MIB)
    done = tally.done
    assert done["sessions"] + done["stateless"] == sessions
    assert done["calls"] >= 0.9 * (calls // sessions) * sessions
    if calls >= 5000:  # fewer may meet no fault of a kind
        kinds = ("cut", "cancelled", "crashed", "no JSON", "stalled", "restarts", "connection_lost", "tls")
        assert all(done[kind] for kind in kinds), done


async def test_a_bad_minute_of_one_bridge(tmp_path: Path) -> None:
    tally = await soak("bridge", 100, 6, samples=1, log=tmp_path / "log", progress=lambda sentence: None)
    assert tally.done["sessions"] + tally.done["stateless"] == 6
    assert tally.done["calls"] >= 90
    assert (tally.done["stalls"], tally.done["restarts"], tally.done["stalled"] >= 3) == (1, 1, True)
