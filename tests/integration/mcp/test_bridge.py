"""`connect` as a host starts it: the SDK's client on its stdio, attested servers of both eras behind it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from fair import Since
from mcp import Client, StdioServerParameters
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.types import CreateMessageResult, ElicitResult, SamplingMessage, TextContent
from pydantic import BaseModel

from attestable_mcp import serve

pytestmark = pytest.mark.anyio
ERAS = ("legacy", "auto")
MEASURED = bytes(range(32))
OPEN = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
    "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}}  # fmt: skip
OPENED = {"jsonrpc": "2.0", "method": "notifications/initialized"}
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
}


@pytest.fixture
def policy(tmp_path: Path) -> Callable[..., Path]:
    """A policy file that asks for one measurement."""

    def write(mrenclave: bytes = MEASURED) -> Path:
        path = tmp_path / f"{mrenclave.hex()[:8]}.toml"
        path.write_text(
            f'[trust]\nsimulated = "accept"\nendorsements = ["stapled"]\n\n[policy]\nmrenclave = "{mrenclave.hex()}"\n'
        )
        return path

    return write


def bridge_words(url: str, policy: Path, *more: str) -> list[str]:
    return ["-m", "attestable_mcp", "connect", url, "--policy", str(policy), *more]


def through(url: str, policy: Path) -> Any:
    return StdioServerParameters(command=sys.executable, args=bridge_words(url, policy))


class Raw:
    """`connect` as a process, spoken to in lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    def send(self, message: dict[str, Any] | str) -> None:
        text = message if isinstance(message, str) else json.dumps(message)
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")

    async def take(self) -> Any:
        assert self.process.stdout is not None
        with anyio.fail_after(40):
            line = await self.process.stdout.readline()
        assert line, "stdout ended"
        message = json.loads(line)
        assert message["jsonrpc"] == "2.0"
        return message

    async def answer(self, request_id: object) -> Any:
        while (message := await self.take()).get("id") != request_id or "method" in message:
            pass
        return message

    async def opened(self) -> Any:
        self.send(OPEN)
        answer = await self.answer(1)
        self.send(OPENED)
        return answer

    async def end(self) -> tuple[float, bytes, bytes]:
        """Close stdin: the seconds until the end, the rest of stdout, stderr."""
        since = Since(self.process.pid)
        out, err = await asyncio.wait_for(since.during(self.process.communicate(b"")), 40)
        return since.seconds, out, err


@asynccontextmanager
async def raw(url: str, policy: Path, *more: str) -> AsyncIterator[Raw]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *bridge_words(url, policy, *more),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Raw(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


def call(request_id: object, tool: str, arguments: dict[str, Any] | None = None, **meta: Any) -> dict[str, Any]:
    params: dict[str, Any] = {"name": tool, "arguments": arguments or {}}
    if meta:
        params["_meta"] = meta["_meta"]
    return {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}


class Name(BaseModel):
    name: str


def full_server() -> MCPServer:
    server = MCPServer("full", log_level="ERROR")

    @server.tool()
    async def add(a: int, b: int) -> int:
        return a + b

    @server.tool()
    async def steps(context: Context[Any, Any]) -> str:
        for number in range(3):
            await context.report_progress(number, 3, "step")
        return "done"

    @server.tool()
    async def sample(context: Context[Any, Any]) -> str:
        message = SamplingMessage(role="user", content=TextContent(type="text", text="?"))
        answer = await context.session.create_message(messages=[message], max_tokens=9)
        return str(answer.content.text)

    @server.tool()
    async def ask(context: Context[Any, Any]) -> str:
        answer = await context.elicit("who?", Name)
        return answer.data.name if answer.action == "accept" else answer.action

    @server.tool()
    async def changed(context: Context[Any, Any]) -> str:
        await context.session.send_tool_list_changed()
        return "told"

    @server.resource("demo://hello")
    def hello() -> str:
        return "hello"

    @server.prompt()
    def greet(name: str) -> str:
        return f"greet {name}"

    return server


async def dialogue(target: Any, era: str) -> dict[str, Any]:
    """Everything that an ordinary client does, as data."""
    seen: list[Any] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))

    def shape(value: Any) -> Any:
        return value.model_dump(mode="json", by_alias=True, exclude_none=True)

    async with Client(target, mode=era) as client:
        return {
            "version": client.protocol_version,
            "tools": shape(await client.list_tools()),
            "add": shape(await client.call_tool("add", {"a": 1, "b": 2})),
            "wrong": shape(await client.call_tool("add", {"a": "x"})),
            "steps": shape(await client.call_tool("steps", {}, progress_callback=note)),
            "progress": seen,
            "resource": shape(await client.read_resource("demo://hello")),
            "prompt": shape(await client.get_prompt("greet", {"name": "x"})),
        }


@pytest.mark.parametrize("era", ERAS)
async def test_an_sdk_server_says_the_same_directly_and_through_the_bridge(era: str, policy: Any) -> None:
    direct = await dialogue(full_server(), era)
    async with serve(full_server(), attester="simulated", measured=MEASURED) as server:
        bridged = await dialogue(through(server.url, policy()), era)
    assert len(bridged["progress"]) == 3
    for said in (direct, bridged):  # the wrapper advertises itself in the server's own description only
        for answer in said.values():
            if isinstance(answer, dict):
                answer.pop("_meta", None)
    assert bridged == direct


@pytest.mark.parametrize("era", ERAS)
async def test_a_stdio_server_of_the_package_index_message_by_message(era: str, policy: Any) -> None:
    pytest.importorskip("mcp_server_time")
    command = [sys.executable, "-m", "mcp_server_time", "--local-timezone", "UTC"]
    arguments = {"source_timezone": "Europe/Paris", "time": "12:00", "target_timezone": "Asia/Tokyo"}
    asked = [
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
        call("three", "convert_time", arguments),
        call(4, "convert_time", arguments | {"time": "noon"}),
        {"jsonrpc": "2.0", "id": 5, "method": "no/such"},
    ]
    if era == "auto":
        asked = [{**ask, "params": {**ask.get("params", {}), "_meta": ENVELOPE}} for ask in asked]  # type: ignore[dict-item]
    direct = Raw(await asyncio.create_subprocess_exec(*command, stdin=-1, stdout=-1, stderr=asyncio.subprocess.DEVNULL))
    wanted = await conversation(direct, asked, era)
    await direct.end()
    async with (
        serve(command, attester="simulated", measured=MEASURED) as server,
        raw(server.url, policy()) as bridge,
    ):
        found = await conversation(bridge, asked, era)
        summaries = sum("dev.attestable-mcp/manifest" in take_meta(answer) for answer in found)
        assert summaries == (2 if era == "legacy" else 1), "in the list, and in what opens a session"
        assert found == wanted
        _, rest, err = await bridge.end()
    assert rest == b""
    assert b"verified (SIMULATED sgx)" in err
    assert b"Paris" not in err


def take_meta(answer: Any) -> list[str]:
    """The keys of ours in an answer's `_meta`; they are taken out of it, and an empty `_meta` with them."""
    meta = answer.get("result", {}).get("_meta", {})
    taken = [key for key in list(meta) if key.startswith("dev.attestable-mcp/") and (meta.pop(key) or True)]
    if taken and not meta:
        del answer["result"]["_meta"]
    return taken


async def conversation(peer: Raw, asked: list[dict[str, Any]], era: str) -> list[Any]:
    found = [await peer.opened()] if era == "legacy" else []
    for ask in asked:
        peer.send(ask)
        found.append(await peer.answer(ask["id"]))
    return found


async def test_the_servers_own_requests_reach_a_legacy_host(policy: Any) -> None:
    changes: list[str] = []

    async def sampled(context: Any, params: Any) -> CreateMessageResult:
        return CreateMessageResult(role="assistant", model="m", content=TextContent(type="text", text="sampled"))

    async def elicited(context: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"name": "bob"})

    async def handler(message: Any) -> None:
        changes.append(type(getattr(message, "root", message)).__name__)

    async with (
        serve(full_server(), attester="simulated", measured=MEASURED) as server,
        Client(
            through(server.url, policy()),
            mode="legacy",
            sampling_callback=sampled,
            elicitation_callback=elicited,
            message_handler=handler,
        ) as client,
    ):
        assert (await client.call_tool("sample", {})).content[0].text == "sampled"
        assert (await client.call_tool("ask", {})).content[0].text == "bob"
        await client.call_tool("changed", {})
        with anyio.fail_after(40):
            while "ToolListChangedNotification" not in changes:
                await anyio.sleep(0.02)


@pytest.mark.parametrize("era", ERAS)
async def test_cancellation_reaches_the_server(era: str, policy: Any, plain_command: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    meta = {"_meta": ENVELOPE} if era == "auto" else {}
    argv = list(plain_command("--log", str(log)).argv)
    async with (
        serve(argv, attester="simulated", measured=MEASURED) as server,
        raw(server.url, policy()) as bridge,
    ):
        if era == "legacy":
            await bridge.opened()
        bridge.send(call(2, "hang", **meta))
        await until(lambda: "hang" in log.read_text())
        cancelled = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2, **meta}}
        bridge.send(cancelled)
        await until(lambda: "cancelled" in log.read_text())
        bridge.send(call(3, "echo", {"x": 1}, **meta))
        answer = await bridge.answer(3)
        assert answer["result"]["content"][0]["text"] == '{"x": 1}'
        seconds, rest, _ = await bridge.end()
    assert (seconds < 3, rest) == (True, b"")


async def until(held: Callable[[], bool]) -> None:
    with anyio.fail_after(40):
        while not held():
            await anyio.sleep(0.02)


@pytest.mark.parametrize("era", ERAS)
async def test_a_refusal_is_an_answer_and_the_bridge_tries_again(era: str, policy: Any) -> None:
    ask = {**OPEN, "method": "server/discover", "params": {"_meta": ENVELOPE}} if era == "auto" else OPEN
    async with (
        serve(full_server(), attester="simulated", measured=MEASURED) as server,
        raw(server.url, policy(bytes(32))) as bridge,
    ):
        for number in (1, 2):
            bridge.send({**ask, "id": number})
            answer = await bridge.take()
            assert answer["id"] == number
            error = answer["error"]
            assert error["code"] == -32010
            assert error["data"]["check"] == "policy.mrenclave"
            assert (bytes(32).hex() in error["data"]["wanted"], MEASURED.hex() in error["data"]["seen"]) == (True, True)
            assert error["data"]["hint"]
            assert error["data"]["code"]
        _, rest, err = await bridge.end()
    assert rest == b""
    assert err.count(b"\n") == 2
    assert b"mrenclave" in err


async def test_what_keeps_the_bridge_from_starting_is_an_answer_too(tmp_path: Path) -> None:
    async with raw("https://127.0.0.1:1/mcp", tmp_path / "absent.toml") as bridge:
        bridge.send(OPEN)
        error = (await bridge.answer(1))["error"]
        _, rest, err = await bridge.end()
    assert bridge.process.returncode == 1
    assert error["code"] == -32010
    for said in (error["message"].encode(), err):
        assert b"absent.toml" in said
        assert b"Check the path" in said
    assert rest == b""


@pytest.mark.parametrize("era", ERAS)
async def test_a_server_that_dies_in_a_call_and_comes_back(era: str, unused_port: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    meta = {"_meta": ENVELOPE} if era == "auto" else {}
    listen = f"127.0.0.1:{unused_port()}"
    words = ["-m", "attestable_mcp", "serve", "--attester", "simulated", "--listen", listen, "--", sys.executable]
    words += ["-S", str(Path(__file__).with_name("plain_server.py")), "--log", str(log)]
    first = await started(*words)
    genuine = ["--genuine-only", "--danger-accept-simulated"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "attestable_mcp", "connect", f"https://{listen}/mcp", *genuine,
        stdin=-1, stdout=-1, stderr=-1,
    )  # fmt: skip
    bridge = Raw(process)
    second = None
    try:
        if era == "legacy":
            await bridge.opened()
        bridge.send(call("warm", "echo", **meta))
        assert "result" in await bridge.answer("warm")
        bridge.send(call(2, "hang", **meta))
        await until(lambda: "hang" in log.read_text())
        first.kill()
        await first.wait()
        since = Since(process.pid)
        answer = await bridge.answer(2)
        assert since.seconds < 5
        assert answer["error"]["data"]["code"] in ("connection_lost", "no_response", "conversation")
        bridge.send(call(3, "echo", **meta))
        assert (await bridge.answer(3))["error"]["data"]["code"] == "unreachable"
        second = await started(*words)
        bridge.send(call(4, "echo", {"x": 1}, **meta))
        assert (await bridge.answer(4))["result"]["content"][0]["text"] == '{"x": 1}'
        seconds, _, _ = await bridge.end()
        assert seconds < 5
    finally:
        for child in (first, second, process):
            if child is not None and child.returncode is None:
                child.kill()
                await child.wait()


async def started(*words: str) -> asyncio.subprocess.Process:
    child = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=-1, stderr=asyncio.subprocess.DEVNULL)
    assert child.stdout is not None
    assert b"serving" in await asyncio.wait_for(child.stdout.readline(), 40)
    return child


async def test_pipelined_lines_and_a_closed_stdin_lose_no_answer(policy: Any) -> None:
    async with (
        serve(full_server(), attester="simulated", measured=MEASURED) as server,
        raw(server.url, policy()) as bridge,
    ):
        for message in (OPEN, OPENED, *(call(number, "add", {"a": number, "b": 1}) for number in range(2, 12))):
            bridge.send(message)
        bridge.send("this is no JSON")
        first = await bridge.take()  # it has started; how long that takes is not what is held here
        seconds, out, _ = await bridge.end()
    answers = [first, *(json.loads(line) for line in out.splitlines())]
    found = {
        a["id"]: a["result"]["structuredContent"]["result"] for a in answers if isinstance(a["id"], int) and a["id"] > 1
    }
    assert found == {number: number + 1 for number in range(2, 12)}
    assert [a["error"]["code"] for a in answers if a["id"] is None] == [-32700]
    assert len(answers) == 12
    assert seconds < 5


async def test_a_call_that_never_ends_holds_the_end_for_less_than_five_seconds(policy: Any, plain_command: Any) -> None:
    async with (
        serve(list(plain_command().argv), attester="simulated", measured=MEASURED) as server,
        raw(server.url, policy()) as bridge,
    ):
        await bridge.opened()
        bridge.send(call(2, "hang"))
        seconds, out, _ = await bridge.end()
    assert seconds < 5.2
    answers = [message for message in map(json.loads, out.splitlines()) if "method" not in message]
    assert [(answer["id"], answer["error"]["data"]["code"]) for answer in answers] == [(2, "closing")]
