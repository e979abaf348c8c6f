"""Key sets of token issuers, from the addresses that a policy pins: over TLS, cached, never chosen by a token."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from attestable_mcp.endorse.cache import Answer, DiskCache
from attestable_mcp.endorse.http import Wanted, get_all, unavailable
from attestable_mcp.errors import EvidenceError
from attestable_mcp.files import user_folder
from attestable_mcp.wire.token import TokenKey, read_key_set

KEPT = timedelta(hours=1)
"""Issuers take keys back, and that has to reach us; they also bring new ones."""


class KeySets:
    """Key sets by address. `cache_dir` None is the user's cache folder; `now` tells the age of what is cached."""

    def __init__(
        self, cache_dir: Path | None = None, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._cache = DiskCache(cache_dir or user_folder("cache") / "keys")
        self._now = now

    def get(self, url: str, *, deadline_seconds: float) -> tuple[TokenKey, ...]:
        """The keys at `url`, at most an hour old. Raises: EndorsementUnavailable."""
        answer = self._cache.get(url, self._now())
        if answer is None:
            answer = get_all([Wanted(url=url, check=_keys)], deadline_seconds)[url]
            self._cache.put(url, answer, self._now() + KEPT)
        return _keys(answer)


def _keys(answer: Answer) -> tuple[TokenKey, ...]:
    try:
        return read_key_set(answer.body)
    except EvidenceError as error:
        raise unavailable("the issuer's address", f"wanted a key set: {error.message}") from error
