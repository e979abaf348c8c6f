"""The list of checks that a verifier made, in order, so that a refusal can tell what held before it."""

from __future__ import annotations

from functools import lru_cache
from typing import NoReturn

from attestable_mcp.errors import VerificationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Finding, Outcome

_SHORT = 256
"""Characters of a finding that is kept: a peer's own words may be longer."""


def _pass(check: str, seen: str, reason: str) -> Finding:
    return Finding(check=check, outcome=Outcome.PASS, seen=seen, reason=reason)


@lru_cache(maxsize=LIMITS.remembered)
def _short_pass(check: str, seen: str, reason: str) -> Finding:
    """Most findings have the same words each time: equal ones are one object, which nothing can change."""
    return _pass(check, seen, reason)


@lru_cache(maxsize=LIMITS.remembered)
def _skip(check: str, reason: str) -> Finding:
    """Reasons for skipping are our own words."""
    return Finding(check=check, outcome=Outcome.SKIP, reason=reason)


class Trail:
    """Findings so far. Nothing is verified by writing here: a check that failed has to raise through `refuse`."""

    def __init__(self) -> None:
        self._findings: list[Finding] = []

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, oldest first."""
        return tuple(self._findings)

    def extend(self, findings: tuple[Finding, ...]) -> None:
        """Findings of checks that were made earlier over the same bytes and still hold."""
        self._findings.extend(findings)

    def passed(self, check: str, seen: str = "", reason: str = "") -> None:
        """This check held."""
        make = _short_pass if len(seen) + len(reason) <= _SHORT else _pass
        self._findings.append(make(check, seen, reason))

    def skipped(self, check: str, reason: str) -> None:
        """This check was not made, and why."""
        self._findings.append(_skip(check, reason))

    def refuse(
        self,
        error: type[VerificationError],
        check: str,
        *,
        wanted: str = "",
        seen: str = "",
        reason: str = "",
        code: str | None = None,
        hint: str | None = None,
    ) -> NoReturn:
        """Record the failed check and raise `error` with everything found so far."""
        word = code or error.code
        finding = Finding(check=check, outcome=Outcome.FAIL, wanted=wanted, seen=seen, reason=reason, code=word)
        self._findings.append(finding)
        parts = (f"wanted {wanted}" if wanted else "", f"seen {seen}" if seen else "", reason)
        message = f"{check}: " + ", ".join(part for part in parts if part)
        raise error(message, findings=self.findings, code=word, hint=hint)

    def demand(
        self, holds: bool, error: type[VerificationError], check: str, wanted: str, seen: str, why: str = ""
    ) -> None:
        """Pass or refuse by `holds`. Raises: `error`."""
        if not holds:
            self.refuse(error, check, wanted=wanted, seen=seen, reason=why)
        self.passed(check, seen)
