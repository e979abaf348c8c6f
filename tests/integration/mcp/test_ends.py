"""How conversations end: killed and frozen servers, killed processes, stalled networks, lost sessions, closed stdin.

Each ends in the documented way within five seconds, loses no answer and leaves no process behind. The five seconds run
from the fault and are the programs' own (`fair`); how long a program takes to start is held elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from eras import LEGACY, MODERN, bridge_to, era_server, until
from fair import Since
from mcp import Client, MCPError
from processes import is_alive

from attestable_mcp.mcp.bridge_pulse import Pulse

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]
PATIENCE = 60.0
"""Seconds for what is no claim: programs that start, calls that arrive."""
PLAIN = Path(__file__).with_name("plain_server.py")
TRUST = ["--genuine-only", "--danger-accept-simulated"]
ERAS = pytest.mark.parametrize("era", ["legacy", "modern"])
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
}
OPEN = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}


class Proxy:
    """A TCP proxy that can stand still: it takes connections and bytes, and passes nothing on."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.port = 0

    def freeze(self) -> None:
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        """Stop it last: what it holds is dropped."""
        tasks: set[asyncio.Task[None]] = set()

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                while data := await reader.read(65536):
                    await self._flowing.wait()
                    writer.write(data)
                    await writer.drain()
            writer.close()

        async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._flowing.wait()
            try:
                there, back = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                writer.close()
                return
            for one, other in ((reader, back), (there, writer)):
                task = asyncio.create_task(pump(one, other))
                tasks.add(task)
                task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(met, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(tasks):
                task.cancel()


class Host:
    """A host of one era on the stdio of a process."""

    def __init__(self, process: asyncio.subprocess.Process, era: str) -> None:
        self.process = process
        self._modern = era == "modern"

    async def open(self) -> None:
        if not self._modern:
            self.send(0, "initialize", OPEN)
            assert "result" in await self.answer(0)
            self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def send(self, number: int, method: str, params: dict[str, Any]) -> None:
        meta = {"_meta": ENVELOPE} if self._modern else {}
        self.say({"jsonrpc": "2.0", "id": number, "method": method, "params": params | meta})

    def call(self, number: int, tool: str, **arguments: Any) -> None:
        self.send(number, "tools/call", {"name": tool, "arguments": arguments})

    def say(self, message: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")

    async def answer(self, number: int, seconds: float = PATIENCE) -> Any:
        assert self.process.stdout is not None
        with anyio.fail_after(seconds):
            while True:
                line = await self.process.stdout.readline()
                assert line, "stdout ended"
                message = json.loads(line)
                if message.get("id") == number and "method" not in message:
                    return message

    async def echoed(self, number: int) -> bool:
        self.call(number, "echo", x=number)
        found = await self.answer(number)
        return bool(found.get("result", {}).get("content", [{}])[0].get("text") == json.dumps({"x": number}))


@asynccontextmanager
async def started(*words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdin=-1, stdout=-1, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


class Stack:
    """`connect` before a proxy before `serve -- plain_server`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        (folder / "pids").mkdir()
        self.log.touch()

    @asynccontextmanager
    async def server(self, listen: str = "127.0.0.1:0") -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
        plain = ["-S", str(PLAIN), "--pid-folder", str(self.folder / "pids"), "--log", str(self.log)]
        serve = ["-m", "attestable_mcp", "serve", "--attester", "simulated", "--listen", listen, "--json"]
        async with started(*serve, "--", sys.executable, *plain) as process:
            assert process.stdout is not None
            with anyio.fail_after(PATIENCE):
                ready = json.loads(await process.stdout.readline())
            yield process, httpx2.URL(ready["url"]).port or 0

    @asynccontextmanager
    async def host(self, port: int, era: str, *more: str) -> AsyncIterator[Host]:
        url = f"https://127.0.0.1:{port}/mcp"
        async with started("-m", "attestable_mcp", "connect", url, *TRUST, *more) as process:
            host = Host(process, era)
            await host.open()
            assert await host.echoed(1)
            yield host

    def pids(self) -> list[int]:
        """In the order in which they were started."""
        found = sorted((self.folder / "pids").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        return [int(path.name) for path in found]

    async def none_left(self, of: list[int] | None = None) -> None:
        """No process of the server's is there any more, or within five seconds."""
        pids = self.pids() if of is None else of
        since = Since(*pids)
        while any(is_alive(pid) for pid in pids):
            assert since.seconds < 5, f"left over: {pids}"
            await anyio.sleep(0.02)

    async def hanging(self, host: Host, number: int) -> None:
        before = self.log.read_text().count("hang")
        host.call(number, "hang")
        with anyio.fail_after(PATIENCE):
            while self.log.read_text().count("hang") == before:
                await anyio.sleep(0.02)


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return Stack(tmp_path)


async def ended_by(host: Host, number: int) -> tuple[str, float]:
    """The code of the error that answers this call, and how many seconds from now on it took."""
    since = Since(host.process.pid)
    error = (await host.answer(number))["error"]
    return error.get("data", {}).get("code", error["message"]), since.seconds


@pytest.mark.slow
@ERAS
async def test_a_stalled_network_ends_calls_within_five_seconds_and_recovers(era: str, stack: Stack) -> None:
    async with stack.server() as (_, port), Proxy(port).running() as proxy, stack.host(proxy.port, era) as host:
        await stack.hanging(host, 2)
        proxy.freeze()
        code, seconds = await ended_by(host, 2)
        assert (code, seconds < 5) == ("stalled", True), seconds
        host.call(3, "echo")
        code, seconds = await ended_by(host, 3)
        assert (code, seconds < 5) == ("stalled", True), seconds
        proxy.thaw()
        assert await host.echoed(4)


@pytest.mark.slow
@ERAS
async def test_a_long_call_of_a_server_that_lives_is_left_alone(era: str, stack: Stack) -> None:
    """Silent for several times the allowed silence, and answered in the end."""
    async with stack.server() as (_, port), stack.host(port, era, "--stall", "1.2") as host:
        host.call(2, "sleep", seconds=4.0)
        found = await host.answer(2)
        assert found.get("result", found)["content"][0]["text"] == "slept", found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP")
async def test_a_frozen_server_ends_calls_within_five_seconds(stack: Stack) -> None:
    async with stack.server() as (server, port), stack.host(port, "modern") as host:
        await stack.hanging(host, 2)
        server.send_signal(signal.SIGSTOP)
        try:
            code, seconds = await ended_by(host, 2)
        finally:
            server.send_signal(signal.SIGCONT)
        assert (code, seconds < 5) == ("stalled", True), seconds
        assert await host.echoed(3)


@pytest.mark.slow
@ERAS
async def test_a_killed_server_ends_calls_at_once_and_another_is_taken(era: str, stack: Stack) -> None:
    """With a session of the handshake era, which the new server does not know."""
    async with stack.server() as (first, port):
        async with Proxy(port).running() as proxy, stack.host(proxy.port, era) as host:
            await stack.hanging(host, 2)
            first.kill()
            code, seconds = await ended_by(host, 2)
            assert code in ("connection_lost", "no_response")
            assert seconds < 5
            await first.wait()
            async with stack.server(f"127.0.0.1:{port}"):
                assert await host.echoed(3)
                assert await host.echoed(4)
    await stack.none_left()


@pytest.mark.slow
@ERAS
async def test_a_killed_process_behind_the_server_is_reported_at_once(era: str, stack: Stack) -> None:
    async with stack.server() as (server, port), stack.host(port, era) as host:
        host.call(2, "pid")
        pid = int((await host.answer(2))["result"]["content"][0]["text"])
        await stack.hanging(host, 3)
        os.kill(pid, signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
        since = Since(host.process.pid, server.pid)
        error = (await host.answer(3))["error"]
        assert since.seconds < 5
        assert error["code"] == -32000
        assert "ended" in error["message"]
        assert await host.echoed(4)


@pytest.mark.slow
@ERAS
async def test_stdin_closed_while_calls_run_loses_no_answer_and_leaves_no_process(era: str, stack: Stack) -> None:
    async with stack.server() as (server, port):
        async with stack.host(port, era) as host:
            for number in range(2, 7):
                host.call(number, "sleep", seconds=0.3)
            await stack.hanging(host, 7)
            since = Since(host.process.pid, server.pid)
            out, _ = await asyncio.wait_for(since.during(host.process.communicate(b"")), PATIENCE)
            assert since.seconds < 5
            assert host.process.returncode == 0
        answers = {message["id"]: message for message in map(json.loads, out.splitlines()) if "method" not in message}
        assert all("result" in answers[number] for number in range(2, 7)), answers
        assert answers[7]["error"]["data"]["code"] == "closing"
        if (
            era == "legacy"
        ):  # the session has ended, and its process with it; the one that answered a probe has gone before
            await stack.none_left(stack.pids()[1:])
        server.terminate()
        await asyncio.wait_for(server.wait(), PATIENCE)
    await stack.none_left()
    assert len(stack.pids()) >= 1


# --- in this process ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [LEGACY, MODERN])
async def test_a_stalled_network_ends_calls_and_recovers(mode: str, serve_plain: Any) -> None:
    seen: list[str] = []
    server = era_server(seen)
    app = server.streamable_http_app()
    async with server.session_manager.run(), serve_plain(app) as origin:
        async with Proxy(httpx2.URL(origin).port or 0).running() as proxy:
            transport = bridge_to(f"http://127.0.0.1:{proxy.port}/mcp", stall=1.2)
            async with Client(transport, mode=mode) as client, anyio.create_task_group() as tasks:
                caught: list[MCPError] = []

                async def hang() -> None:
                    try:
                        await client.call_tool("hang", {})
                    except MCPError as error:
                        caught.append(error)

                tasks.start_soon(hang)
                await until(lambda: bool(seen))
                proxy.freeze()
                since = Since()
                await until(lambda: bool(caught))
                assert since.seconds < 4
                assert caught[0].error.data["code"] == "stalled"
                assert "--stall" in caught[0].error.data["hint"]
                proxy.thaw()
                assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}


# --- the sign of life itself ------------------------------------------------------------------------------------


async def judged(seconds: float, url: str, handler: Callable[..., Any]) -> bool:
    """Does the watch call a server at this URL, whose requests `handler` answers, stalled within a while?"""
    ended = anyio.Event()

    async def stalled() -> None:
        ended.set()

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(handler)) as http, anyio.create_task_group() as tasks:
        pulse = Pulse(url, http, seconds=seconds)
        tasks.start_soon(pulse.watch, lambda: True, stalled)
        pulse.begin()
        with anyio.move_on_after(seconds * 2.5 + 0.5):
            await ended.wait()
        tasks.cancel_scope.cancel()
    return ended.is_set()


async def silent(request: httpx2.Request) -> httpx2.Response:
    await anyio.sleep(60)
    return httpx2.Response(200)


async def refusing(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("no") from ConnectionRefusedError(111, "refused")


async def unreachable(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("no") from OSError(113, "no route to host")


async def test_what_is_a_sign_of_life_and_what_is_none() -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async def gruff(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x15")
        writer.close()

    async def holds(behind: Any, handler: Callable[..., Any], wanted: bool) -> None:
        server = await asyncio.start_server(behind, "127.0.0.1", 0)
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
        assert await judged(0.8, url, handler) == wanted
        server.close()

    async with asyncio.TaskGroup() as group:
        for behind, handler, wanted in (
            (mute, lambda request: httpx2.Response(405), False),
            (mute, refusing, False),
            (mute, silent, True),
            (mute, unreachable, True),
            (gruff, silent, False),
        ):
            group.create_task(holds(behind, handler, wanted))


async def test_the_watch_can_be_switched_off() -> None:
    assert not await judged(0.0, "https://127.0.0.1:1/mcp", silent)
