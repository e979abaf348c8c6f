"""Which tools and prompts may be called: what was promised, what is listed now, and how the two differ. No I/O.

What was promised is a pinned or signed manifest, or the first list of the conversation. An item that the server lists
otherwise later is not passed on in lists and cannot be called; nor can one that was never listed, unless the policy
says so. Names that match a `dynamic` pattern of the policy may come, go and change, and each time they do it is told.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from attestable_mcp.appraise.offer import ManifestPolicy
from attestable_mcp.errors import MalformedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp.difference import ItemChange, item_difference, server_difference
from attestable_mcp.mcp.manifest import INSTRUCTIONS, KINDS, Item, Kind, Listing, Manifest, listing, server_digest

_log = logging.getLogger(__name__)
_TOLD = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a call is not sent. `change` says how the item differs from what was promised, where that is known."""

    code: str
    message: str
    hint: str
    change: ItemChange | None = None

    def to_json(self) -> dict[str, Any]:
        """The `data` of the JSON-RPC error that stands for the answer."""
        found: dict[str, Any] = {"code": self.code, "message": self.message, "hint": self.hint}
        return found | ({"difference": self.change.to_json()} if self.change else {})


@dataclass(slots=True)
class _Set:
    """One kind: what is promised (complete or still being read), and what is listed now."""

    promised: dict[str, bytes] = field(default_factory=dict)
    items: dict[str, Item] = field(default_factory=dict)
    closed: bool = False
    """Nothing more may be promised: it came from the policy, or the first list has ended."""
    listed: dict[str, tuple[bytes, Item]] = field(default_factory=dict)
    reading: dict[str, tuple[bytes, Item]] = field(default_factory=dict)
    complete: bool = False
    """`listed` is a whole list, and the server has not said since that it changed."""


class Warden:
    """The state of one conversation. `tell` is given each change that was not told before."""

    def __init__(
        self,
        policy: ManifestPolicy,
        *,
        promised: Manifest | None = None,
        tell: Callable[[ItemChange], None] | None = None,
    ) -> None:
        self._policy = policy
        self._tell = tell or _log_change
        self._told: OrderedDict[tuple[str, str, bytes], None] = OrderedDict()
        self._sets = {kind: _Set() for kind in KINDS}
        self._server: Item | None = None
        self.holds_server = False
        """Does the promised manifest say what the server says of itself? One of version 1 does not."""
        self.changes: list[ItemChange] = []
        """What was told so far, the newest last; bounded."""
        if promised is not None:
            self.promise(promised)

    def promise(self, manifest: Manifest) -> None:
        """From now on, exactly these items are accepted."""
        self._server, self.holds_server = manifest.server, manifest.server is not None
        for kind, found in self._sets.items():
            promised = manifest.sets[kind.name]
            found.promised, found.items = dict(promised.digests), dict(promised.items)
            found.closed = True

    def introduced(self, said: Item) -> Refusal | None:
        """May what the server says of itself be passed on? None: yes. The first time is the promise, if there is none.

        Where it leaves out its name or version, which not every answer holds, these are not compared.
        """
        if self._server is None:
            self._server = said
        wanted = {name: value for name, value in self._server.items() if name in said or name == INSTRUCTIONS}
        if server_digest(wanted) == server_digest(said):
            return None
        change = server_difference(wanted, said)
        self._note(change, server_digest(said))
        return Refusal(
            code="server_changed",
            message=change.words,
            hint="nothing of it was passed on; if the change is wanted, pin the server anew",
            change=change,
        )

    def complete(self, kind: Kind) -> bool:
        """Is the present list known as a whole?"""
        return self._sets[kind].complete

    def stale(self, kind: Kind) -> None:
        """The server says that this list changed: it has to be read again before the next call."""
        self._sets[kind].complete = False

    def page(self, kind: Kind, items: list[Any], *, first: bool, last: bool) -> tuple[list[Any], Listing | None]:
        """One page of a list: the items that may be shown, and the whole list's digests with the last page.

        Raises:
            MalformedEvidence: a list that no digest can be made of.
        """
        state = self._sets[kind]
        found = listing(kind, items)
        if first:
            state.reading = {}
        state.reading |= {name: (digest, found.items[name]) for name, digest in found.digests.items()}
        known = state.listed.keys() | found.digests.keys()  # first pages of a list that never ends come again and again
        if len(state.reading) > LIMITS.manifest_items or len(known) > 2 * LIMITS.manifest_items:
            raise MalformedEvidence(f"{kind.name}: wanted at most {LIMITS.manifest_items}", code="bad_manifest")
        state.listed |= {name: state.reading[name] for name in found.digests}
        if not state.closed:
            state.promised |= {name: digest for name, digest in found.digests.items() if name not in state.promised}
            state.items |= {name: found.items[name] for name in found.digests if name not in state.items}
        whole = self._finish(kind, state) if last else None
        shown = [item for item in items if self.judge(kind, str(item[kind.key])) is None]
        return shown, whole

    def _finish(self, kind: Kind, state: _Set) -> Listing:
        state.listed, state.reading = state.reading, {}
        state.closed = state.complete = True
        for name in sorted(state.promised.keys() | state.listed.keys()):
            digest = state.listed[name][0] if name in state.listed else b""
            if digest != state.promised.get(name):
                self._note(self._change(kind, name), digest)
        items = {name: item for name, (_, item) in state.listed.items()}
        return Listing(kind, items, {name: digest for name, (digest, _) in state.listed.items()})

    def judge(self, kind: Kind, name: str) -> Refusal | None:
        """May this item be called now? None: yes."""
        state = self._sets[kind]
        listed = state.listed.get(name)
        if listed is not None and (listed[0] == state.promised.get(name) or self._policy.is_dynamic(name)):
            return None
        if listed is None and (not state.complete and name in state.promised):
            return None
        if listed is None and state.complete and name not in state.promised and self._policy.unlisted == "danger-pass":
            return None
        word = f"{kind.word} {name!r}"
        if listed is None:
            known = name in state.promised
            return Refusal(
                code="tool_not_listed",
                message=f"{word} {'is no longer listed' if known else 'was never listed'} by the server",
                hint="nothing was sent; list the tools again and choose among them",
                change=self._change(kind, name) if known else None,
            )
        change = self._change(kind, name)
        added = name not in state.promised
        return Refusal(
            code="tool_not_promised" if added else "tool_changed",
            message=f"{word} is not among those that were promised" if added else change.words,
            hint="nothing was sent; if the change is wanted, pin the server anew, or name it under dynamic in a policy",
            change=change,
        )

    def expected(self, kind: Kind, name: str) -> bytes:
        """The digest that a call relies on; empty where the item may change."""
        state = self._sets[kind]
        if self._policy.is_dynamic(name):
            return b""
        return state.promised.get(name, b"")

    def listed_digest(self, kind: Kind, name: str) -> bytes:
        """The digest of the item as it is listed now, or as promised while nothing is listed."""
        state = self._sets[kind]
        found = state.listed.get(name)
        return found[0] if found is not None else state.promised.get(name, b"")

    def _change(self, kind: Kind, name: str) -> ItemChange:
        state = self._sets[kind]
        listed = state.listed.get(name)
        wanted: Mapping[str, Any] | None = state.items.get(name)
        return item_difference(kind, name, wanted, listed[1] if listed is not None else None)

    def _note(self, change: ItemChange, digest: bytes) -> None:
        key = (change.kind.name, change.name, digest)
        if key in self._told:
            return
        self._told[key] = None
        while len(self._told) > _TOLD:
            self._told.popitem(last=False)
        self.changes = [*self.changes[-_TOLD:], change]
        self._tell(change)


def _log_change(change: ItemChange) -> None:
    _log.warning("the server's list differs: %s", change.words)
