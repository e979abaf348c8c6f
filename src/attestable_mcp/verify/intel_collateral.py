"""Intel's collateral for a proven PCK: both CRLs, TCB info and QE identity, each signed and in force.

Sources: Intel SGX DCAP Quote Verification Library (steps 4.1.2.4); Intel PCS API v4.
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
from attestable_mcp.rats import DocumentKind, Endorsements, Finding, SignedDocument, Tee
from attestable_mcp.verify.anchors import TrustAnchor
from attestable_mcp.verify.intel_crls import check_crls, crls_of, read_crls
from attestable_mcp.verify.memory import Memory, Window, anchor_digest
from attestable_mcp.verify.pck import PCS, Pck
from attestable_mcp.verify.trail import Trail
from attestable_mcp.verify.x509 import Certificate, Path, Shelf, demand_window, signature_holds, walk
from attestable_mcp.wire.collateral import QeIdentity, TcbInfo, read_qe_identity, read_tcb_info
from attestable_mcp.wire.intel import IntelQuote

TCB_SIGNER = "Intel SGX TCB Signing"
_INSTANT = timedelta(microseconds=1)
"""A document holds up to and with its nextUpdate, as in Intel's library; a CRL up to its nextUpdate."""
_Document = TypeVar("_Document", TcbInfo, QeIdentity)


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


def prove_collateral(
    quote: IntelQuote, endorsements: Endorsements, pck: Pck, anchors: tuple[TrustAnchor, ...], at: datetime,
    memory: Memory, trail: Trail, shelf: Shelf,
) -> Collateral:  # fmt: skip
    """The collateral for this PCK, proven at `at`; remembered by every byte of it. Raises: as `verify.intel.verify`."""
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
        base = f"{PCS}/{tee}/certification/v4"
        kinds = {document.kind for document in self.documents}
        pieces = (
            (DocumentKind.INTEL_TCB_INFO in kinds, f"TCB info ({base}/tcb?fmspc={fmspc})"),
            (DocumentKind.INTEL_QE_IDENTITY in kinds, f"QE identity ({base}/qe/identity)"),
            (bool(self.pck_crls), f"PCK CRL ({PCS}/sgx/certification/v4/pckcrl?ca={self.pck.ca}&encoding=der)"),
            (bool(self.root_crls), f"root CA CRL ({PCS}/sgx/certification/v4/rootcacrl)"),
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
