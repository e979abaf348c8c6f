"""SEV-SNP reports: signature by a VCEK or VLEK, AMD's chain and CRL, and what the certificate says of chip and TCB.

Checks not made here, on purpose: VMPL, guest policy bits (debug is claimed), PLATFORM_INFO, TCB floors and whether a
product may be trusted at all are questions of policy; the certificate's TCB is compared with REPORTED_TCB for equality
only. `tcb_status` stays empty: AMD publishes levels, not statuses. Sources: AMD 56860 (ABI), 57230 (VCEK, KDS).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING

from attestable_mcp.errors import (
    ChainInvalid,
    EndorsementUnavailable,
    EvidenceError,
    MalformedEvidence,
    SignatureInvalid,
)
from attestable_mcp.rats import _MINT, Claims, ClaimValue, EndorsementQuery, Endorsements, Evidence, Tee, Verified
from attestable_mcp.verify.chain import Path, check_revocation, ends_of, read_pool, walk
from attestable_mcp.verify.description import Description
from attestable_mcp.verify.signature import holds
from attestable_mcp.verify.trail import Trail
from attestable_mcp.wire import der
from attestable_mcp.wire.snp import (
    Product,
    SigningKey,
    SnpReport,
    Tcb,
    hardware_id,
    read_certificate_table,
    read_report,
    read_tcb,
)
from attestable_mcp.wire.x509 import X509Leaf

if TYPE_CHECKING:
    from attestable_mcp.verify.anchors import TrustAnchors
    from attestable_mcp.verify.memory import Memory

_ARC = "1.3.6.1.4.1.3704.1."
PRODUCT_NAME, HWID, CSP_ID = _ARC + "2", _ARC + "4", _ARC + "5"
_LEVELS = {"bl": _ARC + "3.1", "tee": _ARC + "3.2", "snp": _ARC + "3.3", "ucode": _ARC + "3.8"}
_FMC = _ARC + "3.9"
_PRODUCTS = {
    "Milan": Product.MILAN,
    "Genoa": Product.GENOA,
    "Bergamo": Product.GENOA,
    "Siena": Product.GENOA,
    "Turin": Product.TURIN,
}
_IA5_STRING = 0x16
_P384 = 48
_NO_CRL = "AMD's certificate revocation list: none was given, so a revoked intermediate would not be noticed"
_NO_CHIP = "the platform's identity: the report's chip id is {}"


def query(evidence: Evidence) -> EndorsementQuery:
    """What AMD's key service has to be asked for; the parameters are those of `EndorsementQuery`.

    Raises: MalformedEvidence, UnsupportedEvidence.
    """
    report = read_report(evidence.body)
    product = report.product
    parameters = {
        "signing_key": str(report.signing_key),
        "product": str(product or ""),
        "chip_id": hardware_id(report.chip_id, product or Product.GENOA).hex(),
        "reported_tcb": report.reported_tcb.hex(),
    }
    return EndorsementQuery(tee=Tee.SEV_SNP, parameters=parameters)


def describe(evidence: Evidence) -> Description:
    """Every field of the report, unverified. Raises: EvidenceError."""
    report = read_report(evidence.body)
    values = _report_values(report) | _policy_values(report)
    if report.product is not None:
        values |= {"product": str(report.product)} | _tcb_values(report, report.product)
    carried = tuple(hashlib.sha256(raw).hexdigest() for raw in _carried(report))
    return Description(tee=Tee.SEV_SNP, values=values, certificates=carried)


def verify(
    evidence: Evidence, endorsements: Endorsements, *, anchors: TrustAnchors, at: datetime, memory: Memory
) -> Verified:
    """Verify a report against AMD's roots.

    Raises: EvidenceError, EndorsementUnavailable (no VCEK or VLEK, or no chain), SignatureInvalid, ChainInvalid,
        Revoked, EndorsementStale.
    """
    trail = Trail()
    report = read_report(evidence.body)
    if report.signing_key is SigningKey.NONE:
        trail.refuse(SignatureInvalid, "snp.report.signature", wanted="VCEK or VLEK", seen="an unsigned report")
    pool = read_pool((*endorsements.certificates, *_carried(report)))
    signer = _signer(report, pool, trail)
    path = walk(
        signer, pool, anchors.amd, at=at, trail=trail, check="snp.vek.chain", memory=memory,
        incomplete=EndorsementUnavailable,
    )  # fmt: skip
    crl_until = check_revocation(path, endorsements.crls, at=at, trail=trail, check="snp.vek.revocation", memory=memory)
    product = _check_signer(report, signer, trail)
    return _mint(evidence, report, path, product, trail, at=at, crl_until=crl_until)


def _carried(report: SnpReport) -> Iterable[bytes]:
    """Certificates of an extended report. What follows a report is unsigned: it is a bag like any other, or nothing."""
    try:
        return read_certificate_table(report.trailing).values() if report.trailing else ()
    except MalformedEvidence:
        return ()


def _signer(report: SnpReport, pool: tuple[X509Leaf, ...], trail: Trail) -> X509Leaf:
    """The endorsement key certificate whose key signed the report."""
    candidates = [certificate for certificate in pool if certificate.extension(_LEVELS["bl"])]
    if not candidates:
        raise EndorsementUnavailable(
            f"snp.report.signature: no {report.signing_key} certificate for chip {report.chip_id.hex()[:16]}…",
            hint="Let the server staple it, or fetch it from AMD's key service.",
        )
    signer = next((candidate for candidate in candidates if _signed(report, candidate)), None)
    if signer is None:
        reason = "; ".join(dict.fromkeys(_stranger(report, candidate) for candidate in candidates))
        wanted = "a signature by the certificate's key"
        trail.refuse(SignatureInvalid, "snp.report.signature", wanted=wanted, seen="one that fails", reason=reason)
    trail.passed("snp.report.signature", str(report.signing_key))
    return signer


def _signed(report: SnpReport, candidate: X509Leaf) -> bool:
    if not (report.r >> 8 * _P384 == 0 and report.s >> 8 * _P384 == 0):
        return False
    signature = report.r.to_bytes(_P384, "big") + report.s.to_bytes(_P384, "big")
    try:
        return holds("ecdsa", "sha384", candidate.spki, signature, report.signed)
    except EvidenceError:
        return False


def _stranger(report: SnpReport, candidate: X509Leaf) -> str:
    """Why this certificate cannot be the report's, if it says so: a person has most likely taken the wrong one."""
    try:
        product = _product(candidate)
        stated = candidate.extension(HWID)
        if stated and _hardware_id(stated.value) != hardware_id(report.chip_id, product):
            return "the certificate given is that of another chip"
        if _levels(candidate, product) != read_tcb(report.reported_tcb, product):
            return "the certificate given is that of another TCB level"
    except EvidenceError:
        return "the certificate given is not one of AMD's endorsement keys"
    return "the report was altered, or the certificate is of another key"


def _check_signer(report: SnpReport, signer: X509Leaf, trail: Trail) -> Product:
    """What AMD signed about the key: kind, product, TCB and chip have to be those of the report (attacks.md E9)."""
    has_hwid, has_csp = signer.extension(HWID) is not None, signer.extension(CSP_ID) is not None
    kind = SigningKey.VLEK if has_csp and not has_hwid else SigningKey.VCEK
    trail.demand(kind is report.signing_key, ChainInvalid, "snp.vek.kind", str(report.signing_key), str(kind))
    product = _product(signer)
    if report.version >= 3:
        seen = str(report.product or f"cpuid {report.cpuid.hex()}")
        trail.demand(report.product is product, ChainInvalid, "snp.vek.product", str(product), seen)
    levels, reported = _levels(signer, product), read_tcb(report.reported_tcb, product)
    trail.demand(levels == reported, ChainInvalid, "snp.vek.tcb", str(levels), str(reported))
    _check_chip(report, signer, product, trail)
    return product


def _check_chip(report: SnpReport, signer: X509Leaf, product: Product, trail: Trail) -> None:
    stated = signer.extension(HWID)
    chip = hardware_id(report.chip_id, product)
    if report.mask_chip_key and any(report.chip_id):
        trail.refuse(ChainInvalid, "snp.vek.hwid", wanted="a masked chip id of zeros", seen=report.chip_id.hex())
    if product is Product.TURIN and any(report.chip_id[8:]):
        trail.refuse(ChainInvalid, "snp.vek.hwid", wanted="zeros after 8 bytes of chip id", seen=report.chip_id.hex())
    if stated is None or not any(report.chip_id):
        trail.skipped("snp.vek.hwid", "the report names no chip")
        return
    wanted = _hardware_id(stated.value)
    trail.demand(wanted == chip, ChainInvalid, "snp.vek.hwid", wanted.hex(), chip.hex())


def _hardware_id(value: bytes) -> bytes:
    """HWID stands raw (8 or 64 bytes) or as a DER OCTET STRING around it."""
    if len(value) in (8, 64):
        return value
    return der.parse(value, der.OCTET_STRING, field="HWID").body


def _product_name(certificate: X509Leaf) -> str:
    extension = certificate.extension(PRODUCT_NAME)
    if extension is None:
        raise MalformedEvidence("AMD certificate: no product name", field="productName")
    return der.parse(extension.value, _IA5_STRING, field="productName").body.decode("ascii", "replace")


def _product(certificate: X509Leaf) -> Product:
    """`Milan-B0` is a Milan. The stepping after the dash is the certificate's, not always the chip's."""
    name = _product_name(certificate).split("-")[0]
    if name not in _PRODUCTS:
        raise MalformedEvidence(f"AMD certificate: unknown product {name!r}", field="productName")
    return _PRODUCTS[name]


def _levels(certificate: X509Leaf, product: Product) -> Tcb:
    fmc = _level(certificate, _FMC) if product is Product.TURIN else None
    return Tcb(**{name: _level(certificate, oid) for name, oid in _LEVELS.items()}, fmc=fmc)


def _level(certificate: X509Leaf, oid: str) -> int:
    extension = certificate.extension(oid)
    if extension is None:
        raise MalformedEvidence("AMD certificate: a TCB level is missing", field=oid)
    level = der.read_integer(der.parse(extension.value, der.INTEGER, field=oid))
    if not 0 <= level <= 255:
        raise MalformedEvidence(f"AMD certificate: wanted a TCB level of 0 to 255, seen {level}", field=oid)
    return level


def _mint(
    evidence: Evidence,
    report: SnpReport,
    path: Path,
    product: Product,
    trail: Trail,
    *,
    at: datetime,
    crl_until: datetime | None,
) -> Verified:
    if report.trailing:
        trail.skipped("snp.report.trailing", f"{len(report.trailing)} bytes after the report are under no signature")
    ends = ends_of(path, crl_until)
    return Verified(
        _MINT,
        claims=Claims(
            tee=Tee.SEV_SNP,
            values=_values(report, path.certificates[0], product),
            report_data=report.report_data,
            debug=report.policy.debug,
            tcb_status="",
            signed=frozenset(_signer_values(report, path.certificates[0], product))
            - frozenset(_tcb_values(report, product)),
        ),
        evidence_digest=evidence.digest,
        signed_digest=hashlib.sha256(report.signed).hexdigest(),
        findings=trail.findings,
        anchor=path.anchor.spki_sha256,
        anchor_name=path.anchor.name,
        simulated=path.anchor.simulated,
        at=at,
        valid_until=min(moment for _, moment in ends),
        ends=ends,
        not_proven=tuple(_not_proven(report, crl_until)),
    )


def _not_proven(report: SnpReport, crl_until: datetime | None) -> Iterable[str]:
    if crl_until is None:
        yield _NO_CRL
    if report.mask_chip_key:
        yield _NO_CHIP.format("masked")
    elif not any(report.chip_id):
        yield _NO_CHIP.format("zero")


def _values(report: SnpReport, signer: X509Leaf, product: Product) -> dict[str, ClaimValue]:
    return _report_values(report) | _policy_values(report) | _signer_values(report, signer, product)


def _report_values(report: SnpReport) -> dict[str, ClaimValue]:
    octets = (
        "family_id", "image_id", "current_tcb", "reported_tcb", "committed_tcb", "launch_tcb", "launch_mit",
        "current_mit", "cpuid", "cur_ver", "com_ver", "measurement", "report_data", "host_data", "id_key_digest",
        "author_key_digest", "report_id", "report_id_ma", "chip_id",
    )  # fmt: skip
    found: dict[str, ClaimValue] = {name: getattr(report, name).hex() for name in octets}
    found |= {"version": report.version, "guest_svn": report.guest_svn, "vmpl": report.vmpl}
    found |= {"signing_key": str(report.signing_key), "platform_info": hex(report.platform_info)}
    found |= {"mask_chip_key": int(report.mask_chip_key), "author_key_en": int(report.author_key_en)}
    return found | {"alias_check_complete": report.alias_check_complete}


def _policy_values(report: SnpReport) -> dict[str, ClaimValue]:
    policy = report.policy
    bits = {"smt": 16, "migrate_ma": 18, "single_socket": 20}
    found: dict[str, ClaimValue] = {name: int(policy.bit(number)) for name, number in bits.items()}
    return found | {"policy": hex(policy.raw), "abi": policy.abi, "debug": policy.debug}


def _tcb_values(report: SnpReport, product: Product) -> dict[str, ClaimValue]:
    tcb = read_tcb(report.reported_tcb, product)
    found: dict[str, ClaimValue] = {"tcb_bl": tcb.bl, "tcb_tee": tcb.tee, "tcb_snp": tcb.snp, "tcb_ucode": tcb.ucode}
    return found if tcb.fmc is None else found | {"tcb_fmc": tcb.fmc}


def _signer_values(report: SnpReport, signer: X509Leaf, product: Product) -> dict[str, ClaimValue]:
    found = _tcb_values(report, product)
    if csp := signer.extension(CSP_ID):
        found["csp_id"] = der.parse(csp.value, _IA5_STRING, field="CSP_ID").body.decode("ascii", "replace")
    name = _product_name(signer)
    return found | {"product": str(product), "vek_product": name, "vek_serial": str(signer.serial)}
