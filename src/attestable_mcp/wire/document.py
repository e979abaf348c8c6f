"""The envelope of Intel's signed JSON documents: `{"tcbInfo":{...},"signature":"hex"}` and `{"enclaveIdentity":...}`.

The signature covers the exact bytes of the inner object as they were served, so the span is cut out and never written
anew (Intel PCS API v4, "Get TCB Info", "Get QE Identity"). What stands inside is read by `wire.collateral`.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import DocumentKind
from attestable_mcp.wire.der import fail

NAMES = {DocumentKind.INTEL_TCB_INFO: "tcbInfo", DocumentKind.INTEL_QE_IDENTITY: "enclaveIdentity"}
_SIGNATURE = re.compile("[0-9a-fA-F]{128}")
_SPACE = re.compile(r"[ \t\r\n]*")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a key twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


STRICT_JSON = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)
"""JSON in which no key stands twice and no number is NaN or Infinity. Raises ValueError (or RecursionError)."""


def split_document(data: bytes, kind: DocumentKind, *, base: int = 0) -> tuple[bytes, bytes]:
    """The signed span and the signature (64 bytes, r || s) of an envelope that fills `data`, but for white space.

    Raises:
        MalformedEvidence: Not exactly the two members, once each, or not strict JSON down to the last level.
    """
    name = NAMES[kind]
    if len(data) > LIMITS.endorsement:
        fail(f"document of {len(data)} bytes, at most {LIMITS.endorsement} are read", name, base, "too_large")
    spans = _members(_decode(data, name, base), name, base)
    if set(spans) != {name, "signature"}:
        seen = ", ".join(sorted(spans))[:80]
        fail(f"document: wanted the members {name} and signature, seen {seen}", name, base, "unexpected_member")
    body, signature = spans[name], spans["signature"]
    if not body.startswith("{"):
        fail(f"document: wanted an object as {name}", name, base, "unexpected_type")
    if _SIGNATURE.fullmatch(signature[1:-1]) is None:
        fail("document signature: wanted 128 hex digits", "signature", base, "bad_signature")
    return body.encode("utf-8"), bytes.fromhex(signature[1:-1])


def join_document(body: bytes, signature: bytes, kind: DocumentKind) -> bytes:
    """The envelope around a signed span, as Intel serves it."""
    name = NAMES[kind].encode("ascii")
    return b'{"' + name + b'":' + body + b',"signature":"' + signature.hex().encode("ascii") + b'"}'


def _decode(data: bytes, field: str, base: int) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        fail("document is not UTF-8", field, base + error.start, "bad_text")


def _members(text: str, field: str, base: int) -> dict[str, str]:
    """The members of the one object in `text`, each value as its exact span."""
    spans: dict[str, str] = {}
    at = _punctuation(text, 0, "{", field, base)
    while True:
        name, start, at = _value(text, at, field, base)
        if not isinstance(name, str) or name in spans:
            fail("document: wanted a member name that stands once", field, base + start, "duplicate_key")
        at = _punctuation(text, at, ":", field, base)
        _, start, at = _value(text, at, field, base)
        spans[name] = text[start:at]
        more = _skip(text, at)
        if text[more : more + 1] != ",":
            break
        at = more + 1
    at = _punctuation(text, at, "}", field, base)
    if at != len(text):
        fail("bytes follow the document", field, base + at, "trailing_bytes")
    return spans


def _value(text: str, at: int, field: str, base: int) -> tuple[object, int, int]:
    start = _skip(text, at)
    try:
        value, end = STRICT_JSON.raw_decode(text, start)
    except (ValueError, RecursionError) as error:
        position = error.pos if isinstance(error, json.JSONDecodeError) else start
        fail("document is not JSON", field, base + position, "bad_json")
    return value, start, end


def _punctuation(text: str, at: int, mark: str, field: str, base: int) -> int:
    start = _skip(text, at)
    if text[start : start + 1] != mark:
        fail(f"document is not JSON: wanted {mark}", field, base + start, "bad_json")
    return _skip(text, start + 1)


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at
