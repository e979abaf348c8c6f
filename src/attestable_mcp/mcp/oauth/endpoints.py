"""What the bridge asks of an authorization server: to know it, to send a person through, to give and renew tokens.

Sources: RFC 6749 §4.1, §6; RFC 7636 (S256 only); RFC 7591 §3; RFC 7009; RFC 8707 §2; client id metadata documents as in
MCP 2026-07-28, basic/authorization.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from attestable_mcp.mcp.oauth.model import Client, Grant, Issuer, OAuthOptions, failure, shown
from attestable_mcp.mcp.oauth.web import Reply, Web
from attestable_mcp.wire import base64url

_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_MAX_TOKEN = 32 * 1024
_MAX_SECONDS = 10 * 365 * 86400


class GrantGone(Exception):
    """The authorization server takes this refresh token no more, or does not know this client any more.

    Internal: a person must sign in again.
    """

    def __init__(self, said: str, *, client_unknown: bool) -> None:
        super().__init__(said)
        self.client_unknown = client_unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class Pkce:
    """A code verifier and its challenge (RFC 7636 §4)."""

    verifier: str
    challenge: str

    @classmethod
    def make(cls) -> Pkce:
        """A verifier of 256 bits."""
        verifier = secrets.token_urlsafe(32)
        digest = hashlib.sha256(verifier.encode("ascii")).digest()
        return cls(verifier=verifier, challenge=base64url.encode(digest))


async def find_client(web: Web, issuer: Issuer, options: OAuthOptions, known: Client | None, port: int) -> Client:
    """Who we are there: the user's client, a metadata document, an earlier registration, or a new one.

    Raises: ConversationError.
    """
    document = is_document(options.client_id)
    if options.client_id and (not document or issuer.takes_metadata_documents):
        return Client(id=options.client_id, secret=options.client_secret, method=_method(issuer, options.client_secret))
    if known is not None and known.registered and known.redirect_port == port:
        return known
    if not issuer.registration_endpoint:
        raise failure(
            f"{shown(issuer.issuer)} registers no clients by itself"
            + (" and takes no client id metadata documents" if document else ""),
            hint="register one there, and name it with --oauth-client-id (redirect URI http://127.0.0.1/callback)",
        )
    return await _register(web, issuer, options, port)


def is_document(client_id: str) -> bool:
    """Is this the address of a client id metadata document: https with a path?"""
    parts = urlsplit(client_id)
    return parts.scheme == "https" and parts.path not in ("", "/")


def _method(issuer: Issuer, secret: str) -> str:
    if not secret:
        return "none"
    posts = "client_secret_post" in issuer.auth_methods and "client_secret_basic" not in issuer.auth_methods
    return "client_secret_post" if posts else "client_secret_basic"


async def _register(web: Web, issuer: Issuer, options: OAuthOptions, port: int) -> Client:
    wanted: dict[str, Any] = {
        "client_name": "attestable-mcp",
        "redirect_uris": [f"http://127.0.0.1:{port}/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "application_type": "native",
    }
    reply = await web.post_json(issuer.registration_endpoint, wanted)
    if reply.status not in (200, 201):
        raise failure(
            f"{shown(issuer.issuer)} does not register this client: {reply.error}",
            hint="register one there by hand, and name it with --oauth-client-id",
        )
    body = reply.body
    secret = body.get("client_secret")
    method = body.get("token_endpoint_auth_method") or ("client_secret_basic" if secret else "none")
    if method not in ("none", "client_secret_post", "client_secret_basic") or (method != "none" and not secret):
        raise failure(f"{shown(issuer.issuer)} registered a client that must authenticate by {shown(method)}")
    return Client(
        id=_visible(body, "client_id"),
        secret=_visible(body, "client_secret") if method != "none" else "",
        method=method,
        registered=True,
        redirect_port=port,
        expires_at=float(_seconds(body.get("client_secret_expires_at"))),
    )


def authorization_url(
    issuer: Issuer, client: Client, *, redirect_uri: str, state: str, pkce: Pkce, resource: str, scope: str
) -> str:
    """Where a person signs in."""
    asked = {
        "response_type": "code",
        "client_id": client.id,
        "redirect_uri": redirect_uri,
        "state": state,
        "code_challenge": pkce.challenge,
        "code_challenge_method": "S256",
        "resource": resource,
    }
    asked |= {"scope": scope} if scope else {}
    asked |= {"prompt": "consent"} if "offline_access" in scope.split() else {}
    parts = urlsplit(issuer.authorization_endpoint)
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, urlencode(asked))))))


async def exchange(web: Web, grant: Grant, *, code: str, redirect_uri: str, pkce: Pkce, now: float) -> Grant:
    """The code for tokens. Raises: ConversationError."""
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": pkce.verifier,
        "resource": grant.resource,
    }
    reply = await _token(web, grant, form)
    if reply.status != 200:
        raise failure(f"{shown(grant.issuer)} gives no token: {reply.error}")
    return granted(grant, reply.body, now)


async def refresh(web: Web, grant: Grant, *, now: float) -> Grant:
    """New tokens for the refresh token. Raises: GrantGone; ConversationError where trying again may help."""
    form = {"grant_type": "refresh_token", "refresh_token": grant.refresh_token, "resource": grant.resource}
    reply = await _token(web, grant, form)
    if 400 <= reply.status < 429 or reply.status in (430, 431):
        raise GrantGone(reply.error, client_unknown=reply.body.get("error") == "invalid_client")
    if reply.status != 200:
        raise failure(f"{shown(grant.issuer)} does not renew the token: {reply.error}", hint="try again later")
    return granted(grant, reply.body, now)


async def revoke(web: Web, grant: Grant) -> bool:
    """Ask the authorization server to forget (RFC 7009). True where it says that it did."""
    if not grant.revocation_endpoint or not (grant.refresh_token or grant.access_token):
        return False
    form = {"token": grant.refresh_token or grant.access_token}
    form, headers = _as_client(grant.client, form)
    reply = await web.post_form(grant.revocation_endpoint, form, headers)
    return reply.status == 200


async def _token(web: Web, grant: Grant, form: Mapping[str, str]) -> Reply:
    sent, headers = _as_client(grant.client, form)
    return await web.post_form(grant.token_endpoint, sent, headers)


def _as_client(client: Client, form: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """The form and the headers by which the token endpoint knows us (RFC 6749 §2.3.1)."""
    if client.method == "client_secret_basic":
        pair = f"{quote(client.id, safe='')}:{quote(client.secret, safe='')}"
        return dict(form), {"authorization": f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"}
    secret = {"client_secret": client.secret} if client.method == "client_secret_post" else {}
    return {**form, "client_id": client.id, **secret}, {}


def granted(grant: Grant, body: Mapping[str, Any], now: float) -> Grant:
    """The grant with the tokens of a token response; what the response leaves out stays. Raises: ConversationError."""
    kind = body.get("token_type")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise failure(f"token response: wanted a token of type Bearer, seen {shown(kind)!r}")
    token = body.get("access_token")
    if not isinstance(token, str) or len(token) > _MAX_TOKEN or not _B64TOKEN.fullmatch(token):
        raise failure("token response: wanted an access token of RFC 6750 §2.1")
    lifetime = _seconds(body.get("expires_in"))
    scope = body.get("scope")
    return replace(
        grant,
        access_token=token,
        refresh_token=_visible(body, "refresh_token") if body.get("refresh_token") else grant.refresh_token,
        scope=scope if isinstance(scope, str) and scope else grant.scope,
        expires_at=now + lifetime if lifetime else 0.0,
    )


def _visible(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TOKEN or not value.isascii() or not value.isprintable():
        raise failure(f"answer of the authorization server: wanted {key} as visible ASCII")
    return value


def _seconds(value: object) -> int:
    """A number of seconds that may come as a string; 0 for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 12:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e11:
        return 0
    return int(value)
