"""What a person accepts: the rules that verified claims are judged by.

A policy says `[trust]` (whose word counts, how fresh, is simulated evidence accepted) and `[policy]` (which code, which
platform states). It cannot be built without saying which code it accepts; the one exception wears its name,
`Policy.genuine_only`, and its verdict is never better than PARTIAL. All validation lives in these types, so that a
policy made in Python obeys the same rules as one read from a file. What differs from one kind of TEE to another stands
in `kinds`, one file a family; vendor field names are spelled as in the vendor's documents.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, TypeVar

from attestable_mcp.appraise.fault import PolicyFault
from attestable_mcp.appraise.kinds.base import Release, State
from attestable_mcp.appraise.kinds.boot import BootRules
from attestable_mcp.appraise.kinds.intel import (
    ACCEPTABLE_STATUSES,
    DEFAULT_STATUSES,
    Grace,
    SgxRelease,
    SgxRules,
    TdxRelease,
    TdxRules,
)
from attestable_mcp.appraise.kinds.nitro import NitroRelease
from attestable_mcp.appraise.kinds.snp import SnpRelease, SnpRules
from attestable_mcp.appraise.kinds.table import KINDS, STATES, tees_of
from attestable_mcp.appraise.kinds.tpm import TpmRelease
from attestable_mcp.appraise.lines import KeyPath
from attestable_mcp.appraise.offer import ManifestPolicy, ReceiptPolicy
from attestable_mcp.appraise.platforms import PlatformRule
from attestable_mcp.appraise.tokens import TokenPolicy
from attestable_mcp.appraise.values import MaskedValue, masked, one_of, whole, words
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Tee

if TYPE_CHECKING:
    from attestable_mcp.appraise.deployment import DeploymentPolicy
    from attestable_mcp.appraise.reattest import ReattestPolicy

JUDGED = tuple(KINDS)
"""The kinds of TEE that the rules know. Others are refused by name, whatever their proof: silence is refusal."""
VENDORS = ("intel", "amd", "aws", "tpm")
"""Whose roots a policy can name: each word is a field of `verify.anchors.TrustAnchors`."""
SERVICES = ("pcs", "kds")
"""The vendors' own services that endorsements may come from: Intel's and AMD's."""
_S = TypeVar("_S")

_LONGEST = 36500 * 86400
"""Seconds: no moment of ours lies so far from the end of the calendar's years."""
SimulatedRule = Literal["refuse", "accept"]

__all__ = [
    "ACCEPTABLE_STATUSES",
    "DEFAULT_STATUSES",
    "JUDGED",
    "SERVICES",
    "VENDORS",
    "BootRules",
    "Grace",
    "MaskedValue",
    "NitroRelease",
    "Places",
    "PlatformRule",
    "Policy",
    "PolicyFault",
    "Release",
    "Rules",
    "SgxRelease",
    "SgxRules",
    "SimulatedRule",
    "SnpRelease",
    "SnpRules",
    "TdxRelease",
    "TdxRules",
    "TokenPolicy",
    "TpmRelease",
    "TrustPolicy",
    "masked",
    "split_anchor",
]  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustPolicy:
    """Whose word counts and how fresh it must be.

    `anchors`: the vendors' words, paths of PEM files, or `vendor=path`; resolved by `verifier`. `endorsements`:
    "stapled", "pcs" (Intel), "kds" (AMD), URLs or paths, tried in this order; each is asked only what it can answer.
    Ages are in seconds; `max_certificate_age` None means no limit under `freshness = "connection"` and the default of
    `LIMITS` under "certificate". `tokens` are the issuers of tokens that are believed: none by default.

    Raises:
        ConfigurationError: a value is empty, unknown or of the wrong type.
    """

    anchors: tuple[str, ...] = VENDORS
    endorsements: tuple[str, ...] = ("stapled", *SERVICES)
    freshness: Literal["connection", "certificate"] = "connection"
    max_certificate_age: float | None = None
    binding: Literal["key", "quote"] = "key"
    max_age: float = LIMITS.binding_max_age
    simulated: SimulatedRule = "refuse"
    tokens: tuple[TokenPolicy, ...] = ()

    def __post_init__(self) -> None:
        words(self.anchors, "anchors")
        if not all(isinstance(token, TokenPolicy) for token in self.tokens):
            raise PolicyFault("wanted TokenPolicy objects", "tokens")
        if len({token.issuer for token in self.tokens}) != len(self.tokens):
            raise PolicyFault("an issuer is named twice", "tokens")
        words(self.endorsements, "endorsements")
        one_of(self.freshness, ("connection", "certificate"), "freshness")
        one_of(self.binding, ("key", "quote"), "binding")
        one_of(self.simulated, ("refuse", "accept"), "simulated")
        _age(self.max_age, "max_age")
        if self.max_certificate_age is not None:
            _age(self.max_certificate_age, "max_certificate_age")
        for index, name in enumerate(self.anchors):
            _anchor(name, index)
        _locations(self.endorsements, ("stapled", *SERVICES), ("https://", "http://"), "endorsements")

    @property
    def certificate_age_limit(self) -> float | None:
        """Seconds since a certificate's notBefore that are still accepted; None: no limit but its own notAfter."""
        if self.max_certificate_age is None and self.freshness == "certificate":
            return LIMITS.certificate_max_age
        return self.max_certificate_age


def _age(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LONGEST:
        raise PolicyFault(f"wanted a time above zero, at most 36500 days, seen {value!r}", name)


def split_anchor(name: str) -> tuple[str, str]:
    """Vendor and path of an anchor: `amd` has no path, `./root.pem` no vendor, `tpm=./root.pem` both."""
    if name in VENDORS:
        return name, ""
    vendor, equals, path = name.partition("=")
    return (vendor, path) if equals and vendor in VENDORS else ("", name)


def _anchor(name: str, index: int) -> None:
    if name in VENDORS:
        return
    vendor, path = split_anchor(name)
    if not vendor and re.match(r"\w*=", name):
        raise PolicyFault(f"wanted {', '.join(VENDORS)} before the =, seen {name!r}", "anchors", index)
    _locations((path,), () if vendor else VENDORS, (), "anchors", index)


def _locations(
    values: tuple[str, ...], words: tuple[str, ...], schemes: tuple[str, ...], name: str, first: int = 0
) -> None:
    """A known word, a URL or something that looks like a path: a misspelt word must not become a file name."""
    for index, value in enumerate(values, first):
        if value in words or (schemes and value.startswith(schemes)):
            continue
        if "://" in value or not set(value) & set("/\\."):
            wanted = [*(f'"{word}"' for word in words), *(f"{scheme}…" for scheme in schemes), "a path such as ./name"]
            raise PolicyFault(f"wanted {' or '.join(wanted)}, seen {value!r}", name, index)


_IDENTITY_HINT = (
    "Say which code is accepted: mrenclave, or mr_td with rtmr0 to rtmr3, or measurement, or PCRs with tee: "
    "docs/policy.md has them all. `attestable-mcp pin URL` writes such a policy from a running server."
)
INTEL_TEES = (Tee.SGX, Tee.TDX, Tee.AZURE_TDX)
_INTEL_RULES = ("tcb_statuses", "grace", "advisories", "refused_advisories", "min_tcb_evaluation_data_number")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is accepted: `releases` (one of them must hold whole) and the state of the platform (every rule must hold).

    `states` are rules that only some kinds of TEE have, one object a family (`TdxRules`, `SnpRules` …); where none is
    given, its strict defaults hold: `state` gives the one that counts. `grace`: statuses that are accepted for a while.
    `advisories` None: not looked at; an empty tuple: none is accepted. `code_not_compared` is for
    `Policy.genuine_only`.

    Raises:
        ConfigurationError: no identity rule, or a value that cannot be.
    """

    releases: tuple[Release, ...] = ()
    code_not_compared: bool = False
    tee: Tee | None = None
    debug: Literal["refuse", "danger-accept"] = "refuse"
    tcb_statuses: tuple[str, ...] = DEFAULT_STATUSES
    grace: tuple[Grace, ...] = ()
    advisories: tuple[str, ...] | None = None
    refused_advisories: tuple[str, ...] = ()
    min_tcb_evaluation_data_number: int | None = None
    states: tuple[State, ...] = ()
    platforms: PlatformRule | None = None

    def __post_init__(self) -> None:
        self._identity()
        check_statuses(self.tcb_statuses)
        self._grace()
        self._advisories()
        one_of(self.debug, ("refuse", "danger-accept"), "debug")
        if self.min_tcb_evaluation_data_number is not None:
            whole(self.min_tcb_evaluation_data_number, 1, 0xFFFFFFFF, "min_tcb_evaluation_data_number")
        self._one_tee()

    def state(self, kind: type[_S]) -> _S:
        """The rules of this family: those given, or the strict defaults."""
        return next((state for state in self.states if isinstance(state, kind)), None) or kind()

    @property
    def tees(self) -> frozenset[Tee]:
        """The kinds of TEE of which this policy accepts some code; all that are known where it compares none."""
        if self.tee is not None:
            return frozenset((self.tee,))
        return frozenset(release.tee for release in self.releases) or frozenset(KINDS)

    def _identity(self) -> None:
        if self.code_not_compared and self.releases:
            raise PolicyFault("a policy that names code cannot leave it uncompared")
        if not self.code_not_compared and not self.releases:
            raise PolicyFault("no identity rule: nothing says which code is accepted", hint=_IDENTITY_HINT)
        if not all(type(release) is _release_of(release) for release in self.releases):
            raise PolicyFault(f"releases are {', '.join(row.release.__name__ for row in KINDS.values())} objects")
        if self.code_not_compared and self.debug != "refuse":
            raise PolicyFault("code that is not compared cannot be debuggable as well", "debug")

    def _grace(self) -> None:
        for index, item in enumerate(self.grace):
            if not isinstance(item, Grace):
                raise PolicyFault("wanted Grace objects", "grace", index)
            if item.status in self.tcb_statuses:
                raise PolicyFault(f"{item.status} is accepted by tcb_statuses already", "grace", index, "status")
            if item.status in [other.status for other in self.grace[:index]]:
                raise PolicyFault(f"{item.status} has a grace already", "grace", index, "status")

    def _advisories(self) -> None:
        if self.advisories:
            words(self.advisories, "advisories")
        if self.refused_advisories != ():
            words(self.refused_advisories, "refused_advisories")
        for index, name in enumerate(self.refused_advisories):
            if self.advisories is not None and name in self.advisories:
                raise PolicyFault(f"{name} is both accepted and refused", "refused_advisories", index)

    def _one_tee(self) -> None:
        """A rule about TDX in a policy for SGX would silently hold for nothing."""
        tees = frozenset(release.tee for release in self.releases)
        if self.tee is not None and self.releases and tees != {self.tee}:
            raise PolicyFault(f"tee is {self.tee}, but code of {', '.join(sorted(tees))} is named", "tee")
        if len({type(state) for state in self.states}) != len(self.states):
            raise PolicyFault("states: one object of a family")
        for state in self.states:
            if not isinstance(state, STATES):
                raise PolicyFault(f"states: wanted {', '.join(known.__name__ for known in STATES)}")
            if not self.tees & tees_of(type(state)):
                self._fault(state, state.READ, f"this rule is about {state.ABOUT}, but no {state.ABOUT} code is named")
        if not self.tees & frozenset(INTEL_TEES):
            self._fault(self, _INTEL_RULES, "this rule is about Intel's TEEs, but no code of theirs is named")

    @staticmethod
    def _fault(rules: object, names: Iterable[str], problem: str) -> None:
        defaults = {item.name: item.default for item in fields(rules)}  # type: ignore[arg-type]
        for name in names:
            if getattr(rules, name) != defaults[name]:
                raise PolicyFault(problem, name)


def _release_of(release: object) -> type | None:
    """The class that a release of its kind has; None for what is no release."""
    kind = getattr(release, "tee", None)
    return KINDS[kind].release if isinstance(kind, Tee) and kind in KINDS else None


def check_statuses(statuses: tuple[str, ...]) -> None:
    """Refuse words that are no TCB status, and `Revoked`. Raises: ConfigurationError."""
    words(statuses, "tcb_statuses")
    for index, status in enumerate(statuses):
        if status == "Revoked":
            raise PolicyFault("Revoked can never be accepted", "tcb_statuses", index)
        if status not in ACCEPTABLE_STATUSES:
            raise PolicyFault(
                f"{status!r} is no TCB status; known: {', '.join(ACCEPTABLE_STATUSES)}", "tcb_statuses", index
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where the rules were written: the file's name and the line of each key. Without a file, both are empty."""

    file: str = ""
    lines: Mapping[KeyPath, int] = field(default_factory=lambda: MappingProxyType({}))

    def where(self, *path: str | int) -> str:
        """Words such as `prod.toml, line 7`, or `prod.toml, default` for a rule that nobody wrote."""
        line = self.lines.get(path)
        if not self.file:
            return ""
        return f"{self.file}, line {line}" if line else f"{self.file}, default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """Everything that a verifier needs to say yes or no. `name` is shown in results.

    Raises:
        ConfigurationError: on construction, where no rule says which code is accepted (attack P2).
    """

    name: str = "policy"
    trust: TrustPolicy = TrustPolicy()
    rules: Rules
    manifest: ManifestPolicy = field(default_factory=ManifestPolicy)
    receipts: ReceiptPolicy = field(default_factory=ReceiptPolicy)
    places: Places = Places()
    deployment: DeploymentPolicy | None = None
    reattest: ReattestPolicy | None = None

    @classmethod
    def from_toml(cls, text: str, name: str = "policy", *, base: Path | None = None) -> Policy:
        """Read a policy from TOML. `name` is shown in messages; relative paths in it start at `base`.

        Raises:
            ConfigurationError: not TOML, unknown keys, empty or wrong values; the message names file and line.
        """
        from attestable_mcp.appraise.reading import read_policy  # reading builds these very types

        return read_policy(text, name, base)

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """Read a policy file (UTF-8 TOML).

        Raises:
            ConfigurationError: unreadable, too large, or as in `from_toml`.
        """
        from attestable_mcp.appraise.reading import load_policy

        return load_policy(Path(path))

    @classmethod
    def genuine_only(
        cls, *, accept_statuses: Iterable[str] = (), simulated: SimulatedRule | bool = "refuse",
        accept_products: Iterable[str] = (), trust: TrustPolicy | None = None,
    ) -> Policy:  # fmt: skip
        """Prove the hardware and leave open which code it runs: the verdict is PARTIAL at best, and says so.

        `accept_statuses` are accepted beside the default ones, `accept_products` beside AMD's default products.
        """
        plain = cls(name="genuine-only", trust=trust or TrustPolicy(), rules=Rules(code_not_compared=True))
        return plain.with_overrides(
            accept_statuses=accept_statuses, simulated=simulated, accept_products=accept_products
        )

    def with_overrides(
        self, *, accept_statuses: Iterable[str] = (), simulated: SimulatedRule | bool = False,
        accept_products: Iterable[str] = (),
    ) -> Policy:  # fmt: skip
        """Add what `--accept-status`, `--accept-product` and `--danger-accept-simulated` allow, and nothing else.

        `simulated` False or "refuse" leaves what the policy says. The name tells what was added.

        Raises:
            ConfigurationError: a status or product that cannot be accepted, or that the policy's code has none of.
        """
        policy = self
        if more := _beside(accept_statuses, self.rules.tcb_statuses):
            grace = tuple(item for item in self.rules.grace if item.status not in more)
            rules = replace(self.rules, tcb_statuses=self.rules.tcb_statuses + more, grace=grace)
            policy = replace(policy, name=f"{policy.name} + accepted status {', '.join(more)}", rules=rules)
        snp = policy.rules.state(SnpRules)
        if more := _beside(accept_products, snp.products):
            others = tuple(state for state in policy.rules.states if not isinstance(state, SnpRules))
            rules = replace(policy.rules, states=(*others, replace(snp, products=snp.products + more)))
            policy = replace(policy, name=f"{policy.name} + accepted product {', '.join(more)}", rules=rules)
        if _accepts(simulated) and policy.trust.simulated != "accept":
            trust = replace(policy.trust, simulated="accept")
            policy = replace(policy, name=f"{policy.name} + simulated evidence accepted", trust=trust)
        return policy

    def with_nonce(self, nonce: str) -> Policy:
        """Demand this nonce of every token, whatever the file says: it is made for one question.

        Raises:
            ConfigurationError: the policy believes no issuer of tokens.
        """
        if not self.trust.tokens:
            raise PolicyFault("a nonce is for tokens, and this policy believes no issuer of any", "nonce")
        tokens = tuple(replace(token, nonce=nonce) for token in self.trust.tokens)
        return replace(self, trust=replace(self.trust, tokens=tokens))


def _beside(wanted: Iterable[str], known: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for word in wanted if word not in known))


def _accepts(simulated: SimulatedRule | bool) -> bool:
    if simulated not in (True, False, "accept", "refuse"):
        raise PolicyFault(f"wanted accept or refuse, seen {simulated!r}", "simulated")
    return simulated in (True, "accept")
