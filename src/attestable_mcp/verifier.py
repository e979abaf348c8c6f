"""The only orchestration: parse, gather, verify, appraise.

A `Verifier` holds a policy, the sources of collateral and what it has verified before. Whatever a peer sends becomes a
result: of this package's errors none leaves these methods but `ConfigurationError`, which is ours and not the peer's.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from attestable_mcp.appraise.judge import appraise
from attestable_mcp.appraise.kinds.snp import AMD_CRL_MISSING, papers
from attestable_mcp.appraise.policy import VENDORS, Policy, TrustPolicy, split_anchor
from attestable_mcp.appraise.tokens import TokenPolicy
from attestable_mcp.bind.certificate import bind_certificate
from attestable_mcp.endorse.base import EndorsementSource, patience, serves
from attestable_mcp.endorse.files import FileSource
from attestable_mcp.endorse.kds import KdsSource
from attestable_mcp.endorse.keyset import KeySets
from attestable_mcp.endorse.pcs import PcsSource
from attestable_mcp.errors import (
    EXIT_UNAVAILABLE,
    AttestationError,
    AttestationUnavailable,
    ChannelMismatch,
    ConfigurationError,
    EndorsementUnavailable,
    NotFresh,
    SignatureInvalid,
    VerificationError,
)
from attestable_mcp.limits import LIMITS
from attestable_mcp.platformfile import PlatformFile
from attestable_mcp.rats import (
    AttestationResult,
    Endorsements,
    ErrorReport,
    Evidence,
    EvidenceKind,
    Finding,
    Outcome,
    Tee,
    Verdict,
    Verified,
    carried,
)
from attestable_mcp.verify import table
from attestable_mcp.verify.anchors import SIMULATED_ROOTS, TokenTrust, TrustAnchor, TrustAnchors
from attestable_mcp.verify.memory import Memory
from attestable_mcp.verify.signature import certificate_holds
from attestable_mcp.watermarks import Watermarks, default_path
from attestable_mcp.wire import ratls
from attestable_mcp.wire.detached import read_tokens
from attestable_mcp.wire.kinds import report_data
from attestable_mcp.wire.pem import PemBlock, certificate_of, read_blocks
from attestable_mcp.wire.ratls import CertificateEvidence, RatlsCertificate
from attestable_mcp.wire.recognise import Certificate, recognise
from attestable_mcp.wire.token import TokenKey, read_key_set
from attestable_mcp.wire.x509 import X509Leaf, read_certificate

AMD_TEES = (Tee.SEV_SNP, Tee.AZURE_SEV_SNP)
_PUBLIC_KEY = "PUBLIC KEY"
Names = tuple[str, ...]
_NO_CONNECTION = "this connection: the evidence is as old as its certificate, nothing ties it to a live connection"
_NO_KEY = "any key or connection: bare evidence proves that it was made once, not who holds it now"
_REPLACED = "the vendor's own root: the trust anchor was replaced for this call by"


@dataclass(frozen=True, slots=True, kw_only=True)
class Appraisal:
    """The result, and the verified claims where verification came so far. `verified` says nothing of the verdict.

    `incomplete` is set where a source that was not asked could still turn a refusal into an admission.
    """

    result: AttestationResult
    verified: Verified | None = None
    incomplete: bool = False


class Verifier:
    """Judges evidence by one policy. Safe to share between threads.

    `sources` and `anchors` override what the policy's `[trust]` names; `memory` and `watermarks` may be shared between
    verifiers; by default the marks are those that the user's processes share on disk. `clock` counts seconds for the
    deadline of fetching only; the time of judgement is handed in as `at`.

    Raises:
        ConfigurationError: an anchor or a source that the policy names cannot be read.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        sources: Sequence[EndorsementSource] | None = None,
        anchors: TrustAnchors | None = None,
        memory: Memory | None = None,
        watermarks: Watermarks | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.policy = policy
        self.anchors = resolve_anchors(policy.trust) if anchors is None else anchors
        self._sources = resolve_sources(policy.trust) if sources is None else tuple(sources)
        self._memory = Memory() if memory is None else memory
        rule = policy.rules.platforms
        self.platforms = PlatformFile(rule) if rule is not None and rule.listed is None else None
        self._watermarks = watermarks or Watermarks(default_path())
        self._clock = clock
        self._key_sets = KeySets()

    @property
    def patience(self) -> float:
        """Seconds that one judgement may take where every source has to be asked."""
        return patience(self._sources)

    @property
    def sources(self) -> tuple[EndorsementSource, ...]:
        """Whom it asks for collateral, in this order."""
        return self._sources

    def appraise_evidence(self, evidence: Evidence, *, stapled: Endorsements | None = None, at: datetime) -> Appraisal:
        """Prove and judge one piece of evidence. Whose key or connection it speaks of is for the caller to bind.

        `stapled` is what the peer itself handed over; `at` is timezone-aware.
        """
        try:
            verified, left_out = self._prove(evidence, stapled, at)
            return self._judge(verified, left_out=left_out)
        except ConfigurationError:
            raise
        except AttestationError as error:
            return self._failed(error, at, evidence.digest)

    def appraise_certificate(self, der: bytes, at: datetime) -> Appraisal:
        """Prove and judge the evidence in an RA-TLS certificate, and that it speaks of the certificate's key.

        The certificate's validity is checked before any work on evidence and before anything is fetched (attack C1).
        Under `freshness = "connection"` the caller still has to bind the connection.
        """
        digest = ""
        try:
            certificate = ratls.read(der)
            self._in_time(certificate.leaf, at)
            _bound_to_key(certificate)
            _signed_by_itself(certificate.leaf)
            evidence = certificate.evidence[0].evidence
            digest = evidence.digest
            verified, left_out = self._prove(evidence, certificate.endorsements, at)
            bind_certificate(certificate, verified, at)
            return self._judge(verified, *self._certificate_leaves_open(), left_out=left_out)
        except ConfigurationError:
            raise
        except AttestationError as error:
            return self._failed(error, at, digest)

    def appraise_source(self, data: bytes, at: datetime, *, stapled: Endorsements | None = None) -> Appraisal:
        """Prove and judge a file's bytes, recognised by content. A file proves nothing about a connection."""
        try:
            found = recognise(data)
        except AttestationError as error:
            return self._failed(error, at, "")
        if isinstance(found, Certificate):
            return _leaving_open(self.appraise_certificate(found.der, at), _NO_CONNECTION)
        return _leaving_open(self.appraise_evidence(found, stapled=stapled, at=at), _NO_KEY)

    def _prove(self, evidence: Evidence, stapled: Endorsements | None, at: datetime) -> tuple[Verified, Names]:
        verified, left_out = self._gather(evidence, self._usable(stapled), at)
        self._watermarks.check(verified)
        return verified, left_out

    def _usable(self, stapled: Endorsements | None) -> Endorsements:
        """What the peer handed over, where the policy takes it. An event log needs no such leave: it proves itself."""
        if stapled is None or "stapled" in self.policy.trust.endorsements:
            return stapled or Endorsements()
        return Endorsements(documents=stapled.event_logs)

    def _gather(self, evidence: Evidence, bag: Endorsements, at: datetime) -> tuple[Verified, Names]:
        """Verify with what was stapled; where pieces are missing, ask in turn the sources that the question is for.

        What a source gives goes before what the peer gave, so that a peer's bad piece does not hide a good one. The
        names are those of the pieces that a source of ours holds damaged.
        """
        found: Verified | None = None
        missing = EndorsementUnavailable("")
        try:
            found = self._verify(evidence, bag, at)
            if not self._wants_more(found):
                return found, bag.left_out
        except EndorsementUnavailable as error:
            missing = error
        query = table.query(evidence)
        sources = [source for source in self._sources if serves(source, query)]
        deadline = self._clock() + patience(sources)
        tried: list[str] = []
        for source in sources:
            left = deadline - self._clock()
            if left <= 0:
                tried.append(f"{source.name}: no time left")
                break
            try:
                bag = source.fetch(query, deadline_seconds=left) + bag
            except EndorsementUnavailable as error:
                tried.append(f"{source.name}: {error.message}")
                continue
            try:
                found = self._verify(evidence, bag, at)
                if not self._wants_more(found):
                    return found, bag.left_out
            except EndorsementUnavailable as error:
                missing = error
                tried.append(f"{source.name}: does not hold it")
        if found is not None:
            return found, bag.left_out
        raise EndorsementUnavailable(
            "; ".join([missing.message, *tried, *(f"left out as damaged: {name}" for name in bag.left_out)]),
            code=missing.code,
            hint=missing.hint if tried else "Name a source: endorsements in [trust], or --endorsements PATH.",
        )

    def _current(self) -> Policy:
        """The policy with the platform list as its file holds it now."""
        if self.platforms is None:
            return self.policy
        return replace(self.policy, rules=replace(self.policy.rules, platforms=self.platforms.current()))

    def _wants_more(self, verified: Verified) -> bool:
        """Would this policy refuse what is proven for a piece that a source may have: AMD's revocation list?"""
        if verified.claims.tee not in AMD_TEES:
            return False
        return any(item.code == AMD_CRL_MISSING for item in papers(verified, self.policy))

    def _verify(self, evidence: Evidence, bag: Endorsements, at: datetime) -> Verified:
        return table.verify(evidence, bag, anchors=self.anchors_for(evidence), at=at, memory=self._memory)

    def anchors_for(self, evidence: Evidence) -> TrustAnchors:
        """The anchors, with the keys of a token's issuer where they have to be fetched.

        Raises:
            EndorsementUnavailable: the keys cannot be had.
        """
        if evidence.kind is not EvidenceKind.TOKEN:
            return self.anchors
        tokens = tuple(self._with_keys(trust, evidence) for trust in self.anchors.tokens)
        return replace(self.anchors, tokens=tokens)

    def _with_keys(self, trust: TokenTrust, evidence: Evidence) -> TokenTrust:
        """The issuer of this token with its keys from their pinned address; other issuers are not asked."""
        if not trust.address or read_tokens(evidence.body).overall.claims.get("iss", "") != trust.issuer:
            return trust
        return replace(trust, keys=self._key_sets.get(trust.address, deadline_seconds=LIMITS.endorsement_seconds))

    def _judge(self, verified: Verified, *open_ends: str, left_out: Names = ()) -> Appraisal:
        result = appraise(verified, self._current())
        result = replace(result, findings=(*result.findings, *map(_damaged, left_out)))
        lost = self._watermarks.raise_to(verified) if result.admitted else ""
        appraisal = Appraisal(result=result, verified=verified, incomplete=self._wants_more(verified))
        return _leaving_open(appraisal, *open_ends, *self._replaced(verified), *filter(None, (lost,)))

    def _replaced(self, verified: Verified) -> tuple[str, ...]:
        names = [
            anchor.name for anchor in self.anchors.all if anchor.replaced and anchor.spki_sha256 == verified.anchor
        ]
        return tuple(f"{_REPLACED} {name}" for name in dict.fromkeys(names))

    def _in_time(self, leaf: X509Leaf, at: datetime) -> None:
        """Validity and age of the certificate. Raises: NotFresh."""
        if not leaf.not_before <= at <= leaf.not_after:
            raise NotFresh(
                f"certificate: wanted valid at {_when(at)}, seen valid from {_when(leaf.not_before)} "
                f"to {_when(leaf.not_after)}",
                hint="Check both clocks; a server whose certificate has run out must issue a new one.",
            )
        limit = self.policy.trust.certificate_age_limit
        if limit is not None and at - leaf.not_before > timedelta(seconds=limit):
            raise NotFresh(
                f"certificate: wanted at most {limit:.0f} seconds old, seen issued at {_when(leaf.not_before)}",
                hint="Ask the server to renew its certificate, or set max_certificate_age to what you accept.",
            )

    def _certificate_leaves_open(self) -> tuple[str, ...]:
        return (_NO_CONNECTION,) if self.policy.trust.freshness == "certificate" else ()

    def _failed(self, error: AttestationError, at: datetime, digest: str) -> Appraisal:
        unavailable = error.exit_code == EXIT_UNAVAILABLE
        found = error.findings if isinstance(error, VerificationError) else ()
        result = AttestationResult(
            verdict=Verdict.UNAVAILABLE if unavailable else Verdict.REFUSED,
            at=at,
            findings=tuple(finding for finding in found if isinstance(finding, Finding)),
            error=ErrorReport(code=error.code, message=error.message, hint=error.hint),
            evidence_digest=digest,
            policy=self.policy.name,
        )
        return Appraisal(result=result)


def _damaged(name: str) -> Finding:
    return Finding(
        check="endorsements.left_out", outcome=Outcome.SKIP, seen=name,
        reason="a piece of yours is damaged and was left out; replace it",
    )  # fmt: skip


def _when(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _leaving_open(appraisal: Appraisal, *sentences: str) -> Appraisal:
    """Add to what is not proven, where anything was proven at all."""
    if appraisal.verified is None or not sentences:
        return appraisal
    open_ends = tuple(dict.fromkeys((*appraisal.result.not_proven, *sentences)))
    return replace(appraisal, result=replace(appraisal.result, not_proven=open_ends))


def _bound_to_key(certificate: RatlsCertificate) -> None:
    """Every piece of evidence in the certificate must speak of its key, the ones that are not verified further too.

    Raises:
        AttestationUnavailable: there is none.
        ChannelMismatch: one speaks of another key.
    """
    if not certificate.evidence:
        raise AttestationUnavailable(
            "certificate: wanted evidence in an extension, seen none",
            hint="This is an ordinary certificate. Reach the server through its attested address.",
        )
    for piece in certificate.evidence:
        _tied(piece)


def _signed_by_itself(leaf: X509Leaf) -> None:
    """A self-issued certificate must hold under its own key, so that no byte of it can be changed by others.

    One that names another issuer is left alone: that issuer is nobody whom attestation knows.

    Raises:
        SignatureInvalid: it does not hold.
    """
    if leaf.issuer != leaf.subject:
        return
    if not certificate_holds(leaf.signature_algorithm, leaf.spki, leaf.signature, leaf.tbs):
        finding = Finding(
            check="certificate.signature",
            outcome=Outcome.FAIL,
            wanted="a signature by its own key",
            seen="none that holds",
            code="signature_invalid",
        )
        raise SignatureInvalid(
            "certificate: wanted a signature by its own key, seen none that holds",
            findings=(finding,),
            hint="It was altered. Fetch it anew; if it comes so again, treat the peer as hostile.",
        )


def _tied(piece: CertificateEvidence) -> None:
    hint = "The evidence was made for another key. Treat the peer as hostile."
    if not piece.key_matches:
        claimed = piece.pubkey_hash.digest.hex() if piece.pubkey_hash else "none"
        raise ChannelMismatch(
            f"certificate, {piece.source}: wanted claims that name this certificate's key, seen pubkey-hash {claimed}",
            hint=hint,
        )
    wanted, seen = carried(piece.report_data, piece.evidence.kind), report_data(piece.evidence)
    if seen != wanted:
        raise ChannelMismatch(
            f"certificate, {piece.source}: wanted report data {wanted.hex()}, seen {seen.hex()}", hint=hint
        )


def resolve_anchors(trust: TrustPolicy) -> TrustAnchors:
    """The trust anchors that a policy names; a vendor that it does not name has none.

    A vendor's word stands for its published roots, `VENDOR=PATH` for those in a file, and a path alone for roots of
    every vendor. `tpm=PATH` may also name an attestation key itself. The simulated root of a named vendor stands beside
    it, marked, to be refused by name.

    Raises:
        ConfigurationError: a file that cannot be read or holds neither certificate nor key.
    """
    found: dict[str, list[TrustAnchor]] = {vendor: [] for vendor in VENDORS}
    for name in trust.anchors:
        vendor, path = split_anchor(name)
        if not path:
            found[vendor] += [*getattr(TrustAnchors(), vendor), *getattr(SIMULATED_ROOTS, vendor)]
            continue
        roots = anchors_from_file(Path(path), keys=vendor == "tpm")
        for each in (vendor,) if vendor else VENDORS:
            found[each] += roots
    if trust.simulated == "accept":
        for vendor in VENDORS:
            found[vendor] += getattr(SIMULATED_ROOTS, vendor)
    anchors = {vendor: tuple(dict.fromkeys(anchors)) for vendor, anchors in found.items()}
    return TrustAnchors(**anchors, tokens=tuple(_token_trust(token) for token in trust.tokens))


def _token_trust(token: TokenPolicy) -> TokenTrust:
    """An issuer with the keys of its file; keys at an address are fetched when a token of it is judged."""
    remote = token.keys.startswith("https://")
    return TokenTrust(
        profile=token.profile,
        issuer=token.issuer,
        keys=_token_keys(Path(token.keys)) if token.keys and not remote else (),
        roots=tuple(anchors_from_file(Path(token.root))) if token.root else (),
        audiences=token.audience,
        nonce=token.nonce,
        address=token.keys if remote else "",
    )


def _token_keys(path: Path) -> tuple[TokenKey, ...]:
    try:
        with path.open("rb") as file:
            return read_key_set(file.read(LIMITS.endorsement + 1))
    except OSError as error:
        raise ConfigurationError(f"key set {path}: {error.strerror or error}", hint="Check the path.") from error
    except AttestationError as error:
        raise ConfigurationError(f"key set {path}: {error.message}", hint="Give a JSON Web Key Set.") from error


def anchors_from_file(path: Path, *, keys: bool = False) -> list[TrustAnchor]:
    """Trust anchors out of a PEM file of root certificates; each is marked as replacing the vendor's.

    With `keys`, public keys count as well: a TPM's attestation key may be pinned itself.

    Raises:
        ConfigurationError: unreadable, too large, or with something that is neither.
    """
    hint = "Give PEM certificates; a TPM's own attestation key may be given as tpm=PATH, a PEM public key."
    try:
        with path.open("rb") as file:
            data = file.read(LIMITS.endorsement + 1)
    except OSError as error:
        raise ConfigurationError(f"trust anchor {path}: {error.strerror or error}", hint="Check the path.") from error
    if len(data) > LIMITS.endorsement:
        raise ConfigurationError(f"trust anchor {path}: more than {LIMITS.endorsement} bytes")
    try:
        return [_anchor(block, keys, path) for block in read_blocks(data)]
    except AttestationError as error:
        raise ConfigurationError(f"trust anchor {path}: {error.message}", hint=hint) from error


def _anchor(block: PemBlock, keys: bool, path: Path) -> TrustAnchor:
    certificate = b"" if keys and block.label == _PUBLIC_KEY else certificate_of(block)
    digest = hashlib.sha256(read_certificate(certificate).spki if certificate else block.der).hexdigest()
    # Naming its file must not launder the simulated root.
    simulated = any(digest == root.spki_sha256 for root in SIMULATED_ROOTS.all)
    return TrustAnchor(
        name=path.name, spki_sha256=digest, simulated=simulated, replaced=True, certificate=certificate
    )  # fmt: skip


def resolve_sources(trust: TrustPolicy) -> tuple[EndorsementSource, ...]:
    """The sources that a policy names, in its order; "stapled" is no source, it comes with the evidence.

    Raises:
        ConfigurationError: a path or URL that cannot be a source.
    """
    return tuple(_source(name) for name in trust.endorsements if name != "stapled")


def _source(name: str) -> EndorsementSource:
    if name == "pcs":
        return PcsSource()
    if name == "kds":
        return KdsSource()
    if name.startswith(("https://", "http://")):
        return PcsSource(name)
    return FileSource(Path(name))
