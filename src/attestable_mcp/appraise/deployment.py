"""Whose copy a client accepts: the `[deployment]` section of a policy, and its judgement of a proven deployment."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from attestable_mcp.appraise.fault import PolicyFault
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.hints import hint_for
from attestable_mcp.rats import Deployment, Finding, Outcome, RevocationList

WRONG = "wrong_deployment"
NO_OWNER = "whose copy this is: the policy names no [deployment], and another operator can run the same code"
HINTS = {
    WRONG: hint_for(WRONG),
    "grant_expired": "The owner has to renew this deployment's grant: attestable-mcp owner renew.",
    "grant_not_yet_valid": "Check both clocks; the grant begins in the future.",
    "grant_revoked": "The owner has taken this deployment back. Ask it for the address of its present one.",
    "grant_serial_too_low": "The owner has granted anew since. Ask it for the address of its present deployment.",
    "revocation_list_missing": "Ask the owner for its revocation list, and the server's operator to staple it.",
    "revocation_list_stale": "The owner has to issue a new list: attestable-mcp owner revoke --refresh.",
}
"""What to do next, by the code of the first objection."""

_AHEAD = timedelta(minutes=5)
"""By how much an owner's clock may be ahead: a list that is dated later would be young for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentPolicy:
    """Which deployments are accepted. `owners` are SHA-256 over SubjectPublicKeyInfo, hex; any one of them will do.

    `name` None accepts each deployment of these owners. `host` stands in for the host that was dialled. `revocations`
    is the path of the owner's list, read anew when it changes. `max_revocation_age` (seconds) demands a list that is at
    most so old, from the file or stapled.

    Raises:
        ConfigurationError: No owner, or a value of the wrong form.
    """

    owners: tuple[str, ...]
    name: str | None = None
    host: str | None = None
    min_serial: int = 0
    revocations: str | None = None
    max_revocation_age: float | None = None

    def __post_init__(self) -> None:
        if not self.owners:
            raise PolicyFault("wanted the owner's key, seen none", "owner", hint="`owner show` prints its hash")
        for owner in self.owners:
            if not isinstance(owner, str) or len(owner) != 64 or not set(owner) <= set("0123456789abcdefABCDEF"):
                raise PolicyFault(f"wanted the SHA-256 of the owner's key as 64 hex digits, seen {owner!r}", "owner")
        object.__setattr__(self, "owners", tuple(owner.lower() for owner in self.owners))
        for key in ("name", "host", "revocations"):
            value = getattr(self, key)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise PolicyFault(f"wanted a word, seen {value!r}", key)
        if self.host is not None:
            object.__setattr__(self, "host", self.host.lower())
        if isinstance(self.min_serial, bool) or not isinstance(self.min_serial, int) or self.min_serial < 0:
            raise PolicyFault(f"wanted a number of 0 or more, seen {self.min_serial!r}", "min_serial")
        if self.max_revocation_age is not None and not 0 < self.max_revocation_age < float("inf"):
            raise PolicyFault(f"wanted a time above zero, seen {self.max_revocation_age!r}", "max_revocation_age")


class Section(Protocol):
    """What reading a policy's table offers; see `appraise.reading`."""

    def text(self, key: str) -> str | None: ...
    def number(self, key: str) -> int | None: ...
    def texts(self, key: str, *, or_one: bool = False) -> tuple[str, ...] | None: ...
    def seconds(self, key: str) -> float | None: ...
    def fail(self, problem: str, *path: str | int, hint: str | None = None) -> ConfigurationError: ...
    def build(self, make: Any, *arguments: Any, **values: Any) -> Any: ...
    def finish(self) -> None: ...


def read_deployment(section: Section, base: str = "") -> DeploymentPolicy:
    """The policy in a `[deployment]` table; `base` is the folder that a relative path starts from.

    Raises:
        ConfigurationError: Unknown keys, empty or wrong values, with file and line.
    """
    from pathlib import Path

    values: dict[str, Any] = {
        "owners": section.texts("owner", or_one=True),
        "name": section.text("name"),
        "host": section.text("host"),
        "min_serial": section.number("min_serial"),
        "revocations": section.text("revocations"),
        "max_revocation_age": section.seconds("max_revocation_age"),
    }
    section.finish()
    if values["owners"] is None:
        raise section.fail("the owner's key is missing", hint='owner = "…", as `attestable-mcp owner show` prints it')
    if values["revocations"] is not None and base:
        values["revocations"] = str(Path(base, values["revocations"]).absolute())
    made: DeploymentPolicy = section.build(DeploymentPolicy, **values)
    return made


def judge_deployment(
    seen: Deployment | None,
    policy: DeploymentPolicy,
    *,
    host: str | None,
    at: datetime,
    lists: Iterable[RevocationList] = (),
) -> tuple[Finding, ...]:
    """Findings on a deployment that was proven (or on none). `host` is the dialled one, None where nobody dialled.

    `lists` are revocation lists that the verifier holds itself, signatures checked; the newest of this owner's counts.
    """
    wanted = _named(policy)
    if seen is None:
        return (_fail("deployment.owner", wanted, "no grant shown", WRONG),)
    return (
        _one(seen.owner in policy.owners, "deployment.owner", " or ".join(policy.owners), seen.owner, WRONG),
        *_place(seen, policy, host),
        *_time(seen, at),
        *_revocation(seen, policy, at, lists),
    )


def _named(policy: DeploymentPolicy) -> str:
    name = f"{policy.name!r} of " if policy.name else ""
    return f"{name}owner {' or '.join(policy.owners)}"


def _place(seen: Deployment, policy: DeploymentPolicy, host: str | None) -> Iterator[Finding]:
    if policy.name is not None:
        yield _one(seen.name == policy.name, "deployment.name", policy.name, seen.name, WRONG)
    wanted = policy.host or host
    if wanted is not None:
        yield _one(wanted.lower() in seen.hosts, "deployment.hosts", wanted, ", ".join(seen.hosts), WRONG)


def _time(seen: Deployment, at: datetime) -> Iterator[Finding]:
    if at < seen.not_before:
        yield _fail("deployment.validity", f"valid at {_when(at)}", f"from {_when(seen.not_before)}",
                    "grant_not_yet_valid")  # fmt: skip
    else:
        yield _one(at <= seen.not_after, "deployment.validity", f"valid at {_when(at)}",
                   f"until {_when(seen.not_after)}", "grant_expired")  # fmt: skip


def _revocation(
    seen: Deployment, policy: DeploymentPolicy, at: datetime, lists: Iterable[RevocationList]
) -> Iterator[Finding]:
    if policy.min_serial:
        yield _one(seen.serial >= policy.min_serial, "deployment.serial", f"{policy.min_serial} or higher",
                   str(seen.serial), "grant_serial_too_low")  # fmt: skip
    mine = _of_this(seen, lists)
    newest = max(mine, key=lambda item: item.number, default=None)
    yield from _age(newest, policy, at)
    if newest is not None:  # two that were written side by side have one number: neither hides what the other says
        revoked = any(item.revokes(seen.serial, seen.key) for item in mine if item.number == newest.number)
        yield _one(not revoked, "deployment.revocation", f"not revoked in list {newest.number}",
                   f"serial {seen.serial}", "grant_revoked")  # fmt: skip


def newest_list(seen: Deployment, lists: Iterable[RevocationList]) -> RevocationList | None:
    """The list with the highest number among the stapled one and those held, of this very owner and deployment."""
    return max(_of_this(seen, lists), key=lambda item: item.number, default=None)


def _of_this(seen: Deployment, lists: Iterable[RevocationList]) -> list[RevocationList]:
    held = [seen.revocations, *lists]
    return [item for item in held if item is not None and (item.owner, item.name) == (seen.owner, seen.name)]


def _age(newest: RevocationList | None, policy: DeploymentPolicy, at: datetime) -> Iterator[Finding]:
    if policy.max_revocation_age is None:
        return
    check, wanted = "deployment.revocation_age", f"a list of at most {policy.max_revocation_age:.0f} s"
    if newest is None:
        yield _fail(check, wanted, "none", "revocation_list_missing")
    else:
        young = -_AHEAD <= at - newest.issued_at <= timedelta(seconds=policy.max_revocation_age)
        yield _one(young, check, wanted, f"issued {_when(newest.issued_at)}", "revocation_list_stale")


def _one(holds: bool, check: str, wanted: str, seen: str, code: str) -> Finding:
    return Finding(check=check, outcome=Outcome.PASS, wanted=wanted, seen=seen) if holds else _fail(
        check, wanted, seen, code
    )  # fmt: skip


def _fail(check: str, wanted: str, seen: str, code: str) -> Finding:
    return Finding(check=check, outcome=Outcome.FAIL, wanted=wanted, seen=seen, code=code)


def _when(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
