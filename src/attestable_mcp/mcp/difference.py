"""The difference between two manifests, item by item and member by member, as JSON and in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from attestable_mcp.mcp.manifest import KINDS, SERVER, Kind, Listing, Manifest

_MOST = 64
"""Changes within one item that are told apart; a wholly other schema is told as such."""
_TEXT = 200
_ABSENT: Any = type("_Absent", (), {"__repr__": lambda self: "absent"})()

Change = Literal["added", "removed", "changed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberChange:
    """One value that differs. `path` is dotted, such as `inputSchema.properties.a.type`."""

    path: str
    wanted: Any
    seen: Any

    def to_json(self) -> dict[str, Any]:
        """`wanted` and `seen` are left out where the value is absent there."""
        values = {"wanted": self.wanted, "seen": self.seen}
        return {"path": self.path, **{name: value for name, value in values.items() if value is not _ABSENT}}

    @property
    def words(self) -> str:
        """One line."""
        if self.wanted is _ABSENT:
            return f"{self.path} added: {_short(self.seen)}"
        if self.seen is _ABSENT:
            return f"{self.path} removed: {_short(self.wanted)}"
        return f"{self.path}: wanted {_short(self.wanted)}, seen {_short(self.seen)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemChange:
    """One item that differs."""

    kind: Kind
    name: str
    change: Change
    members: tuple[MemberChange, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """kind, name, change, members."""
        return {
            "kind": self.kind.word,
            "name": self.name,
            "change": self.change,
            "members": [member.to_json() for member in self.members],
        }

    @property
    def words(self) -> str:
        """One sentence."""
        head = f"{self.kind.word} {self.name!r} {self.change}"
        return f"{head}: {'; '.join(member.words for member in self.members)}" if self.members else head


def difference(wanted: Manifest, seen: Manifest) -> tuple[ItemChange, ...]:
    """Every item that was added, removed or changed from `wanted` to `seen`; empty where the digests agree."""
    same = wanted.set_digests.get(SERVER.name) == seen.set_digests.get(SERVER.name)
    own = () if same else (server_difference(wanted.server, seen.server),)
    lists = ((wanted.sets[kind.name], seen.sets[kind.name]) for kind in KINDS)
    return own + tuple(change for pair in lists for change in set_difference(*pair))


def server_difference(wanted: Mapping[str, Any] | None, seen: Mapping[str, Any] | None) -> ItemChange:
    """The same for what the server says of itself; None where a manifest of version 1 does not hold it."""
    name = str((seen or wanted or {}).get(SERVER.key, ""))
    return item_difference(SERVER, name, wanted, seen)


def set_difference(wanted: Listing, seen: Listing) -> Iterator[ItemChange]:
    """The same for one set."""
    for name in sorted(set(wanted.items) | set(seen.items)):
        if wanted.digests.get(name) != seen.digests.get(name):
            yield item_difference(wanted.kind, name, wanted.items.get(name), seen.items.get(name))


def item_difference(
    kind: Kind, name: str, wanted: Mapping[str, Any] | None, seen: Mapping[str, Any] | None
) -> ItemChange:
    """What became of one item; None where it is not listed."""
    if wanted is None:
        return ItemChange(kind=kind, name=name, change="added")
    if seen is None:
        return ItemChange(kind=kind, name=name, change="removed")
    members = tuple(change for change, _ in zip(_members(dict(wanted), dict(seen), ""), range(_MOST), strict=False))
    return ItemChange(kind=kind, name=name, change="changed", members=members)


def _members(wanted: Any, seen: Any, path: str) -> Iterator[MemberChange]:
    if isinstance(wanted, dict) and isinstance(seen, dict):
        for name in sorted(set(wanted) | set(seen), key=str):
            inner = f"{path}.{name}" if path else str(name)
            yield from _members(wanted.get(name, _ABSENT), seen.get(name, _ABSENT), inner)
    elif isinstance(wanted, list) and isinstance(seen, list) and len(wanted) == len(seen):
        for index, (first, second) in enumerate(zip(wanted, seen, strict=True)):
            yield from _members(first, second, f"{path}[{index}]")
    elif isinstance(wanted, bool) is not isinstance(seen, bool) or wanted != seen:
        yield MemberChange(path=path, wanted=wanted, seen=seen)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _TEXT else f"{text[: _TEXT - 1]}…"
