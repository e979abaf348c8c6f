"""What the bridge itself has to tell the user, as an MCP log message, where the host has asked for such.

In the handshake era a server that declares `logging` may send `notifications/message` from its `initialize` result on;
in the stateless era only while a request is in flight whose `_meta` names a log level. Where neither is so, the host
is sent nothing that it did not ask for: stderr has it.
Source: MCP 2025-11-25, basic/lifecycle and server/utilities/logging; 2026-07-28, server/utilities/logging.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import rpc

LEVEL = "notice"
LOGGER = "attestable-mcp"
_HEARD_AT = ("debug", "info", "notice")
_ANSWERS = 64
"""Answers to the host within which a notice must find its way; then stderr alone has it, and nothing is read twice."""


class Notice:
    """Holds one notice until the host can be told. `tell` may be called from any thread.

    A notice is given before the first answer passes: whoever has none by then never will.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, Any] | None = None
        self._left = _ANSWERS
        self._levels: dict[rpc.Id, str] = {}

    def tell(self, data: dict[str, Any]) -> None:
        """Let the host know, once, as soon as it may be told."""
        self._waiting = data

    async def watch(self, lines: AsyncIterator[bytes | None]) -> AsyncIterator[bytes | None]:
        """The host's lines, unchanged; what they say of log levels is noted."""
        async for line in lines:
            if self._left and line is not None and rpc.LOG_LEVEL.encode() in line:
                self._note(rpc.parse(line))
            yield line

    def _note(self, message: object) -> None:
        if isinstance(message, dict) and rpc.fault(message) is None and rpc.is_request(message):
            level = rpc.meta(message).get(rpc.LOG_LEVEL)
            if level in _HEARD_AT and len(self._levels) < LIMITS.mcp_waiting:
                self._levels[message["id"]] = level

    def around(self, line: bytes) -> tuple[bytes, ...]:
        """The lines to write for this one: itself, and where the host may be told now, the notice at its place."""
        if not self._left:
            return (line,)
        message = rpc.parse(line)
        if not isinstance(message, dict) or not rpc.is_response(message):
            return (line,)
        request_id = message.get("id")
        heard = self._levels.pop(request_id, None) if rpc.is_id(request_id) else None
        self._left = self._left - 1 if self._waiting is not None else 0
        if heard is not None:  # in the stateless era only while the request that asked for it is in flight
            return (*self._take(), line)
        return (line, *self._take()) if _declares(message) else (line,)

    def _take(self) -> tuple[bytes, ...]:
        if self._waiting is None:
            return ()
        params = {"level": LEVEL, "logger": LOGGER, "data": self._waiting}
        self._waiting, self._left = None, 0
        return (rpc.dump({"jsonrpc": "2.0", "method": "notifications/message", "params": params}),)


def _declares(message: rpc.Message) -> bool:
    """Is this an `initialize` result of a server that logs?"""
    result = message.get("result")
    capabilities = result.get("capabilities") if isinstance(result, dict) and "protocolVersion" in result else None
    return isinstance(capabilities, dict) and isinstance(capabilities.get("logging"), dict)
