"""The server's side of manifests and receipts: ASGI middleware in front of any streamable HTTP server.

It writes the manifest's digests into the `_meta` of lists, refuses a call whose client expects another tool than there
is, and adds a receipt to each result whose client asks for one. Nothing else is parsed or changed. A chain's tree head
is given to `POST /.well-known/attestation/receipts` with the chain's name (16 bytes) as body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attestable_mcp.bind.receipt import (
    CHAIN_SIZE,
    RECEIPT_KEY,
    RECEIPTS_KEY,
    Ledger,
    UnknownChain,
    request_digest,
    result_digest,
)
from attestable_mcp.errors import AttestationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import asgi, rpc
from attestable_mcp.mcp.answers import Answers, Listen, Replay
from attestable_mcp.mcp.catalogue import Catalogue
from attestable_mcp.mcp.manifest import (
    BY_METHOD,
    EXPECT_KEY,
    INTRODUCTIONS,
    META_KEY,
    PROMPTS,
    RESOURCES,
    SERVER,
    TOOLS,
    Kind,
)
from attestable_mcp.mcp.sessions import holder_of
from attestable_mcp.tls.challenge import STATE_KEY
from attestable_mcp.tls.channel import Channel
from attestable_mcp.wire import base64url

HEAD_PATH = "/.well-known/attestation/receipts"
HEAD_TYPE = "application/cose"
CHANGED = -32011
"""JSON-RPC error code: the tool is not the one that the client expects; nothing was run."""
NO_RECEIPT = -32012
"""JSON-RPC error code: no receipt can be given on this connection or in this chain; nothing was run."""
CALLS: Mapping[str, tuple[Kind, str]] = {
    "tools/call": (TOOLS, "name"),
    "prompts/get": (PROMPTS, "name"),
    "resources/read": (RESOURCES, "uri"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What a call's client asks to be signed."""

    chain: bytes
    request: bytes
    transcript: bytes


class Witness:
    """Around `app`. `ledger` None gives no receipts; `catalogue` None annotates no lists."""

    def __init__(
        self,
        app: asgi.App,
        *,
        catalogue: Catalogue | None = None,
        ledger: Ledger | None = None,
        max_body: int = LIMITS.mcp_request,
    ) -> None:
        self._app = app
        self._catalogue = catalogue
        self._ledger = ledger
        self._max_body = max_body

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == HEAD_PATH:
            await self._head(scope, receive, send)
        elif scope["method"] == "POST" and (asgi.header(scope, b"content-type") or "").startswith("application/json"):
            await self._post(scope, receive, send)
        else:
            await self._app(scope, receive, Listen(send, self._changed).send)

    async def _post(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        replay = Replay(receive)
        message = rpc.parse(await replay.read(self._max_body))
        if not isinstance(message, dict) or not isinstance(message.get("method"), str) or "id" not in message:
            await self._app(scope, replay.receive, send)
            return
        method, plain = message["method"], _uncompressed(scope)
        if method in BY_METHOD and self._catalogue is not None:
            look = _Listed(self._catalogue, BY_METHOD[method], message)
            await self._app(plain, replay.receive, Answers(send, look, self._changed).send)
        elif method in INTRODUCTIONS and self._catalogue is not None:
            introduced = _Introduced(self._catalogue, message)
            await self._app(plain, replay.receive, Answers(send, introduced, self._changed).send)
        elif method in CALLS:
            await self._call(message, plain, replay.receive, send)
        else:
            await self._app(scope, replay.receive, Listen(send, self._changed).send)

    def _changed(self) -> None:
        if self._catalogue is not None:
            self._catalogue.changed()

    # --- calls -----------------------------------------------------------------------------------------------------

    async def _call(self, message: rpc.Message, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        refusal = await self._unexpected(message)
        wanted: _Wanted | None = None
        if refusal is None:
            wanted, refusal = self._wanted(message, scope)
        if refusal is not None:
            await asgi.reply_json(send, 200, refusal)
        elif wanted is None or self._ledger is None:
            await self._app(scope, receive, Listen(send, self._changed).send)
        else:
            look = _Signed(self._ledger, self._catalogue, wanted, message)
            await self._app(scope, receive, Answers(send, look, self._changed).send)

    async def _unexpected(self, message: rpc.Message) -> bytes | None:
        """A refusal where the client expects another digest of this tool or prompt than we know, after a fresh look."""
        if self._catalogue is None:
            return None
        self._catalogue.called()
        expected = rpc.meta(message).get(EXPECT_KEY)
        if not isinstance(expected, str):
            return None
        name = rpc.params(message).get("name")
        if self._seen(message, name) in (expected, ""):
            return None
        await self._catalogue.refresh()
        seen = self._seen(message, name)
        if seen in (expected, ""):
            return None
        text = f"{name!r} is not the one that you listed: it changed since; nothing was run"
        data = {"code": "tool_changed", "name": name, "wanted": expected, "seen": seen}
        return rpc.error(message["id"], CHANGED, text, data)

    def _seen(self, message: rpc.Message, name: object) -> str:
        """The digest that we know, in hex; empty where it is not ours to judge: a session may list more than we see."""
        manifest = self._catalogue.manifest if self._catalogue is not None else None
        if manifest is None or not isinstance(name, str):
            return ""
        kind = CALLS[message["method"]][0]
        return manifest.sets[kind.name].digests.get(name, b"").hex()

    def _wanted(self, message: rpc.Message, scope: asgi.Scope) -> tuple[_Wanted | None, bytes | None]:
        asked = rpc.meta(message).get(RECEIPTS_KEY)
        if asked is None or self._ledger is None:
            return None, None
        chain, held = _asked(asked)
        channel = scope.get("state", {}).get(STATE_KEY)
        transcript = channel.transcript if isinstance(channel, Channel) else b""
        if chain is None:
            return None, _no_receipt(message, "bad_request", "wanted a chain of 32 hex digits and a count")
        if not transcript:
            return None, _no_receipt(message, "no_binding", "receipts need a live binding of this connection")
        try:
            digest = request_digest(message["method"], rpc.params(message))
            self._ledger.begin(chain, held, holder_of(scope))
        except UnknownChain:
            return None, _no_receipt(message, "unknown_chain", "this chain is not continued here: begin another")
        except AttestationError as error:
            return None, _no_receipt(message, error.code, error.message)
        return _Wanted(chain=chain, request=digest, transcript=transcript), None

    # --- heads -----------------------------------------------------------------------------------------------------

    async def _head(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        if self._ledger is None or scope["method"] != "POST":
            await asgi.reply_text(
                send, 404 if self._ledger is None else 405, "no receipts here\n", [(b"allow", b"POST")]
            )
            return
        try:
            chain = await asgi.read_body(scope, receive, CHAIN_SIZE)
            channel = scope.get("state", {}).get(STATE_KEY)
            transcript = channel.transcript if isinstance(channel, Channel) else b""
            if not transcript:
                await asgi.reply_text(send, 409, "a head needs a live binding of this connection\n")
                return
            head = self._ledger.head(chain, transcript)
        except asgi.Disconnected:
            return
        except (UnknownChain, asgi.TooLarge):
            await asgi.reply_text(send, 404, "no such chain\n")
            return
        await asgi.reply(send, 200, head, HEAD_TYPE.encode("ascii"), [(b"cache-control", b"no-store")])


def _asked(asked: object) -> tuple[bytes | None, int]:
    if not isinstance(asked, dict):
        return None, 0
    chain, held = asked.get("chain"), asked.get("held", 0)
    if not isinstance(chain, str) or not isinstance(held, int) or isinstance(held, bool) or held < 0:
        return None, 0
    try:
        found = bytes.fromhex(chain)
    except ValueError:
        return None, 0
    return (found if len(found) == CHAIN_SIZE and chain == found.hex() else None), held


def _no_receipt(message: rpc.Message, code: str, text: str) -> bytes:
    return rpc.error(message["id"], NO_RECEIPT, f"{text}; nothing was run", {"code": code})


def _uncompressed(scope: asgi.Scope) -> asgi.Scope:
    """The same request, without leave to compress an answer that we have to read."""
    return {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"accept-encoding"]}


class _Listed:
    """Looks at the answer to a list request and writes the manifest's digests into it."""

    def __init__(self, catalogue: Catalogue, kind: Kind, asked: rpc.Message) -> None:
        self._catalogue = catalogue
        self._kind = kind
        self._id = asked["id"]
        self._first = "cursor" not in rpc.params(asked)

    async def __call__(self, message: rpc.Message) -> rpc.Message | None:
        result = message.get("result")
        if not rpc.is_response(message) or message.get("id") != self._id or not isinstance(result, dict):
            return None
        items = result.get(self._kind.name)
        missing: dict[str, bytes] = {}
        if isinstance(items, list):
            last = not isinstance(result.get("nextCursor"), str)
            missing = await self._catalogue.confirm(self._kind, items, first=self._first, last=last)
        if self._catalogue.manifest is None:
            return None
        hidden = {"hidden": {name: digest.hex() for name, digest in missing.items()}} if missing else {}
        return _with_meta(message, META_KEY, self._catalogue.manifest.summary() | hidden)


class _Introduced:
    """Looks at the answer that begins a conversation and writes the manifest's digests into it, as into lists."""

    def __init__(self, catalogue: Catalogue, asked: rpc.Message) -> None:
        self._catalogue = catalogue
        self._id = asked["id"]

    async def __call__(self, message: rpc.Message) -> rpc.Message | None:
        result = message.get("result")
        if not rpc.is_response(message) or message.get("id") != self._id or not isinstance(result, dict):
            return None
        unsaid = await self._catalogue.introduced(result)
        if self._catalogue.manifest is None:
            return None
        more = {SERVER.name: dict(unsaid)} if unsaid else {}
        return _with_meta(message, META_KEY, self._catalogue.manifest.summary() | more)


class _Signed:
    """Looks at the answer to a call and adds its receipt."""

    def __init__(self, ledger: Ledger, catalogue: Catalogue | None, wanted: _Wanted, asked: rpc.Message) -> None:
        self._ledger = ledger
        self._catalogue = catalogue
        self._wanted = wanted
        self._asked = asked

    async def __call__(self, message: rpc.Message) -> rpc.Message | None:
        result = message.get("result")
        if not rpc.is_response(message) or message.get("id") != self._asked["id"] or not isinstance(result, dict):
            return None
        kind, key = CALLS[self._asked["method"]]
        name = str(rpc.params(self._asked).get(key, ""))
        manifest = self._catalogue.manifest if self._catalogue is not None else None
        try:
            receipt = self._ledger.issue(
                self._wanted.chain,
                method=self._asked["method"],
                name=name,
                request=self._wanted.request,
                result=result_digest(result),
                item=manifest.sets[kind.name].digests.get(name, b"") if manifest is not None else b"",
                manifest=manifest.digest if manifest is not None else b"",
                transcript=self._wanted.transcript,
            )
        except (UnknownChain, AttestationError):
            return None  # the client finds no receipt, and says so
        return _with_meta(message, RECEIPT_KEY, base64url.encode(receipt))


def _with_meta(message: rpc.Message, key: str, value: Any) -> rpc.Message:
    """The message, which is ours alone, with one more word in the `_meta` of its result."""
    result = message["result"]
    if isinstance(meta := result.get("_meta"), dict):
        meta[key] = value
    else:
        result["_meta"] = {key: value}
    return message
