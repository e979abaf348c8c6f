"""The PCK certificate of an Intel quote, and its chain to an anchor.

Source: Intel SGX PCK Certificate and CRL Profile Specification.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from attestable_mcp.errors import ChainInvalid, EndorsementUnavailable, SignatureInvalid
from attestable_mcp.rats import ClaimValue, Endorsements, Finding
from attestable_mcp.verify.anchors import TrustAnchor
from attestable_mcp.verify.memory import Memory, anchor_digest
from attestable_mcp.verify.trail import Trail
from attestable_mcp.verify.x509 import Certificate, Path, Shelf, signature_holds, walk
from attestable_mcp.wire.intel import IntelQuote
from attestable_mcp.wire.pck import PckExtension, read_pck_extension

PCS = "https://api.trustedservices.intel.com"
_CAS = {"Platform CA": "platform", "Processor CA": "processor"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pck:
    """The PCK certificate of a quote with its proven chain. `ca` is platform or processor."""

    certificate: Certificate
    extension: PckExtension
    path: Path
    ca: str
    findings: tuple[Finding, ...]


def prove_pck(
    quote: IntelQuote, endorsements: Endorsements, anchors: tuple[TrustAnchor, ...], at: datetime, memory: Memory,
    trail: Trail, shelf: Shelf,
) -> Pck:  # fmt: skip
    """The quote's PCK, which signed its QE report, with its chain to an anchor; remembered by its bytes.

    Its validity is looked at beside the collateral. Raises: as `verify.intel.verify`.
    """
    key = ("pck", anchor_digest(anchors), hashlib.sha256(quote.certification_data).digest())
    known: Pck | None = memory.recall(key, at) if quote.certificates else None
    if known is not None:
        _check_qe_signature(quote, known.certificate, trail)
        trail.extend(known.findings)
        return known
    leaf, pool = find_pck(quote, endorsements, trail, shelf)
    _check_qe_signature(quote, leaf, trail)
    start = len(trail.findings)
    pck = _walk_pck(leaf, pool, anchors, at, trail, start, shelf)
    if quote.certificates:
        memory.remember(key, pck, pck.path.window)
    return pck


def _walk_pck(
    leaf: Certificate, pool: Sequence[Certificate], anchors: tuple[TrustAnchor, ...], at: datetime, trail: Trail,
    start: int, shelf: Shelf,
) -> Pck:  # fmt: skip
    check = "intel.pck.chain"
    extension = read_pck_extension(leaf.sgx_extension or b"")
    path = walk(leaf, pool, anchors, at=at, trail=trail, check=check, shelf=shelf, demand_timely=False)
    ca = ca_name(path.certificates[1].common_name) if len(path.certificates) == 3 else None
    if ca is None:
        seen = " < ".join(f"{certificate.common_name!a}" for certificate in path.certificates)
        trail.refuse(ChainInvalid, check, wanted="PCK certificate < PCK Platform or Processor CA < root", seen=seen)
    trail.passed(check, f"{path.anchor.name}, {ca} CA")
    return Pck(certificate=leaf, extension=extension, path=path, ca=ca, findings=trail.findings[start:])


def ca_name(common_name: str) -> str | None:
    """`platform` or `processor`, as services name the CA of this common name."""
    return next((name for text, name in _CAS.items() if common_name.endswith(text)), None)


def find_pck(
    quote: IntelQuote, endorsements: Endorsements, trail: Trail, shelf: Shelf
) -> tuple[Certificate, tuple[Certificate, ...]]:
    """The PCK certificate, and every certificate at hand. It is known by its SGX extension; order says nothing.

    Raises: ChainInvalid with the code `pck_missing`; EndorsementUnavailable.
    """
    own = shelf.pool(quote.certificates)
    others = endorsements.certificates + tuple(
        der for document in endorsements.documents for der in document.issuer_chain
    )
    pool = own + shelf.pool(others)
    leaves = [certificate for certificate in (own or pool) if certificate.sgx_extension is not None]
    if quote.certificates:
        if len(leaves) != 1:
            wanted = "one certificate with the SGX extension in the quote"
            trail.refuse(ChainInvalid, "intel.pck.chain", wanted=wanted, seen=str(len(leaves)), code="pck_missing")
        return leaves[0], pool
    if not leaves:
        raise EndorsementUnavailable(
            "intel.pck.chain: the quote names its PCK by encrypted PPID (certification data type 3), "
            "and no PCK certificate is at hand",
            hint=f"Fetch the PCK chain with the encrypted PPID ({PCS}/sgx/certification/v4/pckcert) and give it as "
            "endorsements.",
        )
    signers = [leaf for leaf in leaves if signature_holds(leaf.key, quote.qe_report_signature, quote.qe_report.raw)]
    return (signers or leaves)[0], pool


def _check_qe_signature(quote: IntelQuote, pck: Certificate, trail: Trail) -> None:
    check = "intel.qe.report_signature"
    if not signature_holds(pck.key, quote.qe_report_signature, quote.qe_report.raw):
        trail.refuse(SignatureInvalid, check, wanted="a signature by the PCK", seen="none that holds")
    trail.passed(check)


def pck_fields(certificate: Certificate, extension: PckExtension, ca: str) -> dict[str, ClaimValue]:
    """What the PCK certificate says of the platform, under its names in claims."""
    handle = certificate.handle
    values: dict[str, ClaimValue] = {
        "fmspc": extension.fmspc.hex(),
        "pck_cpusvn": extension.cpusvn.hex(),
        "pck_pcesvn": extension.pcesvn,
        "pck_pceid": extension.pce_id.hex(),
        "pck_ca": ca,
        "pck_not_before": handle.not_valid_before_utc.isoformat(),
        "pck_not_after": handle.not_valid_after_utc.isoformat(),
        "ppid": extension.ppid.hex(),
    }
    if extension.platform_instance_id is not None:
        values["piid"] = extension.platform_instance_id.hex()
    flags = {
        "dynamic_platform": extension.dynamic_platform,
        "cached_keys": extension.cached_keys,
        "smt_enabled": extension.smt_enabled,
    }
    return values | {name: flag for name, flag in flags.items() if flag is not None}
