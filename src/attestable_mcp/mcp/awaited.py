"""Which answer is whose. A hostile server may give an answer on any stream and write its id in more ways than one.

Whoever asked takes it all the same: the SDK's client reads `"7"` and `" 07"` as 7, and the answer to a call on the
stream of another. So each answer is led to the look that its request was given, and passes under the very id that was
asked; an answer to nothing that waits does not pass. Source: MCP 2025-11-25, basic/transports (Resumability).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import rpc
from attestable_mcp.mcp.rewrite import WITHHELD, Look

_Key = tuple[str, rpc.Id]


@dataclass(slots=True, kw_only=True, eq=False)
class _Request:
    """One that waits: under which key, by which id, and who looks at its answer."""

    key: _Key
    id: rpc.Id
    look: Look
    answered: bool = False


class Awaited:
    """The requests of one conversation that wait. `noticed` is shown all that is no answer."""

    def __init__(self, noticed: Look, most: int = LIMITS.mcp_waiting) -> None:
        self._noticed = noticed
        self._most = most
        self._waiting: OrderedDict[_Key, _Request] = OrderedDict()

    def answer(self, session: str, request_id: rpc.Id, look: Look) -> Look:
        """The look for the stream that this request's own answer is wanted on; `look` sees that answer, wherever it is.

        Sessions keep the ids of several hosts apart; the newest that wait are remembered.
        """
        request = _Request(key=(session, _plain(request_id)), id=request_id, look=look)
        self._waiting[request.key] = request
        self._waiting.move_to_end(request.key)
        while len(self._waiting) > self._most:
            self._waiting.popitem(last=False)
        return self._stream(session, request)

    def stream(self, session: str) -> Look:
        """The look for a stream that was opened for nobody's answer."""
        return self._stream(session, None)

    def _stream(self, session: str, own: _Request | None) -> Look:
        async def look(message: rpc.Message) -> rpc.Message | None:
            if "method" in message:
                return WITHHELD if "result" in message or "error" in message else await self._noticed(message)
            request = self._asked(session, message.get("id"), own)
            if request is None and "error" in message:
                request = _open(own)  # servers that refuse a request unread name its id anyhow, such as "server-error"
            if request is None or not rpc.is_response(message):
                return WITHHELD
            return await self._led(request, message)

        return look

    def _asked(self, session: str, said: object, own: _Request | None) -> _Request | None:
        """The request that an answer with this id is for: an answer without one is for whoever has this stream."""
        waits = _open(own)
        if said is None:
            return waits
        if not rpc.is_id(said):
            return None
        if waits is not None and waits.key[1] == _plain(said):
            return waits
        return self._waiting.get((session, _plain(said)))

    async def _led(self, request: _Request, message: rpc.Message) -> rpc.Message | None:
        request.answered = True
        if self._waiting.get(request.key) is request:
            del self._waiting[request.key]
        said = message.get("id")
        same = said == request.id and isinstance(said, str) == isinstance(request.id, str)
        found = message if same else {**message, "id": request.id}
        replaced = await request.look(found)
        return found if replaced is None and not same else replaced


def _open(request: _Request | None) -> _Request | None:
    """The request, if it still waits."""
    return request if request is not None and not request.answered else None


def _plain(value: rpc.Id) -> rpc.Id:
    """An id as clients compare it: text that is a number is that number."""
    try:
        return int(value)
    except ValueError:
        return value
