"""RA-TLS certificates: the evidence and endorsements that extensions carry, and the bytes that we put there.

Written: the interoperable format of the Confidential Computing Consortium ("Interoperable RA-TLS X.509 Cert and
Evidence Formats" and its SGX/TDX part): extension 2.23.133.5.4.9 with `60000([quote, claims])`, and optionally
2.23.133.5.4.2 with collateral (`wire.stapled`). Read: that format, Gramine's legacy extension, the bare quote of
Intel's SGX SDK, and the forms of `wire.ratls_other`, each found by its OID in the parsed certificate, never by a search
for bytes.

Nothing is judged here: whether evidence carries `report_data`, and whether `key_matches`, is for `bind` to demand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from attestable_mcp.errors import UnreadEvidence, UnsupportedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind
from attestable_mcp.wire import cbor, der
from attestable_mcp.wire.carrier import HASHES, CertificateEvidence, PubkeyHash, Source
from attestable_mcp.wire.cmw import OID_CMW
from attestable_mcp.wire.der import fail
from attestable_mcp.wire.dstack import OID_DSTACK_ATTESTATION
from attestable_mcp.wire.ratls_other import (
    OID_DSTACK,
    OID_DSTACK_QUOTE,
    key_report_data,
    read_other,
    read_other_endorsements,
    unread_types,
    wrapped_endorsements,
    wrapped_evidence,
)
from attestable_mcp.wire.stapled import read_tagged_endorsements, tagged_endorsements
from attestable_mcp.wire.x509 import Extension, X509Leaf, read_certificate

__all__ = [
    "HASHES", "OID_CMW", "OID_ENDORSEMENTS", "OID_GRAMINE_LEGACY", "OID_SGX_SDK", "OID_TAGGED_EVIDENCE",
    "CertificateEvidence", "PubkeyHash", "RatlsCertificate", "claims_report_data", "key_report_data", "pubkey_claims",
    "read", "read_tagged_endorsements", "tagged_endorsements", "tagged_evidence", "wrapped_endorsements",
    "wrapped_evidence",
]  # fmt: skip

OID_TAGGED_EVIDENCE = "2.23.133.5.4.9"
OID_ENDORSEMENTS = "2.23.133.5.4.2"
OID_GRAMINE_LEGACY = "0.6.9.42.840.113741.1337.6"
"""What Gramine's bytes say: it stores tag and length of 1.2.840.113741.1337.6 inside the OID's value."""
OID_SGX_SDK = "1.2.840.113741.1.13.1"
"""Also the OID of the SGX extension of PCK certificates, whose content is a SEQUENCE and no evidence."""

TAG_ECDSA_QUOTE = 60000
PUBKEY_HASH = "pubkey-hash"
NONCE = "nonce"

_REPORT_DATA = 64
_OTHER_TAGS = {60001: "a TDX or SGX report of type 2", 60002: "a legacy SGX EREPORT"}
_FOREIGN = {
    "1.2.840.113741.1337.6": "the Intel legacy extension in its true encoding",
    OID_CMW: "a conceptual message wrapper (CMW)",
    OID_DSTACK: "dstack evidence of a newer form",
    "1.3.9901.2": "Contrast evidence",
    "1.3.9901.3": "Contrast evidence",
    "1.3.9900": "Constellation evidence",
    "1.3.6.1.4.1.311.105.1": "EGo evidence",
}
"""Extensions that look like attestation and are not read: an OID, or the arc that its OIDs stand under."""


_READ = (OID_TAGGED_EVIDENCE, OID_GRAMINE_LEGACY, OID_SGX_SDK, OID_CMW, OID_DSTACK_QUOTE, OID_DSTACK_ATTESTATION)


@dataclass(frozen=True, slots=True, kw_only=True)
class RatlsCertificate:
    """A certificate with its evidence: tagged evidence first, then the others in the certificate's order.

    `evidence` is EMPTY in an ordinary certificate: whoever reads it must refuse that, and must demand that every piece
    be tied to this key, also the ones that are not verified further.
    """

    leaf: X509Leaf
    evidence: tuple[CertificateEvidence, ...]
    endorsements: Endorsements | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tagged:
    quote: bytes
    claims: bytes
    pubkey_hash: PubkeyHash
    nonce: bytes | None


def read(data: bytes) -> RatlsCertificate:
    """Reads a DER certificate and every piece of evidence in it. Evidence that is marked critical is refused.

    Raises:
        MalformedEvidence: The certificate, or an extension of ours, breaks its format.
        UnsupportedEvidence: An unknown critical extension, another kind of evidence, or attestation of a kind that is
            not read here while nothing else is there.
    """
    leaf = read_certificate(data)
    tagged = leaf.extension(OID_TAGGED_EVIDENCE)
    claimed = _read_tagged_extension(tagged) if tagged is not None else None
    evidence = tuple(_evidence(leaf, claimed))
    if not evidence:
        _refuse_foreign(leaf)
    return RatlsCertificate(leaf=leaf, evidence=evidence, endorsements=_endorsements(leaf))


def _evidence(leaf: X509Leaf, claimed: _Tagged | None) -> Iterable[CertificateEvidence]:
    if claimed is not None:
        yield _from_claims(leaf, claimed, claimed.quote, "dice-tagged-evidence")
    for extension in leaf.extensions:
        if extension.oid == OID_GRAMINE_LEGACY:
            yield _from_gramine(leaf, extension)
        elif extension.oid == OID_SGX_SDK and not _is_platform_extension(extension):
            yield _from_sdk(leaf, extension, claimed)
    yield from read_other(leaf)


def _from_claims(leaf: X509Leaf, claimed: _Tagged, quote: bytes, source: Source) -> CertificateEvidence:
    return CertificateEvidence(
        evidence=Evidence(kind=EvidenceKind.INTEL_QUOTE, body=quote),
        source=source,
        report_data=claims_report_data(claimed.claims),
        key_matches=claimed.pubkey_hash.matches(leaf.spki),
        claims=claimed.claims,
        pubkey_hash=claimed.pubkey_hash,
        nonce=claimed.nonce,
    )


def _from_gramine(leaf: X509Leaf, extension: Extension) -> CertificateEvidence:
    return CertificateEvidence(
        evidence=Evidence(kind=EvidenceKind.INTEL_QUOTE, body=_bare_quote(extension)),
        source="gramine-legacy",
        report_data=_pad(hashlib.sha256(leaf.spki).digest()),
        key_matches=True,
    )


def _from_sdk(leaf: X509Leaf, extension: Extension, claimed: _Tagged | None) -> CertificateEvidence:
    # The SDK puts the quote of the tagged evidence a second time: its report data is that of the claims.
    if claimed is None:
        raise UnsupportedEvidence(
            f"certificate: a bare quote under {OID_SGX_SDK} at byte {extension.offset} without tagged evidence",
            code="evidence_without_claims",
            hint="Only the claims of tagged evidence tie that quote to a key. The server needs a newer SGX SDK.",
        )
    return _from_claims(leaf, claimed, _bare_quote(extension), "intel-sgx-sdk")


def _bare_quote(extension: Extension) -> bytes:
    return _demand_quote(extension.value, extension.oid, extension.offset)


def _demand_quote(quote: bytes, field: str, offset: int) -> bytes:
    if not 0 < len(quote) <= LIMITS.evidence:
        fail(f"quote of {len(quote)} bytes, wanted 1 to {LIMITS.evidence}", field, offset, "too_large")
    return quote


def _is_platform_extension(extension: Extension) -> bool:
    return extension.value[:1] == bytes((der.SEQUENCE,))


def _refuse_foreign(leaf: X509Leaf) -> None:
    for extension in leaf.extensions:
        for arc, name in _FOREIGN.items():
            if extension.oid == arc or extension.oid.startswith(arc + "."):
                types = f" of {', '.join(unread_types(leaf))}" if arc == OID_CMW else ""
                raise UnreadEvidence(
                    f"certificate: extension {extension.oid} at byte {extension.offset} holds {name}{types}, "
                    "which is not read from certificates",
                    hint=f"Read are the extensions {', '.join(_READ)}, and Nitro documents in a DNS name.",
                )


def _endorsements(leaf: X509Leaf) -> Endorsements | None:
    extension = leaf.extension(OID_ENDORSEMENTS)
    tagged = None if extension is None else read_tagged_endorsements(extension.value, base=extension.offset)
    other = read_other_endorsements(leaf)
    return tagged + other if tagged is not None and other is not None else tagged or other


# Tagged evidence: 60000([quote, claims])


def _read_tagged_extension(extension: Extension) -> _Tagged:
    field, base = extension.oid, extension.offset
    quote, claims, claims_at = _split_tagged(extension.value, field, base)
    _demand_quote(quote, field, base)
    pubkey_hash, nonce = _read_claims(claims, claims_at)
    return _Tagged(quote=quote, claims=claims, pubkey_hash=pubkey_hash, nonce=nonce)


def _split_tagged(value: bytes, field: str, base: int) -> tuple[bytes, bytes, int]:  # noqa: RET503 - fail never returns
    tagged = cbor.decode(value, base=base, field=field)
    if not isinstance(tagged, cbor.Tagged):
        fail("tagged evidence: wanted a CBOR tag", field, base, "unexpected_type")
    if tagged.tag != TAG_ECDSA_QUOTE:
        name = _OTHER_TAGS.get(tagged.tag, "of an unknown kind")
        raise UnsupportedEvidence(
            f"tagged evidence: wanted CBOR tag {TAG_ECDSA_QUOTE}, seen {tagged.tag}, {name}, at byte {base}",
            code="unsupported_evidence_tag",
        )
    match tagged.value:
        case [bytes() as quote, bytes() as claims]:
            return quote, claims, base + len(value) - len(claims)
    fail("tagged evidence: wanted an array of two byte strings", field, base, "unexpected_type")


def _read_claims(claims: bytes, base: int) -> tuple[PubkeyHash, bytes | None]:
    found = cbor.decode(claims, base=base, field="claims")
    if not isinstance(found, dict):
        fail("claims: wanted a CBOR map", "claims", base, "unexpected_type")
    for key, value in found.items():
        if not isinstance(key, str) or not isinstance(value, bytes):
            fail(f"claim {str(key)[:40]!r}: wanted text -> bytes", "claims", base, "unexpected_type")
    if PUBKEY_HASH not in found:
        fail(
            f"claims: wanted {PUBKEY_HASH}, which ties the evidence to a key, seen none",
            "claims",
            base,
            "no_pubkey_hash",
        )
    nonce = found.get(NONCE)
    return _read_pubkey_hash(found[PUBKEY_HASH], base), nonce if isinstance(nonce, bytes) else None


def _read_pubkey_hash(value: cbor.Value, base: int) -> PubkeyHash:  # noqa: RET503 - fail never returns
    assert isinstance(value, bytes)
    match cbor.decode(value, base=base, field=PUBKEY_HASH):
        case [int() as algorithm, bytes() as digest] if not isinstance(algorithm, bool):
            return _demand_hash(algorithm, digest, base)
    fail("pubkey-hash: wanted an array of a number and bytes", PUBKEY_HASH, base, "unexpected_type")


def _demand_hash(algorithm: int, digest: bytes, base: int) -> PubkeyHash:
    name = HASHES.get(algorithm)
    if name is None:
        raise UnsupportedEvidence(
            f"pubkey-hash: wanted algorithm 1, 7 or 8, seen {algorithm}, at byte {base}", code="unsupported_hash"
        )
    size = hashlib.new(name).digest_size
    if len(digest) != size:
        fail(f"pubkey-hash: {name} has {size} bytes, seen {len(digest)}", PUBKEY_HASH, base, "bad_pubkey_hash")
    return PubkeyHash(algorithm=algorithm, digest=digest)


def pubkey_claims(spki: bytes, *, algorithm: int = 1, nonce: bytes | None = None) -> bytes:
    """Claims that name the key of this DER SubjectPublicKeyInfo; `nonce` stands beside it if given.

    Raises:
        ValueError: An algorithm that is none of HASHES: our own mistake.
    """
    if algorithm not in HASHES:
        raise ValueError(f"no hash algorithm {algorithm}")
    digest = hashlib.new(HASHES[algorithm], spki).digest()
    claims: dict[cbor.Key, cbor.Value] = {PUBKEY_HASH: cbor.encode([algorithm, digest])}
    if nonce is not None:
        claims[NONCE] = nonce
    return cbor.encode(claims)


def claims_report_data(claims: bytes) -> bytes:
    """The 64 bytes of report data that name these claims: SHA-256 and 32 zeros."""
    return _pad(hashlib.sha256(claims).digest())


def tagged_evidence(quote: bytes, claims: bytes) -> bytes:
    """The value of extension 2.23.133.5.4.9: an SGX or TDX quote with `claims_report_data(claims)` as report data."""
    return cbor.encode(cbor.Tagged(TAG_ECDSA_QUOTE, [quote, claims]))


def _pad(digest: bytes) -> bytes:
    return digest.ljust(_REPORT_DATA, b"\0")
