"""Puts the watch over lists, calls and receipts around an attested transport, as a policy wants it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx2

from attestable_mcp.appraise.offer import ManifestPolicy
from attestable_mcp.appraise.policy import Policy
from attestable_mcp.bind.live import Answer
from attestable_mcp.errors import ConfigurationError, ConversationError
from attestable_mcp.mcp.difference import ItemChange
from attestable_mcp.mcp.manifest import PROMPTS, RESOURCES, TOOLS, Manifest
from attestable_mcp.mcp.notary import Notary
from attestable_mcp.mcp.precaution import Precaution
from attestable_mcp.mcp.receipt_store import ReceiptStore, default_path
from attestable_mcp.mcp.signed import SignedManifest, check, public_key, read, read_file
from attestable_mcp.mcp.warden import Warden
from attestable_mcp.mcp.watch import Watch
from attestable_mcp.tls.admission import AttestedPeer, Gate
from attestable_mcp.tls.client import attest_server
from attestable_mcp.tls.replay import Recorder
from attestable_mcp.wire.bundle import LiveSubject, StoredPolicy

_KINDS = {"tools/call": TOOLS, "prompts/get": PROMPTS, "resources/read": RESOURCES}


def watched(
    inner: httpx2.AsyncBaseTransport,
    gate: Gate,
    url: str,
    *,
    receipts: bool | None = None,
    tell: Callable[[ItemChange], None] | None = None,
) -> Watch:
    """`inner`, which speaks to the server at `url` through `gate`, for one conversation.

    `receipts` overrides what the policy says of them. `tell` is given each change of a list, once.

    Raises:
        ConfigurationError, MalformedEvidence, SignatureInvalid, NotFresh: what the policy names as promised manifest
            cannot be used.
    """
    policy = effective(gate.policy)
    warden = Warden(policy, promised=promised(policy), tell=tell)

    async def prove() -> AttestedPeer:
        return await attest_server(gate.policy, url, gate=gate)

    wanted = gate.policy.receipts.required if receipts is None else receipts
    notary = _notary(gate, url, warden) if wanted else None
    precaution = Precaution(gate.freshness)
    return Watch(inner, policy, warden=warden, prove=prove, notary=notary, precaution=precaution)


class WatchedOnFirstUse(httpx2.AsyncBaseTransport):
    """`watched`, for a server that is known only when it is first spoken to."""

    def __init__(self, inner: httpx2.AsyncBaseTransport, gate: Gate) -> None:
        self.inner = inner
        self._gate = gate
        self._watch: Watch | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """As `Watch`."""
        if self._watch is None:
            self._watch = watched(self.inner, self._gate, str(request.url))
        return await self._watch.handle_async_request(request)

    async def aclose(self) -> None:
        """As `Watch`."""
        await (self._watch or self.inner).aclose()


def effective(policy: Policy) -> ManifestPolicy:
    """The manifest's rules with silence resolved: as `any`, save where no evidence can commit to a manifest."""
    if policy.manifest.mode is not None:
        return policy.manifest
    return replace(policy.manifest, mode="uncommitted" if policy.trust.freshness == "certificate" else "any")


def promised(policy: ManifestPolicy) -> Manifest | None:
    """The manifest that the policy names, or None where the first list counts.

    Raises: as `watched`.
    """
    if not policy.document:
        if policy.mode == "signed":
            raise ConfigurationError("manifest.document: wanted the path of the signed manifest, seen none")
        return None
    inline = policy.document.lstrip().startswith("{")
    found = read(policy.document, source="manifest.document") if inline else read_file(Path(policy.document))
    if policy.mode == "signed":
        keys = [public_key(Path(path)) for path in policy.keys]
        if not isinstance(found, SignedManifest):
            raise ConfigurationError(
                "manifest.document: wanted a signed manifest",
                hint="`attestable-mcp manifest SOURCE --sign KEY -o FILE` makes one",
            )
        return check(found, keys, at=datetime.now(UTC), source="manifest.document")
    manifest = found.manifest if isinstance(found, SignedManifest) else found
    if policy.digest and manifest.digest.hex() != policy.digest:
        raise ConfigurationError(f"manifest.digest: wanted {manifest.digest.hex()} as of the document beside it")
    return manifest


def _notary(gate: Gate, url: str, warden: Warden) -> Notary:
    chosen = gate.policy.receipts.store
    store = ReceiptStore(Path(chosen) if chosen else default_path())

    def expected(method: str, name: str) -> bytes:
        return warden.listed_digest(_KINDS[method], name)

    async def vouch() -> tuple[bytes, bytes]:
        return await proof_of_key(gate.policy, url)

    return Notary(url, keeper=store, vouch=vouch, expected=expected)


async def proof_of_key(policy: Policy, url: str) -> tuple[bytes, bytes]:
    """The binding key of the server at `url`, and the bundle that shows offline that its evidence vouches for it.

    The bundle's own policy leaves the code open: whoever verifies it later says which code is accepted.

    Raises:
        AttestationError: the server does not prove itself, or not by a quote.
    """
    genuine = Policy.genuine_only(
        accept_statuses=policy.rules.tcb_statuses, simulated=policy.trust.simulated, trust=policy.trust
    )
    stored = StoredPolicy(
        name=genuine.name, accept_statuses=policy.rules.tcb_statuses, simulated=policy.trust.simulated == "accept"
    )
    recording = await Recorder(policy=genuine, stored=stored, at=datetime.now(UTC)).of_server(url)
    subject = recording.bundle.subject
    if not recording.result.admitted or not isinstance(subject, LiveSubject):
        raise ConversationError("the server did not prove itself when its proof was to be kept", code="no_proof")
    return Answer.decode(subject.answer).binding_key, recording.bundle.encode()
