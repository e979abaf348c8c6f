"""SGX and TDX: enclaves by measurement or signer, trust domains by their registers, and Intel's word on the platform.

Field names are those of the Intel SDM, the TDX module ABI and the DCAP quoting library API.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal

from attestable_mcp.appraise.fault import PolicyFault
from attestable_mcp.appraise.findings import Comparison, among, bits, finding, seen, source
from attestable_mcp.appraise.kinds.base import Kind, Read, claim, quoted, quoted_list
from attestable_mcp.appraise.kinds.boot import BOOT_RULES, BootRules
from attestable_mcp.appraise.values import (
    MaskedValue,
    check_list,
    check_mask,
    hex_text,
    one_of,
    put,
    whole,
    words,
)
from attestable_mcp.rats import AttestationResult, Claims, Finding, Tee, Verified

if TYPE_CHECKING:
    from attestable_mcp.appraise.policy import Policy

RTMRS = ("rtmr0", "rtmr1", "rtmr2", "rtmr3")
TDX_LISTS = {"mr_seam": 48, "mr_config_id": 48, "mr_owner": 48, "mr_owner_config": 48, "mr_service_td": 48}
"""TDX fields that a policy may hold to a list of values, with their size in bytes."""
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
SGX_INIT = 1
"""SGX ATTRIBUTES.FLAGS bit 0 (Intel SDM vol. 3D, 34.7.1)."""
TDX_UNTRUSTED = 0xFF
"""TD_ATTRIBUTES bits 7..0, the TUD group: any of them makes the TD untrusted, DEBUG being bit 0 (TDX module ABI)."""
TDX_SEPT_VE_DISABLE = 1 << 28
TDX_MIGRATABLE = 1 << 29


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

    tee: ClassVar[Tee] = Tee.SGX

    def __post_init__(self) -> None:
        for name in ("mrenclave", "mrsigner"):
            if (value := getattr(self, name)) is not None:
                put(self, name, hex_text(value, 32, name))
        for name in ("isvprodid", "min_isvsvn"):
            if (number := getattr(self, name)) is not None:
                whole(number, 0, 0xFFFF, name)
        signer = ("mrsigner", "isvprodid", "min_isvsvn")
        missing = [name for name in signer if getattr(self, name) is None]
        if len(missing) == len(signer) and self.mrenclave is None:
            raise PolicyFault("no identity rule: nothing says which code is accepted")
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
    shall not be compared is named in `not_compared`, and every result then says so. In place of `rtmr3`, `compose_hash`
    (32 bytes) names the application of a dstack guest; it holds only where dstack's event log explains RTMR3.

    Raises:
        ConfigurationError: a register is neither given nor named in `not_compared`.
    """

    label: str = ""
    mr_td: str
    rtmr0: str | None = None
    rtmr1: str | None = None
    rtmr2: str | None = None
    rtmr3: str | None = None
    compose_hash: str | None = None
    not_compared: tuple[str, ...] = ()

    tee: ClassVar[Tee] = Tee.TDX

    def __post_init__(self) -> None:
        check_registers(self)


def check_registers(release: TdxRelease) -> None:
    """The rules that `TdxRelease` states. Raises: PolicyFault."""
    put(release, "mr_td", hex_text(release.mr_td, 48, "mr_td"))
    if release.not_compared != ():
        words(release.not_compared, "not_compared")
    for index, name in enumerate(release.not_compared):
        if name not in RTMRS:
            raise PolicyFault(f"wanted names out of {', '.join(RTMRS)}, seen {name!r}", "not_compared", index)
    if release.compose_hash is not None:
        put(release, "compose_hash", hex_text(release.compose_hash, 32, "compose_hash"))
    for name in RTMRS:
        _register(release, name)


def _register(release: TdxRelease, name: str) -> None:
    value = getattr(release, name)
    by_log = name == "rtmr3" and release.compose_hash is not None
    if value is None and name not in release.not_compared and not by_log:
        raise PolicyFault(
            f"{name} is missing: mr_td alone proves the firmware, not what it booted",
            "mr_td",
            hint=f'Give {name}, or name it in not_compared = ["{name}"] and read what the result then leaves open.',
        )
    if value is not None and name in release.not_compared:
        raise PolicyFault(f"{name} is given, and named in not_compared as well", name)
    if value is not None:
        put(release, name, hex_text(value, 48, name))


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxRules:
    """Exact bits of an enclave's ATTRIBUTES (16 bytes); None compares nothing."""

    attributes: MaskedValue | None = None

    READ: ClassVar[Mapping[str, Read]] = {"attributes": 16}
    ABOUT: ClassVar[str] = "SGX"

    def __post_init__(self) -> None:
        check_mask(self, "attributes", 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxRules:
    """The state of a trust domain; the lists are empty where the field is not compared."""

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

    READ: ClassVar[Mapping[str, Read]] = {
        "td_attributes": 8,
        "xfam": 8,
        "sept_ve_disable": "text",
        "service_td": "text",
        "migratable": "text",
        **dict.fromkeys(TDX_LISTS, "one or more"),
    }
    ABOUT: ClassVar[str] = "TDX"

    def __post_init__(self) -> None:
        one_of(self.sept_ve_disable, ("require", "accept-clear"), "sept_ve_disable")
        one_of(self.service_td, ("refuse", "accept"), "service_td")
        one_of(self.migratable, ("refuse", "accept"), "migratable")
        for name in ("td_attributes", "xfam"):
            check_mask(self, name, 8)
        for name, size in TDX_LISTS.items():
            check_list(self, name, size)


def compare_sgx(held: Comparison, release: SgxRelease) -> Iterator[Finding]:
    """Measurement, or signer with product and lowest version, or both."""
    if release.mrenclave is not None:
        yield held.same("mrenclave", release.mrenclave)
    if release.mrsigner is not None and release.min_isvsvn is not None:
        yield held.same("mrsigner", release.mrsigner, "signer_mismatch")
        yield held.same("isvprodid", str(release.isvprodid), "product_mismatch")
        yield held.least("isvsvn", release.min_isvsvn, "min_isvsvn", "isvsvn_too_low")


def compare_tdx(held: Comparison, release: TdxRelease) -> Iterator[Finding]:
    """`mr_td`, the registers that are given, and dstack's application."""
    for name in ("mr_td", *RTMRS, "compose_hash"):
        if (value := getattr(release, name)) is not None:
            yield held.same(name, value)


def initialised(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """A running enclave has INIT set."""
    flags = bits(verified.claims, "attributes", 8)
    ready = flags is not None and bool(flags & SGX_INIT)
    yield finding("init", ready, "INIT set", "INIT set" if ready else "INIT clear", "enclave_not_initialised")


def sgx_bits(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """Exact attribute bits, where the policy names them (attack P9)."""
    yield from _bits(verified, policy, "attributes", policy.rules.state(SgxRules).attributes)


def tdx_bits(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """Exact bits of TD_ATTRIBUTES and XFAM, where the policy names them (attack P9)."""
    rules = policy.rules.state(TdxRules)
    yield from _bits(verified, policy, "td_attributes", rules.td_attributes)
    yield from _bits(verified, policy, "xfam", rules.xfam)


def _bits(verified: Verified, policy: Policy, name: str, rule: MaskedValue | None) -> Iterator[Finding]:
    if rule is not None:
        shown = seen(verified.claims, name)
        held = shown != "absent" and rule.holds(shown)
        yield finding(name, held, rule.words, shown, "attributes_mismatch", source(policy, "policy", name))


def td_state(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """SEPT_VE_DISABLE set, no service TD, not migratable: each until the policy says otherwise."""
    attributes, rules = bits(verified.claims, "td_attributes", 8), policy.rules.state(TdxRules)
    sept = attributes is not None and bool(attributes & TDX_SEPT_VE_DISABLE)
    any_sept = rules.sept_ve_disable == "accept-clear"
    yield finding(
        "sept_ve_disable", sept or any_sept, "set or clear" if any_sept else "set", "set" if sept else "clear",
        "sept_ve_disable_clear", source(policy, "policy", "sept_ve_disable"),
    )  # fmt: skip
    migratable = attributes is None or bool(attributes & TDX_MIGRATABLE)
    yield finding(
        "migratable", not migratable or rules.migratable == "accept",
        "fixed to its platform" if rules.migratable == "refuse" else "fixed or migratable",
        "migratable" if migratable else "fixed to its platform",
        "migratable_td", source(policy, "policy", "migratable"),
    )  # fmt: skip
    yield from _service_td(verified.claims, policy, rules)


def _service_td(claims: Claims, policy: Policy, rules: TdxRules) -> Iterator[Finding]:
    """A bound service TD can act on this one. Quotes before version 5 have no such field."""
    if rules.mr_service_td:
        return  # held to a list by `lists`
    shown = str(claims.values.get("mr_service_td", ""))
    bound = bool(shown.strip("0"))
    accepted = rules.service_td == "accept"
    yield finding(
        "service_td", accepted or not bound, "any service TD or none" if accepted else "no service TD",
        f"service TD {shown}" if bound else "no service TD", "service_td", source(policy, "policy", "service_td"),
    )  # fmt: skip


def lists(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """TDX fields that the policy holds to a list of values: module (SEAM), configuration, owner, service TD."""
    rules = policy.rules.state(TdxRules)
    for name in TDX_LISTS:
        yield from among(verified, policy, name, getattr(rules, name), f"{name}_mismatch")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grace:
    """A TCB status that is accepted for a while: up to `until` (timezone-aware), and not from then on.

    Raises:
        ConfigurationError: no status that can be accepted, or no time with a zone.
    """

    status: str
    until: datetime

    def __post_init__(self) -> None:
        one_of(self.status, ACCEPTABLE_STATUSES, "status")
        if not isinstance(self.until, datetime) or self.until.tzinfo is None:
            raise PolicyFault(f"wanted a day or a time with its zone, seen {self.until!r}", "until")
        put(self, "until", self.until.astimezone(UTC))

    @property
    def words(self) -> str:
        """As a report shows it."""
        return f"{self.status} until {self.until:%Y-%m-%dT%H:%M:%SZ}"


def tcb(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """The platform's TCB status is accepted, or in grace; `Revoked` never is (attacks E3, P6)."""
    status, rules = verified.claims.tcb_status, policy.rules
    grace = grace_of(verified, policy)
    wanted = " or ".join((*rules.tcb_statuses, *(item.words for item in rules.grace)))
    if grace is None or status in rules.tcb_statuses:
        held = status in rules.tcb_statuses and status != "Revoked"
        refusal = "revoked" if status == "Revoked" else "tcb_status_refused"
        where = source(policy, "policy", "tcb_statuses")
        yield finding("tcb_status", held, wanted, status or "absent", refusal, where)
        return
    held = verified.at < grace.until
    where = source(policy, "policy", "grace", rules.grace.index(grace), "until")
    days = abs(grace.until - verified.at) // timedelta(days=1)
    why = f"in grace, {days} whole days left" if held else f"its grace ended {days} whole days ago"
    yield finding("tcb_status", held, wanted, status, "tcb_grace_ended", f"{why} {where}".strip())


def grace_of(verified: Verified, policy: Policy) -> Grace | None:
    """The grace, running or ended, that a policy names for the platform's status; None where it needs none."""
    status, rules = verified.claims.tcb_status, policy.rules
    if status in rules.tcb_statuses:
        return None
    return next((item for item in rules.grace if item.status == status), None)


def advisories(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """No refused advisory; and where accepted ones are listed, no other."""
    rules, known = policy.rules, verified.claims.advisories
    shown = ", ".join(known) or "none"
    if rules.advisories is not None:
        wanted = f"none but {', '.join(rules.advisories)}" if rules.advisories else "none"
        held = set(known) <= set(rules.advisories)
        where = source(policy, "policy", "advisories")
        yield finding("advisories", held, wanted, shown, "advisory_refused", where)
    if rules.refused_advisories:
        held = not set(known) & set(rules.refused_advisories)
        where = source(policy, "policy", "refused_advisories")
        wanted = f"none of {', '.join(rules.refused_advisories)}"
        yield finding("refused_advisories", held, wanted, shown, "advisory_refused", where)


def evaluation(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """Intel's collateral is of an evaluation at least as new as demanded (attack P4)."""
    least = policy.rules.min_tcb_evaluation_data_number
    if least is None:
        return
    number = verified.claims.tcb_evaluation_data_number
    where = source(policy, "policy", "min_tcb_evaluation_data_number")
    shown = "absent" if number is None else str(number)
    held = number is not None and number >= least
    yield finding("tcb_evaluation", held, f"at least {least}", shown, "tcb_evaluation_too_low", where)


def tdx_debug(claims: Claims) -> bool:
    """Any bit of the untrusted group counts as debuggable."""
    attributes = bits(claims, "td_attributes", 8)
    return claims.debug or attributes is None or bool(attributes & TDX_UNTRUSTED)


def _sgx_open(release: SgxRelease, claims: Claims) -> Iterator[str]:
    if release.mrenclave is None:
        yield "which build: any enclave of this signer and product at or above the named security version would pass"


def tdx_open(release: TdxRelease, claims: Claims) -> Iterator[str]:
    """Registers that the policy leaves out."""
    if release.compose_hash is not None and release.rtmr3 is None:
        yield "what else rtmr3 measures: only the application's compose hash in it is compared"
    if release.not_compared:
        yield f"{', '.join(release.not_compared)}: the policy leaves these registers uncompared, and what they measure"


# Pins


def pin_sgx(result: AttestationResult) -> Iterator[str]:
    """Measurement, signer and flags as seen."""
    yield "# The enclave's measurement: every byte of its code and first data. Any other build measures differently."
    yield f"mrenclave = {quoted(claim(result, 'mrenclave'))}"
    signer, product, version = (result.claims.get(name) for name in ("mrsigner", "isvprodid", "isvsvn"))
    if isinstance(signer, str) and isinstance(product, int) and isinstance(version, int):
        yield "# Who signed it, as which product and lowest security version."
        yield f"mrsigner = {quoted(signer)}"
        yield f"isvprodid = {product}"
        yield f"min_isvsvn = {version}"
    yield "# The enclave's flags (first 8 bytes): initialised, 64 bit, no debug. The rest depends on the processor."
    yield f"attributes = {quoted(claim(result, 'attributes')[:16] + '0' * 16)}"
    yield f"attributes_mask = {quoted('f' * 16 + '0' * 16)}"
    yield from pin_platform(result)


_REGISTERS = {
    "mr_td": "the TD as it was built: its firmware",
    "rtmr0": "what the firmware measured of the virtual machine: its tables, memory layout, devices",
    "rtmr1": "what was booted: the kernel",
    "rtmr2": "the kernel's command line and initial file system",
    "rtmr3": "what the system itself measured since: applications, containers",
}
_EXACT = {
    "mr_config_id": "configuration that the host gave the TD at its start",
    "mr_owner": "owner that the host named at the TD's start",
    "mr_owner_config": "owner's configuration that the host named at the TD's start",
    "td_attributes": "the TD's attributes, every bit: debug, SEPT_VE_DISABLE, migration and the rest",
    "xfam": "processor features that the TD may use, every bit",
}


def pin_tdx(result: AttestationResult) -> Iterator[str]:
    """Registers, configuration and attributes as seen."""
    for name in ("mr_td", *RTMRS):
        yield f"# {name}: {_REGISTERS[name]}."
        yield f"{name} = {quoted(claim(result, name))}"
    for name, meaning in _EXACT.items():
        yield f"# {name}: {meaning}."
        yield f"{name} = {quoted(claim(result, name))}"
    yield from _pin_td_state(result)
    if isinstance(module := result.claims.get("mr_seam"), str):
        yield "# mr_seam: Intel's TDX module. Its status counts below already; to hold to this build, uncomment."
        yield f"# mr_seam = [{quoted(module)}]"
    yield from pin_platform(result)


def _pin_td_state(result: AttestationResult) -> Iterator[str]:
    attributes = int.from_bytes(bytes.fromhex(claim(result, "td_attributes")), "little")
    if not attributes & TDX_SEPT_VE_DISABLE:
        yield "# SEPT_VE_DISABLE is clear on this TD: its kernel can be fed pages by the host."
        yield 'sept_ve_disable = "accept-clear"'
    if attributes & TDX_MIGRATABLE:
        yield "# This TD may be moved to another platform."
        yield 'migratable = "accept"'
    service = result.claims.get("mr_service_td")
    if isinstance(service, str) and service.strip("0"):
        yield "# A service TD of this measurement can act on this TD."
        yield f"mr_service_td = [{quoted(service)}]"


def pin_platform(result: AttestationResult) -> Iterator[str]:
    """Intel's word on the platform as seen."""
    statuses = tuple(dict.fromkeys((*DEFAULT_STATUSES, result.tcb_status)))
    yield "# What Intel may say of the platform's patches; anything else refuses."
    yield f"tcb_statuses = {quoted_list(statuses)}"
    yield "# Security advisories that apply to the platform today and are accepted; a further one refuses."
    yield f"advisories = {quoted_list(result.advisories) if result.advisories else quoted('none')}"
    number = result.claims.get("tcb_evaluation_data_number")
    if isinstance(number, int) and number > 0:
        yield "# Collateral of an evaluation older than this refuses: nobody can hide today's status behind old papers."
        yield f"min_tcb_evaluation_data_number = {number}"


PLATFORM = (tcb, advisories, evaluation)
TD_RULES = (tdx_bits, td_state, lists, *PLATFORM)
HINTS = {
    "enclave_not_initialised": "No running enclave looks like this; treat the peer as hostile.",
    "signer_mismatch": "Another key signed this enclave. Ask the operator who signs, and how you can check that.",
    "product_mismatch": "The signer's other product runs here. Check the address, or name this product in the policy.",
    "isvsvn_too_low": "An old release runs here. Ask the operator to update.",
    "attributes_mismatch": "Compare the bits with those of the release that you meant to accept.",
    "sept_ve_disable_clear": "The TD's kernel can be fed pages by its host. Ask the operator to set SEPT_VE_DISABLE.",
    "migratable_td": "The TD can move to another platform. Ask the operator, or name it with migratable in [policy].",
    "service_td": "A service TD can act on this one. Name its measurement in mr_service_td once you have reviewed it.",
    "revoked": "Intel has revoked this platform's TCB. Nothing makes it acceptable; ask the operator to move.",
    "tcb_status_refused": (
        "Read the advisories, then ask the operator to update; if you accept the risk, name the status in "
        "tcb_statuses or with --accept-status."
    ),
    "tcb_grace_ended": (
        "The time that the policy gave for updating is over: ask the operator to update. `attestable-mcp tcb` shows "
        "what the platform is short of."
    ),
    "advisory_refused": "Read the advisory at Intel's security centre; list it under advisories once you accept it.",
    "tcb_evaluation_too_low": "The collateral is of an older evaluation. Fetch or staple newer collateral.",
} | {
    f"{name}_mismatch": f"Find out where this value comes from; add it to {name} in [policy] once you accept it."
    for name in TDX_LISTS
}
TDX_KEYS: Mapping[str, Read] = {
    "mr_td": "text",
    **dict.fromkeys((*RTMRS, "compose_hash"), "text"),
    "not_compared": "texts",
}
TD_CODE = (
    "mr_td", *RTMRS, "mr_config_id", "mr_owner", "mr_owner_config", "mr_service_td", "td_attributes", "xfam",
)  # fmt: skip

SGX = Kind(
    tee=Tee.SGX,
    vendor="intel",
    release=SgxRelease,
    keys={"mrenclave": "text", "mrsigner": "text", "isvprodid": "number", "min_isvsvn": "number"},
    heads=(frozenset(("mrenclave", "mrsigner", "isvprodid", "min_isvsvn")),),
    code=(
        "mrenclave", "mrsigner", "isvprodid", "isvsvn", "attributes", "miscselect", "configid", "configsvn",
        "isvextprodid", "isvfamilyid",
    ),
    compare=compare_sgx,
    pin=pin_sgx,
    rules=(initialised, sgx_bits, *PLATFORM),
    states=(SgxRules,),
    open_ends=_sgx_open,
    hints=MappingProxyType(HINTS),
)  # fmt: skip
TDX = Kind(
    tee=Tee.TDX,
    vendor="intel",
    release=TdxRelease,
    keys=TDX_KEYS,
    heads=(frozenset(("mr_td",)),),
    code=TD_CODE,
    compare=compare_tdx,
    pin=pin_tdx,
    rules=(*TD_RULES, *BOOT_RULES),
    states=(TdxRules, BootRules),
    open_ends=tdx_open,
    debug=tdx_debug,
)
