"""What goes out with each request to one attested server: headers of the user's, and the authorization of the bridge.

Both are added beneath the HTTP client and above the proven connection: no other origin can get them, and none before
the verdict. Header values are secrets: nothing here shows them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Protocol

import httpx2

from attestable_mcp.errors import ConfigurationError

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\x20-\x7e\t]+")
_RESERVED = frozenset(
    {
        *("accept", "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect"),
        *("forwarded", "host", "keep-alive", "last-event-id", "origin", "proxy-authenticate", "proxy-authorization"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "via"),
    }
)
_RESERVED_PREFIXES = ("mcp-", "attestation-", "attestable-", "x-attestation-", "sec-", "x-forwarded-")
MAX_HEADERS = 64
MAX_VALUE = 16 * 1024


def check_header(name: str, value: str, where: str) -> tuple[str, str]:
    """The header as it goes out: lower-case name, value without space around it. `where` names its source.

    Raises: ConfigurationError, which never holds the value.
    """
    lower, stripped = name.lower(), value.strip()
    if not _TOKEN.fullmatch(name):
        raise _fault(f"{where}: {name!r:.60} is no header name")
    if lower in _RESERVED or lower.startswith(_RESERVED_PREFIXES):
        raise _fault(f"{where}: the header {name} belongs to the protocol", "leave it out: the bridge sets it itself")
    if not stripped:
        raise _fault(f"{where}: the header {name} is empty", "is the variable set, and the file complete?")
    if len(stripped) > MAX_VALUE or not _VALUE.fullmatch(stripped):
        raise _fault(f"{where}: wanted visible ASCII of at most {MAX_VALUE} characters as value of {name}")
    return lower, stripped


def collect(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Checked headers as a mapping. Raises: ConfigurationError for one that is given twice, and for too many."""
    found: dict[str, str] = {}
    for name, value in headers:
        if name in found:
            raise _fault(f"the header {name} is given twice", "which one was meant?")
        found[name] = value
    if len(found) > MAX_HEADERS:
        raise _fault(f"wanted at most {MAX_HEADERS} headers, seen {len(found)}")
    return found


def _fault(message: str, hint: str = "") -> ConfigurationError:
    return ConfigurationError(message, code="header", hint=hint)


class Authorizer(Protocol):
    """Who knows the access token of one attested server (`mcp.oauth.session`)."""

    async def header(self) -> str | None:
        """The value of `Authorization` for a request now, or None before there is one. Raises: AttestationError."""

    async def challenged(self, response: httpx2.Response, sent: str | None) -> str | None:
        """A new value after the server refused `sent`, or None: pass the answer on. Raises: AttestationError."""


class Outbound(httpx2.AsyncBaseTransport):
    """`inner`, which speaks to one attested origin only, with headers and authorization added to each request."""

    def __init__(
        self,
        inner: httpx2.AsyncBaseTransport,
        *,
        headers: Mapping[str, str] | None = None,
        authorizer: Authorizer | None = None,
    ) -> None:
        self._inner = inner
        self._headers = dict(headers or {})
        self._authorizer = authorizer

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """As the transport beneath; a request that the server wants authorized is sent once more, authorized."""
        request.headers.update(self._headers)
        if self._authorizer is None:
            return await self._inner.handle_async_request(request)
        sent = await self._authorizer.header()
        response = await self._inner.handle_async_request(_with(request, sent))
        if response.status_code not in (401, 403):
            return response
        try:
            value = await self._authorizer.challenged(response, sent)
        except BaseException:
            await response.aclose()
            raise
        if value is None or not isinstance(request.stream, httpx2.ByteStream):
            return response
        await response.aclose()
        return await self._inner.handle_async_request(_with(request, value))

    async def aclose(self) -> None:
        """Close the connections beneath."""
        await self._inner.aclose()


def _with(request: httpx2.Request, authorization: str | None) -> httpx2.Request:
    if authorization is not None:
        request.headers["authorization"] = authorization
    return request
