"""Answers in the body of an HTTP response, looked at and perhaps replaced as they pass.

A body is one JSON message or an event stream. A server's own side is lenient: what is not replaced goes on byte by
byte. A client's side is strict: every message is written anew in plain ASCII, so that no later reader can find another
message in the same bytes, and what is no message does not pass.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from attestable_mcp.errors import ConversationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import rpc

Look = Callable[[rpc.Message], Awaitable[rpc.Message | None]]
"""Given each message of the server's: the message to send in its place, or None to leave it as it is."""
WITHHELD: Final[rpc.Message] = {}
"""What a look gives for a message that does not pass."""
_END = rb"(?:\r\n|\n|\r(?!\n))"
_EVENT_END = re.compile(_END + _END)
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


async def rewrite_json(body: bytes, look: Look, *, strict: bool = False) -> bytes:
    """A body that is one message.

    What is withheld leaves an empty body, such as that of an HTTP error.

    Raises: ConversationError (`garbage`), if strict, where it is none, or is withheld.
    """
    message = rpc.parse(body)
    if not isinstance(message, dict):
        if strict:
            raise ConversationError("answer: wanted one JSON-RPC message, seen something else", code="garbage")
        return body
    replaced = await look(message)
    if replaced is WITHHELD:
        if strict:
            raise ConversationError("answer: it is none to what was asked", code="garbage")
        return b""
    if strict:
        return rpc.ascii_dump(message if replaced is None else replaced)
    return body if replaced is None else rpc.dump(replaced)


class EventRewriter:
    """Feed it the bytes of an event stream; it gives whole events. `finish` gives what is left at the end."""

    def __init__(self, look: Look, *, strict: bool = False, cap: int = LIMITS.mcp_message) -> None:
        self._look = look
        self._strict = strict
        self._cap = cap
        self._rest = bytearray()
        self._searched = 0
        self._first = True

    async def feed(self, chunk: bytes) -> bytes:
        """The events that end within these bytes. Raises: ConversationError (`flooded`) for one over the cap."""
        self._rest += chunk
        out = bytearray()
        while found := _EVENT_END.search(self._rest, max(0, self._searched - 3)):
            block = bytes(self._rest[: found.end()])
            del self._rest[: found.end()]
            self._searched = 0
            out += await self._event(block)
        self._searched = len(self._rest)
        if self._searched > self._cap:
            raise ConversationError(
                f"event stream: wanted events of at most {self._cap} bytes, seen more", code="flooded"
            )
        return bytes(out)

    def finish(self) -> bytes:
        """What never became an event: nothing of meaning (WHATWG HTML, server-sent events)."""
        rest = b"" if self._strict else bytes(self._rest)
        self._rest.clear()
        return rest

    async def _event(self, block: bytes) -> bytes:
        if self._first:
            self._first = False
            block = block.removeprefix(_BOM)
        lines = [line for line in _LINE_END.split(block) if line]
        data = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
        message = rpc.parse(b"\n".join(data)) if data else None
        replaced = await self._look(message) if isinstance(message, dict) else None
        if not self._strict and replaced is None:
            return block
        kept = [line for line in lines if _is_field(line)] if self._strict else [
            line for line in lines if not line.startswith(b"data")
        ]  # fmt: skip
        if isinstance(message, dict) and replaced is not WITHHELD:
            shown = message if replaced is None else replaced
            kept.append(b"data: " + (rpc.ascii_dump(shown) if self._strict else rpc.dump(shown)))
        elif data and not any(data):
            kept.append(b"data: ")  # an id and nothing else, for a client that may have to come back (SEP-1699)
        return b"\n".join(kept) + b"\n\n" if kept else b":\n\n"


def _is_field(line: bytes) -> bool:
    """A field that no reader can take for data: an id, a retry time, the kind of an event, in printable ASCII."""
    name, _, value = line.partition(b":")
    return name in (b"id", b"retry", b"event") and all(32 <= byte < 127 for byte in value)


async def rewrite_events(
    chunks: AsyncIterator[bytes], look: Look, *, strict: bool = False, cap: int = LIMITS.mcp_message
) -> AsyncIterator[bytes]:
    """An event stream with each message looked at. Raises: ConversationError (`flooded`)."""
    rewriter = EventRewriter(look, strict=strict, cap=cap)
    async for chunk in chunks:
        if out := await rewriter.feed(chunk):
            yield out
    if rest := rewriter.finish():
        yield rest
