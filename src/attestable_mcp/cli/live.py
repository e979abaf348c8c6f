"""Meeting a live server from a verb that is not asynchronous. Everything that judges lies in `tls` and `mcp`."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from mcp import MCPError

from attestable_mcp.cli import text
from attestable_mcp.cli.endings import innermost
from attestable_mcp.errors import EXIT_USAGE, AttestationError, AttestationUnavailable, ConversationError
from attestable_mcp.rats import AttestationResult
from attestable_mcp.tls.admission import AttestedPeer, Gate
from attestable_mcp.tls.client import attest_server
from attestable_mcp.tls.engine import ClientContext
from attestable_mcp.tls.origins import origin_of
from attestable_mcp.tls.replay import Recorder, Recording, outcome

if TYPE_CHECKING:
    from attestable_mcp.mcp.manifest import Manifest

_T = TypeVar("_T")
_PAGES = 1000
"""Pages of a tool list that are asked for; a server that has more goes on for ever."""


def meet(url: str, gate: Gate, timeout: float) -> AttestationResult:
    """Prove the server on a connection of its own; no application byte is sent. Raises: AttestationError."""
    return outcome(meet_peer(url, gate, timeout))


def meet_peer(url: str, gate: Gate, timeout: float) -> AttestedPeer:
    """As `meet`, with the peer itself. Raises: AttestationError."""
    return _run(lambda: attest_server(gate.policy, url, gate=gate), url, timeout)


def record(url: str, recorder: Recorder, timeout: float) -> Recording:
    """As `meet`, with everything that the verdict rests on. Raises: AttestationError."""
    return _run(lambda: recorder.of_server(url), url, timeout)


def call_tool(
    url: str, gate: Gate, tool: str, arguments: dict[str, Any], timeout: float
) -> tuple[AttestationResult, dict[str, Any]]:
    """Prove the server, then call one tool. The answer has the keys of the protocol. Raises: AttestationError."""
    found: list[tuple[AttestationResult, dict[str, Any]]] = []

    async def work() -> tuple[AttestationResult, dict[str, Any]]:
        async with _client(url, gate) as client:
            with suppress(
                MCPError
            ):  # the SDK wants the tool's output schema; asking after the call could lose the answer
                await client.list_tools()
            answer = await client.call_tool(tool, arguments)
            found.append((client.attestation, answer.model_dump(mode="json", by_alias=True, exclude_none=True)))
        return found[0]

    return _unless_answered(work, found, url, timeout)


def _unless_answered(work: Callable[[], Awaitable[_T]], found: list[_T], url: str, timeout: float) -> _T:
    """An answer in hand stays an answer, also where the server goes away before we have said goodbye."""
    try:
        return _run(work, url, timeout)
    except Exception:
        if not found:
            raise
        return found[0]


def list_tools(url: str, gate: Gate, timeout: float) -> tuple[AttestationResult, list[dict[str, Any]]]:
    """Prove the server, then list its tools, all pages. Raises: AttestationError."""

    async def work() -> tuple[AttestationResult, list[dict[str, Any]]]:
        found: list[dict[str, Any]] = []
        async with _client(url, gate) as client:
            cursor: str | None = None
            for _ in range(_PAGES):
                page = await client.list_tools(cursor=cursor)
                found += [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in page.tools]
                cursor = page.next_cursor
                if cursor is None:
                    return client.attestation, found
        raise ConversationError(text.ENDLESS_TOOLS, code="flooded")

    return _run(work, url, timeout)


def list_all(
    url: str, gate: Gate, timeout: float, headers: Mapping[str, str] | None = None
) -> tuple[Manifest, AttestedPeer]:
    """Prove the server, then read all that it lists to these headers, whatever that is. Raises: AttestationError."""
    from attestable_mcp.mcp.lister import of_transport, read_manifest, with_headers
    from attestable_mcp.tls.client import attested_transport

    async def work() -> tuple[Manifest, AttestedPeer]:
        transport = attested_transport(gate, url)
        try:
            manifest = await read_manifest(with_headers(of_transport(transport, url), headers or {}))
        finally:
            await transport.aclose()
        return manifest, await attest_server(gate.policy, url, gate=gate)

    return _run(work, url, timeout)


class ServerError(ConversationError):
    """The server was admitted, and answered with an error of MCP: no refusal of ours, nothing about its evidence."""

    code = "mcp_error"
    exit_code = EXIT_USAGE


@asynccontextmanager
async def _client(url: str, gate: Gate) -> AsyncIterator[Any]:
    """A client of the SDK whose own errors about the conversation are told as ours."""
    from attestable_mcp.mcp.client import attested_client

    try:
        async with attested_client(url, gate=gate) as client:
            yield client
    except* MCPError as group:
        known = innermost(group)
        raise known or ServerError(text.protocol_error(_first(group))) from group


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


def certificate_of(url: str, timeout: float) -> bytes:
    """The DER certificate that a server shows. Nothing is verified. Raises: AttestationError."""
    origin = origin_of(url)

    async def work() -> bytes:
        try:
            _, writer = await asyncio.open_connection(
                origin.host, origin.port, ssl=ClientContext(), server_hostname=origin.host
            )
        except (OSError, ssl.SSLError, UnicodeError) as error:
            raise _unreachable(url, error) from error
        try:
            shown = writer.get_extra_info("ssl_object").getpeercert(True)
        finally:
            writer.close()
        if not shown:
            raise ConversationError(text.no_certificate(url), code="no_certificate")
        return bytes(shown)

    return _run(work, url, timeout)


def _run(work: Callable[[], Awaitable[_T]], url: str, timeout: float) -> _T:
    """Run to the end or the timeout; what nobody answers is unavailable, not refused."""

    async def within() -> _T:
        try:
            with anyio.fail_after(timeout):
                return await work()
        except TimeoutError as error:
            raise AttestationUnavailable(
                text.timed_out(url, timeout), code="timeout", hint=text.TIMEOUT_HINT
            ) from error

    try:
        return anyio.run(within)
    except AttestationError as error:
        if error.code == "unreachable":
            raise AttestationUnavailable(error.message, code=error.code, hint=error.hint) from error
        raise


def _unreachable(url: str, error: Exception) -> AttestationUnavailable:
    return AttestationUnavailable(
        text.unreachable(url, getattr(error, "strerror", None) or str(error) or "no TLS handshake came about"),
        code="unreachable",
        hint=text.UNREACHABLE_HINT,
    )
