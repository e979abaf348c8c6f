"""What a person accepts: the rules that verified claims are judged by.

A policy says `[trust]` (whose word counts, how fresh, is simulated evidence accepted) and `[policy]` (which code, which
platform states). It cannot be built without saying which code it accepts; the one exception wears its name,
`Policy.genuine_only`, and its verdict is never better than PARTIAL. All validation lives in these types, so that a
policy made in Python obeys the same rules as one read from a file. Vendor field names are spelled as in the vendor's
documents (Intel SDM, TDX module ABI, DCAP quoting library API).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from attestable_mcp.appraise.fault import PolicyFault
from attestable_mcp.appraise.lines import KeyPath
from attestable_mcp.appraise.offer import ManifestPolicy, ReceiptPolicy
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Tee

ACCEPTABLE_STATUSES = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
)
"""Every TCB status of Intel's that a policy may name. `Revoked` is not among them and never can be."""

DEFAULT_STATUSES = ("UpToDate", "SWHardeningNeeded")
JUDGED = (Tee.SGX, Tee.TDX)
"""The kinds of TEE that the rules know. Others are refused by name, whatever their proof: silence is refusal."""
VENDORS = ("intel", "amd", "aws", "tpm")
"""Whose roots a policy can name: each word is a field of `verify.anchors.TrustAnchors`."""
RTMRS = ("rtmr0", "rtmr1", "rtmr2", "rtmr3")

SimulatedRule = Literal["refuse", "accept"]


def _one_of(value: object, allowed: tuple[str, ...], name: str) -> None:
    if value not in allowed:
        raise PolicyFault(f"wanted one of {', '.join(allowed)}, seen {value!r}", name)


def _hex(value: object, size: int, *path: str | int) -> str:
    """Check `size` bytes as hexadecimal text and give them in lower case. Nothing is padded, trimmed or guessed."""
    if not isinstance(value, str):
        raise PolicyFault(f"wanted {size * 2} hex digits as a string, seen {type(value).__name__}", *path)
    if len(value) != size * 2:
        raise PolicyFault(f"wanted {size * 2} hex digits ({size} bytes), seen {len(value)}", *path)
    if not set(value) <= set("0123456789abcdefABCDEF"):
        raise PolicyFault(f"wanted hex digits, seen {value!r}", *path)
    return value.lower()


def _whole(value: object, low: int, high: int, *path: str | int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise PolicyFault(f"wanted a whole number, seen {value!r}", *path)
    if not low <= value <= high:
        raise PolicyFault(f"wanted a number from {low} to {high}, seen {value}", *path)


def _words(value: object, *path: str | int) -> None:
    """A tuple of distinct, non-empty strings, at least one."""
    if not isinstance(value, tuple) or not value:
        raise PolicyFault("wanted at least one value, seen none", *path, hint="Leave the key out to get its default.")
    for index, word in enumerate(value):
        if not isinstance(word, str) or not word.strip():
            raise PolicyFault(f"wanted a word, seen {word!r}", *path, index)
        if word in value[:index]:
            raise PolicyFault(f"{word!r} stands here twice", *path, index)


def _set(target: object, name: str, value: object) -> None:
    object.__setattr__(target, name, value)  # normalising a frozen dataclass in its own __post_init__


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustPolicy:
    """Whose word counts and how fresh it must be.

    `anchors`: the vendors' words, paths of PEM files, or `vendor=path`; resolved by `verifier`. `endorsements`:
    "stapled", "pcs", URLs or paths, tried in this order. Ages are in seconds; `max_certificate_age` None means no limit
    under `freshness = "connection"` and the default of `LIMITS` under "certificate".

    Raises:
        ConfigurationError: a value is empty, unknown or of the wrong type.
    """

    anchors: tuple[str, ...] = VENDORS
    endorsements: tuple[str, ...] = ("stapled", "pcs")
    freshness: Literal["connection", "certificate"] = "connection"
    max_certificate_age: float | None = None
    binding: Literal["key", "quote"] = "key"
    max_age: float = LIMITS.binding_max_age
    simulated: SimulatedRule = "refuse"

    def __post_init__(self) -> None:
        _words(self.anchors, "anchors")
        _words(self.endorsements, "endorsements")
        _one_of(self.freshness, ("connection", "certificate"), "freshness")
        _one_of(self.binding, ("key", "quote"), "binding")
        _one_of(self.simulated, ("refuse", "accept"), "simulated")
        _age(self.max_age, "max_age")
        if self.max_certificate_age is not None:
            _age(self.max_certificate_age, "max_certificate_age")
        for index, name in enumerate(self.anchors):
            _anchor(name, index)
        _locations(self.endorsements, ("stapled", "pcs"), ("https://", "http://"), "endorsements")

    @property
    def certificate_age_limit(self) -> float | None:
        """Seconds since a certificate's notBefore that are still accepted; None: no limit but its own notAfter."""
        if self.max_certificate_age is None and self.freshness == "certificate":
            return LIMITS.certificate_max_age
        return self.max_certificate_age


def _age(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise PolicyFault(f"wanted a time above zero, seen {value!r}", name)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxRelease:
    """One accepted SGX enclave: by `mrenclave` (32 bytes hex), or by signer, product and lowest security version.

    A signer alone would accept any enclave the signer ever made, old faulty ones included: `mrsigner` needs `isvprodid`
    and `min_isvsvn` beside it (attack P3).

    Raises:
        ConfigurationError: no identity, or half of one.
    """

    label: str = ""
    mrenclave: str | None = None
    mrsigner: str | None = None
    isvprodid: int | None = None
    min_isvsvn: int | None = None

    tee = Tee.SGX

    def __post_init__(self) -> None:
        for name in ("mrenclave", "mrsigner"):
            if (value := getattr(self, name)) is not None:
                _set(self, name, _hex(value, 32, name))
        for name in ("isvprodid", "min_isvsvn"):
            if (number := getattr(self, name)) is not None:
                _whole(number, 0, 0xFFFF, name)
        signer = ("mrsigner", "isvprodid", "min_isvsvn")
        missing = [name for name in signer if getattr(self, name) is None]
        if len(missing) == len(signer) and self.mrenclave is None:
            raise PolicyFault("no identity rule: nothing says which code is accepted", hint=_IDENTITY_HINT)
        if 0 < len(missing) < len(signer):
            given = next(name for name in signer if name not in missing)
            raise PolicyFault(
                f"a signer is named by mrsigner, isvprodid and min_isvsvn together; missing: {', '.join(missing)}",
                given,
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxRelease:
    """One accepted trust domain: `mr_td` and the four run-time registers, each 48 bytes hex.

    `mr_td` covers the firmware only; kernel, command line and initrd are measured into the registers. A register that
    shall not be compared is named in `not_compared`, and every result then says so.

    Raises:
        ConfigurationError: a register is neither given nor named in `not_compared`.
    """

    label: str = ""
    mr_td: str
    rtmr0: str | None = None
    rtmr1: str | None = None
    rtmr2: str | None = None
    rtmr3: str | None = None
    not_compared: tuple[str, ...] = ()

    tee = Tee.TDX

    def __post_init__(self) -> None:
        _set(self, "mr_td", _hex(self.mr_td, 48, "mr_td"))
        if self.not_compared != ():
            _words(self.not_compared, "not_compared")
        for index, name in enumerate(self.not_compared):
            if name not in RTMRS:
                raise PolicyFault(f"wanted names out of {', '.join(RTMRS)}, seen {name!r}", "not_compared", index)
        for name in RTMRS:
            self._register(name)

    def _register(self, name: str) -> None:
        value = getattr(self, name)
        if value is None and name not in self.not_compared:
            raise PolicyFault(
                f"{name} is missing: mr_td alone proves the firmware, not what it booted",
                "mr_td",
                hint=f'Give {name}, or name it in not_compared = ["{name}"] and read what the result then leaves open.',
            )
        if value is not None and name in self.not_compared:
            raise PolicyFault(f"{name} is given, and named in not_compared as well", name)
        if value is not None:
            _set(self, name, _hex(value, 48, name))


Release = SgxRelease | TdxRelease

_IDENTITY_HINT = (
    "Say which code is accepted: mrenclave, or mr_td with rtmr0 to rtmr3, or mrsigner with isvprodid and min_isvsvn. "
    "`attestable-mcp pin URL` writes such a policy from a running server."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskedValue:
    """Exact bits: `value` where `mask` is set, both hex of the same length with the bytes in the order of the quote."""

    value: str
    mask: str

    def holds(self, seen: str) -> bool:
        """Does `seen` (hex of the same length) carry these bits?"""
        if len(seen) != len(self.value):
            return False
        return int(seen, 16) & int(self.mask, 16) == int(self.value, 16)

    @property
    def words(self) -> str:
        """The rule as a report shows it."""
        return self.value if set(self.mask) == {"f"} else f"{self.value} under mask {self.mask}"


def masked(value: str, mask: str | None, size: int, name: str) -> MaskedValue:
    """Build exact bits of `size` bytes. Raises: ConfigurationError where the value asks for bits outside its mask."""
    value = _hex(value, size, name)
    mask = "f" * (size * 2) if mask is None else _hex(mask, size, f"{name}_mask")
    if int(value, 16) & ~int(mask, 16):
        raise PolicyFault("the value sets bits that the mask leaves out", name)
    if not int(mask, 16):
        raise PolicyFault("an all-zero mask compares nothing", f"{name}_mask")
    return MaskedValue(value=value, mask=mask)


TDX_LISTS = {"mr_seam": 48, "mr_config_id": 48, "mr_owner": 48, "mr_owner_config": 48, "mr_service_td": 48}
"""TDX fields that a policy may hold to a list of values, with their size in bytes."""
MASKS = {"attributes": 16, "td_attributes": 8, "xfam": 8}
TDX_ONLY = (*TDX_LISTS, "td_attributes", "xfam", "sept_ve_disable", "service_td", "migratable")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What is accepted: `releases` (one of them must hold whole) and the state of the platform (every rule must hold).

    `advisories` None: not looked at; an empty tuple: none is accepted. The lists of TDX fields are empty where the
    field is not compared. `code_not_compared` is for `Policy.genuine_only`.

    Raises:
        ConfigurationError: no identity rule, or a value that cannot be.
    """

    releases: tuple[Release, ...] = ()
    code_not_compared: bool = False
    tee: Tee | None = None
    tcb_statuses: tuple[str, ...] = DEFAULT_STATUSES
    advisories: tuple[str, ...] | None = None
    refused_advisories: tuple[str, ...] = ()
    min_tcb_evaluation_data_number: int | None = None
    debug: Literal["refuse", "danger-accept"] = "refuse"
    attributes: MaskedValue | None = None
    td_attributes: MaskedValue | None = None
    xfam: MaskedValue | None = None
    sept_ve_disable: Literal["require", "accept-clear"] = "require"
    service_td: Literal["refuse", "accept"] = "refuse"
    migratable: Literal["refuse", "accept"] = "refuse"
    mr_seam: tuple[str, ...] = ()
    mr_config_id: tuple[str, ...] = ()
    mr_owner: tuple[str, ...] = ()
    mr_owner_config: tuple[str, ...] = ()
    mr_service_td: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._identity()
        check_statuses(self.tcb_statuses)
        self._advisories()
        _one_of(self.debug, ("refuse", "danger-accept"), "debug")
        _one_of(self.sept_ve_disable, ("require", "accept-clear"), "sept_ve_disable")
        _one_of(self.service_td, ("refuse", "accept"), "service_td")
        _one_of(self.migratable, ("refuse", "accept"), "migratable")
        if self.min_tcb_evaluation_data_number is not None:
            _whole(self.min_tcb_evaluation_data_number, 1, 0xFFFFFFFF, "min_tcb_evaluation_data_number")
        for name, size in TDX_LISTS.items():
            self._list(name, size)
        self._masks()
        self._one_tee()

    def _identity(self) -> None:
        if self.code_not_compared and self.releases:
            raise PolicyFault("a policy that names code cannot leave it uncompared")
        if not self.code_not_compared and not self.releases:
            raise PolicyFault("no identity rule: nothing says which code is accepted", hint=_IDENTITY_HINT)
        if not all(isinstance(release, SgxRelease | TdxRelease) for release in self.releases):
            raise PolicyFault("releases are SgxRelease or TdxRelease objects")
        if self.code_not_compared and self.debug != "refuse":
            raise PolicyFault("code that is not compared cannot be debuggable as well", "debug")

    def _advisories(self) -> None:
        if self.advisories:
            _words(self.advisories, "advisories")
        if self.refused_advisories != ():
            _words(self.refused_advisories, "refused_advisories")
        for index, name in enumerate(self.refused_advisories):
            if self.advisories is not None and name in self.advisories:
                raise PolicyFault(f"{name} is both accepted and refused", "refused_advisories", index)

    def _list(self, name: str, size: int) -> None:
        values = getattr(self, name)
        if values == ():
            return
        _words(values, name)
        _set(self, name, tuple(_hex(value, size, name, index) for index, value in enumerate(values)))

    def _masks(self) -> None:
        for name, size in MASKS.items():
            rule = getattr(self, name)
            if isinstance(rule, MaskedValue):
                masked(rule.value, rule.mask, size, name)
            elif rule is not None:
                raise PolicyFault(f"wanted a MaskedValue, seen {type(rule).__name__}", name)

    def _one_tee(self) -> None:
        """A rule about TDX in a policy for SGX would silently hold for nothing."""
        tees = {release.tee for release in self.releases} or set(JUDGED)
        if self.tee is not None and self.releases and tees != {self.tee}:
            raise PolicyFault(f"tee is {self.tee}, but code of {', '.join(sorted(tees))} is named", "tee")
        for rule in fields(self):
            if getattr(self, rule.name) == rule.default:
                continue
            if rule.name in TDX_ONLY and Tee.TDX not in tees:
                raise PolicyFault("this rule is about TDX, but no TDX code is named", rule.name)
            if rule.name == "attributes" and Tee.SGX not in tees:
                raise PolicyFault("this rule is about SGX, but no SGX code is named", rule.name)


def check_statuses(statuses: tuple[str, ...]) -> None:
    """Refuse words that are no TCB status, and `Revoked`. Raises: ConfigurationError."""
    _words(statuses, "tcb_statuses")
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
        trust: TrustPolicy | None = None,
    ) -> Policy:  # fmt: skip
        """Prove the hardware and leave open which code it runs: the verdict is PARTIAL at best, and says so.

        `accept_statuses` are accepted beside the default ones.
        """
        plain = cls(name="genuine-only", trust=trust or TrustPolicy(), rules=Rules(code_not_compared=True))
        return plain.with_overrides(accept_statuses=accept_statuses, simulated=simulated)

    def with_overrides(self, *, accept_statuses: Iterable[str] = (), simulated: SimulatedRule | bool = False) -> Policy:
        """Add what the flags `--accept-status` and `--danger-accept-simulated` allow, and nothing else.

        `simulated` False or "refuse" leaves what the policy says. The name tells what was added.

        Raises:
            ConfigurationError: a status that cannot be accepted.
        """
        more = tuple(dict.fromkeys(status for status in accept_statuses if status not in self.rules.tcb_statuses))
        policy = self
        if more:
            statuses = self.rules.tcb_statuses + more
            policy = replace(
                policy,
                name=f"{policy.name} + accepted status {', '.join(more)}",
                rules=replace(policy.rules, tcb_statuses=statuses),
            )
        if _accepts(simulated) and policy.trust.simulated != "accept":
            trust = replace(policy.trust, simulated="accept")
            policy = replace(policy, name=f"{policy.name} + simulated evidence accepted", trust=trust)
        return policy


def _accepts(simulated: SimulatedRule | bool) -> bool:
    if simulated not in (True, False, "accept", "refuse"):
        raise PolicyFault(f"wanted accept or refuse, seen {simulated!r}", "simulated")
    return simulated in (True, "accept")
