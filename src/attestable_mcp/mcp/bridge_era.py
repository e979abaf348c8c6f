"""Which era the server behind the bridge speaks, where that is not the host's.

The host's own message is tried first. Only an answer that a server of the other era might have given leads to a
question of ours, and only its positive answer to a translator; in all other cases the first answer stands.
Source: MCP 2026-07-28, basic/versioning (era detection); SEP-2575.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from attestable_mcp.mcp import bridge_headers, rpc
from attestable_mcp.mcp.bridge_calls import Call
from attestable_mcp.mcp.bridge_failure import Failure
from attestable_mcp.mcp.bridge_session import Session
from attestable_mcp.mcp.bridge_state import State
from attestable_mcp.mcp.translate import NEWEST, Translator, modern_version, notice, refuses_modern, request
from attestable_mcp.mcp.translate_down import Downward, opening
from attestable_mcp.mcp.translate_up import Upward

_UNCLEAR = frozenset({400, 404, 405, 406, 415, 501})

Question = Callable[[rpc.Message, dict[str, str]], Awaitable[rpc.Message]]
OpenSession = Callable[[Session], Awaitable[rpc.Message | None]]


class OtherEra(Exception):
    """An answer that may come from a server of the other era; what to tell the host if it does not. Internal."""

    def __init__(self, line: bytes = b"", failure: Failure | None = None) -> None:
        super().__init__()
        self.line = line
        self.failure = failure


def unclear_status(status: int) -> bool:
    """May a server of the other era answer with this HTTP status, without a JSON-RPC message?"""
    return status in _UNCLEAR


def other_era(method: str, version: str | None, message: rpc.Message) -> bool:
    """May this answer come from a server that does not speak the era of the request?"""
    return refuses_modern(method, message) if version is not None else "error" in message


def undecided(state: State, call: Call) -> bool:
    """May the answer to this call show that the server speaks the other era only?"""
    first = (call.version is not None) != (call.method == "initialize")
    return first and not state.era_known and not call.translated


class Eras:
    """Sets `state.translator` where the server speaks only the era that a host's request was not of."""

    def __init__(
        self, state: State, *, question: Question, open_session: OpenSession, say: Callable[[str], None]
    ) -> None:
        self._state = state
        self._question = question
        self._open_session = open_session
        self._say = say
        self._finding = anyio.Lock()

    async def find(self, call: Call) -> None:
        """Ask the server, once for all calls that met the same doubt. Raises: what the HTTP client raises."""
        state = self._state
        async with self._finding:
            if state.translator is None and not state.era_known:
                probe = Probe(call.message, call.version, question=self._question, open_session=self._open_session)
                state.translator = await probe.translator()
                state.era_known = probe.same_era
                if state.translator is not None:
                    self._say(probe.told)
                elif call.version is not None:
                    state.session = Session()


class Probe:
    """Finds a translator for a host whose `message` was not understood. `version` is its revision, if stateless."""

    def __init__(
        self, message: rpc.Message, version: str | None, *, question: Question, open_session: OpenSession
    ) -> None:
        self._message = message
        self._version = version
        self._question = question
        self._open_session = open_session
        self.same_era = False
        """Has the server turned out to speak the host's era after all?"""
        self.told = ""
        """A sentence for the host's log."""

    async def translator(self) -> Translator | None:
        """The translator, or None. Raises: what the HTTP client raises."""
        return await self._upward() if self._version is None else await self._downward()

    async def _upward(self) -> Translator | None:
        discovered = await self._discover(NEWEST)
        version = modern_version(discovered)
        if version is None:
            return None
        self.told = f"the server speaks MCP {version} only; this host's revision is translated"
        return Upward(discovered, version)

    async def _downward(self) -> Translator | None:
        if self._message["method"] != "server/discover" and modern_version(await self._discover(self._version or "")):
            self.same_era = True
            return None
        params = opening(self._message, rpc.client_info())
        session = Session(
            opening=rpc.dump(request("attestable-mcp-initialize", "initialize", params)),
            confirmed=rpc.dump(notice("notifications/initialized")),
        )
        opened = await self._open_session(session)
        if opened is None:
            return None
        self.told = f"the server speaks MCP {session.version} only; this host's revision is translated"
        return Downward(opened)

    async def _discover(self, version: str) -> rpc.Message:
        envelope = {rpc.PROTOCOL_VERSION: version, rpc.CLIENT_CAPABILITIES: {}, rpc.CLIENT_INFO: rpc.client_info()}
        message = request("attestable-mcp-discover", "server/discover", {"_meta": envelope})
        return await self._question(message, bridge_headers.Catalogue().headers(message, version))
