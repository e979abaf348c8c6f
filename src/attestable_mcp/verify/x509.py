"""Intel's certificate chains over `cryptography`: P-256 throughout, anchors compared by key.

`cryptography`'s own path validation refuses every TEE chain and checks no revocation, so the walk is ours (RFC 5280
§6.1 without policies and name constraints, which Intel's profile does not use): order is not fixed, the root may be
absent, each link is checked for name, signature, validity, basicConstraints with path length, keyUsage, and unknown
critical extensions. Not checked: authority key identifiers (names and signatures decide) and the root's own
signature (it is believed for its key).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import SignatureAlgorithmOID

from attestable_mcp.errors import ChainInvalid, EndorsementUnavailable, MalformedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.verify.anchors import SIMULATED_ROOT, TrustAnchor
from attestable_mcp.verify.memory import Window
from attestable_mcp.verify.trail import Trail
from attestable_mcp.wire import der as asn1
from attestable_mcp.wire.pck import SGX_EXTENSION_OID

FOREIGN = (
    ValueError, TypeError, OverflowError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType, x509.AttributeNotFound,
)  # fmt: skip
"""What `cryptography` raises over certificates and CRLs that it cannot read."""
_ECDSA_SHA256 = ec.ECDSA(hashes.SHA256())
_SECOND = timedelta(seconds=1)
_SGX_OID = x509.ObjectIdentifier(SGX_EXTENSION_OID)
_ECDSA_SHA256_DER = asn1.encode_sequence(asn1.encode_oid(SignatureAlgorithmOID.ECDSA_WITH_SHA256.dotted_string))
_SPKI_SIZE = 91
"""Of a P-256 key with its point uncompressed."""
_VERSION = 0xA0
_COMMON_NAME = "2.5.4.3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What the walk needs of one P-256 certificate. `sgx_extension` is the raw value of Intel's SGX extension."""

    der: bytes
    handle: x509.Certificate = field(repr=False)
    key: ec.EllipticCurvePublicKey = field(repr=False)
    spki_sha256: str
    subject: bytes
    issuer: bytes
    common_name: str
    serial: int
    window: Window
    is_ca: bool
    path_length: int | None
    may_sign_certificates: bool
    may_sign_crls: bool
    may_sign_data: bool
    unknown_critical: str
    sgx_extension: bytes | None
    algorithms_agree: bool = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """A proven chain: `certificates` leaf first, the one that holds the anchor's key last."""

    certificates: tuple[Certificate, ...]
    anchor: TrustAnchor
    window: Window

    @property
    def root(self) -> Certificate:
        """The certificate that carries the anchor's key."""
        return self.certificates[-1]

    @property
    def simulated(self) -> bool:
        """Does this path stand for no hardware? The anchor says so, or the root's subject does."""
        return self.anchor.simulated or b"SIMULATED" in self.root.subject


class Unreadable(ValueError):
    """A certificate or CRL that is not one, or not of Intel's profile. Never leaves this room."""


def read_certificate(der: bytes, names: dict[bytes, str] | None = None) -> Certificate:
    """Read one DER certificate. `names` keeps the common names of DER names that were read before.

    Raises:
        Unreadable: not a certificate, or another key than P-256, or another signature than ECDSA with SHA-256.
    """
    try:
        return _read_certificate(der, {} if names is None else names)
    except (MalformedEvidence, *FOREIGN) as error:
        raise Unreadable(f"{type(error).__name__}: {str(error)[:160]}") from error


def _read_certificate(der: bytes, names: dict[bytes, str]) -> Certificate:
    """`cryptography` reads it all, but names are compared as raw spans: its Name objects are slow to encode."""
    handle = x509.load_der_x509_certificate(der)
    key = handle.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Unreadable("the key is not on P-256")
    if handle.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA256:
        raise Unreadable("the signature is not ECDSA with SHA-256")
    algorithm, issuer, subject, spki = _spans(handle.tbs_certificate_bytes)
    if len(spki) != _SPKI_SIZE:  # a compressed point: anchors name the key in its usual form
        spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if subject not in names:
        names[subject] = _common_name(subject)
    if issuer not in names:
        names[issuer] = _common_name(issuer)
    constraints, usage, sgx, unknown = _read_extensions(handle.extensions)
    return Certificate(
        der=der, handle=handle, key=key, spki_sha256=hashlib.sha256(spki).hexdigest(),
        subject=subject, issuer=issuer, common_name=names[subject], serial=handle.serial_number,
        window=Window(start=handle.not_valid_before_utc, end=handle.not_valid_after_utc + _SECOND),
        is_ca=constraints is not None and constraints.ca,
        path_length=constraints.path_length if constraints else None,
        may_sign_certificates=usage is not None and usage.key_cert_sign,
        may_sign_crls=usage is not None and usage.crl_sign,
        may_sign_data=usage is not None and usage.digital_signature,
        unknown_critical=unknown, sgx_extension=sgx, algorithms_agree=algorithm == _ECDSA_SHA256_DER,
    )  # fmt: skip


def _read_extensions(
    extensions: x509.Extensions,
) -> tuple[x509.BasicConstraints | None, x509.KeyUsage | None, bytes | None, str]:
    """What is looked at, and the last critical extension that is not understood."""
    constraints = usage = sgx = None
    unknown = ""
    for extension in extensions:
        value = extension.value
        kind = type(value)
        if kind is x509.BasicConstraints:
            constraints = value
        elif kind is x509.KeyUsage:
            usage = value
        else:
            if kind is x509.UnrecognizedExtension and extension.oid == _SGX_OID:
                sgx = value.value
            if extension.critical:
                unknown = extension.oid.dotted_string
    return constraints, usage, sgx, unknown


def _spans(signed: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    """Algorithm, issuer, subject and SubjectPublicKeyInfo of a TBSCertificate (RFC 5280 §4.1)."""
    _, at, _ = asn1.span(signed, 0)
    if signed[at] == _VERSION:
        _, _, at = asn1.span(signed, at)
    ends = [asn1.span(signed, at)[2]]
    for _ in range(5):
        ends.append(asn1.span(signed, ends[-1])[2])
    serial, algorithm, issuer, validity, subject, key = ends
    return signed[serial:algorithm], signed[algorithm:issuer], signed[validity:subject], signed[subject:key]


def _common_name(name: bytes) -> str:
    """The one common name of a DER Name; empty if there is none, or more than one.

    Read here, since `cryptography` warns on stderr about each attribute of a length that it does not expect.
    """
    found = []
    sets = asn1.parse(name, asn1.SEQUENCE, field="name").reader()
    while not sets.empty:
        members = sets.read(asn1.SET).reader()
        while not members.empty:
            pair = members.read(asn1.SEQUENCE).reader()
            if asn1.read_oid(pair.read(asn1.OID)) == _COMMON_NAME:
                found.append(pair.read().body.decode("utf-8", "replace"))
    return found[0] if len(found) == 1 else ""


class Shelf:
    """What one verification has read and checked of certificates, so that it does so once. Never outlives it."""

    def __init__(self) -> None:
        self._names: dict[bytes, str] = {}
        self._read: dict[bytes, Certificate | None] = {}
        self._issued: dict[tuple[bytes, bytes], bool] = {}

    def pool(self, certificates: Iterable[bytes]) -> tuple[Certificate, ...]:
        """The readable certificates of an untrusted bag. One that cannot be read can prove nothing and is left out."""
        found = (self._get(der) for der in dict.fromkeys(certificates))
        return tuple(certificate for certificate in found if certificate is not None)

    def _get(self, der: bytes) -> Certificate | None:
        if der not in self._read:
            try:
                self._read[der] = read_certificate(der, self._names)
            except Unreadable:
                self._read[der] = None
        return self._read[der]

    def issued(self, certificate: Certificate, issuer: Certificate) -> bool:
        """Did `issuer` sign `certificate`?"""
        pair = certificate.der, issuer.der
        if pair not in self._issued:
            self._issued[pair] = _issued_by(certificate, issuer)
        return self._issued[pair]


def signature_holds(key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes) -> bool:
    """Does r || s (64 bytes) verify over `message` with ECDSA P-256 and SHA-256?"""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), message, _ECDSA_SHA256)
    except (InvalidSignature, *FOREIGN):
        return False
    return True


@lru_cache(maxsize=LIMITS.remembered)
def point_key(point: bytes) -> ec.EllipticCurvePublicKey | None:
    """A P-256 public key from x || y (64 bytes); None if that is no point of the curve."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + point)
    except FOREIGN:
        return None


def _issued_by(certificate: Certificate, issuer: Certificate) -> bool:
    handle = certificate.handle
    try:
        if not certificate.algorithms_agree or certificate.issuer != issuer.subject:
            return False
        issuer.key.verify(handle.signature, handle.tbs_certificate_bytes, _ECDSA_SHA256)
    except (InvalidSignature, *FOREIGN):
        return False
    return True


def walk(
    leaf: Certificate,
    pool: Sequence[Certificate],
    anchors: tuple[TrustAnchor, ...],
    *,
    at: datetime,
    trail: Trail,
    check: str,
    shelf: Shelf,
    demand_timely: bool = True,
) -> Path:
    """Walk from `leaf` through `pool` to a certificate whose key one of `anchors` names.

    With `demand_timely` False the caller checks the path's window itself (`demand_window`), after what matters more.

    Raises:
        ChainInvalid: a link does not hold; `untrusted_root` or `simulated_evidence` where the root is not an anchor.
        EndorsementUnavailable: an issuer is in no piece at hand.
    """
    by_key = {anchor.spki_sha256: anchor for anchor in anchors}
    path = [leaf]
    _demand_usable(leaf, 0, trail, check)
    while path[-1].spki_sha256 not in by_key:
        issuer = _issuer(path, pool, by_key, at, trail, check, shelf)
        path.append(issuer)
        _demand_usable(issuer, len(path) - 1, trail, check)
    window = path[0].window
    for certificate in path[1:]:
        window = window & certificate.window
    found = Path(certificates=tuple(path), anchor=by_key[path[-1].spki_sha256], window=window)
    if demand_timely:
        demand_window(found, at=at, trail=trail, check=check)
    return found


def demand_window(path: Path, *, at: datetime, trail: Trail, check: str) -> None:
    """Refuse a path of which a certificate is outside its validity at `at`.

    Raises:
        ChainInvalid: with the code `certificate_expired`.
    """
    for certificate in path.certificates:
        window = certificate.window
        if at not in window:
            trail.refuse(
                ChainInvalid, check, wanted=f"{certificate.common_name!a} valid at {at:%Y-%m-%dT%H:%M:%SZ}",
                seen=f"{window.start:%Y-%m-%dT%H:%M:%SZ} to {window.end - _SECOND:%Y-%m-%dT%H:%M:%SZ}",
                code="certificate_expired",
            )  # fmt: skip


def _issuer(
    path: list[Certificate],
    pool: Sequence[Certificate],
    by_key: dict[str, TrustAnchor],
    at: datetime,
    trail: Trail,
    check: str,
    shelf: Shelf,
) -> Certificate:
    last = path[-1]
    if last.subject == last.issuer:
        _refuse_root(last, tuple(by_key.values()), trail, check)
    if len(path) >= LIMITS.chain:
        trail.refuse(ChainInvalid, check, wanted=f"at most {LIMITS.chain} certificates", seen="more")
    named = [candidate for candidate in pool if candidate.subject == last.issuer and candidate not in path]
    if not named and any(candidate.subject == candidate.issuer for candidate in pool):
        trail.refuse(
            ChainInvalid, check, wanted="a chain from the certificate to the root beside it", code="chain_broken",
            seen=f"nobody who could have issued {last.common_name!a}",
        )  # fmt: skip
    if not named:
        raise EndorsementUnavailable(
            f"{check}: no certificate at hand for the issuer of {last.common_name or 'a certificate'!a}",
            hint="Give the vendor's certificate chain, root included, as endorsements.",
        )
    named.sort(key=lambda c: (c.spki_sha256 not in by_key, at not in c.window))
    issuer = next((candidate for candidate in named if shelf.issued(last, candidate)), None)
    if issuer is None:
        trail.refuse(
            ChainInvalid, check, wanted="a signature by the issuer that the certificate names",
            seen=f"{last.common_name!a} is not signed by it", code="chain_signature_invalid",
        )  # fmt: skip
    return issuer


def _refuse_root(root: Certificate, anchors: tuple[TrustAnchor, ...], trail: Trail, check: str) -> None:
    """By the subject's mark where no simulated root is pinned; where one is, another simulated root is a stranger's."""
    marked = root.spki_sha256 == SIMULATED_ROOT.spki_sha256 or b"SIMULATED" in root.subject
    simulated = marked and not any(anchor.simulated for anchor in anchors)
    if simulated:
        trail.refuse(
            ChainInvalid, check, wanted="a pinned root", seen=f"the simulator's root {root.common_name!a}, "
            f"key {root.spki_sha256}", code="simulated_evidence",
            hint="Simulated evidence proves no hardware. For a trial, accept it by name in the policy.",
        )  # fmt: skip
    trail.refuse(
        ChainInvalid, check, wanted="a pinned root", seen=f"root {root.common_name!a}, key {root.spki_sha256}",
        code="untrusted_root", hint="If this is your deployment's own root, name it as trust anchor.",
    )  # fmt: skip


def _demand_usable(certificate: Certificate, depth: int, trail: Trail, check: str) -> None:
    """`depth` is 0 for the leaf, 1 for its issuer, and so on: a path length counts the CAs below."""
    name = f"{certificate.common_name!a}"
    if certificate.unknown_critical:
        seen = f"{name} has {certificate.unknown_critical}"
        trail.refuse(ChainInvalid, check, wanted="no unknown critical extension", seen=seen)
    if depth == 0:
        if certificate.is_ca or not certificate.may_sign_data:
            trail.refuse(ChainInvalid, check, wanted="an end-entity certificate that signs data", seen=name)
        return
    too_deep = certificate.path_length is not None and certificate.path_length < depth - 1
    if not certificate.is_ca or not certificate.may_sign_certificates or too_deep:
        trail.refuse(ChainInvalid, check, wanted="a CA that may sign this certificate", seen=f"{name} may not")
