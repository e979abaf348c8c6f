"""Each kind of target as one ASGI application, running while a block runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Any

from mcp.server import MCPServer, Server

from attestable_mcp.attest.base import Attester
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.mcp import asgi
from attestable_mcp.mcp.advertise import advertised
from attestable_mcp.mcp.collapse import Collapse
from attestable_mcp.mcp.guard import Names
from attestable_mcp.mcp.relay import Relay
from attestable_mcp.mcp.stdio import StdioGateway, StdioOptions
from attestable_mcp.mcp.straight import answer_straight
from attestable_mcp.mcp.target import AsgiApp, FastMcpServer, HttpAppServer, SdkServer, StdioServer, Target, Upstream
from attestable_mcp.tls.address import in_url


@asynccontextmanager
async def running_app(
    target: Target, *, attester: Attester, names: Names, path: str, stdio: StdioOptions
) -> AsyncIterator[asgi.App]:
    """The application of `target`, its lifespan run around the block. Only streamable HTTP is mounted, never SSE.

    Raises: ConfigurationError when the server behind does not start.
    """
    match target:
        case StdioServer(command=command):
            async with StdioGateway(command, stdio) as gateway:
                yield gateway
        case Upstream(origin=origin):
            async with Relay(origin) as relay:
                yield relay
        case SdkServer(server=server):
            app = sdk_app(server, names=names, path=path)
            with advertised(_low_level(server), attester.tee, simulated=attester.simulated):
                async with _with_lifespan(Collapse(app)) as served:
                    yield served
        case FastMcpServer(server=server):
            app = fastmcp_app(server, names=names, path=path)
            with _advertised_fastmcp(server, attester):
                async with _with_lifespan(Collapse(app)) as served:
                    yield served
        case AsgiApp(app=app):
            async with _with_lifespan(app) as served:
                yield served


def sdk_app(server: MCPServer | Server[Any], *, names: Names, path: str) -> asgi.App:
    """The SDK's streamable HTTP application, its DNS rebinding protection set to our names."""
    app: asgi.App = server.streamable_http_app(
        streamable_http_path=path, transport_security=names.security_settings(), host="127.0.0.1"
    )
    answer_straight(server.session_manager)
    return app


def fastmcp_app(server: HttpAppServer, *, names: Names, path: str) -> asgi.App:
    """FastMCP's streamable HTTP application."""
    try:
        return server.http_app(
            path=path,
            transport="streamable-http",
            allowed_hosts=sorted(names.hosts),
            allowed_origins=[
                *names.origins,
                *(f"https://{in_url(host)}" for host in sorted(names.hosts)),
            ],
        )
    except TypeError as error:
        raise ConfigurationError(
            f"target: wanted FastMCP 4.1 or later, seen {type(server).__name__}: {error}",
            code="target",
            hint="upgrade fastmcp, or serve the ASGI application of its http_app()",
        ) from error


def _low_level(server: MCPServer | Server[Any]) -> Server[Any]:
    """The server whose capabilities are advertised; the session manager's own, made with the application."""
    return server.session_manager.app


def _advertised_fastmcp(server: object, attester: Attester) -> AbstractContextManager[None]:
    """FastMCP keeps its low-level server to itself; where it cannot be found, nothing is advertised."""
    inner = getattr(server, "_mcp_server", None)
    if isinstance(inner, Server):
        return advertised(inner, attester.tee, simulated=attester.simulated)
    return nullcontext()


@asynccontextmanager
async def _with_lifespan(app: asgi.App) -> AsyncIterator[asgi.App]:
    state: dict[str, Any] = {}
    async with asgi.Lifespan(app, state):

        async def served(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
            await app({**scope, "state": {**scope.get("state", {}), **state}}, receive, send)

        yield served
