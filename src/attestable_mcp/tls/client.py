"""HTTP clients that prove a server before they send it one byte of yours.

Proxies and the environment are ignored, so that nothing leaks to where nobody looked; redirects to other origins and
requests to origins that were not declared are refused; there is no plain HTTP.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import httpcore2
import httpx2

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.endorse.base import EndorsementSource
from attestable_mcp.errors import ConversationError
from attestable_mcp.limits import LIMITS, Limits
from attestable_mcp.tls.admission import AttestedPeer, Gate, Origin
from attestable_mcp.tls.fresh import DEMAND, turn
from attestable_mcp.tls.origins import Origins, origin_of, origins_for
from attestable_mcp.tls.streams import AsyncBackend, prove
from attestable_mcp.tls.streams_blocking import SyncBackend
from attestable_mcp.verifier import Verifier

__all__ = [
    "AttestedPeer",
    "Gate",
    "Origin",
    "attest_server",
    "attested_http_client",
    "attested_sync_http_client",
    "attested_transport",
    "gate_of",
]

EXTENSION = "attestation"
"""The key under which a response's `extensions` hold the `AttestedPeer` that it came from."""
KEEPALIVE_SECONDS = 30.0


class AsyncTransport(httpx2.AsyncHTTPTransport):
    """An httpx2 transport over a pool of proven connections. `gate` says who was met."""

    def __init__(self, gate: Gate, origins: Origins, *, limits: httpx2.Limits) -> None:
        self.gate = gate
        self._origins = origins
        self._pool = httpcore2.AsyncConnectionPool(network_backend=AsyncBackend(gate), **pool_options(gate, limits))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """As httpx2's own; the response's extensions name the peer."""
        return await guarded(super().handle_async_request, request, self._origins)  # type: ignore[no-any-return]


class SyncTransport(httpx2.HTTPTransport):
    """As `AsyncTransport`, blocking."""

    def __init__(self, gate: Gate, origins: Origins, *, limits: httpx2.Limits) -> None:
        self.gate = gate
        self._origins = origins
        self._pool = httpcore2.ConnectionPool(network_backend=SyncBackend(gate), **pool_options(gate, limits))

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """As httpx2's own; the response's extensions name the peer."""
        return guarded_sync(super().handle_request, request, self._origins)  # type: ignore[no-any-return]


async def guarded(handle: Callable[[Any], Awaitable[Any]], request: Any, origins: Origins) -> Any:
    """The response of `handle` to a request that may be sent; its extensions name the peer. Of httpx2 and httpx alike.

    Raises:
        AttestationError: the origin, the server or a redirect is refused.
    """
    origins.admit(request.url)
    with turn(bool(request.extensions.get(DEMAND))):
        response = await handle(request)
    try:
        origins.refuse_redirect(request.url, response.status_code, response.headers.get("location"))
    except ConversationError:
        await response.aclose()
        raise
    _name_peer(response)
    return response


def guarded_sync(handle: Callable[[Any], Any], request: Any, origins: Origins) -> Any:
    """As `guarded`, blocking."""
    origins.admit(request.url)
    with turn(bool(request.extensions.get(DEMAND))):
        response = handle(request)
    try:
        origins.refuse_redirect(request.url, response.status_code, response.headers.get("location"))
    except ConversationError:
        response.close()
        raise
    _name_peer(response)
    return response


def pool_options(gate: Gate, limits: Any) -> dict[str, Any]:
    """What a connection pool of httpcore2 or httpcore is made with."""
    return {
        "ssl_context": gate.context,
        "max_connections": limits.max_connections,
        "max_keepalive_connections": limits.max_keepalive_connections,
        "keepalive_expiry": limits.keepalive_expiry,
        "http1": True,
        "http2": False,
        "retries": 0,
    }


def _name_peer(response: Any) -> None:
    stream = response.extensions.get("network_stream")
    peer = stream.get_extra_info("attested_peer") if stream is not None else None
    if peer is not None:
        response.extensions[EXTENSION] = peer


def gate_for(
    policy: Policy,
    sources: Iterable[EndorsementSource] | None,
    verifier: Verifier | None,
    limits: Limits,
    gate: Gate | None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Gate:
    """The gate that is given, or one made of the rest. Raises: ConfigurationError."""
    if gate is not None:
        return gate
    given = None if sources is None else tuple(sources)
    return Gate(policy, sources=given, verifier=verifier, limits=limits, clock=clock)


def attested_http_client(
    policy: Policy,
    *,
    url: str | None = None,
    origins: Iterable[str] = (),
    sources: Iterable[EndorsementSource] | None = None,
    verifier: Verifier | None = None,
    gate: Gate | None = None,
    limits: Limits = LIMITS,
    pool: httpx2.Limits | None = None,
    mounts: dict[str, httpx2.AsyncBaseTransport | None] | None = None,
    around: Callable[[httpx2.AsyncBaseTransport], httpx2.AsyncBaseTransport] | None = None,
    **options: Any,
) -> httpx2.AsyncClient:
    """An httpx2 client that speaks only to servers that `policy` admits.

    `url` (any https URL of the server) and `origins` are what it may speak to; without them the first origin met is
    the only one. `mounts` gives other origins a transport of their own, such as an OAuth server with an ordinary
    certificate. `around` puts a transport around the attested one, which it calls `inner`.
    `options` go to `httpx2.AsyncClient` (headers, timeout, auth, ...).

    Raises:
        ConfigurationError: a URL that is not https, or a source or anchor that the policy names and nobody can read.
        AttestationError: from requests: the refusal itself, not a connect error.
    """
    transport = AsyncTransport(
        gate_for(policy, sources, verifier, limits, gate), origins_for(url, origins), limits=pool or default_pool()
    )
    outer = transport if around is None else around(transport)
    return httpx2.AsyncClient(transport=outer, mounts=mounts, **client_options(options))


def attested_transport(gate: Gate, url: str, *, pool: httpx2.Limits | None = None) -> AsyncTransport:
    """What is under `attested_http_client`, for one origin only: for clients and relays that wrap it further.

    Raises: as `attested_http_client`.
    """
    return AsyncTransport(gate, Origins([url]), limits=pool or default_pool())


def attested_sync_http_client(
    policy: Policy,
    *,
    url: str | None = None,
    origins: Iterable[str] = (),
    sources: Iterable[EndorsementSource] | None = None,
    verifier: Verifier | None = None,
    gate: Gate | None = None,
    limits: Limits = LIMITS,
    pool: httpx2.Limits | None = None,
    mounts: dict[str, httpx2.BaseTransport | None] | None = None,
    **options: Any,
) -> httpx2.Client:
    """As `attested_http_client`, blocking."""
    transport = SyncTransport(
        gate_for(policy, sources, verifier, limits, gate), origins_for(url, origins), limits=pool or default_pool()
    )
    return httpx2.Client(transport=transport, mounts=mounts, **client_options(options))


def default_pool() -> httpx2.Limits:
    """How many connections, and for how long."""
    return httpx2.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=KEEPALIVE_SECONDS)


def client_options(options: dict[str, Any]) -> dict[str, Any]:
    """Nothing of the environment, no redirects, and nobody may ask for them.

    Raises:
        TypeError: an option that would lead around the proof.
    """
    forbidden = {"trust_env", "proxy", "proxies", "verify", "cert", "transport", "http2"} & set(options)
    if forbidden or options.get("follow_redirects"):
        raise TypeError(f"an attested client has no {', '.join(sorted(forbidden)) or 'follow_redirects'}")
    return {**options, "trust_env": False, "follow_redirects": False}


def gate_of(client: httpx2.AsyncClient | httpx2.Client) -> Gate:
    """The gate of an attested client: `gate_of(client).newest` is the peer admitted last."""
    transport: object = getattr(client._transport, "inner", client._transport)
    if isinstance(transport, AsyncTransport | SyncTransport):
        return transport.gate
    raise TypeError("not an attested client")


async def attest_server(
    policy: Policy,
    url: str,
    *,
    sources: Iterable[EndorsementSource] | None = None,
    verifier: Verifier | None = None,
    gate: Gate | None = None,
    limits: Limits = LIMITS,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> AttestedPeer:
    """Prove the server at `url` on a connection of its own, and close it: no application byte is sent.

    Raises:
        AttestationError: the refusal; ConversationError with code `unreachable` when nobody answers at all.
    """
    origin = origin_of(url)
    chosen = gate_for(policy, sources, verifier, limits, gate, clock)
    return await prove(chosen, origin)
