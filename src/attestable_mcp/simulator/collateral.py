"""TCB info, identities and revocation lists in the shapes of Intel's Provisioning Certification Service, API v4."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from attestable_mcp.rats import Tee
from attestable_mcp.simulator.keys import serial, sign_raw
from attestable_mcp.simulator.options import (
    Collateral,
    Crls,
    IsvLevel,
    Level,
    ModuleIdentity,
    Platform,
    QeIdentity,
    Signer,
    TcbInfo,
    TcbStatus,
)
from attestable_mcp.simulator.pki import Party, Pki, revocation_list

_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A JSON document as served: exact text, r || s over it, and the signer's chain, leaf first."""

    body: str
    signature: bytes
    chain: tuple[Party, ...]

    @property
    def chain_pem(self) -> str:
        """The chain as concatenated PEM."""
        return "".join(party.pem for party in self.chain)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """Everything that a PCS would serve for one platform at one moment; None is a piece left out."""

    tcb_info: Signed | None
    qe_identity: Signed | None
    root_crl: bytes | None
    pck_crl: bytes | None
    pck_crl_chain: tuple[Party, ...]
    pck_chain: tuple[Party, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QeProfile:
    """What identifies a vendor's quoting enclave."""

    id: str
    mrsigner: bytes
    isvprodid: int
    isvsvn: int


def issue(pki: Pki, platform: Platform, qe: QeProfile, tee: Tee, options: Collateral, at: datetime) -> Issued:
    """Collateral for `tee` as of `at`, with the faults that `options` names."""
    crls = options.crls
    return Issued(
        tcb_info=_tcb_info(pki, platform, tee, options.tcb_info, at) if options.with_tcb_info else None,
        qe_identity=_qe_identity(pki, qe, options.qe_identity, at) if options.with_qe_identity else None,
        root_crl=_root_crl(pki, crls, at) if crls.with_root else None,
        pck_crl=_pck_crl(pki, crls, at) if crls.with_pck else None,
        pck_crl_chain=(pki.pck_ca, pki.root),
        pck_chain=(pki.pck, pki.pck_ca, pki.root) if options.with_pck_chain else (),
    )


def _signed(pki: Pki, document: dict[str, Any], signer: Signer, *, tampered: bool) -> Signed:
    body = json.dumps(document, separators=(",", ":"))
    key, chain = _signer(pki, signer)
    signature = sign_raw(key, body.encode())
    return Signed(body=_tamper(body) if tampered else body, signature=signature, chain=chain)


def _tamper(body: str) -> str:
    """Another evaluation number: the text stays valid JSON of the same meaning otherwise."""
    return body.replace('"tcbEvaluationDataNumber":', '"tcbEvaluationDataNumber":1', 1)


def _signer(pki: Pki, signer: Signer) -> tuple[ec.EllipticCurvePrivateKey, tuple[Party, ...]]:
    chains: dict[Signer, tuple[Party, ...]] = {
        Signer.TCB_SIGNING: (pki.tcb_signing, pki.root),
        Signer.PCK_LEAF: (pki.pck, pki.pck_ca, pki.root),
        Signer.PCK_CA: (pki.pck_ca, pki.root),
        Signer.OTHER_NAME: (pki.other, pki.root),
        Signer.STRANGER: (pki.tcb_signing, pki.root),
    }
    chain = chains[signer]
    return (pki.stranger if signer is Signer.STRANGER else chain[0].key), chain


def _tcb_info(pki: Pki, platform: Platform, tee: Tee, options: TcbInfo, at: datetime) -> Signed:
    issued, expires = options.span.dates(at)
    document: dict[str, Any] = {
        "id": options.id or tee.value.upper(),
        "version": options.version,
        "issueDate": issued.strftime(_TIME),
        "nextUpdate": expires.strftime(_TIME),
        "fmspc": (options.fmspc or platform.fmspc).hex().upper(),
        "pceId": (options.pceid or platform.pceid).hex().upper(),
        "tcbType": 0,
        "tcbEvaluationDataNumber": options.evaluation_number,
    }
    tdx_parts = tee is Tee.TDX and options.with_tdx_parts
    if tdx_parts:
        document |= _tdx_module(platform, options)
    levels = options.levels if options.levels is not None else _ladder(platform, options)
    document["tcbLevels"] = [_level(level, options, tdx=tdx_parts) for level in levels]
    return _signed(pki, document, options.signer, tampered=options.tampered)


def _ladder(platform: Platform, options: TcbInfo) -> tuple[Level, ...]:
    """A newer rung that the platform does not reach, its own with the wanted status, and an older one."""
    newer = tuple(svn + 1 for svn in platform.components[:2]) + platform.components[2:]
    older = (0,) * 16
    above = Level(components=newer, pcesvn=platform.pcesvn, tdx=platform.tdx_components)
    own = Level(
        components=platform.components, pcesvn=platform.pcesvn, tdx=platform.tdx_components,
        status=options.status, advisories=options.advisories,
    )  # fmt: skip
    below = Level(components=older, pcesvn=0, status=TcbStatus.OUT_OF_DATE, advisories=("INTEL-SA-00000",))
    return (above,) if options.below_all_levels else (above, own, below)


def _level(level: Level, options: TcbInfo, *, tdx: bool) -> dict[str, Any]:
    tcb: dict[str, Any] = {
        "sgxtcbcomponents": _components(level.components, options.component_count),
        "pcesvn": level.pcesvn,
    }
    if tdx:
        tcb["tdxtcbcomponents"] = _components(level.tdx, options.tdx_component_count)
    return {"tcb": tcb} | _verdict(level)


def _components(svns: Iterable[int], count: int) -> list[dict[str, int]]:
    return [{"svn": svn} for svn in (*svns, 0)][:count]


def _verdict(level: Level | IsvLevel) -> dict[str, Any]:
    verdict: dict[str, Any] = {"tcbDate": level.date.strftime(_TIME), "tcbStatus": str(level.status)}
    return verdict | ({"advisoryIDs": list(level.advisories)} if level.advisories else {})


def _isv_levels(levels: Iterable[IsvLevel]) -> list[dict[str, Any]]:
    return [{"tcb": {"isvsvn": level.isvsvn}} | _verdict(level) for level in levels]


def _isv_ladder(isvsvn: int, status: str, advisories: tuple[str, ...]) -> tuple[IsvLevel, ...]:
    own = IsvLevel(isvsvn=isvsvn, status=status, advisories=advisories)
    older = IsvLevel(isvsvn=0, status=TcbStatus.OUT_OF_DATE, advisories=("INTEL-SA-00001",))
    return (IsvLevel(isvsvn=isvsvn + 1), own, older) if isvsvn else (IsvLevel(isvsvn=1), own)


def _tdx_module(platform: Platform, options: TcbInfo) -> dict[str, Any]:
    modules = options.modules if options.modules is not None else (_own_module(platform, options),)
    return {
        "tdxModule": _hex_identity(options.module_mrsigner, options.module_attributes, options.module_attributes_mask),
        "tdxModuleIdentities": [_module(identity) for identity in modules],
    }


def _own_module(platform: Platform, options: TcbInfo) -> ModuleIdentity:
    isvsvn, version = platform.tdx_components[0], platform.tdx_components[1]
    return ModuleIdentity(
        version=version or 1, levels=_isv_ladder(isvsvn, options.module_status, options.module_advisories),
        mrsigner=options.module_mrsigner, attributes=options.module_attributes,
        attributes_mask=options.module_attributes_mask,
    )  # fmt: skip


def _module(identity: ModuleIdentity) -> dict[str, Any]:
    described = _hex_identity(identity.mrsigner, identity.attributes, identity.attributes_mask)
    return {"id": f"TDX_{identity.version:02X}"} | described | {"tcbLevels": _isv_levels(identity.levels)}


def _hex_identity(mrsigner: bytes, attributes: bytes, mask: bytes) -> dict[str, str]:
    return {
        "mrsigner": mrsigner.hex().upper(),
        "attributes": attributes.hex().upper(),
        "attributesMask": mask.hex().upper(),
    }


def _qe_identity(pki: Pki, qe: QeProfile, options: QeIdentity, at: datetime) -> Signed:
    issued, expires = options.span.dates(at)
    levels = (
        options.levels if options.levels is not None else _isv_ladder(qe.isvsvn, options.status, options.advisories)
    )
    mrsigner = qe.mrsigner if options.mrsigner is None else options.mrsigner
    document: dict[str, Any] = {
        "id": options.id or qe.id,
        "version": options.version,
        "issueDate": issued.strftime(_TIME),
        "nextUpdate": expires.strftime(_TIME),
        "tcbEvaluationDataNumber": options.evaluation_number,
        "miscselect": options.miscselect.hex().upper(),
        "miscselectMask": options.miscselect_mask.hex().upper(),
        "attributes": options.attributes.hex().upper(),
        "attributesMask": options.attributes_mask.hex().upper(),
        "mrsigner": mrsigner.hex().upper(),
        "isvprodid": qe.isvprodid if options.isvprodid is None else options.isvprodid,
        "tcbLevels": _isv_levels(levels),
    }
    return _signed(pki, document, options.signer, tampered=options.tampered)


def _others(pki: Pki, count: int) -> list[int]:
    """Serial numbers of nobody."""
    return [serial(pki.root.der, f"other {number}") for number in range(count)]


def _root_crl(pki: Pki, options: Crls, at: datetime) -> bytes:
    revoked = _others(pki, options.others)
    revoked += [pki.pck_ca.certificate.serial_number] if options.revoke_pck_ca else []
    revoked += [pki.tcb_signing.certificate.serial_number] if options.revoke_tcb_signing else []
    key = pki.stranger if options.root_signed_by_stranger else pki.root.key
    return revocation_list(pki.root, key, revoked, *options.root.dates(at))


def _pck_crl(pki: Pki, options: Crls, at: datetime) -> bytes:
    issuer = pki.root if options.pck_issued_by_root else pki.pck_ca
    revoked = _others(pki, options.others)
    revoked += [pki.pck.certificate.serial_number] if options.revoke_pck else []
    key = pki.stranger if options.pck_signed_by_stranger else issuer.key
    return revocation_list(issuer, key, revoked, *options.pck.dates(at))
