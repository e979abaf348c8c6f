"""A plain stdio server as a command, and the wrapper around it on plain loopback HTTP."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from processes import is_alive

from attestable_mcp.mcp.child import Command
from attestable_mcp.mcp.stdio import StdioGateway, StdioOptions
from attestable_mcp.tls.listening import PlainServer

PLAIN = Path(__file__).with_name("plain_server.py")
sys.path.append(str(Path(__file__).parent))  # for eras.py, which tests of this folder share


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def unused_port() -> Callable[[], int]:
    """A loopback port that nobody listens on now."""

    def find() -> int:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            return int(sock.getsockname()[1])

    return find


@pytest.fixture
def plain_command(tmp_path: Path) -> Callable[..., Command]:
    """A command of the plain server; its processes leave their ids in `pids`."""
    (tmp_path / "pids").mkdir()

    def make(*flags: str) -> Command:
        return Command(argv=(sys.executable, "-S", str(PLAIN), "--pid-folder", str(tmp_path / "pids"), *flags))

    return make


@pytest.fixture
def started(tmp_path: Path) -> Callable[[], list[int]]:
    """The ids of all processes that were started."""
    return lambda: sorted(int(path.name) for path in (tmp_path / "pids").iterdir())


@pytest.fixture
def alive(started: Callable[[], list[int]]) -> Callable[[], list[int]]:
    """The ids of those that still run, given a moment to go."""

    def look() -> list[int]:
        deadline = time.monotonic() + 2
        while (found := [pid for pid in started() if is_alive(pid)]) and time.monotonic() < deadline:
            time.sleep(0.02)
        return found

    return look


@asynccontextmanager
async def plain_http(app: object) -> AsyncIterator[str]:
    async with PlainServer(app, "127.0.0.1", 0, drain_seconds=0) as server:
        yield server.url


@pytest.fixture
def serve_plain() -> Callable[[object], AbstractAsyncContextManager[str]]:
    """An ASGI application on plain loopback HTTP; gives its origin."""
    return plain_http


@pytest.fixture
def wrapped() -> Callable[..., AbstractAsyncContextManager[tuple[StdioGateway, str]]]:
    """The stdio wrapper around a command on plain loopback HTTP: the gateway and its MCP URL."""

    @asynccontextmanager
    async def run(command: Command, **options: object) -> AsyncIterator[tuple[StdioGateway, str]]:
        async with StdioGateway(command, StdioOptions(**options)) as gateway, plain_http(gateway) as origin:  # type: ignore[arg-type]
            yield gateway, f"{origin}/mcp"

    return run
