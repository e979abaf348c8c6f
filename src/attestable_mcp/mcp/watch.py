"""The client's side of manifests and receipts: an HTTP transport around the attested one.

Whoever speaks MCP through it (the SDK's client, FastMCP's, the bridge) sends no call that the warden refuses: such a
call is answered here, by a JSON-RPC error with the difference in its data. Each list is compared with what the evidence
commits to, each answer that must carry a receipt is held to it. Lists are read by ourselves where nobody has, with the
headers of the call that needs them.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import anyio
import httpx2

from attestable_mcp.appraise.offer import ManifestPolicy
from attestable_mcp.errors import AttestationError, ConversationError, MalformedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import bridge_headers, commitment, rpc
from attestable_mcp.mcp.awaited import Awaited
from attestable_mcp.mcp.lister import Reply
from attestable_mcp.mcp.manifest import (
    BY_METHOD,
    EXPECT_KEY,
    INTRODUCTIONS,
    PROMPTS,
    SERVER,
    TOOLS,
    Kind,
    Listing,
    server_digest,
    set_digest,
)
from attestable_mcp.mcp.notary import Notary
from attestable_mcp.mcp.precaution import Precaution
from attestable_mcp.mcp.refusal import NO_RECEIPT, NOT_CALLED
from attestable_mcp.mcp.rewrite import Look, rewrite_events, rewrite_json
from attestable_mcp.mcp.warden import Refusal, Warden
from attestable_mcp.tls.admission import AttestedPeer
from attestable_mcp.tls.client import EXTENSION
from attestable_mcp.tls.fresh import DEMAND

_log = logging.getLogger(__name__)
_GUARDED: Mapping[str, tuple[Kind, str]] = {"tools/call": (TOOLS, "name"), "prompts/get": (PROMPTS, "name")}
_RECEIPTED = frozenset({"tools/call", "prompts/get", "resources/read"})
_CHANGED = {f"notifications/{kind.name}/list_changed": kind for kind in BY_METHOD.values()}
_LIST_SECONDS = 30.0
_TRIES = 3
_JSON = "application/json"
_TYPES = (_JSON, "text/event-stream")
_ENVELOPE = (rpc.PROTOCOL_VERSION, rpc.CLIENT_CAPABILITIES, rpc.CLIENT_INFO)


class Watch(httpx2.AsyncBaseTransport):
    """Around `inner`, for one conversation. `prove` proves the server anew and gives it with its newest commitments."""

    def __init__(
        self,
        inner: httpx2.AsyncBaseTransport,
        policy: ManifestPolicy,
        *,
        warden: Warden,
        prove: Callable[[], Awaitable[AttestedPeer]],
        notary: Notary | None = None,
        precaution: Precaution | None = None,
    ) -> None:
        self.inner = inner
        self.warden = warden
        self.notary = notary
        self._precaution = precaution
        self._hidden: dict[Kind, dict[str, bytes]] = {}
        self._short: dict[Kind, int] = {}
        self._policy = policy
        self._prove = prove
        self._peer: AttestedPeer | None = None
        self._wants_proof = policy.mode != "uncommitted"
        self._ids = itertools.count(1)
        self._locks = {kind: anyio.Lock() for kind in BY_METHOD.values()}
        self._unproven: dict[Kind, Refusal] = {}
        self._uncovered = ""
        self._awaited = Awaited(self._noticed)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """As the transport inside, with calls judged before and answers after."""
        request.headers["accept-encoding"] = "identity"
        message = await _message(request)
        if message is None:
            response = await self._sent(request)
            return await self._looked(request, response, self._awaited.stream(_session(request, response)))
        method = message["method"]
        if method in BY_METHOD:
            return await self._passed(request, message, self._listed(BY_METHOD[method], message))
        if method in INTRODUCTIONS:
            return await self._passed(request, message, self._introduced)
        if method in _GUARDED and (refusal := await self._judge(request, message)) is not None:
            return _answer(request, message["id"], refusal)
        self._ask_for_proof(request, message)
        if method in _RECEIPTED:
            return await self._call(request, message)
        return await self._passed(request, message, self._noticed)

    async def aclose(self) -> None:
        """Close the transport inside, after asking for the tree heads of what was received.

        Raises: AttestationError: receipts do not hold, as `Notary.close` has it.
        """
        try:
            if self.notary is not None:
                with anyio.move_on_after(2.0, shield=True):
                    await self.notary.close(self.inner)
        finally:
            await self.inner.aclose()

    @property
    def left_open(self) -> tuple[str, ...]:
        """What the lists that came leave open, in sentences: they may be shorter than what the evidence commits to."""
        short = tuple(
            f"why {count} of the {kind.name} that the server's evidence commits to are not shown to this session"
            for kind, count in self._short.items()
            if count
        )
        return (*short, self._uncovered) if self._uncovered else short

    def _ask_for_proof(self, request: httpx2.Request, message: rpc.Message) -> None:
        """Some calls go out only on a connection that was proven for them."""
        wanted = self._precaution
        if message["method"] == "tools/call" and wanted is not None and wanted.demands(rpc.params(message).get("name")):
            request.extensions = {**request.extensions, DEMAND: True}

    # --- calls -----------------------------------------------------------------------------------------------------

    async def _judge(self, request: httpx2.Request, message: rpc.Message) -> Refusal | None:
        kind, key = _GUARDED[message["method"]]
        name = rpc.params(message).get(key)
        if not isinstance(name, str):
            return None  # the server says what is wrong with it
        if self._unread(kind):
            async with self._locks[kind]:
                if self._unread(kind):
                    await self._read(kind, request, message)
        return self._unproven.get(kind) or self.warden.judge(kind, name)

    def _unread(self, kind: Kind) -> bool:
        return not self.warden.complete(kind) or kind in self._unproven

    async def _call(self, request: httpx2.Request, message: rpc.Message) -> httpx2.Response:
        for _ in range(_TRIES):
            asked = self._asked(message)
            if asked is None:
                return await self._passed(request, message, self._noticed)
            outgoing = request if asked is message else _with_body(request, asked)
            if self.notary is None:
                return await self._passed(outgoing, asked, self._noticed)
            response = await self.inner.handle_async_request(outgoing)
            entry = self.notary.entry(asked, response.extensions.get(EXTENSION))
            response = await self._answered(outgoing, asked, response, _Held(entry, asked).look)
            if not entry.chain_refused:
                return response
            await response.aclose()
        return _answer(request, message["id"], _NO_CHAIN, NO_RECEIPT)

    def _asked(self, message: rpc.Message) -> rpc.Message | None:
        """The call with what we add to its `_meta`; None where nothing is added."""
        added: dict[str, Any] = {}
        if message["method"] in _GUARDED:
            kind, key = _GUARDED[message["method"]]
            name = rpc.params(message).get(key)
            expected = self.warden.expected(kind, name) if isinstance(name, str) else b""
            added |= {EXPECT_KEY: expected.hex()} if expected else {}
        if self.notary is not None:
            added |= self.notary.asks()
        if not added:
            return None
        params = rpc.params(message)
        return {**message, "params": {**params, "_meta": {**rpc.meta(message), **added}}}

    # --- answers ---------------------------------------------------------------------------------------------------

    async def _passed(self, request: httpx2.Request, message: rpc.Message, look: Look) -> httpx2.Response:
        return await self._answered(request, message, await self._sent(request), look)

    async def _sent(self, request: httpx2.Request) -> httpx2.Response:
        response = await self.inner.handle_async_request(request)
        peer: AttestedPeer | None = response.extensions.get(EXTENSION)
        if peer is not None and (self._peer is None or peer.counter >= self._peer.counter):
            self._peer = peer
        return response

    async def _answered(
        self, request: httpx2.Request, message: rpc.Message, response: httpx2.Response, look: Look
    ) -> httpx2.Response:
        """The response, in which `look` sees the answer to this message; other answers are led to their own looks."""
        streamed = self._awaited.answer(_session(request, response), message["id"], look)
        return await self._looked(request, response, streamed)

    async def _looked(self, request: httpx2.Request, response: httpx2.Response, look: Look) -> httpx2.Response:
        """The response with each event looked at, and the plain answer to a POST.

        Raises: ConversationError for an answer that cannot be read, or that clients read and we do not.
        """
        said = response.headers.get("content-type", "").lower()
        kind = said.partition(";")[0].strip()
        if kind not in _TYPES and said.lstrip().startswith(_TYPES):
            await response.aclose()
            raise ConversationError(f"answer: wanted {' or '.join(_TYPES)}, seen {said[:60]!r}", code="garbage")
        if kind not in _TYPES or (kind == _JSON and request.method != "POST"):
            return response
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            await response.aclose()
            raise ConversationError("answer: compressed, although nobody asked for that", code="garbage")
        stream = response.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        if kind != _JSON:
            return _replaced(response, _Events(stream, look), None)
        try:
            body = await rewrite_json(await _whole(stream), look, strict=response.status_code == 200)
        finally:
            await stream.aclose()
        return _replaced(response, httpx2.ByteStream(body), len(body))

    async def _noticed(self, message: rpc.Message) -> rpc.Message | None:
        """A list that changed is read again before the next call."""
        kind = _CHANGED.get(message.get("method", ""))
        if kind is not None:
            self.warden.stale(kind)
            if self._precaution is not None:
                self._precaution.changed()
        return None

    # --- the server itself -----------------------------------------------------------------------------------------

    async def _introduced(self, message: rpc.Message) -> rpc.Message | None:
        """What the server says of itself when a conversation begins; an error where that is not what was promised."""
        result = message.get("result")
        if not isinstance(result, dict):
            return None
        try:
            refusal = await self._introduction(result)
        except MalformedEvidence as error:
            refusal = Refusal(code=error.code, message=error.message, hint=_MALFORMED)
        return None if refusal is None else _error(message["id"], refusal)

    async def _introduction(self, result: rpc.Message) -> Refusal | None:
        said, sets = commitment.said_of(result), commitment.sets_of(result)
        held = server_digest(said)
        refusal = self._server_doubt(sets, held)
        if refusal is not None:
            self._peer = await self._prove()
            refusal = self._server_doubt(sets, held)
        self._note_uncovered(sets)
        return refusal or self.warden.introduced(said)

    def _server_doubt(self, sets: Mapping[str, bytes] | None, held: bytes) -> Refusal | None:
        unwanted = not self._wants_proof or (
            not self.warden.holds_server and commitment.leaves_out_server(self._committed, sets)
        )
        return None if unwanted else commitment.doubt(self._policy, self._committed, sets, SERVER.name, held)

    def _note_uncovered(self, sets: Mapping[str, bytes] | None) -> None:
        """Does nobody stand behind what the server says of itself? For `left_open`, and once for the log."""
        pinned = self.warden.holds_server or self._policy.digest == self._committed.hex()
        found = ""
        if self._wants_proof and commitment.leaves_out_server(self._committed, sets):
            found = commitment.OLD_SERVER
        elif self._policy.mode in ("pinned", "signed") and not pinned:
            found = commitment.OLD_PIN
        if found and found != self._uncovered:
            _log.warning("not proven: %s", found)
        self._uncovered = found

    # --- lists -----------------------------------------------------------------------------------------------------

    def _listed(self, kind: Kind, asked: rpc.Message) -> Look:
        first = "cursor" not in rpc.params(asked)

        async def look(message: rpc.Message) -> rpc.Message | None:
            result = message.get("result")
            return await self._compared(kind, message, result, first=first) if isinstance(result, dict) else None

        return look

    async def _compared(
        self, kind: Kind, message: rpc.Message, result: rpc.Message, *, first: bool
    ) -> rpc.Message | None:
        """The answer without what may not be shown; an error where the evidence does not commit to the list."""
        items = result.get(kind.name)
        if kind is TOOLS and self._precaution is not None and isinstance(items, list):
            self._precaution.learn(items)
        self._hidden[kind] = ({} if first else self._hidden.get(kind, {})) | commitment.hidden_of(result)
        last = not isinstance(result.get("nextCursor"), str)
        try:
            shown, whole = self.warden.page(kind, items if isinstance(items, list) else [], first=first, last=last)
        except MalformedEvidence as error:
            return _error(message["id"], Refusal(code=error.code, message=error.message, hint=_MALFORMED))
        if whole is not None:
            await self._commitment(kind, whole, result)
        if kind in self._unproven:
            return _error(message["id"], self._unproven[kind])
        if kind not in (TOOLS, PROMPTS) or not isinstance(items, list) or len(shown) == len(items):
            return None
        return {**message, "result": {**result, kind.name: shown}}

    async def _commitment(self, kind: Kind, whole: Listing, result: rpc.Message) -> None:
        """Does the evidence commit to this list? Where it does not, is it because the list has changed since?"""
        refusal = self._doubt(whole, result) if self._wants_proof else None
        if refusal is not None:
            self._peer = await self._prove()
            refusal = self._doubt(whole, result)
        self._count(kind, whole)
        if refusal is None:
            self._unproven.pop(kind, None)
        else:
            self._unproven[kind] = refusal

    def _count(self, kind: Kind, whole: Listing) -> None:
        """How much shorter the session's list is than the committed one; said in the log when that changes."""
        short = len(self._hidden.get(kind, {}).keys() - whole.digests.keys()) if self._wants_proof else 0
        if short != self._short.get(kind, 0):
            _log.warning("the server shows this session %d fewer %s than it commits to", short, kind.name)
        self._short[kind] = short

    def _doubt(self, whole: Listing, result: rpc.Message) -> Refusal | None:
        held = set_digest(whole.kind, {**self._hidden.get(whole.kind, {}), **whole.digests})
        return commitment.doubt(self._policy, self._committed, commitment.sets_of(result), whole.kind.name, held)

    @property
    def _committed(self) -> bytes:
        return self._peer.commitments.manifest if self._peer is not None else b""

    async def _read(self, kind: Kind, request: httpx2.Request, message: rpc.Message) -> None:
        """Read a list ourselves, in the conversation of the call that needs it."""
        cursor: str | None = None
        with anyio.fail_after(_LIST_SECONDS):
            for _ in range(LIMITS.manifest_pages):
                asked = _question(kind, message, cursor, next(self._ids))
                response = await self._passed(_with_body(request, asked), asked, self._listed(kind, asked))
                result = ((await _reply(response)).message(asked["id"]) or {}).get("result")
                cursor = result.get("nextCursor") if isinstance(result, dict) else None
                if not isinstance(cursor, str):
                    return
        raise ConversationError(f"{kind.method}: the list has no end", code="flooded")


class _Held:
    """The answer to a call whose receipt is wanted."""

    def __init__(self, entry: Any, asked: rpc.Message) -> None:
        self._entry = entry
        self._id = asked["id"]

    async def look(self, message: rpc.Message) -> rpc.Message | None:
        try:
            await self._entry.take(message)
        except AttestationError as error:
            return _error(self._id, Refusal(code=error.code, message=error.message, hint=error.hint), NO_RECEIPT)
        return None


_MALFORMED = "the server's list is faulty: report it to its operator"
_NO_CHAIN = Refusal(
    code="receipt_chain", message="the server continues no chain of receipts", hint="try again; nothing was run"
)


async def _message(request: httpx2.Request) -> rpc.Message | None:
    """The JSON-RPC request in an HTTP request, or None for anything else.

    Raises: ConversationError for calls that nobody could answer for: in a batch, or without an id.
    """
    if request.method != "POST":
        return None
    message = rpc.parse(await request.aread())
    if isinstance(message, dict) and isinstance(message.get("method"), str):
        if rpc.is_id(message.get("id")):
            return message
        if message["method"] not in _RECEIPTED:
            return None
    elif not isinstance(message, list):
        return None
    raise ConversationError(
        "request: wanted one JSON-RPC request with an id, seen a batch or a call without one",
        code="garbage",
        hint="nothing was sent; send each call by itself",
    )


def _session(request: httpx2.Request, response: httpx2.Response) -> str:
    """The session that a request belongs to, or that its answer opens; empty in the stateless era."""
    return request.headers.get(bridge_headers.SESSION) or response.headers.get(bridge_headers.SESSION) or ""


def _with_body(request: httpx2.Request, message: rpc.Message) -> httpx2.Request:
    """The same request with another message: where its method is another too, so are the headers that name it."""
    dropped = {b"content-length"}
    if message["method"] not in _RECEIPTED:
        dropped |= {name.lower() for name, _ in request.headers.raw if name.lower().startswith(b"mcp-param-")}
        dropped |= {b"mcp-method", b"mcp-name"}
    headers = [pair for pair in request.headers.raw if pair[0].lower() not in dropped]
    if b"mcp-method" in dropped and "mcp-method" in request.headers:
        headers.append((b"mcp-method", message["method"].encode()))
    body = rpc.dump(message)
    headers.append((b"content-length", str(len(body)).encode()))
    return httpx2.Request("POST", request.url, headers=headers, content=body, extensions=request.extensions)


def _question(kind: Kind, message: rpc.Message, cursor: str | None, number: int) -> rpc.Message:
    params: rpc.Message = {"cursor": cursor} if cursor is not None else {}
    envelope = {key: value for key, value in rpc.meta(message).items() if key in _ENVELOPE}
    if envelope:
        params["_meta"] = envelope
    return {"jsonrpc": "2.0", "id": f"attestable-mcp-list-{number}", "method": kind.method, "params": params}


async def _reply(response: httpx2.Response) -> Reply:
    try:
        body = await response.aread()
    finally:
        await response.aclose()
    return Reply(status=response.status_code, headers=dict(response.headers), body=body)


async def _whole(stream: httpx2.AsyncByteStream) -> bytes:
    body = bytearray()
    async for chunk in stream:
        body += chunk
        if len(body) > LIMITS.mcp_message:
            raise ConversationError(f"answer: wanted at most {LIMITS.mcp_message} bytes, seen more", code="flooded")
    return bytes(body)


def _replaced(response: httpx2.Response, stream: httpx2.AsyncByteStream, size: int | None) -> httpx2.Response:
    """The response with another body; the same object where nobody has read it, which costs far less than a new one."""
    if response.is_stream_consumed:  # a copy of the old body is in there
        kept = [pair for pair in response.headers.raw if pair[0].lower() != b"content-length"]
        response = httpx2.Response(response.status_code, headers=kept, extensions=response.extensions, stream=stream)
    response.stream = stream
    if size is not None:
        response.headers["content-length"] = str(size)
    elif "content-length" in response.headers:
        del response.headers["content-length"]
    return response


class _Events(httpx2.AsyncByteStream):
    """An event stream with each message looked at."""

    def __init__(self, stream: httpx2.AsyncByteStream, look: Look) -> None:
        self._stream = stream
        self._look = look

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in rewrite_events(self._stream.__aiter__(), self._look, strict=True):
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


def _error(request_id: rpc.Id, refusal: Refusal, code: int = NOT_CALLED) -> rpc.Message:
    body = {"code": code, "message": f"{refusal.message} ({refusal.hint})", "data": refusal.to_json()}
    return {"jsonrpc": "2.0", "id": request_id, "error": body}


def _answer(request: httpx2.Request, request_id: rpc.Id, refusal: Refusal, code: int = NOT_CALLED) -> httpx2.Response:
    """Our own answer: the server has seen nothing of the call."""
    body = json.dumps(_error(request_id, refusal, code)).encode()
    return httpx2.Response(200, headers={"content-type": "application/json"}, content=body, request=request)
