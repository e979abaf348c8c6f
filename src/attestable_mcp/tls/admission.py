"""From a connected socket to an admitted peer, without I/O: handshake, certificate, challenge, binding, admission.

`Gate.set_up` is a generator of steps (send, receive, work, deadline) that asynchronous and blocking streams drive
alike. It returns an `AttestedPeer` or raises; no byte of an application is sent before it has returned.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import h11
from OpenSSL import SSL

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.bind.live import (
    Answer,
    AttestedKey,
    Binding,
    Challenge,
    Commitments,
    KeyProof,
    Link,
    Method,
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
    ConversationError,
    EndorsementUnavailable,
    MalformedEvidence,
)
from attestable_mcp.limits import LIMITS, Limits
from attestable_mcp.rats import AttestationResult, Claims, Endorsements, Outcome, Verdict, Verified
from attestable_mcp.tls.challenge import MEDIA_TYPE, PATH
from attestable_mcp.tls.channel import RECORD, Channel, wrap
from attestable_mcp.tls.engine import ClientContext
from attestable_mcp.verifier import Appraisal, Verifier
from attestable_mcp.verify.memory import Memory
from attestable_mcp.watermarks import Watermarks, default_path
from attestable_mcp.wire import ratls

HANDSHAKE_MAX = 256 * 1024
INFORMATIONAL_MAX = 8
_NO_LIVE = (404, 405, 501)
_IDENTITY = (
    "mrenclave", "mrsigner", "isvprodid", "isvsvn", "miscselect", "attributes",
    "mr_td", "mr_seam", "mr_config_id", "mr_owner", "mr_owner_config", "mr_service_td",
    "td_attributes", "xfam", "rtmr0", "rtmr1", "rtmr2",
)  # fmt: skip
"""Claims that say which code it is; RTMR 3 grows while a TD runs, and the TCB of a platform may move."""


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
    `spki_sha256` is lower-case hex. `verified` holds the claims behind `result`.
    """

    origin: Origin
    result: AttestationResult
    certificate_result: AttestationResult
    verified: Verified
    binding: Binding | None
    commitments: Commitments
    spki_sha256: str
    certificate_der: bytes

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


@dataclass(frozen=True, slots=True)
class Send:
    """Send these bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Receive:
    """Give some bytes from the socket; b"" at its end."""


@dataclass(frozen=True, slots=True)
class Work:
    """Call this, in a thread where the loop must not block, and give what it returns."""

    call: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Within:
    """From here on, `what` has this many seconds."""

    seconds: float
    what: str


Step = Send | Receive | Work | Within
Steps = Generator[Step, Any, AttestedPeer]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Certificate:
    """What is remembered of an admitted certificate."""

    der: bytes
    spki_sha256: bytes
    stapled: Endorsements | None
    result: AttestationResult
    verified: Verified
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _Conversation:
    """What is remembered of an origin: the attested key with its verdict, and the link."""

    link: Link
    key: AttestedKey
    result: AttestationResult
    verified: Verified


class LastWord(Protocol):
    """What is asked of a peer that the policy admits, before anybody speaks to it, on each connection."""

    def admit(self, peer: AttestedPeer) -> AttestedPeer:
        """The peer, with its result as it shall be shown. May block. Raises: AttestationError to refuse it."""


class Gate:
    """Judges servers by one policy. Safe to share between threads and connections; what it remembers is bounded.

    `pins` has the last word on each connection: `tls.pins.Pins`, or anything that admits peers. `newest` is the peer
    admitted last; `peers` has the newest of each origin. `sources` replaces what the policy names. What is stapled or
    remembered is verified at once; only where a source must be asked, or where a `verifier` is handed in, a thread
    does it.
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
        self.peers: OrderedDict[Origin, AttestedPeer] = OrderedDict()
        memory, marks = Memory(), Watermarks(default_path())
        self._verifier = verifier or Verifier(policy, sources=sources, memory=memory, watermarks=marks)
        self._offline = (
            None
            if verifier
            else Verifier(policy, sources=(), anchors=self._verifier.anchors, memory=memory, watermarks=marks)
        )
        self._clock = clock
        self._certificates: OrderedDict[bytes, _Certificate] = OrderedDict()
        self._conversations: OrderedDict[Origin, _Conversation] = OrderedDict()
        self._lock = threading.Lock()

    def set_up(self, channel: Channel, origin: Origin) -> Steps:
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

    def _set_up(self, channel: Channel, origin: Origin) -> Steps:
        yield Within(self.limits.connect_seconds, f"TLS handshake with {origin}")
        yield from _handshake(channel)
        return (yield from self._admitted(channel, origin))

    def _admitted(self, channel: Channel, origin: Origin) -> Steps:
        """From a finished handshake on."""
        yield Within(self.limits.endorsement_seconds + self.limits.connect_seconds, f"verification of {origin}")
        certificate = yield from self._certificate(channel, self._clock())
        if self.policy.trust.freshness == "certificate":
            return (yield from self._admit(_by_certificate(origin, certificate)))
        yield Within(self.limits.challenge_seconds, f"live challenge to {origin}")
        return (yield from self._admit((yield from self._live(channel, origin, certificate))))

    def _admit(self, peer: AttestedPeer) -> Steps:
        pins = self._pins
        if pins is None:
            return self._remembered(peer)
        yield Within(self.limits.connect_seconds, f"pins of {peer.origin}")
        return self._remembered((yield Work(lambda: pins.admit(peer))))

    def _remembered(self, peer: AttestedPeer) -> AttestedPeer:
        with self._lock:
            _remember(self.peers, peer.origin, peer, self.limits.binding_keys)
            self.newest = peer
        return peer

    # The certificate

    def _certificate(self, channel: Channel, at: datetime) -> Generator[Step, Any, _Certificate]:
        der = channel.peer_certificate_der()
        if der is None or len(der) > self.limits.certificate:
            raise MalformedEvidence(f"certificate: wanted one of at most {self.limits.certificate} bytes")
        digest = hashlib.sha256(der).digest()
        with self._lock:
            known = self._certificates.get(digest)
        if known is not None and known.result.at <= at < known.until:
            return known
        read = ratls.read(der)
        if not read.evidence:
            raise AttestationUnavailable(
                "certificate: no attestation evidence in it",
                hint="this is an ordinary TLS server; check the address, or ask its operator for the attested one",
            )
        appraisal = yield from self._judge(lambda verifier: verifier.appraise_certificate(der, at))
        verified = admitted(appraisal, "certificate")
        found = _Certificate(
            der=der,
            spki_sha256=hashlib.sha256(read.leaf.spki).digest(),
            stapled=read.endorsements,
            result=appraisal.result,
            verified=verified,
            until=min(verified.valid_until, read.leaf.not_after, at + self._max_age),
        )
        with self._lock:
            _remember(self._certificates, digest, found, self.limits.binding_keys)
        return found

    def _judge(self, call: Callable[[Verifier], Appraisal]) -> Generator[Step, Any, Appraisal]:
        if self._offline is not None:
            appraisal = call(self._offline)
            if appraisal.result.verdict is not Verdict.UNAVAILABLE:
                return appraisal
        asked: Appraisal = yield Work(lambda: call(self._verifier))
        return asked

    @property
    def _max_age(self) -> timedelta:
        return timedelta(seconds=self.policy.trust.max_age)

    # The live challenge

    def _live(self, channel: Channel, origin: Origin, certificate: _Certificate) -> Steps:
        known = self._conversation(origin, self._clock())
        challenge = self._challenge(known)
        body = yield from self._ask(channel, origin, challenge)
        answer = Answer.decode(body, limits=self.limits)
        transcript = rebuild(
            answer,
            challenge,
            role=Role.SERVER,
            exporter=channel.export_keying_material(EXPORTER_LABEL, EXPORTER_SIZE, b""),
            own_spki=certificate.spki_sha256,
        )
        yield Within(self.limits.endorsement_seconds + self.limits.challenge_seconds, f"verification of {origin}")
        match answer.proof:
            case KeyProof():
                now = self._by_key(answer, transcript, known if challenge.known_key else None)
            case QuoteProof():
                now = yield from self._by_quote(answer, transcript, certificate)
        same_identity(certificate.verified.claims, now.verified.claims)
        with self._lock:
            _remember(self._conversations, origin, now, self.limits.binding_keys)
        return AttestedPeer(
            origin=origin,
            result=now.result,
            certificate_result=certificate.result,
            verified=now.verified,
            binding=Binding(
                method=Method.KEY if isinstance(answer.proof, KeyProof) else Method.QUOTE,
                transcript=now.link.previous,
                counter=challenge.counter,
                binding_key=answer.binding_key,
                evidence_digest=now.key.evidence_digest,
            ),
            commitments=answer.commitments,
            spki_sha256=certificate.spki_sha256.hex(),
            certificate_der=certificate.der,
        )

    def _ask(self, channel: Channel, origin: Origin, challenge: Challenge) -> Generator[Step, Any, bytes]:
        return (yield from _converse(channel, origin, challenge.encode(), self.limits))

    def _conversation(self, origin: Origin, at: datetime) -> _Conversation | None:
        with self._lock:
            return self._conversations.get(origin)

    def _challenge(self, known: _Conversation | None) -> Challenge:
        """A fresh nonce; the known key only while policy and age allow that it answers."""
        if known is None:
            return Challenge()
        age = self._clock() - known.key.attested_at
        young = timedelta(0) <= age < self._max_age and self._clock() < known.verified.valid_until
        usable = young and self.policy.trust.binding == "key"
        return Challenge(
            counter=known.link.counter,
            previous=known.link.previous,
            known_key=known.key.public if usable else b"",
        )

    def _by_key(self, answer: Answer, transcript: Transcript, known: _Conversation | None) -> _Conversation:
        if known is None:
            raise ChannelMismatch("live binding: signed by a key where a quote was demanded")
        binding = check_key(answer, known.key, transcript, at=self._clock(), max_age_seconds=self.policy.trust.max_age)
        return replace(known, link=_next(binding))

    def _by_quote(
        self, answer: Answer, transcript: Transcript, certificate: _Certificate
    ) -> Generator[Step, Any, _Conversation]:
        assert isinstance(answer.proof, QuoteProof)
        evidence, at = answer.proof.evidence, self._clock()
        stapled = certificate.stapled
        appraisal = yield from self._judge(
            lambda verifier: verifier.appraise_evidence(evidence, stapled=stapled, at=at)
        )
        verified = admitted(appraisal, "live evidence")
        binding = check(answer, verified, transcript)
        return _Conversation(
            link=_next(binding),
            key=AttestedKey(public=answer.binding_key, evidence_digest=verified.evidence_digest, attested_at=at),
            result=appraisal.result,
            verified=verified,
        )


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


def same_identity(certificate: Claims, live: Claims) -> None:
    """Certificate and live evidence must speak of the same code.

    Raises:
        ChannelMismatch: they differ, or neither names any code.
    """
    names = [name for name in _IDENTITY if name in certificate.values or name in live.values]
    if certificate.tee != live.tee or not names:
        raise ChannelMismatch(f"live evidence: kind wanted {certificate.tee}, seen {live.tee}")
    for name in names:
        wanted, seen = certificate.values.get(name), live.values.get(name)
        if wanted != seen:
            raise ChannelMismatch(f"live evidence: {name} wanted {wanted} as in the certificate, seen {seen}")


def _next(binding: Binding) -> Link:
    return Link(counter=binding.counter + 1, previous=binding.transcript)


def _by_certificate(origin: Origin, certificate: _Certificate) -> AttestedPeer:
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


def _remember(store: OrderedDict[Any, Any], key: object, value: object, most: int) -> None:
    store[key] = value
    store.move_to_end(key)
    while len(store) > most:
        store.popitem(last=False)


def _handshake(channel: Channel) -> Generator[Step, Any, None]:
    seen = 0
    while not channel.handshake():
        yield Send(channel.take())
        data: bytes = yield Receive()
        seen += len(data)
        if not data:
            channel.feed_eof()
        elif seen > HANDSHAKE_MAX:
            raise ConversationError(f"TLS handshake: more than {HANDSHAKE_MAX} bytes", code="flooded")
        channel.feed(data)
    yield Send(channel.take())


# The challenge over HTTP/1.1, on the connection itself


def _converse(channel: Channel, origin: Origin, challenge: bytes, limits: Limits) -> Generator[Step, Any, bytes]:
    """POST the challenge, read the answer, and leave the connection clean for whoever comes next.

    Raises:
        AttestationUnavailable: the server knows no live binding.
        ConversationError: anything but a complete answer of the right type and size.
    """
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.challenge_header)
    yield Send(channel.write(_request(http, origin, challenge)))
    try:
        body = yield from _answer(http, channel, limits)
    except h11.RemoteProtocolError as error:
        raise ConversationError(f"live challenge: the answer is not HTTP/1.1: {error}", code="garbage") from error
    if http.trailing_data[0] or channel.read(1):
        raise ConversationError("live challenge: bytes after the answer that nobody asked for", code="garbage")
    if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
        raise ConversationError(
            "live challenge: the server closes the connection that it has just proven", code="connection_closed"
        )
    return body


def _request(http: h11.Connection, origin: Origin, challenge: bytes) -> bytes:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    request = h11.Request(
        method="POST",
        target=PATH,
        headers=[
            ("host", host if origin.port == 443 else f"{host}:{origin.port}"),
            ("content-type", MEDIA_TYPE),
            ("accept", MEDIA_TYPE),
            ("content-length", str(len(challenge))),
        ],
    )
    parts = (http.send(request), http.send(h11.Data(data=challenge)), http.send(h11.EndOfMessage()))
    return b"".join(part for part in parts if part)


def _answer(http: h11.Connection, channel: Channel, limits: Limits) -> Generator[Step, Any, bytes]:
    body = bytearray()
    left = limits.challenge_answer + 4 * limits.challenge_header
    patience = INFORMATIONAL_MAX
    while True:
        event = http.next_event()
        match event:
            case h11.NEED_DATA:
                data = yield from _plaintext(channel)
                left -= len(data)
                if left < 0:
                    raise ConversationError("live challenge: the answer does not end", code="flooded")
                http.receive_data(data)
            case h11.InformationalResponse():
                patience -= 1
                if patience < 0:
                    raise ConversationError("live challenge: one interim answer after another", code="flooded")
            case h11.Response():
                _status(event, limits)
            case h11.Data():
                body += event.data
                if len(body) > limits.challenge_answer:
                    raise ConversationError(
                        f"live challenge: an answer of more than {limits.challenge_answer} bytes", code="flooded"
                    )
            case h11.EndOfMessage():
                return bytes(body)
            case h11.ConnectionClosed():
                raise ConversationError("live challenge: closed before an answer", code="connection_closed")


def _plaintext(channel: Channel) -> Generator[Step, Any, bytes]:
    while (data := channel.read(RECORD)) is None:
        cipher: bytes = yield Receive()
        if cipher:
            channel.feed(cipher)
        else:
            channel.feed_eof()
    return data


def _status(response: h11.Response, limits: Limits) -> None:
    status = response.status_code
    if status in _NO_LIVE:
        raise AttestationUnavailable(
            f"live challenge: the server has no live binding (HTTP {status})",
            hint='a foreign RA-TLS server may be met with freshness = "certificate"',
        )
    if 300 <= status < 400:
        raise ConversationError(f"live challenge: answered by a redirect (HTTP {status})", code="redirect_refused")
    if status != 200:
        raise ConversationError(f"live challenge: refused by the server (HTTP {status})", code="challenge_refused")
    headers = dict(response.headers)
    kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != MEDIA_TYPE.encode("ascii"):
        raise ConversationError(f"live challenge: answer wanted {MEDIA_TYPE}, seen {kind[:60]!r}", code="garbage")
    length = headers.get(b"content-length", b"0")
    if len(length) > 9 or int(length) > limits.challenge_answer:
        raise ConversationError(
            f"live challenge: an answer of more than {limits.challenge_answer} bytes announced", code="flooded"
        )
