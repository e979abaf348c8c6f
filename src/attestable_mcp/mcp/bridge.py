"""stdio on this side, attested streamable HTTP on the other, message by message; nothing of MCP is re-modelled.

A message of the stateless era (it names its revision in `_meta`) becomes a POST of its own, and cancelling it closes
that POST. The handshake era gets its session, its GET stream and a DELETE at the end; a session that the server has
forgotten is opened again once, with the host's own `initialize`. Each request is answered once, whatever happens, save
one of the stateless era that the host itself cancelled. Where the server speaks the other era only, which shows at the
first answer, a translator (mcp.translate) stands between the host and all of this.
Source: MCP 2025-11-25 and 2026-07-28, basic/transports and basic/utilities (cancellation).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import anyio
import anyio.abc
import httpx2

from attestable_mcp.errors import ConversationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import bridge_headers, rpc
from attestable_mcp.mcp.bridge_era import OtherEra, Probe, other_era, unclear_status
from attestable_mcp.mcp.bridge_failure import Failure, failure_of, plain
from attestable_mcp.mcp.bridge_pulse import Pulse
from attestable_mcp.mcp.bridge_session import Session
from attestable_mcp.mcp.bridge_sse import EventReader
from attestable_mcp.mcp.translate import Step, ToServer, Translator

_log = logging.getLogger(__name__)
_HEADER_MISMATCH = -32020
_LISTEN = "subscriptions/listen"
_TRIES = 5
"""Reconnections in a row to a response stream that gives nothing new."""
_NOTICE_SECONDS = 10.0
"""How long a request waits for a notification that the host sent before it."""


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


@dataclass(slots=True, kw_only=True)
class _Call:
    """A request of the host's that waits for its answer."""

    message: rpc.Message
    body: bytes
    version: str | None
    translated: bool = False
    """Was it made by the translator rather than the host?"""
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    @property
    def id(self) -> rpc.Id:
        found: rpc.Id = self.message["id"]
        return found

    @property
    def method(self) -> str:
        return str(self.message["method"])


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
        self._http = http
        self._write = write
        self._say = say
        self._options = options or BridgeOptions()
        self._pending: dict[rpc.Id, _Call] = {}
        self._catalogue = bridge_headers.Catalogue()
        self._session = Session()
        self._opened = _set()
        self._told = _set()
        self._idle = _set()
        self._translator: Translator | None = None
        self._era_known = False
        self._finding_era = anyio.Lock()
        self._pulse = Pulse(url, http, seconds=self._options.stall_seconds)

    async def run(self, lines: AsyncIterator[bytes | None]) -> None:
        """Until the host closes its side; then answers are waited for, and the session is ended."""
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            tasks.start_soon(self._pulse.watch, self._waiting, self._stalled)
            try:
                async for line in lines:
                    await self._take(line)
                if self._translator is not None:
                    await self._carry_out(self._translator.closing())
                await self._drain()
            finally:
                tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await self._finish()

    # --- from the host ---------------------------------------------------------------------------------------------

    async def _take(self, line: bytes | None) -> None:
        if line is None:
            cap = self._options.max_message
            await self._write(rpc.error(None, rpc.INVALID_REQUEST, f"wanted at most {cap} bytes a line"))
            return
        if not line.strip():
            return
        message = rpc.parse(line)
        problem = "wanted JSON" if message is None else rpc.fault(message)
        if problem:
            request_id = message.get("id") if isinstance(message, dict) else None
            code = rpc.PARSE_ERROR if message is None else rpc.INVALID_REQUEST
            await self._write(rpc.error(request_id if rpc.is_id(request_id) else None, code, problem))
            return
        if message.get("method") == "initialize" and bridge_headers.version_of(message) is None:
            self._begin_anew()
        if self._translator is not None:
            await self._carry_out(self._translator.from_host(message))
        else:
            await self._pass_on(message, rpc.one_line(line, message))

    async def _pass_on(self, message: rpc.Message, body: bytes, *, translated: bool = False) -> None:
        """Send a message towards the server, as it is."""
        if rpc.is_request(message):
            version = bridge_headers.version_of(message)
            await self._accept(_Call(message=message, body=body, version=version, translated=translated))
        elif not self._cancelled(message) and not (translated and self._takes_no_answers(message)):
            before, self._told = self._told, anyio.Event()
            self._tasks.start_soon(self._tell, message, body, before, self._told, translated)

    def _takes_no_answers(self, message: rpc.Message) -> bool:
        """Over HTTP the stateless era has no way to answer what its server should not have asked."""
        return rpc.is_response(message) and self._session.version is None

    async def _accept(self, call: _Call) -> None:
        if call.id in self._pending:
            await self._refuse(call, "this request id is already in flight")
            return
        if len(self._pending) >= self._options.waiting:
            await self._refuse(call, f"wanted at most {self._options.waiting} requests in flight")
            return
        self._pending[call.id] = call
        self._idle = anyio.Event() if self._idle.is_set() else self._idle
        opened, told = self._opened, self._told
        if call.method == "initialize":
            self._opened = anyio.Event()
        self._tasks.start_soon(self._serve, call, (opened, told), self._opened)

    async def _refuse(self, call: _Call, text: str) -> None:
        line = rpc.error(call.id, rpc.INVALID_REQUEST, text)
        await self._emit(rpc.parse(line), line, call)

    def _cancelled(self, message: rpc.Message) -> bool:
        """Was this a cancellation that closing a stream has carried out? In the handshake era it is sent on."""
        if message.get("method") != "notifications/cancelled":
            return False
        request_id = rpc.params(message).get("requestId")
        call = self._pending.get(request_id) if rpc.is_id(request_id) else None
        if call is None:
            return bridge_headers.version_of(message) is not None or self._session.version is None
        if call.version is None:
            return False
        self._forget(call.id)
        self._settle()
        call.scope.cancel()
        return True

    # --- towards the server ----------------------------------------------------------------------------------------

    async def _serve(self, call: _Call, before: Iterable[anyio.Event], opened: anyio.Event) -> None:
        """Ask the server and see to it that the host has an answer, unless it has cancelled."""
        try:
            with call.scope:
                await _wait(before)
                await self._ask_in_its_era(call)
        except Exception as error:  # noqa: BLE001 whatever happened, the host must have an answer
            await self._fail(call, failure_of(error, self._url))
        finally:
            if call.method == "initialize":
                opened.set()

    async def _fail(self, call: _Call, failure: Failure) -> None:
        if self._forget(call.id):
            self._say(failure.message)
            line = failure.answer(call.id)
            await self._emit(rpc.parse(line), line, call)
            self._settle()

    async def _ask_in_its_era(self, call: _Call) -> None:
        try:
            if call.translated or self._translator is None:
                await self._ask(call)
                return
        except OtherEra as other:
            await self._find_era(call)
            if self._translator is None:
                await self._say_so(call, other)
                return
        self._forget(call.id)
        self._settle()
        await self._carry_out(self._translator.from_host(call.message))

    async def _ask(self, call: _Call) -> None:
        if call.version is not None:
            if not await self._post(call, self._catalogue.headers(call.message, call.version), retry_headers=True):
                await self._learn(call)
                await self._post(call, self._catalogue.headers(call.message, call.version))
        elif call.method == "initialize":
            await self._initialize(call)
        else:
            await self._in_session(call)
        await self._unanswered(call)

    async def _unanswered(self, call: _Call) -> None:
        if call.id in self._pending:
            text = "the server's answer ended before it held a response"
            await self._fail(call, plain(text, self._url, code="no_response", hint="see the server's own log"))

    async def _initialize(self, call: _Call) -> None:
        self._tasks.start_soon(self._leave, self._session)
        self._session = Session(opening=call.body)
        await self._post(call, bridge_headers.legacy(None, None))

    async def _in_session(self, call: _Call) -> None:
        session = self._session
        try:
            await self._post(call, session.headers(), session=session)
        except _SessionGone:
            await self._revive(session)
            await self._post(call, self._session.headers())

    async def _post(
        self, call: _Call, headers: dict[str, str], *, session: Session | None = None, retry_headers: bool = False
    ) -> bool:
        """One POST, its answer passed on. False when headers that we did not know were wanted: nothing happened then.

        Raises: _SessionGone; what the HTTP client raises.
        """
        read = None if call.method == _LISTEN else self._options.silence_seconds
        async with self._stream("POST", headers, body=call.body, read=read) as response:
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            if session is not None and session.id is not None and response.status_code == 404:
                raise _SessionGone
            if response.status_code == 200 and kind == "text/event-stream":
                await self._events(call, response)
            elif kind == "application/json":
                answer = await self._body(response)
                if retry_headers and call.method == "tools/call" and _code(rpc.parse(answer)) == _HEADER_MISMATCH:
                    return False
                await self._one(call, answer, response)
            else:
                await self._no_response(call, response)
        return True

    @asynccontextmanager
    async def _stream(
        self, method: str, headers: dict[str, str], *, body: bytes | None = None, read: float | None = None
    ) -> AsyncIterator[httpx2.Response]:
        timeout = httpx2.Timeout(30.0, read=read, pool=None)
        self._pulse.begin()
        async with self._http.stream(method, self._url, content=body, headers=headers, timeout=timeout) as response:
            self._pulse.heard()
            yield response

    async def _chunks(self, response: httpx2.Response) -> AsyncIterator[bytes]:
        async for chunk in response.aiter_bytes():
            self._pulse.heard()
            yield chunk

    async def _body(self, response: httpx2.Response) -> bytes:
        """A whole body. Raises: ConversationError (`flooded`)."""
        found = bytearray()
        async for chunk in self._chunks(response):
            found += chunk
            if len(found) > self._options.max_message:
                cap = self._options.max_message
                raise ConversationError(f"answer: wanted at most {cap} bytes, seen more", code="flooded")
        return bytes(found)

    async def _one(self, call: _Call, body: bytes, response: httpx2.Response) -> None:
        """A JSON answer; an error that the server could not tie to the request is tied to it here."""
        answer = rpc.parse(body)
        for message in answer if isinstance(answer, list) else [answer]:
            if rpc.fault(message) is not None:
                continue
            line = rpc.dump(message) if message is not answer else rpc.one_line(body, message)
            if rpc.is_response(message) and message.get("id") is None:
                message = message | {"id": call.id}
                line = rpc.dump(message)
            await self._down(message, line, call, response)
        if call.id in self._pending and response.status_code != 200:
            await self._no_response(call, response)

    async def _no_response(self, call: _Call, response: httpx2.Response) -> None:
        failure = self._status(response)
        if self._era_open(call) and unclear_status(response.status_code):
            raise OtherEra(failure=failure)
        await self._fail(call, failure)

    def _status(self, response: httpx2.Response) -> Failure:
        status = response.status_code
        hints = {401: "it wants authorization", 403: "it forbids this", 404: "check the path of the URL"}
        hint = hints.get(status, "see the server's own log")
        location = response.headers.get("location")
        if 300 <= status < 400 and location:
            hint = "use the address that the server redirects to, if it is the intended one"
        return plain(f"the server answered HTTP {status} without a response", self._url, code="http", hint=hint)

    # --- from the server -------------------------------------------------------------------------------------------

    async def _events(self, call: _Call, response: httpx2.Response) -> None:
        """A response stream, reconnected to where the server asks for that (SEP-1699)."""
        reader = EventReader(self._options.max_message)
        if await self._read(reader, response, call) or call.version is not None or reader.last_id is None:
            return
        await response.aclose()
        tries = 0
        seen: str | None = reader.last_id
        while tries < _TRIES and call.id in self._pending and reader.last_id is not None:
            await anyio.sleep(1.0 if reader.retry_seconds is None else reader.retry_seconds)
            again = EventReader(self._options.max_message)
            again.last_id, again.retry_seconds = reader.last_id, reader.retry_seconds
            reader = again
            headers = self._session.headers() | {bridge_headers.LAST_EVENT: reader.last_id or ""}
            async with self._stream("GET", headers, read=self._options.silence_seconds) as resumed:
                if resumed.status_code != 200 or await self._read(reader, resumed, call):
                    return
            tries, seen = (tries + 1 if reader.last_id == seen else 0), reader.last_id

    async def _read(self, reader: EventReader, response: httpx2.Response, call: _Call | None) -> bool:
        """Pass on what a stream holds. True when it held the answer to the call; a broken stream is an ended one."""
        try:
            async for chunk in self._chunks(response):
                for event in reader.feed(chunk):
                    message = rpc.parse(event.data)
                    if rpc.fault(message) is None:
                        await self._down(message, rpc.one_line(event.data, message), call, response)
                    if call is not None and call.id not in self._pending:
                        return True
        except httpx2.TransportError:
            if call is None or call.version is not None or reader.last_id is None:
                raise
        return False

    async def _down(self, message: rpc.Message, line: bytes, call: _Call | None, response: httpx2.Response) -> None:
        """One message for the host. A response goes out once, and only for a request that waits."""
        if not rpc.is_response(message):
            await self._emit(message, line, call)
            return
        request_id = message.get("id")
        if call is not None and call.id == request_id and self._era_open(call):
            if other_era(call.method, call.version, message):
                raise OtherEra(line=line)
            self._era_known = "result" in message
        asked = self._forget(request_id) if rpc.is_id(request_id) else None
        if asked is None:
            _log.debug("a response that nobody waits for was dropped")
            return
        self._note(asked, message, response)
        await self._emit(message, line, asked)
        self._settle()

    async def _emit(self, message: rpc.Message, line: bytes, call: _Call | None) -> None:
        """One message from the server's side. `call` is the request that it belongs to, if that is known."""
        if self._translator is None or (call is not None and not call.translated):
            await self._write(line)
        else:
            await self._carry_out(self._translator.from_server(message, call.id if call is not None else None))

    def _note(self, asked: _Call, message: rpc.Message, response: httpx2.Response) -> None:
        """Learn from an answer what later headers need."""
        result = message.get("result")
        if asked.method == "tools/list":
            self._catalogue.learn(result)
        elif asked.method == "initialize" and asked.version is None and isinstance(result, dict):
            self._session.open(response.headers.get(bridge_headers.SESSION), result)

    def _forget(self, request_id: rpc.Id) -> _Call | None:
        return self._pending.pop(request_id, None)

    def _settle(self) -> None:
        if not self._pending:
            self._idle.set()

    async def _learn(self, call: _Call) -> None:
        """Ask for the tool list: the host has not, and the server wants headers that it describes."""
        wanted = (rpc.PROTOCOL_VERSION, rpc.CLIENT_CAPABILITIES, rpc.CLIENT_INFO)
        meta = {key: value for key, value in rpc.meta(call.message).items() if key in wanted}
        cursor: str | None = None
        for page in range(100):
            params: rpc.Message = {"_meta": meta} | ({"cursor": cursor} if cursor else {})
            message = {"jsonrpc": "2.0", "id": f"attestable-mcp-{page}", "method": "tools/list", "params": params}
            result = await self._question(message, self._catalogue.headers(message, call.version or ""))
            self._catalogue.learn(result)
            cursor = result.get("nextCursor")
            if not isinstance(cursor, str):
                return

    async def _question(self, message: rpc.Message, headers: dict[str, str]) -> rpc.Message:
        """A request of our own: its result, empty where there is none. What else comes with it is passed on."""
        async with self._stream("POST", headers, body=rpc.dump(message), read=30.0) as response:
            result: object = None
            async for answer in self._answers(response):
                if rpc.is_response(answer):
                    result = answer.get("result")
                    break
                await self._emit(answer, rpc.dump(answer), None)
            if message["method"] == "initialize" and isinstance(result, dict):
                self._session.open(response.headers.get(bridge_headers.SESSION), result)
        return result if isinstance(result, dict) else {}

    async def _answers(self, response: httpx2.Response) -> AsyncIterator[rpc.Message]:
        if "text/event-stream" not in response.headers.get("content-type", ""):
            answer = rpc.parse(await self._body(response))
            if isinstance(answer, dict) and rpc.fault(answer) is None:
                yield answer
            return
        reader = EventReader(self._options.max_message)
        async for chunk in self._chunks(response):
            for event in reader.feed(chunk):
                answer = rpc.parse(event.data)
                if isinstance(answer, dict) and rpc.fault(answer) is None:
                    yield answer

    # --- the handshake era's session -------------------------------------------------------------------------------

    async def _tell(
        self,
        message: rpc.Message,
        body: bytes,
        before: anyio.Event,
        done: anyio.Event,
        translated: bool,
    ) -> None:
        """A notification or a response of the host's, in its order."""
        try:
            if message.get("method") != "notifications/cancelled":
                await _wait((before, self._opened) if "method" in message else (before,))
            if self._translator is not None and not translated:
                await self._carry_out(self._translator.from_host(message))
            else:
                await self._send(message, body)
        except Exception as error:  # noqa: BLE001 nobody waits for an answer; the log is where it can be told
            self._say(failure_of(error, self._url).message)
        finally:
            done.set()

    async def _send(self, message: rpc.Message, body: bytes) -> None:
        version = bridge_headers.version_of(message)
        session = self._session
        modern = version is not None and "method" in message
        headers = self._catalogue.headers(message, version or "") if modern else session.headers()
        async with self._stream("POST", headers, body=body, read=30.0) as response:
            status = response.status_code
        if message.get("method") == "notifications/initialized" and not modern and status < 300:
            session.confirmed = body
            self._listen(session)
        elif status >= 400 and message.get("method") != "notifications/cancelled":
            self._say(f"the server answered HTTP {status} to {message.get('method') or 'a response of the host'}")

    async def _revive(self, dead: Session) -> None:
        """Open a new session with the host's own handshake, once for all requests that met the dead one."""
        async with dead.lock:
            if self._session is not dead or dead.opening is None:
                return
            dead.close()
            if await self._open(Session(opening=dead.opening, confirmed=dead.confirmed)) is None:
                self._session = dead
                raise ConversationError("the server forgot the session and opens no other", code="session_lost")
            self._say("the server had forgotten the session; a new one was opened")
            if self._translator is not None:
                await self._carry_out(self._translator.renewed())

    async def _open(self, session: Session) -> rpc.Message | None:
        """Open a session with a handshake of its own: the server's `initialize` result, or None where it opens none."""
        self._session = session
        result = await self._question(rpc.parse(session.opening or b"{}"), bridge_headers.legacy(None, None))
        if session.version is None:
            return None
        if session.confirmed is not None:
            async with self._stream("POST", session.headers(), body=session.confirmed, read=30.0):
                pass
            self._listen(session)
        return result

    def _listen(self, session: Session) -> None:
        if session.id is not None and not session.listening:
            session.listening = True
            self._tasks.start_soon(self._standing, session)

    async def _standing(self, session: Session) -> None:
        """The GET stream, reconnected as long as the session lives; a server may have none (405)."""
        reader, failures = EventReader(self._options.max_message), 0
        with session.scope:
            while failures < 8:
                try:
                    headers = session.headers()
                    if reader.last_id:
                        headers[bridge_headers.LAST_EVENT] = reader.last_id
                    with session.interruptible():
                        async with self._stream("GET", headers) as response:
                            if response.status_code != 200:
                                break
                            failures = 0
                            await self._read(reader, response, None)
                except Exception as error:  # noqa: BLE001 a lost stream of notices ends no bridge
                    failures += 1
                    if failures == 1:
                        self._say(f"event stream: {failure_of(error, self._url).message}")
                again = EventReader(self._options.max_message)
                again.last_id, again.retry_seconds = reader.last_id, reader.retry_seconds
                reader = again
                await anyio.sleep(max(reader.retry_seconds or 1.0, min(2.0**failures, 30.0) if failures else 0.1))
        session.listening = False

    # --- a server that shows no sign of life ------------------------------------------------------------------------

    def _waiting(self) -> bool:
        """Does any call wait for its answer? A subscription has none to wait for."""
        return any(call.method != _LISTEN for call in self._pending.values())

    async def _stalled(self) -> None:
        """End every call, and the standing stream, which is opened again."""
        hint = (
            "whether the request took effect is unknown; the next request opens a new connection; "
            "a server that computes without answering the network needs a longer --stall"
        )
        seconds = self._options.stall_seconds
        text = f"the server has shown no sign of life for {seconds:g} s"
        for call in list(self._pending.values()):
            await self._fail(call, plain(text, self._url, code="stalled", hint=hint))
            call.scope.cancel()
        self._session.interrupt()

    # --- a server of the other era ---------------------------------------------------------------------------------

    def _era_open(self, call: _Call) -> bool:
        """May the answer to this call show that the server speaks the other era only?"""
        first = (call.version is not None) != (call.method == "initialize")
        return first and not self._era_known and not call.translated

    async def _find_era(self, call: _Call) -> None:
        """Set the translator if the server speaks only the era that the host's request was not of."""
        async with self._finding_era:
            if self._translator is None and not self._era_known:
                probe = Probe(call.message, call.version, question=self._question, open_session=self._open)
                self._translator = await probe.translator()
                self._era_known = probe.same_era
                if self._translator is not None:
                    self._say(probe.told)
                elif call.version is not None:
                    self._session = Session()

    async def _say_so(self, call: _Call, other: OtherEra) -> None:
        """The server speaks no other era either: its answer stands."""
        if other.failure is not None:
            await self._fail(call, other.failure)
        elif self._forget(call.id):
            await self._write(other.line)
            self._settle()

    async def _carry_out(self, steps: Sequence[Step]) -> None:
        """Take the steps of a translator, in order."""
        for step in steps:
            if not isinstance(step, ToServer):
                await self._write(rpc.dump(step.message))
            elif step.after:
                self._tasks.start_soon(self._later, step)
            else:
                await self._pass_on(step.message, rpc.dump(step.message), translated=True)

    async def _later(self, step: ToServer) -> None:
        await anyio.sleep(step.after)
        await self._pass_on(step.message, rpc.dump(step.message), translated=True)

    def _begin_anew(self) -> None:
        """A handshake of the host's: whatever was translated before is over."""
        for call in [call for call in self._pending.values() if call.translated]:
            self._forget(call.id)
            call.scope.cancel()
        self._settle()
        self._translator = None
        self._era_known = False

    # --- the end ---------------------------------------------------------------------------------------------------

    async def _drain(self) -> None:
        """Wait for answers; subscriptions have none to wait for."""
        for call in list(self._pending.values()):
            if call.method == _LISTEN:
                self._forget(call.id)
        self._settle()
        with anyio.move_on_after(self._options.drain_seconds):
            await self._told.wait()
            await self._idle.wait()

    async def _finish(self) -> None:
        with anyio.move_on_after(0.5):  # a host that does not read cannot hold us
            for call in list(self._pending.values()):
                await self._fail(call, plain("the host closed its side first", self._url, code="closing"))
        await self._leave(self._session)

    async def _leave(self, session: Session) -> None:
        """End a session at the server."""
        session.close()
        if session.id is not None:
            with anyio.move_on_after(0.7), suppress(Exception):
                async with self._stream("DELETE", session.headers()):
                    pass


class _SessionGone(Exception):
    """HTTP 404 for a session: the server has not looked at the message."""


def _code(answer: object) -> object:
    found = answer.get("error") if isinstance(answer, dict) else None
    return found.get("code") if isinstance(found, dict) else None


def _set() -> anyio.Event:
    event = anyio.Event()
    event.set()
    return event


async def _wait(events: Iterable[anyio.Event]) -> None:
    with anyio.move_on_after(_NOTICE_SECONDS):
        for event in events:
            await event.wait()
