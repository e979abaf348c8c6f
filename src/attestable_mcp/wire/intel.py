"""Intel ECDSA quotes: SGX (versions 3, 4, 5) and TDX (versions 4, 5).

Bytes to fields, nothing judged: no key, no clock. Every length field is obeyed exactly; what follows the quote must be
zeros, and is counted. `signed` is the span that the attestation key signs, as it was received.

Sources: Intel SGX ECDSA Quote Library Reference and Intel TDX DCAP Quoting Library API (quote versions 3, 4 and 5).
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from dataclasses import dataclass
from functools import lru_cache
from struct import Struct

from attestable_mcp.errors import MalformedEvidence, UnsupportedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import ClaimValue, Tee

HEADER_SIZE = 48
SGX_REPORT_SIZE = 384
TD_REPORT_10_SIZE = 584
TD_REPORT_15_SIZE = 648

ATTESTATION_KEY_ECDSA_P256 = 2
CERTIFICATION_ENCRYPTED_PPID = 3
CERTIFICATION_PCK_CHAIN = 5
CERTIFICATION_QE_REPORT = 6

BODY_SGX = 1
BODY_TD_10 = 2
BODY_TD_15 = 3

_TEE_TYPES = {0x00: Tee.SGX, 0x81: Tee.TDX}
_BODY_SIZES = {BODY_SGX: SGX_REPORT_SIZE, BODY_TD_10: TD_REPORT_10_SIZE, BODY_TD_15: TD_REPORT_15_SIZE}
_HEADER = Struct("<HHIHH16s20s")
_U16 = Struct("<H")
_U32 = Struct("<I")
_SGX_REPORT = Struct("<16s4s12s16s16s32s32s32s32s64sHHH42s16s64s")
_TD_REPORT = Struct("<16s48s48s8s8s8s48s48s48s48s48s48s48s48s64s")
_TD_REPORT_15_TAIL = Struct("<16s48s")
_REMEMBERED_CHAIN = 16 * 1024
"""Longest PEM chain in bytes of which the decoding is remembered: an Intel chain has less than 5000."""
_PEM_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxReport:
    """The 384-byte report body of an enclave. Byte strings as in the quote; SVNs and product ids are integers.

    `attributes` is 8 bytes of flags and 8 bytes of XFRM. Source: Intel SDM volume 3D, REPORT structure.
    """

    raw: bytes
    cpusvn: bytes
    miscselect: bytes
    isvextprodid: bytes
    attributes: bytes
    mrenclave: bytes
    mrsigner: bytes
    configid: bytes
    isvprodid: int
    isvsvn: int
    configsvn: int
    isvfamilyid: bytes
    report_data: bytes

    @property
    def debug(self) -> bool:
        """Flag DEBUG, bit 1 of the attribute flags: the enclave's memory can be read and written from outside."""
        return bool(self.attributes[0] & 0x02)


@dataclass(frozen=True, slots=True, kw_only=True)
class TdReport:
    """The body of a TD quote: TD report 1.0 (584 bytes) or 1.5 (648 bytes, the last two fields set).

    `tee_tcb_svn` is that of the TDX module at the TD's launch, `tee_tcb_svn2` that of the module running now.
    """

    raw: bytes
    tee_tcb_svn: bytes
    mr_seam: bytes
    mr_signer_seam: bytes
    seam_attributes: bytes
    td_attributes: bytes
    xfam: bytes
    mr_td: bytes
    mr_config_id: bytes
    mr_owner: bytes
    mr_owner_config: bytes
    rtmr0: bytes
    rtmr1: bytes
    rtmr2: bytes
    rtmr3: bytes
    report_data: bytes
    tee_tcb_svn2: bytes | None = None
    mr_service_td: bytes | None = None

    @property
    def debug(self) -> bool:
        """TD_ATTRIBUTES bit 0: the TD runs in off-TD debug mode."""
        return bool(self.td_attributes[0] & 0x01)


@dataclass(frozen=True, slots=True, kw_only=True)
class IntelQuote:
    """A parsed quote, nothing of it verified.

    `signed` is the received span under `signature` (r || s, 64 bytes). `attestation_key` is x || y, 64 bytes.
    `qe_auth_data` may be empty. `certificates` holds the DER certificates of certification data type 5, in the
    order of the quote; `certification_data` the raw bytes of any type. `trailing` counts zero bytes after the quote.
    `body_type` is set for version 5 only.
    """

    raw: bytes
    version: int
    tee: Tee
    body_type: int | None
    qe_vendor_id: bytes
    user_data: bytes
    signed: bytes
    body: SgxReport | TdReport
    signature: bytes
    attestation_key: bytes
    qe_report: SgxReport
    qe_report_signature: bytes
    qe_auth_data: bytes
    certification_data_type: int
    certification_data: bytes
    certificates: tuple[bytes, ...]
    trailing: int

    @property
    def report_data(self) -> bytes:
        """The 64 bytes that the Attester chose."""
        return self.body.report_data

    @property
    def debug(self) -> bool:
        """Is the enclave or TD open to a debugger?"""
        return self.body.debug


class _Cursor:
    """A position in the quote that names the field on every refusal."""

    __slots__ = ("data", "end", "position")

    def __init__(self, data: bytes, position: int, end: int) -> None:
        self.data = data
        self.position = position
        self.end = end

    def take(self, size: int, name: str) -> bytes:
        start = self.position
        if size > self.end - start:
            raise MalformedEvidence(
                f"quote is cut short: wanted {size} bytes, {self.end - start} are left", field=name, offset=start
            )
        self.position = start + size
        return self.data[start : self.position]

    def u16(self, name: str) -> int:
        value: int = _U16.unpack(self.take(2, name))[0]
        return value

    def u32(self, name: str) -> int:
        value: int = _U32.unpack(self.take(4, name))[0]
        return value

    def nested(self, size: int, name: str) -> _Cursor:
        start = self.position
        self.take(size, name)
        return _Cursor(self.data, start, self.position)

    def finish(self, name: str) -> None:
        if self.position != self.end:
            raise MalformedEvidence(
                f"{self.end - self.position} bytes are left over inside {name}: no field and no signature covers them",
                field=name,
                offset=self.position,
            )


def read_quote(data: bytes) -> IntelQuote:
    """Read one SGX or TDX ECDSA quote.

    Raises:
        MalformedEvidence: a length does not hold, a slack byte is not zero, the PEM chain cannot be decoded.
        UnsupportedEvidence: another version, TEE, key type, body or certification data type than those of this module.
    """
    if len(data) > LIMITS.evidence:
        raise MalformedEvidence(
            f"quote has {len(data)} bytes, at most {LIMITS.evidence} are read", field="quote", offset=0
        )
    data = bytes(data)
    cursor = _Cursor(data, 0, len(data))
    version, tee, vendor, user_data = _read_header(cursor)
    body_type, body = _read_body(cursor, version, tee)
    signed = data[: cursor.position]
    size = cursor.u32("signature_data_size")
    auth = cursor.nested(size, "signature_data")
    trailing = _count_zeros(data, cursor.position)
    signature = auth.take(64, "signature")
    key = auth.take(64, "attestation_key")
    inner = _qe_report_cursor(auth, version)
    qe_report = _sgx_report(inner.take(SGX_REPORT_SIZE, "qe_report"))
    qe_signature = inner.take(64, "qe_report_signature")
    qe_auth = inner.take(inner.u16("qe_auth_data_size"), "qe_auth_data")
    kind, certification, certificates = _read_certification(inner)
    return IntelQuote(
        raw=data, version=version, tee=tee, body_type=body_type, qe_vendor_id=vendor, user_data=user_data,
        signed=signed, body=body, signature=signature, attestation_key=key, qe_report=qe_report,
        qe_report_signature=qe_signature,
        qe_auth_data=qe_auth, certification_data_type=kind, certification_data=certification, certificates=certificates,
        trailing=trailing,
    )  # fmt: skip


def _read_header(cursor: _Cursor) -> tuple[int, Tee, bytes, bytes]:
    version, key_type, tee_type, _, _, vendor, user_data = _HEADER.unpack(cursor.take(HEADER_SIZE, "header"))
    if version not in (3, 4, 5):
        raise UnsupportedEvidence(f"quote version: wanted 3, 4 or 5, seen {version}")
    if key_type != ATTESTATION_KEY_ECDSA_P256:
        raise UnsupportedEvidence(f"attestation key type: wanted 2 (ECDSA P-256), seen {key_type}")
    tee = _TEE_TYPES.get(tee_type)
    if tee is None or (version == 3 and tee is not Tee.SGX):
        raise UnsupportedEvidence(
            f"TEE type of a version {version} quote: wanted 0x0 or 0x81 (not in 3), seen {tee_type:#x}"
        )
    return version, tee, vendor, user_data


def _read_body(cursor: _Cursor, version: int, tee: Tee) -> tuple[int | None, SgxReport | TdReport]:
    described = version == 5
    if described:
        body_type = cursor.u16("body_type")
        size = cursor.u32("body_size")
    else:
        body_type = BODY_SGX if tee is Tee.SGX else BODY_TD_10
        size = _BODY_SIZES[body_type]
    if body_type not in _BODY_SIZES or (body_type == BODY_SGX) != (tee is Tee.SGX):
        raise UnsupportedEvidence(f"body type of a version {version} {tee} quote: seen {body_type}")
    if size != _BODY_SIZES[body_type]:
        raise MalformedEvidence(
            f"size of body type {body_type}: wanted {_BODY_SIZES[body_type]}, seen {size}",
            field="body_size",
            offset=cursor.position - 4,
        )
    raw = cursor.take(size, "body")
    body = _sgx_report(raw) if body_type == BODY_SGX else _td_report(raw)
    return (body_type if described else None), body


def _sgx_report(raw: bytes) -> SgxReport:
    fields = _SGX_REPORT.unpack(raw)
    return SgxReport(
        raw=raw, cpusvn=fields[0], miscselect=fields[1], isvextprodid=fields[3], attributes=fields[4],
        mrenclave=fields[5], mrsigner=fields[7], configid=fields[9], isvprodid=fields[10], isvsvn=fields[11],
        configsvn=fields[12],
        isvfamilyid=fields[14], report_data=fields[15],
    )  # fmt: skip


def _td_report(raw: bytes) -> TdReport:
    fields = _TD_REPORT.unpack_from(raw)
    tail = _TD_REPORT_15_TAIL.unpack_from(raw, TD_REPORT_10_SIZE) if len(raw) == TD_REPORT_15_SIZE else (None, None)
    return TdReport(
        raw=raw, tee_tcb_svn=fields[0], mr_seam=fields[1], mr_signer_seam=fields[2], seam_attributes=fields[3],
        td_attributes=fields[4], xfam=fields[5], mr_td=fields[6], mr_config_id=fields[7], mr_owner=fields[8],
        mr_owner_config=fields[9], rtmr0=fields[10], rtmr1=fields[11], rtmr2=fields[12], rtmr3=fields[13],
        report_data=fields[14], tee_tcb_svn2=tail[0], mr_service_td=tail[1],
    )  # fmt: skip


def _qe_report_cursor(auth: _Cursor, version: int) -> _Cursor:
    """Versions 4 and 5 wrap the QE report, its signature and the certification data in certification data type 6."""
    if version == 3:
        return auth
    kind = auth.u16("certification_data_type")
    if kind != CERTIFICATION_QE_REPORT:
        raise UnsupportedEvidence(f"outer certification data type: wanted 6 (QE report), seen {kind}")
    inner = auth.nested(auth.u32("certification_data_size"), "certification_data")
    auth.finish("signature_data")
    return inner


def _read_certification(cursor: _Cursor) -> tuple[int, bytes, tuple[bytes, ...]]:
    kind = cursor.u16("certification_data_type")
    size = cursor.u32("certification_data_size")
    start = cursor.position
    data = cursor.take(size, "certification_data")
    cursor.finish("signature_data")
    if kind == CERTIFICATION_PCK_CHAIN:
        return kind, data, read_pem_chain(data, field="certification_data", offset=start)
    if kind == CERTIFICATION_ENCRYPTED_PPID:
        return kind, data, ()
    raise UnsupportedEvidence(
        f"certification data type: wanted 5 (PCK chain) or 3 (encrypted PPID), seen {kind}",
        hint="configure the platform's quote provider to put the PCK certificate chain into the quote",
    )


def _count_zeros(data: bytes, start: int) -> int:
    """Attesters hand out fixed buffers (configfs, 8000 bytes): zeros after the quote are padding, all else is not."""
    rest = data[start:]
    if rest.count(0) != len(rest):
        first = next(index for index, byte in enumerate(rest) if byte)
        raise MalformedEvidence(
            "bytes other than zero follow the quote: no signature covers them", field="trailing", offset=start + first
        )
    return len(rest)


def read_pem_chain(data: bytes, *, field: str, offset: int = 0) -> tuple[bytes, ...]:
    """Decode concatenated PEM certificates to DER. Between and after the blocks only white space and NUL may stand.

    Raises:
        MalformedEvidence: no block, another text around the blocks, bad base64, more than `LIMITS.chain` blocks.
    """
    if len(data) <= _REMEMBERED_CHAIN:
        return read_short_chain(data, field, offset)
    return _read_chain(data, field, offset)


@lru_cache(maxsize=64)
def read_short_chain(data: bytes, field: str, offset: int) -> tuple[bytes, ...]:
    """`read_pem_chain`, remembered: every quote of a platform brings the same chain.

    What is remembered is how it decodes, never that it holds.

    Raises:
        MalformedEvidence: as `read_pem_chain`.
    """
    return _read_chain(data, field, offset)


def _read_chain(data: bytes, field: str, offset: int) -> tuple[bytes, ...]:
    found: list[bytes] = []
    position = 0
    for match in _PEM_CERTIFICATE.finditer(data):
        _only_blanks(data, position, match.start(), field, offset)
        found.append(_from_base64(match[1], field, offset + match.start(1)))
        position = match.end()
        if len(found) > LIMITS.chain:
            raise MalformedEvidence(
                f"more than {LIMITS.chain} certificates", field=field, offset=offset + match.start()
            )
    _only_blanks(data, position, len(data), field, offset)
    if not found:
        raise MalformedEvidence("wanted a PEM certificate chain, seen none", field=field, offset=offset)
    return tuple(found)


def _only_blanks(data: bytes, start: int, end: int, field: str, offset: int) -> None:
    if data[start:end].strip(b"\r\n\t \0"):
        raise MalformedEvidence("text that is no certificate stands in a PEM chain", field=field, offset=offset + start)


def _from_base64(text: bytes, field: str, offset: int) -> bytes:
    try:
        return b64decode(text.translate(None, b"\r\n\t "), validate=True)
    except (Base64Error, ValueError) as error:
        raise MalformedEvidence(f"PEM certificate is not base64: {error}", field=field, offset=offset) from error


def quote_fields(quote: IntelQuote) -> dict[str, ClaimValue]:
    """Every field of the quote under its name in claims and reports: lower-case hex, integers, booleans. Unverified."""
    values: dict[str, ClaimValue] = {
        "quote_version": quote.version,
        "tee_type": "0x0" if quote.tee is Tee.SGX else "0x81",
        "certification_data_type": quote.certification_data_type,
        "trailing_bytes_after_quote": quote.trailing,
        "qe_isvsvn": quote.qe_report.isvsvn,
        "debug": quote.debug,
        "report_data": quote.report_data.hex(),
    }
    if quote.body_type is not None:
        values["quote_v5_body_type"] = quote.body_type
    values.update(_sgx_fields(quote.body) if isinstance(quote.body, SgxReport) else _td_fields(quote.body))
    return values


def _sgx_fields(body: SgxReport) -> dict[str, ClaimValue]:
    return {
        "mrenclave": body.mrenclave.hex(),
        "mrsigner": body.mrsigner.hex(),
        "isvprodid": body.isvprodid,
        "isvsvn": body.isvsvn,
        "attributes": body.attributes.hex(),
        "xfrm": body.attributes[8:].hex(),
        "miscselect": body.miscselect.hex(),
        "cpusvn": body.cpusvn.hex(),
        "configid": body.configid.hex(),
        "configsvn": body.configsvn,
        "isvextprodid": body.isvextprodid.hex(),
        "isvfamilyid": body.isvfamilyid.hex(),
    }


def _td_fields(body: TdReport) -> dict[str, ClaimValue]:
    values: dict[str, ClaimValue] = {
        "mr_td": body.mr_td.hex(),
        "mr_seam": body.mr_seam.hex(),
        "mr_signer_seam": body.mr_signer_seam.hex(),
        "seam_attributes": body.seam_attributes.hex(),
        "mr_config_id": body.mr_config_id.hex(),
        "mr_owner": body.mr_owner.hex(),
        "mr_owner_config": body.mr_owner_config.hex(),
        "rtmr0": body.rtmr0.hex(),
        "rtmr1": body.rtmr1.hex(),
        "rtmr2": body.rtmr2.hex(),
        "rtmr3": body.rtmr3.hex(),
        "tee_tcb_svn": body.tee_tcb_svn.hex(),
        "td_attributes": body.td_attributes.hex(),
        "xfam": body.xfam.hex(),
    }
    if body.tee_tcb_svn2 is not None and body.mr_service_td is not None:
        values["tee_tcb_svn2"] = body.tee_tcb_svn2.hex()
        values["mr_service_td"] = body.mr_service_td.hex()
    return values
