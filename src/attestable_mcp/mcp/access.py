"""Which client may list and call which tool, decided before the server behind sees a byte of the call.

ASGI middleware in front of any server that speaks streamable HTTP, of either era. It reads requests more strictly than
servers do: what two readers could take differently (a key twice, or in another case, another encoding) is refused, so
that no call can be smuggled past it. Answers that list tools lose those that are not for this client.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NoReturn

from attestable_mcp.appraise.server_policy import ServerPolicy
from attestable_mcp.errors import AttestationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import asgi, headers, rpc
from attestable_mcp.mcp.answers import Answers, Replay
from attestable_mcp.mcp.caller import CALLER_KEY, STATE_KEY
from attestable_mcp.mcp.manifest import META_KEY, TOOLS, item_digest, name_of
from attestable_mcp.mcp.sessions import Owners, holder_of
from attestable_mcp.mcp.witness import HEAD_PATH, Witness
from attestable_mcp.rats import Caller
from attestable_mcp.tls.challenge import STATE_KEY as CHANNEL_KEY
from attestable_mcp.tls.channel import Channel
from attestable_mcp.tls.clients import ClientGate

NOT_ALLOWED = -32014
"""JSON-RPC error code: the tool is not for this client; nothing was run."""
SESSION = b"mcp-session-id"
_MESSAGE_KEYS = frozenset({"jsonrpc", "id", "method", "params", "result", "error"})
_PARAMS_KEYS = frozenset({"name", "arguments", "_meta"})
_OWN = CALLER_KEY.encode()
_FILLING = b" \t\r\n\0\xef\xbb\xbf\xfe\xff"
"""White space, NULs, and the bytes of byte order marks: what may stand before a message in one encoding or another."""


class Access:
    """Around `app`. Without `clients` nobody is known, and all that is done is to strip what only this side may say."""

    def __init__(
        self,
        app: asgi.App,
        *,
        policy: ServerPolicy | None = None,
        clients: ClientGate | None = None,
        max_body: int = LIMITS.mcp_request,
    ) -> None:
        self._app = app
        self._heads = isinstance(app, Witness)  # which answers that path; nobody else may hear what comes there unseen
        self._policy = policy or ServerPolicy()
        self._clients = clients
        self._max_body = max_body
        self._owners = Owners()

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http" or (self._heads and scope["path"] == HEAD_PATH):
            await self._app(scope, receive, send)
            return
        caller = self._caller(scope)
        scope = {**scope, "state": {**scope.get("state", {}), STATE_KEY: caller}}
        if self._clients is not None:
            if not self._owns(scope, caller):
                await asgi.reply_json(send, 404, rpc.error(None, rpc.INVALID_REQUEST, "session not found"))
                return
            send = self._noting(send, caller, holder_of(scope))
        if self._policy.tools:
            await self._guarded(scope, receive, send, caller)
        elif scope["method"] == "POST":
            await self._stripped(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _caller(self, scope: asgi.Scope) -> Caller | None:
        channel = scope.get("state", {}).get(CHANNEL_KEY)
        return self._clients.caller(channel) if self._clients is not None and isinstance(channel, Channel) else None

    # --- sessions of the handshake era belong to whoever opened them -----------------------------------------------

    def _owns(self, scope: asgi.Scope, caller: Caller | None) -> bool:
        """A session that nobody was seen to open belongs to nobody: its client opens another."""
        session = asgi.header(scope, SESSION)
        return session is None or self._owners.get(session.encode("latin-1")) == _identity(caller)

    def _noting(self, send: asgi.Send, caller: Caller | None, holder: str) -> asgi.Send:
        async def noted(message: asgi.Message) -> None:
            if message["type"] == "http.response.start":
                for key, value in message.get("headers", ()):
                    if bytes(key).lower() == SESSION and self._owners.get(bytes(value)) is None:
                        self._owners.put(bytes(value), _identity(caller), holder)
            await send(message)

        return noted

    # --- requests ---------------------------------------------------------------------------------------------------

    async def _stripped(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """Without rules for tools: only what a client may not say of itself is taken out."""
        replay = Replay(receive)
        body = await replay.read(self._max_body)
        if _may_name_a_caller(body):
            message, problem = _read(body)
            if problem is not None and _is_json(scope, body):
                await asgi.reply_json(send, 400, rpc.error(None, rpc.INVALID_REQUEST, problem))
                return
            if _strip(message):
                body = rpc.dump(message)
                replay = Replay(_once(body, receive))
                scope = _resized(scope, len(body))
        await self._app(scope, replay.receive, send)

    async def _guarded(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send, caller: Caller | None) -> None:
        token = _bearer(scope)
        plain = {**scope, "headers": [pair for pair in scope["headers"] if pair[0].lower() != b"accept-encoding"]}
        answers = Answers(_Plain(send).send, _Filter(self._policy, caller, token), _nothing).send
        if scope["method"] != "POST":
            await self._app(plain, receive, answers)
            return
        if any(_encodes(pair) for pair in scope["headers"]):
            await asgi.reply_text(send, 415, "wanted a request body that is not encoded\n")
            return
        try:
            body = await asgi.read_body(scope, receive, self._max_body)
        except asgi.Disconnected:
            return
        except asgi.TooLarge:
            await asgi.reply_text(send, 413, f"wanted at most {self._max_body} bytes\n")
            return
        await self._checked(plain, body, receive, answers, caller, token)

    async def _checked(
        self,
        scope: asgi.Scope,
        body: bytes,
        receive: asgi.Receive,
        send: asgi.Send,
        caller: Caller | None,
        token: str | None,
    ) -> None:
        message, problem = _read(body)
        if problem is not None and _is_json(scope, body):
            await asgi.reply_json(send, 400, rpc.error(None, rpc.INVALID_REQUEST, problem))
            return
        if isinstance(message, dict) and not _headers_agree(scope, message):
            text = "the headers Mcp-Method and Mcp-Name, where they are sent, say once what the message says"
            request_id = message.get("id")
            answer = rpc.error(request_id if rpc.is_id(request_id) else None, rpc.HEADER_MISMATCH, text)
            await asgi.reply_json(send, 400, answer)
            return
        for call in message if isinstance(message, list) else [message]:
            name = _called(call)
            if name is not None and not self._policy.allows(name, caller, token):
                await asgi.reply_json(send, 200, _refusal(call.get("id"), name, caller))
                return
        if _strip(message):
            body = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
            scope = _resized(scope, len(body))
        await self._app(scope, _once(body, receive), send)


def _identity(caller: Caller | None) -> str:
    return caller.key if caller is not None else ""


def _bearer(scope: asgi.Scope) -> str | None:
    """The bearer token (RFC 6750 section 2.1) of a request that has exactly one Authorization header."""
    found = [bytes(value).decode("latin-1") for key, value in scope["headers"] if key.lower() == b"authorization"]
    if len(found) != 1 or found[0][:7].lower() != "bearer ":
        return None
    return found[0][7:].strip()


def _is_json(scope: asgi.Scope, body: bytes) -> bool:
    """Would a server take this for a message? The declared type, or the look of it."""
    return "json" in (asgi.header(scope, b"content-type") or "").lower() or body.lstrip(_FILLING)[:1] in (b"{", b"[")


def _may_name_a_caller(body: bytes) -> bool:
    """Could any reader find our own key in this: in another case or script, escaped, or in another encoding?"""
    return _OWN in body.lower() or b"\\u" in body or b"\0" in body or not body.isascii()


def _headers_agree(scope: asgi.Scope, message: rpc.Message) -> bool:
    """The stateless era repeats method and name in headers; a server that went by those would run another call."""
    method = message.get("method")
    key = headers.NAMED_BY.get(method) if isinstance(method, str) else None
    name = rpc.params(message).get(key) if key else None
    for header, said in ((headers.METHOD, method), (headers.NAME, name)):
        found = [bytes(value).decode("latin-1").strip() for pair, value in scope["headers"] if pair == header.encode()]
        agrees = isinstance(said, str) and len(found) == 1 and headers.says(found[0], said)
        if found and not agrees and (header == headers.METHOD or key):
            return False
    return True


def _read(body: bytes) -> tuple[Any, str | None]:
    """A message that every reader reads alike, or what is wrong with it."""
    try:
        message = json.loads(body.decode("utf-8"), object_pairs_hook=_no_repeats, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return None, f"wanted JSON in UTF-8, each key once: {error}"
    for item in message if isinstance(message, list) else [message]:
        problem = _ambiguous(item)
        if problem:
            return None, problem
    return message, None


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _ambiguous(message: object) -> str | None:
    """Keys that a reader who does not mind their case would take for others, and parameters by position."""
    if not isinstance(message, dict):
        return "wanted JSON-RPC message objects"
    if message.get("method") == "tools/call" and not isinstance(message.get("params"), dict):
        return "wanted params as an object"
    params = message.get("params")
    for held, names in ((message, _MESSAGE_KEYS), (params if isinstance(params, dict) else {}, _PARAMS_KEYS)):
        odd = [key for key in held if key not in names and key.casefold() in names]
        if odd:
            return f"wanted {odd[0].casefold()!r} in lower case"
    return None


def _called(message: object) -> str | None:
    """The tool that a message calls; "" where it names none that is a string."""
    if not isinstance(message, dict) or message.get("method") != "tools/call":
        return None
    name = rpc.params(message).get("name")
    return name if isinstance(name, str) else ""


def _refusal(request_id: object, name: str, caller: Caller | None) -> bytes:
    who = "a client that has proven nothing" if caller is None else f"this client ({caller.release or caller.tee})"
    data = {"code": "tool_not_allowed", "tool": name, "hint": "The server's policy says which clients may call it."}
    found = request_id if rpc.is_id(request_id) else None
    return rpc.error(found, NOT_ALLOWED, f"tool {name!r} is not for {who}", data)


def _strip(message: Any) -> bool:
    """Take out of every `_meta` what only this side may say, in whatever case. True if something was there."""
    found = False
    for item in message if isinstance(message, list) else [message]:
        meta = rpc.meta(item) if isinstance(item, dict) else {}
        for key in [key for key in meta if key.casefold() == CALLER_KEY]:
            del meta[key]
            found = True
    return found


def _once(body: bytes, receive: asgi.Receive) -> asgi.Receive:
    """The body as one piece, then whatever the connection says."""
    held: list[asgi.Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> asgi.Message:
        return held.pop() if held else await receive()

    return replay


def _resized(scope: asgi.Scope, size: int) -> asgi.Scope:
    headers = [pair for pair in scope["headers"] if pair[0].lower() != b"content-length"]
    return {**scope, "headers": [*headers, (b"content-length", str(size).encode())]}


def _nothing() -> None:
    """A changed list is the witness's business."""


class _Filter:
    """Takes out of answers the tools that are not for this client. Any answer that lists tools is looked at: a stream
    of the handshake era may carry the answers of several requests."""

    def __init__(self, policy: ServerPolicy, caller: Caller | None, token: str | None) -> None:
        self._policy = policy
        self._caller = caller
        self._token = token

    async def __call__(self, message: rpc.Message) -> rpc.Message | None:
        result = message.get("result")
        tools = result.get("tools") if isinstance(result, dict) else None
        if not isinstance(result, dict) or not isinstance(tools, list):
            return None
        kept = [tool for tool in tools if self._shown(tool)]
        if len(kept) == len(tools):
            return None
        hidden = [tool for tool in tools if not self._shown(tool)]
        return message | {"result": _with_hidden(result, hidden) | {"tools": kept}}

    def _shown(self, tool: object) -> bool:
        name = tool.get("name") if isinstance(tool, dict) else None
        return isinstance(name, str) and self._policy.allows(name, self._caller, self._token)


def _with_hidden(result: rpc.Message, hidden: list[Any]) -> rpc.Message:
    """The result with names and digests of what is kept back, where a manifest covers it: by these the client can still
    see that nothing else of the list was changed."""
    meta = result.get("_meta")
    summary = meta.get(META_KEY) if isinstance(meta, dict) else None
    if not isinstance(meta, dict) or not isinstance(summary, dict):
        return result
    try:
        digests = {name_of(TOOLS, tool): item_digest(TOOLS, tool).hex() for tool in hidden}
    except (AttestationError, AttributeError):
        return result
    known = summary.get("hidden")
    known = known if isinstance(known, dict) else {}
    return result | {"_meta": meta | {META_KEY: summary | {"hidden": known | digests}}}


class _Plain:
    """Refuses to pass an encoded body on: nobody could look into it."""

    def __init__(self, send: asgi.Send) -> None:
        self._send = send
        self._refused = False

    async def send(self, message: asgi.Message) -> None:
        if message["type"] == "http.response.start":
            self._refused = any(_encodes(pair) for pair in message.get("headers", ()))
            if self._refused:
                await asgi.reply_text(self._send, 502, "the server behind encodes what has to be read\n")
        if not self._refused:
            await self._send(message)


def _encodes(pair: Iterable[bytes]) -> bool:
    key, value = pair
    return bytes(key).lower() == b"content-encoding" and bytes(value).lower() != b"identity"


class Introduce:
    """Tells a server behind a process who calls, in the `_meta` of each of its requests. Innermost: what is signed or
    compared is what the client sent."""

    def __init__(self, app: asgi.App, *, max_body: int = LIMITS.mcp_request) -> None:
        self._app = app
        self._max_body = max_body

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """ASGI entry."""
        caller = scope.get("state", {}).get(STATE_KEY) if scope["type"] == "http" else None
        if not isinstance(caller, Caller) or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        replay = Replay(receive)
        message = rpc.parse(await replay.read(self._max_body))
        if not isinstance(message, dict) or not rpc.is_request(message) or not isinstance(rpc.params(message), dict):
            await self._app(scope, replay.receive, send)
            return
        params = rpc.params(message)
        told = message | {"params": params | {"_meta": rpc.meta(message) | {CALLER_KEY: caller.to_json()}}}
        body = rpc.dump(told)
        await self._app(_resized(scope, len(body)), _once(body, receive), send)
