"""The live challenge and its answer: their CBOR forms, and the check that an answer binds this very connection.

Deterministic CBOR (RFC 8949 section 4.2.1) through `wire.cbor`. An answer never repeats nonce, exporter or SPKI
digests: the verifier rebuilds those from its own side of the socket.

    challenge = {"version": 1, "nonce": 32, "counter": u64, "previous": 0|64, "key": 0|32}
    answer    = {"version": 1, "counter": u64, "key": 32, "deployment_key": 0|32, "manifest": 0|32|48|64,
                 "configuration": 0|32|48|64, "signature": 64 (by "key", over the transcript),
                 and unless that key is known "kind": text, "evidence": bytes, "index": uint, "size": uint,
                 "path": [64, ...],
                 where there is one: "deployment": {"grant": bytes, "key": SPKI, "signature": 64, "revocation": bytes},
                 where the answerer challenges in turn: "challenge": bytes (a challenge as above)}
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from attestable_mcp.bind.deployment import DeploymentProof
from attestable_mcp.bind.keys import PUBLIC_SIZE, SIGNATURE_SIZE, check_signature
from attestable_mcp.bind.transcript import COMMITMENT_SIZES, DIGEST_SIZE, NONCE_SIZE, Role, Transcript
from attestable_mcp.bind.tree import HASH_SIZE, root_from_path
from attestable_mcp.errors import ChannelMismatch, MalformedEvidence, NotFresh
from attestable_mcp.limits import LIMITS, Limits
from attestable_mcp.rats import Evidence, EvidenceKind, Verified, carried
from attestable_mcp.wire import cbor

VERSION = 1
_U64 = 1 << 64
_Fields = Mapping[int | str | bytes, cbor.Value]
_RELAY_HINT = (
    "someone stands between you and the server and ends TLS (an attacker, or a proxy that was given the server's key), "
    "or answers with another connection's evidence"
)


class Method(StrEnum):
    """How a connection was bound."""

    QUOTE = "quote"
    KEY = "key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Where a conversation stands: the next counter and the digest of the last transcript (empty before the first)."""

    counter: int = 0
    previous: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What a verifier asks: a nonce, the conversation's link, and the binding key that it already knows (or empty)."""

    nonce: bytes = field(default_factory=lambda: os.urandom(NONCE_SIZE))
    counter: int = 0
    previous: bytes = b""
    known_key: bytes = b""

    def encode(self) -> bytes:
        """Canonical CBOR."""
        return cbor.encode(
            {
                "version": VERSION,
                "nonce": self.nonce,
                "counter": self.counter,
                "previous": self.previous,
                "key": self.known_key,
            }
        )

    @staticmethod
    def decode(data: bytes, *, limits: Limits = LIMITS) -> Challenge:
        """Strict: exactly the five keys, exact sizes.

        Raises:
            MalformedEvidence: anything else.
        """
        fields = _map(data, limits.challenge_request, "challenge")
        _keys(fields, {"version", "nonce", "counter", "previous", "key"}, "challenge")
        _version(fields)
        return Challenge(
            nonce=_bytes(fields, "nonce", (NONCE_SIZE,)),
            counter=_uint(fields, "counter", _U64),
            previous=_bytes(fields, "previous", (0, DIGEST_SIZE)),
            known_key=_bytes(fields, "key", (0, PUBLIC_SIZE)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitments:
    """What else the Attester commits to; digests or empty. `deployment_key` is the SHA-256 of its SPKI."""

    deployment_key: bytes = b""
    manifest: bytes = b""
    configuration: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuoteProof:
    """Evidence whose report data is the root of a tree in which this transcript is leaf `index` of `size`.

    `signature` is the binding key's over the transcript: evidence names that key, and anybody can name another's.
    """

    evidence: Evidence
    index: int = 0
    size: int = 1
    path: tuple[bytes, ...] = ()
    signature: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyProof:
    """The known binding key's signature over this connection's transcript."""

    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The prover's answer. `binding_key` is its raw Ed25519 public key.

    `deployment` says whose copy the prover is; `challenge` is its own, to a peer that shall prove itself in turn.
    """

    counter: int
    binding_key: bytes
    commitments: Commitments
    proof: QuoteProof | KeyProof
    deployment: DeploymentProof | None = None
    challenge: Challenge | None = None

    def encode(self) -> bytes:
        """Canonical CBOR."""
        fields: dict[int | str | bytes, cbor.Value] = {
            "version": VERSION,
            "counter": self.counter,
            "key": self.binding_key,
            "deployment_key": self.commitments.deployment_key,
            "manifest": self.commitments.manifest,
            "configuration": self.commitments.configuration,
        }
        fields["signature"] = self.proof.signature
        if isinstance(self.proof, QuoteProof):
            evidence = self.proof.evidence
            fields |= {"kind": str(evidence.kind), "evidence": evidence.body}
            fields |= {"index": self.proof.index, "size": self.proof.size, "path": [*self.proof.path]}
        if self.deployment is not None:
            fields["deployment"] = _deployment_fields(self.deployment)
        if self.challenge is not None:
            fields["challenge"] = self.challenge.encode()
        return cbor.encode(fields)

    @staticmethod
    def decode(data: bytes, *, limits: Limits = LIMITS) -> Answer:
        """Strict: exactly the keys of one of the two forms, exact sizes, caps of `limits`.

        Raises:
            MalformedEvidence: anything else.
        """
        fields = _map(data, limits.challenge_answer, "answer")
        common = {"version", "counter", "key", "deployment_key", "manifest", "configuration", "signature"}
        common |= {"deployment", "challenge"} & set(fields)
        proof: QuoteProof | KeyProof
        if "evidence" in fields:
            _keys(fields, common | {"kind", "evidence", "index", "size", "path"}, "answer")
            proof = _quote_proof(fields, limits)
        else:
            _keys(fields, common, "answer")
            proof = KeyProof(signature=_bytes(fields, "signature", (SIGNATURE_SIZE,)))
        _version(fields)
        return Answer(
            counter=_uint(fields, "counter", _U64),
            binding_key=_bytes(fields, "key", (PUBLIC_SIZE,)),
            commitments=Commitments(
                deployment_key=_bytes(fields, "deployment_key", (0, 32)),
                manifest=_bytes(fields, "manifest", COMMITMENT_SIZES),
                configuration=_bytes(fields, "configuration", COMMITMENT_SIZES),
            ),
            proof=proof,
            deployment=_deployment_proof(fields["deployment"], limits) if "deployment" in fields else None,
            challenge=_nested(fields["challenge"], limits) if "challenge" in fields else None,
        )


def _deployment_fields(proof: DeploymentProof) -> cbor.Value:
    return {
        "grant": proof.grant,
        "key": proof.key,
        "signature": proof.signature,
        "revocation": proof.revocation,
    }


def _deployment_proof(value: cbor.Value, limits: Limits) -> DeploymentProof:
    if not isinstance(value, dict):
        raise MalformedEvidence("answer: deployment wanted a CBOR map", field="deployment")
    _keys(value, {"grant", "key", "signature", "revocation"}, "deployment")
    return DeploymentProof(
        grant=_bytes(value, "grant", range(1, limits.grant + 1)),
        key=_bytes(value, "key", range(32, limits.public_key + 1)),
        signature=_bytes(value, "signature", (SIGNATURE_SIZE,)),
        revocation=_bytes(value, "revocation", range(limits.grant + 1)),
    )


def _nested(value: cbor.Value, limits: Limits) -> Challenge:
    if not isinstance(value, bytes):
        raise MalformedEvidence("answer: challenge wanted bytes", field="challenge")
    return Challenge.decode(value, limits=limits)


def _quote_proof(fields: _Fields, limits: Limits) -> QuoteProof:
    kind, body, nodes = fields["kind"], fields["evidence"], fields["path"]
    if kind not in set(EvidenceKind) or not isinstance(kind, str):
        raise MalformedEvidence(f"answer: kind wanted one of {[str(k) for k in EvidenceKind]}", field="kind")
    if not isinstance(body, bytes) or not 0 < len(body) <= limits.evidence:
        raise MalformedEvidence(f"answer: evidence wanted 1..{limits.evidence} bytes", field="evidence")
    if not isinstance(nodes, list) or len(nodes) > limits.tree_depth:
        raise MalformedEvidence(f"answer: path wanted at most {limits.tree_depth} nodes", field="path")
    path = tuple(node for node in nodes if isinstance(node, bytes) and len(node) == HASH_SIZE)
    if len(path) != len(nodes):
        raise MalformedEvidence(f"answer: every node of the path wanted {HASH_SIZE} bytes", field="path")
    size = _uint(fields, "size", (1 << limits.tree_depth) + 1)
    return QuoteProof(
        evidence=Evidence(kind=EvidenceKind(kind), body=body),
        index=_uint(fields, "index", size),
        size=size,
        path=path,
        signature=_bytes(fields, "signature", (SIGNATURE_SIZE,)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """Proof that one connection belongs to one Attester. `transcript` is the digest (64 bytes).

    `evidence_digest` names the evidence that stands behind it: for KEY, the quote that attested the key.
    """

    method: Method
    transcript: bytes
    counter: int
    binding_key: bytes
    evidence_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestedKey:
    """A binding key with the evidence that attested it and the moment when a verifier saw that."""

    public: bytes
    evidence_digest: str
    attested_at: datetime


def rebuild(
    answer: Answer, challenge: Challenge, *, role: Role, exporter: bytes, own_spki: bytes, peer_spki: bytes = b""
) -> Transcript:
    """The transcript as it must be, from the verifier's own nonce, link and socket and the answer's commitments.

    `own_spki` is the proving end's. Sizes as in `Transcript`.
    """
    return Transcript(
        role=role,
        counter=challenge.counter,
        previous=challenge.previous,
        nonce=challenge.nonce,
        exporter=exporter,
        own_spki=own_spki,
        peer_spki=peer_spki,
        deployment_key=answer.commitments.deployment_key,
        manifest=answer.commitments.manifest,
        configuration=answer.commitments.configuration,
        binding_key=answer.binding_key,
    )


def check(answer: Answer, verified: Verified, transcript: Transcript) -> Binding:
    """Does this verified evidence commit to this transcript, and does whoever answers hold the key that it names?

    Raises:
        ChannelMismatch: the evidence commits to another connection, `verified` is of other evidence, or the binding key
            is another's.
        NotFresh: the answer counts differently.
        MalformedEvidence: the inclusion path does not fit its tree.
    """
    proof = answer.proof
    if not isinstance(proof, QuoteProof):
        raise TypeError("check judges quotes; check_key judges signatures")
    _counter(answer, transcript)
    if proof.evidence.digest != verified.evidence_digest:
        raise ChannelMismatch("live binding: the verified evidence is not the one of this answer", hint=_RELAY_HINT)
    digest = transcript.digest()
    wanted = root_from_path(digest, proof.index, proof.size, proof.path)
    wanted = carried(wanted, proof.evidence.kind)
    if not hmac.compare_digest(wanted, verified.claims.report_data):
        raise ChannelMismatch(
            f"live binding: report data wanted {wanted.hex()[:16]}…, seen {verified.claims.report_data.hex()[:16]}…",
            hint=_RELAY_HINT,
        )
    check_signature(answer.binding_key, proof.signature, digest)
    return Binding(
        method=Method.QUOTE,
        transcript=digest,
        counter=transcript.counter,
        binding_key=answer.binding_key,
        evidence_digest=verified.evidence_digest,
    )


def check_key(
    answer: Answer, known: AttestedKey, transcript: Transcript, *, at: datetime, max_age_seconds: float
) -> Binding:
    """Does the binding key that was attested before vouch for this transcript, and is it young enough?

    Raises:
        ChannelMismatch: another key, or its signature does not cover this connection.
        NotFresh: the key's attestation is older than `max_age_seconds`, or the answer counts differently.
    """
    proof = answer.proof
    if not isinstance(proof, KeyProof):
        raise TypeError("check_key judges signatures; check judges quotes")
    _counter(answer, transcript)
    age = (at - known.attested_at).total_seconds()
    if not 0 <= age <= max_age_seconds:
        raise NotFresh(f"binding key: age wanted at most {max_age_seconds:.0f} s, seen {age:.0f} s")
    if answer.binding_key != known.public:
        raise ChannelMismatch("binding key: the answer is signed by a key that was not attested", hint=_RELAY_HINT)
    digest = transcript.digest()
    check_signature(known.public, proof.signature, digest)
    return Binding(
        method=Method.KEY,
        transcript=digest,
        counter=transcript.counter,
        binding_key=known.public,
        evidence_digest=known.evidence_digest,
    )


def _counter(answer: Answer, transcript: Transcript) -> None:
    if answer.counter != transcript.counter:
        raise NotFresh(f"live binding: counter wanted {transcript.counter}, seen {answer.counter}")


def _map(data: bytes, cap: int, what: str) -> _Fields:
    if len(data) > cap:
        raise MalformedEvidence(f"{what}: wanted at most {cap} bytes, seen {len(data)}", field=what)
    value = cbor.decode(data)
    if not isinstance(value, dict):
        raise MalformedEvidence(f"{what}: wanted a CBOR map", field=what, offset=0)
    return value


def _keys(fields: _Fields, wanted: Collection[object], what: str) -> None:
    if set(fields) != set(wanted):
        odd = sorted(str(key)[:40] for key in set(fields) ^ set(wanted))
        raise MalformedEvidence(f"{what}: keys missing or not known: {', '.join(odd[:8])}", field=what)


def _version(fields: _Fields) -> None:
    if fields["version"] != VERSION or isinstance(fields["version"], bool):
        raise MalformedEvidence(f"live binding: version wanted {VERSION}", field="version")


def _uint(fields: _Fields, name: str, below: int) -> int:
    value = fields[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
        raise MalformedEvidence(f"live binding: {name} wanted an integer of 0..{below - 1}", field=name)
    return value


def _bytes(fields: _Fields, name: str, sizes: Collection[int]) -> bytes:
    value = fields[name]
    if not isinstance(value, bytes) or len(value) not in sizes:
        wanted = f"{sizes[0]}..{sizes[-1]}" if isinstance(sizes, range) else " or ".join(map(str, sorted(sizes)))
        raise MalformedEvidence(f"live binding: {name} wanted {wanted} bytes", field=name)
    return value
