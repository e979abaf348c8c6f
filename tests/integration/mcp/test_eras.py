"""A host of one era and a server of the other: everything that either can say, translated by the bridge."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from eras import LEGACY, MODERN, NOT_LEGACY, NOT_MODERN, bridge_to, era_server, left_when, only, until
from mcp import Client, MCPError
from mcp.types import (
    CreateMessageResult,
    ElicitResult,
    ListRootsResult,
    PromptReference,
    ResourceTemplateReference,
    Root,
    TextContent,
)

from attestable_mcp.mcp.child import Command

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning"),
]
OTHER = {LEGACY: MODERN, MODERN: LEGACY}
HOSTS = pytest.mark.parametrize("host", [LEGACY, MODERN])


async def sampled(context: Any, params: Any) -> CreateMessageResult:
    assert params.messages[0].content.text == "?"
    return CreateMessageResult(role="assistant", model="m", content=TextContent(type="text", text="sampled"))


async def elicited(context: Any, params: Any) -> ElicitResult:
    assert params.message == "who?"
    return ElicitResult(action="accept", content={"name": "bob"})


async def rooted(context: Any) -> ListRootsResult:
    return ListRootsResult(roots=[Root(uri="file:///here")])  # type: ignore[arg-type]


class Heard:
    """What reaches the host outside of answers."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.logs: list[Any] = []
        self.lines: list[Any] = []
        self.said: list[str] = []
        self.server: list[str] = []

    async def message(self, message: Any) -> None:
        self.kinds.append(type(getattr(message, "root", message)).__name__)

    async def log(self, params: Any) -> None:
        self.logs.append((params.level, params.data))


@asynccontextmanager
async def across(
    serve_plain: Any, host: str, heard: Heard, refuse: Any = None, **callbacks: Any
) -> AsyncIterator[Client]:
    """A client of one era, the bridge, and a server of the other."""
    kinds = NOT_MODERN if OTHER[host] == LEGACY else NOT_LEGACY
    server = era_server(heard.server)
    app = server.streamable_http_app()
    async with server.session_manager.run():
        async with serve_plain(only(OTHER[host], app, refuse or next(iter(kinds.values())))) as origin:
            transport = bridge_to(f"{origin}/mcp", heard.said, heard.lines)
            async with Client(
                transport, mode=host, message_handler=heard.message, logging_callback=heard.log, **callbacks
            ) as client:
                yield client


def text_of(result: Any) -> str:
    return str(result.content[0].text)


@HOSTS
async def test_tools_resources_prompts_and_completion(host: str, serve_plain: Any) -> None:
    heard = Heard()
    async with across(serve_plain, host, heard) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert names == ["add", "steps", "ask", "sample", "roots", "log", "changed", "hang"]
        result = await client.call_tool("add", {"a": 1, "b": 2})
        assert result.structured_content == {"result": 3}
        assert (await client.call_tool("add", {"a": "x"})).is_error
        assert [r.uri for r in (await client.list_resources()).resources] == ["demo://hello"]
        assert len((await client.list_resource_templates()).resource_templates) == 1
        assert (await client.read_resource("demo://hello")).contents[0].text == "hello"
        assert (await client.read_resource("demo://x/page")).contents[0].text == "page of x"
        assert [p.name for p in (await client.list_prompts()).prompts] == ["greet"]
        assert (await client.get_prompt("greet", {"name": "x"})).messages[0].content.text == "greet x"
        ref = PromptReference(type="ref/prompt", name="greet")
        assert (await client.complete(ref, {"name": "name", "value": "b"})).completion.values == ["b1"]
        template = ResourceTemplateReference(type="ref/resource", uri="demo://{name}/page")
        assert (await client.complete(template, {"name": "name", "value": "c"})).completion.values == ["c1"]
    assert [sentence for sentence in heard.said if "translated" in sentence] == heard.said
    assert len(heard.said) == 1


async def test_the_server_describes_itself_to_a_handshake_host(serve_plain: Any) -> None:
    async with across(serve_plain, LEGACY, Heard()) as client:
        assert client.protocol_version == "2025-11-25"
        assert client.server_info.name == "eras"
        assert client.instructions == "be kind"
        capabilities = client.server_capabilities
        assert capabilities.tools is not None and capabilities.tools.list_changed  # noqa: PT018
        await client.send_ping()


@HOSTS
async def test_progress(host: str, serve_plain: Any) -> None:
    seen: list[Any] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append((progress, total, message))

    async with across(serve_plain, host, Heard()) as client:
        assert text_of(await client.call_tool("steps", {}, progress_callback=note)) == "done"
        await until(lambda: len(seen) == 3)
    assert seen == [(0, 3, "step"), (1, 3, "step"), (2, 3, "step")]


@HOSTS
async def test_sampling_elicitation_and_roots(host: str, serve_plain: Any) -> None:
    callbacks = {"sampling_callback": sampled, "elicitation_callback": elicited, "list_roots_callback": rooted}
    async with across(serve_plain, host, Heard(), **callbacks) as client:
        assert text_of(await client.call_tool("ask", {})) == "bob"
        assert text_of(await client.call_tool("sample", {})) == "sampled"
        assert text_of(await client.call_tool("roots", {})) == "file:///here"


@HOSTS
async def test_many_questions_at_once_find_their_own_calls(host: str, serve_plain: Any) -> None:
    names = iter("abcdefgh")

    async def named(context: Any, params: Any) -> ElicitResult:
        name = next(names)
        await anyio.sleep(0.05)
        return ElicitResult(action="accept", content={"name": name})

    found: list[str] = []
    async with across(serve_plain, host, Heard(), elicitation_callback=named) as client:

        async def one() -> None:
            found.append(text_of(await client.call_tool("ask", {})))

        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(one)
    assert sorted(found) == list("abcdefgh")


@HOSTS
async def test_a_host_that_declines_or_fails(host: str, serve_plain: Any) -> None:
    async def declined(context: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="decline")

    async def failing(context: Any, params: Any) -> Any:
        from mcp.types import ErrorData

        return ErrorData(code=-1, message="the user said no")

    async with across(serve_plain, host, Heard(), elicitation_callback=declined, sampling_callback=failing) as client:
        assert text_of(await client.call_tool("ask", {})) == "decline"
        with pytest.raises(MCPError, match="the user said no"):
            await client.call_tool("sample", {})
        assert (await client.call_tool("add", {"a": 1, "b": 1})).structured_content == {"result": 2}


@HOSTS
async def test_a_host_without_a_capability_gets_a_clear_error(host: str, serve_plain: Any) -> None:
    async with across(serve_plain, host, Heard()) as client:
        with anyio.fail_after(40):
            try:
                result = await client.call_tool("ask", {})
                text = text_of(result) if result.is_error else "no error"
            except MCPError as error:
                text = str(error)
        assert "elicitation" in text


@HOSTS
async def test_logging_at_the_level_that_the_host_asks_for(host: str, serve_plain: Any) -> None:
    heard = Heard()
    async with across(serve_plain, host, heard) as client:
        if host == LEGACY:
            await client.set_logging_level("warning")
            await client.call_tool("log", {})
        else:
            await client.call_tool("log", {})
            assert heard.logs == []
            await client.call_tool("log", {}, meta={"io.modelcontextprotocol/logLevel": "warning"})
            assert "level warning" in heard.server
        await until(lambda: bool(heard.logs))
        assert heard.logs == [("warning", "a warning line")]
        if host == LEGACY:
            with pytest.raises(MCPError, match="level"):
                await client.session.send_request(*_level("loud"))


def _level(level: str) -> tuple[Any, Any]:
    from mcp.types import EmptyResult, SetLevelRequest, SetLevelRequestParams

    params = SetLevelRequestParams.model_construct(level=level)  # type: ignore[arg-type]
    return SetLevelRequest.model_construct(method="logging/setLevel", params=params), EmptyResult


async def test_list_changes_and_updates_reach_a_handshake_host(serve_plain: Any) -> None:
    heard = Heard()
    async with across(serve_plain, LEGACY, heard) as client:
        await client.subscribe_resource("demo://hello")
        await client.call_tool("changed", {})
        await until(lambda: len(heard.kinds) >= 2)
        assert sorted(heard.kinds) == ["ResourceUpdatedNotification", "ToolListChangedNotification"]
        await client.unsubscribe_resource("demo://hello")
        heard.kinds.clear()
        await anyio.sleep(0.2)
        await client.call_tool("changed", {})
        await until(lambda: bool(heard.kinds))
        await anyio.sleep(0.1)
        assert heard.kinds == ["ToolListChangedNotification"]


async def test_a_modern_host_listens_to_a_handshake_server(serve_plain: Any) -> None:
    heard = Heard()
    async with across(serve_plain, MODERN, heard) as client:
        async with client.listen(tools_list_changed=True, resource_subscriptions=["demo://hello"]) as subscription:
            assert subscription.honored.tools_list_changed
            assert subscription.honored.resource_subscriptions == ["demo://hello"]
            await client.call_tool("changed", {})
            found = []
            with anyio.fail_after(40):
                async for event in subscription:
                    found.append(type(event).__name__)
                    if len(found) == 2:
                        break
        assert sorted(found) == ["ResourceUpdated", "ToolsListChanged"]
        await until(lambda: "unsubscribe demo://hello" in heard.server)
    assert heard.server.count("subscribe demo://hello") == 1


@HOSTS
async def test_cancellation_reaches_the_handler(host: str, serve_plain: Any) -> None:
    heard = Heard()
    async with across(serve_plain, host, heard) as client:
        await left_when(lambda: "hanging" in heard.server, lambda: client.call_tool("hang", {}))
        await until(lambda: heard.server[-1:] == ["cancelled"])
        assert (await client.call_tool("add", {"a": 1, "b": 1})).structured_content == {"result": 2}


@HOSTS
async def test_what_is_not_there_is_an_error(host: str, serve_plain: Any) -> None:
    async with across(serve_plain, host, Heard()) as client:
        with anyio.fail_after(40), pytest.raises(MCPError) as caught:
            await client.read_resource("demo://nowhere")
        assert caught.value.code in (-32602, -32002, 0)


@pytest.mark.parametrize("said", NOT_LEGACY)
async def test_every_way_of_refusing_the_handshake_is_understood(said: str, serve_plain: Any) -> None:
    async with across(serve_plain, LEGACY, Heard(), NOT_LEGACY[said]) as client:
        assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}


@pytest.mark.parametrize("said", NOT_MODERN)
@pytest.mark.parametrize("first", ["discover", "call"])
async def test_every_way_of_refusing_the_stateless_era_is_understood(said: str, first: str, serve_plain: Any) -> None:
    async with across(serve_plain, MODERN, Heard(), NOT_MODERN[said]) as client:
        if first == "discover":
            from mcp.types import DiscoverResult

            raw = await client.session.send_discover(MODERN)
            assert DiscoverResult.model_validate(raw).supported_versions == ["2025-11-25", MODERN]
        assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}


@HOSTS
async def test_what_one_era_says_passes_untouched(host: str, serve_plain: Any) -> None:
    """No translation: the server speaks the host's era, and only that."""
    heard, server, seen = Heard(), era_server(), []
    app = server.streamable_http_app()

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    callbacks = {"sampling_callback": sampled, "elicitation_callback": elicited, "list_roots_callback": rooted}
    async with (
        server.session_manager.run(),
        serve_plain(only(host, app, lambda _: (400, b"text/plain", b""))) as origin,
    ):
        transport = bridge_to(f"{origin}/mcp", heard.said, heard.lines)
        async with Client(transport, mode=host, message_handler=heard.message, **callbacks) as client:
            assert text_of(await client.call_tool("ask", {})) == "bob"
            assert text_of(await client.call_tool("sample", {})) == "sampled"
            assert text_of(await client.call_tool("roots", {})) == "file:///here"
            await client.call_tool("steps", {}, progress_callback=note)
            await until(lambda: len(seen) == 3)
            if host == LEGACY:
                await client.call_tool("changed", {})
                await until(lambda: "ToolListChangedNotification" in heard.kinds)
                return
            async with client.listen(tools_list_changed=True) as subscription:
                await client.call_tool("changed", {})
                with anyio.fail_after(40):
                    async for event in subscription:
                        assert type(event).__name__ == "ToolsListChanged"
                        break
    states = [line["result"] for line in heard.lines if line.get("result", {}).get("resultType") == "input_required"]
    assert len(states) == 3
    assert heard.said == []


@HOSTS
async def test_a_server_of_both_eras_is_never_translated(host: str, serve_plain: Any) -> None:
    said: list[str] = []
    server = era_server()
    app = server.streamable_http_app()
    async with server.session_manager.run(), serve_plain(app) as origin:
        async with Client(bridge_to(f"{origin}/mcp", said), mode=host) as client:
            with pytest.raises(MCPError):
                await client.read_resource("demo://nowhere")
            assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}
    assert said == []


async def test_a_server_of_no_era_keeps_its_own_words(serve_plain: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b"no such page"})

    async with serve_plain(app) as origin:
        for host in (LEGACY, "auto"):
            with pytest.raises(Exception) as caught:
                async with Client(bridge_to(f"{origin}/mcp"), mode=host) as client:
                    await client.list_tools()
            assert "404" in str(_leaf(caught.value))


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


ERA_COMMAND = Path(__file__).with_name("eras.py")


def stdio_command(era: str) -> Command:
    return Command(argv=(sys.executable, str(ERA_COMMAND), era))


async def test_a_handshake_client_of_a_wrapped_process_that_is_stateless_only(wrapped: Any) -> None:
    heard = Heard()
    async with (
        wrapped(stdio_command(MODERN)) as (gateway, url),
        Client(
            url,
            mode=LEGACY,
            message_handler=heard.message,
            sampling_callback=sampled,
            elicitation_callback=elicited,
            logging_callback=heard.log,
        ) as client,
    ):
        assert gateway.versions == (MODERN,)
        assert (client.protocol_version, client.instructions) == ("2025-11-25", "be kind")
        assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}
        assert text_of(await client.call_tool("ask", {})) == "bob"
        assert text_of(await client.call_tool("sample", {})) == "sampled"
        await client.set_logging_level("warning")
        await client.call_tool("log", {})
        await client.subscribe_resource("demo://hello")
        await client.call_tool("changed", {})
        await until(lambda: {"ResourceUpdatedNotification", "ToolListChangedNotification"} <= set(heard.kinds))
        await until(lambda: heard.logs == [("warning", "a warning line")])


@pytest.mark.slow
@pytest.mark.parametrize("host", [LEGACY, MODERN, "auto"])
@pytest.mark.parametrize("child", [LEGACY, MODERN])
async def test_each_host_before_each_wrapped_process_through_the_bridge(host: str, child: str, wrapped: Any) -> None:
    said: list[str] = []
    async with wrapped(stdio_command(child)) as (_, url):
        async with Client(
            bridge_to(url, said), mode=host, sampling_callback=sampled, elicitation_callback=elicited
        ) as client:
            assert (await client.call_tool("add", {"a": 1, "b": 2})).structured_content == {"result": 3}
            assert text_of(await client.call_tool("ask", {})) == "bob"
            assert text_of(await client.call_tool("sample", {})) == "sampled"
            assert (await client.read_resource("demo://hello")).contents[0].text == "hello"
    assert len(said) == (host != LEGACY and child == LEGACY)
