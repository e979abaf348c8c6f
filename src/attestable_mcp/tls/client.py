"""HTTP clients that prove a server before they send it one byte of yours.

Proxies and the environment are ignored, so that nothing leaks to where nobody looked; redirects to other origins and
requests to origins that were not declared are refused; there is no plain HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any

import httpcore2
import httpx2

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.endorse.base import EndorsementSource
from attestable_mcp.errors import ConfigurationError, ConversationError
from attestable_mcp.limits import LIMITS, Limits
from attestable_mcp.tls.admission import AttestedPeer, Gate, Origin
from attestable_mcp.tls.fresh import DEMAND, turn
from attestable_mcp.tls.streams import AsyncBackend, SyncBackend
from attestable_mcp.verifier import Verifier

if TYPE_CHECKING:
    import httpx

__all__ = [
    "AttestedPeer",
    "Gate",
    "Origin",
    "attest_server",
    "attested_http_client",
    "attested_httpx_client",
    "attested_sync_http_client",
    "attested_sync_httpx_client",
    "attested_transport",
    "gate_of",
]

EXTENSION = "attestation"
"""The key under which a response's `extensions` hold the `AttestedPeer` that it came from."""
KEEPALIVE_SECONDS = 30.0


class Origins:
    """Which origins may be spoken to: those declared, or the first that is met where none is."""

    def __init__(self, declared: Iterable[str] = ()) -> None:
        self._allowed = {origin_of(url) for url in declared}

    def admit(self, url: Any) -> Origin:
        """The origin of a request.

        Raises:
            ConversationError: with the code `plaintext_refused` or `other_origin`.
        """
        origin = _origin(url)
        if origin.scheme != "https":
            raise ConversationError(
                f"request to {origin}: wanted https", code="plaintext_refused", hint="use the server's https URL"
            )
        self._allowed = self._allowed or {origin}
        if origin not in self._allowed:
            allowed = ", ".join(sorted(str(item) for item in self._allowed))
            raise ConversationError(
                f"request to {origin}: this client speaks to {allowed} only",
                code="other_origin",
                hint="use another client for another server; each is proven by itself",
            )
        return origin

    def refuse_redirect(self, request_url: Any, status: int, location: str | None) -> None:
        """A redirect to elsewhere is an error, even where nobody would follow it.

        Raises:
            ConversationError: with the code `redirect_refused`.
        """
        if status not in (301, 302, 303, 307, 308) or location is None:
            return
        try:
            target = _origin(request_url.join(location))
        except (ValueError, httpx2.InvalidURL, ConfigurationError) as error:
            raise ConversationError("redirect to an address that nobody can read", code="redirect_refused") from error
        if target not in self._allowed:
            raise ConversationError(
                f"redirect to {target}: refused", code="redirect_refused", hint="nothing was sent there"
            )


def origin_of(url: str) -> Origin:
    """The origin of an absolute https URL.

    Raises:
        ConfigurationError: it is not one.
    """
    try:
        origin = _origin(httpx2.URL(url))
    except (httpx2.InvalidURL, ValueError, TypeError) as error:
        raise ConfigurationError(f"server URL: wanted https://HOST[:PORT]/…, seen {url!r:.100}") from error
    if origin.scheme != "https" or not origin.host or not 0 < origin.port < 65536:
        raise ConfigurationError(
            f"server URL: wanted https://HOST[:PORT]/…, seen {url!r:.100}", hint="attestation rides on TLS: use https"
        )
    return origin


def _origin(url: Any) -> Origin:
    scheme, host = str(url.scheme).lower(), str(url.raw_host.decode("ascii")).lower().strip("[]")
    return Origin(scheme, host, url.port or (443 if scheme == "https" else 80))


class AsyncTransport(httpx2.AsyncHTTPTransport):
    """An httpx2 transport over a pool of proven connections. `gate` says who was met."""

    def __init__(self, gate: Gate, origins: Origins, *, limits: httpx2.Limits) -> None:
        self.gate = gate
        self._origins = origins
        self._pool = httpcore2.AsyncConnectionPool(network_backend=AsyncBackend(gate), **_pool_options(gate, limits))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """As httpx2's own; the response's extensions name the peer."""
        self._origins.admit(request.url)
        with turn(bool(request.extensions.get(DEMAND))):
            response = await super().handle_async_request(request)
        try:
            self._origins.refuse_redirect(request.url, response.status_code, response.headers.get("location"))
        except ConversationError:
            await response.aclose()
            raise
        _name_peer(response)
        return response


class SyncTransport(httpx2.HTTPTransport):
    """As `AsyncTransport`, blocking."""

    def __init__(self, gate: Gate, origins: Origins, *, limits: httpx2.Limits) -> None:
        self.gate = gate
        self._origins = origins
        self._pool = httpcore2.ConnectionPool(network_backend=SyncBackend(gate), **_pool_options(gate, limits))

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """As httpx2's own; the response's extensions name the peer."""
        self._origins.admit(request.url)
        with turn(bool(request.extensions.get(DEMAND))):
            response = super().handle_request(request)
        try:
            self._origins.refuse_redirect(request.url, response.status_code, response.headers.get("location"))
        except ConversationError:
            response.close()
            raise
        _name_peer(response)
        return response


def _pool_options(gate: Gate, limits: Any) -> dict[str, Any]:
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


def _gate(
    policy: Policy,
    sources: Iterable[EndorsementSource] | None,
    verifier: Verifier | None,
    limits: Limits,
    gate: Gate | None,
) -> Gate:
    if gate is not None:
        return gate
    return Gate(policy, sources=None if sources is None else tuple(sources), verifier=verifier, limits=limits)


def _origins(url: str | None, origins: Iterable[str]) -> Origins:
    return Origins([*([url] if url else []), *origins])


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
        _gate(policy, sources, verifier, limits, gate), _origins(url, origins), limits=pool or _default_pool()
    )
    outer = transport if around is None else around(transport)
    return httpx2.AsyncClient(transport=outer, mounts=mounts, **_client_options(options))


def attested_transport(gate: Gate, url: str, *, pool: httpx2.Limits | None = None) -> AsyncTransport:
    """What is under `attested_http_client`, for one origin only: for clients and relays that wrap it further.

    Raises: as `attested_http_client`.
    """
    return AsyncTransport(gate, Origins([url]), limits=pool or _default_pool())


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
        _gate(policy, sources, verifier, limits, gate), _origins(url, origins), limits=pool or _default_pool()
    )
    return httpx2.Client(transport=transport, mounts=mounts, **_client_options(options))


def _default_pool() -> httpx2.Limits:
    return httpx2.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=KEEPALIVE_SECONDS)


def _client_options(options: dict[str, Any]) -> dict[str, Any]:
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


# The twins for httpx 0.28 and httpcore 1


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
        True, _gate(policy, sources, verifier, limits, gate), _origins(url, origins), options
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
        False, _gate(policy, sources, verifier, limits, gate), _origins(url, origins), options
    )
    return client


def _httpx_client(asynchronous: bool, gate: Gate, origins: Origins, options: dict[str, Any]) -> Any:
    httpx, core = _httpx()
    pool_options = _pool_options(gate, _default_pool())
    transport = httpx.AsyncHTTPTransport() if asynchronous else httpx.HTTPTransport()
    if asynchronous:
        transport._pool = core.AsyncConnectionPool(network_backend=AsyncBackend(gate, core), **pool_options)
        return httpx.AsyncClient(transport=_async_guard(httpx, transport, origins), **_client_options(options))
    transport._pool = core.ConnectionPool(network_backend=SyncBackend(gate, core), **pool_options)
    return httpx.Client(transport=_sync_guard(httpx, transport, origins), **_client_options(options))


def _async_guard(httpx: ModuleType, inner: Any, origins: Origins) -> Any:
    async def handle(self: Any, request: Any) -> Any:
        origins.admit(request.url)
        with turn(bool(request.extensions.get(DEMAND))):
            response = await inner.handle_async_request(request)
        try:
            origins.refuse_redirect(request.url, response.status_code, response.headers.get("location"))
        except ConversationError:
            await response.aclose()
            raise
        _name_peer(response)
        return response

    async def aclose(self: Any) -> None:
        await inner.aclose()

    return type("Guard", (httpx.AsyncBaseTransport,), {"handle_async_request": handle, "aclose": aclose})()


def _sync_guard(httpx: ModuleType, inner: Any, origins: Origins) -> Any:
    def handle(self: Any, request: Any) -> Any:
        origins.admit(request.url)
        with turn(bool(request.extensions.get(DEMAND))):
            response = inner.handle_request(request)
        try:
            origins.refuse_redirect(request.url, response.status_code, response.headers.get("location"))
        except ConversationError:
            response.close()
            raise
        _name_peer(response)
        return response

    def close(self: Any) -> None:
        inner.close()

    return type("Guard", (httpx.BaseTransport,), {"handle_request": handle, "close": close})()


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
    chosen = gate or Gate(
        policy,
        sources=None if sources is None else tuple(sources),
        verifier=verifier,
        limits=limits,
        clock=clock,
    )
    try:
        stream = await AsyncBackend(chosen).connect_tcp(origin.host, origin.port)
    except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
        raise ConversationError(
            f"server {origin}: cannot be reached: {error}",
            code="unreachable",
            hint="check the address, and that it runs",
        ) from error
    await stream.start_tls(chosen.context, origin.host)
    peer: AttestedPeer = stream.get_extra_info("attested_peer")
    await stream.aclose()
    return peer
