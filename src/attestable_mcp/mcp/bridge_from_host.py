"""What comes from the host: each line becomes a request that waits, a message told to the server, or a cancellation."""

from __future__ import annotations

import anyio

from attestable_mcp.mcp import bridge_headers, rpc
from attestable_mcp.mcp.bridge_calls import Call, fired
from attestable_mcp.mcp.bridge_failure import failure_of
from attestable_mcp.mcp.bridge_link import Link
from attestable_mcp.mcp.bridge_request import Requests, wait_for
from attestable_mcp.mcp.bridge_session_keeper import SessionKeeper
from attestable_mcp.mcp.bridge_state import Start, State
from attestable_mcp.mcp.bridge_to_host import HostSide

_TELL_SECONDS = 30.0
_CANCELLED = "notifications/cancelled"


class FromHost:
    """Takes the host's lines, none over `max_message` bytes, and keeps their order where it matters."""

    def __init__(
        self,
        link: Link,
        state: State,
        *,
        host: HostSide,
        keeper: SessionKeeper,
        requests: Requests,
        start: Start,
        max_message: int,
    ) -> None:
        self._link = link
        self._state = state
        self._host = host
        self._keeper = keeper
        self._requests = requests
        self._start = start
        self._max_message = max_message
        self._opened = fired()
        self._told = fired()

    async def take(self, line: bytes | None) -> None:
        """One line; None stands for one that was too long."""
        if line is None:
            text = f"wanted at most {self._max_message} bytes a line"
            await self._host.write(rpc.error(None, rpc.INVALID_REQUEST, text))
            return
        if not line.strip():
            return
        message = rpc.parse(line)
        problem = "wanted JSON" if message is None else rpc.fault(message)
        if problem:
            request_id = message.get("id") if isinstance(message, dict) else None
            code = rpc.PARSE_ERROR if message is None else rpc.INVALID_REQUEST
            await self._host.write(rpc.error(request_id if rpc.is_id(request_id) else None, code, problem))
            return
        if message.get("method") == "initialize" and bridge_headers.version_of(message) is None:
            self._begin_anew()
        if self._state.translator is not None:
            await self._host.carry_out(self._state.translator.from_host(message))
        else:
            await self.pass_on(message, rpc.one_line(line, message))

    async def pass_on(self, message: rpc.Message, body: bytes, *, translated: bool = False) -> None:
        """Send a message towards the server, as it is."""
        if rpc.is_request(message):
            version = bridge_headers.version_of(message)
            await self._accept(Call(message=message, body=body, version=version, translated=translated))
        elif not self._cancelled(message) and not (translated and self._takes_no_answers(message)):
            before, self._told = self._told, anyio.Event()
            self._start(self._tell, message, body, before, self._told, translated)

    async def until_told(self) -> None:
        """Until the last notification is through."""
        await self._told.wait()

    def _begin_anew(self) -> None:
        """A handshake of the host's: whatever was translated before is over."""
        for call in [call for call in self._state.calls if call.translated]:
            self._state.calls.drop(call.id)
            call.scope.cancel()
        self._state.translator = None
        self._state.era_known = False

    def _takes_no_answers(self, message: rpc.Message) -> bool:
        """Over HTTP the stateless era has no way to answer what its server should not have asked."""
        return rpc.is_response(message) and self._state.session.version is None

    async def _accept(self, call: Call) -> None:
        objection = self._state.calls.objection(call)
        if objection:
            await self._host.refuse(call, objection)
            return
        self._state.calls.add(call)
        before = (self._opened, self._told)
        if call.method == "initialize":
            self._opened = anyio.Event()
        self._start(self._requests.serve, call, before, self._opened)

    def _cancelled(self, message: rpc.Message) -> bool:
        """Was this a cancellation that closing a stream has carried out? In the handshake era it is sent on."""
        if message.get("method") != _CANCELLED:
            return False
        call = self._state.calls.get(rpc.params(message).get("requestId"))
        if call is None:
            return bridge_headers.version_of(message) is not None or self._state.session.version is None
        if call.version is None:
            return False
        self._state.calls.drop(call.id)
        call.scope.cancel()
        return True

    async def _tell(
        self, message: rpc.Message, body: bytes, before: anyio.Event, done: anyio.Event, translated: bool
    ) -> None:
        """A notification or a response of the host's, in its order."""
        try:
            if message.get("method") != _CANCELLED:
                await wait_for((before, self._opened) if "method" in message else (before,))
            if self._state.translator is not None and not translated:
                await self._host.carry_out(self._state.translator.from_host(message))
            else:
                await self._send(message, body)
        except Exception as error:  # noqa: BLE001 nobody waits for an answer; the log is where it can be told
            self._host.say(failure_of(error, self._link.url).message)
        finally:
            done.set()

    async def _send(self, message: rpc.Message, body: bytes) -> None:
        version = bridge_headers.version_of(message)
        session = self._state.session
        modern = version is not None and "method" in message
        headers = self._state.catalogue.headers(message, version or "") if modern else session.headers()
        async with self._link.stream("POST", headers, body=body, read=_TELL_SECONDS) as response:
            status = response.status_code
        if message.get("method") == "notifications/initialized" and not modern and status < 300:
            session.confirmed = body
            self._keeper.listen(session)
        elif status >= 400 and message.get("method") != _CANCELLED:
            self._host.say(f"the server answered HTTP {status} to {message.get('method') or 'a response of the host'}")
