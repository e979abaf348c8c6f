"""GET from services that nobody trusts: a deadline over all, a cap on size, no redirects, no coding, nothing judged."""

from __future__ import annotations

import os
import queue
import ssl
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx2

from attestable_mcp.endorse.cache import Answer
from attestable_mcp.errors import ConfigurationError, EndorsementUnavailable
from attestable_mcp.limits import LIMITS

RETRY = "Try again later, name another source in [trust] endorsements, or have the server staple its collateral."


class Declined(EndorsementUnavailable):
    """A service answered with another status than 200. `retry_after` is in seconds, None where it does not say."""

    def __init__(self, message: str, *, status: int, retry_after: float | None = None, hint: str = RETRY) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One address to ask. `check` raises EndorsementUnavailable for an answer that cannot be read: it is none."""

    url: str
    check: Callable[[Answer], object]


def checked_base(url: str, what: str, example: str) -> str:
    """A service's base address without a trailing slash. Raises: ConfigurationError."""
    try:
        parts = urlsplit(url)
        odd = parts.query or parts.fragment or parts.username or parts.password or not parts.hostname
        _ = parts.port
    except ValueError as error:
        raise ConfigurationError(f"{what} {url!r}: {error}") from error
    if parts.scheme not in ("https", "http") or odd or not url.isprintable() or " " in url:
        raise ConfigurationError(
            f"{what}: wanted an address such as {example}, seen {url!r}",
            hint="Give scheme, host, port and path only, up to before the service's own path.",
        )
    return url.rstrip("/")


def unavailable(where: str, what: str, hint: str = RETRY) -> EndorsementUnavailable:
    """The error for one address or service."""
    return EndorsementUnavailable(f"collateral from {where}: {what}", hint=hint)


def get_all(wanted: Sequence[Wanted], seconds: float, *, headers: Collection[str] = ()) -> dict[str, Answer]:
    """Ask all addresses at once; answers by address, with those of `headers` (lower case) that came.

    In a thread with a loop of its own: so the deadline holds even where a peer drips its headers or name resolution
    hangs, and callers inside a running loop are welcome.

    Raises:
        EndorsementUnavailable: the first trouble met; Declined where it is a status.
    """
    done: queue.SimpleQueue[dict[str, Answer] | BaseException] = queue.SimpleQueue()
    work = partial(_get_all, wanted, seconds, frozenset(headers))
    threading.Thread(target=_run, args=(work, done), name="collateral", daemon=True).start()
    try:
        outcome = done.get(timeout=seconds + 0.5)
    except queue.Empty:
        outcome = unavailable(wanted[0].url, f"no whole answer within {seconds:.1f} seconds")
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _run(work: Callable[[], Any], done: queue.SimpleQueue[dict[str, Answer] | BaseException]) -> None:
    try:
        done.put(anyio.run(work, backend="asyncio"))
    except BaseException as error:  # noqa: BLE001 - carried to the caller's thread and raised there
        done.put(error)


async def _get_all(wanted: Sequence[Wanted], seconds: float, headers: frozenset[str]) -> dict[str, Answer]:
    """Every answer, or the first trouble met."""
    answers: dict[str, Answer] = {}
    troubles: list[EndorsementUnavailable] = []

    async def one(client: httpx2.AsyncClient, item: Wanted) -> None:
        try:
            answer = await _get(client, item.url, headers)
            item.check(answer)  # an answer that cannot be read is no answer, and is not stored
            answers[item.url] = answer
        except EndorsementUnavailable as error:
            troubles.append(error)
            tasks.cancel_scope.cancel()

    timeout = httpx2.Timeout(seconds, connect=min(seconds, LIMITS.connect_seconds))
    sent = {"Accept-Encoding": "identity", "User-Agent": "attestable-mcp"}
    with anyio.move_on_after(seconds):
        tls = _tls(os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", ""))
        async with httpx2.AsyncClient(timeout=timeout, headers=sent, follow_redirects=False, verify=tls) as client:
            async with anyio.create_task_group() as tasks:
                for item in wanted:
                    tasks.start_soon(one, client, item)
    if troubles:
        raise troubles[0]
    late = [item.url for item in wanted if item.url not in answers]
    if late:
        raise unavailable(late[0], f"no whole answer within {seconds:.1f} seconds")
    return answers


@lru_cache(maxsize=4)
def _tls(file: str, folder: str) -> ssl.SSLContext:
    """The roots of the system or of these variables, read once: that takes longer than an answer."""
    return httpx2.create_ssl_context()


async def _get(client: httpx2.AsyncClient, url: str, headers: frozenset[str]) -> Answer:
    """One answer, capped while it streams. Raises: EndorsementUnavailable."""
    try:
        async with client.stream("GET", url) as response:
            _check_head(url, response)
            body = bytearray()
            async for chunk in response.aiter_raw(64 * 1024):
                body += chunk
                if len(body) > LIMITS.endorsement:
                    raise unavailable(url, f"wanted at most {LIMITS.endorsement} bytes, seen more")
            kept = {name: response.headers[name] for name in headers if name in response.headers}
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError) as error:
        raise unavailable(url, f"{type(error).__name__} {error}".strip()) from error
    except (OSError, ValueError) as error:  # TLS settings and proxies named by the environment
        raise unavailable(url, f"{type(error).__name__} {error}".strip()) from error
    return Answer(body=bytes(body), headers=MappingProxyType(kept))


def _check_head(url: str, response: httpx2.Response) -> None:
    status = response.status_code
    if status != 200:
        raise _declined(url, status, response.headers.get("retry-after", ""))
    coding = response.headers.get("content-encoding", "identity")
    if coding.lower() != "identity":
        raise unavailable(url, f"wanted a plain body, seen content encoding {coding[:40]!r}")


def _declined(url: str, status: int, after: str) -> Declined:
    seconds = float(after) if after.isascii() and after.isdigit() and len(after) < 7 else None
    words, hint = f"wanted status 200, seen {status}", RETRY
    if status == 404:
        words = "status 404: the service knows no such platform"
        hint = "Check that the platform is a production one that its vendor (or your PCCS) holds collateral for."
    elif status == 429:
        wait = "" if seconds is None else f", asks to wait {after} seconds"
        words = f"status 429: too many requests{wait}"
    elif 300 <= status < 400:
        words, hint = f"status {status}: redirects are not followed", "Name the final address as the source."
    return Declined(f"collateral from {url}: {words}", status=status, retry_after=seconds, hint=hint)
