"""Manifests and receipts of each kind of server, in both eras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcp.server import MCPServer, Server
from mcp.types import CallToolResult, ListToolsResult, TextContent, Tool

from attestable_mcp import Policy, attested_client, serve
from attestable_mcp.errors import ToolRefused
from attestable_mcp.mcp.catalogue import Catalogue
from attestable_mcp.mcp.lister import of_app
from attestable_mcp.mcp.target_manifest import manifest_of_target

MEASURED = b"\x07" * 32
ERAS = ("auto", "legacy")
pytestmark = pytest.mark.anyio


def policy(store: Path) -> str:
    return f"""
[trust]
simulated = "accept"
endorsements = ["stapled"]
[policy]
mrenclave = "{MEASURED.hex()}"
[receipts]
required = true
store = "{store}"
"""


def sdk_server() -> MCPServer:
    server = MCPServer("plain")

    @server.tool()
    def echo(text: str) -> str:
        """Says it again."""
        return text

    return server


async def proven(target: Any, tool: str, arguments: dict[str, Any], era: str, folder: Path) -> Any:
    """The manifest that the server committed to, once a call has been made and its receipt fits it."""
    async with serve(target, attester="simulated", measured=MEASURED) as server:
        assert server.manifest is not None
        async with attested_client(server.url, policy=policy(folder / "r.sqlite3"), mode=era) as client:
            assert client.peer.commitments.manifest == server.manifest.digest
            await client.call_tool(tool, arguments)
            assert client.receipt is not None
            assert client.receipt.item == server.manifest.tools.digests[tool]
            head = await client.receipt_head()
            assert head is not None
            assert head.size == 1
        return server.manifest


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("flags", [(), ("--legacy-only",)], ids=["both", "legacy-only"])
async def test_a_stdio_command(era: str, flags: tuple[str, ...], plain_command: Any, tmp_path: Path) -> None:
    found = await proven(list(plain_command(*flags).argv), "echo", {"x": 1}, era, tmp_path)
    assert found.digest == (await manifest_of_target(list(plain_command(*flags).argv))).digest


@pytest.mark.parametrize("era", ERAS)
async def test_fastmcp(era: str, tmp_path: Path) -> None:
    fastmcp = pytest.importorskip("fastmcp")
    server = fastmcp.FastMCP("fast")

    @server.tool
    def echo(text: str) -> str:
        """Says it again."""
        return text

    await proven(server, "echo", {"text": "x"}, era, tmp_path)


@pytest.mark.parametrize("era", ERAS)
async def test_a_relayed_server_and_an_asgi_application(era: str, serve_plain: Any, tmp_path: Path) -> None:
    server = sdk_server()
    app = server.streamable_http_app()
    async with server.session_manager.run(), serve_plain(app) as origin:
        relayed = await proven(f"{origin}/mcp", "echo", {"text": "x"}, era, tmp_path)
    asgi = await proven(sdk_server().streamable_http_app(), "echo", {"text": "x"}, era, tmp_path)
    assert relayed.digest == asgi.digest == (await manifest_of_target(sdk_server())).digest


async def test_a_list_of_many_pages_is_read_whole(tmp_path: Path) -> None:
    tools = [Tool(name=f"t{number}", input_schema={"type": "object"}) for number in range(7)]

    async def listed(context: Any, params: Any) -> ListToolsResult:
        at = int(params.cursor) if params is not None and params.cursor else 0
        return ListToolsResult(tools=tools[at : at + 3], next_cursor=str(at + 3) if at + 3 < len(tools) else None)

    async def called(context: Any, params: Any) -> CallToolResult:
        return CallToolResult(content=[TextContent(type="text", text=params.name)])

    server = Server("pages", on_list_tools=listed, on_call_tool=called)
    found = await proven(server, "t6", {}, "auto", tmp_path)
    assert len(found.tools.items) == 7


def choosy(asked: Tool, *more: Tool) -> Server:
    """A server that shows `asked` only to hosts that can sample, and `plain` and `more` to everybody."""

    async def listed(context: Any, params: Any) -> ListToolsResult:
        able = context.session.client_capabilities
        plain = Tool(name="plain", input_schema={"type": "object"})
        return ListToolsResult(
            tools=[plain, *more, *([asked] if able is not None and able.sampling is not None else [])]
        )

    async def called(context: Any, params: Any) -> CallToolResult:
        return CallToolResult(content=[TextContent(type="text", text=params.name)])

    return Server("choosy", on_list_tools=listed, on_call_tool=called)


async def _sample(*_: Any) -> Any:
    raise AssertionError("nobody samples here")


@pytest.mark.parametrize("era", ERAS)
async def test_a_list_that_depends_on_what_the_host_can_do(era: str, tmp_path: Path) -> None:
    """The evidence commits to what the most able host is shown; a shorter list is taken, and said to be shorter."""
    rules = policy(tmp_path / "r.sqlite3")
    server = choosy(Tool(name="ask", input_schema={"type": "object"}))
    async with serve(server, attester="simulated", measured=MEASURED) as served:
        assert served.manifest is not None
        assert set(served.manifest.tools.items) == {"plain", "ask"}
        async with attested_client(served.url, policy=rules, mode=era, sampling_callback=_sample) as able:
            assert [tool.name for tool in (await able.list_tools()).tools] == ["plain", "ask"]
            await able.call_tool("ask", {})
            assert not [sentence for sentence in able.attestation.not_proven if "not shown" in sentence]
        async with attested_client(served.url, policy=rules, mode=era) as plain:
            assert [tool.name for tool in (await plain.list_tools()).tools] == ["plain"]
            await plain.call_tool("plain", {})
            with pytest.raises(ToolRefused) as caught:
                await plain.call_tool("ask", {})
            assert caught.value.code == "tool_not_listed"
            assert [s for s in plain.attestation.not_proven if s.startswith("why 1 of the tools")]


def paged(shown: Any) -> Server:
    """A server whose tools come two a page; `shown` gives those of a host that can sample, or that cannot."""

    async def listed(context: Any, params: Any) -> ListToolsResult:
        able = context.session.client_capabilities
        tools = shown(able is not None and able.sampling is not None)
        at = int(params.cursor) if params is not None and params.cursor else 0
        return ListToolsResult(tools=tools[at : at + 2], next_cursor=str(at + 2) if at + 2 < len(tools) else None)

    async def called(context: Any, params: Any) -> CallToolResult:
        return CallToolResult(content=[TextContent(type="text", text=params.name)])

    return Server("paged", on_list_tools=listed, on_call_tool=called)


def some(names: str, words: str = "") -> list[Tool]:
    return [Tool(name=name, description=words, input_schema={"type": "object"}) for name in names]


@pytest.mark.parametrize(
    ("short", "era"),
    [("abcd", "auto"), ("cdefg", "legacy"), ("aceg", "auto"), ("aceg", "legacy"), ("a", "auto"), ("", "legacy")],
)
async def test_pages_that_depend_on_what_the_host_can_do(short: str, era: str, tmp_path: Path) -> None:
    """What is kept back may have stood on any page, and there may be fewer pages for it."""
    server = paged(lambda able: some("abcdefg" if able else short))
    async with serve(server, attester="simulated", measured=MEASURED) as served:
        rules = policy(tmp_path / "r.sqlite3")
        async with attested_client(served.url, policy=rules, mode=era, sampling_callback=_sample) as able:
            await able.call_tool("g", {})
            assert not [sentence for sentence in able.attestation.not_proven if "not shown" in sentence]
        async with attested_client(served.url, policy=rules, mode=era) as plain:
            for name in short:
                await plain.call_tool(name, {})
            for name in sorted(set("abcdefg") - set(short))[:1]:
                with pytest.raises(ToolRefused) as caught:
                    await plain.call_tool(name, {})
                assert caught.value.code == "tool_not_listed"
            hidden = 7 - len(short)
            assert [s for s in plain.attestation.not_proven if s.startswith(f"why {hidden} of the tools")]


@pytest.mark.parametrize(
    "given", [some("abcd") + some("e", "Deletes."), some("a", "Deletes.") + some("bcde"), some("abcx")]
)
async def test_pages_that_say_other_things_to_other_hosts_are_refused(given: list[Tool], tmp_path: Path) -> None:
    """On the first page or the last: the digests that the server names for it cannot stand for what was shown."""
    server = paged(lambda able: some("abcde") if able else given)
    async with serve(server, attester="simulated", measured=MEASURED) as served:
        async with attested_client(served.url, policy=policy(tmp_path / "r.sqlite3")) as client:
            with pytest.raises(ToolRefused) as caught:
                await client.call_tool("b", {})
            assert caught.value.code == "manifest_mismatch"


@pytest.mark.parametrize("era", ERAS)
async def test_a_list_that_is_short_for_two_reasons(era: str, tmp_path: Path) -> None:
    """One tool is kept back by the server itself, one by the policy that says who may call it."""
    asked, kept = (Tool(name=name, input_schema={"type": "object"}) for name in ("ask", "kept"))
    rules = f"""
clients = "optional"
[trust]
simulated = "accept"
endorsements = ["stapled"]
[policy]
mrenclave = "{"05" * 32}"
[[tool]]
name = "kept"
allow = [{{ token_sha256 = "{"00" * 32}" }}]
"""
    async with serve(choosy(asked, kept), attester="simulated", measured=MEASURED, clients=rules) as served:
        async with attested_client(served.url, policy=policy(tmp_path / "r.sqlite3"), mode=era) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == ["plain"]
            await client.call_tool("plain", {})
            assert [s for s in client.attestation.not_proven if s.startswith("why 2 of the tools")]


@pytest.mark.parametrize("era", ERAS)
async def test_a_list_that_says_other_things_to_other_hosts_is_refused(era: str, tmp_path: Path) -> None:
    """Less is taken; more than is committed to, or the same name with other words, is not."""

    async def listed(context: Any, params: Any) -> ListToolsResult:
        able = context.session.client_capabilities
        full = able is not None and able.sampling is not None
        names = ["plain", "ask"] if full else given
        words = "Asks." if full else "Deletes."
        return ListToolsResult(tools=[Tool(name=n, description=words, input_schema={"type": "object"}) for n in names])

    async def called(context: Any, params: Any) -> CallToolResult:
        raise AssertionError("nothing is sent")

    for given in (["plain"], ["more"]):
        server = Server("two-faced", on_list_tools=listed, on_call_tool=called)
        async with serve(server, attester="simulated", measured=MEASURED) as served:
            async with attested_client(served.url, policy=policy(tmp_path / "r.sqlite3"), mode=era) as client:
                with pytest.raises(ToolRefused) as caught:
                    await client.call_tool(given[0], {})
                assert caught.value.code == "manifest_mismatch"


async def test_a_change_raises_the_counter_once() -> None:
    server = sdk_server()
    app = server.streamable_http_app()
    async with server.session_manager.run():
        catalogue = Catalogue(of_app(app, "/mcp"))
        await catalogue.refresh()
        before = catalogue.digest
        server.add_tool(lambda: "x", name="more", description="More.")
        await catalogue.refresh()
        await catalogue.refresh()
        assert catalogue.manifest is not None
        assert catalogue.manifest.counter == 1
        assert catalogue.digest != before
        await catalogue.aclose()


async def test_what_cannot_be_listed_commits_to_nothing_and_serves_on() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with serve(app, attester="simulated", measured=MEASURED) as server:
        assert server.manifest is None
        from attestable_mcp.tls.client import attest_server

        text = policy(Path("unused"))
        assert (await attest_server(Policy.from_toml(text), server.url)).commitments.manifest == b""
