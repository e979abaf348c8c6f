"""What goes to the host: the server's messages, each answer once, and the bridge's own errors."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

import httpx2

from attestable_mcp.mcp import bridge_headers, rpc
from attestable_mcp.mcp.bridge_calls import Call
from attestable_mcp.mcp.bridge_era import OtherEra, other_era, undecided
from attestable_mcp.mcp.bridge_failure import Failure
from attestable_mcp.mcp.bridge_state import State
from attestable_mcp.mcp.translate import Step

_log = logging.getLogger(__name__)


class HostSide:
    """`write` takes one line for the host, `say` one sentence for its log, `carry_out` the steps of a translator."""

    def __init__(
        self,
        state: State,
        *,
        write: Callable[[bytes], Awaitable[None]],
        say: Callable[[str], None],
        carry_out: Callable[[Sequence[Step]], Awaitable[None]],
    ) -> None:
        self._state = state
        self.write = write
        self.say = say
        self.carry_out = carry_out

    async def deliver(self, message: rpc.Message, line: bytes, call: Call | None, response: httpx2.Response) -> None:
        """A message of the server's. A response goes out once, and only for a request that waits. Raises: OtherEra."""
        if not rpc.is_response(message):
            await self.emit(message, line, call)
            return
        if call is not None and call.id == message.get("id") and undecided(self._state, call):
            if other_era(call.method, call.version, message):
                raise OtherEra(line=line)
            self._state.era_known = "result" in message
        asked = self._state.calls.take(message.get("id"))
        if asked is None:
            _log.debug("a response that nobody waits for was dropped")
            return
        self._learn(asked, message, response)
        await self.emit(message, line, asked)
        self._state.calls.settle()

    async def emit(self, message: rpc.Message, line: bytes, call: Call | None) -> None:
        """One message from the server's side. `call` is the request that it belongs to, if that is known."""
        translator = self._state.translator
        if translator is None or (call is not None and not call.translated):
            await self.write(line)
        else:
            await self.carry_out(translator.from_server(message, call.id if call is not None else None))

    async def fail(self, call: Call, failure: Failure) -> None:
        """Answer a request with an error of ours, unless it has its answer."""
        if self._state.calls.take(call.id):
            self.say(failure.message)
            await self._error(call, failure.answer(call.id))
            self._state.calls.settle()

    async def refuse(self, call: Call, text: str) -> None:
        """Answer a request that was never let in."""
        await self._error(call, rpc.error(call.id, rpc.INVALID_REQUEST, text))

    async def _error(self, call: Call, line: bytes) -> None:
        await self.emit(rpc.parse(line), line, call)

    def _learn(self, asked: Call, message: rpc.Message, response: httpx2.Response) -> None:
        """Learn from an answer what later headers need."""
        result = message.get("result")
        if asked.method == "tools/list":
            self._state.catalogue.learn(result)
        elif asked.method == "initialize" and asked.version is None and isinstance(result, dict):
            self._state.session.open(response.headers.get(bridge_headers.SESSION), result)
