"""TPM 2.0 quotes: trust in the attestation key, its signature, the PCR digest, and the event log's replay.

The key is trusted because a certificate for that very key leads to a pinned root, or because the key itself is pinned
among the `tpm` anchors. PCR 16 and 23 can be reset by anybody and never become claims. Source: TCG TPM 2.0 Library
Part 1 §31 and Part 2 §10.12; TCG PC Client Platform Firmware Profile 1.06 §10 for logs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, NoReturn

from attestable_mcp.errors import (
    ChainInvalid,
    EndorsementUnavailable,
    EvidenceError,
    SignatureInvalid,
    VerificationError,
)
from attestable_mcp.rats import (
    _MINT,
    Claims,
    ClaimValue,
    EndorsementQuery,
    Endorsements,
    Evidence,
    Finding,
    Tee,
    Verified,
)
from attestable_mcp.verify.chain import check_revocation, ends_of, is_authority, read_pool, walk
from attestable_mcp.verify.description import Description
from attestable_mcp.verify.memory import Window, anchor_digest
from attestable_mcp.verify.signature import HASHES, holds
from attestable_mcp.verify.trail import Trail
from attestable_mcp.wire import der
from attestable_mcp.wire.bootlog import boot_applications, secure_boot
from attestable_mcp.wire.eventlog import EventLog, content_faults, read_log, replay_pcrs
from attestable_mcp.wire.tpm import (
    DIGEST_SIZES,
    RESETTABLE,
    Quote,
    Selection,
    Signature,
    TpmEvidence,
    pcr_concatenation,
    read_evidence,
    read_quote,
    read_signature,
)
from attestable_mcp.wire.x509 import X509Leaf

if TYPE_CHECKING:
    from attestable_mcp.verify.anchors import TrustAnchor, TrustAnchors
    from attestable_mcp.verify.memory import Memory

_PREFERRED = ("sha512", "sha384", "sha256")
_FOREVER = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
"""A pinned key has no expiry of its own."""
_NO_MEMORY = "that its memory is hidden from its host: a TPM proves what was booted, not where"
_NO_MAKER = "that a TPM holds the attestation key: it is pinned, and no maker of TPMs vouches for it"
_NO_LOG = "what the PCR values mean: no event log was sent"
_NO_CRL = "revocation of the attestation key: no list of its issuer was given"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTrust:
    """Why the attestation key is believed: the anchor, until when, and what stays unproven."""

    anchor: TrustAnchor
    valid_until: datetime
    not_proven: tuple[str, ...] = ()
    ends: tuple[tuple[str, datetime], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteClaims:
    """What a verified quote says: claims by name, and what stays unproven."""

    quote: Quote
    values: Mapping[str, ClaimValue]
    not_proven: tuple[str, ...]


def query(evidence: Evidence) -> EndorsementQuery:
    """The SHA-256 of the attestation key, whose certificate is wanted. Raises: EvidenceError."""
    key = read_evidence(evidence.body).ak
    return EndorsementQuery(tee=Tee.TPM, parameters={"ak_sha256": hashlib.sha256(key).hexdigest()})


def describe(evidence: Evidence) -> Description:
    """Every field of the quote and the PCRs sent beside it, unverified. Raises: EvidenceError."""
    sent = read_evidence(evidence.body)
    digests = tuple(hashlib.sha256(raw).hexdigest() for raw in sent.ak_certificates)
    return Description(tee=Tee.TPM, values=stated_values(sent), certificates=digests)


def stated_values(sent: TpmEvidence) -> dict[str, ClaimValue]:
    """What a quote and its sender say, unverified; PCRs that can be reset are among it. Raises: EvidenceError."""
    quote = read_quote(sent.quote)
    values = _quote_values(quote) | {"ak_sha256": hashlib.sha256(sent.ak).hexdigest()}
    values |= {"selection": "; ".join(f"{item.bank} {','.join(map(str, item.pcrs))}" for item in quote.selection)}
    for bank, pcrs in sent.pcrs.items():
        values |= {f"pcr{number}_{bank}": value.hex() for number, value in sorted(pcrs.items())}
    return values | {"event_log_bytes": len(sent.event_log)}


def verify(
    evidence: Evidence, endorsements: Endorsements, *, anchors: TrustAnchors, at: datetime, memory: Memory
) -> Verified:
    """Verify a quote. The signature comes first: a forgery is refused even where the key's certificate is missing.

    Raises: EvidenceError, SignatureInvalid, ChainInvalid, Revoked, EndorsementStale, EndorsementUnavailable.
    """
    trail = Trail()
    sent = read_evidence(evidence.body)
    proven = check_quote(sent, read_signature(sent.signature), trail)
    bag = endorsements
    if sent.ak_certificates:
        bag = Endorsements(certificates=sent.ak_certificates + bag.certificates, crls=bag.crls)
    trust = trust_key(sent.ak, bag, anchors.tpm, at=at, trail=trail, memory=memory)
    return Verified(
        _MINT,
        claims=Claims(
            tee=Tee.TPM, values=proven.values, report_data=proven.quote.extra_data, debug=False, tcb_status=""
        ),
        evidence_digest=evidence.digest,
        signed_digest=hashlib.sha256(proven.quote.raw).hexdigest(),
        findings=trail.findings,
        anchor=trust.anchor.spki_sha256,
        anchor_name=trust.anchor.name,
        simulated=trust.anchor.simulated,
        at=at,
        valid_until=trust.valid_until,
        ends=trust.ends,
        not_proven=(_NO_MEMORY, *proven.not_proven, *trust.not_proven),
    )


def check_quote(sent: TpmEvidence, signature: Signature, trail: Trail) -> QuoteClaims:
    """Signature, PCR digest, replay. Who the key belongs to is another question: `trust_key`, or Azure's runtime data.

    Raises: EvidenceError, SignatureInvalid, VerificationError (`pcr_mismatch`, `no_pcr`).
    """
    good = holds(signature.scheme, signature.hash, sent.ak, signature.value, sent.quote)
    seen = f"{signature.scheme} {signature.hash}" if good else "one that fails"
    trail.demand(good, SignatureInvalid, "tpm.quote.signature", "a signature by the attestation key", seen)
    quote = read_quote(sent.quote)
    block = _check_digest(quote, sent, signature, trail)
    _check_selection(quote, trail)
    _check_log(sent.event_log, trail)
    meaning = _meaning(quote.selection, block, sent.event_log)
    if sent.event_log:
        trail.passed("tpm.eventlog", meaning.seen)
    return QuoteClaims(quote=quote, values=meaning.values | _quote_values(quote), not_proven=meaning.not_proven)


def _check_digest(quote: Quote, sent: TpmEvidence, signature: Signature, trail: Trail) -> bytes:
    """The values that the digest covers, end to end. Its hash is the signing scheme's, whatever the bank (§10.12.1)."""
    block = pcr_concatenation(quote, sent.pcrs)
    digest = hashlib.new(signature.hash, block).digest()
    if digest != quote.pcr_digest:
        trail.refuse(
            VerificationError, "tpm.quote.pcrs", wanted=quote.pcr_digest.hex(), seen=digest.hex(),
            reason="the PCR values sent are not those that the TPM signed", code="pcr_mismatch",
        )  # fmt: skip
    trail.passed("tpm.quote.pcrs", digest.hex())
    return block


@lru_cache(maxsize=64)
def _lasting(selected: tuple[Selection, ...]) -> tuple[tuple[str, int], ...]:
    """The PCRs that a quote covers and that nobody can reset at will."""
    return tuple(
        (selection.bank, number)
        for selection in selected
        for number in selection.pcrs
        if selection.bank in HASHES and number not in RESETTABLE
    )


def _check_selection(quote: Quote, trail: Trail) -> None:
    lasting = _lasting(quote.selection)
    if not lasting:
        trail.refuse(
            VerificationError, "tpm.quote.selection", wanted="a lasting PCR of a SHA-2 bank", code="no_pcr",
            seen="; ".join(f"{item.bank} {item.pcrs}" for item in quote.selection) or "none",
        )  # fmt: skip
    trail.passed("tpm.quote.selection", f"{len(lasting)} PCRs")


def _check_log(data: bytes, trail: Trail) -> None:
    """A log is optional: the PCRs are proven without it. A log that contradicts itself is `event_log_invalid`."""
    if not data:
        trail.skipped("tpm.eventlog", "no event log was sent")
    elif faults := _understood(data)[1]:
        trail.refuse(VerificationError, "tpm.eventlog", reason=faults[0], code="event_log_invalid")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meaning:
    """What proven PCR values come to: claims, the words of the finding on the log, what stays unproven."""

    values: MappingProxyType[str, ClaimValue]
    seen: str
    not_proven: tuple[str, ...]


@lru_cache(maxsize=64)
def _meaning(selected: tuple[Selection, ...], block: bytes, event_log: bytes) -> _Meaning:
    """Read the values that a quote's digest covers, and replay the log against them: what it does not explain is said.

    A machine has the same values until something extends one. Nothing but covered values is looked at.
    """
    quoted = _split(selected, block)
    values = _pcr_values(quoted)
    if not event_log:
        return _Meaning(values=MappingProxyType(values), seen="", not_proven=(_NO_LOG,))
    log, _ = _understood(event_log)
    banks = [bank for bank in log.banks if any(bank == item for item, _ in quoted)]
    replayed = {bank: _replayed(event_log, bank) for bank in banks}
    unexplained = [f"{bank} PCR {number}" for bank, number in quoted if _differs(quoted, replayed, bank, number)]
    values["event_log_explains"] = f"not {', '.join(unexplained)}" if unexplained else "all"
    values |= _boot_values(log, {bank for bank in banks if not _differs(quoted, replayed, bank, 7)}, "secure_boot")
    values |= _boot_values(
        log, {bank for bank in banks if not _differs(quoted, replayed, bank, 4)}, "boot_applications"
    )
    left = (f"what {', '.join(unexplained)} mean: the event log does not explain them",) if unexplained else ()
    seen = f"{len(log.events)} events, {len(unexplained)} registers not explained"
    return _Meaning(values=MappingProxyType(values), seen=seen, not_proven=left)


def _split(selected: tuple[Selection, ...], block: bytes) -> dict[tuple[str, int], bytes]:
    """The lasting PCRs by bank and number, out of the values end to end as the digest covers them."""
    found, at = {}, 0
    for selection in selected:
        size = DIGEST_SIZES[selection.bank]
        for number in selection.pcrs:
            found[selection.bank, number] = block[at : at + size]
            at += size
    return {name: found[name] for name in _lasting(selected)}


def _pcr_values(quoted: Mapping[tuple[str, int], bytes]) -> dict[str, ClaimValue]:
    """`pcr0` … of the strongest bank, and `pcr0_sha256` … of each; SHA-1 banks and resettable PCRs are left out."""
    strongest = next(bank for bank in _PREFERRED if any(bank == item for item, _ in quoted))
    found: dict[str, ClaimValue] = {f"pcr{number}_{bank}": value.hex() for (bank, number), value in quoted.items()}
    return found | {f"pcr{number}": value.hex() for (bank, number), value in quoted.items() if bank == strongest}


def _quote_values(quote: Quote) -> dict[str, ClaimValue]:
    return {
        "extra_data": quote.extra_data.hex(),
        "pcr_digest": quote.pcr_digest.hex(),
        "qualified_signer": quote.qualified_signer.hex(),
        "firmware_version": f"{quote.firmware_version:016x}",
        "reset_count": quote.reset_count,
        "restart_count": quote.restart_count,
    }


@lru_cache(maxsize=32)
def _understood(data: bytes) -> tuple[EventLog, tuple[str, ...]]:
    """The log and what contradicts itself in it: a machine sends the same log until it boots again."""
    log = read_log(data)
    return log, tuple(content_faults(log))


@lru_cache(maxsize=64)
def _replayed(data: bytes, bank: str) -> Mapping[int, bytes]:
    return MappingProxyType(replay_pcrs(_understood(data)[0], bank))


def _boot_values(log: EventLog, banks: set[str], name: str) -> dict[str, ClaimValue]:
    """What the log proves of the boot, where it explains the register in one of these banks."""
    bank = next((bank for bank in _PREFERRED if bank in banks), None)
    if bank is None:
        return {}
    if name == "boot_applications":
        return {name: " ".join(boot_applications(log, bank))}
    on = secure_boot(log, bank)
    return {} if on is None else {name: on}


def _differs(
    quoted: Mapping[tuple[str, int], bytes], replayed: Mapping[str, Mapping[int, bytes]], bank: str, number: int
) -> bool:
    """A register that no event extends still has to hold the value that it starts with, which proves nothing more.

    One that the quote does not cover differs from everything: whoever sends its value may say what she likes.
    """
    value = quoted.get((bank, number))
    started = (b"\xff" if 17 <= number <= 22 else b"\0") * len(value or b"")
    return value is None or replayed.get(bank, {}).get(number, started) != value


def trust_key(
    ak: bytes,
    endorsements: Endorsements,
    anchors: Sequence[TrustAnchor],
    *,
    at: datetime,
    trail: Trail,
    memory: Memory | None = None,
) -> KeyTrust:
    """Why this attestation key is one. A certificate of another key is never taken for it (`ak_certificate_mismatch`).

    What the same certificates and lists came to is remembered from `at` until the first of them expires.

    Raises: EndorsementUnavailable (nothing at all speaks for the key), ChainInvalid, Revoked, EndorsementStale.
    """
    digest = _fingerprint(ak)
    pinned = next((anchor for anchor in anchors if anchor.spki_sha256 == digest), None)
    if pinned is not None:
        trail.passed("tpm.ak.pinned", pinned.name)
        return KeyTrust(anchor=pinned, valid_until=_FOREVER, not_proven=(_NO_MAKER,))
    bag = _bag_digest(endorsements.certificates, endorsements.crls)
    key = ("ak", digest, bag, anchor_digest(tuple(anchors)))
    known: tuple[KeyTrust, tuple[Finding, ...]] | None = memory.recall(key, at) if memory is not None else None
    if known is not None:
        trail.extend(known[1])
        return known[0]
    before = len(trail.findings)
    trust = _certified(ak, digest, endorsements, anchors, at, trail, memory)
    if memory is not None:
        memory.remember(key, (trust, trail.findings[before:]), Window(start=at, end=trust.valid_until))
    return trust


@lru_cache(maxsize=64)
def _fingerprint(ak: bytes) -> str:
    return hashlib.sha256(ak).hexdigest()


@lru_cache(maxsize=8)
def _bag_digest(certificates: tuple[bytes, ...], crls: tuple[bytes, ...]) -> bytes:
    """SHA-256 over the certificates and lists at hand, with their sizes, so that one is never read as two."""
    whole = [len(certificates).to_bytes(4, "big")]
    for raw in certificates + crls:
        whole += (len(raw).to_bytes(4, "big"), raw)
    return hashlib.sha256(b"".join(whole)).digest()


def _certified(
    ak: bytes,
    digest: str,
    endorsements: Endorsements,
    anchors: Sequence[TrustAnchor],
    at: datetime,
    trail: Trail,
    memory: Memory | None,
) -> KeyTrust:
    pool = read_pool(trim_der(raw) for raw in endorsements.certificates)
    leaf = next((certificate for certificate in pool if certificate.spki == ak), None)
    if leaf is None:
        _refuse_stranger(pool, digest, trail)
    path = walk(
        leaf, pool, anchors, at=at, trail=trail, check="tpm.ak.chain", memory=memory, incomplete=EndorsementUnavailable
    )
    until = check_revocation(path, endorsements.crls, at=at, trail=trail, check="tpm.ak.revocation", memory=memory)
    ends = ends_of(path, until)
    return KeyTrust(
        anchor=path.anchor, valid_until=min(moment for _, moment in ends), ends=ends,
        not_proven=(_NO_CRL,) if until is None else (),
    )  # fmt: skip


def _refuse_stranger(pool: Sequence[X509Leaf], digest: str, trail: Trail) -> NoReturn:
    """Leaves that certify another key are a substitution; with no leaf at all the certificate is merely missing."""
    leaves = [certificate for certificate in pool if not is_authority(certificate)]
    if not leaves:
        raise EndorsementUnavailable(
            f"tpm.ak.chain: no certificate for the attestation key {digest}",
            hint="Give the key's certificate with its chain, or pin the key.",
        )
    seen = ", ".join(hashlib.sha256(certificate.spki).hexdigest() for certificate in leaves)
    trail.refuse(
        ChainInvalid, "tpm.ak.key", wanted=f"a certificate for key {digest}", seen=f"one for {seen}",
        code="ak_certificate_mismatch",
    )  # fmt: skip


def trim_der(raw: bytes) -> bytes:
    """A certificate out of a TPM's NV index, whose content is padded (Azure: to 4096 bytes).

    The padding has to be zeros or ones: anything else is kept, so that the strict reader refuses it.
    """
    try:
        element = der.Reader(raw).read(der.SEQUENCE)
    except EvidenceError:
        return raw
    rest = raw[len(element.raw) :]
    return element.raw if not rest.strip(b"\0") or not rest.strip(b"\xff") else raw
