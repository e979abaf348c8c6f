"""One row a kind of evidence: how its bytes begin, its media type, and the report data that it says it carries.

Media types: AMD's is that of the CoRIM profile for SEV-SNP reports, AWS's the one that Veraison takes Nitro documents
under. The two of our own name the CBOR maps of `wire.tpm` and `wire.hcl`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from attestable_mcp.errors import UnsupportedEvidence
from attestable_mcp.rats import Evidence, EvidenceKind, Tee
from attestable_mcp.wire import detached, hcl, intel, nitro, snp, token, tpm

_QUOTE = re.compile(rb"[\x03\x04\x05]\x00[\x02\x03]\x00", re.DOTALL)
"""Version and attestation key type (ECDSA P-256 or P-384), both u16 little-endian."""
_COSE_ES384 = (b"\x84\x44\xa1\x01\x38\x22", b"\xd2\x84\x44\xa1\x01\x38\x22")
"""COSE_Sign1, untagged or tagged, whose protected header is {alg: ES384} and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How one kind of evidence stands on the wire. `looks` says what bytes begin as; their reader says the rest."""

    looks: Callable[[bytes], bool]
    report_data: Callable[[bytes], bytes]
    tees: tuple[Tee, ...]
    media_type: str = ""
    """The type in a CMW record; empty for Intel quotes, which have a form of their own."""
    slim: Callable[[bytes], bytes] = bytes
    """The same evidence without what only explains it: for certificates, whose size TLS peers limit."""


def _looks_intel(data: bytes) -> bool:
    return _QUOTE.match(data) is not None


def _looks_snp(data: bytes) -> bool:
    """Version and signature algorithm where a report has them, and all of a report's bytes."""
    version, algorithm = (int.from_bytes(data[at : at + 4], "little") for at in (0, 0x34))
    return len(data) >= snp.REPORT_SIZE and version in snp.VERSIONS and algorithm == snp.ECDSA_P384_SHA384


def _looks_nitro(data: bytes) -> bool:
    return data.startswith(_COSE_ES384)


def _looks_tpm(data: bytes) -> bool:
    return _is_map(data) and data[1:].startswith(b"\x62ak")


def _looks_azure(data: bytes) -> bool:
    return _is_map(data) and data[1:].startswith(b"\x63hcl")


def _is_map(data: bytes) -> bool:
    """A CBOR map of 3 to 7 pairs; what our writers write begins with its shortest key."""
    return bool(data) and data[0] in range(0xA3, 0xA8)


def _slim_tpm(body: bytes) -> bytes:
    return tpm.write_evidence(replace(tpm.read_evidence(body), event_log=b""))


def _slim_azure(body: bytes) -> bytes:
    sent = hcl.read_evidence(body)
    return hcl.write_evidence(replace(sent, tpm=replace(sent.tpm, event_log=b"")))


KINDS: Mapping[EvidenceKind, Kind] = MappingProxyType(
    {
        EvidenceKind.INTEL_QUOTE: Kind(
            looks=_looks_intel,
            report_data=lambda body: intel.read_quote(body).report_data,
            tees=(Tee.SGX, Tee.TDX),
        ),
        EvidenceKind.SNP_REPORT: Kind(
            looks=_looks_snp,
            report_data=lambda body: snp.read_report(body).report_data,
            tees=(Tee.SEV_SNP,),
            media_type="application/vnd.amd.sev-snp.attestation-report",
        ),
        EvidenceKind.NITRO_DOCUMENT: Kind(
            looks=_looks_nitro,
            report_data=lambda body: nitro.read_document(body).user_data,
            tees=(Tee.NITRO,),
            media_type="application/aws-nitro-document",
        ),
        EvidenceKind.TPM_QUOTE: Kind(
            looks=_looks_tpm,
            report_data=lambda body: tpm.read_quote(tpm.read_evidence(body).quote).extra_data,
            tees=(Tee.TPM,),
            media_type="application/vnd.attestable-mcp.tpm-quote+cbor",
            slim=_slim_tpm,
        ),
        EvidenceKind.AZURE_VTPM: Kind(
            looks=_looks_azure,
            report_data=lambda body: tpm.read_quote(hcl.read_evidence(body).tpm.quote).extra_data,
            tees=(Tee.AZURE_SEV_SNP, Tee.AZURE_TDX),
            media_type="application/vnd.attestable-mcp.azure-vtpm+cbor",
            slim=_slim_azure,
        ),
        EvidenceKind.TOKEN: Kind(
            looks=detached.looks_like_tokens,
            report_data=lambda body: token.report_data(detached.read_tokens(body).overall.flat),
            tees=(Tee.TOKEN,),
            media_type="application/eat+jwt",
        ),
    }
)  # fmt: skip
"""Every kind of EvidenceKind. The order is that in which bytes are tried."""


def kind_of(data: bytes) -> EvidenceKind | None:
    """The kind of evidence that these bytes begin as; None where they are none."""
    return next((kind for kind, row in KINDS.items() if row.looks(data)), None)


def kind_of_tee(tee: str) -> EvidenceKind:
    """The kind of evidence that a TEE of this name gives. Raises: UnsupportedEvidence."""
    for kind, row in KINDS.items():
        if tee in row.tees:
            return kind
    raise UnsupportedEvidence(f"TEE: wanted one of {', '.join(Tee)}, seen {tee!r}")


def report_data(evidence: Evidence) -> bytes:
    """What the evidence says that it carries, unverified: compare it with `rats.carried`.

    Raises: MalformedEvidence, UnsupportedEvidence.
    """
    return KINDS[evidence.kind].report_data(evidence.body)
