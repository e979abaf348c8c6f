"""Certificates of other TEEs and makers: CMW (which we write for all but Intel), dstack, Nitro documents in a name.

In each the evidence names the certificate's key itself:

- CMW: the report data is `key_report_data(spki)`, a hash under a label of our own, so that evidence for a certificate
  can stand for nothing else.
- dstack (extensions under 1.3.6.1.4.1.62397.1; the newer form: `wire.dstack`): SHA-512 of `ratls-cert:` and the
  SubjectPublicKeyInfo.
- a Nitro document in hex as the start of a DNS name (Evervault): `user_data` is the SubjectPublicKeyInfo.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from attestable_mcp.errors import MalformedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import DocumentKind, Endorsements, Evidence, EvidenceKind, SignedDocument
from attestable_mcp.wire import bag, cmw, der
from attestable_mcp.wire.carrier import CertificateEvidence
from attestable_mcp.wire.cmw import OID_CMW, Record
from attestable_mcp.wire.dstack import OID_DSTACK_ATTESTATION, DstackAttestation, read_attestation
from attestable_mcp.wire.kinds import KINDS
from attestable_mcp.wire.x509 import SUBJECT_ALTERNATIVE_NAME, X509Leaf

OID_DSTACK = "1.3.6.1.4.1.62397.1"
OID_DSTACK_QUOTE, OID_DSTACK_LOG = f"{OID_DSTACK}.1", f"{OID_DSTACK}.2"
_LABEL = b"attestable-mcp/certificate/v1"
_DSTACK_LABEL = b"ratls-cert:"
_DNS_NAME = 0x82
_NITRO_NAME = re.compile(rb"((?:d2)?8444a1013822(?:[0-9a-f]{2})+)(?:\.[0-9A-Za-z._-]+)?")
"""The document, and the name of the service after it."""
_TYPES = {row.media_type: kind for kind, row in KINDS.items() if row.media_type}


def key_report_data(spki: bytes) -> bytes:
    """The 64 bytes of report data that tie evidence in a CMW to this DER SubjectPublicKeyInfo.

    SHA-512 over a label and the key, each after its length (u32, big-endian).
    """
    return hashlib.sha512(b"".join(len(part).to_bytes(4, "big") + part for part in (_LABEL, spki))).digest()


def dstack_report_data(spki: bytes) -> bytes:
    """The report data of dstack's certificates for this key."""
    return hashlib.sha512(_DSTACK_LABEL + spki).digest()


def wrapped_evidence(evidence: Evidence, endorsements: Endorsements | None = None) -> bytes:
    """The value of extension id-pe-cmw for this evidence (any kind but Intel's), with endorsements if there are any.

    Raises:
        ValueError: a kind that has another form: our own mistake.
    """
    media_type = KINDS[evidence.kind].media_type
    if not media_type:
        raise ValueError(f"{evidence.kind} is written as tagged evidence")
    records = {"evidence": Record(type=media_type, value=evidence.body, ind=cmw.EVIDENCE)}
    return cmw.write_extension(records | ({} if endorsements is None else _bag_record(endorsements)))


def wrapped_endorsements(endorsements: Endorsements) -> bytes:
    """The value of extension id-pe-cmw for what stands beside evidence of another form: a TDX quote's event logs."""
    return cmw.write_extension(_bag_record(endorsements))


def _bag_record(endorsements: Endorsements) -> dict[str, Record]:
    return {"endorsements": Record(type=bag.MEDIA_TYPE, value=bag.write_bag(endorsements), ind=cmw.ENDORSEMENTS)}


def read_other(leaf: X509Leaf) -> Iterator[CertificateEvidence]:
    """Evidence in the forms of this module. Raises: MalformedEvidence."""
    for record in _records(leaf):
        if (kind := _TYPES.get(record.type)) is not None:
            yield _from_record(leaf, record, kind)
    if leaf.extension(OID_DSTACK_QUOTE) is not None:
        quote = Evidence(kind=EvidenceKind.INTEL_QUOTE, body=_inner(leaf, OID_DSTACK_QUOTE))
        yield CertificateEvidence(
            evidence=quote, source="dstack", report_data=dstack_report_data(leaf.spki), key_matches=True
        )
    if (versioned := _versioned(leaf)) is not None:
        yield CertificateEvidence(
            evidence=versioned.evidence, source="dstack", report_data=dstack_report_data(leaf.spki), key_matches=True
        )
    for document in _documents_in_names(leaf):
        evidence = Evidence(kind=EvidenceKind.NITRO_DOCUMENT, body=document)
        yield CertificateEvidence(evidence=evidence, source="nitro-in-name", report_data=leaf.spki, key_matches=True)


def read_other_endorsements(leaf: X509Leaf) -> Endorsements | None:
    """What stands beside such evidence: a bag in the CMW, or dstack's event log. Raises: MalformedEvidence."""
    found = Endorsements()
    for record in _records(leaf):
        if record.type == bag.MEDIA_TYPE:
            found += bag.read_bag(record.value)
    if leaf.extension(OID_DSTACK_LOG) is not None:
        found += Endorsements(documents=(_log(_inner(leaf, OID_DSTACK_LOG)),), sources=("stapled",))
    if (versioned := _versioned(leaf)) is not None:
        found += Endorsements(certificates=versioned.certificates, sources=("stapled",))
        if versioned.event_log:
            found += Endorsements(documents=(_log(versioned.event_log),))
    return found if found != Endorsements() else None


def _log(body: bytes) -> SignedDocument:
    return SignedDocument(kind=DocumentKind.EVENT_LOG, body=body, signature=b"", issuer_chain=())


def _versioned(leaf: X509Leaf) -> DstackAttestation | None:
    if leaf.extension(OID_DSTACK_ATTESTATION) is None:
        return None
    return read_attestation(_inner(leaf, OID_DSTACK_ATTESTATION))


def unread_types(leaf: X509Leaf) -> tuple[str, ...]:
    """Types of the CMW's records that are not read here. Raises: MalformedEvidence."""
    return tuple(record.type for record in _records(leaf) if record.type not in (*_TYPES, bag.MEDIA_TYPE))


def _records(leaf: X509Leaf) -> tuple[Record, ...]:
    extension = leaf.extension(OID_CMW)
    return () if extension is None else cmw.read_extension(extension.value, base=extension.offset)


def _from_record(leaf: X509Leaf, record: Record, kind: EvidenceKind) -> CertificateEvidence:
    if record.ind is not None and not record.ind & cmw.EVIDENCE:
        raise MalformedEvidence(f"CMW: {record.type} is said to be no evidence", field=OID_CMW)
    if not 0 < len(record.value) <= LIMITS.evidence:
        raise MalformedEvidence(f"CMW: evidence of {len(record.value)} bytes", field=OID_CMW, code="too_large")
    return CertificateEvidence(
        evidence=Evidence(kind=kind, body=record.value),
        source="cmw",
        report_data=key_report_data(leaf.spki),
        key_matches=True,
    )


def _inner(leaf: X509Leaf, oid: str) -> bytes:
    """dstack wraps what it puts into an extension in a further OCTET STRING."""
    extension = leaf.extension(oid)
    assert extension is not None
    body = der.parse(extension.value, der.OCTET_STRING, field=oid).body
    if len(body) > LIMITS.evidence:
        raise MalformedEvidence(f"certificate: {len(body)} bytes, at most {LIMITS.evidence}", field=oid)
    return body


def _documents_in_names(leaf: X509Leaf) -> Iterator[bytes]:
    extension = leaf.extension(SUBJECT_ALTERNATIVE_NAME)
    if extension is None:
        return
    names = der.parse(extension.value, der.SEQUENCE, field=SUBJECT_ALTERNATIVE_NAME).reader()
    while not names.empty:
        name = names.read()
        if name.tag == _DNS_NAME and (found := _NITRO_NAME.fullmatch(name.body)):
            yield bytes.fromhex(found[1].decode("ascii"))
