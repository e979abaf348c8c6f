"""Is the server still there while it is silent? A stalled network must not hold a call until its time-out.

TCP tells nobody that a path stopped forwarding while the ends have nothing to send, and a proxy that stands still keeps
answering keepalive probes. So, while a call waits and nothing at all is heard, we ask: by a small request on a pooled
connection, and if that is not answered, by the first bytes of a TLS handshake on a new one. Any byte, refusal or reset
is a sign of life; a long call of a server that still answers goes on for as long as it wants. Nothing that is read here
is believed: a liar can only make us wait.
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
import httpx2

from attestable_mcp.tls.challenge import PATH

_DEAD = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN, errno.ETIMEDOUT, errno.EHOSTDOWN})
_QUIET_PART = 1 / 3
"""The share of the allowed silence that passes before we ask."""
_FIRST_PART = 1 / 3
"""The share of the rest that the pooled connection has before a new one is tried as well."""
_LAG_SECONDS = 0.05


class Pulse:
    """`seconds` without any sign of life, while a call waits, end in `stalled`; 0 switches it off."""

    def __init__(self, url: str, http: httpx2.AsyncClient, *, seconds: float) -> None:
        self._url = httpx2.URL(url)
        self._http = http
        self._quiet = seconds * _QUIET_PART
        self._window = seconds - self._quiet
        self._heard = 0.0
        self._asked = anyio.Event()

    def heard(self) -> None:
        """A sign of life."""
        self._heard = anyio.current_time()

    def begin(self) -> None:
        """A call has begun to wait."""
        if not self._asked.is_set():
            self.heard()
            self._asked.set()

    async def watch(self, waiting: Callable[[], bool], stalled: Callable[[], Awaitable[None]]) -> None:
        """Until cancelled. `waiting` says whether any call waits now."""
        while self._window > 0:
            await self._asked.wait()
            left = self._heard + self._quiet - anyio.current_time()
            if left > 0:
                await anyio.sleep(left)
            elif not waiting():
                self._asked = anyio.Event()
            elif await self._alive():
                self.heard()
            else:
                await stalled()
                self.heard()

    async def _alive(self) -> bool:
        before = self._heard
        found = False
        with anyio.move_on_after(self._window):
            async with anyio.create_task_group() as tasks:

                async def take(question: Callable[[], Awaitable[bool]], after: float) -> None:
                    nonlocal found
                    await anyio.sleep(after)
                    if await question():
                        found = True
                        tasks.cancel_scope.cancel()

                tasks.start_soon(take, self._by_request, 0.0)
                tasks.start_soon(take, self._by_handshake, self._window * _FIRST_PART)
        await anyio.sleep(_LAG_SECONDS)  # where this machine is the slow one, what has come is read first
        return found or self._heard != before

    async def _by_request(self) -> bool:
        """Any answer will do, and any error but silence."""
        try:
            await self._http.head(self._url.copy_with(path=PATH, query=None), timeout=self._window * 2)
        except httpx2.TimeoutException:
            return False
        except httpx2.ConnectError as error:
            return _answered(error)
        except Exception:  # noqa: BLE001 a refusal, a reset, an odd answer: somebody is there
            return True
        return True

    async def _by_handshake(self) -> bool:
        """The first byte of an answer to a TLS greeting, whatever it is."""
        port = self._url.port or (443 if self._url.scheme == "https" else 80)
        try:
            tcp = await anyio.connect_tcp(self._url.host.strip("[]"), port)
        except OSError as error:
            return _answered(error)
        async with tcp:
            with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                await tcp.send(_greeting())
                await tcp.receive(1)
        return True


def _answered(error: BaseException | None) -> bool:
    """Did something answer this attempt to connect, if only by refusing it?"""
    seen = 0
    while error is not None and seen < 8:
        if isinstance(error, OSError) and error.errno in _DEAD:
            return False
        error, seen = error.__cause__ or error.__context__, seen + 1
    return True


def _greeting() -> bytes:
    """A TLS 1.3 ClientHello that names nobody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(into, out).do_handshake()
    return out.read()
