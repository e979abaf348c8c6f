"""What the bridge knows of one session of the handshake era."""

from __future__ import annotations

import anyio

from attestable_mcp.mcp import bridge_headers, rpc


class Session:
    """`opening` and `confirmed` are the host's own handshake lines, kept for a server that forgets."""

    def __init__(self, opening: bytes | None = None, confirmed: bytes | None = None) -> None:
        self.opening = opening
        self.confirmed = confirmed
        self.id: str | None = None
        self.version: str | None = None
        self.listening = False
        self.scope = anyio.CancelScope()
        self._stream = anyio.CancelScope()
        self.lock = anyio.Lock()

    def open(self, session_id: str | None, result: rpc.Message) -> None:
        """The server has answered `initialize`."""
        version = result.get("protocolVersion")
        self.version = version if isinstance(version, str) and version.isascii() and version.isprintable() else None
        self.id = session_id

    def headers(self) -> dict[str, str]:
        """The headers of a message in this session."""
        return bridge_headers.legacy(self.id, self.version)

    def interruptible(self) -> anyio.CancelScope:
        """A scope for its GET stream, which `interrupt` ends."""
        self._stream = anyio.CancelScope()
        return self._stream

    def interrupt(self) -> None:
        """End its GET stream, so that it is opened anew."""
        self._stream.cancel()

    def close(self) -> None:
        """End its GET stream."""
        self.scope.cancel()
