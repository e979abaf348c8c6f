"""A disk cache of collateral answers, keyed by URL. It never judges: what it holds is as untrusted as the network.

An entry is used until the moment at which the answer itself says that it runs out, read without trust, and never past
it. A corrupt, foreign or unreadable entry is as good as none. Nothing here fails loudly: without a working disk the
answers are simply fetched again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

from attestable_mcp.files import replace_file
from attestable_mcp.limits import LIMITS

_MAGIC = b"attestable-mcp collateral 1\n"
_HEAD = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer of a collateral service: the body as served and the headers that matter, names in lower case."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class DiskCache:
    """Answers under `folder`, one file each, written aside and renamed, so that a reader never meets half of one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def get(self, url: str, now: datetime) -> Answer | None:
        """The answer stored for exactly this `url` that has not run out at `now`; None for any reason not to use it."""
        try:
            with self._path(url).open("rb") as file:
                data = file.read(LIMITS.endorsement + _HEAD)
            return _decode(data, url, now)
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def put(self, url: str, answer: Answer, expires: datetime) -> None:
        """Store an answer until `expires` (UTC). A disk that refuses is no failure."""
        data = _encode(url, answer, expires)
        with suppress(OSError):
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_file(self._path(url), data)

    def _path(self, url: str) -> Path:
        return self.folder / f"{hashlib.sha256(url.encode()).hexdigest()}.answer"


def _encode(url: str, answer: Answer, expires: datetime) -> bytes:
    """Magic line, SHA-256 of the rest, one line of JSON, the body."""
    head = {"url": url, "expires": expires.astimezone(UTC).isoformat(), "headers": dict(answer.headers)}
    rest = json.dumps(head).encode() + b"\n" + answer.body
    return _MAGIC + hashlib.sha256(rest).hexdigest().encode() + b"\n" + rest


def _decode(data: bytes, url: str, now: datetime) -> Answer | None:
    if not data.startswith(_MAGIC):
        return None
    digest, _, rest = data[len(_MAGIC) :].partition(b"\n")
    if hashlib.sha256(rest).hexdigest().encode() != digest:
        return None
    line, _, body = rest.partition(b"\n")
    head = json.loads(line)
    headers = {str(name): str(value) for name, value in head["headers"].items()}
    if head["url"] != url or now >= datetime.fromisoformat(head["expires"]):
        return None
    return Answer(body=body, headers=MappingProxyType(headers))
