"""One request of the host's, from its POST to its answer: in its own era, in a session, or by way of a translator."""

from __future__ import annotations

from collections.abc import Iterable

import anyio
import httpx2

from attestable_mcp.mcp import bridge_headers, rpc
from attestable_mcp.mcp.bridge_answer import Answers
from attestable_mcp.mcp.bridge_calls import LISTEN, Call
from attestable_mcp.mcp.bridge_era import Eras, OtherEra, unclear_status, undecided
from attestable_mcp.mcp.bridge_failure import failure_of, of_status, plain
from attestable_mcp.mcp.bridge_link import Link
from attestable_mcp.mcp.bridge_question import Questions
from attestable_mcp.mcp.bridge_session import Session
from attestable_mcp.mcp.bridge_session_keeper import SessionGone, SessionKeeper
from attestable_mcp.mcp.bridge_state import State
from attestable_mcp.mcp.bridge_to_host import HostSide

_NOTICE_SECONDS = 10.0
"""How long a request waits for a notification that the host sent before it."""


class Requests:
    """Sees to it that each request is answered once, whatever happens, unless the host has cancelled it."""

    def __init__(
        self,
        link: Link,
        state: State,
        *,
        host: HostSide,
        answers: Answers,
        questions: Questions,
        keeper: SessionKeeper,
        eras: Eras,
        silence_seconds: float,
    ) -> None:
        self._link = link
        self._state = state
        self._host = host
        self._answers = answers
        self._questions = questions
        self._keeper = keeper
        self._eras = eras
        self._silence = silence_seconds

    async def serve(self, call: Call, before: Iterable[anyio.Event], opened: anyio.Event) -> None:
        """Ask the server once `before` has happened; `opened` is set when an `initialize` is through."""
        try:
            with call.scope:
                await wait_for(before)
                await self._ask_in_its_era(call)
        except Exception as error:  # noqa: BLE001 whatever happened, the host must have an answer
            await self._host.fail(call, failure_of(error, self._link.url))
        finally:
            if call.method == "initialize":
                opened.set()

    async def _ask_in_its_era(self, call: Call) -> None:
        try:
            if call.translated or self._state.translator is None:
                await self._ask(call)
                return
        except OtherEra as other:
            await self._eras.find(call)
            if self._state.translator is None:
                await self._let_stand(call, other)
                return
        self._state.calls.drop(call.id)
        await self._host.carry_out(self._state.translator.from_host(call.message))

    async def _let_stand(self, call: Call, other: OtherEra) -> None:
        """The server speaks no other era either: its answer stands."""
        if other.failure is not None:
            await self._host.fail(call, other.failure)
        elif self._state.calls.take(call.id):
            await self._host.write(other.line)
            self._state.calls.settle()

    async def _ask(self, call: Call) -> None:
        if call.version is not None:
            await self._stateless(call, call.version)
        elif call.method == "initialize":
            self._keeper.begin(call.body)
            await self._post(call, bridge_headers.legacy(None, None))
        else:
            await self._in_session(call)
        if call.id in self._state.calls:
            text = "the server's answer ended before it held a response"
            failure = plain(text, self._link.url, code="no_response", hint="see the server's own log")
            await self._host.fail(call, failure)

    async def _stateless(self, call: Call, version: str) -> None:
        catalogue = self._state.catalogue
        if not await self._post(call, catalogue.headers(call.message, version), retry_headers=True):
            await self._questions.learn_tools(catalogue, call)
            await self._post(call, catalogue.headers(call.message, version))

    async def _in_session(self, call: Call) -> None:
        session = self._state.session
        try:
            await self._post(call, session.headers(), session=session)
        except SessionGone:
            await self._keeper.revive(session)
            await self._post(call, self._state.session.headers())

    async def _post(
        self, call: Call, headers: dict[str, str], *, session: Session | None = None, retry_headers: bool = False
    ) -> bool:
        """One POST, its answer passed on. False when headers that we did not know were wanted: nothing happened then.

        Raises: SessionGone; OtherEra; what the HTTP client raises.
        """
        read = None if call.method == LISTEN else self._silence
        async with self._link.stream("POST", headers, body=call.body, read=read) as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if session is not None and session.id is not None and response.status_code == 404:
                raise SessionGone
            if response.status_code == 200 and kind == "text/event-stream":
                await self._answers.events(call, response)
            elif kind == "application/json":
                answer = await self._link.body(response)
                if retry_headers and call.method == "tools/call" and _wants_headers(answer):
                    return False
                await self._answers.json(call, answer, response)
                if call.id in self._state.calls and response.status_code != 200:
                    await self._no_response(call, response)
            else:
                await self._no_response(call, response)
        return True

    async def _no_response(self, call: Call, response: httpx2.Response) -> None:
        failure = of_status(response, self._link.url)
        if undecided(self._state, call) and unclear_status(response.status_code):
            raise OtherEra(failure=failure)
        await self._host.fail(call, failure)


async def wait_for(events: Iterable[anyio.Event]) -> None:
    """Until all of these have happened, but not for ever. Mostly they have: then no turn of the loop passes."""
    still = [event for event in events if not event.is_set()]
    if not still:
        return
    with anyio.move_on_after(_NOTICE_SECONDS):
        for event in still:
            await event.wait()


def _wants_headers(answer: bytes) -> bool:
    message = rpc.parse(answer)
    error = message.get("error") if isinstance(message, dict) else None
    return isinstance(error, dict) and error.get("code") == rpc.HEADER_MISMATCH
