"""Certificate chains of vendors other than Intel: AMD (RSA-PSS, serial number 0), AWS, TPM makers, token signers.

Certificates are read by our own strict reader, since `cryptography` announces that it will refuse AMD's. Anchors are
compared by key: vendors re-issue certificates with the same keys. Each certificate on the path is inside its validity,
each issuer is a CA that may sign certificates and allows the length of the path (RFC 5280 §6.1, without policies and
name constraints: none of these vendors uses them, and the reader refuses a critical one).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestable_mcp.errors import (
    AttestationError,
    ChainInvalid,
    EndorsementStale,
    EndorsementUnavailable,
    EvidenceError,
    Revoked,
)
from attestable_mcp.limits import LIMITS
from attestable_mcp.verify.anchors import TrustAnchor
from attestable_mcp.verify.memory import Memory, Window, anchor_digest
from attestable_mcp.verify.signature import certificate_holds
from attestable_mcp.verify.trail import Trail
from attestable_mcp.wire import der
from attestable_mcp.wire.x509 import BASIC_CONSTRAINTS, KEY_USAGE, X509Leaf, read_certificate, read_crl_head

_KEY_CERT_SIGN = 5
_INSTANT = timedelta(microseconds=1)
"""A list holds up to and with its nextUpdate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """A proven path, leaf first, ending in the certificate that holds the anchor's key."""

    certificates: tuple[X509Leaf, ...]
    anchor: TrustAnchor

    @property
    def valid_until(self) -> datetime:
        """The first moment at which a certificate of the path expires."""
        return min(certificate.not_after for certificate in self.certificates)

    @property
    def window(self) -> Window:
        """The time in which every certificate of the path is valid."""
        return Window(start=max(certificate.not_before for certificate in self.certificates), end=self.valid_until)


def ends_of(path: Path, crl_until: datetime | None) -> tuple[tuple[str, datetime], ...]:
    """What of a proven path runs out when, in the words of `Verified.ends`."""
    certificates = ("certificates", path.valid_until)
    return (certificates,) if crl_until is None else (certificates, ("crl", crl_until))


def key_digest(certificate: X509Leaf) -> str:
    """SHA-256 of the SubjectPublicKeyInfo, lower-case hex: how anchors are compared."""
    return hashlib.sha256(certificate.spki).hexdigest()


def read_pool(certificates: Iterable[bytes]) -> tuple[X509Leaf, ...]:
    """The readable certificates of an untrusted bag. One that cannot be read can prove nothing and is left out."""
    found = []
    for raw in certificates:
        try:
            found.append(read_certificate(raw))
        except EvidenceError:
            continue
    return tuple(found)


def walk(
    leaf: X509Leaf,
    pool: Sequence[X509Leaf],
    anchors: Sequence[TrustAnchor],
    *,
    at: datetime,
    trail: Trail,
    check: str,
    memory: Memory | None = None,
    incomplete: type[AttestationError] = ChainInvalid,
) -> Path:
    """Walk from `leaf` to one of `anchors` through `pool`. A path proven before under the same anchors is remembered.

    Raises: ChainInvalid; `incomplete` where an issuer is simply not in the pool (EndorsementUnavailable for vendors
    whose intermediates come from outside, ChainInvalid where the evidence has to bring them).
    """
    key = ("chain", hashlib.sha256(leaf.der).digest(), anchor_digest(tuple(anchors)))
    known: Path | None = memory.recall(key, at) if memory is not None else None
    path = known or _walk(leaf, pool, anchors, at, trail, check, incomplete)
    if memory is not None and known is None:
        memory.remember(key, path, path.window)
    trail.passed(check, path.anchor.name, f"{len(path.certificates)} certificates")
    return path


def _walk(
    leaf: X509Leaf,
    pool: Sequence[X509Leaf],
    anchors: Sequence[TrustAnchor],
    at: datetime,
    trail: Trail,
    check: str,
    incomplete: type[AttestationError],
) -> Path:
    by_key = {anchor.spki_sha256: anchor for anchor in anchors}
    if not by_key:
        trail.refuse(ChainInvalid, check, reason="no trust anchor is configured for this kind of evidence")
    pool = (*pool, *read_pool(anchor.certificate for anchor in anchors if anchor.certificate))
    path = [leaf]
    while key_digest(path[-1]) not in by_key:
        _refuse_unusable(path, at, trail, check)
        path.append(_issuer(path, pool, by_key, at, trail, check, incomplete))
    _refuse_unusable(path, at, trail, check)
    return Path(certificates=tuple(path), anchor=_marked(by_key[key_digest(path[-1])], path[-1]))


def _marked(anchor: TrustAnchor, root: X509Leaf) -> TrustAnchor:
    """A simulated root keeps its mark also where it is handed in under another name: its subject says so."""
    return replace(anchor, simulated=True) if b"SIMULATED" in root.subject else anchor


def _issuer(
    path: list[X509Leaf],
    pool: Sequence[X509Leaf],
    by_key: dict[str, TrustAnchor],
    at: datetime,
    trail: Trail,
    check: str,
    incomplete: type[AttestationError],
) -> X509Leaf:
    """Who signed the last of the path: anchors first (a cross-signed root ends the walk), then those that are valid."""
    last = path[-1]
    named = [candidate for candidate in pool if candidate.subject == last.issuer and candidate not in path]
    if last.issuer == last.subject:
        trail.refuse(
            ChainInvalid, check, wanted="a chain to a pinned root", seen=f"another root, key {key_digest(last)}",
            code="untrusted_root",
        )  # fmt: skip
    if len(path) >= LIMITS.chain:
        trail.refuse(ChainInvalid, check, wanted=f"at most {LIMITS.chain} certificates", seen="more")
    if not named:
        _refuse_incomplete(last, trail, check, incomplete)
    named.sort(key=lambda item: (key_digest(item) not in by_key, not item.not_before <= at <= item.not_after))
    issuer = next((candidate for candidate in named if signed_by(last, candidate)), None)
    if issuer is None:
        wanted = "a certificate signed by the issuer that it names"
        trail.refuse(ChainInvalid, check, wanted=wanted, seen="a signature that fails")
    return issuer


def _refuse_incomplete(last: X509Leaf, trail: Trail, check: str, incomplete: type[AttestationError]) -> None:
    reason = f"the issuer of certificate {last.serial:x} is not there"
    if issubclass(incomplete, EndorsementUnavailable):
        raise incomplete(f"{check}: {reason}", hint="Give the vendor's certificate chain as endorsements.")
    trail.refuse(ChainInvalid, check, reason=reason)


def signed_by(certificate: X509Leaf, issuer: X509Leaf) -> bool:
    """Does the issuer's key verify the signature? False also for algorithms and keys that we do not take."""
    try:
        return certificate_holds(
            certificate.signature_algorithm, issuer.spki, certificate.signature, certificate.tbs
        )  # fmt: skip
    except EvidenceError:
        return False


def _refuse_unusable(path: list[X509Leaf], at: datetime, trail: Trail, check: str) -> None:
    last = path[-1]
    if not last.not_before <= at <= last.not_after:
        trail.refuse(
            ChainInvalid, check, wanted=f"validity at {at:%Y-%m-%dT%H:%M:%SZ}", code="certificate_expired",
            seen=f"{last.not_before:%Y-%m-%dT%H:%M:%SZ} to {last.not_after:%Y-%m-%dT%H:%M:%SZ}",
        )  # fmt: skip
    if len(path) > 1 and not _may_issue(last, below=len(path) - 2):
        trail.refuse(
            ChainInvalid, check, wanted="an issuer that is a CA for this length of path", seen="one that is not"
        )


def is_authority(certificate: X509Leaf) -> bool:
    """Does it say that it may issue certificates?"""
    return _may_issue(certificate, below=0)


def _may_issue(certificate: X509Leaf, *, below: int) -> bool:
    """Says CA, allows the intermediates below by pathLen, and allows signing certificates by keyUsage, if stated."""
    constraints = certificate.extension(BASIC_CONSTRAINTS)
    if constraints is None:
        return False
    reader = der.parse(constraints.value, der.SEQUENCE, field="basicConstraints").reader()
    authority = reader.optional(der.BOOLEAN)
    length = reader.optional(der.INTEGER)
    if authority is None or not der.read_boolean(authority):
        return False
    return _allows_signing_certificates(certificate) and (length is None or der.read_integer(length) >= below)


def _allows_signing_certificates(certificate: X509Leaf) -> bool:
    usage = certificate.extension(KEY_USAGE)
    if usage is None:
        return True
    bits, _ = der.read_bit_string(der.parse(usage.value, der.BIT_STRING, field="keyUsage"))
    return bool(bits) and bool(bits[0] >> 7 - _KEY_CERT_SIGN & 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Crl:
    """A list whose signature held, and when it holds: from `last` to `following`, both included."""

    handle: x509.CertificateRevocationList
    last: datetime
    following: datetime


def check_revocation(
    path: Path, crls: Iterable[bytes], *, at: datetime, trail: Trail, check: str, memory: Memory | None = None
) -> datetime | None:
    """Look up each certificate of the path in the CRL of its issuer, where one is given.

    A list that an issuer signed is remembered; its dates and entries are looked at every time.
    Returns the first nextUpdate of the CRLs used, None where no CRL was used.
    Raises: Revoked, EndorsementStale, ChainInvalid (a CRL that names an issuer of the path without its signature).
    """
    until: datetime | None = None
    lists = tuple(crls)
    for subject, issuer in zip(path.certificates, path.certificates[1:], strict=False):
        for raw in lists:
            crl = _crl_of(raw, issuer, at, trail, check, memory)
            if crl is None:
                continue
            until = crl.following if until is None else min(until, crl.following)
            if crl.handle.get_revoked_certificate_by_serial_number(subject.serial) is not None:
                trail.refuse(
                    Revoked, check, seen=f"serial {subject.serial:x}", reason="the issuer has revoked this certificate"
                )
    if until is not None:
        trail.passed(check, f"CRL until {until:%Y-%m-%dT%H:%M:%SZ}")
    return until


def _crl_of(raw: bytes, issuer: X509Leaf, at: datetime, trail: Trail, check: str, memory: Memory | None) -> _Crl | None:
    """The list in `raw`, if it is one of this issuer's. Raises: ChainInvalid, EndorsementStale."""
    try:
        if read_crl_head(raw).issuer != issuer.subject:
            return None
    except EvidenceError:
        return None
    key = ("crl", hashlib.sha256(raw).digest(), issuer.spki)
    known: _Crl | None = memory.recall(key, at) if memory is not None else None
    if known is not None:
        return known
    try:
        handle = x509.load_der_x509_crl(raw)
    except ValueError:
        return None
    crl = _proven(handle, issuer, at, trail, check)
    if memory is not None:
        memory.remember(key, crl, Window(start=crl.last, end=crl.following + _INSTANT))
    return crl


def _proven(handle: x509.CertificateRevocationList, issuer: X509Leaf, at: datetime, trail: Trail, check: str) -> _Crl:
    algorithm = der.parse(handle.public_bytes(Encoding.DER)).reader()
    algorithm.read(der.SEQUENCE)
    held = certificate_holds(algorithm.read(der.SEQUENCE).raw, issuer.spki, handle.signature, handle.tbs_certlist_bytes)
    if not held:
        trail.refuse(ChainInvalid, check, wanted="a CRL signed by its issuer", seen="a signature that fails")
    _refuse_narrowed(handle, trail, check)
    last, following = handle.last_update_utc, handle.next_update_utc
    if following is None or not last <= at <= following:
        trail.refuse(
            EndorsementStale,
            check,
            wanted=f"a CRL that holds at {at:%Y-%m-%dT%H:%M:%SZ}",
            seen=f"{last} to {following}",
        )
    return _Crl(handle=handle, last=last, following=following)


def _refuse_narrowed(crl: x509.CertificateRevocationList, trail: Trail, check: str) -> None:
    """A critical extension narrows what a list speaks for: to some reasons, some certificates, the changes since
    another list (RFC 5280 §5.2). None of these vendors uses one, and a list that is not understood clears nobody.

    Critical extensions of single entries are not looked at: the entry for a certificate of ours revokes it either way.
    """
    try:
        critical = [item.oid.dotted_string for item in crl.extensions if item.critical]
    except (ValueError, x509.DuplicateExtension) as error:
        trail.refuse(ChainInvalid, check, wanted="a CRL with readable extensions", seen=str(error)[:80],
                     code="crl_invalid")  # fmt: skip
    if critical:
        trail.refuse(ChainInvalid, check, wanted="a CRL without critical extensions", seen=", ".join(critical),
                     code="crl_invalid")  # fmt: skip
