"""The standard headers of the stateless era: what of a message stands in them, and how.

The SDK has the same rules; they are written here as well because a bridge that starts with a desktop host would wait
for the whole SDK to load, which takes longer than all else that it does before its first answer. A test compares them.
Source: MCP 2026-07-28, basic/transports (standard headers, custom headers).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any

VERSION = "mcp-protocol-version"
METHOD = "mcp-method"
NAME = "mcp-name"
PARAM = "Mcp-Param-"
NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""For each method that has an `Mcp-Name`, the parameter that it repeats."""
_ANNOTATION = "x-mcp-header"
_TYPES = ("string", "integer", "boolean")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_PLAIN = re.compile(r"[\x20-\x7E]*")
_ENCODED = re.compile(r"=\?base64\?.*\?=")
_DEPTH = 32

Path = tuple[str, ...]


def encode(value: str) -> str:
    """A value as a header carries it: as it is, or in Base64 where a header would not give it back unchanged."""
    if _PLAIN.fullmatch(value) and value == value.strip() and not _ENCODED.fullmatch(value):
        return value
    return _in_base64(value)


def _in_base64(value: str) -> str:
    return f"=?base64?{base64.b64encode(value.encode('utf-8', 'surrogatepass')).decode('ascii')}?="


def says(header: str, value: str) -> bool:
    """Does a header of a client's say this value, plainly or in Base64?"""
    return header == value or (_ENCODED.fullmatch(header) is not None and header == _in_base64(value))


def mirrored(schema: object) -> dict[Path, str]:
    """The arguments that an input schema wants in headers: the path of each property, and its header's token.

    Empty where the schema breaks the rules (a token that is none, or stands twice): such a tool cannot be called over
    HTTP, and the server says so.
    """
    found = dict(_annotated(schema, ()))
    tokens = {token.lower() for token in found.values()}
    valid = len(tokens) == len(found) and all(_TOKEN.fullmatch(token) for token in found.values())
    return found if valid else {}


def _annotated(schema: object, path: Path) -> Iterator[tuple[Path, str]]:
    """Along chains of `properties` only: what stands elsewhere has no one place in the arguments."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or len(path) >= _DEPTH:
        return
    for name, below in properties.items():
        if not isinstance(below, dict):
            continue
        token = below.get(_ANNOTATION)
        if isinstance(token, str) and below.get("type") in _TYPES:
            yield (*path, name), token
        yield from _annotated(below, (*path, name))


def params(wanted: Mapping[Path, str], arguments: Mapping[str, Any]) -> dict[str, str]:
    """The `Mcp-Param-*` headers of a call; an argument that is absent or null has none."""
    shown = {token: _shown(_at(arguments, path)) for path, token in wanted.items()}
    return {PARAM + token: encode(value) for token, value in shown.items() if value is not None}


def _at(arguments: object, path: Path) -> object:
    for name in path:
        if not isinstance(arguments, dict) or name not in arguments:
            return None
        arguments = arguments[name]
    return arguments


def _shown(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        try:
            return str(value)
        except ValueError:  # more digits than Python writes
            return None
    return None
