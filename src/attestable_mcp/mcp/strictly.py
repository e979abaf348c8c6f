"""Requests read more strictly than servers do: what two readers could take differently is refused.

A key twice, or in another case, another encoding, parameters by position, headers that say something else: each would
let a call past whoever decides by the message, to a server that reads it in the other way.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from attestable_mcp.mcp import asgi, headers, rpc
from attestable_mcp.mcp.caller import CALLER_KEY
from attestable_mcp.mcp.reserved import decides

_MESSAGE_KEYS = ("jsonrpc", "id", "method", "params", "result", "error")
_PARAMS_KEYS = ("name", "arguments", "uri", "ref", "notifications", "taskId", "_meta")
_BELOW = {"ref": ("type", "name", "uri"), "notifications": ("resourceSubscriptions", "taskIds")}
_UTF_8 = re.compile(r"""(?<![^;\s])charset=("?)utf-8\1(?![^;\s])""")
_OWN = CALLER_KEY.encode()
_FILLING = b" \t\r\n\0\xef\xbb\xbf\xfe\xff"
"""White space, NULs, and the bytes of byte order marks: what may stand before a message in one encoding or another."""


def unreadable(scope: asgi.Scope) -> str | None:
    """Why the body of this request, by its headers, may be another to the server than to us; None where it is not.

    Some servers decode a body by the charset that its type names (JSON has none, RFC 8259 section 11; UTF-7 and EBCDIC
    spell all of ASCII in other bytes), and some take a message out of the body of any method.
    """
    encoded = [value for key, value in scope["headers"] if key.lower() == b"content-encoding"]
    if any(bytes(value).lower() != b"identity" for value in encoded):
        return "wanted a request body that is not encoded"
    kind = (asgi.header(scope, b"content-type") or "").lower()
    if kind.count("charset") != len(_UTF_8.findall(kind)):
        return "wanted a request body in UTF-8"
    return "wanted a request body with POST only" if scope["method"] != "POST" and _has_body(scope) else None


def _has_body(scope: asgi.Scope) -> bool:
    length = asgi.header(scope, b"content-length") or "0"
    return length.strip("0") != "" or asgi.header(scope, b"transfer-encoding") is not None


def is_json(scope: asgi.Scope, body: bytes) -> bool:
    """Would a server take this for a message? The declared type, or the look of it."""
    return "json" in (asgi.header(scope, b"content-type") or "").lower() or body.lstrip(_FILLING)[:1] in (b"{", b"[")


def may_name_a_caller(body: bytes) -> bool:
    """Could any reader find our own key in this: in another case or script, escaped, or in another encoding?"""
    return _OWN in body.lower() or b"\\u" in body or b"\0" in body or not body.isascii()


def headers_agree(scope: asgi.Scope, message: rpc.Message) -> bool:
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


def read(body: bytes) -> tuple[Any, str | None]:
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
    method, params = message.get("method"), message.get("params", {})
    if isinstance(method, str) and decides(method.strip().casefold()):
        if method != method.strip().casefold():
            return f"wanted {method.strip().casefold()!r} in lower case"
        if not isinstance(params, dict):
            return "wanted params as an object"
    odd = _misspelt(message, _MESSAGE_KEYS) or _misspelt(params, _PARAMS_KEYS)
    for key, names in _BELOW.items():
        odd = odd or _misspelt(params.get(key) if isinstance(params, dict) else None, names)
    return f"wanted {odd!r} in just this case" if odd else None


def _misspelt(held: object, names: tuple[str, ...]) -> str:
    """The name that a key is in all but its case."""
    if not isinstance(held, dict):
        return ""
    folded = {name.casefold(): name for name in names}
    return next((folded[key.casefold()] for key in held if key not in names and key.casefold() in folded), "")


def strip(message: Any) -> bool:
    """Take out of every `_meta` what only this side may say, in whatever case. True if something was there."""
    found = False
    for item in message if isinstance(message, list) else [message]:
        meta = rpc.meta(item) if isinstance(item, dict) else {}
        for key in [key for key in meta if key.casefold() == CALLER_KEY]:
            del meta[key]
            found = True
    return found
