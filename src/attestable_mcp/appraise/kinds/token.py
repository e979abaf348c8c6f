"""Tokens of a third verifier: what its issuer has to say, claim by claim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from attestable_mcp.appraise.fault import PolicyFault
from attestable_mcp.appraise.findings import Comparison, finding, source
from attestable_mcp.appraise.kinds.base import Kind, Read
from attestable_mcp.appraise.values import put, words
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.rats import AttestationResult, ClaimValue, Finding, Tee, Verified

if TYPE_CHECKING:
    from attestable_mcp.appraise.policy import Policy

DEFAULT_TIERS = ("affirming", "UpToDate", "azure-compliant-cvm")
"""What issuers call a good platform: EAR and NVIDIA, Intel Trust Authority, Azure. One without a word is not judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRelease:
    """Claims that a token has to hold, by dotted path, such as `submods.container.image_digest`.

    A `*` in place of one name stands for all that are there, at least one: `submods.*.measres`. Values are compared as
    text; true and false are written so. `token_issuer` is the issuer whose word it has to be.

    Raises:
        ConfigurationError: no claim, or a value that cannot be.
    """

    label: str = ""
    token_issuer: str = ""
    token_claims: Mapping[str, ClaimValue] = field(default_factory=dict)

    tee: ClassVar[Tee] = Tee.TOKEN

    def __post_init__(self) -> None:
        if not self.token_claims:
            raise PolicyFault("no identity rule: token_claims says which code is accepted")
        for name, value in self.token_claims.items():
            if not name or not isinstance(value, (str, int)) or value == "":
                raise PolicyFault(f"{name!r}: wanted text, a whole number, true or false", "token_claims")
        put(self, "token_claims", MappingProxyType(dict(self.token_claims)))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """`token_statuses`: what the issuer may say of the platform, where it says anything."""

    token_statuses: tuple[str, ...] = DEFAULT_TIERS

    READ: ClassVar[Mapping[str, Read]] = {"token_statuses": "texts"}
    ABOUT: ClassVar[str] = "tokens"

    def __post_init__(self) -> None:
        words(self.token_statuses, "token_statuses")


def compare(held: Comparison, release: TokenRelease) -> Iterator[Finding]:
    """Every claim that the release names."""
    if release.token_issuer:
        yield held.same("token_issuer", release.token_issuer, "token_issuer", shown=_shown(held, "iss"))
    for name, value in release.token_claims.items():
        yield held.same(f"token_claims.{name}", _text(value), shown=_shown(held, name))


def _shown(held: Comparison, name: str) -> str:
    """The value, or where the path has a `*`, the one value that all have, else what each has."""
    head, star, tail = name.partition(".*.")
    if not star:
        value = held.claims.values.get(name)
        return "absent" if value is None else _text(value)
    inside = [path.removeprefix(f"{head}.") for path in held.claims.values if path.startswith(f"{head}.")]
    seen = {each: _shown(held, f"{head}.{each}.{tail}") for each in sorted({path.split(".")[0] for path in inside})}
    if len(set(seen.values())) <= 1:
        return next(iter(seen.values()), "absent")
    return ", ".join(f"{each} {value}" for each, value in seen.items())


def _text(value: ClaimValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def status(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """The issuer's own verdict, where its tokens hold one."""
    said, accepted = verified.claims.tcb_status, policy.rules.state(TokenRules).token_statuses
    if said:
        where = source(policy, "policy", "token_statuses")
        yield finding("token_status", said in accepted, " or ".join(accepted), said, "token_status_refused", where)


def pin(result: AttestationResult) -> Iterator[str]:
    """No policy can be written from a token alone. Raises: ConfigurationError."""
    raise ConfigurationError(
        "a token does not say which of its claims name the code, nor where its issuer's keys are to be had",
        hint="Write the policy by hand: docs/howto/tokens.md has one for each issuer.",
    )


TOKEN = Kind(
    tee=Tee.TOKEN,
    vendor="",
    release=TokenRelease,
    keys={"token_issuer": "text", "token_claims": "claims"},
    heads=(frozenset(("token_claims",)),),
    code=(),
    compare=compare,
    pin=pin,
    rules=(status,),
    states=(TokenRules,),
    hints=MappingProxyType(
        {
            "token_issuer": "Another issuer said this. Name its word in a release of its own, if you trust it.",
            "token_status_refused": "Ask what the issuer found; name its word in token_statuses if you accept it.",
        }
    ),
)
