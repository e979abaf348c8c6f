"""Server-sent events as bytes arrive, with a cap on what one event may hold.

Source: WHATWG HTML, server-sent events (parsing an event stream); MCP 2025-11-25, basic/transports (retry, event ids).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from attestable_mcp.errors import ConversationError
from attestable_mcp.limits import LIMITS

_MAX_RETRY_MS = 60_000
_LINE_END = re.compile(rb"\r\n|\n|\r")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event: its data, and its id if it had one."""

    data: bytes
    id: str | None


class EventReader:
    """Feed it bytes, take events. `last_id` and `retry_seconds` are what a reconnection needs."""

    def __init__(self, cap: int = LIMITS.mcp_message) -> None:
        self._cap = cap
        self._rest = bytearray()
        self._after_cr = False
        self._first = True
        self._data: list[bytes] = []
        self._size = 0
        self._kind = b""
        self._id: str | None = None
        self.last_id: str | None = None
        self.retry_seconds: float | None = None

    def again(self) -> EventReader:
        """A reader for the same stream's next connection."""
        reader = EventReader(self._cap)
        reader.last_id, reader.retry_seconds = self.last_id, self.retry_seconds
        return reader

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that end within these bytes. Raises: ConversationError (`flooded`) for one over the cap."""
        for line in self._lines(chunk):
            event = self._line(line)
            if event is not None:
                yield event
        if len(self._rest) + self._size > self._cap:
            raise ConversationError(
                f"event stream: wanted events of at most {self._cap} bytes, seen more", code="flooded"
            )

    def _lines(self, chunk: bytes) -> Iterator[bytes]:
        """Lines end with CRLF, LF or CR; a CR at the end of a chunk may have its LF in the next."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if chunk:
            self._after_cr = chunk.endswith(b"\r")
        *ended, rest = _LINE_END.split(chunk)
        for piece in ended:
            self._rest += piece
            line = bytes(self._rest)
            self._rest.clear()
            yield line
        self._rest += rest

    def _line(self, line: bytes) -> Event | None:
        if self._first:
            self._first = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
            self._size += len(value) + 1
        elif name == b"event":
            self._kind = value
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit():
            self.retry_seconds = min(int(value[:9]), _MAX_RETRY_MS) / 1000
        return None

    def _dispatch(self) -> Event | None:
        data, kind = b"\n".join(self._data), self._kind
        self._data, self._size, self._kind = [], 0, b""
        if self._id is not None:
            self.last_id = self._id or None
        return Event(data=data, id=self.last_id) if data and kind in (b"", b"message") else None
