"""An authorization server that speaks the real grammar over real TLS, and an MCP server that asks for its tokens.

It checks what RFC 6749, 7636 and 8707 tell it to check, rotates refresh tokens and revokes a family whose old one comes
back (RFC 9700 §4.14.2). `Knobs` make it misbehave in one way at a time.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
import json
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import uvicorn
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from attestable_mcp.tls.listening import PlainServer

_SIGNS_CERTIFICATES = x509.KeyUsage(
    key_cert_sign=True, crl_sign=True, digital_signature=False, content_commitment=False, key_encipherment=False,
    data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
)  # fmt: skip


def make_ca(folder: Path) -> tuple[Path, Path]:
    """A CA's certificate, and the PEM of a server at 127.0.0.1 that it signed; strict readers want all of RFC 5280."""
    key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    root = _builder(authority, authority, key.public_key())
    root = root.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    root = root.add_extension(_SIGNS_CERTIFICATES, critical=True)
    root = root.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    leaf = _builder(x509.Name([]), authority, server_key.public_key())
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    leaf = leaf.add_extension(x509.SubjectAlternativeName([address]), critical=True)
    leaf = leaf.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    pem = serialization.Encoding.PEM
    (folder / "ca.pem").write_bytes(root.sign(key, hashes.SHA256()).public_bytes(pem))
    private = server_key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "as.pem").write_bytes(leaf.sign(key, hashes.SHA256()).public_bytes(pem) + private)
    return folder / "ca.pem", folder / "as.pem"


def _builder(subject: x509.Name, issuer: x509.Name, key: Any) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
    )


@dataclass
class Knobs:
    """One wrong turn each; the values are what is said in place of the right thing."""

    metadata: dict[str, Any] = field(default_factory=dict)
    redirect_metadata: str = ""
    redirect_token: str = ""
    iss: str | None = "right"
    state: str = ""
    deny: str = ""
    code: str = ""
    token: dict[str, Any] = field(default_factory=dict)
    lifetime: int = 3600
    documents: bool = False
    registers: bool = True
    cap: int = 0
    refuse_tokens: bool = False
    scope_needed: str = ""
    resource: str = ""
    resource_metadata: str = ""
    with_metadata: bool = True


class Authority:
    """The authorization server. `log` holds every request: (method, path, headers, form or query)."""

    def __init__(self, knobs: Knobs) -> None:
        self.knobs = knobs
        self.url = ""
        self.log: list[tuple[str, str, dict[str, str], dict[str, str]]] = []
        self.clients: dict[str, dict[str, Any]] = {"by-hand": {"redirect_uris": None, "client_secret": "s3cret"}}
        self.codes: dict[str, dict[str, str]] = {}
        self.access: dict[str, dict[str, str]] = {}
        self.refresh: dict[str, dict[str, str]] = {}
        self.spent: set[str] = set()
        self.stolen = False
        self.revoked: list[str] = []

    def asked(self, path: str) -> list[dict[str, str]]:
        return [form for _, where, _, form in self.log if where == path]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {key.decode(): value.decode() for key, value in scope["headers"]}
        path, method = scope["path"], scope["method"]
        text = body.decode() if method == "POST" else scope["query_string"].decode()
        is_json = headers.get("content-type") == "application/json"
        form = json.loads(text) if is_json else {key: values[0] for key, values in parse_qs(text).items()}
        self.log.append((method, path, headers, form))
        status, answer, more = self._answer(method, path, headers, form)
        data = json.dumps(answer).encode() + b" " * self.knobs.cap
        fields = [(b"content-type", b"application/json"), *more]
        await send({"type": "http.response.start", "status": status, "headers": fields})
        await send({"type": "http.response.body", "body": data})

    def _answer(self, method: str, path: str, headers: dict[str, str], form: dict[str, Any]) -> Any:
        if path == "/.well-known/oauth-authorization-server/tenant":
            if self.knobs.redirect_metadata:
                return 302, {}, [(b"location", self.knobs.redirect_metadata.encode())]
            return 200, self.metadata() | self.knobs.metadata, []
        routes = {"/authorize": self._authorize, "/register": self._register, "/revoke": self._revoke}
        if path in routes:
            return routes[path](form)
        if path == "/token":
            if self.knobs.redirect_token:
                return 307, {}, [(b"location", self.knobs.redirect_token.encode())]
            return (*self._token(headers, form), [])
        return 404, {}, []

    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": f"{self.url}/tenant",
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "revocation_endpoint": f"{self.url}/revoke",
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["tools", "offline_access"],
            "token_endpoint_auth_methods_supported": ["none", "client_secret_basic"],
            "authorization_response_iss_parameter_supported": True,
            "client_id_metadata_document_supported": self.knobs.documents,
        } | ({"registration_endpoint": f"{self.url}/register"} if self.knobs.registers else {})

    def _authorize(self, form: dict[str, str]) -> Any:
        client = self.clients.get(form["client_id"])
        if client is None and self.knobs.documents and form["client_id"].startswith("https://"):
            client = {"redirect_uris": None}
        uris = client["redirect_uris"] if client else []
        target = form["redirect_uri"]
        good = urlsplit(target).hostname == "127.0.0.1" and (uris is None or target in uris)
        if not good or form["code_challenge_method"] != "S256" or form["response_type"] != "code":
            return 400, {"error": "invalid_request"}, []
        code = secrets.token_urlsafe(16)
        self.codes[code] = dict(form)
        answer = {"state": self.knobs.state or form["state"]}
        answer |= {"error": self.knobs.deny} if self.knobs.deny else {"code": self.knobs.code or code}
        if self.knobs.iss is not None:
            answer["iss"] = f"{self.url}/tenant" if self.knobs.iss == "right" else self.knobs.iss
        return 302, {}, [(b"location", f"{target}?{urlencode(answer)}".encode())]

    def _register(self, form: dict[str, Any]) -> Any:
        if form["token_endpoint_auth_method"] != "none" or form["application_type"] != "native":
            return 400, {"error": "invalid_client_metadata"}, []
        name = f"client-{len(self.clients)}"
        self.clients[name] = form
        return 201, form | {"client_id": name}, []

    def _revoke(self, form: dict[str, str]) -> Any:
        self.revoked.append(form["token"])
        self.refresh.pop(form["token"], None)
        return 200, {}, []

    def _token(self, headers: dict[str, str], form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        client = self._client(headers, form)
        if client is None:
            return 401, {"error": "invalid_client"}
        if form["grant_type"] == "refresh_token":
            return self._renew(form, client)
        asked = self.codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if asked is None or asked["client_id"] != client or asked["code_challenge"] != challenge:
            return 400, {"error": "invalid_grant"}
        if asked["redirect_uri"] != form["redirect_uri"] or asked["resource"] != form["resource"]:
            return 400, {"error": "invalid_grant"}
        return 200, self._issue({"client": client, "resource": form["resource"], "scope": asked.get("scope", "")})

    def _client(self, headers: dict[str, str], form: dict[str, str]) -> str | None:
        name = form.get("client_id", "")
        if "authorization" in headers:
            pair = base64.b64decode(headers["authorization"].removeprefix("Basic ")).decode()
            name, _, secret = pair.partition(":")
            if self.clients.get(name, {}).get("client_secret") != secret:
                return None
        elif self.clients.get(name, {}).get("client_secret"):
            return None
        return name if name in self.clients or name.startswith("https://") else None

    def _renew(self, form: dict[str, str], client: str) -> tuple[int, dict[str, Any]]:
        old = form["refresh_token"]
        if old in self.spent:
            self.stolen = True
            self.refresh.clear()
        about = self.refresh.pop(old, None)
        if about is None or about["client"] != client or about["resource"] != form["resource"]:
            return 400, {"error": "invalid_grant"}
        self.spent.add(old)
        return 200, self._issue(about)

    def _issue(self, about: dict[str, str]) -> dict[str, Any]:
        token, again = f"at-{secrets.token_urlsafe(16)}", f"rt-{secrets.token_urlsafe(16)}"
        self.access[token], self.refresh[again] = about, about
        found = {"access_token": token, "token_type": "Bearer", "refresh_token": again, "scope": about["scope"]}
        return found | {"expires_in": self.knobs.lifetime} | self.knobs.token


@asynccontextmanager
async def authority(knobs: Knobs, pem: Path) -> AsyncIterator[Authority]:
    """The authorization server on a port of its own, over TLS."""
    app = Authority(knobs)

    class Tls(PlainServer):
        def _config(self) -> uvicorn.Config:
            config = super()._config()
            config.ssl_certfile = str(pem)
            config.ssl_keyfile = str(pem)
            config.ssl_version = ssl.PROTOCOL_TLS_SERVER
            return config

    async with Tls(app, "127.0.0.1", 0, drain_seconds=0) as server:  # nobody waits for a TLS goodbye
        app.url = server.url.replace("http:", "https:")
        yield app


class Protected:
    """ASGI around an MCP server's application: 401 without a token of `authority` for this resource. Logs requests."""

    def __init__(self, app: Any, made: Authority) -> None:
        self._app = app
        self._authority = made
        self.url = ""
        self.tokens: list[str | None] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        knobs, headers = self._authority.knobs, dict(scope["headers"])
        if scope["path"] == "/.well-known/oauth-protected-resource/mcp" and knobs.with_metadata:
            body = {
                "resource": knobs.resource or self.url,
                "authorization_servers": [f"{self._authority.url}/tenant"],
                "scopes_supported": ["tools"],
            }
            await _json(send, 200, body)
            return
        sent = headers.get(b"authorization")
        self.tokens.append(sent.decode() if sent else None)
        known = self._authority.access.get(sent.decode().removeprefix("Bearer ")) if sent else None
        if known is None or known["resource"] != self.url or knobs.refuse_tokens:
            where = knobs.resource_metadata or self.url.replace("/mcp", "/.well-known/oauth-protected-resource/mcp")
            challenge = f'Bearer error="invalid_token", resource_metadata="{where}"'
            await _json(send, 401, {}, (b"www-authenticate", challenge.encode()))
        elif not set(knobs.scope_needed.split()) <= set(known["scope"].split()):
            challenge = f'Bearer error="insufficient_scope", scope="{knobs.scope_needed}"'
            await _json(send, 403, {}, (b"www-authenticate", challenge.encode()))
        else:
            await self._app(scope, receive, send)


async def _json(send: Any, status: int, body: Any, *more: tuple[bytes, bytes]) -> None:
    fields = [(b"content-type", b"application/json"), *more]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


def trusting(ca: Path) -> ssl.SSLContext:
    """As Python makes it from 3.13 on."""
    context = ssl.create_default_context(cafile=str(ca))
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


async def browse(page: str, ca: Path) -> int:
    """What a person's browser does: the page, and the redirect to this machine. The last status."""
    async with httpx2.AsyncClient(verify=trusting(ca), follow_redirects=True, trust_env=False) as http:
        return (await http.get(page)).status_code
