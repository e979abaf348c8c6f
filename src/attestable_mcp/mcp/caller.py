"""Who calls: the client that proved itself, as tools see it, wherever the server runs.

    @server.tool()
    def transfer(amount: int, ctx: Context) -> str:
        peer = attestation_of(ctx).peer
        if peer is None or peer.release != "billing":
            raise PermissionError("not for you")

In this process the word comes with the connection. A server behind a process is told in `_meta` of each request, under
`CALLER_KEY`; one behind a socket in the header `HEADER`. `serve` strips whatever a client writes there.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any

from attestable_mcp.rats import Caller, Deployment, Verdict

CALLER_KEY = "dev.attestable-mcp/client"
"""Under which a request's `_meta` says who calls."""
STATE_KEY = "attestable_mcp.caller"
"""Under which an ASGI scope's state says it."""
HEADER = b"attestation-client"
TOLD_BY_META = "ATTESTABLE_MCP_CALLER"
"""Set to `meta` in the environment of a process whose `_meta` this package writes: elsewhere it proves nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """What is known of one request. `peer` is None where the client has proven nothing."""

    peer: Caller | None = None


def attestation_of(context: object, *, danger_trust_header: bool = False) -> Attestation:
    """Who calls, out of a Context of the SDK or of FastMCP, a Starlette request, an ASGI scope, or a request's `_meta`.

    `_meta` counts only in a process that this package started. A server behind the HTTP relay sets
    `danger_trust_header` once it is sure that nobody else can reach its socket.
    """
    told = context if isinstance(context, Mapping) else getattr(context, "request_context", None) or context
    if isinstance(told, Mapping):
        return _of_mapping(told, danger_trust_header)
    request = getattr(told, "request", None) or told
    scope = getattr(request, "scope", None)
    if isinstance(scope, Mapping):
        return _of_mapping(scope, danger_trust_header)
    return Attestation(peer=_of_meta(getattr(told, "meta", None)))


def _of_mapping(found: Mapping[str, Any], trust_header: bool) -> Attestation:
    """An ASGI scope or a `_meta` object."""
    if "type" not in found or "headers" not in found:
        return Attestation(peer=_of_meta(found))
    peer = (found.get("state") or {}).get(STATE_KEY)
    if peer is None and trust_header:
        return Attestation(peer=_of_header(found["headers"]))
    return Attestation(peer=peer if isinstance(peer, Caller) else None)


def _of_meta(meta: object) -> Caller | None:
    if os.environ.get(TOLD_BY_META) != "meta":
        return None
    if not isinstance(meta, Mapping):
        dumped = getattr(meta, "model_dump", None)
        meta = dumped(by_alias=True) if callable(dumped) else None
    return read_caller(meta.get(CALLER_KEY)) if isinstance(meta, Mapping) else None


def _of_header(headers: Any) -> Caller | None:
    values = [bytes(value) for key, value in headers if bytes(key).lower() == HEADER]
    if len(values) != 1:
        return None
    try:
        return read_caller(json.loads(base64.b64decode(values[0], validate=True)))
    except ValueError:
        return None


def header_value(caller: Caller) -> bytes:
    """Base64 of the JSON form, for `HEADER`."""
    return base64.b64encode(json.dumps(caller.to_json(), separators=(",", ":")).encode())


def read_caller(value: object) -> Caller | None:
    """A caller out of its JSON form; None for anything else."""
    if not isinstance(value, Mapping):
        return None
    try:
        held = value["deployment"]
        return Caller(
            verdict=Verdict(value["verdict"]),
            tee=str(value["tee"]),
            release=str(value["release"]),
            code=MappingProxyType(dict(value["code"])),
            claims=MappingProxyType(dict(value["claims"])),
            key=str(value["key"]),
            transcript=str(value["transcript"]),
            simulated=value["simulated"] is not False,
            deployment=None if held is None else _deployment(held),
        )
    except (KeyError, ValueError, TypeError):
        return None


def _deployment(held: Mapping[str, Any]) -> Deployment:
    return Deployment(
        owner=str(held["owner"]),
        name=str(held["name"]),
        hosts=tuple(held["hosts"]),
        key=str(held["key"]),
        serial=int(held["serial"]),
        not_before=_moment(held["not_before"]),
        not_after=_moment(held["not_after"]),
    )


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
