"""Intel DCAP verification of SGX and TDX quotes: our own, each check named, nothing fetched, no clock.

Order: what needs no collateral first (so that a forged quote is refused, not called unavailable), then completeness,
then revocation, collateral and TCB. What is remembered: proven PCK chains and proven collateral sets, by digest, per
set of anchors. Both ECDSA signatures of the quote are checked every time.

Demands beyond Intel's library: TCB info and QE identity signed by the TCB signing certificate itself (not by whatever
the root has issued); both CRLs; no document or CRL from the future; the upper half of the QE's report data zero.
Not checked here, but reported as claims for a policy: debug, SEPT_VE_DISABLE, service TD, migration, SMT.

Sources: Intel SGX DCAP Quote Verification Library (steps 4.1.2.4); Intel PCS API v4; Intel SGX PCK Certificate and CRL
Profile Specification.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from attestable_mcp.errors import (
    ChainInvalid,
    EndorsementStale,
    EndorsementUnavailable,
    EvidenceError,
    SignatureInvalid,
    VerificationError,
)
from attestable_mcp.rats import (
    _MINT,
    Claims,
    ClaimValue,
    DocumentKind,
    EndorsementQuery,
    Endorsements,
    Finding,
    SignedDocument,
    Tee,
    Verified,
)
from attestable_mcp.verify.anchors import TrustAnchor, TrustAnchors
from attestable_mcp.verify.memory import Memory, Window, anchor_digest
from attestable_mcp.verify.tcb import Standing, judge_qe, judge_tcb
from attestable_mcp.verify.tdlog import explain
from attestable_mcp.verify.trail import Trail
from attestable_mcp.verify.x509 import (
    Certificate,
    Path,
    Shelf,
    check_crls,
    crls_of,
    demand_window,
    point_key,
    read_crls,
    signature_holds,
    walk,
)
from attestable_mcp.wire.collateral import QeIdentity, TcbInfo, read_qe_identity, read_tcb_info
from attestable_mcp.wire.intel import IntelQuote, SgxReport, TdReport, quote_fields
from attestable_mcp.wire.pck import PckExtension, read_pck_extension

QE_VENDOR_ID = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
"""Intel's quoting enclaves, UUID 939A7233-F79C-4CA9-940A-0DB3957F0607."""
TCB_SIGNER = "Intel SGX TCB Signing"
_CAS = {"Platform CA": "platform", "Processor CA": "processor"}
_INSTANT = timedelta(microseconds=1)
"""A document holds up to and with its nextUpdate, as in Intel's library; a CRL up to its nextUpdate."""
_PCS = "https://api.trustedservices.intel.com"

_NOT_PROVEN = (
    "when the quote was made: it carries no time, only its report data can tie it to this connection",
    "that nobody taps the machine's memory bus: attacks with physical access are outside Intel's threat model",
)

_UNSIGNED = frozenset(("certification_data_type", "trailing_bytes_after_quote"))
"""Fields of a quote that lie outside both signed spans."""
_Document = TypeVar("_Document", TcbInfo, QeIdentity)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pck:
    """The PCK certificate of a quote with its proven chain. `ca` is platform or processor."""

    certificate: Certificate
    extension: PckExtension
    path: Path
    ca: str
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """Proven collateral for one PCK and TEE, and the window in which all of it holds."""

    tcb_info: TcbInfo
    qe_identity: QeIdentity
    window: Window
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proven(Generic[_Document]):
    document: _Document
    signer: Certificate
    window: Window
    findings: tuple[Finding, ...]


def verify(
    quote: IntelQuote, endorsements: Endorsements, *, anchors: TrustAnchors, at: datetime, memory: Memory
) -> Verified:
    """Verify a parsed quote at the time `at` (timezone-aware) under `anchors.intel`.

    Raises:
        SignatureInvalid, ChainInvalid, Revoked, EndorsementStale, VerificationError: a proof failed; the error carries
            every finding so far. Codes of their own: `untrusted_root`, `simulated_evidence`, `certificate_expired`,
            `tcb_level_not_found`, `tcb_info_mismatch`, `qe_identity_mismatch`, `tdx_module_mismatch`.
        EndorsementUnavailable: nothing failed, but a piece of collateral is missing.
        MalformedEvidence, UnsupportedEvidence: a PCK extension or a document cannot be read.
    """
    trail = Trail()
    proof = prove(quote, endorsements, anchors=anchors, at=at, memory=memory, trail=trail)
    qe_level = judge_qe(quote.qe_report, proof.collateral.qe_identity, trail)
    standing = judge_tcb(proof.pck.extension, quote.body, proof.collateral.tcb_info, qe_level, trail)
    explained = _explained(quote.body, endorsements, trail)
    return _mint(quote, proof.pck, proof.collateral, standing, at, trail, explained)


_Explained = tuple[dict[str, ClaimValue], tuple[str, ...]]


def _explained(body: SgxReport | TdReport, endorsements: Endorsements, trail: Trail) -> _Explained:
    """What event logs say of a TD's registers; an enclave has none."""
    if not isinstance(body, TdReport):
        return {}, ()
    return explain({0: body.rtmr0, 1: body.rtmr1, 2: body.rtmr2, 3: body.rtmr3}, endorsements, trail)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A quote's proven PCK and collateral, before anything is said of its TCB."""

    pck: Pck
    collateral: Collateral


def prove(
    quote: IntelQuote, endorsements: Endorsements, *, anchors: TrustAnchors, at: datetime, memory: Memory, trail: Trail
) -> Proof:
    """Everything of `verify` but the judgement of the TCB. Raises: as `verify`."""
    if at.tzinfo is None:
        raise TypeError("the verification time needs a timezone")
    _check_quote(quote, trail)
    shelf = Shelf()
    pck = _prove_pck(quote, endorsements, anchors.intel, at, memory, trail, shelf)
    collateral = _prove_collateral(quote, endorsements, pck, anchors.intel, at, memory, trail, shelf)
    return Proof(pck=pck, collateral=collateral)


def query(quote: IntelQuote, endorsements: Endorsements | None = None) -> EndorsementQuery:
    """What to ask a source for: FMSPC and CA as the quote's PCK says, unverified.

    Raises:
        MalformedEvidence: the quote's PCK certificate cannot be read.
        EndorsementUnavailable: no PCK certificate in the quote (certification data type 3) nor in `endorsements`.
    """
    leaf, pool = _find_pck(quote, endorsements or Endorsements(), Trail(), Shelf())
    extension = read_pck_extension(leaf.sgx_extension or b"")
    issuer = next((c.common_name for c in pool if c.subject == leaf.issuer), "")
    parameters = {"fmspc": extension.fmspc.hex(), "pck_ca": _ca_name(issuer) or "platform"}
    return EndorsementQuery(tee=quote.tee, parameters=parameters)


def describe(quote: IntelQuote) -> dict[str, ClaimValue]:
    """Every field of the quote and of the PCK certificate in it, unverified, under the names of the claims.

    Raises:
        MalformedEvidence: the quote's PCK certificate has no readable SGX extension.
    """
    values = quote_fields(quote)
    pool = Shelf().pool(quote.certificates)
    leaf = next((certificate for certificate in pool if certificate.sgx_extension is not None), None)
    if leaf is None or leaf.sgx_extension is None:
        return values
    issuer = next((c.common_name for c in pool if c.subject == leaf.issuer), "")
    return values | _pck_fields(leaf, read_pck_extension(leaf.sgx_extension), _ca_name(issuer) or "unknown")


# --- the quote itself -------------------------------------------------------------------------------------------------


def _check_quote(quote: IntelQuote, trail: Trail) -> None:
    if quote.trailing:
        trail.passed("intel.quote.trailing", f"{quote.trailing} zero bytes after the quote", "padding, left out")
    seen = quote.qe_vendor_id.hex()
    if quote.qe_vendor_id != QE_VENDOR_ID:
        wanted = QE_VENDOR_ID.hex()
        trail.refuse(VerificationError, "intel.quote.qe_vendor", wanted=wanted, seen=seen, code="unknown_qe_vendor")
    trail.passed("intel.quote.qe_vendor", seen)
    key = point_key(quote.attestation_key)
    if key is None:
        trail.refuse(SignatureInvalid, "intel.quote.signature", wanted="a P-256 attestation key", seen="no curve point")
    if not signature_holds(key, quote.signature, quote.signed):
        trail.refuse(
            SignatureInvalid,
            "intel.quote.signature",
            wanted="a signature by the attestation key",
            seen="none that holds",
        )
    trail.passed("intel.quote.signature")
    committed = hashlib.sha256(quote.attestation_key + quote.qe_auth_data).digest() + bytes(32)
    if quote.qe_report.report_data != committed:
        trail.refuse(
            VerificationError, "intel.qe.attestation_key_hash", wanted=committed.hex(),
            seen=quote.qe_report.report_data.hex(), code="attestation_key_mismatch",
        )  # fmt: skip
    trail.passed("intel.qe.attestation_key_hash")


# --- the PCK chain ----------------------------------------------------------------------------------------------------


def _prove_pck(
    quote: IntelQuote, endorsements: Endorsements, anchors: tuple[TrustAnchor, ...], at: datetime, memory: Memory,
    trail: Trail, shelf: Shelf,
) -> Pck:  # fmt: skip
    key = ("pck", anchor_digest(anchors), hashlib.sha256(quote.certification_data).digest())
    known: Pck | None = memory.recall(key, at) if quote.certificates else None
    if known is not None:
        _check_qe_signature(quote, known.certificate, trail)
        trail.extend(known.findings)
        return known
    leaf, pool = _find_pck(quote, endorsements, trail, shelf)
    _check_qe_signature(quote, leaf, trail)
    start = len(trail.findings)
    pck = _walk_pck(leaf, pool, anchors, at, trail, start, shelf)
    if quote.certificates:
        memory.remember(key, pck, pck.path.window)
    return pck


def _walk_pck(
    leaf: Certificate, pool: Sequence[Certificate], anchors: tuple[TrustAnchor, ...], at: datetime, trail: Trail,
    start: int, shelf: Shelf,
) -> Pck:  # fmt: skip
    check = "intel.pck.chain"
    extension = read_pck_extension(leaf.sgx_extension or b"")
    path = walk(leaf, pool, anchors, at=at, trail=trail, check=check, shelf=shelf, demand_timely=False)
    ca = _ca_name(path.certificates[1].common_name) if len(path.certificates) == 3 else None
    if ca is None:
        seen = " < ".join(f"{certificate.common_name!a}" for certificate in path.certificates)
        trail.refuse(ChainInvalid, check, wanted="PCK certificate < PCK Platform or Processor CA < root", seen=seen)
    trail.passed(check, f"{path.anchor.name}, {ca} CA")
    return Pck(certificate=leaf, extension=extension, path=path, ca=ca, findings=trail.findings[start:])


def _ca_name(common_name: str) -> str | None:
    return next((name for text, name in _CAS.items() if common_name.endswith(text)), None)


def _find_pck(
    quote: IntelQuote, endorsements: Endorsements, trail: Trail, shelf: Shelf
) -> tuple[Certificate, tuple[Certificate, ...]]:
    """The PCK certificate, and every certificate at hand. It is known by its SGX extension; order says nothing."""
    own = shelf.pool(quote.certificates)
    others = endorsements.certificates + tuple(
        der for document in endorsements.documents for der in document.issuer_chain
    )
    pool = own + shelf.pool(others)
    leaves = [certificate for certificate in (own or pool) if certificate.sgx_extension is not None]
    if quote.certificates:
        if len(leaves) != 1:
            wanted = "one certificate with the SGX extension in the quote"
            trail.refuse(ChainInvalid, "intel.pck.chain", wanted=wanted, seen=str(len(leaves)), code="pck_missing")
        return leaves[0], pool
    if not leaves:
        raise EndorsementUnavailable(
            "intel.pck.chain: the quote names its PCK by encrypted PPID (certification data type 3), "
            "and no PCK certificate is at hand",
            hint=f"Fetch the PCK chain with the encrypted PPID ({_PCS}/sgx/certification/v4/pckcert) and give it as "
            "endorsements.",
        )
    signers = [leaf for leaf in leaves if signature_holds(leaf.key, quote.qe_report_signature, quote.qe_report.raw)]
    return (signers or leaves)[0], pool


def _check_qe_signature(quote: IntelQuote, pck: Certificate, trail: Trail) -> None:
    check = "intel.qe.report_signature"
    if not signature_holds(pck.key, quote.qe_report_signature, quote.qe_report.raw):
        trail.refuse(SignatureInvalid, check, wanted="a signature by the PCK", seen="none that holds")
    trail.passed(check)


# --- collateral -------------------------------------------------------------------------------------------------------


def _prove_collateral(
    quote: IntelQuote, endorsements: Endorsements, pck: Pck, anchors: tuple[TrustAnchor, ...], at: datetime,
    memory: Memory, trail: Trail, shelf: Shelf,
) -> Collateral:  # fmt: skip
    key = ("collateral", anchor_digest(anchors), quote.tee, pck.certificate.der, endorsements_digest(endorsements))
    known: Collateral | None = memory.recall(key, at)
    if known is not None:
        trail.extend(known.findings)
        return known
    collateral = _Gathered(quote.tee, endorsements, pck, anchors, at, trail, shelf).prove()
    memory.remember(key, collateral, collateral.window)
    return collateral


def endorsements_digest(endorsements: Endorsements) -> bytes:
    """SHA-256 over every byte of a bag of collateral, each piece framed by its length. Event logs are no collateral."""
    parts: list[Sequence[bytes]] = [endorsements.certificates, endorsements.crls]
    documents = [item for item in endorsements.documents if item.kind != DocumentKind.EVENT_LOG]
    parts += [(d.kind.encode(), d.body, d.signature, *d.issuer_chain) for d in documents]
    framed: list[bytes] = []
    for part in parts:
        framed.append(b"%d;" % len(part))
        for piece in part:
            framed += (b"%d:" % len(piece), piece)
    return hashlib.sha256(b"".join(framed)).digest()


class _Gathered:
    """One pass over untrusted collateral for one PCK."""

    def __init__(
        self,
        tee: Tee,
        endorsements: Endorsements,
        pck: Pck,
        anchors: tuple[TrustAnchor, ...],
        at: datetime,
        trail: Trail,
        shelf: Shelf,
    ) -> None:
        self.tee = tee
        self.pck = pck
        self.anchors = anchors
        self.at = at
        self.trail = trail
        self.shelf = shelf
        self.certificates = endorsements.certificates
        self.documents = endorsements.documents
        crls = read_crls(endorsements.crls)
        self.pck_crls = crls_of(pck.path.certificates[1].subject, crls)
        self.root_crls = crls_of(pck.path.root.subject, crls)

    def prove(self) -> Collateral:
        start = len(self.trail.findings)
        self._demand_complete()
        demand_window(self.pck.path, at=self.at, trail=self.trail, check="intel.pck.validity")
        self.trail.passed("intel.pck.validity", f"until {self.pck.path.window.end:%Y-%m-%dT%H:%M:%SZ}")
        ca, root = self.pck.path.certificates[1], self.pck.path.root
        window = self.pck.path.window
        window &= check_crls(
            ca, self.pck_crls, {self.pck.certificate.serial: "the PCK certificate"}, at=self.at, trail=self.trail,
            check="intel.pck.crl",
        )  # fmt: skip
        tcb = self._prove_document(DocumentKind.INTEL_TCB_INFO, "intel.tcb_info", read_tcb_info, self._match_tcb_info)
        qe = self._prove_document(
            DocumentKind.INTEL_QE_IDENTITY, "intel.qe_identity", read_qe_identity, self._match_qe_identity
        )
        serials = {ca.serial: "the PCK CA"} | {p.serial: "the TCB signing certificate" for p in (tcb.signer, qe.signer)}
        window &= check_crls(root, self.root_crls, serials, at=self.at, trail=self.trail, check="intel.root.crl")
        return Collateral(
            tcb_info=tcb.document, qe_identity=qe.document, window=window & tcb.window & qe.window,
            findings=self.trail.findings[start:],
        )  # fmt: skip

    def _demand_complete(self) -> None:
        missing = list(self._missing())
        if missing:
            raise EndorsementUnavailable(
                "missing collateral: " + "; ".join(missing),
                hint="Configure an endorsement source (PCS or PCCS), or give the collateral with --endorsements.",
            )

    def _missing(self) -> Sequence[str]:
        tee, fmspc = self.tee.value, self.pck.extension.fmspc.hex()
        base = f"{_PCS}/{tee}/certification/v4"
        kinds = {document.kind for document in self.documents}
        pieces = (
            (DocumentKind.INTEL_TCB_INFO in kinds, f"TCB info ({base}/tcb?fmspc={fmspc})"),
            (DocumentKind.INTEL_QE_IDENTITY in kinds, f"QE identity ({base}/qe/identity)"),
            (bool(self.pck_crls), f"PCK CRL ({_PCS}/sgx/certification/v4/pckcrl?ca={self.pck.ca}&encoding=der)"),
            (bool(self.root_crls), f"root CA CRL ({_PCS}/sgx/certification/v4/rootcacrl)"),
        )
        return [text for there, text in pieces if not there]

    def _match_tcb_info(self, info: TcbInfo) -> None:
        wanted = (self.tee, self.pck.extension.fmspc, self.pck.extension.pce_id)
        if (info.tee, info.fmspc, info.pce_id) != wanted:
            self.trail.refuse(
                VerificationError, "intel.tcb_info.platform", code="tcb_info_mismatch",
                wanted=f"TCB info for {wanted[0]}, FMSPC {wanted[1].hex()}, PCEID {wanted[2].hex()}",
                seen=f"{info.tee}, {info.fmspc.hex()}, {info.pce_id.hex()}",
            )  # fmt: skip

    def _match_qe_identity(self, identity: QeIdentity) -> None:
        wanted = "QE" if self.tee is Tee.SGX else "TD_QE"
        if identity.id != wanted:
            self.trail.refuse(
                VerificationError, "intel.qe_identity.id", code="qe_identity_mismatch", wanted=wanted, seen=identity.id
            )

    def _prove_document(
        self, kind: DocumentKind, check: str, read: Callable[[bytes], _Document], match: Callable[[_Document], None]
    ) -> _Proven[_Document]:
        """Of several documents that prove, the newest: a peer that staples an older one cannot turn ours back."""
        proven: list[_Proven[_Document]] = []
        failures: list[VerificationError | EvidenceError | EndorsementUnavailable] = []
        outer = self.trail
        for document in (document for document in self.documents if document.kind == kind):
            self.trail = Trail()
            self.trail.extend(outer.findings)
            try:
                proven.append(self._prove_one(document, check, read, match, len(outer.findings)))
            except (VerificationError, EvidenceError, EndorsementUnavailable) as error:
                failures.append(error)
        self.trail = outer
        if not proven:
            raise failures[0]
        best = max(proven, key=lambda one: (one.document.evaluation_number, one.document.issue_date))
        self.trail.extend(best.findings)
        return best

    def _prove_one(
        self, signed: SignedDocument, check: str, read: Callable[[bytes], _Document],
        match: Callable[[_Document], None], start: int,
    ) -> _Proven[_Document]:  # fmt: skip
        document = read(signed.body)
        match(document)
        path = self._prove_signer(signed, f"{check}.signer")
        signer = path.certificates[0]
        if len(signed.signature) != 64 or not signature_holds(signer.key, signed.signature, signed.body):
            wanted = f"a signature by {TCB_SIGNER}"
            self.trail.refuse(SignatureInvalid, f"{check}.signature", wanted=wanted, seen="none that holds")
        self.trail.passed(f"{check}.signature")
        window = Window(start=document.issue_date, end=document.next_update + _INSTANT)
        span = f"{document.issue_date:%Y-%m-%dT%H:%M:%SZ} to {document.next_update:%Y-%m-%dT%H:%M:%SZ}"
        if self.at not in window:
            wanted = f"a document in force at {self.at:%Y-%m-%dT%H:%M:%SZ}"
            self.trail.refuse(EndorsementStale, f"{check}.validity", wanted=wanted, seen=span)
        self.trail.passed(f"{check}.validity", span)
        return _Proven(
            document=document, signer=signer, window=window & path.window, findings=self.trail.findings[start:]
        )

    def _prove_signer(self, signed: SignedDocument, check: str) -> Path:
        """The TCB signing certificate, issued by the very root of the PCK chain and by nobody below it."""
        chain = self.shelf.pool(signed.issuer_chain)
        pool = chain + self.shelf.pool(self.certificates) + self.pck.path.certificates
        leaves = [c for c in chain if not c.is_ca] or list(chain)
        if not leaves:
            leaves = [c for c in pool if c.common_name == TCB_SIGNER]
            leaves.sort(key=lambda c: not signature_holds(c.key, signed.signature, signed.body))
        if not leaves:
            raise EndorsementUnavailable(
                f"{check}: the certificate chain of the document's signer is missing",
                hint=f"A PCS sends it in a header beside the document: give it as endorsement ({TCB_SIGNER}).",
            )
        signer = leaves[0]
        if signer.common_name != TCB_SIGNER or signer.sgx_extension is not None:
            self.trail.refuse(
                ChainInvalid, check, wanted=f"{TCB_SIGNER}, without SGX extension", seen=f"{signer.common_name!a}",
                code="wrong_signer",
            )  # fmt: skip
        path = walk(signer, pool, self.anchors, at=self.at, trail=self.trail, check=check, shelf=self.shelf)
        if len(path.certificates) != 2 or path.root.spki_sha256 != self.pck.path.root.spki_sha256:
            wanted = "a signer issued by the root of the PCK chain"
            self.trail.refuse(ChainInvalid, check, wanted=wanted, seen=f"{path.certificates[-1].common_name!a}")
        self.trail.passed(check, TCB_SIGNER)
        return path


# --- the result -------------------------------------------------------------------------------------------------------


def _pck_fields(certificate: Certificate, extension: PckExtension, ca: str) -> dict[str, ClaimValue]:
    """What the PCK certificate says of the platform, under its names in claims."""
    handle = certificate.handle
    values: dict[str, ClaimValue] = {
        "fmspc": extension.fmspc.hex(),
        "pck_cpusvn": extension.cpusvn.hex(),
        "pck_pcesvn": extension.pcesvn,
        "pck_pceid": extension.pce_id.hex(),
        "pck_ca": ca,
        "pck_not_before": handle.not_valid_before_utc.isoformat(),
        "pck_not_after": handle.not_valid_after_utc.isoformat(),
        "ppid": extension.ppid.hex(),
    }
    if extension.platform_instance_id is not None:
        values["piid"] = extension.platform_instance_id.hex()
    flags = {
        "dynamic_platform": extension.dynamic_platform,
        "cached_keys": extension.cached_keys,
        "smt_enabled": extension.smt_enabled,
    }
    return values | {name: flag for name, flag in flags.items() if flag is not None}


def _mint(
    quote: IntelQuote,
    pck: Pck,
    collateral: Collateral,
    standing: Standing,
    at: datetime,
    trail: Trail,
    explained: _Explained,
) -> Verified:
    number = collateral.tcb_info.evaluation_number
    signed = _pck_fields(pck.certificate, pck.extension, pck.ca) | {"tcb_evaluation_data_number": number}
    values = quote_fields(quote) | signed | explained[0]
    claims = Claims(
        tee=quote.tee, values=values, report_data=quote.report_data, debug=quote.debug, tcb_status=standing.status,
        advisories=standing.advisories, tcb_evaluation_data_number=number, tcb_date=standing.date,
        signed=frozenset(signed), asserted=_UNSIGNED & frozenset(values),
    )  # fmt: skip
    simulated = pck.path.simulated
    return Verified(
        _MINT, claims=claims, evidence_digest=hashlib.sha256(quote.raw).hexdigest(),
        signed_digest=hashlib.sha256(quote.signed).hexdigest(), findings=trail.findings,
        anchor=pck.path.anchor.spki_sha256, anchor_name=pck.path.anchor.name, simulated=simulated, at=at,
        valid_until=collateral.window.end, not_proven=_not_proven(quote, explained[1]),
    )  # fmt: skip


def _not_proven(quote: IntelQuote, unexplained: tuple[str, ...]) -> tuple[str, ...]:
    found = _NOT_PROVEN + unexplained
    if isinstance(quote.body, TdReport) and quote.body.mr_service_td and any(quote.body.mr_service_td):
        found += ("what the service TD bound to this TD may do: its measurement is in mr_service_td",)
    return found
