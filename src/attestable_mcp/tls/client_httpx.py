"""The attested clients for httpx 0.28 and httpcore 1 (the extra `httpx`), as `tls.client` for httpx2."""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.endorse.base import EndorsementSource
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.limits import LIMITS, Limits
from attestable_mcp.tls.admission import Gate
from attestable_mcp.tls.client import client_options, default_pool, gate_for, guarded, guarded_sync, pool_options
from attestable_mcp.tls.origins import Origins, origins_for
from attestable_mcp.tls.streams import AsyncBackend
from attestable_mcp.tls.streams_blocking import SyncBackend
from attestable_mcp.verifier import Verifier

if TYPE_CHECKING:
    import httpx


def _httpx() -> tuple[ModuleType, ModuleType]:
    try:
        import httpcore
        import httpx
    except ImportError as error:
        raise ConfigurationError("httpx is not installed", hint="install attestable-mcp[httpx]") from error
    return httpx, httpcore


def attested_httpx_client(
    policy: Policy,
    *,
    url: str | None = None,
    origins: Iterable[str] = (),
    sources: Iterable[EndorsementSource] | None = None,
    verifier: Verifier | None = None,
    gate: Gate | None = None,
    limits: Limits = LIMITS,
    **options: Any,
) -> httpx.AsyncClient:
    """As `attested_http_client`, for httpx 0.28 (the extra `httpx`)."""
    client: httpx.AsyncClient = _httpx_client(
        True, gate_for(policy, sources, verifier, limits, gate), origins_for(url, origins), options
    )
    return client


def attested_sync_httpx_client(
    policy: Policy,
    *,
    url: str | None = None,
    origins: Iterable[str] = (),
    sources: Iterable[EndorsementSource] | None = None,
    verifier: Verifier | None = None,
    gate: Gate | None = None,
    limits: Limits = LIMITS,
    **options: Any,
) -> httpx.Client:
    """As `attested_httpx_client`, blocking."""
    client: httpx.Client = _httpx_client(
        False, gate_for(policy, sources, verifier, limits, gate), origins_for(url, origins), options
    )
    return client


def _httpx_client(asynchronous: bool, gate: Gate, origins: Origins, options: dict[str, Any]) -> Any:
    httpx, core = _httpx()
    pool = pool_options(gate, default_pool())
    transport = httpx.AsyncHTTPTransport() if asynchronous else httpx.HTTPTransport()
    if asynchronous:
        transport._pool = core.AsyncConnectionPool(network_backend=AsyncBackend(gate, core), **pool)
        return httpx.AsyncClient(transport=_async_guard(httpx, transport, origins), **client_options(options))
    transport._pool = core.ConnectionPool(network_backend=SyncBackend(gate, core), **pool)
    return httpx.Client(transport=_sync_guard(httpx, transport, origins), **client_options(options))


def _async_guard(httpx: ModuleType, inner: Any, origins: Origins) -> Any:
    async def handle(self: Any, request: Any) -> Any:
        return await guarded(inner.handle_async_request, request, origins)

    async def aclose(self: Any) -> None:
        await inner.aclose()

    return type("Guard", (httpx.AsyncBaseTransport,), {"handle_async_request": handle, "aclose": aclose})()


def _sync_guard(httpx: ModuleType, inner: Any, origins: Origins) -> Any:
    def handle(self: Any, request: Any) -> Any:
        return guarded_sync(inner.handle_request, request, origins)

    def close(self: Any) -> None:
        inner.close()

    return type("Guard", (httpx.BaseTransport,), {"handle_request": handle, "close": close})()
