"""RFC 9334 nouns as types: what the stations of this package hand to one another.

Nothing here reads bytes, fetches, or looks at a clock. All times are timezone-aware UTC datetimes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeVar, final

from attestable_mcp.hints import hint_for

_T = TypeVar("_T")
ClaimValue = str | int | bool


class Tee(StrEnum):
    """The kinds of Attester that this package verifies."""

    SGX = "sgx"
    TDX = "tdx"
    SEV_SNP = "sev-snp"
    NITRO = "nitro"
    TPM = "tpm"
    AZURE_SEV_SNP = "azure-sev-snp"
    AZURE_TDX = "azure-tdx"
    TOKEN = "token"  # noqa: S105 - a kind
    """No hardware: the word of a third verifier that has judged some."""


class EvidenceKind(StrEnum):
    """The format of a piece of Evidence, chosen by content, not by file name."""

    INTEL_QUOTE = "intel-quote"
    SNP_REPORT = "snp-report"
    NITRO_DOCUMENT = "nitro-document"
    TPM_QUOTE = "tpm-quote"
    AZURE_VTPM = "azure-vtpm"
    TOKEN = "token"  # noqa: S105 - a kind


class Outcome(StrEnum):
    """What one check came to."""

    PASS = "pass"  # noqa: S105 - an outcome
    FAIL = "fail"
    SKIP = "skip"


class Verdict(StrEnum):
    """The four answers. PARTIAL: genuine hardware, but what it runs was not compared."""

    VERIFIED = "verified"
    PARTIAL = "partial"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One named check. `check` is a stable dotted word such as `intel.pck.chain` or `policy.mrenclave`.

    `code` is set on failures: the word that a program matches on (an `AttestationError.code`).
    """

    check: str
    outcome: Outcome
    wanted: str = ""
    seen: str = ""
    reason: str = ""
    code: str = ""

    def to_json(self) -> dict[str, str]:
        """The public JSON shape: check, outcome, wanted, seen, reason."""
        return {
            "check": self.check,
            "outcome": str(self.outcome),
            "wanted": self.wanted,
            "seen": self.seen,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Opaque bytes from an Attester with the kind that their content shows."""

    kind: EvidenceKind
    body: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes, lower-case hex."""
        return hashlib.sha256(self.body).hexdigest()


def carried(report_data: bytes, kind: EvidenceKind) -> bytes:
    """What evidence of this kind carries for these 64 bytes of report data: the one rule that both sides go by.

    A TPM takes no more than its largest hash as qualifying data (TPM 2.0 Library Part 2, TPM2B_DATA), which without
    SHA-512 is less than 64 bytes: its quote, and Azure's, carries the SHA-256 of them. All others carry them as they
    are: SNP and Intel as report data, Nitro as `user_data`.
    """
    if kind in (EvidenceKind.TPM_QUOTE, EvidenceKind.AZURE_VTPM):
        return hashlib.sha256(report_data).digest()
    return report_data


class DocumentKind(StrEnum):
    """What a signed document is for, as whoever hands it over says; the verifier reads its own `id` as well."""

    INTEL_TCB_INFO = "intel-tcb-info"
    INTEL_QE_IDENTITY = "intel-qe-identity"
    EVENT_LOG = "event-log"
    """A TCG log, a CCEL or dstack's. Nobody signs it: it explains the registers that were signed, or it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedDocument:
    """A signed JSON document of a vendor, still untrusted: Intel's TCB info or QE identity (`kind` is a DocumentKind).

    `body` is the exact span that `signature` (r || s, 64 bytes for P-256) covers; `issuer_chain` is DER, leaf first
    as served.
    """

    kind: str
    body: bytes
    signature: bytes
    issuer_chain: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsements:
    """A bag of untrusted collateral. Each verifier takes what it needs and trusts none of it before checking.

    `certificates` and `crls` are DER. `sources` says in words where the pieces came from, for the report; `left_out`
    names what looked like a piece and is damaged, with the reason.
    """

    certificates: tuple[bytes, ...] = ()
    crls: tuple[bytes, ...] = ()
    documents: tuple[SignedDocument, ...] = ()
    sources: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def event_logs(self) -> tuple[SignedDocument, ...]:
        """Those of the documents that nobody signs: they explain what was signed, or they do not."""
        return tuple(item for item in self.documents if item.kind == DocumentKind.EVENT_LOG)

    def __add__(self, other: Endorsements) -> Endorsements:
        return Endorsements(
            certificates=_union(self.certificates, other.certificates),
            crls=_union(self.crls, other.crls),
            documents=_union(self.documents, other.documents),
            sources=_union(self.sources, other.sources),
            left_out=_union(self.left_out, other.left_out),
        )


def _union(first: tuple[_T, ...], second: tuple[_T, ...]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(first + second))


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsementQuery:
    """What a piece of evidence asks of an endorsement source. Parsed, not verified: to a source it is hostile text.

    `tee` is the hardware whose vendor is asked, also where the evidence wraps it (Azure). Parameters:

    - Intel: `fmspc` (12 lower-case hex digits) and `pck_ca` (`processor` or `platform`).
    - AMD: `signing_key` (`VCEK`, `VLEK` or `NONE`), `product` (`Milan`, `Genoa`, `Turin`; empty where a report of
      version 2 does not say: then Milan or Genoa), `chip_id` (lower-case hex: 8 bytes for Turin, else 64; zeros where
      the report names no chip), and `reported_tcb` (8 bytes in hex as they stand; `wire.snp.read_tcb` reads them).
    - TPM: `ak_sha256`, the hash of the attestation key's SubjectPublicKeyInfo. Nitro: none, it brings its own chain.
    """

    tee: Tee
    parameters: Mapping[str, str]


class Origin(StrEnum):
    """Who stands behind a claim (attack E12: what an issuer says must never pass for what hardware attested)."""

    ATTESTED = "attested"
    """Signed by the hardware's own key, or proven by a hash that it signed."""
    SIGNED = "signed"
    """Signed by somebody else: the hardware's vendor in a certificate or document, or the issuer of a token."""
    ASSERTED = "asserted"
    """Said, under no signature."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What evidence says of its Attester, in the vendor's own field names, lower-case hex for byte strings.

    `report_data` is the part that the Attester chose, as the evidence carries it (see `carried`). `tcb_status` is the
    vendor's word as converged by verification (worst of platform, QE and TDX module); empty where the vendor publishes
    levels and no statuses. `signed` and `asserted` name the values that others than the hardware stand behind, or
    nobody: every value has exactly one origin.

    Raises:
        ValueError: `signed` or `asserted` name something else than values, or the same one: our own mistake.
    """

    tee: Tee
    values: Mapping[str, ClaimValue]
    report_data: bytes
    debug: bool
    tcb_status: str
    advisories: tuple[str, ...] = ()
    tcb_evaluation_data_number: int | None = None
    tcb_date: datetime | None = None
    signed: frozenset[str] = frozenset()
    asserted: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))
        named = self.signed | self.asserted if self.asserted else self.signed
        if named and (self.signed & self.asserted or not named <= self.values.keys()):
            raise ValueError("origins: wanted names of values, each once")

    def origin(self, name: str) -> Origin:
        """Who stands behind this claim."""
        if name in self.signed:
            return Origin.SIGNED
        return Origin.ASSERTED if name in self.asserted else Origin.ATTESTED


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformList:
    """Chips that somebody vouches for, from `issued` up to `expires`; its signature was checked.

    `signer` is the SHA-256 of the signing key's SubjectPublicKeyInfo (hex), `ids` are lower-case hex by claim name.
    """

    signer: str
    name: str
    issued: datetime
    expires: datetime
    ids: Mapping[str, frozenset[str]]


_MINT = object()


@final
class Verified:
    """Claims whose proof held. Only `attestable_mcp.verify` can make one.

    `anchor` is the SHA-256 of the SubjectPublicKeyInfo of the trust anchor (hex), `anchor_name` its name in words,
    `valid_until` the first moment at which a piece of the proof expires, `signed_digest` the SHA-256 of the evidence's
    signed body (never of its signature: ECDSA has two valid forms). `ends` says which piece runs out when, for kinds
    that have more than collateral: `certificates`, `crl` or `token`, each with its moment; nothing for a pinned key.
    """

    __slots__ = (
        "anchor", "anchor_name", "at", "claims", "ends", "evidence_digest", "findings", "not_proven", "signed_digest",
        "simulated", "valid_until",
    )  # fmt: skip

    def __init__(
        self,
        mint: object,
        *,
        claims: Claims,
        evidence_digest: str,
        signed_digest: str,
        findings: tuple[Finding, ...],
        anchor: str,
        anchor_name: str,
        simulated: bool,
        at: datetime,
        valid_until: datetime,
        not_proven: tuple[str, ...] = (),
        ends: tuple[tuple[str, datetime], ...] = (),
    ) -> None:
        if mint is not _MINT:
            raise TypeError("Verified claims come from attestable_mcp.verify only")
        self.claims = claims
        self.evidence_digest = evidence_digest
        self.signed_digest = signed_digest
        self.findings = findings
        self.anchor = anchor
        self.anchor_name = anchor_name
        self.simulated = simulated
        self.at = at
        self.valid_until = valid_until
        self.not_proven = not_proven
        self.ends = ends


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """What an owner has taken back of deployment `name`; its signature was checked. `owner` and `keys` are hex hashes.

    Revoked is every grant whose serial is below `minimum_serial` or in `serials`, or whose key is in `keys`.
    """

    owner: str
    name: str
    number: int
    issued_at: datetime
    minimum_serial: int = 0
    serials: tuple[int, ...] = ()
    keys: tuple[str, ...] = ()

    def revokes(self, serial: int, key: str) -> bool:
        """Is the grant with this serial, for the key with this hash, taken back?"""
        return serial < self.minimum_serial or serial in self.serials or key in self.keys


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment whose holder was proven to be the other end. Whether its owner is the wanted one, a policy says.

    `owner` and `key` are SHA-256 over SubjectPublicKeyInfo, lower-case hex; `hosts` are in lower case. `revocations` is
    the owner's list that was shown beside the grant.
    """

    owner: str
    name: str
    hosts: tuple[str, ...]
    key: str
    serial: int
    not_before: datetime
    not_after: datetime
    revocations: RevocationList | None = None

    def to_json(self) -> dict[str, Any]:
        """The public JSON shape."""
        return {
            "owner": self.owner,
            "name": self.name,
            "hosts": list(self.hosts),
            "key": self.key,
            "serial": self.serial,
            "not_before": self.not_before.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "not_after": self.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A client that proved itself to a server, as the server's tools see it.

    `release` is the name of the accepted release that it is, "" where the policy names none; `code` holds those claims
    that say which code runs. `key` is the client's binding key (hex), the same on all its connections; `transcript` is
    the digest (hex) of what was proven on this connection.
    """

    verdict: Verdict
    tee: str
    release: str
    code: Mapping[str, ClaimValue]
    claims: Mapping[str, ClaimValue]
    key: str
    transcript: str
    simulated: bool
    deployment: Deployment | None = None

    def to_json(self) -> dict[str, Any]:
        """The shape in which a server behind a process or a socket is told of it."""
        return {
            "verdict": str(self.verdict),
            "tee": self.tee,
            "release": self.release,
            "code": dict(self.code),
            "claims": dict(self.claims),
            "key": self.key,
            "transcript": self.transcript,
            "simulated": self.simulated,
            "deployment": self.deployment.to_json() if self.deployment else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorReport:
    """The error of a result in the public JSON shape. Without a hint of its own it has that of its code."""

    code: str
    message: str
    hint: str = ""

    def __post_init__(self) -> None:
        if not self.hint:
            object.__setattr__(self, "hint", hint_for(self.code))

    def to_json(self) -> dict[str, str]:
        return {"code": self.code, "message": self.message, "hint": self.hint}


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationResult:
    """RFC 9334 Attestation Result: the verdict with every reason for it.

    `holds_until` is the first moment at which it may be another one, None where nothing was judged: whoever remembers a
    verdict must not use it from then on.
    """

    verdict: Verdict
    at: datetime
    tee: str = ""
    tcb_status: str = ""
    advisories: tuple[str, ...] = ()
    claims: Mapping[str, ClaimValue] = field(default_factory=lambda: MappingProxyType({}))
    origins: Mapping[str, Origin] = field(default_factory=lambda: MappingProxyType({}))
    findings: tuple[Finding, ...] = ()
    not_proven: tuple[str, ...] = ()
    simulated: bool = False
    error: ErrorReport | None = None
    evidence_digest: str = ""
    trust_anchor: str = ""
    policy: str = ""
    deployment: Deployment | None = None
    holds_until: datetime | None = None

    @property
    def exit_code(self) -> int:
        """0 verified, 2 refused, 3 unavailable, 4 partial."""
        return {Verdict.VERIFIED: 0, Verdict.REFUSED: 2, Verdict.UNAVAILABLE: 3, Verdict.PARTIAL: 4}[self.verdict]

    @property
    def admitted(self) -> bool:
        """May this peer be spoken to? PARTIAL only ever comes of an explicit request (`genuine only`)."""
        return self.verdict in (Verdict.VERIFIED, Verdict.PARTIAL)

    def to_json(self) -> dict[str, Any]:
        """The public JSON shape of `verify --json`."""
        return {
            "verdict": str(self.verdict),
            "tee": self.tee,
            "tcb_status": self.tcb_status,
            "advisories": list(self.advisories),
            "claims": dict(self.claims),
            "origins": {name: str(origin) for name, origin in self.origins.items()},
            "findings": [finding.to_json() for finding in self.findings],
            "not_proven": list(self.not_proven),
            "simulated": self.simulated,
            "at": self.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "trust_anchor": self.trust_anchor,
            "policy": self.policy,
            "evidence_sha256": self.evidence_digest,
            "deployment": self.deployment.to_json() if self.deployment else None,
            "error": self.error.to_json() if self.error else None,
        }
