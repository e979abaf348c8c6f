"""Which client may see and use which tool, prompt and resource, decided before the server behind sees a byte of it.

ASGI middleware in front of any server that speaks streamable HTTP, of either era. It reads requests more strictly than
servers do: what two readers could take differently (a key twice, or in another case, another encoding) is refused, so
that no call can be smuggled past it. Answers that list things lose those that are not for this client.
"""

from __future__ import annotations

from collections.abc import Iterable

from attestable_mcp.appraise.server_policy import ServerPolicy
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import asgi, rpc, strictly
from attestable_mcp.mcp.answers import Answers, Replay
from attestable_mcp.mcp.caller import CALLER_KEY, STATE_KEY
from attestable_mcp.mcp.reserved import Reserved, Seen, Shown, about, refusal
from attestable_mcp.mcp.sessions import Owners, holder_of
from attestable_mcp.mcp.witness import HEAD_PATH, Witness
from attestable_mcp.rats import Caller
from attestable_mcp.tls.challenge import STATE_KEY as CHANNEL_KEY
from attestable_mcp.tls.channel import Channel
from attestable_mcp.tls.clients import ClientGate

SESSION = b"mcp-session-id"


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
        policy = policy or ServerPolicy()
        self._reserved = Reserved(policy) if policy.reserves else None
        self._clients = clients
        self._max_body = max_body
        self._owners: Owners[bytes, str] = Owners()

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """ASGI entry."""
        if scope["type"] != "http" or (self._heads and scope["path"] == HEAD_PATH):
            await self._app(scope, receive, send)
            return
        caller = self._caller(scope)
        scope = {**scope, "state": {**scope.get("state", {}), STATE_KEY: caller}}
        seen = Seen(caller, _bearer(scope), holder_of(scope))
        if self._clients is not None:
            if not self._owns(scope, seen):
                await asgi.reply_json(send, 404, rpc.error(None, rpc.INVALID_REQUEST, "session not found"))
                return
            send = self._noting(send, seen)
        if self._reserved is not None:
            await self._guarded(self._reserved, seen, scope, receive, send)
        elif scope["method"] == "POST":
            await self._stripped(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _caller(self, scope: asgi.Scope) -> Caller | None:
        channel = scope.get("state", {}).get(CHANNEL_KEY)
        return self._clients.caller(channel) if self._clients is not None and isinstance(channel, Channel) else None

    # --- sessions of the handshake era belong to whoever opened them -----------------------------------------------

    def _owns(self, scope: asgi.Scope, seen: Seen) -> bool:
        """A session that nobody was seen to open belongs to nobody: its client opens another."""
        session = asgi.header(scope, SESSION)
        return session is None or self._owners.get(session.encode("latin-1")) == seen.identity

    def _noting(self, send: asgi.Send, seen: Seen) -> asgi.Send:
        async def noted(message: asgi.Message) -> None:
            if message["type"] == "http.response.start":
                for key, value in message.get("headers", ()):
                    if bytes(key).lower() == SESSION and self._owners.get(bytes(value)) is None:
                        self._owners.put(bytes(value), seen.identity, seen.holder)
            await send(message)

        return noted

    # --- requests ---------------------------------------------------------------------------------------------------

    async def _stripped(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """Without rules: only what a client may not say of itself is taken out."""
        replay = Replay(receive)
        body = await replay.read(self._max_body)
        if strictly.may_name_a_caller(body):
            message, problem = strictly.read(body)
            if problem is not None and strictly.is_json(scope, body):
                await asgi.reply_json(send, 400, rpc.error(None, rpc.INVALID_REQUEST, problem))
                return
            if strictly.strip(message):
                body = rpc.dump(message)
                replay = Replay(_once(body, receive))
                scope = _resized(scope, len(body))
        await self._app(scope, replay.receive, send)

    async def _guarded(
        self, reserved: Reserved, seen: Seen, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send
    ) -> None:
        plain: asgi.Scope = {
            **scope,
            "headers": [pair for pair in scope["headers"] if pair[0].lower() != b"accept-encoding"],
        }
        if (problem := strictly.unreadable(scope)) is not None:
            await asgi.reply_text(send, 415, f"{problem}\n")
            return
        if scope["method"] != "POST":
            await self._app(plain, receive, _answers(send, Shown(reserved, seen)))
            return
        try:
            body = await asgi.read_body(scope, receive, self._max_body)
        except asgi.Disconnected:
            return
        except asgi.TooLarge:
            await asgi.reply_text(send, 413, f"wanted at most {self._max_body} bytes\n")
            return
        message, answer = _checked(plain, body, reserved, seen)
        if answer is not None:
            await asgi.reply_json(send, *answer)
            return
        if strictly.strip(message):
            body = rpc.dump(message)
            plain = _resized(plain, len(body))
        await self._app(plain, _once(body, receive), _answers(send, Shown(reserved, seen, about(message))))


def _checked(
    scope: asgi.Scope, body: bytes, reserved: Reserved, seen: Seen
) -> tuple[rpc.Message, tuple[int, bytes] | None]:
    """The message in this body (empty for none), and the status and text of the answer where it is to go no further."""
    message, problem = strictly.read(body)
    if problem is None and isinstance(message, list):
        problem = "wanted one message: batches are not read"
    if problem is not None:
        return {}, (400, rpc.error(None, rpc.INVALID_REQUEST, problem)) if strictly.is_json(scope, body) else None
    if not strictly.headers_agree(scope, message):
        text = "the headers Mcp-Method and Mcp-Name, where they are sent, say once what the message says"
        request_id = message.get("id")
        return {}, (400, rpc.error(request_id if rpc.is_id(request_id) else None, rpc.HEADER_MISMATCH, text))
    kept = next((what for what in about(message) if not reserved.allows(what, seen)), None)
    return message, None if kept is None else (200, refusal(message, kept, seen.caller))


def _answers(send: asgi.Send, shown: Shown) -> asgi.Send:
    return Answers(_Plain(send).send, shown, _nothing, whole=True).send


def _bearer(scope: asgi.Scope) -> str | None:
    """The bearer token (RFC 6750 section 2.1) of a request that has exactly one Authorization header."""
    found = [bytes(value).decode("latin-1") for key, value in scope["headers"] if key.lower() == b"authorization"]
    if len(found) != 1 or found[0][:7].lower() != "bearer ":
        return None
    return found[0][7:].strip()


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
