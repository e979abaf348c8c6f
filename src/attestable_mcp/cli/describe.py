"""What a certificate or a quote says, as plain data. Parsed only: every object carries its UNVERIFIED mark."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from attestable_mcp.cli import text
from attestable_mcp.rats import Endorsements, Evidence
from attestable_mcp.verify import table
from attestable_mcp.wire import der, ratls
from attestable_mcp.wire.bundle import Bundle, FileSubject, LiveSubject, is_bundle, read_bundle, recorded_verdict
from attestable_mcp.wire.recognise import Certificate, recognise
from attestable_mcp.wire.x509 import Extension

_ATTRIBUTES = {"2.5.4.3": "CN", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU"}
_EXTENSIONS = {
    "2.5.29.14": "subject key identifier",
    "2.5.29.15": "key usage",
    "2.5.29.17": "subject alternative name",
    "2.5.29.19": "basic constraints",
    "2.5.29.35": "authority key identifier",
    "2.5.29.37": "extended key usage",
    "2.23.133.5.4.9": "DICE tagged evidence",
    "2.23.133.5.4.2": "DICE tagged endorsements",
    "1.2.840.113741.1.13.1": "Intel SGX SDK evidence",
    "1.3.6.1.5.5.7.1.35": "conceptual message wrapper (CMW)",
    "1.3.6.1.4.1.62397.1.1": "dstack quote",
    "1.3.6.1.4.1.62397.1.2": "dstack event log",
    "1.3.6.1.4.1.62397.1.3": "dstack application id",
    "1.3.6.1.4.1.62397.1.4": "dstack certificate usage",
    "1.3.6.1.4.1.62397.1.8": "dstack versioned attestation",
    "1.3.6.1.4.1.62397.1.9": "dstack application information",
    "0.6.9.42.840.113741.1337.6": "Gramine legacy evidence",
}


def describe(data: bytes) -> dict[str, Any]:
    """The bytes of a source, recognised by content. Raises: EvidenceError."""
    if is_bundle(data):
        return describe_bundle(read_bundle(data))
    found = recognise(data)
    if isinstance(found, Certificate):
        return describe_certificate(found.der)
    return describe_evidence(found)


def describe_bundle(bundle: Bundle) -> dict[str, Any]:
    """What a bundle holds, with the evidence in it. Raises: EvidenceError."""
    subject = bundle.subject
    return _marked(
        "bundle",
        made_at=bundle.made_at.isoformat(),
        of=bundle.source,
        policy=bundle.policy.name,
        policy_sha256=hashlib.sha256(bundle.policy.toml.encode()).hexdigest() if bundle.policy.toml else "",
        policy_toml=bundle.policy.toml,
        anchors=[f"{a.vendor}: {a.name} (key sha256 {a.spki_sha256})" for a in bundle.anchors],
        recorded_verdict=recorded_verdict(bundle),
        sources=list(bundle.sources),
        files={name: hashlib.sha256(data).hexdigest() for name, data in bundle.files},
        provenance={name: hashlib.sha256(data).hexdigest() for name, data in bundle.provenance},
        live=isinstance(subject, LiveSubject),
        subject=describe(subject.data) if isinstance(subject, FileSubject) else describe(subject.certificate),
    )


def describe_certificate(certificate: bytes) -> dict[str, Any]:
    """A certificate with the evidence in it. Raises: EvidenceError."""
    read = ratls.read(certificate)
    return _marked(
        "certificate",
        subject=_name(read.leaf.subject),
        issuer=_name(read.leaf.issuer),
        serial=f"{read.leaf.serial:x}",
        not_before=_when(read.leaf.not_before),
        not_after=_when(read.leaf.not_after),
        certificate_sha256=hashlib.sha256(read.leaf.der).hexdigest(),
        spki_sha256=hashlib.sha256(read.leaf.spki).hexdigest(),
        extensions=[_extension(extension) for extension in read.leaf.extensions],
        evidence=[
            {
                **describe_evidence(piece.evidence),
                "source": str(piece.source),
                "report_data_for_this_key": piece.report_data.hex(),
            }
            for piece in read.evidence
        ],
        endorsements=None if read.endorsements is None else _endorsements(read.endorsements),
    )


def describe_evidence(evidence: Evidence) -> dict[str, Any]:
    """One piece of evidence. Raises: EvidenceError."""
    found = table.describe(evidence)
    return _marked(
        str(evidence.kind),
        bytes=len(evidence.body),
        evidence_sha256=evidence.digest,
        tee=str(found.tee),
        claims=_marked("claims", **found.values),
        chain_sha256=list(found.certificates),
    )


def _marked(kind: str, **facts: object) -> dict[str, Any]:
    return {"unverified": True, "mark": text.UNVERIFIED, "kind": kind, **facts}


def _extension(extension: Extension) -> dict[str, Any]:
    return _marked(
        "extension",
        oid=extension.oid,
        name=_EXTENSIONS.get(extension.oid, ""),
        critical=extension.critical,
        bytes=len(extension.value),
    )


def _endorsements(bag: Endorsements) -> dict[str, Any]:
    return _marked(
        "endorsements",
        certificates=len(bag.certificates),
        crls=len(bag.crls),
        documents=[str(document.kind) for document in bag.documents],
    )


def _when(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _name(raw: bytes) -> str:
    """A distinguished name as `CN=..., O=...`, in the order of the certificate. Raises: MalformedEvidence."""
    return ", ".join(_parts(der.parse(raw, der.SEQUENCE).reader()))


def _parts(sets: der.Reader) -> Iterator[str]:
    while not sets.empty:
        members = sets.read(der.SET).reader()
        while not members.empty:
            pair = members.read(der.SEQUENCE).reader()
            oid = der.read_oid(pair.read(der.OID))
            yield f"{_ATTRIBUTES.get(oid, oid)}={pair.read().body.decode('utf-8', 'backslashreplace')}"


def rows(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, object]]:
    """Every leaf as a dotted name and its value, without the marks."""
    for name, member in value.items():
        if name not in ("unverified", "mark"):
            yield from _leaves(member, f"{path}.{name}" if path else name)


def _leaves(member: object, name: str) -> Iterator[tuple[str, object]]:
    if isinstance(member, Mapping):
        yield from rows(member, name)
    elif isinstance(member, list):
        for index, item in enumerate(member):
            yield from _leaves(item, f"{name}[{index}]")
    elif member not in (None, ""):
        yield name, member
