"""From a 401 of the attested server to the authorization server that it names.

The resource metadata comes over the attested connection and from the attested origin only: what it says is the proven
server's word. An authorization server is believed for its own issuer name only.
Sources: RFC 9728 §3, §5.1; RFC 8414 §3; OpenID Connect Discovery 1.0 §4; RFC 8707 §2; MCP 2026-07-28,
basic/authorization.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2

from attestable_mcp.errors import ConversationError
from attestable_mcp.mcp.oauth.model import Issuer, Resource, failure, shown
from attestable_mcp.mcp.oauth.web import Reply, Web, origin

_PARAMETER = re.compile(r'([A-Za-z_][A-Za-z0-9_-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_PRM = "/.well-known/oauth-protected-resource"
_ASM = "/.well-known/oauth-authorization-server"
_OIDC = "/.well-known/openid-configuration"
_MAX_HEADER = 8192
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a 401 or 403 asks for. `bearer` is false where the server wants another scheme."""

    bearer: bool = True
    error: str = ""
    scope: str = ""
    metadata: str = ""


def demand_of(response: httpx2.Response) -> Demand:
    """The Bearer challenge of a response; one without any `WWW-Authenticate` may still mean Bearer (RFC 9728 §3)."""
    values = [value[:_MAX_HEADER] for value in response.headers.get_list("www-authenticate")]
    bearer = next((value for value in values if re.search(r"(?:^|,)\s*Bearer\b", value, re.IGNORECASE)), None)
    if bearer is None:
        return Demand(bearer=not values)
    text = re.split(r"(?:^|,)\s*Bearer\b", bearer, maxsplit=1, flags=re.IGNORECASE)[1]
    found = {key.lower(): re.sub(r"\\(.)", r"\1", quoted) or bare for key, quoted, bare in _PARAMETER.findall(text)}
    scope = found.get("scope", "")
    return Demand(
        error=found.get("error", ""),
        scope=scope if _SCOPE.fullmatch(scope) else "",
        metadata=found.get("resource_metadata", ""),
    )


async def find_resource(web: Web, server: str, demand: Demand) -> Resource | None:
    """The server's own metadata, or None where it publishes none. Raises: ConversationError."""
    parts = urlsplit(server)
    base = f"{parts.scheme}://{parts.netloc}"
    if demand.metadata and origin(demand.metadata) != origin(server):
        raise failure(
            f"the server names resource metadata at {shown(demand.metadata)}: wanted it on its own, attested origin",
            hint="what another host says of a server is not proven; its operator can serve the document beside MCP",
        )
    path = parts.path.rstrip("/")
    candidates = [demand.metadata, f"{base}{_PRM}{path}" if path else "", f"{base}{_PRM}"]
    for url in dict.fromkeys(filter(None, candidates)):
        reply = await web.get(url)
        if reply.status == 200:
            return _resource(reply, server, url)
        if reply.status >= 500 or reply.status == 429:
            raise failure(f"{shown(url)}: HTTP {reply.status}", hint="try again later")
    return None


def _resource(reply: Reply, server: str, url: str) -> Resource:
    resource = _text(reply.body, "resource")
    if not covers(resource, server):
        raise failure(
            f"{shown(url)} is about the resource {shown(resource)!r}: wanted {shown(server)}",
            hint="a token for another resource is asked for by nobody; the operator must name this server's address",
        )
    issuers = tuple(item for item in _list(reply.body, "authorization_servers"))
    if not issuers:
        raise failure(f"{shown(url)} names no authorization server")
    return Resource(resource=resource, issuers=issuers, scopes=_list(reply.body, "scopes_supported"))


def covers(resource: str, server: str) -> bool:
    """Does the resource identifier name this server, or a part of its origin that holds it?"""
    try:
        if origin(resource) != origin(server):
            return False
    except ConversationError:
        return False
    held, wanted = urlsplit(resource), urlsplit(server)
    path = held.path.rstrip("/") + "/"
    return not held.fragment and (wanted.path.rstrip("/") + "/").startswith(path)


async def find_issuer(web: Web, issuer: str) -> Issuer:
    """The metadata of an authorization server, which must name itself as `issuer`. Raises: ConversationError."""
    parts = urlsplit(issuer)
    origin(issuer)
    base, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    candidates = [f"{base}{_ASM}{path}", f"{base}{_OIDC}{path}", f"{base}{path}{_OIDC}"]
    for url in dict.fromkeys(candidates):
        reply = await web.get(url)
        if reply.status == 200 and reply.body:
            return _issuer(reply.body, issuer)
        if reply.status >= 500:
            raise failure(f"{shown(url)}: HTTP {reply.status}", hint="try again later")
    raise failure(f"{shown(issuer)} publishes no authorization server metadata")


def same_issuer(first: str, second: str) -> bool:
    """Equal as strings (RFC 8414 §3.3), save that a bare host may end in a slash or not."""
    shorter, longer = sorted((first, second), key=len)
    return first == second or (longer == f"{shorter}/" and urlsplit(longer).path == "/")


def _issuer(body: dict[str, Any], expected: str) -> Issuer:
    named = _text(body, "issuer")
    if not same_issuer(named, expected):
        raise failure(f"authorization server metadata names the issuer {shown(named)!r}: wanted {shown(expected)}")
    if "S256" not in _list(body, "code_challenge_methods_supported"):
        raise failure(f"{shown(named)} does not say that it supports PKCE with S256", hint="MCP demands it")
    return Issuer(
        issuer=named,
        authorization_endpoint=_endpoint(body, "authorization_endpoint"),
        token_endpoint=_endpoint(body, "token_endpoint"),
        registration_endpoint=_endpoint(body, "registration_endpoint", optional=True),
        revocation_endpoint=_endpoint(body, "revocation_endpoint", optional=True),
        scopes=_list(body, "scopes_supported"),
        auth_methods=_list(body, "token_endpoint_auth_methods_supported"),
        takes_metadata_documents=body.get("client_id_metadata_document_supported") is True,
        names_itself=body.get("authorization_response_iss_parameter_supported") is True,
    )


def _endpoint(body: dict[str, Any], key: str, *, optional: bool = False) -> str:
    if optional and not body.get(key):
        return ""
    url = _text(body, key)
    origin(url)
    if urlsplit(url).fragment:
        raise failure(f"{key}: wanted a URL without fragment")
    return url


def _text(body: dict[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value or len(value) > 2048 or not value.isprintable() or " " in value:
        raise failure(f"metadata: wanted {key} as a short string, seen {shown(value)!r}")
    return value


def _list(body: dict[str, Any], key: str) -> tuple[str, ...]:
    value = body.get(key)
    items = value[:64] if isinstance(value, list) else []
    return tuple(item for item in items if isinstance(item, str) and 0 < len(item) <= 2048 and item.isprintable())
