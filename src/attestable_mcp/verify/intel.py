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
from dataclasses import dataclass
from datetime import datetime

from attestable_mcp.errors import SignatureInvalid, VerificationError
from attestable_mcp.rats import _MINT, Claims, ClaimValue, EndorsementQuery, Endorsements, Verified
from attestable_mcp.verify.anchors import TrustAnchors
from attestable_mcp.verify.intel_collateral import Collateral, prove_collateral
from attestable_mcp.verify.memory import Memory
from attestable_mcp.verify.pck import Pck, ca_name, find_pck, pck_fields, prove_pck
from attestable_mcp.verify.tcb import Standing, judge_qe, judge_tcb
from attestable_mcp.verify.tdlog import explain
from attestable_mcp.verify.trail import Trail
from attestable_mcp.verify.x509 import Shelf, point_key, signature_holds
from attestable_mcp.wire.intel import IntelQuote, SgxReport, TdReport, quote_fields
from attestable_mcp.wire.pck import read_pck_extension

QE_VENDOR_ID = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
"""Intel's quoting enclaves, UUID 939A7233-F79C-4CA9-940A-0DB3957F0607."""

_NOT_PROVEN = (
    "when the quote was made: it carries no time, only its report data can tie it to this connection",
    "that nobody taps the machine's memory bus: attacks with physical access are outside Intel's threat model",
)

_UNSIGNED = frozenset(("certification_data_type", "trailing_bytes_after_quote"))
"""Fields of a quote that lie outside both signed spans."""


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
    pck = prove_pck(quote, endorsements, anchors.intel, at, memory, trail, shelf)
    collateral = prove_collateral(quote, endorsements, pck, anchors.intel, at, memory, trail, shelf)
    return Proof(pck=pck, collateral=collateral)


def query(quote: IntelQuote, endorsements: Endorsements | None = None) -> EndorsementQuery:
    """What to ask a source for: FMSPC and CA as the quote's PCK says, unverified.

    Raises:
        MalformedEvidence: the quote's PCK certificate cannot be read.
        EndorsementUnavailable: no PCK certificate in the quote (certification data type 3) nor in `endorsements`.
    """
    leaf, pool = find_pck(quote, endorsements or Endorsements(), Trail(), Shelf())
    extension = read_pck_extension(leaf.sgx_extension or b"")
    issuer = next((c.common_name for c in pool if c.subject == leaf.issuer), "")
    parameters = {"fmspc": extension.fmspc.hex(), "pck_ca": ca_name(issuer) or "platform"}
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
    return values | pck_fields(leaf, read_pck_extension(leaf.sgx_extension), ca_name(issuer) or "unknown")


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


# --- the result -------------------------------------------------------------------------------------------------------


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
    signed = pck_fields(pck.certificate, pck.extension, pck.ca) | {"tcb_evaluation_data_number": number}
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
