"""The HTTP headers that a message needs on its way to a streamable HTTP server, in both eras.

Source: MCP 2026-07-28, basic/transports (standard headers, `Mcp-Param-*`); MCP 2025-11-25 (session id, version).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attestable_mcp.mcp import headers, rpc

SESSION = "mcp-session-id"
LAST_EVENT = "last-event-id"
_TOOLS = 10_000
"""Tools whose annotations are remembered."""
BASE = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


def version_of(message: rpc.Message) -> str | None:
    """The stateless-era revision that a message names in its `_meta`, or None in the handshake era."""
    found = rpc.meta(message).get(rpc.PROTOCOL_VERSION)
    return found if isinstance(found, str) and found.isascii() and found.isprintable() else None


class Catalogue:
    """Which arguments of which tool are mirrored in headers, as learnt from `tools/list` answers."""

    def __init__(self) -> None:
        self._maps: dict[str, Mapping[tuple[str, ...], str]] = {}

    def learn(self, result: object) -> None:
        """Remember what a `tools/list` result says."""
        tools = result.get("tools") if isinstance(result, dict) else None
        for tool in tools if isinstance(tools, list) else ():
            if isinstance(tool, dict) and isinstance(tool.get("name"), str):
                self._remember(tool["name"], tool.get("inputSchema"))

    def _remember(self, name: str, schema: object) -> None:
        found = headers.mirrored(schema)
        self._maps.pop(name, None)
        if found and len(self._maps) < _TOOLS:
            self._maps[name] = found

    def headers(self, message: rpc.Message, version: str) -> dict[str, str]:
        """The headers of a stateless-era message."""
        method, params = message["method"], rpc.params(message)
        found = {**BASE, headers.VERSION: version, headers.METHOD: headers.encode(method)}
        key = headers.NAMED_BY.get(method)
        name = params.get(key) if key else None
        if isinstance(name, str):
            found[headers.NAME] = headers.encode(name)
            arguments = params.get("arguments")
            if method == "tools/call" and name in self._maps and isinstance(arguments, dict):
                found.update(headers.params(self._maps[name], arguments))
        return found


def legacy(session: str | None, version: str | None) -> dict[str, str]:
    """The headers of a handshake-era message."""
    found: dict[str, Any] = dict(BASE)
    if session is not None:
        found[SESSION] = session
    if version is not None:
        found[headers.VERSION] = version
    return found
