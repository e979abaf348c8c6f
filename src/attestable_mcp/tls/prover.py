"""What the proving end does, whichever it is: the transcript, a certificate, a client's answer to a challenge."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from attestable_mcp.attest.base import Attester
from attestable_mcp.bind.keys import BindingKey
from attestable_mcp.bind.live import Answer, Challenge, Commitments, KeyProof, QuoteProof
from attestable_mcp.bind.transcript import EXPORTER_LABEL, EXPORTER_SIZE, Role, Transcript
from attestable_mcp.bind.tree import Tree
from attestable_mcp.errors import ConversationError
from attestable_mcp.tls.certificate import DEFAULT_LIFETIME, Issued, issue
from attestable_mcp.tls.channel import Channel
from attestable_mcp.tls.deployment import DeploymentHolder
from attestable_mcp.tls.engine import ClientContext
from attestable_mcp.tls.steps import Steps, Work

RENEW_AT = 2 / 3
"""The share of a certificate's life after which a new connection takes a new one."""


def transcript_for(
    challenge: Challenge,
    channel: Channel,
    *,
    role: Role,
    peer_spki: bytes,
    commitments: Commitments,
    binding_key: bytes,
) -> Transcript:
    """What this end proves in answer to a challenge on this connection.

    `peer_spki` is the SHA-256 of the other end's leaf SubjectPublicKeyInfo, empty where it showed no certificate.

    Raises:
        ConversationError: This end showed no certificate.
    """
    if channel.own is None:
        raise ConversationError("challenge: this end of the connection showed no certificate")
    return Transcript(
        role=role,
        counter=challenge.counter,
        previous=challenge.previous,
        nonce=challenge.nonce,
        exporter=channel.export_keying_material(EXPORTER_LABEL, EXPORTER_SIZE, b""),
        own_spki=channel.own.spki_sha256,
        peer_spki=peer_spki,
        deployment_key=commitments.deployment_key,
        manifest=commitments.manifest,
        configuration=commitments.configuration,
        binding_key=binding_key,
    )


class ClientProver:
    """A client on a TEE: its certificate, its binding key, its answers. Safe to share between threads.

    Keep one for as long as the client lives: servers remember its binding key, and later connections need no quote.
    `deployment` says whose copy the client is.
    """

    def __init__(
        self,
        attester: Attester,
        *,
        key: BindingKey | None = None,
        commitments: Callable[[], Commitments] = Commitments,
        deployment: DeploymentHolder | None = None,
        lifetime: timedelta = DEFAULT_LIFETIME,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.key = key or BindingKey()
        self.attester = attester
        self._commitments = commitments
        self._deployment = deployment
        self._lifetime = lifetime
        self._now = now
        self._issued: Issued | None = None
        self._lock = threading.Lock()

    def ready(self, context: ClientContext) -> Steps[None]:
        """Give the context a certificate that is young enough. Takes a quote when a new one is due.

        Raises:
            AttesterError: Of the device.
        """
        issued = self._issued
        if issued is None or not self._young(issued):
            issued = yield Work(self._renewed)
        shown = context.identity
        if shown is None or shown.certificate_der != issued.certificate_der:
            context.swap(issued.certificate_der, issued.key_pem)

    def _young(self, issued: Issued) -> bool:
        return self._now() < issued.not_before + (issued.not_after - issued.not_before) * RENEW_AT

    def _renewed(self) -> Issued:
        with self._lock:
            if self._issued is None or not self._young(self._issued):
                self._issued = issue(self.attester, (), lifetime=self._lifetime, now=self._now())
            return self._issued

    def answer(self, challenge: Challenge, channel: Channel, peer_spki: bytes) -> Steps[Answer]:
        """The binding key's signature over the transcript of this connection in the client's role, and evidence where
        that key is not known. `peer_spki` is the SHA-256 of the SubjectPublicKeyInfo that the server proved.

        Raises:
            AttesterError: Of the device. ConversationError: A connection without certificates.
        """
        commitments = self._commitments()
        if self._deployment is not None:
            commitments = replace(commitments, deployment_key=self._deployment.key.spki_sha256)
        transcript = transcript_for(
            challenge,
            channel,
            role=Role.CLIENT,
            peer_spki=peer_spki,
            commitments=commitments,
            binding_key=self.key.public,
        )
        digest = transcript.digest()
        proof: QuoteProof | KeyProof = KeyProof(signature=self.key.sign(digest))
        if challenge.known_key != self.key.public:
            root = Tree([digest]).root
            evidence = yield Work(lambda: self.attester.attest(root))
            proof = QuoteProof(evidence=evidence, signature=proof.signature)
        return Answer(
            counter=challenge.counter,
            binding_key=self.key.public,
            commitments=commitments,
            proof=proof,
            deployment=self._deployment.prove(digest) if self._deployment is not None else None,
        )
