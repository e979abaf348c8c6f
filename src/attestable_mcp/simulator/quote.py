"""SGX and TDX quotes, versions 3 to 5 (Intel SGX and TDX DCAP Quoting Library API, appendix A)."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from attestable_mcp.simulator.collateral import QeProfile
from attestable_mcp.simulator.keys import conjugate, point, sign_raw
from attestable_mcp.simulator.options import SGX_DEBUG, TD_DEBUG, Platform, Quote, QuotingEnclave, SgxBody, TdxBody
from attestable_mcp.simulator.pki import Pki

SGX_TEE_TYPE = 0x00
TDX_TEE_TYPE = 0x81
_QE_REPORT_CERTIFICATION = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """Whoever signs a quote: the platform's PCK over the QE, the QE's attestation key over the body."""

    pki: Pki
    platform: Platform
    profile: QeProfile
    attestation_key: ec.EllipticCurvePrivateKey


def sgx_body(report_data: bytes, mrenclave: bytes, cpusvn: bytes, body: SgxBody) -> bytes:
    """A 384-byte enclave report body."""
    flags = body.flags | (SGX_DEBUG if body.debug else 0)
    return b"".join((
        body.cpusvn if body.cpusvn is not None else cpusvn, body.miscselect, bytes(12), body.isvextprodid,
        struct.pack("<QQ", flags, body.xfrm), mrenclave, bytes(32), body.mrsigner, bytes(32), body.configid,
        struct.pack("<HHH", body.isvprodid, body.isvsvn, body.configsvn), bytes(42), body.isvfamilyid, report_data,
    ))  # fmt: skip


def tdx_body(report_data: bytes, tee_tcb_svn: bytes, body: TdxBody) -> bytes:
    """A TD report body: 584 bytes, or 648 for TDX 1.5."""
    attributes = body.tdattributes | (TD_DEBUG if body.debug else 0)
    svn = tee_tcb_svn if body.tee_tcb_svn is None else body.tee_tcb_svn
    parts = [
        svn, body.mrseam, body.mrsignerseam, body.seamattributes, struct.pack("<Q", attributes), body.xfam,
        body.mrtd, body.mrconfigid, body.mrowner, body.mrownerconfig, *body.rtmr, report_data,
    ]  # fmt: skip
    if body.td15:
        parts += [svn if body.tee_tcb_svn_2 is None else body.tee_tcb_svn_2, body.mrservicetd]
    return b"".join(parts)


def assemble(signing: Signing, body: bytes, *, tee_type: int, version: int, body_type: int, options: Quote) -> bytes:
    """Header, body, signature section and trailing bytes: a whole quote."""
    descriptor = struct.pack("<HI", body_type, len(body)) if version >= 5 else b""
    signed = _header(version, tee_type, options) + descriptor + body
    section = _signature_section(signing, signed, version, options)
    return signed + struct.pack("<I", len(section)) + section + options.trailing


def _header(version: int, tee_type: int, options: Quote) -> bytes:
    """48 bytes. Version 3 holds zeros for the TEE type, then QE and PCE SVN, which later versions reserve."""
    svns = (options.qe.isvsvn, 0) if version == 3 else (0, 0)
    tee = options.tee_type if options.tee_type is not None else tee_type
    head = struct.pack("<HHIHH", version, options.attestation_key_type, tee, *svns)
    return head + options.qe_vendor_id + options.user_data


def _signature_section(signing: Signing, signed: bytes, version: int, options: Quote) -> bytes:
    signature = _spoil(
        sign_raw(signing.attestation_key, signed), options.bad_isv_signature, options.conjugate_signatures
    )
    qe = _qe_section(signing, options)
    if version >= 4:
        qe = struct.pack("<HI", _QE_REPORT_CERTIFICATION, len(qe)) + qe
    return signature + point(signing.attestation_key) + qe


def _qe_section(signing: Signing, options: Quote) -> bytes:
    """QE report, its signature by the PCK, authentication data, certification data."""
    report = _qe_report(signing, options)
    key = signing.pki.stranger if options.qe.signed_by_stranger else signing.pki.pck.key
    signature = _spoil(sign_raw(key, report), options.bad_qe_signature, options.conjugate_signatures)
    auth = struct.pack("<H", len(options.auth_data)) + options.auth_data
    certification = _certification(signing, options)
    return (
        report + signature + auth + struct.pack("<HI", options.certification_type, len(certification)) + certification
    )


def _spoil(signature: bytes, bad: bool, other_form: bool) -> bytes:
    signature = conjugate(signature) if other_form else signature
    return signature[:-1] + bytes([signature[-1] ^ 1]) if bad else signature


def _qe_report(signing: Signing, options: Quote) -> bytes:
    qe: QuotingEnclave = options.qe
    profile = signing.profile
    commitment = hashlib.sha256(point(signing.attestation_key) + options.auth_data).digest() + bytes(32)
    flags, xfrm = struct.unpack("<QQ", qe.attributes)
    body = SgxBody(
        mrsigner=profile.mrsigner if qe.mrsigner is None else qe.mrsigner,
        isvprodid=profile.isvprodid if qe.isvprodid is None else qe.isvprodid,
        isvsvn=qe.isvsvn, miscselect=qe.miscselect, flags=flags, xfrm=xfrm,
    )  # fmt: skip
    mrenclave = hashlib.sha256(b"simulated " + profile.id.encode()).digest()
    report_data = commitment if qe.report_data is None else qe.report_data
    return sgx_body(report_data, mrenclave, signing.platform.cpusvn, body)


def _certification(signing: Signing, options: Quote) -> bytes:
    if options.certification_type == 5:
        parties = {"pck": signing.pki.pck, "ca": signing.pki.pck_ca, "root": signing.pki.root}
        pem = "".join(parties[name].pem for name in options.chain_order).encode()
        return pem + (b"\0" if options.nul_terminated else b"")
    platform = signing.platform
    # Nobody can tell the RSA-OAEP cipher text of a PPID from other bytes of its length without Intel's key.
    ppid = platform.ppid if options.certification_type == 1 else hashlib.shake_256(platform.ppid).digest(384)
    return ppid + platform.cpusvn + struct.pack("<H", platform.pcesvn) + platform.pceid
