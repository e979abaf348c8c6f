"""JSON-RPC 2.0 messages as plain dictionaries: nothing of MCP is modelled, so every revision and extension passes.

Sources: JSON-RPC 2.0 §4-5; MCP 2025-11-25 and 2026-07-28, basic/transports.
"""

from __future__ import annotations

import json
from importlib import metadata
from typing import Any, Final, NoReturn, TypeGuard

from attestable_mcp.wire import json_text

Message = dict[str, Any]
Id = str | int
_BOM = b"\xef\xbb\xbf"

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
SERVER_ENDED = -32000
REQUEST_CANCELLED = -32800
HEADER_MISMATCH = -32020
MISSING_CLIENT_CAPABILITY = -32021
UNSUPPORTED_VERSION = -32022

PROTOCOL_VERSION = "io.modelcontextprotocol/protocolVersion"
CLIENT_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
CLIENT_INFO = "io.modelcontextprotocol/clientInfo"
LOG_LEVEL = "io.modelcontextprotocol/logLevel"
SUBSCRIPTION_ID = "io.modelcontextprotocol/subscriptionId"


def client_info() -> Message:
    """How we name ourselves to a server that we question."""
    return {"name": "attestable-mcp", "version": metadata.version("attestable-mcp")}


def parse(data: bytes) -> Any:
    """The JSON value of `data`, or None when it is not JSON (JSON `null` is no message either).

    UTF-8 only (RFC 8259 §8.1): what was looked through as UTF-8 must not be read as UTF-16 later. NaN and infinities
    are not JSON. Depth and integer length are bounded by the interpreter's own limits.
    """
    try:
        return json_text.decode(_DECODER, data.removeprefix(_BOM).decode())
    except (ValueError, RecursionError):
        return None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)
_encode: Final = json_text.encoder(ensure_ascii=False)
_encode_ascii: Final = json_text.encoder()


def dump(message: Message) -> bytes:
    """Compact JSON without line breaks. Lone surrogates, which UTF-8 cannot hold, stay escaped."""
    try:
        return _encode(message).encode()
    except UnicodeEncodeError:
        return ascii_dump(message)


def ascii_dump(message: Message) -> bytes:
    """Compact JSON in ASCII, so that no reader can find another message in the same bytes."""
    return _encode_ascii(message).encode("ascii")


def one_line(data: bytes, message: Message) -> bytes:
    """`data` itself where it is one line already, else `message` written as one: both framings end at a line break."""
    text = data.strip(b" \t\r\n")
    return dump(message) if b"\n" in text or b"\r" in text else text


def is_id(value: object) -> TypeGuard[Id]:
    """Is this an id that a request may carry: a string or an integer (true and false are neither)?"""
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


def is_request(message: Message) -> bool:
    """Does this message ask for an answer?"""
    return "method" in message and "id" in message


def is_response(message: Message) -> bool:
    """Is this message an answer?"""
    return "method" not in message and ("result" in message or "error" in message)


def fault(message: object) -> str | None:
    """What is wrong with a parsed message, in words, or None for a request, notification or response."""
    if not isinstance(message, dict):
        return "wanted one JSON-RPC message object"
    if message.get("jsonrpc") != "2.0":
        return 'wanted "jsonrpc": "2.0"'
    if "method" in message:
        return _call_fault(message)
    if not is_response(message):
        return "wanted a method, a result or an error"
    return None


def _call_fault(message: Message) -> str | None:
    if not isinstance(message["method"], str):
        return "wanted a string as method"
    if "id" in message and not is_id(message["id"]):
        return "wanted a string or an integer as id"
    if not isinstance(message.get("params", {}), (dict, list)):
        return "wanted an object as params"
    return None


def error(request_id: Id | None, code: int, text: str, data: object = None) -> bytes:
    """A JSON-RPC error response as one line."""
    body: Message = {"code": code, "message": text}
    if data is not None:
        body["data"] = data
    return dump({"jsonrpc": "2.0", "id": request_id, "error": body})


def params(message: Message) -> Message:
    """The params object of a message; empty where there is none."""
    found = message.get("params")
    return found if isinstance(found, dict) else {}


def meta(message: Message) -> Message:
    """The `_meta` object of a message's params; empty where there is none."""
    found = params(message).get("_meta")
    return found if isinstance(found, dict) else {}


def result_meta(result: object) -> Message:
    """The `_meta` object of a result; empty where there is none."""
    found = result.get("_meta") if isinstance(result, dict) else None
    return found if isinstance(found, dict) else {}
