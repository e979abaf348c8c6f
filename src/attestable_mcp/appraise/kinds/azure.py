"""Azure confidential VMs: the paravisor by the hardware's measurement, the system that it booted by the vTPM's PCRs.

Both halves are demanded. PCRs alone prove nothing: whoever launches a paravisor of her own writes them as she likes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from attestable_mcp.appraise.fault import PolicyFault
from attestable_mcp.appraise.findings import Comparison
from attestable_mcp.appraise.kinds import intel, snp, tpm
from attestable_mcp.appraise.kinds.base import PCRS, Kind
from attestable_mcp.appraise.kinds.boot import BOOT_RULES, BootRules
from attestable_mcp.rats import AttestationResult, Claims, Finding, Tee


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSnpRelease(snp.SnpRelease):
    """The fields of `SnpRelease` for the paravisor, those of `TpmRelease` for the system. Both are needed."""

    pcrs: Mapping[int, str] = field(default_factory=dict)
    boot_applications: tuple[str, ...] = ()

    tee: ClassVar[Tee] = Tee.AZURE_SEV_SNP

    def __post_init__(self) -> None:
        snp.check_identity(self)
        _check_system(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureTdxRelease(intel.TdxRelease):
    """The fields of `TdxRelease` for the paravisor, those of `TpmRelease` for the system. Both are needed."""

    pcrs: Mapping[int, str] = field(default_factory=dict)
    boot_applications: tuple[str, ...] = ()

    tee: ClassVar[Tee] = Tee.AZURE_TDX

    def __post_init__(self) -> None:
        intel.check_registers(self)
        _check_system(self)


def _check_system(release: AzureSnpRelease | AzureTdxRelease) -> None:
    tpm.check_pcrs(release)
    if not tpm.names_code(release):
        raise PolicyFault("measured PCRs are missing: the measurement alone proves the paravisor, not what it booted")


def _compare_snp(held: Comparison, release: AzureSnpRelease) -> Iterator[Finding]:
    yield from snp.compare_snp(held, release)
    yield from tpm.compare(held, _system(release))


def _compare_tdx(held: Comparison, release: AzureTdxRelease) -> Iterator[Finding]:
    yield from intel.compare_tdx(held, release)
    yield from tpm.compare(held, _system(release))


def _system(release: AzureSnpRelease | AzureTdxRelease) -> tpm.TpmRelease:
    return tpm.TpmRelease(label=release.label, pcrs=release.pcrs, boot_applications=release.boot_applications)


def _open_snp(release: AzureSnpRelease, claims: Claims) -> Iterator[str]:
    yield from snp.snp_open(release, claims)
    yield from tpm.open_ends(_system(release), claims)


def _open_tdx(release: AzureTdxRelease, claims: Claims) -> Iterator[str]:
    yield from intel.tdx_open(release, claims)
    yield from tpm.open_ends(_system(release), claims)


def _pin_snp(result: AttestationResult) -> Iterator[str]:
    yield from snp.pin_identity(result)
    yield from tpm.pin_pcrs(result)
    yield from snp.pin_state(result)


def _pin_tdx(result: AttestationResult) -> Iterator[str]:
    yield from intel.pin_tdx(result)
    yield from tpm.pin_pcrs(result)


AZURE_SNP = Kind(
    tee=Tee.AZURE_SEV_SNP,
    vendor="amd",
    release=AzureSnpRelease,
    keys={**snp.KEYS, **tpm.KEYS},
    heads=(*snp.SEV_SNP.heads, frozenset((PCRS, tpm.APPLICATIONS))),
    code=(*snp.CODE, *tpm.CODE),
    compare=_compare_snp,
    pin=_pin_snp,
    rules=(*snp.SNP_RULES, *BOOT_RULES),
    states=(snp.SnpRules, BootRules),
    open_ends=_open_snp,
)
AZURE_TDX = Kind(
    tee=Tee.AZURE_TDX,
    vendor="intel",
    release=AzureTdxRelease,
    keys={**intel.TDX_KEYS, **tpm.KEYS},
    heads=(*intel.TDX.heads, frozenset((PCRS, tpm.APPLICATIONS))),
    code=(*intel.TD_CODE, *tpm.CODE),
    compare=_compare_tdx,
    pin=_pin_tdx,
    rules=(*intel.TD_RULES, *BOOT_RULES),
    states=(intel.TdxRules, BootRules),
    open_ends=_open_tdx,
    debug=intel.tdx_debug,
)
