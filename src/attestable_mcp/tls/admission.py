"""From a connected socket to an admitted peer, without I/O: handshake, certificate, challenge, binding, admission.

`Gate.set_up` is a generator of steps (send, receive, work, deadline) that asynchronous and blocking streams drive
alike. It returns an `AttestedPeer` or raises; no byte of an application is sent before it has returned.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import inf
from typing import Protocol

from OpenSSL import SSL

from attestable_mcp.appraise.offer import NO_OFFER, unlisted_open
from attestable_mcp.appraise.policy import Policy
from attestable_mcp.appraise.reattest import NEVER, ReattestPolicy
from attestable_mcp.bind.live import Answer, Binding, Challenge, Commitments
from attestable_mcp.bind.transcript import Role
from attestable_mcp.endorse.base import EndorsementSource
from attestable_mcp.errors import ConversationError
from attestable_mcp.limits import LIMITS, Limits
from attestable_mcp.rats import AttestationResult, Deployment, Verified
from attestable_mcp.tls.address import in_url
from attestable_mcp.tls.bounded import Bounded
from attestable_mcp.tls.challenge import CLIENT_PATH
from attestable_mcp.tls.channel import Channel, wrap
from attestable_mcp.tls.clients import Said
from attestable_mcp.tls.engine import ClientContext
from attestable_mcp.tls.exchange import converse, handshake
from attestable_mcp.tls.fresh import Freshness
from attestable_mcp.tls.judge import Judge, Position, ProvenCertificate, exporter_of
from attestable_mcp.tls.prover import ClientProver
from attestable_mcp.tls.spans import traced
from attestable_mcp.tls.steps import Send, Steps, Within, Work
from attestable_mcp.verifier import Verifier

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of RFC 6454; the host in lower case and without brackets."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{in_url(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestedPeer:
    """A peer that may be spoken to, and why. `binding` is None only under `freshness = "certificate"`.

    `result` is the verdict on the evidence behind this connection; `certificate_result` the one on the certificate's.
    `spki_sha256` is lower-case hex. `verified` holds the claims behind `result`; `deployment` says whose copy it is,
    where it showed a grant.
    """

    origin: Origin
    result: AttestationResult
    certificate_result: AttestationResult
    verified: Verified
    binding: Binding | None
    commitments: Commitments
    spki_sha256: str
    certificate_der: bytes
    deployment: Deployment | None = None
    said: Said | None = None
    """What the server said to our own proof; None where it asked for none, or we have none to give."""
    good_for: float = inf
    """Seconds from its proof on for which all that this rests on holds: a live connection is proven again then."""

    @property
    def url(self) -> str:
        """The origin as text."""
        return str(self.origin)

    @property
    def transcript(self) -> bytes:
        """Digest of this connection's transcript (64 bytes), empty without a live binding."""
        return self.binding.transcript if self.binding else b""

    @property
    def counter(self) -> int:
        """Which attestation of the conversation with this origin this is, from 0."""
        return self.binding.counter if self.binding else 0


class LastWord(Protocol):
    """What is asked of a peer that the policy admits, before anybody speaks to it, on each connection."""

    def admit(self, peer: AttestedPeer) -> AttestedPeer:
        """The peer, with its result as it shall be shown. May block. Raises: AttestationError to refuse it."""


@dataclass(frozen=True, slots=True)
class Admitted:
    """A connection that may be used, and whom it leads to."""

    channel: Channel
    peer: AttestedPeer


class Gate:
    """Judges servers by one policy. Safe to share between threads and connections; what it remembers is bounded.

    `pins` has the last word on each connection: `tls.pins.Pins`, or anything that admits peers. `newest` is the peer
    admitted last; `peers` has the newest of each origin. `sources` replaces what the policy names. `prover` proves this
    end to servers that ask, once they are admitted themselves.

    Raises:
        ConfigurationError: As `Judge`.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        sources: Sequence[EndorsementSource] | None = None,
        verifier: Verifier | None = None,
        pins: LastWord | None = None,
        prover: ClientProver | None = None,
        limits: Limits = LIMITS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.policy = policy
        self._pins = pins
        self.prover = prover
        live = policy.trust.freshness == "connection"
        reattest = (policy.reattest or ReattestPolicy()) if live else NEVER
        self.freshness = Freshness(reattest, limits=limits)
        self.context = ClientContext()
        self.limits = limits
        self.newest: AttestedPeer | None = None
        self._peers: Bounded[Origin, AttestedPeer] = Bounded(limits.binding_keys)
        self._judge = Judge(policy, sources=sources, verifier=verifier, limits=limits, clock=clock)

    @property
    def peers(self) -> dict[Origin, AttestedPeer]:
        """The newest peer of each origin, in the order of admission."""
        return {peer.origin: peer for peer in self._peers.values()}

    def set_up(self, origin: Origin, hostname: str, *, quote: bool = False) -> Steps[Admitted]:
        """Steps from a connected socket to an admitted peer. `hostname` is what TLS asks for (RFC 6066 section 3).

        A known key will do, if the policy lets it, unless a `quote` is demanded.

        Raises:
            AttestationError: of any kind; the caller closes the socket.
        """
        if self.prover is not None:
            yield Within(self.limits.challenge_seconds, "our own evidence")
            yield from self.prover.ready(self.context)
        channel = self.context.channel(hostname)
        steps = self._alerting(self._set_up(channel, origin, quote=quote), channel, origin)
        return Admitted(channel, (yield from traced(steps, origin)))

    def again(self, channel: Channel, origin: Origin) -> Steps[AttestedPeer]:
        """Steps that prove the other end of an idle, admitted connection anew, by a quote, at the next counter.

        Raises:
            AttestationError: of any kind; nothing may be sent on the connection any more.
        """
        steps = self._alerting(self._admitted(channel, origin, quote=True), channel, origin)
        try:
            return (yield from traced(steps, origin))
        except ConversationError as error:
            if isinstance(error.__cause__, SSL.SysCallError):  # it was idle, and its other end has left
                raise ConversationError(error.message, code="connection_closed") from error
            raise

    @staticmethod
    def _alerting(steps: Steps[AttestedPeer], channel: Channel, origin: Origin) -> Steps[AttestedPeer]:
        try:
            return (yield from steps)
        except SSL.Error as error:
            alert = channel.take()
            if alert:
                yield Send(alert)
            raise wrap(error, f"TLS with {origin}") from error

    def _set_up(self, channel: Channel, origin: Origin, *, quote: bool) -> Steps[AttestedPeer]:
        yield Within(self.limits.connect_seconds, f"TLS handshake with {origin}")
        yield from handshake(channel)
        return (yield from self._admitted(channel, origin, quote=quote))

    def _admitted(self, channel: Channel, origin: Origin, *, quote: bool = False) -> Steps[AttestedPeer]:
        """From a finished handshake on."""
        begun = self.freshness.ticks()
        yield Within(self._judge.patience + self.limits.connect_seconds, f"verification of {origin}")
        certificate = yield from self._certificate(channel, self._judge.clock())
        if self.policy.trust.freshness == "certificate":
            return self._remembered((yield from self._admit(self._by_certificate(origin, certificate))), begun)
        peer, asked = yield from self._live(channel, origin, certificate, quote=quote)
        peer = yield from self._admit(peer)
        if asked is not None and self.prover is not None:
            peer = _told(peer, (yield from self._prove(self.prover, asked, channel, peer)))
        return self._remembered(peer, begun)

    def _live(
        self, channel: Channel, origin: Origin, certificate: ProvenCertificate, *, quote: bool
    ) -> Steps[tuple[AttestedPeer, Challenge | None]]:
        """The admitted peer, and its own challenge where it saw our certificate and wants to know who we are."""
        yield Within(self.limits.challenge_seconds, f"live challenge to {origin}")
        challenge = self._challenge(origin, quote=quote)
        body = yield from self._ask(channel, origin, challenge)
        answer = Answer.decode(body, limits=self.limits)
        yield Within(self._judge.patience + self.limits.challenge_seconds, f"verification of {origin}")
        # a server that challenges us has seen our certificate, and its transcript says so; another has seen none
        shown = channel.own.spki_sha256 if channel.own is not None and answer.challenge is not None else b""
        position = Position(
            role=Role.SERVER,
            exporter=exporter_of(channel),
            own_spki=certificate.spki_sha256,
            peer_spki=shown,
            host=origin.host,
        )
        proven = yield from self._judge.live(origin, answer, challenge, position, certificate)
        peer = AttestedPeer(
            origin=origin,
            result=proven.result,
            certificate_result=certificate.result,
            verified=proven.verified,
            binding=proven.binding,
            commitments=proven.commitments,
            spki_sha256=certificate.spki_sha256.hex(),
            certificate_der=certificate.der,
            deployment=proven.deployment,
            good_for=proven.good_for,
        )
        return peer, answer.challenge

    def _prove(self, prover: ClientProver, asked: Challenge, channel: Channel, peer: AttestedPeer) -> Steps[Said]:
        """Prove this end. Raises: ConversationError (`client_refused`) where the server then does not serve us."""
        origin = peer.origin
        yield Within(self.limits.challenge_seconds + self.limits.endorsement_seconds, f"our own proof to {origin}")
        answer = yield from prover.answer(asked, channel, bytes.fromhex(peer.spki_sha256))
        body = yield from converse(channel, origin, answer.encode(), self.limits, path=CLIENT_PATH)
        said = Said.decode(body, limits=self.limits)
        if not said.served:
            raise ConversationError(
                f"{origin} refuses this client: {said.code}: {said.message}",
                code="client_refused",
                hint=said.hint or "Ask its operator which clients its policy accepts.",
            )
        return said

    # Where `tls.replay` puts a recorded conversation in the place of a live one

    def _certificate(self, channel: Channel, at: datetime) -> Steps[ProvenCertificate]:
        return (yield from self._judge.certificate(channel, at))

    def _challenge(self, origin: Origin, *, quote: bool = False) -> Challenge:
        return self._judge.challenge(origin, quote=quote)

    def _ask(self, channel: Channel, origin: Origin, challenge: Challenge) -> Steps[bytes]:
        return (yield from converse(channel, origin, challenge.encode(), self.limits))

    def _admit(self, peer: AttestedPeer) -> Steps[AttestedPeer]:
        pins = self._pins
        if pins is not None:
            yield Within(self.limits.connect_seconds, f"pins of {peer.origin}")
            admitted: AttestedPeer = yield Work(lambda: pins.admit(peer))
            return admitted
        return peer

    def _by_certificate(self, origin: Origin, certificate: ProvenCertificate) -> AttestedPeer:
        return _by_certificate(origin, certificate, (*NO_OFFER, *unlisted_open(self.policy.manifest)))

    def _remembered(self, peer: AttestedPeer, begun: float) -> AttestedPeer:
        if peer.binding is not None and peer.binding.method == "quote":
            self.freshness.vouched(peer.binding.binding_key, begun)
        self._peers.put(peer.origin, peer)
        self.newest = peer
        return peer


def _told(peer: AttestedPeer, said: Said) -> AttestedPeer:
    """The peer with what it says of our proof; a result says it where we are served, and as nobody."""
    if said.verdict != "refused":
        return replace(peer, said=said)
    code = said.code if re.fullmatch("[a-z0-9_]{1,64}", said.code) else "without a reason"
    _log.warning("%s serves us, but refuses our proof: %s: %r", peer.origin, code, said.message)
    sentence = f"who we are: the server refuses our proof ({code}) and serves us as it serves anybody"
    return replace(peer, said=said, result=replace(peer.result, not_proven=(*peer.result.not_proven, sentence)))


def _by_certificate(origin: Origin, certificate: ProvenCertificate, left_open: tuple[str, ...]) -> AttestedPeer:
    return AttestedPeer(
        origin=origin,
        result=replace(certificate.result, not_proven=(*certificate.result.not_proven, *left_open)),
        certificate_result=certificate.result,
        verified=certificate.verified,
        binding=None,
        commitments=Commitments(),
        spki_sha256=certificate.spki_sha256.hex(),
        certificate_der=certificate.der,
    )
