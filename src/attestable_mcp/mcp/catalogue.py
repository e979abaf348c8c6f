"""The manifest of the server behind, kept up to date: what transcripts commit to and what lists carry."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import anyio

from attestable_mcp.errors import AttestationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp.lister import Ask, read_manifest
from attestable_mcp.mcp.manifest import (
    INSTRUCTIONS,
    Item,
    Kind,
    Listing,
    Manifest,
    identity,
    introduction,
    listing,
    server_digest,
)

_log = logging.getLogger(__name__)
_DOUBTS = 256
_DOUBT_SECONDS = 30.0


class Catalogue:
    """Lists the server in a session of its own: at the start, when it says that a list changed, when a client was given
    another list than ours, and now and then while calls come in.

    A list that depends on the session is not ours to commit to: the manifest is what a client without credentials, that
    can do everything, is given. Sessions that are given less of the same are covered (`confirm`). `fixed` is a manifest
    that was written down before and is committed to as it is, whatever the server lists.
    """

    def __init__(self, ask: Ask, *, fixed: Manifest | None = None) -> None:
        self._ask = ask
        self._fixed = fixed
        self._lock = asyncio.Lock()
        self._doubts: OrderedDict[bytes, float] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._read_at = -LIMITS.manifest_seconds
        self.manifest: Manifest | None = fixed
        """None until the server could be listed, and where it cannot be."""

    @property
    def digest(self) -> bytes:
        """What transcripts commit to; empty where nothing is known."""
        return self.manifest.digest if self.manifest is not None else b""

    async def refresh(self, seconds: float = LIMITS.mcp_probe_seconds) -> None:
        """List the server now. One that cannot be listed keeps the manifest it had."""
        if self._fixed is not None:
            return
        async with self._lock:
            try:
                with anyio.fail_after(seconds):
                    found = await read_manifest(self._ask)
            except (AttestationError, TimeoutError) as error:
                _log.warning("the server's lists cannot be read: %s", error or "no answer in time")
            else:
                self._take(found)
            self._read_at = time.monotonic()

    def _take(self, found: Manifest) -> None:
        before = self.manifest
        if before is None:
            self.manifest = found
        elif before.digest != found.digest:
            self.manifest = replace(found, counter=before.counter + 1)
            self._doubts.clear()
            _log.info("the server's lists changed: manifest %s, change %d", found.digest.hex(), before.counter + 1)

    async def confirm(self, kind: Kind, items: Iterable[object], *, first: bool, last: bool) -> dict[str, bytes]:
        """A client was given this page: if that is not what we know, look again.

        With the last page of a list this gives the digests, by name, of what the manifest has and the page has not, all
        else being equal. Where there were pages before it, the client knows which of these stood on them: nothing has
        to be remembered here of who was shown what.
        """
        try:
            seen = listing(kind, items)
        except AttestationError:
            return {}
        missing, whole = self._missing(seen), first and last
        if (missing is None or (whole and missing)) and self._doubt(seen.digest):
            await self.refresh()
            missing = self._missing(seen)
        return missing or {} if last else {}

    async def introduced(self, result: Mapping[str, Any]) -> Item:
        """A client was told this of the server: if that is not what we know, look again. What it was not told of it."""
        try:
            said = introduction(result)
            news = not self._says(said) and self._doubt(server_digest(said))
        except AttestationError:
            return {}
        if news:
            await self.refresh()
        known = self.manifest.server if self.manifest is not None else None
        return {name: value for name, value in identity(known or {}).items() if name not in said}

    def _says(self, said: Item) -> bool:
        known = self.manifest.server if self.manifest is not None else None
        if known is None:
            return self._fixed is not None
        shown = {name: value for name, value in known.items() if name in said or name == INSTRUCTIONS}
        return server_digest(shown) == server_digest(said)

    def _missing(self, seen: Listing) -> dict[str, bytes] | None:
        """What a list lacks of the manifest; None where it has anything that is not in the manifest."""
        known = self.manifest.sets[seen.kind.name].digests if self.manifest is not None else {}
        if self.manifest is None or any(known.get(name) != digest for name, digest in seen.digests.items()):
            return None
        return {name: digest for name, digest in known.items() if name not in seen.digests}

    def _doubt(self, digest: bytes) -> bool:
        """Is this difference news? One that a fresh look did not confirm is a session's own list."""
        now = time.monotonic()
        if now - self._doubts.get(digest, -_DOUBT_SECONDS) < _DOUBT_SECONDS:
            return False
        self._doubts[digest] = now
        while len(self._doubts) > _DOUBTS:
            self._doubts.popitem(last=False)
        return True

    def changed(self) -> None:
        """The server says that a list changed: look again soon."""
        self._start()

    def called(self) -> None:
        """A call came in: look again if the last look is old."""
        if time.monotonic() - self._read_at > LIMITS.manifest_seconds:
            self._read_at = time.monotonic()
            self._start()

    def _start(self) -> None:
        if self._fixed is None and len(self._tasks) < 2:
            task = asyncio.create_task(self.refresh())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def aclose(self) -> None:
        """End what is under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
