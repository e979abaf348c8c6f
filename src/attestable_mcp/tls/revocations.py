"""An owner's revocation list in a file of the verifier's own, read anew when it changes."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from pathlib import Path

from attestable_mcp.bind.deployment import open_revocation, revocations_of
from attestable_mcp.errors import AttestationError, ConfigurationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import RevocationList
from attestable_mcp.wire.grant import REVOCATION_LABEL, from_pem

_log = logging.getLogger(__name__)


class RevocationFile:
    """The list at `path`, signed by one of `owners` (hex hashes). A later fault leaves the last good list in force.

    Raises:
        ConfigurationError: On construction, for a file that holds no such list.
    """

    def __init__(self, path: str, owners: Collection[str]) -> None:
        self._path = Path(path)
        self._owners = owners
        self._lock = threading.Lock()
        self._stamp = self._now()
        self._list = self._read()

    def lists(self) -> tuple[RevocationList, ...]:
        """The list as it stands now."""
        with self._lock:
            stamp = self._now()
            if stamp != self._stamp:
                self._stamp = stamp
                self._renew()
            return (self._list,)

    def _renew(self) -> None:
        try:
            found = self._read()
        except ConfigurationError as error:
            _log.error("revocation list kept as it was: %s", error.message)
            return
        if found.number < self._list.number:
            _log.error("revocation list %d kept: the file now holds the older %d", self._list.number, found.number)
            return
        self._list = found

    def _now(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return (0, 0)
        return (found.st_mtime_ns, found.st_size)

    def _read(self) -> RevocationList:
        data = read_capped(self._path, "revocation list")
        try:
            found = revocations_of(open_revocation(from_pem(data, REVOCATION_LABEL)))
        except AttestationError as error:
            raise ConfigurationError(f"revocation list {self._path}: {error.message}") from error
        if found.owner not in self._owners:
            raise ConfigurationError(
                f"revocation list {self._path}: wanted owner {' or '.join(self._owners)}, seen {found.owner}"
            )
        return found


def read_capped(path: Path, what: str) -> bytes:
    """A file of at most twice the largest signed document.

    Raises:
        ConfigurationError: Unreadable or larger.
    """
    cap = 2 * LIMITS.certificate
    try:
        with path.open("rb") as file:
            data = file.read(cap + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigurationError(f"{what} {path}: {reason}", hint="Check the path and who may read it.") from error
    if len(data) > cap:
        raise ConfigurationError(f"{what} {path}: more than {cap} bytes")
    return data
