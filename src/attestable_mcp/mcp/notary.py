"""The client's side of receipts: asks for one with each call, holds each answer to it, and keeps them.

What a receipt says is compared with the call and the answer at once, and so is its place in the chain. Its signature is
checked at once too, save in a rush of calls: there one signature a moment later stands for all receipts that it is
linked to by hash. Where it fails, nothing more of the conversation is passed on.

All calls of a conversation go into one chain, asked for by a random name that only this client knows; receipts have the
server's name for it. The server counts; the chain's links are checked as they come in, in whichever order answers
arrive. A JSON-RPC error carries no receipt.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from attestable_mcp.bind.receipt import (
    CHAIN_SIZE,
    RECEIPT_KEY,
    RECEIPTS_KEY,
    Head,
    Receipt,
    check_signature,
    read,
    receipt_hash,
    request_digest,
    result_digest,
    verify,
)
from attestable_mcp.bind.tree import Frontier
from attestable_mcp.errors import AttestationError, ConversationError, ReceiptError
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import rpc
from attestable_mcp.mcp.watch_http import whole
from attestable_mcp.tls.admission import AttestedPeer
from attestable_mcp.tls.client import EXTENSION
from attestable_mcp.wire import base64url

_log = logging.getLogger(__name__)
_EARLY = 4096
"""Receipts that are held until the ones before them come in."""
SETTLE_SECONDS = 0.5
"""Within this time after a signature was checked, the next ones wait for each other; so do receipts to be stored."""
TOGETHER = 64
"""Receipts that wait at most."""
_HEAD_PATH = "/.well-known/attestation/receipts"
_UNKNOWN = "unknown_chain"
_HINT = "do not rely on the answer; the call may have been carried out"


_Unproven = tuple[bytes, bytes, int, bytes]
"""A receipt whose signature waits: message, chain, number, key. The garbage collector follows nothing of it."""


class Keeper(Protocol):
    """Where receipts are kept."""

    def keep(self, message: bytes, receipt: Receipt, peer: AttestedPeer) -> None:
        """One receipt that holds."""

    def keep_head(self, message: bytes, head: Head, peer: AttestedPeer) -> None:
        """One tree head that holds."""

    def keep_bundle(self, public: bytes, bundle: bytes) -> None:
        """What vouches for a signing key."""

    def vouched(self, public: bytes) -> bool:
        """Is there such a bundle?"""

    def flush(self) -> None:
        """Write down what waits."""

    def close(self) -> None:
        """Write everything down."""


@dataclass(slots=True)
class _Chain:
    """What is known of one chain: `name` is ours, under which we ask; `signed` the server's, once a receipt told it."""

    name: bytes = field(default_factory=lambda: os.urandom(CHAIN_SIZE))
    signed: bytes = b""
    held: int = 0
    last: bytes = b""
    tree: Frontier = field(default_factory=Frontier)
    early: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)

    def take(self, receipt: Receipt, digest: bytes) -> str | None:
        """Put one receipt at its place; what is wrong with that, in words."""
        self.signed = self.signed or receipt.chain
        if receipt.chain != self.signed:
            return "it is of another chain"
        if receipt.counter < self.tree.size or receipt.counter in self.early:
            return f"number {receipt.counter} of its chain was given before"
        if len(self.early) >= _EARLY:
            return f"more than {_EARLY} receipts before it are missing"
        self.held += 1
        self.early[receipt.counter] = (receipt.previous, digest)
        while (found := self.early.pop(self.tree.size, None)) is not None:
            if found[0] != self.last:
                return "it does not follow the receipt before it"
            self.last = found[1]
            self.tree.push(found[1])
        return None


class Notary:
    """Of one conversation. `newest` is the receipt that came in last; `keeper` None keeps none.

    `vouch` proves the server anew and gives the signing key with a bundle that shows the proof offline later.
    `expected` gives the digest of the item that a method and name stand for.
    """

    def __init__(
        self,
        url: str,
        *,
        keeper: Keeper | None = None,
        vouch: Callable[[], Awaitable[tuple[bytes, bytes]]] | None = None,
        expected: Callable[[str, str], bytes] | None = None,
    ) -> None:
        self._url = httpx2.URL(url).copy_with(raw_path=_HEAD_PATH.encode("ascii"))
        self._keeper = keeper
        self._vouch = vouch
        self._vouched: set[bytes] = set()
        self._expected = expected or (lambda method, name: b"")
        self._chain = _Chain()
        self._before: _Chain | None = None
        self.newest: Receipt | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._unproven: list[_Unproven] = []
        self._proven_at = float("-inf")
        self._broken: AttestationError | None = None
        self._told = False
        self._public: tuple[bytes, Ed25519PublicKey] | None = None

    @property
    def chain(self) -> bytes:
        """The name of the chain that calls go into now."""
        return self._chain.name

    @property
    def held(self) -> int:
        """Receipts of that chain that hold."""
        return self._chain.held

    def asks(self) -> dict[str, Any]:
        """What a call's `_meta` carries."""
        return {RECEIPTS_KEY: {"chain": self._chain.name.hex(), "held": self._chain.held}}

    def entry(self, asked: rpc.Message) -> Entry:
        """For one call that is about to be sent. Raises: MalformedEvidence: no receipt could name what it asks."""
        return Entry(self, asked)

    def begin_again(self, chain: str) -> None:
        """The server does not continue this chain: later calls go into another."""
        if self._chain.name.hex() == chain:
            self._before, self._chain = self._chain, _Chain()

    def _asked_for(self, asked: rpc.Message) -> _Chain | None:
        """The chain that a call was to go into: answers to calls of the one before may still be on their way."""
        name = rpc.meta(asked).get(RECEIPTS_KEY, {}).get("chain")
        return next((chain for chain in (self._chain, self._before) if chain and chain.name.hex() == name), None)

    async def take(
        self, message: bytes, asked: rpc.Message, request: bytes, result: Mapping[str, Any], peer: AttestedPeer | None
    ) -> None:
        """Hold an answer to its receipt, and keep that. `request` is the digest of what was asked.

        Raises: AttestationError: ReceiptError, MalformedEvidence or SignatureInvalid.
        """
        self._raise_broken()
        if peer is None or peer.binding is None:
            raise ReceiptError("receipt: no live binding of this connection vouches for a key", hint=_HINT)
        public = peer.binding.binding_key
        receipt = read(message)
        if not isinstance(receipt, Receipt):
            raise ReceiptError("receipt: a tree head stands in its place", hint=_HINT)
        problem = self._mismatch(receipt, asked, request, result, peer)
        if problem is None:
            chain = self._asked_for(asked)
            problem = chain.take(receipt, receipt_hash(message)) if chain else "it is of a chain that was given up"
        if problem is not None:
            raise ReceiptError(f"receipt: {problem}", code="receipt_mismatch", hint=_HINT)
        self._unproven.append((message, receipt.chain, receipt.counter, public))
        self._settle_now_or_soon()
        self.newest = receipt
        if self._keeper is not None:
            self._keeper.keep(message, receipt, peer)
            await self._keep_proof(self._keeper, public)

    def _raise_broken(self) -> None:
        if self._broken is not None:
            self._told = True
            raise self._broken

    def _settle_now_or_soon(self) -> None:
        """Signatures at once where calls come singly; where they come in a rush, of several together a moment later.

        Either way what is kept is written down a moment later.
        """
        rush = self._settling is not None or time.monotonic() - self._proven_at < SETTLE_SECONDS
        if self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(SETTLE_SECONDS, self._settle_late)
        if not rush or len(self._unproven) >= TOGETHER:
            self._settle()
            self._raise_broken()

    def _settle(self) -> None:
        """The newest signature vouches for all receipts that are linked to it; those that are not have their own.

        Where one does not hold, no answer of this conversation is passed on from then on.
        """
        waiting, self._unproven = self._unproven, []
        newest: _Unproven | None = None
        try:
            for item in waiting:
                message, chain, counter, public = item
                linked = chain == self._chain.signed and counter < self._chain.tree.size
                if linked and (newest is None or public == newest[3]):
                    newest = item if newest is None or counter > newest[2] else newest
                else:
                    check_signature(message, self._key(public))
            if newest is not None:
                check_signature(newest[0], self._key(newest[3]))
        except AttestationError as error:
            self._broken = error
        if waiting:
            self._proven_at = time.monotonic()

    def settle(self) -> None:
        """Check the signatures that wait, and write down what is kept. Never raises: the next answer does."""
        self._settle()
        try:
            if self._keeper is not None:  # what does not hold is evidence too
                self._keeper.flush()
        except AttestationError as error:
            self._broken = self._broken or error
        if self._broken is not None:
            _log.error("receipts do not hold, or could not be kept: %s", self._broken)

    def _settle_late(self) -> None:
        self._settling = None
        self.settle()

    def _key(self, public: bytes) -> Ed25519PublicKey:
        if self._public is None or self._public[0] != public:
            self._public = (public, Ed25519PublicKey.from_public_bytes(public))
        return self._public[1]

    async def _keep_proof(self, keeper: Keeper, public: bytes) -> None:
        """Once for each key: what vouches for it, so that its receipts can be verified offline."""
        if public in self._vouched or self._vouch is None:
            return
        self._vouched.add(public)
        if keeper.vouched(public):
            return
        try:
            found, bundle = await self._vouch()
        except AttestationError as error:
            _log.warning("the proof of the key that signs receipts could not be kept: %s", error)
        else:
            keeper.keep_bundle(found, bundle)

    def _mismatch(
        self, receipt: Receipt, asked: rpc.Message, request: bytes, result: Mapping[str, Any], peer: AttestedPeer
    ) -> str | None:
        method, params = asked["method"], rpc.params(asked)
        name = str(params.get("uri" if method == "resources/read" else "name", ""))
        if receipt.method != method or receipt.name != name[:1024]:
            return f"wanted one for {method} {name[:80]!r}, seen {receipt.method} {receipt.name[:80]!r}"
        if receipt.request != request:
            return "it is of another request"
        if receipt.result != result_digest(result):
            return "it is of another answer"
        if receipt.transcript != peer.transcript:
            return "it names another connection's transcript"
        expected = self._expected(method, name)
        if expected and receipt.item != expected and (receipt.item or peer.commitments.manifest):
            return "the tool that answered is not the one that was listed"
        return None

    async def head(self, transport: httpx2.AsyncBaseTransport) -> Head | None:
        """Ask for a signed tree head over the chain, compare it with what was received, and keep it. None: no chain.

        Raises: AttestationError: it does not hold, or contradicts the receipts.
        """
        if not self._chain.held:
            return None
        chain = self._chain
        request = httpx2.Request(
            "POST", self._url, content=chain.name, headers={"content-type": "application/octet-stream"}
        )
        response = await transport.handle_async_request(request)
        try:
            body = await whole(response, LIMITS.receipt)
        finally:
            await response.aclose()
        peer: AttestedPeer | None = response.extensions.get(EXTENSION)
        if response.status_code != 200 or peer is None or peer.binding is None:
            raise ConversationError(f"tree head: refused by the server (HTTP {response.status_code})", code="no_head")
        head = verify(body, peer.binding.binding_key)
        if not isinstance(head, Head) or head.chain != chain.signed:
            raise ReceiptError("tree head: of another chain", code="receipt_mismatch")
        self._judge(head, chain)
        if self._keeper is not None:
            self._keeper.keep_head(body, head, peer)
        return head

    @staticmethod
    def _judge(head: Head, chain: _Chain) -> None:
        """A head may count answers that are still on their way; where it counts the same, its root must be ours."""
        if head.size < chain.tree.size or (head.size == chain.tree.size and head.root != chain.tree.root):
            raise ReceiptError(
                "tree head: it contradicts the receipts that were given",
                code="receipt_fork",
                hint="keep the receipts: head and receipts together prove that the server signed two histories",
            )

    async def close(self, transport: httpx2.AsyncBaseTransport) -> None:
        """At the end of a conversation: a last head, so that the removal of the last receipt can be seen later.

        Raises: AttestationError: receipts do not hold whose answers were passed on, and nobody was told so far.
        """
        try:
            self._settle()
            if self._broken is None:
                await self.head(transport)
        except (AttestationError, httpx2.HTTPError, OSError) as error:
            _log.warning("no tree head over this conversation's receipts: %s", error)
        finally:
            if self._settling is not None:
                self._settling.cancel()
            if self._keeper is not None:
                self._keeper.close()
        if not self._told:
            self._raise_broken()


class Entry:
    """One call and the answer to it. `peer` is who was asked: it is known once the response begins.

    What was asked is hashed before it is sent: the answer, for which somebody waits, costs less then.
    """

    def __init__(self, notary: Notary, asked: rpc.Message) -> None:
        self._notary = notary
        self._asked = asked
        self._request = request_digest(asked["method"], rpc.params(asked))
        self.peer: AttestedPeer | None = None
        self.chain_refused = False

    async def take(self, message: rpc.Message) -> None:
        """The answer. Raises: AttestationError where it has no receipt that holds."""
        error, result = message.get("error"), message.get("result")
        if isinstance(error, dict):
            data = error.get("data")
            if isinstance(data, dict) and data.get("code") == _UNKNOWN:
                self.chain_refused = True
                self._notary.begin_again(rpc.meta(self._asked)[RECEIPTS_KEY]["chain"])
            return
        meta = result.get("_meta") if isinstance(result, dict) else None
        text = meta.get(RECEIPT_KEY) if isinstance(meta, dict) else None
        if not isinstance(result, dict) or not isinstance(text, str):
            raise ReceiptError(
                "receipt: the policy demands one, and the answer has none",
                code="receipt_missing",
                hint=_HINT,
            )
        await self._notary.take(_decoded(text), self._asked, self._request, result, self.peer)


def _decoded(text: str) -> bytes:
    try:
        return base64url.decode(text)
    except ValueError as error:
        raise ReceiptError("receipt: wanted base64url", code="receipt_mismatch", hint=_HINT) from error
