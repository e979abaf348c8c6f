"""Certificates and revocation lists, shaped like Intel's (SGX PCK Certificate and CRL Profile)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from attestable_mcp.simulator import der
from attestable_mcp.simulator.keys import DETERMINISTIC, private_key, serial
from attestable_mcp.simulator.options import Certificates, Platform, Validity

SGX_EXTENSION = "1.2.840.113741.1.13.1"
ORGANISATION = "SIMULATED, trusted by nobody"
ROOT_NAME = "SIMULATED SGX Root CA"
TCB_SIGNING_NAME = "Intel SGX TCB Signing"
PCK_NAME = "Intel SGX PCK Certificate"
_CRL_PLACE = "https://simulated.invalid/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """A key with the certificate for it."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def der(self) -> bytes:
        """The certificate, DER."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> str:
        """The certificate, PEM with a final newline."""
        return self.certificate.public_bytes(Encoding.PEM).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pki:
    """Everybody who signs, under one root."""

    root: Party
    pck_ca: Party
    pck: Party
    tcb_signing: Party
    other: Party
    """Like the TCB signer in all but its name."""
    stranger: ec.EllipticCurvePrivateKey
    """A key that no certificate of this root names."""


def name_of(common_name: str) -> x509.Name:
    """A subject in Intel's attribute order: CN, O, L, ST, C."""
    parts = (
        (NameOID.COMMON_NAME, common_name),
        (NameOID.ORGANIZATION_NAME, ORGANISATION),
        (NameOID.LOCALITY_NAME, "Nowhere"),
        (NameOID.STATE_OR_PROVINCE_NAME, "NA"),
        (NameOID.COUNTRY_NAME, "XX"),
    )
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts])


def pck_ca_name(platform: Platform) -> str:
    """`Intel SGX PCK Platform CA` or `Intel SGX PCK Processor CA`: readers choose the CRL by it."""
    return f"Intel SGX PCK {platform.pck_ca.capitalize()} CA"


def _usage(*, ca: bool) -> x509.KeyUsage:
    """Intel's CAs may sign certificates and CRLs, its leaves have digital signature and non-repudiation."""
    return x509.KeyUsage(
        digital_signature=not ca, content_commitment=not ca, key_cert_sign=ca, crl_sign=ca,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


def _certificate(
    seed: bytes, common_name: str, key: ec.EllipticCurvePrivateKey, validity: Validity, issuer: Party | None
) -> x509.CertificateBuilder:
    """What all have in common; basic constraints, key usage and extensions of its own are the caller's."""
    subject = name_of(common_name)
    issuer_key = issuer.key if issuer else key
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(serial(seed, common_name))
        .not_valid_before(validity.not_before)
        .not_valid_after(validity.not_after)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(_distribution_point(common_name), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _distribution_point(common_name: str) -> x509.CRLDistributionPoints:
    place = x509.UniformResourceIdentifier(_CRL_PLACE + hashlib.sha256(common_name.encode()).hexdigest()[:16] + ".crl")
    return x509.CRLDistributionPoints(
        [x509.DistributionPoint(full_name=[place], relative_name=None, reasons=None, crl_issuer=None)]
    )


def _sign(builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return builder.sign(key, hashes.SHA256(), ecdsa_deterministic=DETERMINISTIC or None)


def _ca(
    builder: x509.CertificateBuilder, path_length: int, *, ca: bool = True, usage: bool = True
) -> x509.CertificateBuilder:
    constraints = x509.BasicConstraints(ca=ca, path_length=path_length if ca else None)
    return builder.add_extension(_usage(ca=usage), critical=True).add_extension(constraints, critical=True)


def _leaf(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    constraints = x509.BasicConstraints(ca=False, path_length=None)
    return builder.add_extension(_usage(ca=False), critical=True).add_extension(constraints, critical=True)


def build(seed: bytes, platform: Platform, options: Certificates) -> Pki:
    """The whole PKI of a seed for one platform. Keys follow from the seed alone, certificates from the options too."""
    root = _root(seed, options)
    pck_ca = _pck_ca(seed, platform, options, root)
    stranger = private_key(seed, "stranger")
    pck = _pck(seed, platform, options, pck_ca, stranger)
    tcb_signing = _signer(seed, TCB_SIGNING_NAME, options.tcb_signing, root)
    other = _signer(seed, "Intel SGX Something Else", options.tcb_signing, root)
    return Pki(root=root, pck_ca=pck_ca, pck=pck, tcb_signing=tcb_signing, other=other, stranger=stranger)


def _root(seed: bytes, options: Certificates) -> Party:
    key = private_key(seed)
    return Party(key=key, certificate=_sign(_ca(_certificate(seed, ROOT_NAME, key, options.root, None), 1), key))


def _pck_ca(seed: bytes, platform: Platform, options: Certificates, root: Party) -> Party:
    common_name = pck_ca_name(platform)
    key = private_key(seed, common_name)
    builder = _certificate(seed, common_name, key, options.pck_ca, root)
    builder = _ca(builder, 0, ca=options.pck_ca_is_ca, usage=options.pck_ca_key_usage)
    return Party(key=key, certificate=_sign(builder, root.key))


def _signer(seed: bytes, common_name: str, validity: Validity, root: Party) -> Party:
    key = private_key(seed, common_name)
    builder = _leaf(_certificate(seed, common_name, key, validity, root))
    return Party(key=key, certificate=_sign(builder, root.key))


def _pck(
    seed: bytes, platform: Platform, options: Certificates, pck_ca: Party, stranger: ec.EllipticCurvePrivateKey
) -> Party:
    key = private_key(seed, f"PCK {platform.ppid.hex()} {platform.pck_ca}")
    builder = _leaf(_certificate(seed, PCK_NAME, key, options.pck, pck_ca))
    if options.pck_sgx_extension:
        builder = builder.add_extension(_sgx_extension(sgx_extension(platform, options)), critical=False)
    if options.pck_unknown_critical_extension:
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.840.113741.1.13.99"), der.boolean(True))
        builder = builder.add_extension(unknown, critical=True)
    return Party(key=key, certificate=_sign(builder, stranger if options.pck_signed_by_stranger else pck_ca.key))


def _sgx_extension(value: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(SGX_EXTENSION), value)


def sgx_extension(platform: Platform, options: Certificates) -> bytes:
    """The SGX extension's value: PPID, TCB, PCEID, FMSPC, SGX type; under a platform CA more."""
    fields = [
        _field("1", der.octets(platform.ppid)),
        _field("2", _tcb(platform, options)),
        _field("3", der.octets(platform.pceid)),
        _field("4", der.octets(platform.fmspc)),
        _field("5", der.enumerated(platform.sgx_type)),
    ]
    if platform.pck_ca == "platform":
        fields += [_field("6", der.octets(platform.platform_instance_id)), _field("7", _configuration(platform))]
    if options.pck_fmspc_twice:
        fields.append(_field("4", der.octets(platform.fmspc)))
    return der.sequence(*fields)


def _field(arc: str, value: bytes) -> bytes:
    return der.sequence(der.oid(f"{SGX_EXTENSION}.{arc}"), value)


def _tcb(platform: Platform, options: Certificates) -> bytes:
    """16 component SVNs at arcs 2.1 to 2.16, PCESVN at 2.17, CPUSVN at 2.18."""
    components = (*platform.components, 0)[: options.pck_components]
    numbered = [_field(f"2.{number}", der.integer(svn)) for number, svn in enumerate(components[:16], start=1)]
    extra = [_field("2.16", der.integer(svn)) for svn in components[16:]]
    rest = [_field("2.17", der.integer(platform.pcesvn)), _field("2.18", der.octets(platform.cpusvn))]
    return der.sequence(*numbered, *extra, *rest)


def _configuration(platform: Platform) -> bytes:
    switches = (platform.dynamic_platform, platform.cached_keys, platform.smt_enabled)
    return der.sequence(*(_field(f"7.{number}", der.boolean(on)) for number, on in enumerate(switches, start=1)))


def revocation_list(
    issuer: Party, key: ec.EllipticCurvePrivateKey, revoked: Iterable[int], issued: datetime, expires: datetime
) -> bytes:
    """A version 2 CRL, DER: number, authority key id, and a reason on each entry, as Intel's have them."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(issued)
        .next_update(expires)
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
    )
    for number in revoked:
        builder = builder.add_revoked_certificate(_revoked(number, issued))
    signed = builder.sign(key, hashes.SHA256(), ecdsa_deterministic=DETERMINISTIC or None)
    return signed.public_bytes(Encoding.DER)


def _revoked(number: int, when: datetime) -> x509.RevokedCertificate:
    reason = x509.CRLReason(x509.ReasonFlags.key_compromise)
    builder = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(when)
    return builder.add_extension(reason, critical=False).build()
