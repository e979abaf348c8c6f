"""A small strict reader of X.509 certificates (RFC 5280 §4.1), for leaves that other libraries refuse.

Gramine writes ECDSA signature algorithms with NULL parameters, which `cryptography` 50 refuses; AMD writes serial
number 0. Both are read here. Nothing is verified: no signature, no validity, no name. Every byte is looked at
(`der.check`), each extension stands once, and a critical extension that this package does not know is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from attestable_mcp.errors import UnsupportedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.wire import der
from attestable_mcp.wire.der import Element, Reader, fail
from attestable_mcp.wire.pem import pem_to_der

__all__ = ["CrlHead", "Extension", "X509Leaf", "pem_to_der", "read_certificate", "read_crl_head"]

KEY_USAGE = "2.5.29.15"
SUBJECT_ALTERNATIVE_NAME = "2.5.29.17"
BASIC_CONSTRAINTS = "2.5.29.19"
EXTENDED_KEY_USAGE = "2.5.29.37"

_VERSION = 0xA0
_EXTENSIONS = 0xA3
_SERIAL_BYTES = 21
"""RFC 5280 §4.1.2.2 allows 20 bytes; one more for the sign of a serial whose high bit is set."""
SHORT = 4096
"""Bytes of a certificate or list whose reading is remembered: vendors' are shorter, those with evidence longer."""
_GENERAL_NAMES = frozenset((0xA0, 0x81, 0x82, 0xA3, 0xA4, 0xA5, 0x86, 0x87, 0x88))


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """`value` is the content of extnValue; `offset` is where it starts in the certificate."""

    oid: str
    critical: bool
    value: bytes
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class X509Leaf:
    """The parts of a certificate. `issuer`, `subject`, `spki`, `tbs` and `signature_algorithm` are exact DER spans.

    `tbs` is what `signature` covers. Times are timezone-aware UTC.
    """

    der: bytes
    tbs: bytes
    serial: int
    issuer: bytes
    subject: bytes
    not_before: datetime
    not_after: datetime
    spki: bytes
    extensions: tuple[Extension, ...]
    signature_algorithm: bytes
    signature: bytes

    def extension(self, oid: str) -> Extension | None:
        """The extension of this OID, if there is one. No certificate has two."""
        return next((item for item in self.extensions if item.oid == oid), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class CrlHead:
    """The issuer of a CRL: a Name as its exact DER span."""

    issuer: bytes


def read_certificate(data: bytes) -> X509Leaf:
    """Reads one certificate that fills `data`. How a short one decodes is remembered, never that it holds.

    Raises:
        MalformedEvidence: Not DER, not an X.509 certificate, too large, an extension twice, or trailing bytes.
        UnsupportedEvidence: Not of version 3, or with a critical extension that we do not know.
    """
    if len(data) > LIMITS.certificate:
        fail(f"certificate of {len(data)} bytes, at most {LIMITS.certificate} are read", "certificate", 0, "too_large")
    return read_short_certificate(data) if len(data) <= SHORT else _read_certificate(data)


@lru_cache(maxsize=LIMITS.remembered)
def read_short_certificate(data: bytes) -> X509Leaf:
    """`read_certificate`, remembered: every piece of evidence of a platform brings the same chain. Raises: as there."""
    return _read_certificate(data)


def _read_certificate(data: bytes) -> X509Leaf:
    outer = der.parse(data, der.SEQUENCE, field="certificate")
    der.check(outer, "certificate")
    reader = outer.reader("certificate")
    tbs = reader.read(der.SEQUENCE, "tbsCertificate")
    algorithm = _read_algorithm(reader, "signatureAlgorithm")
    signature, unused = der.read_bit_string(reader.read(der.BIT_STRING, "signatureValue"), "signatureValue")
    reader.end()
    if unused or not signature:
        fail("certificate signature is not a string of bytes", "signatureValue", tbs.offset, "bad_bit_string")
    return _read_tbs(data, tbs, algorithm, signature)


def _read_tbs(data: bytes, tbs: Element, algorithm: Element, signature: bytes) -> X509Leaf:
    reader = tbs.reader("tbsCertificate")
    _read_version(reader)
    serial = _read_serial(reader)
    inner = _read_algorithm(reader, "signature")
    if inner.raw != algorithm.raw:
        fail("signature algorithm: inner and outer differ", "signature", inner.offset, "algorithm_mismatch")
    issuer = _read_name(reader, "issuer")
    not_before, not_after = _read_validity(reader)
    subject = _read_name(reader, "subject")
    spki = _read_spki(reader)
    extensions = _read_extensions(reader)
    reader.end()
    return X509Leaf(
        der=data,
        tbs=tbs.raw,
        serial=serial,
        issuer=issuer,
        subject=subject,
        not_before=not_before,
        not_after=not_after,
        spki=spki,
        extensions=extensions,
        signature_algorithm=algorithm.raw,
        signature=signature,
    )


def read_crl_head(data: bytes, *, base: int = 0) -> CrlHead:
    """Reads who issued a CRL that fills `data` (RFC 5280 §5.1). The rest of it is read where it is verified.

    Raises:
        MalformedEvidence: Not DER, or not a CRL of version 2.
    """
    return read_short_crl_head(data, base) if len(data) <= SHORT else _read_crl_head(data, base)


@lru_cache(maxsize=LIMITS.remembered)
def read_short_crl_head(data: bytes, base: int) -> CrlHead:
    """`read_crl_head`, remembered. Raises: as there."""
    return _read_crl_head(data, base)


def _read_crl_head(data: bytes, base: int) -> CrlHead:
    outer = der.parse(data, der.SEQUENCE, base=base, field="crl")
    tbs = outer.reader("crl").read(der.SEQUENCE, "tbsCertList").reader("tbsCertList")
    if der.read_integer(tbs.read(der.INTEGER, "version")) != 1:
        fail("CRL version: wanted 2", "version", outer.body_offset, "bad_version")
    _read_algorithm(tbs, "signature")
    return CrlHead(issuer=_read_name(tbs, "issuer"))


def _read_version(reader: Reader) -> None:
    wrapped = reader.optional(_VERSION, "version")
    if wrapped is None:
        raise UnsupportedEvidence(
            "certificate version: wanted 3, seen 1, which carries no extension", code="unsupported_certificate_version"
        )
    inner = wrapped.reader("version")
    version = der.read_integer(inner.read(der.INTEGER), "version") + 1
    inner.end()
    if version != 3:
        raise UnsupportedEvidence(
            f"certificate version: wanted 3, seen {str(version)[:24]}", code="unsupported_certificate_version"
        )


def _read_serial(reader: Reader) -> int:
    # Zero is taken: AMD's chips carry it (RFC 5280 §4.1.2.2 asks readers to be prepared for it).
    element = reader.read(der.INTEGER, "serialNumber")
    if len(element.body) > _SERIAL_BYTES:
        fail(f"serial number of {len(element.body)} bytes", "serialNumber", element.offset, "bad_serial")
    serial = der.read_integer(element, "serialNumber")
    if serial < 0:
        fail("serial number is negative", "serialNumber", element.offset, "bad_serial")
    return serial


def _read_algorithm(reader: Reader, field: str) -> Element:
    """AlgorithmIdentifier: an OID and at most one parameter of any shape, NULL under ECDSA included."""
    element = reader.read(der.SEQUENCE, field)
    inner = element.reader(field)
    inner.read(der.OID)
    if not inner.empty:
        inner.read()
    inner.end()
    return element


def _read_name(reader: Reader, field: str) -> bytes:
    element = reader.read(der.SEQUENCE, field)
    sets = element.reader(field)
    while not sets.empty:
        members = sets.read(der.SET).reader(field)
        if members.peek() is None:
            fail("relative distinguished name without a member", field, members.offset, "bad_name")
        while not members.empty:
            pair = members.read(der.SEQUENCE).reader(field)
            pair.read(der.OID)
            pair.read()
            pair.end()
    return element.raw


def _read_validity(reader: Reader) -> tuple[datetime, datetime]:
    times = reader.read(der.SEQUENCE, "validity").reader("validity")
    not_before = der.read_time(times.read(field="notBefore"), "notBefore")
    not_after = der.read_time(times.read(field="notAfter"), "notAfter")
    times.end()
    return not_before, not_after


def _read_spki(reader: Reader) -> bytes:
    element = reader.read(der.SEQUENCE, "subjectPublicKeyInfo")
    inner = element.reader("subjectPublicKeyInfo")
    _read_algorithm(inner, "subjectPublicKeyInfo")
    key = inner.read(der.BIT_STRING)
    bits, unused = der.read_bit_string(key, "subjectPublicKeyInfo")
    inner.end()
    if unused or not bits:
        fail("public key is not a string of bytes", "subjectPublicKeyInfo", key.offset, "bad_bit_string")
    return element.raw


def _read_extensions(reader: Reader) -> tuple[Extension, ...]:
    wrapped = reader.optional(_EXTENSIONS, "extensions")
    if wrapped is None:
        return ()
    listed = wrapped.reader("extensions")
    members = listed.read(der.SEQUENCE).reader("extensions")
    listed.end()
    if members.peek() is None:
        fail("extensions without a member", "extensions", members.offset, "bad_extensions")
    found: dict[str, Extension] = {}
    while not members.empty:
        extension = _read_extension(members)
        if extension.oid in found:
            fail(f"extension {extension.oid} stands twice", "extensions", extension.offset, "duplicate_extension")
        found[extension.oid] = extension
    return tuple(found.values())


def _read_extension(members: Reader) -> Extension:
    inner = members.read(der.SEQUENCE).reader("extensions")
    oid = der.read_oid(inner.read(der.OID), "extensions")
    critical = _read_true(inner, "extensions")
    value = inner.read(der.OCTET_STRING)
    inner.end()
    checker = _KNOWN.get(oid)
    if checker is not None:
        _check_known(value, oid, checker)
    elif critical:
        raise UnsupportedEvidence(
            f"critical extension {oid[:80]} is not known here, at byte {value.offset}",
            code="unknown_critical_extension",
            hint="A critical extension changes what a certificate means: a reader that does not know it must refuse.",
        )
    return Extension(oid=oid, critical=critical, value=value.body, offset=value.body_offset)


def _read_true(reader: Reader, field: str) -> bool:
    """BOOLEAN DEFAULT FALSE: true, or not there (X.690 §11.5)."""
    flag = reader.optional(der.BOOLEAN, field)
    if flag is None:
        return False
    if not der.read_boolean(flag, field):
        fail("BOOLEAN says its default, false, in bytes", field, flag.offset, "not_minimal")
    return True


def _check_known(value: Element, oid: str, checker: Callable[[Element, str], object]) -> None:
    element = der.parse(value.body, base=value.body_offset, field=oid)
    der.check(element, oid)
    checker(element, oid)


def _check_basic_constraints(element: Element, field: str) -> None:
    reader = _sequence(element, field)
    _read_true(reader, field)
    length = reader.optional(der.INTEGER)
    if length is not None and der.read_integer(length, field) < 0:
        fail("path length is negative", field, length.offset, "bad_extensions")
    reader.end()


def _check_key_usage(element: Element, field: str) -> None:
    bits, _ = der.read_bit_string(element, field)
    if not any(bits) or len(bits) > 2:
        fail("keyUsage: wanted one to nine bits", field, element.offset, "bad_extensions")


def _check_extended_key_usage(element: Element, field: str) -> None:
    reader = _sequence(element, field)
    reader.read(der.OID)
    while not reader.empty:
        reader.read(der.OID)


def _check_names(element: Element, field: str) -> None:
    reader = _sequence(element, field)
    if reader.peek() is None:
        fail("subjectAltName without a name", field, element.offset, "bad_extensions")
    while not reader.empty:
        name = reader.read()
        if name.tag not in _GENERAL_NAMES:
            fail(f"subjectAltName: no name has tag 0x{name.tag:02x}", field, name.offset, "unexpected_tag")


def _sequence(element: Element, field: str) -> Reader:
    if element.tag != der.SEQUENCE:
        fail(f"DER tag: wanted 0x30, seen 0x{element.tag:02x}", field, element.offset, "unexpected_tag")
    return element.reader(field)


_KNOWN: dict[str, Callable[[Element, str], object]] = {
    BASIC_CONSTRAINTS: _check_basic_constraints,
    KEY_USAGE: _check_key_usage,
    EXTENDED_KEY_USAGE: _check_extended_key_usage,
    SUBJECT_ALTERNATIVE_NAME: _check_names,
}
"""Extensions that may be critical. What they allow is judged by who uses the key: TLS, or the chain walk."""
