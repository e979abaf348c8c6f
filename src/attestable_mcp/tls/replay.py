"""Verdicts that can be had again: recorded with everything they rest on, replayed with no network and no clock.

Recorder and player are the gate itself with two ends cut: where it asks a peer, and where it asks sources. So a replay
runs the very code that judged. What it cannot show again: that the exported keying material came from a connection that
existed, that the nonce was random, and that the time is true. Whoever made the bundle had to be believed for these.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.bind.live import Challenge
from attestable_mcp.bind.transcript import EXPORTER_LABEL, EXPORTER_SIZE
from attestable_mcp.endorse.tape import Tape, replaying
from attestable_mcp.errors import (
    EXIT_UNAVAILABLE,
    AppraisalRefused,
    AttestationError,
    ConfigurationError,
    EvidenceError,
    MalformedEvidence,
)
from attestable_mcp.platformfile import read_list
from attestable_mcp.rats import AttestationResult, ErrorReport, Evidence, EvidenceKind, Finding, Outcome, Verdict
from attestable_mcp.tls.admission import AttestedPeer, Gate, Origin
from attestable_mcp.tls.channel import Channel
from attestable_mcp.tls.client import attest_server
from attestable_mcp.tls.judge import ProvenCertificate
from attestable_mcp.tls.origins import origin_of
from attestable_mcp.tls.revocations import read_capped
from attestable_mcp.tls.steps import Steps, Work
from attestable_mcp.verifier import Verifier, resolve_anchors, resolve_sources
from attestable_mcp.verify.anchors import HARDWARE, SIMULATED_ROOTS, TokenTrust, TrustAnchor, TrustAnchors
from attestable_mcp.verify.token import PROFILES
from attestable_mcp.watermarks import Watermarks
from attestable_mcp.wire.bundle import Bundle, FileSubject, LiveSubject, StoredAnchor, StoredIssuer, StoredPolicy
from attestable_mcp.wire.recognise import recognise
from attestable_mcp.wire.token import TokenKey

CHOSEN_POLICY = "that this policy is yours: it came in the bundle, and whoever made the bundle chose it"
CHOSEN_NONCE = (
    "when this happened, and that a connection existed: a replay shows that the evidence commits to the recorded "
    "nonce and keying material; only who made the bundle saw the connection that they came from"
)
KEPT_PROVENANCE = "what the provenance files of the bundle say ({}): a bundle keeps them, and nobody has judged them"


def outcome(peer: AttestedPeer) -> AttestationResult:
    """The result with the findings on the certificate and the connection before those on the live evidence."""
    own = set(peer.result.findings)
    differing = [
        replace(finding, check=f"certificate.{finding.check}")
        for finding in peer.certificate_result.findings
        if finding not in own
    ]
    return replace(peer.result, findings=(*_connection(peer), *differing, *peer.result.findings))


def _connection(peer: AttestedPeer) -> tuple[Finding, ...]:
    key = Finding(check="certificate.key", outcome=Outcome.PASS, seen=f"sha256:{peer.spki_sha256}")
    if peer.binding is None:
        reason = "the policy asks for the certificate's freshness only"
        return (key, Finding(check="live.binding", outcome=Outcome.SKIP, reason=reason))
    method, counter = str(peer.binding.method), peer.binding.counter
    seen = f"a fresh challenge on this connection, answered by {method} (round {counter})"
    return (key, Finding(check="live.binding", outcome=Outcome.PASS, seen=seen))


def ended(error: AttestationError, at: datetime) -> AttestationResult:
    """The result of a judgement that ended with an error."""
    if isinstance(error, AppraisalRefused) and isinstance(error.result, AttestationResult):
        return error.result
    verdict = Verdict.UNAVAILABLE if error.exit_code == EXIT_UNAVAILABLE else Verdict.REFUSED
    report = ErrorReport(code=error.code, message=error.message, hint=error.hint)
    return AttestationResult(verdict=verdict, at=at, error=report)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A verdict and the bundle that replays it."""

    result: AttestationResult
    bundle: Bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """Judges by `policy` at `at` and keeps what the verdict rests on. `stored` is the policy as it was given.

    Evaluation numbers met before on this machine are left out of it: the verdict rests on what the bundle holds.
    """

    policy: Policy
    stored: StoredPolicy
    at: datetime
    provenance: tuple[tuple[str, bytes], ...] = ()

    def of_file(self, name: str, data: bytes) -> Recording:
        """Judge a file's bytes.

        Raises:
            EndorsementUnavailable: it is a token, and its issuer's keys cannot be had: there is nothing to rest on.
        """
        tape = Tape()
        verifier = self._verifier(tape)
        with suppress(EvidenceError):  # what cannot be read is judged as such below
            found = recognise(data)
            if isinstance(found, Evidence) and found.kind is EvidenceKind.TOKEN:
                verifier = self._verifier(tape, _pinned(verifier.anchors_for(found)))
        result = verifier.appraise_source(data, self.at).result
        return self._recording(name, FileSubject(data=data), result, verifier, tape)

    async def of_server(self, url: str) -> Recording:
        """Judge a server on a connection of its own.

        Raises:
            ConversationError: nobody answers, or not with a certificate: there is nothing to keep.
        """
        tape = Tape()
        verifier = self._verifier(tape)
        gate = _RecordingGate(self.policy, verifier=verifier, clock=lambda: self.at)
        try:
            result = outcome(await attest_server(self.policy, url, gate=gate))
        except ConfigurationError:
            raise
        except AttestationError as error:
            if not gate.certificate:
                raise
            result = ended(error, self.at)
        subject = LiveSubject(
            url=str(origin_of(url)), certificate=gate.certificate, challenge=gate.challenge, answer=gate.answer,
            exporter=gate.exporter,
        )  # fmt: skip
        return self._recording(url, subject, result, verifier, tape)

    def _verifier(self, tape: Tape, anchors: TrustAnchors | None = None) -> Verifier:
        sources = tape.recording(resolve_sources(self.policy.trust))
        return Verifier(self.policy, sources=sources, anchors=anchors, watermarks=Watermarks())

    def _files(self, verifier: Verifier) -> tuple[tuple[str, bytes], ...]:
        """What the policy names beside itself, as it was read. Raises: ConfigurationError."""
        found = [("platforms", verifier.platforms.data)] if verifier.platforms is not None else []
        if path := _revocations(self.policy):
            found.append(("revocations", read_capped(Path(path), "revocation list")))
        return tuple(found)

    def _recording(
        self, source: str, subject: FileSubject | LiveSubject, result: AttestationResult, verifier: Verifier, tape: Tape
    ) -> Recording:
        bundle = Bundle(
            made_at=self.at,
            source=source,
            subject=subject,
            policy=self.stored,
            anchors=_stored(verifier.anchors),
            issuers=tuple(map(_issuer, verifier.anchors.tokens)),
            sources=tuple(source.name for source in verifier.sources),
            answers=tuple(tape.answers.values()),
            files=self._files(verifier),
            provenance=self.provenance,
            result=json.dumps(result.to_json(), sort_keys=True).encode(),
        )
        return Recording(result=result, bundle=bundle)


def _revocations(policy: Policy) -> str:
    """The path of the deployment's revocation list that a policy names; empty for none."""
    return (policy.deployment.revocations or "") if policy.deployment is not None else ""


def _pinned(anchors: TrustAnchors) -> TrustAnchors:
    """Issuers with the keys that they have now, and no address to ask for others."""
    return replace(anchors, tokens=tuple(replace(trust, address="") for trust in anchors.tokens))


def _stored(anchors: TrustAnchors) -> tuple[StoredAnchor, ...]:
    return tuple(
        StoredAnchor(
            vendor=vendor,
            name=a.name,
            spki_sha256=a.spki_sha256,
            simulated=a.simulated,
            replaced=a.replaced,
            certificate=a.certificate,
        )
        for vendor in HARDWARE
        for a in getattr(anchors, vendor)
    )


def _issuer(trust: TokenTrust) -> StoredIssuer:
    return StoredIssuer(
        profile=trust.profile,
        issuer=trust.issuer,
        keys=tuple((key.spki, key.kid, key.algorithm, key.curve) for key in trust.keys),
        roots=tuple((root.name, root.spki_sha256, root.certificate) for root in trust.roots),
        audiences=trust.audiences,
        nonce=trust.nonce,
    )


def _trust(item: StoredIssuer) -> TokenTrust:
    if item.profile not in PROFILES:
        raise MalformedEvidence(f"bundle: issuers: unknown profile {item.profile[:40]!r}", field="issuers")
    return TokenTrust(
        profile=item.profile,
        issuer=item.issuer,
        keys=tuple(TokenKey(spki=spki, kid=kid, algorithm=alg, curve=curve) for spki, kid, alg, curve in item.keys),
        roots=tuple(_root(*row) for row in item.roots),
        audiences=item.audiences,
        nonce=item.nonce,
    )


def _root(name: str, digest: str, certificate: bytes) -> TrustAnchor:
    return TrustAnchor(name=name, spki_sha256=digest, replaced=True, certificate=certificate)


def _anchors(bundle: Bundle) -> TrustAnchors:
    """The bundle's anchors. One whose key is not a vendor's published root is marked as put in its place, whatever
    the bundle says of it."""
    known: dict[str, list[TrustAnchor]] = {vendor: [] for vendor in HARDWARE}
    for item in bundle.anchors:
        if item.vendor not in known:
            raise MalformedEvidence(f"bundle: anchors: unknown vendor {item.vendor[:40]!r}", field="anchors")
        known[item.vendor].append(_anchor(item))
    found = {vendor: tuple(anchors) for vendor, anchors in known.items()}
    return TrustAnchors(**found, tokens=tuple(map(_trust, bundle.issuers)))


def _anchor(item: StoredAnchor) -> TrustAnchor:
    published: tuple[TrustAnchor, ...] = (*getattr(TrustAnchors(), item.vendor), *getattr(SIMULATED_ROOTS, item.vendor))
    same = next((anchor for anchor in published if anchor.spki_sha256 == item.spki_sha256), None)
    if same is not None and not item.replaced:
        return same
    simulated = item.simulated or (same is not None and same.simulated)
    return TrustAnchor(
        name=item.name, spki_sha256=item.spki_sha256, simulated=simulated, replaced=True, certificate=item.certificate
    )  # fmt: skip


def stored_policy(stored: StoredPolicy) -> Policy:
    """The policy that a bundle brings. Raises: ConfigurationError where it is none."""
    base = Policy.from_toml(stored.toml, stored.name) if stored.toml else Policy.genuine_only()
    return base.with_overrides(
        accept_statuses=stored.accept_statuses, simulated=stored.simulated, accept_products=stored.accept_products
    )


def replay(bundle: Bundle, at: datetime, policy: Policy | None = None) -> AttestationResult:
    """Judge again what the bundle holds, as of `at`, by `policy` or else by the bundle's own.

    With a policy of one's own, its anchors count; the bundle's count only under the bundle's policy. At the bundle's
    own time and under its own policy, the result is the one that it records, but for `not_proven`: that says besides
    what no replay shows again.

    Raises:
        ConfigurationError: the bundle's policy, or what yours names, cannot be read.
        MalformedEvidence: the bundle holds what no bundle can.
    """
    with TemporaryDirectory(prefix="attestable-mcp-") as folder:
        return _replay(bundle, at, policy, Path(folder))


def _replay(bundle: Bundle, at: datetime, policy: Policy | None, folder: Path) -> AttestationResult:
    own = policy is None
    chosen = _with_files(stored_policy(bundle.policy), bundle, folder) if policy is None else policy
    anchors = _anchors(bundle) if own else resolve_anchors(chosen.trust)
    verifier = Verifier(
        chosen, sources=replaying(bundle.sources, bundle.answers), anchors=anchors, watermarks=Watermarks()
    )
    if isinstance(bundle.subject, FileSubject):
        result = verifier.appraise_source(bundle.subject.data, at).result
    else:
        result = _replay_live(bundle.subject, chosen, verifier, at)
    return replace(result, not_proven=(*result.not_proven, *_beliefs(bundle, own)))


def _with_files(policy: Policy, bundle: Bundle, folder: Path) -> Policy:
    """The bundle's policy with the lists that it brings: a stranger's policy must open no file of this machine.

    Raises:
        MalformedEvidence: it names a list that the bundle does not bring.
    """
    rule, deployment = policy.rules.platforms, policy.deployment
    if rule is not None:
        listed = read_list(_brought(bundle, "platforms"), rule.key, "of the bundle")
        policy = replace(policy, rules=replace(policy.rules, platforms=rule.holding(listed)))
    if deployment is not None and deployment.revocations:
        path = folder / "revocations.pem"
        path.write_bytes(_brought(bundle, "revocations"))
        policy = replace(policy, deployment=replace(deployment, revocations=str(path)))
    return policy


def _brought(bundle: Bundle, name: str) -> bytes:
    found = dict(bundle.files).get(name)
    if found is None:
        raise MalformedEvidence(f"bundle: its policy names {name}, which it does not bring", field="files")
    return found


def _beliefs(bundle: Bundle, own_policy: bool) -> tuple[str, ...]:
    """What a replay has to believe of who made the bundle, and what nobody has looked at."""
    live = isinstance(bundle.subject, LiveSubject)
    kept = ", ".join(name for name, _ in bundle.provenance)
    found = ((CHOSEN_NONCE,) if live else ()) + ((CHOSEN_POLICY,) if own_policy else ())
    return found + ((KEPT_PROVENANCE.format(kept),) if kept else ())


def _replay_live(subject: LiveSubject, policy: Policy, verifier: Verifier, at: datetime) -> AttestationResult:
    gate = _ReplayingGate(policy, subject, verifier=verifier, clock=lambda: at)
    channel = cast("Channel", _Past(subject))
    try:
        peer = _drive(gate.set_up_again(channel, origin_of(subject.url)))
    except ConfigurationError:
        raise
    except AttestationError as error:
        return ended(error, at)
    return outcome(peer)


def _drive(steps: Steps[AttestedPeer]) -> AttestedPeer:
    """Run the steps of a gate that neither sends nor receives."""
    answer: Any = None
    try:
        while True:
            step = steps.send(answer)
            answer = step.call() if isinstance(step, Work) else None
    except StopIteration as stop:
        peer: AttestedPeer = stop.value
        return peer


class _RecordingGate(Gate):
    """Keeps what it was shown: one connection only."""

    certificate = b""
    challenge = b""
    answer = b""
    exporter = b""

    def _certificate(self, channel: Channel, at: datetime) -> Steps[ProvenCertificate]:
        self.certificate = channel.peer_certificate_der() or b""
        return (yield from super()._certificate(channel, at))

    def _ask(self, channel: Channel, origin: Origin, challenge: Challenge) -> Steps[bytes]:
        body = yield from super()._ask(channel, origin, challenge)
        self.challenge, self.answer = challenge.encode(), body
        self.exporter = channel.export_keying_material(EXPORTER_LABEL, EXPORTER_SIZE, b"")
        return body


class _ReplayingGate(Gate):
    """Asks the recorded question and hears the recorded answer."""

    def __init__(
        self, policy: Policy, subject: LiveSubject, *, verifier: Verifier, clock: Callable[[], datetime]
    ) -> None:
        super().__init__(policy, verifier=verifier, clock=clock)
        self._subject = subject

    def set_up_again(self, channel: Channel, origin: Origin) -> Steps[AttestedPeer]:
        """As `set_up`, from where the handshake is done."""
        return self._admitted(channel, origin)

    def _challenge(self, origin: Origin, *, quote: bool = False) -> Challenge:
        return Challenge.decode(self._subject.challenge)

    def _ask(self, channel: Channel, origin: Origin, challenge: Challenge) -> Steps[bytes]:
        if not self._subject.answer:
            raise MalformedEvidence("bundle: the server was never challenged, and this policy asks for a live answer")
        yield from ()
        return self._subject.answer


class _Past:
    """The things of a channel that a verdict depends on. A recorded client showed no certificate of its own."""

    own = None

    def __init__(self, subject: LiveSubject) -> None:
        self._subject = subject

    def peer_certificate_der(self) -> bytes:
        return self._subject.certificate

    def export_keying_material(self, label: bytes, size: int, context: bytes) -> bytes:
        return self._subject.exporter
