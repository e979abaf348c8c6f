"""Which origins an attested client may speak to, and where it may be sent on to: nowhere else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpx2

from attestable_mcp.errors import ConfigurationError, ConversationError
from attestable_mcp.tls.admission import Origin


class Origins:
    """Which origins may be spoken to: those declared, or the first that is met where none is."""

    def __init__(self, declared: Iterable[str] = ()) -> None:
        self._allowed = {origin_of(url) for url in declared}

    def admit(self, url: Any) -> Origin:
        """The origin of a request.

        Raises:
            ConversationError: with the code `plaintext_refused` or `other_origin`.
        """
        origin = _origin(url)
        if origin.scheme != "https":
            raise ConversationError(
                f"request to {origin}: wanted https", code="plaintext_refused", hint="use the server's https URL"
            )
        self._allowed = self._allowed or {origin}
        if origin not in self._allowed:
            allowed = ", ".join(sorted(str(item) for item in self._allowed))
            raise ConversationError(
                f"request to {origin}: this client speaks to {allowed} only",
                code="other_origin",
                hint="use another client for another server; each is proven by itself",
            )
        return origin

    def refuse_redirect(self, request_url: Any, status: int, location: str | None) -> None:
        """A redirect to elsewhere is an error, even where nobody would follow it.

        Raises:
            ConversationError: with the code `redirect_refused`.
        """
        if status not in (301, 302, 303, 307, 308) or location is None:
            return
        try:
            target = _origin(request_url.join(location))
        except (ValueError, httpx2.InvalidURL, ConfigurationError) as error:
            raise ConversationError("redirect to an address that nobody can read", code="redirect_refused") from error
        if target not in self._allowed:
            raise ConversationError(
                f"redirect to {target}: refused", code="redirect_refused", hint="nothing was sent there"
            )


def origins_for(url: str | None, origins: Iterable[str]) -> Origins:
    """Those of a client's options: the server's own URL, and others that it declares. Raises: ConfigurationError."""
    return Origins([*([url] if url else []), *origins])


def origin_of(url: str) -> Origin:
    """The origin of an absolute https URL.

    Raises:
        ConfigurationError: it is not one.
    """
    try:
        origin = _origin(httpx2.URL(url))
    except (httpx2.InvalidURL, ValueError, TypeError) as error:
        raise ConfigurationError(f"server URL: wanted https://HOST[:PORT]/…, seen {url!r:.100}") from error
    if origin.scheme != "https" or not origin.host or not 0 < origin.port < 65536:
        raise ConfigurationError(
            f"server URL: wanted https://HOST[:PORT]/…, seen {url!r:.100}", hint="attestation rides on TLS: use https"
        )
    return origin


def _origin(url: Any) -> Origin:
    scheme, host = str(url.scheme).lower(), str(url.raw_host.decode("ascii")).lower().strip("[]")
    return Origin(scheme, host, url.port or (443 if scheme == "https" else 80))
