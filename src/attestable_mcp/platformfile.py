"""The signed platform list that a policy names, read anew when its file changes."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from attestable_mcp.appraise.platforms import PlatformRule
from attestable_mcp.appraise.policy import Policy
from attestable_mcp.bind.platforms import open_platforms, platform_list
from attestable_mcp.errors import AttestationError, ConfigurationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import PlatformList

_log = logging.getLogger(__name__)
_NEVER = datetime.min.replace(tzinfo=UTC)


def with_platforms(policy: Policy) -> Policy:
    """The policy with the platform list as its file holds it now, for one judgement. Raises: ConfigurationError."""
    rule = policy.rules.platforms
    if rule is None or rule.listed is not None:
        return policy
    return replace(policy, rules=replace(policy.rules, platforms=PlatformFile(rule).current()))


class PlatformFile:
    """The list of `rule`. A later fault leaves the last good list in force, until it ends; an older one is refused.

    Raises:
        ConfigurationError: on construction, for a file that holds no such list.
    """

    def __init__(self, rule: PlatformRule) -> None:
        self.rule = rule
        self._path = Path(rule.file)
        self._lock = threading.Lock()
        self._stamp = self._now()
        self.data, self._listed = self._read()

    def current(self) -> PlatformRule:
        """The rule with the list as it stands now."""
        with self._lock:
            stamp = self._now()
            if stamp != self._stamp:
                self._stamp = stamp
                self._renew()
            return self.rule.holding(self._listed)

    def _renew(self) -> None:
        try:
            data, found = self._read()
        except ConfigurationError as error:
            _log.error("platform list kept as it was: %s", error.message)
            return
        if found.issued < self._listed.issued:
            _log.error("platform list kept: the file now holds an older one, of %s", found.issued)
            return
        self.data, self._listed = data, found

    def _now(self) -> tuple[int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return (0, 0)
        return (found.st_mtime_ns, found.st_size)

    def _read(self) -> tuple[bytes, PlatformList]:
        try:
            with self._path.open("rb") as file:
                data = file.read(2 * LIMITS.platform_list + 1)
        except OSError as error:
            raise ConfigurationError(f"platform list {self._path}: {error.strerror or error}") from error
        return data, read_list(data, self.rule.key, str(self._path))


def read_list(data: bytes, key: str, name: str) -> PlatformList:
    """The list in `data`, if the key with this hash signed it. Raises: ConfigurationError."""
    if len(data) > 2 * LIMITS.platform_list:
        raise ConfigurationError(f"platform list {name}: more than {2 * LIMITS.platform_list} bytes")
    try:
        found = platform_list(open_platforms(data))
    except AttestationError as error:
        raise ConfigurationError(
            f"platform list {name}: {error.message}",
            code="platform_list",
            hint="`attestable-mcp platforms show` reads it.",
        ) from error
    if found.signer != key:
        raise ConfigurationError(
            f"platform list {name}: wanted the signer's key {key}, seen {found.signer}",
            code="platform_list",
            hint="Compare with whoever signs the list: this one is signed, but by somebody else.",
        )
    return found
