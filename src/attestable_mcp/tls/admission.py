"""From a connected socket to an admitted peer, without I/O: handshake, certificate, challenge, binding, admission.

`Gate.set_up` is a generator of steps (send, receive, work, deadline) that asynchronous and blocking streams drive
alike. It returns an `AttestedPeer` or raises; no byte of an application is sent before it has returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from OpenSSL import SSL

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.bind.live import Answer, Binding, Challenge, Commitments
from attestable_mcp.bind.transcript import Role
from attestable_mcp.endorse.base import EndorsementSource
from attestable_mcp.limits import LIMITS, Limits
from attestable_mcp.rats import AttestationResult, Deployment, Verified
from attestable_mcp.tls.channel import Channel, wrap
from attestable_mcp.tls.engine import ClientContext
from attestable_mcp.tls.exchange import converse, handshake
from attestable_mcp.tls.judge import Bounded, Judge, Position, ProvenCertificate, exporter_of
from attestable_mcp.tls.steps import Send, Steps, Within, Work
from attestable_mcp.verifier import Verifier


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of RFC 6454; the host in lower case and without brackets."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


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


class Gate:
    """Judges servers by one policy. Safe to share between threads and connections; what it remembers is bounded.

    `pins` has the last word on each connection: `tls.pins.Pins`, or anything that admits peers. `newest` is the peer
    admitted last; `peers` has the newest of each origin. `sources` replaces what the policy names.

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
        limits: Limits = LIMITS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.policy = policy
        self._pins = pins
        self.context = ClientContext()
        self.limits = limits
        self.newest: AttestedPeer | None = None
        self._peers: Bounded[Origin, AttestedPeer] = Bounded(limits.binding_keys)
        self._judge = Judge(policy, sources=sources, verifier=verifier, limits=limits, clock=clock)

    @property
    def peers(self) -> dict[Origin, AttestedPeer]:
        """The newest peer of each origin, in the order of admission."""
        return {peer.origin: peer for peer in self._peers.values()}

    def set_up(self, channel: Channel, origin: Origin) -> Steps[AttestedPeer]:
        """Steps from a connected socket to an admitted peer.

        Raises:
            AttestationError: of any kind; the caller closes the socket.
        """
        try:
            return (yield from self._set_up(channel, origin))
        except SSL.Error as error:
            alert = channel.take()
            if alert:
                yield Send(alert)
            raise wrap(error, f"TLS with {origin}") from error

    def _set_up(self, channel: Channel, origin: Origin) -> Steps[AttestedPeer]:
        yield Within(self.limits.connect_seconds, f"TLS handshake with {origin}")
        yield from handshake(channel)
        return (yield from self._admitted(channel, origin))

    def _admitted(self, channel: Channel, origin: Origin) -> Steps[AttestedPeer]:
        """From a finished handshake on."""
        yield Within(self.limits.endorsement_seconds + self.limits.connect_seconds, f"verification of {origin}")
        certificate = yield from self._certificate(channel, self._judge.clock())
        if self.policy.trust.freshness == "certificate":
            return (yield from self._admit(_by_certificate(origin, certificate)))
        return (yield from self._admit((yield from self._live(channel, origin, certificate))))

    def _live(self, channel: Channel, origin: Origin, certificate: ProvenCertificate) -> Steps[AttestedPeer]:
        yield Within(self.limits.challenge_seconds, f"live challenge to {origin}")
        challenge = self._challenge(origin)
        body = yield from self._ask(channel, origin, challenge)
        answer = Answer.decode(body, limits=self.limits)
        yield Within(self.limits.endorsement_seconds + self.limits.challenge_seconds, f"verification of {origin}")
        position = Position(
            role=Role.SERVER, exporter=exporter_of(channel), own_spki=certificate.spki_sha256, host=origin.host
        )
        proven = yield from self._judge.live(origin, answer, challenge, position, certificate)
        return AttestedPeer(
            origin=origin,
            result=proven.result,
            certificate_result=certificate.result,
            verified=proven.verified,
            binding=proven.binding,
            commitments=proven.commitments,
            spki_sha256=certificate.spki_sha256.hex(),
            certificate_der=certificate.der,
            deployment=proven.deployment,
        )

    # Where `tls.replay` puts a recorded conversation in the place of a live one

    def _certificate(self, channel: Channel, at: datetime) -> Steps[ProvenCertificate]:
        return (yield from self._judge.certificate(channel, at))

    def _challenge(self, origin: Origin) -> Challenge:
        return self._judge.challenge(origin)

    def _ask(self, channel: Channel, origin: Origin, challenge: Challenge) -> Steps[bytes]:
        return (yield from converse(channel, origin, challenge.encode(), self.limits))

    def _admit(self, peer: AttestedPeer) -> Steps[AttestedPeer]:
        pins = self._pins
        if pins is not None:
            yield Within(self.limits.connect_seconds, f"pins of {peer.origin}")
            peer = yield Work(lambda: pins.admit(peer))
        self._peers.put(peer.origin, peer)
        self.newest = peer
        return peer


def _by_certificate(origin: Origin, certificate: ProvenCertificate) -> AttestedPeer:
    return AttestedPeer(
        origin=origin,
        result=certificate.result,
        certificate_result=certificate.result,
        verified=certificate.verified,
        binding=None,
        commitments=Commitments(),
        spki_sha256=certificate.spki_sha256.hex(),
        certificate_der=certificate.der,
    )
