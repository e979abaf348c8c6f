"""What rules write down, in one shape: the check, what the policy wanted (and where it says so), what was seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from attestable_mcp.rats import Claims, Finding, Outcome, Verified

if TYPE_CHECKING:
    from attestable_mcp.appraise.policy import Policy

Rule: TypeAlias = "Callable[[Verified, Policy], Iterator[Finding]]"


def source(policy: Policy, *path: str | int) -> str:
    """Where the policy says so, such as `(prod.toml, line 7)`; empty for a policy without a file."""
    where = policy.places.where(*path)
    return f"({where})" if where else ""


def finding(check: str, held: bool, wanted: str, seen: str, code: str, reason: str = "") -> Finding:
    """One check of a policy; `code` names the refusal where it did not hold."""
    return Finding(
        check=f"policy.{check}",
        outcome=Outcome.PASS if held else Outcome.FAIL,
        wanted=wanted,
        seen=seen,
        reason=reason,
        code="" if held else code,
    )


def seen(claims: Claims, name: str) -> str:
    """A claim as text; `absent` where the evidence has none, which no rule takes for a value."""
    value = claims.values.get(name)
    return "absent" if value is None else str(value)


def bits(claims: Claims, name: str, size: int) -> int | None:
    """A little-endian field of `size` bytes as a number; None where the claims have no such field."""
    value = claims.values.get(name)
    if not isinstance(value, str) or len(value) < size * 2:
        return None
    return int.from_bytes(bytes.fromhex(value)[:size], "little")


def among(verified: Verified, policy: Policy, name: str, accepted: tuple[str, ...], code: str) -> Iterator[Finding]:
    """Claim `name` is one of `accepted`; an empty tuple compares nothing."""
    if accepted:
        shown = seen(verified.claims, name)
        yield finding(name, shown in accepted, " or ".join(accepted), shown, code, source(policy, "policy", name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One release held against one set of claims. `table` is where the release stands in the policy's file."""

    claims: Claims
    policy: Policy
    label: str
    table: tuple[str | int, ...]

    def _reason(self, key: str) -> str:
        return (f"release {self.label} " if self.label else "") + source(self.policy, *self.table, key)

    def same(self, name: str, wanted: str, code: str = "measurement_mismatch", *, shown: str | None = None) -> Finding:
        """The claim equals `wanted`. `shown` stands for the claim where it goes by another name."""
        value = seen(self.claims, name) if shown is None else shown
        return finding(name, value == wanted, wanted, value, code, self._reason(name))

    def least(self, name: str, least: int, key: str, code: str) -> Finding:
        """The claim is a number of at least `least`, as `key` of the release says."""
        value = self.claims.values.get(name)
        held = isinstance(value, int) and value >= least
        return finding(name, held, f"at least {least}", seen(self.claims, name), code, self._reason(key))

    def all_in(self, name: str, accepted: tuple[str, ...], code: str = "measurement_mismatch") -> Finding:
        """The claim is a list of words, not empty, and each of them is accepted."""
        value = seen(self.claims, name)
        held = value not in ("absent", "") and set(value.split()) <= set(accepted)
        return finding(name, held, f"only {', '.join(accepted)}", value, code, self._reason(name))
