"""What the server offers, held to what was promised and to what its evidence commits to, as it comes in.

Lists, and what the server says of itself when a conversation begins. What does not hold is taken out of its answer, or
an error stands in the answer's place.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping

from attestable_mcp.appraise.offer import ManifestPolicy
from attestable_mcp.errors import MalformedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import commitment, rpc
from attestable_mcp.mcp.manifest import BY_METHOD, PROMPTS, SERVER, TOOLS, Kind, Listing, server_digest, set_digest
from attestable_mcp.mcp.precaution import Precaution
from attestable_mcp.mcp.rewrite import Look
from attestable_mcp.mcp.warden import Refusal, Warden
from attestable_mcp.mcp.watch_http import error_of
from attestable_mcp.tls.admission import AttestedPeer

_log = logging.getLogger(__name__)
_CHANGED = {f"notifications/{kind.name}/list_changed": kind for kind in BY_METHOD.values()}
_MALFORMED = "the server's list is faulty: report it to its operator"


class Offered:
    """The state of one conversation. `prove` proves the server anew and gives it with its newest commitments."""

    def __init__(
        self,
        policy: ManifestPolicy,
        *,
        warden: Warden,
        prove: Callable[[], Awaitable[AttestedPeer]],
        precaution: Precaution | None = None,
    ) -> None:
        self._policy = policy
        self._warden = warden
        self._prove = prove
        self._precaution = precaution
        self._peer: AttestedPeer | None = None
        self._wants_proof = policy.mode != "uncommitted"
        self._hidden: dict[Kind, dict[str, bytes]] = {}
        self._short: dict[Kind, int] = {}
        self._unproven: dict[Kind, Refusal] = {}
        self._uncovered = ""

    def met(self, peer: AttestedPeer) -> None:
        """Who sent an answer: its commitments count, if they are no older than those known."""
        if self._peer is None or peer.counter >= self._peer.counter:
            self._peer = peer

    def unread(self, kind: Kind) -> bool:
        """Is the present list to be read before anything in it can be judged?"""
        return not self._warden.complete(kind) or kind in self._unproven

    def judge(self, kind: Kind, name: str) -> Refusal | None:
        """May this item be called now? None: yes."""
        return self._unproven.get(kind) or self._warden.judge(kind, name)

    @property
    def left_open(self) -> tuple[str, ...]:
        """What the lists that came leave open, in sentences: they may be shorter than what the evidence commits to."""
        short = tuple(
            f"why {count} of the {kind.name} that the server's evidence commits to are not shown to this session"
            for kind, count in self._short.items()
            if count
        )
        return (*short, self._uncovered) if self._uncovered else short

    async def noticed(self, message: rpc.Message) -> rpc.Message | None:
        """A list that changed is read again before the next call."""
        kind = _CHANGED.get(message.get("method", ""))
        if kind is not None:
            self._warden.stale(kind)
            if self._precaution is not None:
                self._precaution.changed()
        return None

    # --- the server itself -----------------------------------------------------------------------------------------

    async def introduced(self, message: rpc.Message) -> rpc.Message | None:
        """What the server says of itself when a conversation begins; an error where that is not what was promised."""
        result = message.get("result")
        if not isinstance(result, dict):
            return None
        try:
            refusal = await self._introduction(result)
        except MalformedEvidence as error:
            refusal = Refusal(code=error.code, message=error.message, hint=_MALFORMED)
        return None if refusal is None else error_of(message["id"], refusal)

    async def _introduction(self, result: rpc.Message) -> Refusal | None:
        said, sets = commitment.said_of(result), commitment.sets_of(result)
        held = server_digest(said)
        refusal = self._server_doubt(sets, held)
        if refusal is not None:
            self._peer = await self._prove()
            refusal = self._server_doubt(sets, held)
        self._note_uncovered(sets)
        return refusal or self._warden.introduced(said)

    def _server_doubt(self, sets: Mapping[str, bytes] | None, held: bytes) -> Refusal | None:
        unwanted = not self._wants_proof or (
            not self._warden.holds_server and commitment.leaves_out_server(self._committed, sets)
        )
        return None if unwanted else commitment.doubt(self._policy, self._committed, sets, SERVER.name, held)

    def _note_uncovered(self, sets: Mapping[str, bytes] | None) -> None:
        """Does nobody stand behind what the server says of itself? For `left_open`, and once for the log."""
        pinned = self._warden.holds_server or self._policy.digest == self._committed.hex()
        found = ""
        if self._wants_proof and commitment.leaves_out_server(self._committed, sets):
            found = commitment.OLD_SERVER
        elif self._policy.mode in ("pinned", "signed") and not pinned:
            found = commitment.OLD_PIN
        if found and found != self._uncovered:
            _log.warning("not proven: %s", found)
        self._uncovered = found

    # --- lists -----------------------------------------------------------------------------------------------------

    def listed(self, kind: Kind, asked: rpc.Message) -> Look:
        """For the answer to this question, which asks for a list."""
        first = "cursor" not in rpc.params(asked)

        async def look(message: rpc.Message) -> rpc.Message | None:
            result = message.get("result")
            return await self._compared(kind, message, result, first=first) if isinstance(result, dict) else None

        return look

    async def _compared(
        self, kind: Kind, message: rpc.Message, result: rpc.Message, *, first: bool
    ) -> rpc.Message | None:
        """The answer without what may not be shown; an error where the evidence does not commit to the list."""
        items = result.get(kind.name)
        hidden = ({} if first else self._hidden.get(kind, {})) | commitment.hidden_of(result)
        self._hidden[kind] = hidden if len(hidden) <= LIMITS.manifest_items else {}
        last = not isinstance(result.get("nextCursor"), str)
        try:
            shown, whole = self._warden.page(kind, items if isinstance(items, list) else [], first=first, last=last)
        except MalformedEvidence as error:
            return error_of(message["id"], Refusal(code=error.code, message=error.message, hint=_MALFORMED))
        if kind is TOOLS and self._precaution is not None:
            self._precaution.learn(shown)  # not from a list that is refused: the tools that may be called are others
        if whole is not None:
            await self._commitment(kind, whole, result)
        if kind in self._unproven:
            return error_of(message["id"], self._unproven[kind])
        if kind not in (TOOLS, PROMPTS) or not isinstance(items, list) or len(shown) == len(items):
            return None
        return {**message, "result": {**result, kind.name: shown}}

    async def _commitment(self, kind: Kind, whole: Listing, result: rpc.Message) -> None:
        """Does the evidence commit to this list? Where it does not, is it because the list has changed since?"""
        refusal = self._doubt(whole, result) if self._wants_proof else None
        if refusal is not None:
            self._peer = await self._prove()
            refusal = self._doubt(whole, result)
        self._count(kind, whole)
        if refusal is None:
            self._unproven.pop(kind, None)
        else:
            self._unproven[kind] = refusal

    def _count(self, kind: Kind, whole: Listing) -> None:
        """How much shorter the session's list is than the committed one; said in the log when that changes."""
        short = len(self._hidden.get(kind, {}).keys() - whole.digests.keys()) if self._wants_proof else 0
        if short != self._short.get(kind, 0):
            _log.warning("the server shows this session %d fewer %s than it commits to", short, kind.name)
        self._short[kind] = short

    def _doubt(self, whole: Listing, result: rpc.Message) -> Refusal | None:
        held = set_digest(whole.kind, {**self._hidden.get(whole.kind, {}), **whole.digests})
        return commitment.doubt(self._policy, self._committed, commitment.sets_of(result), whole.kind.name, held)

    @property
    def _committed(self) -> bytes:
        return self._peer.commitments.manifest if self._peer is not None else b""
