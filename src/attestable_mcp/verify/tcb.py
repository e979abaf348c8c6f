"""How up to date a platform is: Intel's TCB level algorithm over verified collateral. No signatures, no clock.

Source: Intel PCS API v4, "Get TCB Info" (how to determine the TCB status); Intel SGX DCAP Quote Verification Library
for the convergence of platform, QE and TDX module status, and for relaunch. Levels are walked from
the highest down.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from operator import ge
from typing import NoReturn

from attestable_mcp.errors import Revoked, VerificationError
from attestable_mcp.verify.trail import Trail
from attestable_mcp.wire.collateral import IsvLevel, QeIdentity, TcbInfo, TcbLevel, TdxModule
from attestable_mcp.wire.intel import SgxReport, TdReport
from attestable_mcp.wire.pck import PckExtension

UP_TO_DATE = "UpToDate"
OUT_OF_DATE = "OutOfDate"
OUT_OF_DATE_CONFIGURATION = "OutOfDateConfigurationNeeded"
CONFIGURATION = "ConfigurationNeeded"
CONFIGURATION_AND_HARDENING = "ConfigurationAndSWHardeningNeeded"
HARDENING = "SWHardeningNeeded"
REVOKED = "Revoked"
RELAUNCH = "TDRelaunchAdvised"
RELAUNCH_CONFIGURATION = "TDRelaunchAdvisedConfigurationNeeded"

_OUTDATED = frozenset({OUT_OF_DATE, OUT_OF_DATE_CONFIGURATION})
_CONFIGURED = frozenset({CONFIGURATION, CONFIGURATION_AND_HARDENING, OUT_OF_DATE_CONFIGURATION})
_MODULE_CHECK = "intel.tdx.module_identity"
_STATUS_CHECK = "intel.tcb.status"
_NEVER = "Revoked is never accepted, under any policy."


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """The converged status with everything that advises on it. `date` is the TCB date of the platform's level."""

    status: str
    advisories: tuple[str, ...]
    date: datetime


def judge_tcb(pck: PckExtension, body: SgxReport | TdReport, tcb_info: TcbInfo, qe: IsvLevel, trail: Trail) -> Standing:
    """Find the platform's level and converge it with the QE's and, for TDX, the module's.

    Raises:
        VerificationError: `tcb_level_not_found`, `tdx_module_mismatch`.
        Revoked: platform, QE or TDX module is revoked.
    """
    if isinstance(body, SgxReport):
        platform = _platform_level(pck, tcb_info, None, trail)
        _refuse_revoked(trail, platform=platform.status, qe=qe.status)
        return _standing(trail, converge(platform.status, qe.status), platform, qe)
    return _judge_tdx(pck, body, tcb_info, qe, trail)


def _judge_tdx(pck: PckExtension, body: TdReport, tcb_info: TcbInfo, qe: IsvLevel, trail: Trail) -> Standing:
    _demand_module(body, tcb_info, trail)
    levels = (*_tdx_levels(pck, body.tee_tcb_svn, tcb_info, trail), qe)
    status = _converged(levels, trail)
    if body.tee_tcb_svn2 is not None and status in _OUTDATED:
        current = _tdx_levels(pck, body.tee_tcb_svn2, tcb_info, Trail())
        status = _relaunch(status, (*current, qe), trail)
    return _standing(trail, status, *levels)


def _tdx_levels(
    pck: PckExtension, tee_tcb_svn: bytes, tcb_info: TcbInfo, trail: Trail
) -> tuple[TcbLevel, *tuple[IsvLevel, ...]]:
    """The platform's level under one TEE_TCB_SVN, and the module's if its version has levels of its own."""
    module = _module_level(tee_tcb_svn, tcb_info, trail)
    platform = _platform_level(pck, tcb_info, tee_tcb_svn, trail)
    return (platform, module) if module else (platform,)


def _converged(levels: tuple[TcbLevel, *tuple[IsvLevel, ...]], trail: Trail) -> str:
    """The platform's status, worsened by those of the TDX module and the QE."""
    platform, *others = levels
    status = platform.status
    _refuse_revoked(trail, platform=status)
    for other in others:
        _refuse_revoked(trail, module_or_QE=other.status)
        status = converge(status, other.status)
    return status


def _relaunch(launched: str, current: tuple[TcbLevel, *tuple[IsvLevel, ...]], trail: Trail) -> str:
    """An outdated TD on a platform that has been brought up to date under it: a relaunch is all that it needs.

    `current` is what TEE_TCB_SVN_2 reaches. It is judged by the whole algorithm, as if the TD were launched now.
    """
    now = _converged(current, trail)
    if now in _OUTDATED:
        return launched
    configured = now in _CONFIGURED or launched in _CONFIGURED
    return RELAUNCH_CONFIGURATION if configured else RELAUNCH


def _standing(trail: Trail, status: str, platform: TcbLevel | IsvLevel, *others: TcbLevel | IsvLevel) -> Standing:
    advisories = dict.fromkeys(name for level in (platform, *others) for name in level.advisories)
    trail.passed(_STATUS_CHECK, status, "a policy decides which statuses pass")
    return Standing(status=status, advisories=tuple(advisories), date=platform.date)


def _refuse_revoked(trail: Trail, **statuses: str) -> None:
    for part, status in statuses.items():
        if status == REVOKED:
            trail.refuse(
                Revoked,
                _STATUS_CHECK,
                wanted=f"a {part.replace('_', ' ')} that is not revoked",
                seen=REVOKED,
                hint=_NEVER,
            )


def converge(platform: str, other: str) -> str:
    """The platform's status, worsened by that of its QE or TDX module: any word but UpToDate counts as outdated."""
    if other == UP_TO_DATE:
        return platform
    if platform in (UP_TO_DATE, HARDENING):
        return OUT_OF_DATE
    if platform in (CONFIGURATION, CONFIGURATION_AND_HARDENING):
        return OUT_OF_DATE_CONFIGURATION
    return platform


def _reaches(have: bytes, want: bytes, start: int = 0) -> bool:
    return all(map(ge, have[start : len(want)], want[start:]))


def _find_level(pck: PckExtension, tcb_info: TcbInfo, tee_tcb_svn: bytes | None) -> TcbLevel | None:
    """The highest level that the PCK's SVNs reach and, where given, TEE_TCB_SVN.

    Where a module identity speaks for the first two TDX components (TEE_TCB_SVN[1] > 0), these are left out.
    """
    first = 2 if tee_tcb_svn is not None and tee_tcb_svn[1] > 0 else 0
    for level in tcb_info.levels:
        if pck.pcesvn < level.pcesvn or not _reaches(pck.components, level.sgx):
            continue
        if tee_tcb_svn is None or (level.tdx is not None and _reaches(tee_tcb_svn, level.tdx, first)):
            return level
    return None


def _platform_level(pck: PckExtension, tcb_info: TcbInfo, tee_tcb_svn: bytes | None, trail: Trail) -> TcbLevel:
    check = "intel.tcb.platform"
    level = _find_level(pck, tcb_info, tee_tcb_svn)
    if level is None:
        seen = f"components {pck.components.hex()}, PCESVN {pck.pcesvn}"
        _refuse_level(trail, check, seen + (f", TEE_TCB_SVN {tee_tcb_svn.hex()}" if tee_tcb_svn is not None else ""))
    trail.passed(check, f"{level.status} of {level.date:%Y-%m-%d}")
    return level


def _refuse_level(trail: Trail, check: str, seen: str) -> NoReturn:
    trail.refuse(
        VerificationError, check, wanted="a TCB level that is reached", seen=seen, code="tcb_level_not_found",
        hint="The platform's firmware is below every level that Intel still lists: it has to be updated.",
    )  # fmt: skip


# --- enclaves and modules ---------------------------------------------------------------------------------------------


def judge_qe(report: SgxReport, identity: QeIdentity, trail: Trail) -> IsvLevel:
    """Compare the QE report with the QE identity in full, and find its level.

    Raises:
        VerificationError: `qe_identity_mismatch`, `tcb_level_not_found`.
    """
    check = "intel.qe.identity"
    compared = (
        ("MRSIGNER", identity.mrsigner, report.mrsigner),
        ("ISVPRODID", identity.isvprodid, report.isvprodid),
        # As in Intel's library the mask is laid on the report alone: bits demanded outside it are never met.
        ("MISCSELECT", identity.miscselect, _masked(report.miscselect, identity.miscselect_mask)),
        ("attributes", identity.attributes, _masked(report.attributes, identity.attributes_mask)),
    )
    for name, wanted, seen in compared:
        if wanted != seen:
            trail.refuse(
                VerificationError, check, wanted=f"{name} {_text(wanted)}", seen=_text(seen),
                code="qe_identity_mismatch", hint="The quoting enclave is not the one that Intel names.",
            )  # fmt: skip
    level = _isv_level(identity.levels, report.isvsvn)
    if level is None:
        _refuse_level(trail, check, f"QE ISVSVN {report.isvsvn}")
    trail.passed(check, f"ISVSVN {report.isvsvn}, {level.status}")
    return level


def _text(value: bytes | int) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _masked(value: bytes, mask: bytes) -> bytes:
    """Both of one length: the readers hold each to its size."""
    return (int.from_bytes(value, "big") & int.from_bytes(mask, "big")).to_bytes(len(value), "big")


def _isv_level(levels: tuple[IsvLevel, ...], isvsvn: int) -> IsvLevel | None:
    return next((level for level in levels if isvsvn >= level.isvsvn), None)


def _demand_module(body: TdReport, tcb_info: TcbInfo, trail: Trail) -> None:
    """The TDX module that launched the TD is signed as its identity says, with no SEAM attribute set."""
    module = _module(tcb_info, body.tee_tcb_svn[1], trail)
    compared = (
        ("MRSIGNERSEAM", module.mrsigner, body.mr_signer_seam),
        ("SEAMATTRIBUTES", _masked(module.attributes, module.attributes_mask), body.seam_attributes),
    )
    for name, wanted, seen in compared:
        if wanted != seen:
            trail.refuse(
                VerificationError, _MODULE_CHECK, wanted=f"{name} {wanted.hex()}", seen=seen.hex(),
                code="tdx_module_mismatch",
            )  # fmt: skip


def _module_level(tee_tcb_svn: bytes, tcb_info: TcbInfo, trail: Trail) -> IsvLevel | None:
    """The module's own level. Version 0 modules have none: the platform's levels speak for them."""
    version = tee_tcb_svn[1]
    module = _module(tcb_info, version, trail)
    if version == 0:
        trail.passed(_MODULE_CHECK, "a module of version 0")
        return None
    level = _isv_level(module.levels, tee_tcb_svn[0])
    if level is None:
        _refuse_level(trail, _MODULE_CHECK, f"{module.id} ISVSVN {tee_tcb_svn[0]}")
    trail.passed(_MODULE_CHECK, f"{module.id} ISVSVN {tee_tcb_svn[0]}, {level.status}")
    return level


def _module(tcb_info: TcbInfo, version: int, trail: Trail) -> TdxModule:
    name = f"TDX_{version:02X}"
    named = tcb_info.tdx_module if version == 0 else next((m for m in tcb_info.module_identities if m.id == name), None)
    if named is None:
        trail.refuse(
            VerificationError, _MODULE_CHECK, wanted=f"an identity for {name}", seen="none", code="tdx_module_mismatch"
        )
    return named
