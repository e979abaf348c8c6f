"""HTTP requests of the OAuth room: bounded, timed, never redirected.

What lies on the attested server's origin goes through the proven connection, all else over ordinary TLS that the
system's trust store judges; there is no third way. No cookie, no proxy and no credential of the environment is used.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import anyio
import httpx2

from attestable_mcp.errors import AttestationError, ConfigurationError
from attestable_mcp.mcp import rpc
from attestable_mcp.mcp.oauth.model import failure, shown
from attestable_mcp.tls.origins import origin_of

SECONDS = 20.0
"""For one request, whatever holds it."""
CAP = 256 * 1024
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A status and the JSON object of a body; empty where there is none."""

    status: int
    body: dict[str, Any]

    @property
    def error(self) -> str:
        """The error code of RFC 6749 §5.2 with its description, for a message."""
        said = [shown(self.body[key]) for key in ("error", "error_description") if isinstance(self.body.get(key), str)]
        return ": ".join(said) or f"HTTP {self.status}"


class Web:
    """The two ways out. `attested` leads to the attested server at `server`; without it nothing goes there."""

    def __init__(
        self, server: str, attested: httpx2.AsyncBaseTransport | None, public: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._origin = origin_of(server)
        self._attested = attested
        self._public = public

    async def get(self, url: str) -> Reply:
        """GET of a JSON document. Raises: ConversationError."""
        return await self._ask("GET", url)

    async def post_form(self, url: str, form: Mapping[str, str], headers: Mapping[str, str] | None = None) -> Reply:
        """POST of a form. Raises: ConversationError."""
        fields = {"content-type": _FORM, **(headers or {})}
        return await self._ask("POST", url, urlencode(form).encode(), fields)

    async def post_json(self, url: str, value: rpc.Message) -> Reply:
        """POST of a JSON object. Raises: ConversationError."""
        return await self._ask("POST", url, rpc.dump(value), {"content-type": "application/json"})

    async def aclose(self) -> None:
        """Close the ordinary connections; the attested ones are another's."""
        if self._public is not None:
            await self._public.aclose()

    async def _ask(
        self, method: str, url: str, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        where = shown(url.partition("?")[0])
        try:
            with anyio.fail_after(SECONDS):
                return await self._exchange(method, url, content, {"accept": "application/json", **(headers or {})})
        except TimeoutError as error:
            raise failure(f"{where} did not answer within {SECONDS:g} seconds") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, ssl.SSLError) as error:
            raise failure(f"{where}: {shown(error) or type(error).__name__}", hint="is it reachable?") from error

    async def _exchange(self, method: str, url: str, content: bytes | None, headers: Mapping[str, str]) -> Reply:
        request = httpx2.Request(method, url, content=content, headers=dict(headers))
        request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), SECONDS)
        response = await self._way(url).handle_async_request(request)
        try:
            return Reply(status=response.status_code, body=await _object(response))
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    def _way(self, url: str) -> httpx2.AsyncBaseTransport:
        if origin(url) == self._origin:
            if self._attested is None:
                raise failure(f"{shown(self._origin)} is spoken to over a proven connection only")
            return self._attested
        if self._public is None:
            import truststore

            context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._public = httpx2.AsyncHTTPTransport(verify=context, trust_env=False)
        return self._public


async def _object(response: httpx2.Response) -> dict[str, Any]:
    held = bytearray()
    async for chunk in response.aiter_bytes():
        held += chunk
        if len(held) > CAP:
            raise failure(f"wanted an answer of at most {CAP} bytes, seen more")
    found = rpc.parse(bytes(held))
    return found if isinstance(found, dict) else {}


def origin(url: str) -> object:
    """The origin of an https URL. Raises: ConversationError for anything else, user info included."""
    try:
        parts = httpx2.URL(url)
        if parts.userinfo:
            raise failure(f"{shown(parts.host)}: wanted a URL without user name")
        return origin_of(url)
    except (httpx2.InvalidURL, ConfigurationError, ValueError, TypeError) as error:
        if isinstance(error, AttestationError) and not isinstance(error, ConfigurationError):
            raise
        raise failure(f"wanted an https URL, seen {shown(url)!r}") from error
