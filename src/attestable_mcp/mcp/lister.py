"""Asks a server for all that it lists, in whichever era it speaks, through any way to POST a message.

Every member that the server sends is kept as it is; nothing of MCP is modelled. Lists that a server does not claim to
have are not asked for. We say that we can do all that a host can, so that a server shows what it shows only to such:
no tool is called, so none of it is ever used. Source: MCP 2026-07-28 (server/discover, basic/transports), 2025-11-25
(basic/lifecycle).
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2

from attestable_mcp.errors import AttestationError, ConversationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import asgi, bridge_headers, rpc
from attestable_mcp.mcp.bridge_sse import EventReader
from attestable_mcp.mcp.manifest import (
    KINDS,
    PROMPTS,
    RESOURCES,
    TEMPLATES,
    TOOLS,
    Item,
    Kind,
    Manifest,
    identity,
    introduction,
    of_lists,
)
from attestable_mcp.mcp.translate import NEWEST, NEWEST_HANDSHAKE

_log = logging.getLogger(__name__)
CAPABILITIES: rpc.Message = {
    "sampling": {"context": {}, "tools": {}},
    "elicitation": {"form": {}, "url": {}},
    "roots": {},
    "tasks": {"requests": {"sampling": {"createMessage": {}}, "elicitation": {"create": {}}}},
}
"""What a host may be able to do that a server's lists may depend on."""
_CAPABILITY = {TOOLS: "tools", PROMPTS: "prompts", RESOURCES: "resources", TEMPLATES: "resources"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One HTTP answer, whole. Header names in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def message(self, request_id: rpc.Id) -> rpc.Message | None:
        """The JSON-RPC answer in it, of either framing."""
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            reader = EventReader()
            found = [rpc.parse(event.data) for event in reader.feed(self.body)]
        else:
            found = [rpc.parse(self.body)]
        return next(
            (m for m in found if isinstance(m, dict) and rpc.is_response(m) and m.get("id") in (request_id, None)), None
        )


Ask = Callable[[str, bytes, Mapping[str, str]], Awaitable[Reply]]
"""Method (POST or DELETE), body and headers to an answer."""


class NoLists(ConversationError):
    """The server answers neither era's opening, so nothing is known of what it offers."""

    code = "no_manifest"


async def read_manifest(ask: Ask, *, counter: int = 0) -> Manifest:
    """What the server behind `ask` says of itself, and all its lists, in a session of its own.

    Raises:
        NoLists: it speaks neither era to us. ConversationError: a list without end. MalformedEvidence: a list that no
            digest can be made of.
    """
    statuses: list[int] = []

    async def noted(method: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        reply = await ask(method, body, headers)
        statuses.append(reply.status)
        return reply

    session = await _modern(noted) or await _legacy(noted)
    if session is None:
        raise _no_lists(statuses[-1])
    try:
        server = await _named(session, ask)
        lists = {kind.name: await session.all(kind) for kind in KINDS if session.has(kind)}
    finally:
        await session.close()
    return of_lists(lists, server=server, counter=counter)


def _no_lists(status: int) -> NoLists:
    seen = f" (HTTP {status})" if status not in (0, 200) else ""  # 0: no answer came in time
    hints = {
        401: "it wants authorization: --header-env Authorization=VARIABLE, or --header-file",
        403: "it serves only clients that prove themselves (--attester NAME), or only some that it knows by a header",
        404: "check the path of the address: MCP servers mostly answer under /mcp",
    }
    usual = "see the server's own log: it may not be up yet" if status >= 500 else "it may want authorization"
    text = f"the server answers neither server/discover nor initialize{seen}"
    return NoLists(text, hint=hints.get(status, usual))


async def _named(session: _Session, ask: Ask) -> Item:
    """What the server says of itself. One that names itself in the handshake's era only is asked there, too."""
    if not session.modern or identity(session.server):
        return session.server
    other = await _legacy(ask)
    if other is None:
        return session.server
    await other.close()
    return {**identity(other.server), **session.server}


@dataclass(slots=True, kw_only=True)
class _Session:
    ask: Ask
    capabilities: Mapping[str, Any]
    server: Item
    envelope: rpc.Message
    version: str
    modern: bool
    id: str | None = None
    ids: Any = field(default_factory=lambda: itertools.count(1))

    def has(self, kind: Kind) -> bool:
        return self.capabilities.get(_CAPABILITY[kind]) is not None

    async def all(self, kind: Kind) -> list[Any]:
        """Every page of one list."""
        found: list[Any] = []
        cursor: str | None = None
        for _ in range(LIMITS.manifest_pages):
            page = await self._page(kind, cursor)
            items = page.get(kind.name)
            found += items if isinstance(items, list) else []
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str):
                return found
            if len(found) > LIMITS.manifest_items:
                break
        raise ConversationError(f"{kind.method}: the list has no end", code="flooded")

    async def _page(self, kind: Kind, cursor: str | None) -> rpc.Message:
        params: rpc.Message = {"cursor": cursor} if cursor is not None else {}
        message = await self.request(kind.method, params)
        error = message.get("error")
        if isinstance(error, dict) and error.get("code") == rpc.METHOD_NOT_FOUND:
            return {}
        if not isinstance(message.get("result"), dict):
            raise ConversationError(f"{kind.method}: refused by the server", code="no_manifest")
        result: rpc.Message = message["result"]
        return result

    async def request(self, method: str, params: rpc.Message) -> rpc.Message:
        number = next(self.ids)
        full = {"_meta": self.envelope, **params} if self.modern else params
        message = {"jsonrpc": "2.0", "id": number, "method": method, "params": full}
        reply = await self.ask("POST", rpc.dump(message), self._headers(message))
        return reply.message(number) or {}

    def _headers(self, message: rpc.Message) -> dict[str, str]:
        if self.modern:
            return bridge_headers.Catalogue().headers(message, self.version)
        return bridge_headers.legacy(self.id, self.version)

    async def close(self) -> None:
        """A session of the handshake era is ended."""
        if self.id is not None:
            with anyio.move_on_after(2.0, shield=True):
                await self.ask("DELETE", b"", bridge_headers.legacy(self.id, self.version))


async def _modern(ask: Ask) -> _Session | None:
    envelope = {rpc.PROTOCOL_VERSION: NEWEST, rpc.CLIENT_CAPABILITIES: CAPABILITIES, rpc.CLIENT_INFO: rpc.client_info()}
    session = _Session(ask=ask, capabilities={}, server={}, envelope=envelope, version=NEWEST, modern=True)
    result = (await session.request("server/discover", {})).get("result")
    if not isinstance(result, dict) or not isinstance(result.get("capabilities"), dict):
        return None
    session.capabilities = result["capabilities"]
    session.server = introduction(result)
    return session


async def _legacy(ask: Ask) -> _Session | None:
    params = {"protocolVersion": NEWEST_HANDSHAKE, "capabilities": CAPABILITIES, "clientInfo": rpc.client_info()}
    opening = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
    reply = await ask("POST", rpc.dump(opening), bridge_headers.legacy(None, None))
    result = (reply.message(0) or {}).get("result")
    if not isinstance(result, dict) or not isinstance(result.get("capabilities"), dict):
        return None
    version = result.get("protocolVersion")
    session = _Session(
        ask=ask,
        capabilities=result["capabilities"],
        server=introduction(result),
        envelope={},
        version=version if isinstance(version, str) else NEWEST_HANDSHAKE,
        modern=False,
        id=reply.headers.get(bridge_headers.SESSION),
    )
    told = rpc.dump({"jsonrpc": "2.0", "method": "notifications/initialized"})
    await ask("POST", told, bridge_headers.legacy(session.id, session.version))
    return session


def with_headers(ask: Ask, more: Mapping[str, str]) -> Ask:
    """As `ask`, with these headers on each request: credentials, for servers that list nothing without."""

    async def asked(method: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        return await ask(method, body, {**headers, **more})

    return asked


def of_transport(transport: httpx2.AsyncBaseTransport, url: str) -> Ask:
    """Ask a server over HTTP."""

    async def ask(method: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        fields = {**headers, "accept-encoding": "identity", "host": httpx2.URL(url).netloc.decode("ascii")}
        fields |= {"content-length": str(len(body))}
        response = await transport.handle_async_request(httpx2.Request(method, url, headers=fields, content=body))
        found = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                found += chunk
                if len(found) > LIMITS.mcp_message:
                    raise ConversationError(f"list: wanted at most {LIMITS.mcp_message} bytes", code="flooded")
        finally:
            await response.aclose()
        return Reply(status=response.status_code, headers=dict(response.headers), body=bytes(found))

    return ask


def of_app(app: asgi.App, path: str, *, seconds: float = LIMITS.mcp_probe_seconds) -> Ask:
    """Ask an ASGI application within this process, as a client on this machine would."""

    async def ask(method: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        call = _Call(body)
        with anyio.move_on_after(seconds):
            await call.run(app, _scope(method, path, headers, body))
        return call.reply

    return ask


def _scope(method: str, path: str, headers: Mapping[str, str], body: bytes) -> asgi.Scope:
    fields = {"host": "localhost:443", "content-length": str(len(body)), **headers}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()],
        "client": ("127.0.0.1", 0),
        "server": ("localhost", 443),
        "state": {},
    }


class _Call:
    """One request inside the process. Ends when the answer has ended, whatever the application still does."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._done = anyio.Event()
        self._status = 0
        self._headers: dict[str, str] = {}
        self._answer = bytearray()

    @property
    def reply(self) -> Reply:
        return Reply(status=self._status, headers=self._headers, body=bytes(self._answer))

    async def run(self, app: asgi.App, scope: asgi.Scope) -> None:
        async with anyio.create_task_group() as tasks:

            async def serve() -> None:
                try:
                    await app(scope, self._receive, self._send)
                except AttestationError:
                    raise
                except Exception:  # noqa: BLE001 - an application of the user's may raise anything; it then has no list
                    _log.debug("the application failed when asked for its lists", exc_info=True)
                self._done.set()

            tasks.start_soon(serve)
            await self._done.wait()
            tasks.cancel_scope.cancel()

    async def _receive(self) -> asgi.Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._done.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: asgi.Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in message.get("headers", ())}
        elif message["type"] == "http.response.body":
            self._answer += message.get("body", b"")
            if len(self._answer) > LIMITS.mcp_message or not message.get("more_body", False):
                self._done.set()
