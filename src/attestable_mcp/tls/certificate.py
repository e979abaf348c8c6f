"""A key born here, and a short-lived certificate whose evidence speaks of that key. The key never leaves memory."""

from __future__ import annotations

import hashlib
import ipaddress
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import product

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from attestable_mcp.attest.base import Attester
from attestable_mcp.errors import ConfigurationError, EndorsementUnavailable
from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind, Tee
from attestable_mcp.tls.engine import CERTIFICATE_LIST_MAX
from attestable_mcp.wire import ratls
from attestable_mcp.wire.kinds import KINDS, kind_of_tee
from attestable_mcp.wire.stapled import tagged_endorsements

DEFAULT_LIFETIME = timedelta(hours=24)
BACKDATED = timedelta(minutes=1)
"""For verifiers whose clock is a little behind."""
EVIDENCE_LIVES: Mapping[str, timedelta] = {Tee.NITRO: timedelta(hours=2)}
"""Evidence that expires by itself, with time to spare: AWS certifies an enclave's key for three hours."""
_MESSAGE_OVERHEAD = 512
_log = logging.getLogger(__name__)


def lifetime_of(attester: Attester, wanted: timedelta) -> timedelta:
    """How long a certificate of this attester may live: no longer than the evidence in it."""
    return min(wanted, EVIDENCE_LIVES.get(attester.tee, wanted))


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate (DER), its key (PKCS #8 PEM, not shown in repr) and the lower-case hex SHA-256 of its SPKI."""

    certificate_der: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    spki_sha256: str
    not_before: datetime
    not_after: datetime
    evidence: Evidence = field(repr=False)


def issue(
    attester: Attester,
    hosts: Sequence[str],
    *,
    lifetime: timedelta = DEFAULT_LIFETIME,
    now: datetime | None = None,
) -> Issued:
    """A self-signed P-256 certificate for `hosts` (names or addresses) with evidence and, where there is, collateral.

    A client's certificate names no host.

    Blocks for as long as the device takes. The certificate lives no longer than the evidence in it. `now` is
    timezone-aware, the present time if not given.

    Raises:
        AttesterError: of the device. UnsupportedEvidence: a TEE of no known kind.
        ConfigurationError: a host or a lifetime that no certificate can carry.
    """
    if lifetime <= timedelta(0):
        raise ConfigurationError(f"certificate lifetime: wanted above zero, seen {lifetime}")
    lifetime = lifetime_of(attester, lifetime)
    start = ((now or datetime.now(UTC)) - BACKDATED).replace(microsecond=0)
    key = ec.generate_private_key(ec.SECP256R1())
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    builder = _builder(key, hosts, start, start + BACKDATED + lifetime)
    evidence, candidates = _attested(attester, spki)
    return Issued(
        certificate_der=_sign(builder, key, candidates),
        key_pem=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        spki_sha256=hashlib.sha256(spki).hexdigest(),
        not_before=start,
        not_after=start + BACKDATED + lifetime,
        evidence=evidence,
    )


_Extensions = Mapping[str, bytes]


def _attested(attester: Attester, spki: bytes) -> tuple[Evidence, Iterator[_Extensions]]:
    """Evidence for this key, and what may be said of it in a certificate: the fullest first, the least last."""
    kind = kind_of_tee(attester.tee)
    if kind is EvidenceKind.INTEL_QUOTE:
        claims = ratls.pubkey_claims(spki)
        evidence = attester.attest(ratls.claims_report_data(claims))
        return evidence, _tagged(evidence, claims, attester.endorsements())
    evidence = attester.attest(ratls.key_report_data(spki))
    return evidence, _wrapped(evidence, attester.endorsements())


def _tagged(evidence: Evidence, claims: bytes, endorsements: Endorsements) -> Iterator[_Extensions]:
    """Collateral before event logs: without it some clients prove nothing, without a log they know less."""
    bare = {ratls.OID_TAGGED_EVIDENCE: ratls.tagged_evidence(evidence.body, claims)}
    logs = endorsements.event_logs
    logged = {ratls.OID_CMW: ratls.wrapped_endorsements(Endorsements(documents=logs))} if logs else {}
    collateral: _Extensions = {}
    if len(endorsements.documents) > len(logs):
        try:
            collateral = {ratls.OID_ENDORSEMENTS: tagged_endorsements(endorsements)}
        except EndorsementUnavailable as error:
            _log.warning("no collateral stapled: %s", error.message)
    choices: tuple[_Extensions, ...] = ({**collateral, **logged}, collateral, logged, {})
    yield from (bare | dict(extras) for at, extras in enumerate(choices) if extras not in choices[:at])


def _wrapped(evidence: Evidence, endorsements: Endorsements) -> Iterator[_Extensions]:
    slim = Evidence(kind=evidence.kind, body=KINDS[evidence.kind].slim(evidence.body))
    bags = (endorsements, None) if endorsements.certificates or endorsements.crls or endorsements.documents else (None,)
    for each, bag in product(dict.fromkeys((evidence, slim)), bags):
        yield {ratls.OID_CMW: ratls.wrapped_evidence(each, bag)}


def _builder(
    key: ec.EllipticCurvePrivateKey, hosts: Sequence[str], start: datetime, end: datetime
) -> x509.CertificateBuilder:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "attestable-mcp")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if not hosts:
        return builder
    return builder.add_extension(x509.SubjectAlternativeName([_host(host) for host in hosts]), critical=False)


def _sign(
    builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey, candidates: Iterator[_Extensions]
) -> bytes:
    """With the fullest of the candidates that fits into what TLS peers take; the last if none does."""
    der = b""
    for number, extensions in enumerate(candidates):
        full = builder
        for oid, value in extensions.items():
            full = full.add_extension(_extension(oid, value), critical=False)
        der = full.sign(key, SHA256()).public_bytes(Encoding.DER)
        if number:
            _log.warning("certificate: collateral or event log left out, TLS peers take %d bytes", CERTIFICATE_LIST_MAX)
        if len(der) + _MESSAGE_OVERHEAD <= CERTIFICATE_LIST_MAX:
            break
    return der


def _extension(oid: str, value: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not host:
        raise ConfigurationError("certificate host: wanted a name or an address, seen none")
    try:
        return x509.DNSName(host.encode("idna").decode("ascii"))
    except (ValueError, UnicodeError) as error:
        raise ConfigurationError(f"certificate host: wanted a name or an address, seen {host!r:.80}") from error
