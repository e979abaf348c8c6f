"""What every request passes before it reaches a server: Host and Origin checked, our own headers stripped.

A browser that a rebound name sends to this address carries that name as Host; a page of another site carries its own
Origin. Both are refused, whatever the server behind does. So is what two readers take for different requests: a method
in small letters (some clients write it large again), a path that leads upwards, a header that may stand once and stands
twice. Sources: MCP 2025-11-25, basic/transports, Security Warning; RFC 9110 §5.3 and §9.1; RFC 3986 §5.2.4.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from mcp.server.transport_security import TransportSecuritySettings

from attestable_mcp.mcp import asgi
from attestable_mcp.tls.address import in_url

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
OWN_HEADERS = (b"attestable-", b"attestation-", b"x-attestation-")
"""Prefixes of headers that only this side may set: a client's copies never reach the server behind."""
_ONCE = frozenset((b"mcp-session-id", b"last-event-id", b"content-type", b"content-encoding"))
"""Headers on which a decision rests. Those that repeat a message are compared with it, where that decides anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The host names (lower case, IPv6 without brackets) and further origins under which a server may be addressed.

    Any port passes: a forwarded port is no rebound name.
    """

    hosts: frozenset[str]
    origins: frozenset[str] = frozenset()
    scheme: str = "https"

    def host_allowed(self, header: str | None) -> bool:
        """May this Host header be served?"""
        return header is not None and _host_of(header) in self.hosts

    def origin_allowed(self, header: str | None) -> bool:
        """May this Origin header be served? None is: only browsers send one."""
        if header is None or header in self.origins:
            return True
        parts = urlsplit(header)
        return parts.scheme == self.scheme and not parts.path and _host_of(parts.netloc) in self.hosts

    def security_settings(self) -> TransportSecuritySettings:
        """The same rule for the SDK's own check."""
        names = [in_url(host) for host in sorted(self.hosts)]
        return TransportSecuritySettings(
            enable_dns_rebinding_protection=True,
            allowed_hosts=[form for name in names for form in (name, f"{name}:*")],
            allowed_origins=[
                *(form for name in names for form in (f"{self.scheme}://{name}", f"{self.scheme}://{name}:*")),
                *sorted(self.origins),
            ],
        )


def names_for(
    listen_host: str, hosts: Sequence[str] = (), origins: Sequence[str] = (), *, scheme: str = "https"
) -> Names:
    """The names of a server that listens at `listen_host`: loopback names, the address itself, and `hosts`.

    On a wildcard address also this machine's own name and addresses. `scheme` is that of its own origins.
    """
    found = {*LOOPBACK_NAMES, *(host.strip("[]").lower() for host in hosts)}
    if listen_host.strip("[]") in ("", "0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        found |= _machine_names()
    else:
        found.add(listen_host.strip("[]").lower())
    return Names(hosts=frozenset(found), origins=frozenset(origins), scheme=scheme)


def _machine_names() -> set[str]:
    name = socket.gethostname()
    found = {name.lower()}
    with suppress(OSError):
        found |= {str(info[4][0]).lower() for info in socket.getaddrinfo(name, None)}
    return found


def _host_of(netloc: str) -> str:
    """The host of a Host header or origin, lower case, without port; empty where it is not well-formed."""
    if netloc.startswith("["):
        inside, bracket, rest = netloc[1:].partition("]")
        valid = bracket and (not rest or (rest[0] == ":" and rest[1:].isdecimal()))
        return _address(inside) if valid else ""
    host, colon, port = netloc.partition(":")
    return host.lower() if not colon or port.isdecimal() else ""


def _address(text: str) -> str:
    with suppress(ValueError):
        return str(ipaddress.ip_address(text))
    return ""


class Guard:
    """ASGI middleware that lets in what `names` allows; WebSockets, which MCP has not, are refused."""

    def __init__(self, app: asgi.App, names: Names) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """ASGI entry."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        if not self._names.host_allowed(_single(scope, b"host")):
            text = "the Host header names no host of this server; its operator can add names\n"
            await asgi.reply_text(send, 421, text)
        elif not self._names.origin_allowed(_single(scope, b"origin")):
            await asgi.reply_text(send, 403, "the Origin header names no origin that this server accepts\n")
        elif (problem := _ambiguous(scope)) is not None:
            await asgi.reply_text(send, 400, f"{problem}\n")
        else:
            headers = [pair for pair in scope["headers"] if not is_own(pair[0])]
            await self._app({**scope, "headers": headers}, receive, send)


def is_own(name: bytes) -> bool:
    """Is this one of our headers, or one that servers of the CGI family take for it, to which - and _ are one?"""
    return name.lower().replace(b"_", b"-").startswith(OWN_HEADERS)


def _ambiguous(scope: asgi.Scope) -> str | None:
    """What the next reader could take otherwise than we do, in words."""
    if scope["method"] != scope["method"].upper():
        return "wanted a method in capitals"
    if not scope["path"].startswith("/") or {".", ".."} & set(scope["path"].split("/")):
        return "wanted a path that begins with / and leads nowhere else"
    names = [key for key, _ in scope["headers"] if key in _ONCE]
    if len(names) != len(set(names)):
        return "a header that may stand once stands twice"
    return None


def _single(scope: asgi.Scope, name: bytes) -> str | None:
    """The header's value; a word that nothing allows where it stands twice, since readers would disagree."""
    found = [bytes(value).decode("latin-1") for key, value in scope["headers"] if key == name]
    return found[0] if len(found) == 1 else ("" if found else None)
