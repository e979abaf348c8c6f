"""The handshake era's session, kept: opened, listened to, opened again where the server forgot it, ended."""

from __future__ import annotations

from contextlib import suppress

import anyio

from attestable_mcp.errors import ConversationError
from attestable_mcp.mcp import bridge_headers, rpc
from attestable_mcp.mcp.bridge_answer import Answers
from attestable_mcp.mcp.bridge_failure import failure_of
from attestable_mcp.mcp.bridge_link import Link
from attestable_mcp.mcp.bridge_question import Questions
from attestable_mcp.mcp.bridge_session import Session
from attestable_mcp.mcp.bridge_sse import EventReader
from attestable_mcp.mcp.bridge_state import Start, State
from attestable_mcp.mcp.bridge_to_host import HostSide

_PAUSE_SECONDS = 30.0
"""The longest pause between attempts at the stream of notices; they go on, since a network may be away for a night."""
_NOTICES_BROKE = "the stream of notices ended, and is opened again by itself"
_FOR_NOW = frozenset({429, 502, 503, 504})
"""HTTP statuses that say nothing of whether there is such a stream."""
_CONFIRM_SECONDS = 30.0
_LEAVE_SECONDS = 0.7


class SessionGone(Exception):
    """HTTP 404 for a session: the server has not looked at the message. Internal."""


class SessionKeeper:
    """Keeps `state.session`; there is one at a time."""

    def __init__(
        self, link: Link, state: State, *, host: HostSide, answers: Answers, questions: Questions, start: Start
    ) -> None:
        self._link = link
        self._state = state
        self._host = host
        self._answers = answers
        self._questions = questions
        self._start = start

    def begin(self, opening: bytes) -> None:
        """The host opens a session: the one before it is over."""
        self._start(self.leave, self._state.session)
        self._state.session = Session(opening=opening)

    async def open(self, session: Session) -> rpc.Message | None:
        """Open a session with a handshake of its own: the server's `initialize` result, or None where it opens none."""
        self._state.session = session
        opening = rpc.parse(session.opening or b"{}")
        result = await self._questions.ask(opening, bridge_headers.legacy(None, None), session)
        if session.version is None:
            return None
        if session.confirmed is not None:
            async with self._link.stream("POST", session.headers(), body=session.confirmed, read=_CONFIRM_SECONDS):
                pass
            self.listen(session)
        return result

    async def revive(self, dead: Session) -> None:
        """Open a new session with the host's own handshake, once for all requests that met the dead one.

        Raises: ConversationError (`session_lost`); what the HTTP client raises.
        """
        async with dead.lock:
            if self._state.session is not dead or dead.opening is None:
                return
            dead.close()
            if await self.open(Session(opening=dead.opening, confirmed=dead.confirmed)) is None:
                self._state.session = dead
                raise ConversationError("the server forgot the session and opens no other", code="session_lost")
            self._host.say("the server had forgotten the session; a new one was opened")
            if self._state.translator is not None:
                await self._host.carry_out(self._state.translator.renewed())

    def listen(self, session: Session) -> None:
        """Open the session's GET stream, once."""
        if session.id is not None and not session.listening:
            session.listening = True
            self._start(self._standing, session)

    async def leave(self, session: Session) -> None:
        """End a session at the server."""
        session.close()
        if session.id is not None:
            with anyio.move_on_after(_LEAVE_SECONDS), suppress(Exception):
                async with self._link.stream("DELETE", session.headers()):
                    pass

    async def _standing(self, session: Session) -> None:
        """The GET stream, reconnected as long as the session lives; a server may have none (405)."""
        reader, failures = self._link.reader(), 0
        with session.scope:
            while True:
                try:
                    with session.interruptible():
                        async with self._link.stream("GET", _resumed(session, reader)) as response:
                            if response.status_code == 200:
                                failures = 0
                                await self._answers.read(reader, response, None)
                            elif response.status_code in _FOR_NOW:
                                failures += 1
                            else:
                                break
                except Exception as error:  # noqa: BLE001 a lost stream of notices ends no bridge
                    failures += 1
                    if failures == 1:
                        self._host.say(f"{_NOTICES_BROKE}: {failure_of(error, self._link.url).data['message']}")
                reader = reader.again()
                await anyio.sleep(_pause(reader, failures))
        session.listening = False


def _resumed(session: Session, reader: EventReader) -> dict[str, str]:
    after = {bridge_headers.LAST_EVENT: reader.last_id} if reader.last_id else {}
    return session.headers() | after


def _pause(reader: EventReader, failures: int) -> float:
    """Seconds before the stream of notices is opened again."""
    doubling = 2.0 ** min(failures, 6)  # further on, a power would not fit a float some day
    return max(reader.retry_seconds or 1.0, min(doubling, _PAUSE_SECONDS) if failures else 0.1)
