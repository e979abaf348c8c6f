"""The SDK's client over a connection that was proven first.

    async with attested_client("https://mcp.example:8443/mcp", policy="policy.toml") as client:
        print(client.attestation.verdict, client.attestation.not_proven)
        await client.call_tool("add", {"a": 1, "b": 2})

A server that is refused gets no byte of MCP, and the refusal comes out as itself, not wrapped in an exception group.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import anyio
import httpx2
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.attest.base import Attester
from attestable_mcp.bind.receipt import Head, Receipt
from attestable_mcp.endorse.base import EndorsementSource
from attestable_mcp.errors import AttestationError, ConversationError, ReceiptError, ToolRefused
from attestable_mcp.mcp.difference import ItemChange
from attestable_mcp.mcp.gate import make_gate
from attestable_mcp.mcp.refusal import NO_RECEIPT, NOT_CALLED
from attestable_mcp.mcp.watch import Watch
from attestable_mcp.mcp.watched import WatchedOnFirstUse, watched
from attestable_mcp.rats import AttestationResult
from attestable_mcp.tls.admission import AttestedPeer, Gate, LastWord
from attestable_mcp.tls.challenge import REFUSED as UNPROVEN
from attestable_mcp.tls.client import attested_http_client
from attestable_mcp.tls.origins import origin_of
from attestable_mcp.tls.prover import ClientProver
from attestable_mcp.verifier import Verifier

READ_SECONDS = 300.0
"""How long a response may be silent, as the SDK's own client has it."""


def attested_client(
    url: str,
    *,
    policy: Policy | Path | str | None = None,
    pins: LastWord | None = None,
    sources: Iterable[EndorsementSource] | None = None,
    verifier: Verifier | None = None,
    gate: Gate | None = None,
    attester: Attester | ClientProver | None = None,
    danger_accept_simulated: bool = False,
    headers: Mapping[str, str] | None = None,
    auth: httpx2.Auth | None = None,
    mounts: dict[str, httpx2.AsyncBaseTransport | None] | None = None,
    timeout: httpx2.Timeout | None = None,
    receipts: bool | None = None,
    **options: Any,
) -> AttestedClient:
    """An SDK client of the server at `url`, which `policy` must admit before it is spoken to.

    `policy` is a Policy, the path of a policy file, or the text of one. `pins` (a `Pins`) is trust on first use: alone,
    it admits genuine hardware whose code is the same as at first use; with a policy, both must hold. One of the two is
    needed, unless a `gate` is given, which has them. `attester` proves this client to servers that ask for it; give a
    `ClientProver` to share one between clients. `sources` are asked for collateral instead of those that the
    policy names. `headers`, `auth`, `mounts` and `timeout` are those of the HTTP client; an OAuth server elsewhere
    needs a mount of its own. `receipts` overrides whether each answer must carry one. `options` go to
    `mcp.Client` (mode, sampling_callback, ...).

    Raises:
        ConfigurationError: at once, for a URL that is not https, a policy that is wrong, or neither policy nor pins.
        AttestationError: on entering, and later from the block when a new connection meets another server.
    """
    origin_of(url)
    chosen = gate or make_gate(
        policy,
        pins=pins,
        sources=sources,
        verifier=verifier,
        attester=attester,
        danger_accept_simulated=danger_accept_simulated,
    )
    watch: list[Watch] = []

    def around(inner: httpx2.AsyncBaseTransport) -> Watch:
        watch.append(watched(inner, chosen, url, receipts=receipts))
        return watch[0]

    http = attested_http_client(
        chosen.policy,
        url=url,
        gate=chosen,
        mounts=mounts,
        around=around,
        headers=dict(headers or {}),
        auth=auth,
        timeout=timeout or httpx2.Timeout(30.0, read=READ_SECONDS),
    )
    return AttestedClient(url, http, chosen, watch[0], **options)


_LATE = (anyio.BrokenResourceError, anyio.ClosedResourceError)


class AttestedClient(Client):
    """`mcp.Client` that knows what was proven of its server, and calls nothing that was not promised.

    A call that is refused before it is sent raises ToolRefused, with the difference; an answer without a receipt that
    holds, where one is demanded, ReceiptError.
    """

    def __init__(self, url: str, http: httpx2.AsyncClient, gate: Gate, watch: Watch, **options: Any) -> None:
        super().__init__(_transport(url, http), **options)
        self._gate = gate
        self._watch = watch

    @property
    def changes(self) -> tuple[ItemChange, ...]:
        """How the server's lists came to differ from what was promised, the oldest first."""
        return tuple(self._watch.warden.changes)

    @property
    def receipt(self) -> Receipt | None:
        """The receipt that came in last."""
        return self._watch.notary.newest if self._watch.notary is not None else None

    async def receipt_head(self) -> Head | None:
        """A signed tree head over the receipts of this conversation, compared with them and kept. None without any.

        Raises: AttestationError: the server gives none, or one that contradicts the receipts.
        """
        return await self._watch.notary.head(self._watch.inner) if self._watch.notary is not None else None

    async def call_tool(self, *arguments: Any, **options: Any) -> Any:
        """As the SDK's own. Raises also: ToolRefused, ReceiptError."""
        with _told_as_ours():
            return await super().call_tool(*arguments, **options)

    async def get_prompt(self, *arguments: Any, **options: Any) -> Any:
        """As the SDK's own. Raises also: ToolRefused, ReceiptError."""
        with _told_as_ours():
            return await super().get_prompt(*arguments, **options)

    async def read_resource(self, *arguments: Any, **options: Any) -> Any:
        """As the SDK's own. Raises also: ReceiptError."""
        with _told_as_ours():
            return await super().read_resource(*arguments, **options)

    async def list_tools(self, *arguments: Any, **options: Any) -> Any:
        """As the SDK's own. Raises also: ToolRefused where the evidence does not commit to the list."""
        with _told_as_ours():
            return await super().list_tools(*arguments, **options)

    @property
    def peer(self) -> AttestedPeer:
        """The server as it was admitted last: its result, its binding to the connection, its key.

        Raises: ConversationError before there is a connection.
        """
        if self._gate.newest is None:
            raise ConversationError("no server has been proven yet", hint="use it with `async with`")
        return self._gate.newest

    @property
    def attestation(self) -> AttestationResult:
        """What was proven of the server, and what was not; also what the lists leave open that came so far."""
        result = self.peer.result
        return replace(result, not_proven=(*result.not_proven, *self._watch.left_open))

    async def __aenter__(self) -> AttestedClient:
        try:
            await super().__aenter__()
        except Exception as error:
            reason = told(error)
            if reason is None:
                raise
            raise reason from reason.__cause__
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        try:
            await super().__aexit__(exc_type, exc_val, exc_tb)
        except Exception as error:
            if exc_val is not None and exc_val in _leaves(error):
                return  # the block's own exception goes on as it was, without the groups it came through
            if exc_val is None and all(isinstance(leaf, _LATE) for leaf in _leaves(error)):
                return  # an answer to a cancelled call that came while the SDK closed its streams
            reason = told(error)
            if reason is None:
                raise
            raise reason from reason.__cause__


@contextmanager
def _told_as_ours() -> Iterator[None]:
    """What the watch answers in the server's place, as an error of our family."""
    try:
        yield
    except MCPError as error:
        found = _refused(error)
        if found is None:
            raise
        raise found from error


def _refused(error: MCPError) -> AttestationError | None:
    """The error of our family that the watch has put into an answer."""
    data = error.data if isinstance(error.data, dict) else {}
    if error.code not in (NOT_CALLED, NO_RECEIPT) or not isinstance(data.get("code"), str):
        return None
    message, code, hint = str(data.get("message", error.message)), data["code"], str(data.get("hint", ""))
    if error.code == NO_RECEIPT:
        return ReceiptError(message, code=code, hint=hint)
    return ToolRefused(message, code=code, hint=hint, difference=data.get("difference"))


@asynccontextmanager
async def _transport(url: str, http: httpx2.AsyncClient) -> AsyncIterator[Any]:
    async with http, streamable_http_client(url, http_client=http) as streams:
        yield streams


class HttpClientFactory:
    """Makes attested HTTP clients for FastMCP, which asks for one per connection: see `fastmcp_client_factory`."""

    def __init__(self, gate: Gate, url: str | None) -> None:
        self.gate = gate
        self._url = url

    def __call__(
        self,
        headers: dict[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        auth: httpx2.Auth | None = None,
        **_: object,
    ) -> httpx2.AsyncClient:
        """A client; `follow_redirects`, which FastMCP passes, is not granted."""
        return attested_http_client(
            self.gate.policy,
            url=self._url,
            gate=self.gate,
            around=self._around,
            headers=headers,
            auth=auth,
            timeout=timeout or httpx2.Timeout(30.0, read=READ_SECONDS),
        )

    def _around(self, inner: httpx2.AsyncBaseTransport) -> httpx2.AsyncBaseTransport:
        return WatchedOnFirstUse(inner, self.gate)

    @property
    def attestation(self) -> AttestationResult | None:
        """What was proven of the server met last, or None before any was."""
        return self.gate.newest.result if self.gate.newest is not None else None


def fastmcp_client_factory(
    policy: Policy | Path | str | None = None,
    *,
    pins: LastWord | None = None,
    url: str | None = None,
    sources: Iterable[EndorsementSource] | None = None,
    attester: Attester | ClientProver | None = None,
    danger_accept_simulated: bool = False,
) -> HttpClientFactory:
    """For FastMCP's client: `StreamableHttpTransport(url, httpx_client_factory=fastmcp_client_factory(policy))`.

    `policy` and `pins` are as in `attested_client`. FastMCP wraps a refusal in a RuntimeError; `find_refusal(error)`
    gives it back.

    Raises: ConfigurationError.
    """
    gate = make_gate(
        policy, pins=pins, sources=sources, attester=attester, danger_accept_simulated=danger_accept_simulated
    )
    return HttpClientFactory(gate, url)


def told(error: Exception) -> AttestationError | None:
    """What a reader wants of an exception group: the refusal in it, or how the server broke the conversation."""
    leaves = _leaves(error)
    for leaf in leaves:
        if isinstance(leaf, AttestationError):
            return leaf
        if isinstance(leaf, MCPError) and leaf.code == UNPROVEN:
            return _unproven(leaf)
        if isinstance(leaf, MCPError) and (refused := _refused(leaf)) is not None:
            refused.__cause__ = leaf
            return refused
    for leaf in leaves:
        if isinstance(leaf, (httpx2.ConnectError, httpx2.ConnectTimeout)):
            return _unreachable(leaf)
    for leaf in leaves:
        if isinstance(leaf, httpx2.TimeoutException):
            return _broken(leaf, "timeout", "did not answer in time")
        if isinstance(leaf, (httpx2.NetworkError, httpx2.RemoteProtocolError)):
            return _broken(leaf, "connection_closed", "ended the connection before its answer")
    return None


def _unproven(error: MCPError) -> ConversationError:
    """The server serves nobody who has not proven itself."""
    data = error.data if isinstance(error.data, dict) else {}
    code, hint = str(data.get("code", "client_attestation_required")), str(data.get("hint", ""))
    found = ConversationError(f"server: {error.message}", code=code, hint=hint)
    found.__cause__ = error
    return found


def _unreachable(error: httpx2.TransportError) -> ConversationError:
    found = ConversationError(
        f"server: cannot be reached: {error or type(error).__name__}",
        code="unreachable",
        hint="check the address, and that the server runs",
    )
    found.__cause__ = error
    return found


def _broken(error: httpx2.TransportError, code: str, what: str) -> ConversationError:
    found = ConversationError(
        f"server: {what}: {error or type(error).__name__}",
        code=code,
        hint="the server may be stopping or overloaded; try again, and look at its log",
    )
    found.__cause__ = error
    return found


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
