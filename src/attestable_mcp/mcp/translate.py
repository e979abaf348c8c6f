"""Between the two eras of MCP, message by message: what both directions of translation share.

A translator stands between a host and a server of different eras. It holds no socket and starts nothing: each message
that it is given yields the steps to take, in order. Whoever holds the two ends (the bridge, the stdio wrapper) takes
them. Payloads pass as they are; only what one era lacks is turned into what the other has for it.
Source: MCP 2025-11-25 and 2026-07-28: lifecycle, versioning, basic/utilities, client features, subscriptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from attestable_mcp.mcp import rpc

NEWEST = "2026-07-28"
MODERN_VERSIONS = (NEWEST,)
"""Revisions of the stateless era that we can translate."""
HANDSHAKE_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
NEWEST_HANDSHAKE = HANDSHAKE_VERSIONS[-1]
LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
"""Log levels, from the most talkative (RFC 5424)."""
LIST_CHANGED = {
    "tools": ("toolsListChanged", "notifications/tools/list_changed"),
    "prompts": ("promptsListChanged", "notifications/prompts/list_changed"),
    "resources": ("resourcesListChanged", "notifications/resources/list_changed"),
}
"""Server capability: its field in a subscription's filter, and the notification."""
UPDATED = "notifications/resources/updated"
ASKING_METHODS = {"sampling/createMessage": "sampling", "elicitation/create": "elicitation", "roots/list": "roots"}
"""What a server may ask of a host, and the capability that the host must have declared."""
RESUMABLE = frozenset({"tools/call", "prompts/get", "resources/read"})
"""Requests in whose answer the stateless era may ask for input."""
REMOVED = frozenset({"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"})
"""Requests of the handshake era that the stateless era does not have: HTTP 404 and -32601 (SEP-2575)."""
MODERN_ONLY_CODES = frozenset({rpc.HEADER_MISMATCH, rpc.MISSING_CLIENT_CAPABILITY})
"""Errors that only a server of the stateless era sends."""


@dataclass(frozen=True, slots=True)
class ToHost:
    """Pass this message to the host."""

    message: rpc.Message


@dataclass(frozen=True, slots=True)
class ToServer:
    """Pass this message to the server, `after` so many seconds."""

    message: rpc.Message
    after: float = 0.0


Step = ToHost | ToServer


class Translator(Protocol):
    """One conversation between a host and a server of different eras."""

    def from_host(self, message: rpc.Message) -> Sequence[Step]:
        """The host has sent this message."""

    def from_server(self, message: rpc.Message, related: rpc.Id | None = None) -> Sequence[Step]:
        """The server has sent this message; `related` is the id of the request on whose stream it came, if known."""

    def renewed(self) -> Sequence[Step]:
        """The server had forgotten the session, and a new one was opened."""

    def closing(self) -> Sequence[Step]:
        """The host has closed its side."""


class Steps:
    """Gathers the steps of one turn."""

    def __init__(self) -> None:
        self._steps: list[Step] = []

    def to_host(self, message: rpc.Message) -> None:
        """One more message for the host."""
        self._steps.append(ToHost(message))

    def to_server(self, message: rpc.Message, after: float = 0.0) -> None:
        """One more message for the server."""
        self._steps.append(ToServer(message, after))

    def take(self) -> list[Step]:
        """The steps of this turn."""
        steps, self._steps = self._steps, []
        return steps


def request(request_id: rpc.Id, method: str, params: rpc.Message | None = None) -> rpc.Message:
    """A JSON-RPC request."""
    return {"jsonrpc": "2.0", "id": request_id, "method": method} | ({"params": params} if params else {})


def notice(method: str, params: rpc.Message | None = None) -> rpc.Message:
    """A JSON-RPC notification."""
    return {"jsonrpc": "2.0", "method": method} | ({"params": params} if params else {})


def answer(request_id: rpc.Id, result: object) -> rpc.Message:
    """A JSON-RPC result."""
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def refusal(request_id: rpc.Id, code: int, text: str, data: object = None) -> rpc.Message:
    """A JSON-RPC error."""
    body = {"code": code, "message": text} | ({"data": data} if data is not None else {})
    return {"jsonrpc": "2.0", "id": request_id, "error": body}


def table(value: object) -> rpc.Message:
    """The object itself, or an empty one where it is something else."""
    return value if isinstance(value, dict) else {}


def modern_version(discovered: object) -> str | None:
    """The newest revision of the stateless era that a `server/discover` result offers and we can translate."""
    offered = table(discovered).get("supportedVersions")
    found = [version for version in MODERN_VERSIONS if isinstance(offered, list) and version in offered]
    return found[-1] if found else None


def refuses_modern(method: str, message: rpc.Message) -> bool:
    """May this answer to a stateless-era request come from a server that speaks the handshake era only?

    Only a further question settles that; False where the answer shows a server of the stateless era.
    """
    if "result" in message:
        return method == "server/discover" and modern_version(message["result"]) is None
    error = table(message.get("error"))
    if error.get("code") == rpc.UNSUPPORTED_VERSION:
        offered = table(error.get("data")).get("supported")
        return isinstance(offered, list) and not any(version in offered for version in MODERN_VERSIONS)
    return error.get("code") not in MODERN_ONLY_CODES
