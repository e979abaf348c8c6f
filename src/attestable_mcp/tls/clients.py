"""A server's judgement of its clients: who is at the other end of a connection, and whether it may be served.

A client that shows a certificate is challenged in the server's answer; it proves itself in a second POST, in the role
of a client, over the same connection's exporter and both keys. What came of it is kept with the connection.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import inf
from types import MappingProxyType
from typing import Any

from attestable_mcp.appraise.kinds.table import KINDS
from attestable_mcp.appraise.rules import matching
from attestable_mcp.appraise.server_policy import Mode, ServerPolicy
from attestable_mcp.bind.live import Answer, Challenge
from attestable_mcp.bind.transcript import Role
from attestable_mcp.endorse.base import EndorsementSource
from attestable_mcp.errors import AttestationError, ConfigurationError, ConversationError, MalformedEvidence
from attestable_mcp.limits import LIMITS, Limits
from attestable_mcp.rats import Caller, ErrorReport
from attestable_mcp.tls.bounded import Bounded
from attestable_mcp.tls.channel import Channel
from attestable_mcp.tls.judge import Judge, Position, Proven, exporter_of
from attestable_mcp.tls.steps import Steps, Work
from attestable_mcp.tls.turns import Turns
from attestable_mcp.verifier import Verifier
from attestable_mcp.wire import cbor

_U32 = 1 << 32
_log = logging.getLogger(__name__)
_WANTED = ErrorReport(
    code="client_attestation_required",
    message="this server serves clients only that prove themselves on the connection",
    hint="Give the client an attester: attested_client(url, attester=...), or --attester NAME on the command line.",
)
_STALE = ErrorReport(
    code="client_attestation_stale",
    message="the client's proof on this connection is older than the server accepts",
    hint="The client has to answer a challenge again.",
)

OUTRUN = ErrorReport(
    code="client_attestation_stale",
    message="the client's proof became older than the server accepts before the answer began; what was asked may have "
    "been done",
    hint="Prove the client again while calls that take long are under way, as clients of attestable-mcp do.",
)
"""What is said in the place of an answer that its client's proof did not outlast."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a server says to a client's proof. `again` is in how many seconds it wants the next (0: never).

    CBOR: {"version": 1, "served": bool, "verdict": text, "code": text, "message": text, "hint": text, "again": uint}
    """

    served: bool
    verdict: str
    code: str = ""
    message: str = ""
    hint: str = ""
    again: int = 0

    def encode(self) -> bytes:
        """Canonical CBOR."""
        fields: dict[int | str | bytes, cbor.Value] = {"version": 1, "served": self.served, "again": self.again}
        fields |= {"verdict": self.verdict, "code": self.code, "message": self.message, "hint": self.hint}
        return cbor.encode(fields)

    @staticmethod
    def decode(data: bytes, *, limits: Limits = LIMITS) -> Said:
        """Strict: exactly these keys. Raises: MalformedEvidence."""
        fields: Any = cbor.decode(data, field="said", most=limits.challenge_request)
        words = ("verdict", "code", "message", "hint")
        if not isinstance(fields, dict) or set(fields) != {"version", "served", "again", *words}:
            raise MalformedEvidence("server's word on our proof: wanted its six keys", field="said")
        again = fields["again"]
        if fields["version"] != 1 or not isinstance(fields["served"], bool) or isinstance(again, bool):
            raise MalformedEvidence("server's word on our proof: wanted version 1 and a boolean", field="said")
        if not isinstance(again, int) or not 0 <= again < 1 << 32 or any(not isinstance(fields[w], str) for w in words):
            raise MalformedEvidence("server's word on our proof: wanted texts and a number", field="said")
        return Said(served=fields["served"], again=again, **{word: fields[word][:1000] for word in words})


@dataclass(slots=True, kw_only=True)
class _Client:
    """What is known of one connection's other end. `asked` is answered once."""

    der: bytes
    spki_sha256: bytes
    asked: Challenge | None = None
    caller: Caller | None = None
    refusal: ErrorReport | None = None
    until: float = 0.0
    """By the gate's clock: from when on the proof is too old, or what it rests on has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A challenge to a client, and the SHA-256 of the leaf key that it showed."""

    challenge: Challenge
    spki_sha256: bytes


class ClientGate:
    """Judges clients by a server's policy. Safe to share between connections; what it remembers is bounded.

    Raises:
        ConfigurationError: The policy asks nobody for proof, or as `tls.judge.Judge`.
    """

    def __init__(
        self,
        policy: ServerPolicy,
        *,
        sources: Sequence[EndorsementSource] | None = None,
        verifier: Verifier | None = None,
        limits: Limits = LIMITS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        if policy.policy is None or policy.clients == "none":
            raise ConfigurationError(f'{policy.name}: clients = "none" judges nobody')
        self.policy = policy
        self._judged = policy.policy
        self._judge = Judge(policy.policy, sources=sources, verifier=verifier, limits=limits, clock=clock)
        self._limits = limits
        self._ticks = ticks
        self._newest: Bounded[Hashable, float] = Bounded(limits.binding_keys)
        self._turns = Turns(limits.client_questions, limits.client_questions_each)

    @property
    def mode(self) -> Mode:
        """`optional` or `required`."""
        return self.policy.clients

    def challenge(self, channel: Channel) -> Asked | None:
        """What a client that showed a certificate is asked; None for one that showed none.

        Raises:
            MalformedEvidence: The certificate cannot be read.
        """
        client = self._client(channel)
        if client is None:
            return None
        client.asked = self._judge.challenge(client.spki_sha256, quote=client.caller is not None)
        return Asked(challenge=client.asked, spki_sha256=client.spki_sha256)

    def _client(self, channel: Channel) -> _Client | None:
        if isinstance(channel.client, _Client):
            return channel.client
        der = channel.peer_certificate_der()
        if der is None:
            return None
        if len(der) > self._limits.certificate:
            raise MalformedEvidence(f"client certificate: wanted at most {self._limits.certificate} bytes")
        client = _Client(der=der, spki_sha256=self._judge.spki_of(der))
        channel.client = client
        return client

    async def judge(self, channel: Channel, body: bytes) -> Said:
        """A client's answer to its challenge. A refusal is a value; it is kept with the connection.

        Raises:
            ConversationError: Nobody was asked. MalformedEvidence: The bytes break the format.
        """
        client = channel.client
        if not isinstance(client, _Client) or client.asked is None:
            raise ConversationError("client's proof: no challenge is open that it could answer", code="not_asked")
        challenge, client.asked = client.asked, None
        client.caller = None
        answer = Answer.decode(body, limits=self._limits)
        try:
            proven = await self._run(channel.network, self._proven(channel, client, challenge, answer))
        except ConfigurationError:
            raise
        except AttestationError as error:
            _log.warning("client refused: %s: %s", error.code, error.message)
            client.refusal = ErrorReport(code=error.code, message=error.message, hint=error.hint)
            return self._said(client)
        client.caller, client.refusal = self._caller(proven), None
        client.until = self._ticks() + min(self.policy.again or inf, proven.good_for)
        self._newest.put(_who(client.caller), client.until)
        return self._said(client)

    async def _run(self, network: str, steps: Steps[Proven]) -> Proven:
        """Steps that neither send nor receive; work goes to threads that nothing else waits for."""
        value: Any = None
        while True:
            try:
                step = steps.send(value)
            except StopIteration as stop:
                proven: Proven = stop.value
                return proven
            value = await self._turns.run(network, step.call) if isinstance(step, Work) else None

    def _proven(self, channel: Channel, client: _Client, challenge: Challenge, answer: Answer) -> Steps[Proven]:
        assert channel.own is not None
        certificate = yield from self._judge.certificate(channel, self._judge.clock())
        position = Position(
            role=Role.CLIENT,
            exporter=exporter_of(channel),
            own_spki=client.spki_sha256,
            peer_spki=channel.own.spki_sha256,
        )
        return (yield from self._judge.live(client.spki_sha256, answer, challenge, position, certificate))

    def _caller(self, proven: Proven) -> Caller:
        claims = proven.verified.claims
        kind = KINDS.get(claims.tee)
        release = matching(proven.verified, self._judged)
        code = {name: claims.values[name] for name in (kind.code if kind else ()) if name in claims.values}
        return Caller(
            verdict=proven.result.verdict,
            tee=str(claims.tee),
            release=release.label if release is not None else "",
            code=MappingProxyType(code),
            claims=proven.result.claims,
            key=proven.binding.binding_key.hex(),
            transcript=proven.binding.transcript.hex(),
            simulated=proven.verified.simulated,
            deployment=proven.deployment,
        )

    def _said(self, client: _Client) -> Said:
        if client.caller is not None:
            left = client.until - self._ticks()
            again = max(1, int(left)) if left < _U32 else 0
            return Said(served=True, verdict=str(client.caller.verdict), again=again)
        refusal = client.refusal or _WANTED
        served = self.policy.clients == "optional"
        return Said(
            served=served,
            verdict="refused",
            code=refusal.code,
            message=refusal.message[:1000],
            hint=refusal.hint[:1000],
        )

    def caller(self, channel: Channel) -> Caller | None:
        """Who is at the other end, if it proved so, and recently enough."""
        client = channel.client
        return client.caller if isinstance(client, _Client) and not self._old(client) else None

    def lasts(self, channel: Channel) -> Callable[[], float] | None:
        """Tells at any time for how many more seconds a response to this client may go on; None: nothing ends it.

        What counts is the newest proof of the same client, by its binding key, on whatever connection that was.
        """
        client, caller = channel.client, self.caller(channel)
        if not isinstance(client, _Client) or caller is None:
            return None
        who, at_least = _who(caller), client.until
        return lambda: (self._newest.get(who) or at_least) - self._ticks()

    def _old(self, client: _Client) -> bool:
        return self._ticks() > client.until

    def refusal(self, channel: Channel) -> ErrorReport | None:
        """Why this connection's client is not served, or None."""
        if self.policy.clients != "required" or self.caller(channel) is not None:
            return None
        client = channel.client
        if not isinstance(client, _Client):
            return _WANTED
        return _STALE if client.caller is not None else client.refusal or _WANTED


def _who(caller: Caller) -> Hashable:
    """As which rules know a client. Its binding key is one TEE's, and vouched for on each connection."""
    held = caller.deployment
    return caller.key, caller.release, None if held is None else (held.name, held.key)
