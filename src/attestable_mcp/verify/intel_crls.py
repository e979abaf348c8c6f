"""Intel's revocation lists: which of a bag are an issuer's, hold, are in force, and list none of its certificates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from attestable_mcp.errors import ChainInvalid, EndorsementStale, MalformedEvidence, Revoked, SignatureInvalid
from attestable_mcp.verify.memory import Window
from attestable_mcp.verify.trail import Trail
from attestable_mcp.verify.x509 import FOREIGN, Certificate
from attestable_mcp.wire import der as asn1


@dataclass(frozen=True, slots=True, kw_only=True)
class Crl:
    """A readable CRL and the DER of its issuer's name."""

    handle: x509.CertificateRevocationList = field(repr=False)
    issuer: bytes


def read_crls(crls: Iterable[bytes]) -> tuple[Crl, ...]:
    """The readable CRLs of an untrusted bag."""
    found = []
    for der in dict.fromkeys(crls):
        try:
            handle = x509.load_der_x509_crl(der)
            found.append(Crl(handle=handle, issuer=_crl_issuer(handle.tbs_certlist_bytes)))
        except (MalformedEvidence, *FOREIGN):
            continue
    return tuple(found)


def _crl_issuer(signed: bytes) -> bytes:
    """The second SEQUENCE of a TBSCertList: version (an INTEGER) may stand first, the algorithm before the issuer."""
    _, at, _ = asn1.span(signed, 0)
    tag, _, end = asn1.span(signed, at)
    if tag == asn1.INTEGER:
        _, _, end = asn1.span(signed, end)
    return signed[end : asn1.span(signed, end)[2]]


def crls_of(issuer_name: bytes, crls: Sequence[Crl]) -> tuple[x509.CertificateRevocationList, ...]:
    """Those whose issuer has this name."""
    return tuple(crl.handle for crl in crls if crl.issuer == issuer_name)


def check_crls(
    issuer: Certificate,
    named: Sequence[x509.CertificateRevocationList],
    serials: dict[int, str],
    *,
    at: datetime,
    trail: Trail,
    check: str,
) -> Window:
    """Demand one CRL that `issuer` signed and that is in force at `at`; no CRL that it signed may list a certificate.

    `serials` maps serial numbers to names for the report. Answers the window in which this holds.

    Raises:
        Revoked, SignatureInvalid, EndorsementStale, ChainInvalid.
    """
    if not issuer.may_sign_crls:
        trail.refuse(ChainInvalid, check, wanted="a CA that may sign CRLs", seen=f"{issuer.common_name!a}")
    signed = [crl for crl in named if _crl_holds(crl, issuer.key)]
    if not signed:
        trail.refuse(SignatureInvalid, check, wanted=f"a CRL signed by {issuer.common_name!a}", seen="a bad signature")
    for crl in signed:
        _demand_unlisted(crl, serials, trail, check)
    windows = [window for crl in signed if (window := _crl_window(crl)) is not None]
    current = [window for window in windows if at in window]
    if not current:
        seen = (
            ", ".join(f"{w.start:%Y-%m-%dT%H:%M:%SZ} to {w.end:%Y-%m-%dT%H:%M:%SZ}" for w in windows) or "no nextUpdate"
        )
        trail.refuse(EndorsementStale, check, wanted=f"a CRL in force at {at:%Y-%m-%dT%H:%M:%SZ}", seen=seen)
    best = max(current, key=lambda window: window.end)
    trail.passed(check, f"not revoked, CRL until {best.end:%Y-%m-%dT%H:%M:%SZ}")
    return best


def _crl_holds(crl: x509.CertificateRevocationList, key: ec.EllipticCurvePublicKey) -> bool:
    """Signed by this key, and complete: a critical extension would narrow what the list speaks for (RFC 5280 §5.2)."""
    try:
        return not any(extension.critical for extension in crl.extensions) and crl.is_signature_valid(key)
    except (InvalidSignature, *FOREIGN):
        return False


def _demand_unlisted(crl: x509.CertificateRevocationList, serials: dict[int, str], trail: Trail, check: str) -> None:
    for serial, name in serials.items():
        try:
            entry = crl.get_revoked_certificate_by_serial_number(serial)
        except FOREIGN as error:
            trail.refuse(ChainInvalid, check, reason=f"the CRL cannot be read: {error}")
        if entry is not None:
            trail.refuse(Revoked, check, wanted="no revoked certificate", seen=f"{name}, serial {serial:x}, is revoked")


def _crl_window(crl: x509.CertificateRevocationList) -> Window | None:
    try:
        until = crl.next_update_utc
        return None if until is None else Window(start=crl.last_update_utc, end=until)
    except FOREIGN:
        return None
