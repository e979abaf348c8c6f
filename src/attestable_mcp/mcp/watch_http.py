"""HTTP messages as the watch sees them: which JSON-RPC they hold, and what is put in their place."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx2

from attestable_mcp.errors import ConversationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import bridge_headers, rpc
from attestable_mcp.mcp.lister import Reply
from attestable_mcp.mcp.refusal import NOT_CALLED
from attestable_mcp.mcp.rewrite import Look, rewrite_events, rewrite_json
from attestable_mcp.mcp.warden import Refusal

RECEIPTED = frozenset({"tools/call", "prompts/get", "resources/read"})
"""Requests whose answers carry receipts."""
_JSON = "application/json"
_TYPES = (_JSON, "text/event-stream")


async def message_of(request: httpx2.Request) -> rpc.Message | None:
    """The JSON-RPC request in an HTTP request, or None for anything else.

    Raises: ConversationError for calls that nobody could answer for: in a batch, or without an id.
    """
    if request.method != "POST":
        return None
    message = rpc.parse(await request.aread())
    if isinstance(message, dict) and isinstance(message.get("method"), str):
        if rpc.is_id(message.get("id")):
            return message
        if message["method"] not in RECEIPTED:
            return None
    elif not isinstance(message, list):
        return None
    raise ConversationError(
        "request: wanted one JSON-RPC request with an id, seen a batch or a call without one",
        code="garbage",
        hint="nothing was sent; send each call by itself",
    )


def session_of(request: httpx2.Request, response: httpx2.Response) -> str:
    """The session that a request belongs to, or that its answer opens; empty in the stateless era."""
    return request.headers.get(bridge_headers.SESSION) or response.headers.get(bridge_headers.SESSION) or ""


def with_body(request: httpx2.Request, message: rpc.Message) -> httpx2.Request:
    """The same request with another message: where its method is another too, so are the headers that name it."""
    dropped = {b"content-length"}
    if message["method"] not in RECEIPTED:
        dropped |= {name.lower() for name, _ in request.headers.raw if name.lower().startswith(b"mcp-param-")}
        dropped |= {b"mcp-method", b"mcp-name"}
    headers = [pair for pair in request.headers.raw if pair[0].lower() not in dropped]
    if b"mcp-method" in dropped and "mcp-method" in request.headers:
        headers.append((b"mcp-method", message["method"].encode()))
    body = rpc.dump(message)
    headers.append((b"content-length", str(len(body)).encode()))
    return httpx2.Request("POST", request.url, headers=headers, content=body, extensions=request.extensions)


async def reply_of(response: httpx2.Response) -> Reply:
    """The whole answer. Raises: ConversationError for one that is larger than a message may be."""
    try:
        body = await whole(response)
    finally:
        await response.aclose()
    return Reply(status=response.status_code, headers=dict(response.headers), body=body)


async def looked(request: httpx2.Request, response: httpx2.Response, look: Look) -> httpx2.Response:
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
        body = await rewrite_json(await whole(response), look, strict=response.status_code == 200)
    finally:
        await stream.aclose()
    return _replaced(response, httpx2.ByteStream(body), len(body))


async def whole(response: httpx2.Response, most: int = LIMITS.mcp_message) -> bytes:
    """The body of a response, of at most so many bytes. Raises: ConversationError."""
    body = bytearray()
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    async for chunk in response.stream:
        body += chunk
        if len(body) > most:
            raise ConversationError(f"answer: wanted at most {most} bytes, seen more", code="flooded")
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


def error_of(request_id: rpc.Id, refusal: Refusal, code: int = NOT_CALLED) -> rpc.Message:
    body = {"code": code, "message": f"{refusal.message} ({refusal.hint})", "data": refusal.to_json()}
    return {"jsonrpc": "2.0", "id": request_id, "error": body}


def answer_of(request: httpx2.Request, request_id: rpc.Id, refusal: Refusal, code: int = NOT_CALLED) -> httpx2.Response:
    """Our own answer: the server has seen nothing of the call."""
    body = json.dumps(error_of(request_id, refusal, code)).encode()
    return httpx2.Response(200, headers={"content-type": "application/json"}, content=body, request=request)
