"""What either end does with the other's evidence: certificate, live answer, deployment; and what it remembers.

The same judge serves a client that meets servers and a server that meets clients; only the role in the transcript and
the name under which a peer is remembered differ. A peer that is refused leaves no trace here (attack C14).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from attestable_mcp.appraise.deployment import HINTS as DEPLOYMENT_HINTS
from attestable_mcp.appraise.deployment import NO_OWNER, judge_deployment, newest_list
from attestable_mcp.appraise.offer import left_open
from attestable_mcp.appraise.policy import Policy
from attestable_mcp.bind.deployment import check_deployment
from attestable_mcp.bind.live import (
    Answer,
    AttestedKey,
    Binding,
    Challenge,
    Commitments,
    KeyProof,
    Link,
    QuoteProof,
    check,
    check_key,
    rebuild,
)
from attestable_mcp.bind.transcript import EXPORTER_LABEL, EXPORTER_SIZE, Role, Transcript
from attestable_mcp.endorse.base import EndorsementSource
from attestable_mcp.errors import (
    AppraisalRefused,
    AttestationUnavailable,
    ChannelMismatch,
    ConfigurationError,
    EndorsementUnavailable,
    MalformedEvidence,
)
from attestable_mcp.limits import LIMITS, Limits
from attestable_mcp.rats import (
    AttestationResult,
    Deployment,
    Endorsements,
    ErrorReport,
    Finding,
    Outcome,
    RevocationList,
    Verdict,
    Verified,
)
from attestable_mcp.tls.bounded import Bounded
from attestable_mcp.tls.channel import Channel
from attestable_mcp.tls.identity import same_identity
from attestable_mcp.tls.revocations import RevocationFile
from attestable_mcp.tls.steps import Steps, Work
from attestable_mcp.verifier import Appraisal, Verifier
from attestable_mcp.verify.memory import Memory
from attestable_mcp.watermarks import Watermarks, default_path
from attestable_mcp.wire import ratls
from attestable_mcp.wire.x509 import X509Leaf, read_certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenCertificate:
    """A certificate whose evidence was admitted; good until `until`, then it is judged anew."""

    der: bytes
    spki_sha256: bytes
    stapled: Endorsements | None
    result: AttestationResult
    verified: Verified
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Proven:
    """A live answer that was admitted: the verdict, the claims behind it, and the binding to this very connection."""

    result: AttestationResult
    verified: Verified
    binding: Binding
    commitments: Commitments
    deployment: Deployment | None
    good_for: float
    """Seconds from now on for which all that it rests on holds: the proof, a grace, the grant that was demanded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where and as whom the other end proves itself: what the transcript takes from our side of the socket."""

    role: Role
    exporter: bytes
    own_spki: bytes
    """SHA-256 of the proving end's leaf SubjectPublicKeyInfo."""
    peer_spki: bytes = b""
    """SHA-256 of ours, or empty where we showed no certificate."""
    host: str | None = None
    """The host that we dialled, which a deployment's grant must name; None for a peer that dialled us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Conversation:
    """What is remembered of a peer: its attested key with the verdict, and the link."""

    link: Link
    key: AttestedKey
    result: AttestationResult
    verified: Verified


class Judge:
    """Judges peers by one policy. Safe to share between threads and connections; what it remembers is bounded.

    What is stapled or remembered is verified at once; only where a source must be asked, or where a `verifier` is
    handed in, a thread does it.

    Raises:
        ConfigurationError: A source, anchor or revocation list that the policy names cannot be read, or it asks for a
            deployment without live binding.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        sources: Sequence[EndorsementSource] | None = None,
        verifier: Verifier | None = None,
        limits: Limits = LIMITS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        if policy.deployment is not None and policy.trust.freshness != "connection":
            raise ConfigurationError(
                f'{policy.name}: [deployment] wanted freshness = "connection", seen "{policy.trust.freshness}"',
                hint="Only a live connection proves that its other end holds the deployment's key.",
            )
        self.policy = policy
        self.limits = limits
        self.clock = clock
        memory, marks = Memory(), Watermarks(default_path())
        self._verifier = verifier or Verifier(policy, sources=sources, memory=memory, watermarks=marks)
        self._offline = (
            None
            if verifier
            else Verifier(policy, sources=(), anchors=self._verifier.anchors, memory=memory, watermarks=marks)
        )
        self._certificates: Bounded[bytes, ProvenCertificate] = Bounded(limits.binding_keys)
        self._conversations: Bounded[Hashable, _Conversation] = Bounded(limits.binding_keys)
        self._lists: Bounded[tuple[str, str], RevocationList] = Bounded(limits.remembered)
        wanted = policy.deployment
        named = wanted.revocations if wanted is not None else None
        self._file = RevocationFile(named, wanted.owners) if wanted is not None and named else None

    # The certificate

    def certificate(self, channel: Channel, at: datetime) -> Steps[ProvenCertificate]:
        """The evidence in the peer's certificate, proven and judged.

        Raises:
            AttestationUnavailable: An ordinary certificate. AttestationError: As `admitted`.
        """
        der = channel.peer_certificate_der()
        if der is None or len(der) > self.limits.certificate:
            raise MalformedEvidence(f"certificate: wanted one of at most {self.limits.certificate} bytes")
        digest = hashlib.sha256(der).digest()
        known = self._certificates.get(digest)
        if known is not None and known.result.at <= at < known.until:
            return known
        read = ratls.read(der)
        if not read.evidence:
            raise AttestationUnavailable(
                "certificate: no attestation evidence in it",
                hint="this is an ordinary TLS peer: a front door that ends TLS before the attested server, or another "
                "server; check the address, and have proxies pass TLS through",
            )
        appraisal = yield from self._appraised(lambda verifier: verifier.appraise_certificate(der, at))
        verified = admitted(appraisal, "certificate")
        found = ProvenCertificate(
            der=der,
            spki_sha256=hashlib.sha256(read.leaf.spki).digest(),
            stapled=read.endorsements,
            result=appraisal.result,
            verified=verified,
            until=min(
                _holds_until(appraisal.result, verified), self._young_until(read.leaf), _after(at, self._max_age)
            ),
        )
        self._certificates.put(digest, found)
        return found

    def spki_of(self, der: bytes) -> bytes:
        """SHA-256 of a certificate's SubjectPublicKeyInfo; one that was proven before is not read again.

        Raises:
            MalformedEvidence, UnsupportedEvidence: It cannot be read.
        """
        known = self._certificates.get(hashlib.sha256(der).digest())
        return known.spki_sha256 if known is not None else hashlib.sha256(read_certificate(der).spki).digest()

    def _appraised(self, call: Callable[[Verifier], Appraisal]) -> Steps[Appraisal]:
        if self._offline is not None:
            appraisal = call(self._offline)
            if appraisal.result.verdict is not Verdict.UNAVAILABLE and not appraisal.incomplete:
                return appraisal
        asked: Appraisal = yield Work(lambda: call(self._verifier))
        return asked

    @property
    def patience(self) -> float:
        """Seconds that one judgement may take where sources have to be asked."""
        return max(self.limits.endorsement_seconds, self._verifier.patience)

    def _young_until(self, leaf: X509Leaf) -> datetime:
        """Up to when the policy takes a certificate of this age."""
        limit = self.policy.trust.certificate_age_limit
        if limit is None:
            return leaf.not_after
        return min(leaf.not_after, _after(leaf.not_before, timedelta(seconds=limit)))

    @property
    def _max_age(self) -> timedelta:
        return timedelta(seconds=self.policy.trust.max_age)

    # The live answer

    def challenge(self, peer: Hashable, *, quote: bool = False) -> Challenge:
        """A fresh challenge at this peer's place in the conversation.

        The known key may answer while policy and age allow it, and only where no `quote` is demanded.
        """
        known = self._conversations.get(peer)
        if known is None:
            return Challenge()
        now = self.clock()
        young = timedelta(0) <= now - known.key.attested_at < self._max_age
        young = young and now < _holds_until(known.result, known.verified)
        usable = young and self.policy.trust.binding == "key" and not quote
        return Challenge(
            counter=known.link.counter,
            previous=known.link.previous,
            known_key=known.key.public if usable else b"",
        )

    def live(
        self, peer: Hashable, answer: Answer, challenge: Challenge, position: Position, certificate: ProvenCertificate
    ) -> Steps[Proven]:
        """Does this answer, to this challenge, prove the other end of this connection? Remembers the peer if so.

        Raises:
            AttestationError: It does not.
        """
        transcript = rebuild(
            answer,
            challenge,
            role=position.role,
            exporter=position.exporter,
            own_spki=position.own_spki,
            peer_spki=position.peer_spki,
        )
        match answer.proof:
            case KeyProof():
                known = self._conversations.get(peer)
                binding, now = self._by_key(answer, transcript, known if challenge.known_key else None)
            case QuoteProof():
                binding, now = yield from self._by_quote(answer, transcript, certificate)
        same_identity(certificate.verified.claims, now.verified.claims)
        deployment = self._deployment(answer, binding)
        result = self._with_deployment(now.result, deployment, position.host)
        if position.role is Role.SERVER:
            open_ = left_open(self.policy.manifest, answer.commitments.manifest)
            result = replace(result, not_proven=(*result.not_proven, *open_))
        self._conversations.put(peer, now)
        self._note_list(deployment)
        return Proven(
            result=result,
            verified=now.verified,
            binding=binding,
            commitments=answer.commitments,
            deployment=deployment,
            good_for=self._good_for(now, deployment),
        )

    def _good_for(self, now: _Conversation, deployment: Deployment | None) -> float:
        ends = _holds_until(now.result, now.verified)
        if deployment is not None and self.policy.deployment is not None:
            ends = min(ends, deployment.not_after)
        return max((ends - self.clock()).total_seconds(), 0.0)

    def _by_key(
        self, answer: Answer, transcript: Transcript, known: _Conversation | None
    ) -> tuple[Binding, _Conversation]:
        if known is None:
            raise ChannelMismatch("live binding: signed by a key where a quote was demanded")
        binding = check_key(answer, known.key, transcript, at=self.clock(), max_age_seconds=self.policy.trust.max_age)
        return binding, replace(known, link=_next(binding))

    def _by_quote(
        self, answer: Answer, transcript: Transcript, certificate: ProvenCertificate
    ) -> Steps[tuple[Binding, _Conversation]]:
        assert isinstance(answer.proof, QuoteProof)
        evidence, at, stapled = answer.proof.evidence, self.clock(), certificate.stapled
        appraisal = yield from self._appraised(
            lambda verifier: verifier.appraise_evidence(evidence, stapled=stapled, at=at)
        )
        verified = admitted(appraisal, "live evidence")
        binding = check(answer, verified, transcript)
        key = AttestedKey(public=answer.binding_key, evidence_digest=verified.evidence_digest, attested_at=at)
        return binding, _Conversation(link=_next(binding), key=key, result=appraisal.result, verified=verified)

    # Whose copy it is

    def _deployment(self, answer: Answer, binding: Binding) -> Deployment | None:
        if answer.deployment is None:
            return None
        return check_deployment(
            answer.deployment, committed=answer.commitments.deployment_key, transcript=binding.transcript
        )

    def _with_deployment(
        self, result: AttestationResult, seen: Deployment | None, host: str | None
    ) -> AttestationResult:
        """The result with what the policy says of the deployment. Raises: AppraisalRefused."""
        wanted = self.policy.deployment
        if wanted is None:
            return replace(result, deployment=seen, not_proven=(*result.not_proven, NO_OWNER))
        held = (*self._lists.values(), *(self._file.lists() if self._file is not None else ()))
        findings = judge_deployment(seen, wanted, host=host, at=self.clock(), lists=held)
        result = replace(result, deployment=seen, findings=(*result.findings, *findings))
        failed = [finding for finding in findings if finding.outcome is Outcome.FAIL]
        if failed:
            raise _refused(result, failed)
        return result

    def _note_list(self, deployment: Deployment | None) -> None:
        """Keep the owner's newest list of an admitted deployment, so that nobody can serve an older one later."""
        if deployment is None or self.policy.deployment is None:
            return
        newest = newest_list(deployment, self._lists.values())
        if newest is not None:
            self._lists.put((newest.owner, newest.name), newest)


def _refused(result: AttestationResult, failed: Sequence[Finding]) -> AppraisalRefused:
    code = failed[0].code
    words = "; ".join(f"{finding.check}: wanted {finding.wanted}, seen {finding.seen}" for finding in failed)
    hint = DEPLOYMENT_HINTS.get(code, "")
    refused = replace(result, verdict=Verdict.REFUSED, error=ErrorReport(code=code, message=words, hint=hint))
    return AppraisalRefused(words, result=refused, code=code, hint=hint)


def exporter_of(channel: Channel) -> bytes:
    """This connection's exporter value, which every transcript on it commits to."""
    return channel.export_keying_material(EXPORTER_LABEL, EXPORTER_SIZE, b"")


def admitted(appraisal: Appraisal, what: str) -> Verified:
    """The verified claims of an appraisal that admits its peer.

    Raises:
        EndorsementUnavailable: collateral is missing. AppraisalRefused: anything else, with the whole result.
    """
    result = appraisal.result
    if result.admitted and appraisal.verified is not None:
        return appraisal.verified
    if result.verdict is Verdict.UNAVAILABLE and result.error is not None:
        raise EndorsementUnavailable(f"{what}: {result.error.message}", code=result.error.code, hint=result.error.hint)
    failed = [finding for finding in result.findings if finding.outcome is Outcome.FAIL]
    code = result.error.code if result.error else next((finding.code for finding in failed if finding.code), None)
    words = result.error.message if result.error else "; ".join(
        f"{finding.check}: wanted {finding.wanted}, seen {finding.seen}" for finding in failed
    )  # fmt: skip
    raise AppraisalRefused(
        f"{what}: {words or 'refused'}", result=result, code=code, hint=result.error.hint if result.error else None
    )


def _after(moment: datetime, span: timedelta) -> datetime:
    """The sum, or the last moment that there is: a replay may judge as of any time."""
    try:
        return moment + span
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def _holds_until(result: AttestationResult, verified: Verified) -> datetime:
    """Up to when a verdict may be remembered (attack P11): its proof must hold, and so must every grace it rests on."""
    return verified.valid_until if result.holds_until is None else min(verified.valid_until, result.holds_until)


def _next(binding: Binding) -> Link:
    return Link(counter=binding.counter + 1, previous=binding.transcript)
