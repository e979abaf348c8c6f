"""stdio on this side, attested streamable HTTP on the other, message by message; nothing of MCP is re-modelled.

A message of the stateless era (it names its revision in `_meta`) becomes a POST of its own, and cancelling it closes
that POST. The handshake era gets its session, its GET stream and a DELETE at the end; a session that the server has
forgotten is opened again once, with the host's own `initialize`. Each request is answered once, whatever happens, save
one of the stateless era that the host itself cancelled. Where the server speaks the other era only, which shows at the
first answer, a translator (mcp.translate) stands between the host and all of this.

Here the parts are put together, and a conversation begins and ends: `bridge_from_host` takes the host's lines,
`bridge_request` asks the server, `bridge_answer` reads what it says, `bridge_to_host` passes it on.
Source: MCP 2025-11-25 and 2026-07-28, basic/transports and basic/utilities (cancellation).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.abc
import httpx2

from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import rpc
from attestable_mcp.mcp.bridge_answer import Answers
from attestable_mcp.mcp.bridge_calls import LISTEN, Calls
from attestable_mcp.mcp.bridge_era import Eras
from attestable_mcp.mcp.bridge_failure import plain
from attestable_mcp.mcp.bridge_from_host import FromHost
from attestable_mcp.mcp.bridge_link import Link
from attestable_mcp.mcp.bridge_pulse import Pulse
from attestable_mcp.mcp.bridge_question import Questions
from attestable_mcp.mcp.bridge_request import Requests
from attestable_mcp.mcp.bridge_session_keeper import SessionKeeper
from attestable_mcp.mcp.bridge_state import State
from attestable_mcp.mcp.bridge_to_host import HostSide
from attestable_mcp.mcp.translate import Step, ToServer

_LAST_WORD_SECONDS = 0.5
"""How long a host that does not read can hold us at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeOptions:
    """Sizes in bytes, times in seconds."""

    max_message: int = LIMITS.mcp_message
    waiting: int = LIMITS.mcp_waiting
    silence_seconds: float = 300.0
    """How long an answer may be silent; event streams that the server keeps open have no such limit."""
    stall_seconds: float = 4.5
    """How long a call waits without any sign of life of the server (mcp.bridge_pulse); 0 for ever."""
    drain_seconds: float = 3.5
    """How long answers are waited for when the host has closed its side."""


class Bridge:
    """One host and one server. `write` takes one line for the host; `say` one sentence for its log."""

    def __init__(
        self,
        url: str,
        http: httpx2.AsyncClient,
        *,
        write: Callable[[bytes], Awaitable[None]],
        say: Callable[[str], None],
        options: BridgeOptions | None = None,
    ) -> None:
        self._url = url
        self._options = options = options or BridgeOptions()
        self._state = state = State(calls=Calls(options.waiting))
        self._pulse = Pulse(url, http, seconds=options.stall_seconds)
        self._host = host = HostSide(state, write=write, say=say, carry_out=self._carry_out)
        link = Link(url, http, pulse=self._pulse, max_message=options.max_message)
        answers = Answers(link, host, state, silence_seconds=options.silence_seconds)
        questions = Questions(link, host)
        self._keeper = keeper = SessionKeeper(
            link, state, host=host, answers=answers, questions=questions, start=self._start
        )
        requests = Requests(
            link,
            state,
            host=host,
            answers=answers,
            questions=questions,
            keeper=keeper,
            eras=Eras(state, question=questions.ask, open_session=keeper.open, say=say),
            silence_seconds=options.silence_seconds,
        )
        self._inbox = FromHost(
            link,
            state,
            host=host,
            keeper=keeper,
            requests=requests,
            start=self._start,
            max_message=options.max_message,
        )

    async def run(self, lines: AsyncIterator[bytes | None]) -> None:
        """Until the host closes its side; then answers are waited for, and the session is ended."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._pulse.watch, self._state.calls.awaited, self._stalled)
            try:
                async for line in lines:
                    await self._inbox.take(line)
                if self._state.translator is not None:
                    await self._carry_out(self._state.translator.closing())
                await self._drain()
            finally:
                tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await self._finish()

    def _start(self, task: Callable[..., Coroutine[Any, Any, None]], *arguments: object) -> None:
        self._tasks.start_soon(task, *arguments)

    async def _carry_out(self, steps: Sequence[Step]) -> None:
        """Take the steps of a translator, in order."""
        for step in steps:
            if not isinstance(step, ToServer):
                await self._host.write(rpc.dump(step.message))
            elif step.after:
                self._start(self._send_later, step)
            else:
                await self._send(step)

    async def _send_later(self, step: ToServer) -> None:
        await anyio.sleep(step.after)
        await self._send(step)

    async def _send(self, step: ToServer) -> None:
        await self._inbox.pass_on(step.message, rpc.dump(step.message), translated=True)

    async def _stalled(self) -> None:
        """End every call, and the standing stream, which is opened again."""
        hint = (
            "whether the request took effect is unknown; the next request opens a new connection; "
            "a server that computes without answering the network needs a longer --stall"
        )
        seconds = self._options.stall_seconds
        text = f"the server has shown no sign of life for {seconds:g} s"
        for call in self._state.calls:
            await self._host.fail(call, plain(text, self._url, code="stalled", hint=hint))
            call.scope.cancel()
        self._state.session.interrupt()

    async def _drain(self) -> None:
        """Wait for answers; subscriptions have none to wait for."""
        for call in self._state.calls:
            if call.method == LISTEN:
                self._state.calls.drop(call.id)
        with anyio.move_on_after(self._options.drain_seconds):
            await self._inbox.until_told()
            await self._state.calls.until_idle()

    async def _finish(self) -> None:
        with anyio.move_on_after(_LAST_WORD_SECONDS):
            for call in self._state.calls:
                await self._host.fail(call, plain("the host closed its side first", self._url, code="closing"))
        await self._keeper.leave(self._state.session)
