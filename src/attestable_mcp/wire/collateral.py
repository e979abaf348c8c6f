"""Intel's collateral: JSON documents, PEM chains and CRLs as served, read strictly, nothing judged.

Sources: Intel PCS API v4 (TCB info v3, v2; Enclave Identity v2). The collateral record has the shape that `dcap-qvl`
and Intel's QVE use: strings as served, CRLs and signatures in hex.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from attestable_mcp.errors import MalformedEvidence, UnsupportedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import DocumentKind, Endorsements, SignedDocument, Tee
from attestable_mcp.wire.document import STRICT_JSON, split_document
from attestable_mcp.wire.intel import read_pem_chain

COMPONENTS = 16
TCB_STATUSES = frozenset(
    {
        "UpToDate",
        "SWHardeningNeeded",
        "ConfigurationNeeded",
        "ConfigurationAndSWHardeningNeeded",
        "OutOfDate",
        "OutOfDateConfigurationNeeded",
        "Revoked",
    }
)
"""The statuses that Intel's documents may name (PCS API v4). Relaunch statuses are computed, never served."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_ADVISORY = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_LEVELS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbLevel:
    """One rung: a platform reaches it whose every SVN is at least this. 16 SVNs each; `tdx` is None for SGX."""

    sgx: bytes
    pcesvn: int
    tdx: bytes | None
    date: datetime
    status: str
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class IsvLevel:
    """One rung of an enclave or a TDX module, by its ISV SVN."""

    isvsvn: int
    date: datetime
    status: str
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxModule:
    """What the TDX module must be: MRSIGNER 48 bytes, attributes and mask 8 bytes. `id` is empty for the base entry."""

    id: str
    mrsigner: bytes
    attributes: bytes
    attributes_mask: bytes
    levels: tuple[IsvLevel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbInfo:
    """TCB info of one platform kind. `fmspc` 6 bytes, `pce_id` 2; levels highest first."""

    tee: Tee
    version: int
    issue_date: datetime
    next_update: datetime
    fmspc: bytes
    pce_id: bytes
    evaluation_number: int
    levels: tuple[TcbLevel, ...]
    tdx_module: TdxModule | None
    module_identities: tuple[TdxModule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QeIdentity:
    """Identity of a quoting enclave: `id` is QE or TD_QE; miscselect 4 bytes, attributes 16, mrsigner 32."""

    id: str
    version: int
    issue_date: datetime
    next_update: datetime
    evaluation_number: int
    miscselect: bytes
    miscselect_mask: bytes
    attributes: bytes
    attributes_mask: bytes
    mrsigner: bytes
    isvprodid: int
    levels: tuple[IsvLevel, ...]


# --- strict JSON ------------------------------------------------------------------------------------------------------


def read_json(data: bytes, *, field: str) -> Any:
    """Parse JSON in which no key repeats, with the size cap of one endorsement.

    Raises:
        MalformedEvidence: not UTF-8 JSON, a key twice, NaN or Infinity, too deep, too large.
    """
    text = _text(data, field)
    try:
        return STRICT_JSON.decode(text)
    except (ValueError, RecursionError) as error:
        _bad_json(error, field)


def _text(data: bytes, field: str) -> str:
    if len(data) > LIMITS.endorsement:
        raise MalformedEvidence(
            f"{len(data)} bytes, at most {LIMITS.endorsement} are read", field=field, code="endorsement_too_large"
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedEvidence("not UTF-8", field=field, offset=error.start) from error


def _bad_json(error: Exception, field: str) -> NoReturn:
    offset = error.pos if isinstance(error, json.JSONDecodeError) else None
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)[:120]
    raise MalformedEvidence(f"not strict JSON: {reason}", field=field, offset=offset) from error


def _bad(field: str, wanted: str, seen: object) -> NoReturn:
    raise MalformedEvidence(f"wanted {wanted}, seen {str(seen)[:80]!a}", field=field)


def _object(value: Any, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _bad(field, "an object", type(value).__name__)
    return value


def _member(parent: dict[str, Any], name: str, field: str) -> Any:
    if name not in parent:
        _bad(f"{field}.{name}", "a value", "none")
    return parent[name]


def _array(parent: dict[str, Any], name: str, field: str, most: int) -> list[Any]:
    value = _member(parent, name, field)
    if not isinstance(value, list) or len(value) > most:
        _bad(f"{field}.{name}", f"an array of at most {most}", type(value).__name__)
    return value


def _int(parent: dict[str, Any], name: str, field: str, most: int) -> int:
    value = _member(parent, name, field)
    if type(value) is not int or not 0 <= value <= most:
        _bad(f"{field}.{name}", f"an integer from 0 to {most}", type(value).__name__)
    return value


def _string(parent: dict[str, Any], name: str, field: str) -> str:
    value = _member(parent, name, field)
    if not isinstance(value, str):
        _bad(f"{field}.{name}", "a string", type(value).__name__)
    return value


def _hex(parent: dict[str, Any], name: str, field: str, size: int) -> bytes:
    value = _string(parent, name, field)
    if len(value) != 2 * size:
        _bad(f"{field}.{name}", f"{size} bytes in hex", value)
    return _unhex(value, f"{field}.{name}")


def _unhex(value: str, field: str) -> bytes:
    if not value.isascii() or not value.isalnum():  # bytes.fromhex would skip white space
        _bad(field, "hex", value)
    try:
        return bytes.fromhex(value)
    except ValueError:
        _bad(field, "hex", value)


def _time(parent: dict[str, Any], name: str, field: str) -> datetime:
    value = _string(parent, name, field)
    try:
        if _TIME.fullmatch(value):
            return datetime.fromisoformat(value)
    except ValueError:
        pass
    _bad(f"{field}.{name}", "a time as 2026-01-31T12:00:00Z", value)


def _status(parent: dict[str, Any], field: str) -> str:
    value = _string(parent, "tcbStatus", field)
    if value not in TCB_STATUSES:
        _bad(f"{field}.tcbStatus", "a status of PCS API v4", value)
    return value


def _advisories(parent: dict[str, Any], field: str) -> tuple[str, ...]:
    if "advisoryIDs" not in parent:
        return ()
    values = _array(parent, "advisoryIDs", field, _LEVELS)
    for value in values:
        if not isinstance(value, str) or not _ADVISORY.fullmatch(value):
            _bad(f"{field}.advisoryIDs", "advisory names", value)
    return tuple(values)


# --- typed readers ----------------------------------------------------------------------------------------------------


def read_tcb_info(body: bytes) -> TcbInfo:
    """Read the body of a TCB info document, version 3 or (SGX only) version 2.

    Raises:
        MalformedEvidence: a member missing or of another type, other than 16 components, TDX parts missing.
        UnsupportedEvidence: another version or tcbType.
    """
    field = "tcbInfo"
    top = _object(read_json(body, field=field), field)
    version = _int(top, "version", field, 0xFFFF)
    if version not in (2, 3):
        raise UnsupportedEvidence(f"TCB info version: wanted 2 or 3, seen {version}")
    if (kind := _int(top, "tcbType", field, 0xFFFF)) != 0:
        raise UnsupportedEvidence(f"tcbType: wanted 0, seen {kind}")
    tee = Tee.SGX if version == 2 else _tcb_info_tee(top)
    levels = [
        _tcb_level(_object(item, f"{field}.tcbLevels[{n}]"), f"{field}.tcbLevels[{n}]", version, tee)
        for n, item in enumerate(_array(top, "tcbLevels", field, _LEVELS))
    ]
    # Intel serves them sorted, and its library sorts again: the first that is reached must be the highest.
    levels.sort(key=lambda level: (level.sgx, level.pcesvn, level.tdx or b""), reverse=True)
    return TcbInfo(
        tee=tee, version=version,
        issue_date=_time(top, "issueDate", field), next_update=_time(top, "nextUpdate", field),
        fmspc=_hex(top, "fmspc", field, 6), pce_id=_hex(top, "pceId", field, 2),
        evaluation_number=_int(top, "tcbEvaluationDataNumber", field, 0xFFFFFFFF), levels=tuple(levels),
        tdx_module=_tdx_module(top, tee), module_identities=_module_identities(top, tee),
    )  # fmt: skip


def _tcb_info_tee(top: dict[str, Any]) -> Tee:
    match _string(top, "id", "tcbInfo"):
        case "SGX":
            return Tee.SGX
        case "TDX":
            return Tee.TDX
        case other:
            raise UnsupportedEvidence(f"TCB info id: wanted SGX or TDX, seen {other[:20]!a}")


def _tcb_level(level: dict[str, Any], field: str, version: int, tee: Tee) -> TcbLevel:
    tcb = _object(_member(level, "tcb", field), field)
    sgx = _numbered_components(tcb, field) if version == 2 else _components(tcb, "sgxtcbcomponents", field)
    return TcbLevel(
        sgx=sgx, pcesvn=_int(tcb, "pcesvn", field, 0xFFFF),
        tdx=_components(tcb, "tdxtcbcomponents", field) if tee is Tee.TDX else None,
        date=_time(level, "tcbDate", field), status=_status(level, field), advisories=_advisories(level, field),
    )  # fmt: skip


def _components(tcb: dict[str, Any], name: str, field: str) -> bytes:
    items = _member(tcb, name, field)
    if not isinstance(items, list) or len(items) != COMPONENTS:
        _bad(
            f"{field}.{name}", "exactly 16 components", len(items) if isinstance(items, list) else type(items).__name__
        )
    try:
        svns = [item["svn"] for item in items]
        if all(type(svn) is int for svn in svns):
            return bytes(svns)
    except (TypeError, KeyError, IndexError, ValueError):
        pass
    _bad(f"{field}.{name}", "objects with an svn from 0 to 255", "something else")


def _numbered_components(tcb: dict[str, Any], field: str) -> bytes:
    """Version 2 spells the components out: sgxtcbcomp01svn to sgxtcbcomp16svn."""
    extra = [name for name in tcb if name.startswith("sgxtcbcomp")]
    if len(extra) != COMPONENTS:
        _bad(f"{field}.tcb", "exactly 16 components", len(extra))
    return bytes(_int(tcb, f"sgxtcbcomp{n:02}svn", field, 255) for n in range(1, COMPONENTS + 1))


def _tdx_module(top: dict[str, Any], tee: Tee) -> TdxModule | None:
    if tee is not Tee.TDX:
        return None
    return _module(_object(_member(top, "tdxModule", "tcbInfo"), "tcbInfo.tdxModule"), "tcbInfo.tdxModule", named=False)


def _module_identities(top: dict[str, Any], tee: Tee) -> tuple[TdxModule, ...]:
    if tee is not Tee.TDX or "tdxModuleIdentities" not in top:
        return ()
    field = "tcbInfo.tdxModuleIdentities"
    found = tuple(
        _module(_object(item, field), f"{field}[{n}]", named=True)
        for n, item in enumerate(_array(top, "tdxModuleIdentities", "tcbInfo", _LEVELS))
    )
    if len({module.id for module in found}) != len(found):
        _bad(field, "each module once", "one twice")
    return found


def _module(item: dict[str, Any], field: str, *, named: bool) -> TdxModule:
    return TdxModule(
        id=_string(item, "id", field).upper() if named else "",
        mrsigner=_hex(item, "mrsigner", field, 48),
        attributes=_hex(item, "attributes", field, 8),
        attributes_mask=_hex(item, "attributesMask", field, 8),
        levels=_isv_levels(item, field) if named else (),
    )


def _isv_levels(parent: dict[str, Any], field: str) -> tuple[IsvLevel, ...]:
    levels = []
    for n, item in enumerate(_array(parent, "tcbLevels", field, _LEVELS)):
        where = f"{field}.tcbLevels[{n}]"
        level = _object(item, where)
        isvsvn = _int(_object(_member(level, "tcb", where), where), "isvsvn", where, 0xFFFF)
        levels.append(
            IsvLevel(
                isvsvn=isvsvn,
                date=_time(level, "tcbDate", where),
                status=_status(level, where),
                advisories=_advisories(level, where),
            )
        )
    levels.sort(key=lambda level: level.isvsvn, reverse=True)
    return tuple(levels)


def read_qe_identity(body: bytes) -> QeIdentity:
    """Read the body of a QE or TD_QE identity, version 2.

    Raises:
        MalformedEvidence: a member missing, of another type or size.
        UnsupportedEvidence: another version, or the identity of another enclave (QVE).
    """
    field = "enclaveIdentity"
    top = _object(read_json(body, field=field), field)
    if (version := _int(top, "version", field, 0xFFFF)) != 2:
        raise UnsupportedEvidence(f"QE identity version: wanted 2, seen {version}")
    if (name := _string(top, "id", field)) not in ("QE", "TD_QE"):
        raise UnsupportedEvidence(f"enclave identity: wanted QE or TD_QE, seen {name[:20]!a}")
    return QeIdentity(
        id=name, version=version,
        issue_date=_time(top, "issueDate", field), next_update=_time(top, "nextUpdate", field),
        evaluation_number=_int(top, "tcbEvaluationDataNumber", field, 0xFFFFFFFF),
        miscselect=_hex(top, "miscselect", field, 4), miscselect_mask=_hex(top, "miscselectMask", field, 4),
        attributes=_hex(top, "attributes", field, 16), attributes_mask=_hex(top, "attributesMask", field, 16),
        mrsigner=_hex(top, "mrsigner", field, 32), isvprodid=_int(top, "isvprodid", field, 0xFFFF),
        levels=_isv_levels(top, field),
    )  # fmt: skip


# --- documents as served ----------------------------------------------------------------------------------------------


def read_signed_document(data: bytes, kind: DocumentKind, *, issuer_chain: tuple[bytes, ...] = ()) -> SignedDocument:
    """Read a PCS answer `{"tcbInfo": {...}, "signature": "hex"}`. `body` is the exact span of the inner object.

    Raises:
        MalformedEvidence: not exactly these two members once each, or a signature of other than 64 bytes.
    """
    body, signature = split_document(data, kind)
    return SignedDocument(kind=kind, body=body, signature=signature, issuer_chain=issuer_chain)


_CHAINS = ("pck_crl_issuer_chain", "tcb_info_issuer_chain", "qe_identity_issuer_chain", "pck_certificate_chain")
_CRLS = ("root_ca_crl", "pck_crl")
_DOCUMENTS: tuple[tuple[str, DocumentKind], ...] = (
    ("tcb_info", DocumentKind.INTEL_TCB_INFO),
    ("qe_identity", DocumentKind.INTEL_QE_IDENTITY),
)


RECORD_KEYS = (*_CHAINS, *_CRLS, "tcb_info", "qe_identity")
"""The members of a collateral record."""


def read_collateral_json(data: bytes, *, source: str = "") -> Endorsements:
    """Read a collateral record: PEM chains, hex CRLs, JSON documents as strings with hex signatures.

    An absent, null or empty member is a piece that is not there; members of other names are left alone.

    Raises:
        MalformedEvidence: no member that we know, a piece of another type, a document without its signature.
    """
    record = _object(read_json(data, field="collateral"), "collateral")
    if not any(record.get(name) for name in RECORD_KEYS):
        _bad("collateral", "a collateral record", "none of its members")
    chains = {name: _optional(record, name, lambda v, f: read_pem_chain(v.encode(), field=f)) or () for name in _CHAINS}
    crls = tuple(crl for name in _CRLS if (crl := _optional(record, name, _unhex)))
    documents = tuple(
        SignedDocument(
            kind=kind,
            body=body.encode(),
            signature=_hex(record, f"{name}_signature", "collateral", 64),
            issuer_chain=chains[f"{name}_issuer_chain"],
        )
        for name, kind in _DOCUMENTS
        if (body := _optional(record, name, lambda value, _: value))
    )
    certificates = chains["pck_certificate_chain"] + chains["pck_crl_issuer_chain"]
    return Endorsements(
        certificates=tuple(dict.fromkeys(certificates)),
        crls=crls,
        documents=documents,
        sources=(source,) if source else (),
    )


def _optional(record: dict[str, Any], name: str, read: Callable[[str, str], Any]) -> Any:
    value = record.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        _bad(f"collateral.{name}", "a string", type(value).__name__)
    if not value.isascii():
        _bad(f"collateral.{name}", "ASCII text", value)
    return read(value, f"collateral.{name}")


def read_component_names(body: bytes) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What TCB info calls its 16 SGX and 16 TDX components, as `BIOS, Early Microcode Update`; empty where unnamed.

    For people only: nothing is judged by these words.

    Raises:
        MalformedEvidence: no TCB info that `read_tcb_info` would read.
    """
    top = _object(read_json(body, field="tcbInfo"), "tcbInfo")
    levels = _array(top, "tcbLevels", "tcbInfo", _LEVELS)
    tcb = _object(_member(_object(levels[0] if levels else None, "tcbInfo"), "tcb", "tcbInfo"), "tcbInfo")
    return _names(tcb.get("sgxtcbcomponents")), _names(tcb.get("tdxtcbcomponents"))


def _names(items: object) -> tuple[str, ...]:
    if not isinstance(items, list) or len(items) != COMPONENTS:
        return ("",) * COMPONENTS
    found = []
    for item in items:
        words = [item.get(key) for key in ("category", "type")] if isinstance(item, dict) else []
        found.append(", ".join(word[:60] for word in words if isinstance(word, str) and word))
    return tuple(found)
