"""The public names load, each from its home and no sooner than it is used."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from fastmcp import Client, FastMCP
from fastmcp import Context as FastContext
from mcp.server import MCPServer
from mcp.server.mcpserver import Context as SdkContext

import attestable_mcp

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("name", attestable_mcp.__all__)
def test_each_public_name_loads(name: str) -> None:
    assert getattr(attestable_mcp, name) is not None
    assert name in dir(attestable_mcp)


def test_a_tool_that_asks_who_calls_loads_neither_sdk_nor_http() -> None:
    """It is imported by processes that somebody else starts, of which some are told of a caller and some never."""
    program = (
        "import sys; from attestable_mcp import attestation_of; assert attestation_of({}).peer is None; "
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert not set(loaded.stdout.split()) & {"mcp", "pydantic", "httpx2", "starlette", "cryptography", "OpenSSL"}


class _OfOurs(SdkContext[Any, Any]):
    """As an annotation of a tool of the SDK's."""


class _OfOursFast(FastContext):
    """As an annotation of a tool of FastMCP's."""


async def test_neither_library_gives_tools_a_context_of_ours() -> None:
    """Why who calls is found by a function (decision 17). Where this fails, `ctx.attestation.peer` may be possible."""
    given: list[type[Any]] = []
    sdk, fast = MCPServer("sdk"), FastMCP("fast")

    async def to_sdk(ctx: _OfOurs) -> None:
        given.append(type(ctx))

    async def to_fast(ctx: _OfOursFast) -> None:
        given.append(type(ctx))

    to_sdk.__annotations__["ctx"], to_fast.__annotations__["ctx"] = _OfOurs, _OfOursFast
    sdk.add_tool(to_sdk)
    fast.tool(to_fast)
    await sdk.call_tool("to_sdk", {})
    async with Client(fast) as client:
        await client.call_tool("to_fast", {})
    assert given == [SdkContext, FastContext]
