"""TPM 2.0: machines by their PCRs, or by what the replayed event log says was booted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Protocol

from attestable_mcp.appraise.fault import PolicyFault
from attestable_mcp.appraise.findings import Comparison
from attestable_mcp.appraise.kinds.base import PCRS, Kind, Read, quoted
from attestable_mcp.appraise.kinds.boot import BOOT_HINTS, BOOT_RULES, BootRules
from attestable_mcp.appraise.values import hex_text, put, whole, words
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.rats import AttestationResult, Claims, Finding, Tee

BANKS = {64: "sha256", 96: "sha384", 128: "sha512"}
"""Bank of a PCR by the hex digits of its value. SHA-1 banks prove nothing."""
RESETTABLE = (16, 23)
KERNEL_RESETTABLE = (20, 21, 22)
"""PCRs that can be reset from locality 2 (PC Client Platform TPM Profile, PCR attributes), where a kernel can speak."""
APPLICATIONS = "boot_applications"
_MEANINGS = {
    0: "the firmware",
    1: "the firmware's configuration",
    2: "drivers of plugged-in devices",
    3: "their configuration",
    4: "boot loader and, on some systems, kernel",
    5: "the boot loader's configuration, the partition table",
    6: "the manufacturer's own",
    7: "the Secure Boot policy: its keys and what they allow",
    8: "what the boot loader measures: often the kernel's command line",
    9: "what the boot loader measures: often kernel and initrd",
    10: "what the running kernel measures (IMA): changes while the machine runs",
    11: "unified kernel image and its phases",
    12: "overridden kernel command line",
    13: "system extensions",
    14: "the shim's own keys (MOK)",
    15: "system identity",
}
_PINNED = (0, 2, 4, 7, 8, 9, 11, 12, 13, 14)
"""Registers that say which code runs; the others change with the machine or while it runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmRelease:
    """One accepted machine: `pcrs` by number, by value; or `boot_applications`, by the event log.

    A PCR value's length names its bank. `boot_applications` are the Authenticode digests (hex) of every EFI application
    that may have been booted; it holds only where the log explains PCR 4. Everything given has to hold.

    Raises:
        ConfigurationError: no identity; a PCR that anybody can reset; a value that cannot be.
    """

    label: str = ""
    pcrs: Mapping[int, str] = field(default_factory=dict)
    boot_applications: tuple[str, ...] = ()

    tee: ClassVar[Tee] = Tee.TPM

    def __post_init__(self) -> None:
        check_pcrs(self)
        if not names_code(self):
            raise PolicyFault(
                "no identity rule: neither a measured PCR nor boot_applications says which code is accepted"
            )


class Measured(Protocol):
    """A release that names a system by its PCRs or its boot applications."""

    @property
    def pcrs(self) -> Mapping[int, str]: ...
    @property
    def boot_applications(self) -> tuple[str, ...]: ...


def check_pcrs(release: Measured) -> None:
    """The rules that `TpmRelease` states, for every release that holds its fields. Raises: PolicyFault."""
    checked = {number: _pcr(number, value) for number, value in sorted(release.pcrs.items())}
    put(release, "pcrs", MappingProxyType(checked))
    if release.boot_applications != ():
        words(release.boot_applications, APPLICATIONS)
    digests = tuple(_digest(value, APPLICATIONS, index) for index, value in enumerate(release.boot_applications))
    put(release, APPLICATIONS, digests)


def _pcr(number: int, value: str) -> str:
    name = f"pcr{number}"
    whole(number, 0, 23, name)
    if number in RESETTABLE:
        raise PolicyFault("anybody on the machine can reset this PCR: it proves nothing", name)
    return _digest(value, name)


def names_code(release: Measured) -> bool:
    """Does it name something that was measured? A PCR that nobody extended may stand beside, but says nothing alone.

    Nor does one that a kernel can reset and fill anew: it would name whatever that kernel likes.
    """
    lasting = (value for number, value in release.pcrs.items() if number not in KERNEL_RESETTABLE)
    return bool(release.boot_applications) or any(map(was_measured, lasting))


def was_measured(value: str) -> bool:
    """Is this the value (hex) of a PCR into which something was measured? Fresh ones are all zeros or all ones."""
    return bool(value.strip("0")) and bool(value.strip("f"))


def _digest(value: str, *path: str | int) -> str:
    if isinstance(value, str) and len(value) not in BANKS:
        raise PolicyFault(f"wanted 64, 96 or 128 hex digits (SHA-256, SHA-384, SHA-512), seen {len(value)}", *path)
    return hex_text(value, len(value) // 2, *path)


def compare(held: Comparison, release: TpmRelease) -> Iterator[Finding]:
    """Every PCR in its bank, and every application that was booted."""
    for number, value in release.pcrs.items():
        shown = held.claims.values.get(f"pcr{number}_{BANKS[len(value)]}", "absent")
        yield held.same(f"pcr{number}", value, shown=str(shown))
    if release.boot_applications:
        yield held.all_in(APPLICATIONS, release.boot_applications)


def open_ends(release: TpmRelease, claims: Claims) -> Iterator[str]:
    """Quoted PCRs that the release does not compare."""
    quoted_pcrs = sorted(int(name[3:]) for name in claims.values if re.fullmatch(r"pcr\d+", name))
    left = [number for number in quoted_pcrs if number not in release.pcrs]
    if left:
        yield f"what PCR {', '.join(map(str, left))} measure: the policy does not compare them"


def pin_pcrs(result: AttestationResult) -> Iterator[str]:
    """The PCRs of the strongest bank as seen; those that change by themselves stand beside them as comments."""
    found = 0
    for number, meaning in _MEANINGS.items():
        value = result.claims.get(f"pcr{number}")
        if not isinstance(value, str):
            continue
        live = number in _PINNED  # one that was not extended, too: an override would show there
        found += live and was_measured(value)
        yield f"# pcr{number}: {meaning}."
        yield f"{'' if live else '# '}pcr{number} = {quoted(value)}"
    if not found:
        raise ConfigurationError("the result holds no PCR that says which code runs, so it cannot be pinned")
    if result.claims.get("secure_boot") is True:
        yield 'secure_boot = "require"'
    if result.claims.get("event_log_explains") == "all":
        yield "# The event log has to explain every PCR."
        yield 'event_log = "require"'


KEYS: Mapping[str, Read] = {PCRS: "pcrs", APPLICATIONS: "texts"}
CODE = tuple(f"pcr{number}" for number in _PINNED)

TPM = Kind(
    tee=Tee.TPM,
    vendor="tpm",
    release=TpmRelease,
    keys=KEYS,
    heads=(frozenset((PCRS, APPLICATIONS)),),
    code=CODE,
    compare=compare,
    pin=pin_pcrs,
    rules=BOOT_RULES,
    states=(BootRules,),
    open_ends=open_ends,
    hints=MappingProxyType(BOOT_HINTS),
)
