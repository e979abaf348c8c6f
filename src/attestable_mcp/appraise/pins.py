"""Trust on first use: what is remembered of a server, and how what is seen later differs from it.

A pin holds what says which server it is: the kind of TEE, the root that vouches for it, the code, and what the
connection's transcript commits to. The platform's patch level is no part of it: it is judged anew each time.
A pin proves that a server is the one that was met first, never that anybody reviewed it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType

from attestable_mcp.appraise.deployment import NO_OWNER
from attestable_mcp.appraise.identity import code_of
from attestable_mcp.appraise.rules import CODE_NOT_COMPARED
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.rats import AttestationResult, ClaimValue, Deployment, Finding, Outcome, Verdict, Verified

FIRST_USE = "pin.first_use"
"""The check that marks the result of a server that has just been pinned."""
COMPARED = "pin.tee"
"""A check that is there where a pin was compared."""
NONE = "none"
_SHOWN = 16
"""Hex digits of a value in a sentence; findings hold all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """What is remembered of one origin.

    `anchor` is the SHA-256 of the root's SubjectPublicKeyInfo, `code` the claims that identify the code. Digests are
    lower-case hex, empty where the server committed to none. `owner` and `deployment` say whose copy it is, where the
    owner's grant was shown; the deployment's key may change then, under another grant of the same owner, and is not
    pinned. `release_identity` names who may change this pin by a
    signed release; empty means: only the user. `first_use` and `accepted` are UTC.
    """

    origin: str
    first_use: datetime
    accepted: datetime
    tee: str
    simulated: bool
    anchor: str
    code: Mapping[str, ClaimValue] = field(default_factory=dict)
    owner: str = ""
    deployment: str = ""
    deployment_key: str = ""
    manifest: str = ""
    configuration: str = ""
    release_identity: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "code", MappingProxyType(dict(self.code)))

    def facts(self) -> Iterator[tuple[str, str]]:
        """Every pinned value by name, as text, in the order in which a person wants to read them."""
        yield "tee", f"{self.tee}, simulated" if self.simulated else self.tee
        yield "trust_anchor", self.anchor
        for name, value in self.code.items():
            yield name, str(value)
        yield "owner", self.owner or NONE
        yield "deployment", self.deployment or NONE
        yield "deployment_key", self.deployment_key or NONE
        yield "manifest", self.manifest or NONE
        yield "configuration", self.configuration or NONE


def pin_of(
    verified: Verified,
    *,
    origin: str,
    deployment: Deployment | None = None,
    deployment_key: str = "",
    manifest: str = "",
    configuration: str = "",
) -> Pin:
    """What would be remembered of a server whose evidence says this; `deployment` is one whose grant holds.

    Raises:
        ConfigurationError: its evidence names no code that could be compared later, or an open one.
    """
    claims = verified.claims
    code = code_of(claims.tee, claims.values)
    if not code:
        raise ConfigurationError(
            f"evidence of kind {claims.tee} cannot be pinned",
            code="pin_unsupported",
            hint="Write a policy that names what you accept, and give it with --policy.",
        )
    if claims.debug:
        raise ConfigurationError(
            "a debuggable TEE cannot be pinned: its measurement keeps nobody out",
            code="pin_unsupported",
            hint="Ask the operator for a production build.",
        )
    return Pin(
        origin=origin,
        first_use=verified.at,
        accepted=verified.at,
        tee=str(claims.tee),
        simulated=verified.simulated,
        anchor=verified.anchor,
        code=code,
        owner=deployment.owner if deployment else "",
        deployment=deployment.name if deployment else "",
        deployment_key="" if deployment else deployment_key,
        manifest=manifest,
        configuration=configuration,
    )


def compare(pinned: Pin, seen: Pin) -> tuple[Finding, ...]:
    """One finding for each pinned value; a value that is gone, or that is there only now, is a difference.

    Across kinds of TEE no field of code can be compared: the kind is the one difference then, beside root and
    commitments.
    """
    wanted, found = dict(pinned.facts()), dict(seen.facts())
    if pinned.tee != seen.tee:
        code = {*pinned.code, *seen.code}
        wanted = {name: value for name, value in wanted.items() if name not in code}
        found = {name: value for name, value in found.items() if name not in code}
    names = dict.fromkeys([*wanted, *found])
    return tuple(_finding(name, wanted.get(name, NONE), found.get(name, NONE)) for name in names)


def _finding(name: str, wanted: str, seen: str) -> Finding:
    held = wanted == seen
    return Finding(
        check=f"pin.{name}",
        outcome=Outcome.PASS if held else Outcome.FAIL,
        wanted=wanted,
        seen=seen,
        reason="" if held else _reason(name, wanted, seen),
        code="" if held else "pin_mismatch",
    )


def _reason(name: str, wanted: str, seen: str) -> str:
    if seen == NONE:
        return f"{name} was there when the server was pinned, and is gone"
    if wanted == NONE:
        return f"{name} was not there when the server was pinned"
    return f"{name} is not the pinned one"


def changed(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """The differences alone."""
    return tuple(finding for finding in findings if finding.outcome is Outcome.FAIL)


def sentence(pinned: Pin, findings: tuple[Finding, ...]) -> str:
    """The differences as one sentence."""
    parts = [
        f"{finding.check.removeprefix('pin.')}: pinned {short(finding.wanted)}, seen {short(finding.seen)}"
        for finding in changed(findings)
    ]
    return f"not the server that was pinned {day(pinned.accepted)}: {'; '.join(parts)}"


def short(value: str) -> str:
    """A long digest cut for a sentence."""
    return value if len(value) <= 2 * _SHOWN else f"{value[:_SHOWN]}…"


def day(moment: datetime) -> str:
    """A UTC time as results show it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def first_use(result: AttestationResult, pin: Pin) -> AttestationResult:
    """The result of a server that has just been pinned: its code was compared with nothing, so nothing better than
    what the policy gave."""
    note = Finding(
        check=FIRST_USE, outcome=Outcome.SKIP, seen=", ".join(pin.code),
        reason="nothing was pinned for this server before; what answered now was pinned",
    )  # fmt: skip
    left = "that this is the server you want: what answered now was pinned (trust on first use)"
    return replace(
        result,
        findings=(*result.findings, note),
        not_proven=(left, *result.not_proven),
        policy=f"{result.policy} + pinned now",
    )


def same(result: AttestationResult, pin: Pin, findings: tuple[Finding, ...]) -> AttestationResult:
    """The result of a server that is the pinned one. Its code was compared, though with nobody's review."""
    since = day(pin.accepted)
    left = f"that anybody reviewed this code: it is the same as the one pinned {since} (trust on first use)"
    settled = (CODE_NOT_COMPARED, NO_OWNER) if pin.owner else (CODE_NOT_COMPARED,)
    kept = tuple(words for words in result.not_proven if words not in settled)
    compared = tuple(f for f in result.findings if not (f.check == "policy.code" and f.outcome is Outcome.SKIP))
    return replace(
        result,
        verdict=Verdict.VERIFIED,
        findings=(*compared, *findings),
        not_proven=(left, *kept) if CODE_NOT_COMPARED in result.not_proven else kept,
        policy=f"{result.policy} + pin of {since}",
    )
