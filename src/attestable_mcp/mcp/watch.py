"""The client's side of manifests and receipts: an HTTP transport around the attested one.

Whoever speaks MCP through it (the SDK's client, FastMCP's, the bridge) sends no call that the warden refuses: such a
call is answered here, by a JSON-RPC error with the difference in its data. Each list is compared with what the evidence
commits to, each answer that must carry a receipt is held to it. Lists are read by ourselves where nobody has, with the
headers of the call that needs them.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import anyio
import httpx2

from attestable_mcp.appraise.offer import ManifestPolicy
from attestable_mcp.errors import AttestationError, ConversationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import rpc
from attestable_mcp.mcp.awaited import Awaited
from attestable_mcp.mcp.manifest import BY_METHOD, EXPECT_KEY, INTRODUCTIONS, PROMPTS, TOOLS, Kind
from attestable_mcp.mcp.notary import Notary
from attestable_mcp.mcp.offered import Offered
from attestable_mcp.mcp.precaution import Precaution
from attestable_mcp.mcp.refusal import NO_RECEIPT
from attestable_mcp.mcp.rewrite import Look
from attestable_mcp.mcp.warden import Refusal, Warden
from attestable_mcp.mcp.watch_http import (
    RECEIPTED,
    answer_of,
    error_of,
    looked,
    message_of,
    reply_of,
    session_of,
    with_body,
)
from attestable_mcp.tls.admission import AttestedPeer
from attestable_mcp.tls.client import EXTENSION
from attestable_mcp.tls.fresh import DEMAND

_GUARDED: Mapping[str, tuple[Kind, str]] = {"tools/call": (TOOLS, "name"), "prompts/get": (PROMPTS, "name")}
_LIST_SECONDS = 30.0
_TRIES = 3
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
        self._offered = Offered(policy, warden=warden, prove=prove, precaution=precaution)
        self._ids = itertools.count(1)
        self._locks = {kind: anyio.Lock() for kind in BY_METHOD.values()}
        self._awaited = Awaited(self._offered.noticed)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """As the transport inside, with calls judged before and answers after."""
        request.headers["accept-encoding"] = "identity"
        message = await message_of(request)
        if message is None:
            response = await self._sent(request)
            return await looked(request, response, self._awaited.stream(session_of(request, response)))
        method = message["method"]
        if method in BY_METHOD:
            return await self._passed(request, message, self._offered.listed(BY_METHOD[method], message))
        if method in INTRODUCTIONS:
            return await self._passed(request, message, self._offered.introduced)
        if method in _GUARDED and (refusal := await self._judge(request, message)) is not None:
            return answer_of(request, message["id"], refusal)
        self._ask_for_proof(request, message)
        if method in RECEIPTED:
            return await self._call(request, message)
        return await self._passed(request, message, self._offered.noticed)

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

    def _ask_for_proof(self, request: httpx2.Request, message: rpc.Message) -> None:
        """Some calls go out only on a connection that was proven for them."""
        wanted = self._precaution
        if message["method"] == "tools/call" and wanted is not None and wanted.demands(rpc.params(message).get("name")):
            request.extensions = {**request.extensions, DEMAND: True}

    @property
    def left_open(self) -> tuple[str, ...]:
        """What the answers that came leave open, in sentences, for `not_proven`."""
        return self._offered.left_open

    # --- calls -----------------------------------------------------------------------------------------------------

    async def _judge(self, request: httpx2.Request, message: rpc.Message) -> Refusal | None:
        kind, key = _GUARDED[message["method"]]
        name = rpc.params(message).get(key)
        if not isinstance(name, str):
            return None  # the server says what is wrong with it
        if self._offered.unread(kind):
            async with self._locks[kind]:
                if self._offered.unread(kind):
                    await self._read(kind, request, message)
        return self._offered.judge(kind, name)

    async def _call(self, request: httpx2.Request, message: rpc.Message) -> httpx2.Response:
        for _ in range(_TRIES):
            asked = self._asked(message)
            if asked is None:
                return await self._passed(request, message, self._offered.noticed)
            outgoing = request if asked is message else with_body(request, asked)
            if self.notary is None:
                return await self._passed(outgoing, asked, self._offered.noticed)
            try:
                entry = self.notary.entry(asked)
            except AttestationError as error:
                return answer_of(request, message["id"], _unnamed(error), NO_RECEIPT)
            response = await self.inner.handle_async_request(outgoing)
            entry.peer = response.extensions.get(EXTENSION)
            response = await self._answered(outgoing, asked, response, _Held(entry, asked).look)
            if not entry.chain_refused:
                return response
            await response.aclose()
        return answer_of(request, message["id"], _NO_CHAIN, NO_RECEIPT)

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
        if peer is not None:
            self._offered.met(peer)
        return response

    async def _answered(
        self, request: httpx2.Request, message: rpc.Message, response: httpx2.Response, look: Look
    ) -> httpx2.Response:
        """The response, in which `look` sees the answer to this message; other answers are led to their own looks."""
        streamed = self._awaited.answer(session_of(request, response), message["id"], look)
        return await looked(request, response, streamed)

    async def _read(self, kind: Kind, request: httpx2.Request, message: rpc.Message) -> None:
        """Read a list ourselves, in the conversation of the call that needs it."""
        cursor: str | None = None
        with anyio.move_on_after(_LIST_SECONDS) as limit:
            for _ in range(LIMITS.manifest_pages):
                asked = _question(kind, message, cursor, next(self._ids))
                response = await self._passed(with_body(request, asked), asked, self._offered.listed(kind, asked))
                result = ((await reply_of(response)).message(asked["id"]) or {}).get("result")
                cursor = result.get("nextCursor") if isinstance(result, dict) else None
                if not isinstance(cursor, str):
                    return
        if limit.cancelled_caught:
            raise ConversationError(f"{kind.method}: no answer within {_LIST_SECONDS:.0f} s", code="timeout")
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
            return error_of(self._id, Refusal(code=error.code, message=error.message, hint=error.hint), NO_RECEIPT)
        return None


_NO_CHAIN = Refusal(
    code="receipt_chain", message="the server continues no chain of receipts", hint="try again; nothing was run"
)


def _unnamed(error: AttestationError) -> Refusal:
    return Refusal(code=error.code, message=error.message, hint="nothing was sent: no receipt could name what it asks")


def _question(kind: Kind, message: rpc.Message, cursor: str | None, number: int) -> rpc.Message:
    params: rpc.Message = {"cursor": cursor} if cursor is not None else {}
    envelope = {key: value for key, value in rpc.meta(message).items() if key in _ENVELOPE}
    if envelope:
        params["_meta"] = envelope
    return {"jsonrpc": "2.0", "id": f"attestable-mcp-list-{number}", "method": kind.method, "params": params}
