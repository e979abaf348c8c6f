"""What a server offers, as one digest: what it says of itself, its tools, prompts, resources and resource templates.

Each item is hashed in canonical JSON (RFC 8785) over the members that say what it is and does, behind a label of its
kind; each set is hashed over its items' names and digests, sorted by name; the manifest over what the server says of
itself and over its four sets. Manifests of version 1 leave the former out, and are read still. So a change of any
covered member, a rename, an addition and a removal each give another digest, and another order does not.
Every hash is SHA-256 over parts framed by their u32 big-endian length (`bind.transcript.frame`). docs/manifest.md has
the format byte by byte. Not covered: `_meta`, icons, and what changes by itself (sizes, times of change).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from attestable_mcp.bind.transcript import frame
from attestable_mcp.errors import MalformedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.wire.jcs import canonical

META_KEY: Final = "dev.attestable-mcp/manifest"
"""Where a list's `_meta` carries the digests of the whole manifest."""
EXPECT_KEY: Final = "dev.attestable-mcp/expect"
"""Where a request's `_meta` says which digest its tool must have: the server refuses the call if it has another."""
FORMAT: Final = "attestable-mcp/manifest/v2"
FORMAT_1: Final = "attestable-mcp/manifest/v1"
"""As the present one, without what the server says of itself."""
_LABEL: Final = FORMAT_1.encode("ascii")
"""Of items and sets, which are the same in both versions."""
_LABEL_2: Final = FORMAT.encode("ascii")
DIGEST_SIZE: Final = 32

Item = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of thing that a server lists. `name` is the result's member, `key` the member that names an item."""

    name: str
    word: str
    key: str
    method: str
    members: tuple[str, ...]


TOOLS: Final = Kind(
    "tools", "tool", "name", "tools/list",
    ("name", "title", "description", "inputSchema", "outputSchema", "annotations"),
)  # fmt: skip
PROMPTS: Final = Kind("prompts", "prompt", "name", "prompts/list", ("name", "title", "description", "arguments"))
RESOURCES: Final = Kind(
    "resources", "resource", "uri", "resources/list", ("uri", "name", "title", "description", "mimeType")
)
TEMPLATES: Final = Kind(
    "resourceTemplates", "resource template", "uriTemplate", "resources/templates/list",
    ("uriTemplate", "name", "title", "description", "mimeType"),
)  # fmt: skip
KINDS: Final = (TOOLS, PROMPTS, RESOURCES, TEMPLATES)
BY_METHOD: Final = {kind.method: kind for kind in KINDS}
SERVER: Final = Kind(
    "server", "server", "name", "initialize", ("name", "title", "version", "description", "instructions")
)
"""What a server says of itself when a conversation begins. Not a list: there is one."""
INSTRUCTIONS: Final = "instructions"
INTRODUCTIONS: Final = ("initialize", "server/discover")
_SERVER_INFO: Final = "io.modelcontextprotocol/serverInfo"


def covered(kind: Kind, item: Item) -> dict[str, Any]:
    """The members of an item that the digest covers. A member that is null stands for one that is absent."""
    return {name: item[name] for name in kind.members if item.get(name) is not None}


def item_digest(kind: Kind, item: Item) -> bytes:
    """32 bytes over the covered members of one item.

    Raises:
        MalformedEvidence: it has no name, or no canonical form.
    """
    name_of(kind, item)
    return _hash(_LABEL + b"/" + kind.method.encode("ascii"), canonical(covered(kind, item), field=kind.word))


def name_of(kind: Kind, item: Item) -> str:
    """The name that an item is called by. Raises: MalformedEvidence."""
    name = item.get(kind.key)
    if not isinstance(name, str) or not name:
        raise MalformedEvidence(f"{kind.word}: wanted a {kind.key}, seen none", field=kind.name, code="bad_manifest")
    return name


def set_digest(kind: Kind, digests: Mapping[str, bytes]) -> bytes:
    """32 bytes over a whole set, given each item's digest by its name; their order means nothing."""
    parts = [part for name in sorted(digests) for part in (name.encode(), digests[name])]
    return _hash(_LABEL + b"/" + kind.name.encode("ascii"), *parts)


def introduction(result: Mapping[str, Any]) -> Item:
    """What a server says of itself, from the result of `initialize` or, in the later era, of `server/discover`.

    Source: MCP 2025-11-25, basic/lifecycle; 2026-07-28, server/discover and basic (`serverInfo` in `_meta`).
    """
    meta = result.get("_meta")
    info = result.get("serverInfo") or (meta.get(_SERVER_INFO) if isinstance(meta, Mapping) else None)
    said = {**(info if isinstance(info, Mapping) else {}), INSTRUCTIONS: result.get(INSTRUCTIONS)}
    return covered(SERVER, said)


def identity(said: Item) -> Item:
    """What a server says of itself but for its instructions: not every answer of the later era has it."""
    return {name: value for name, value in said.items() if name != INSTRUCTIONS}


def server_digest(item: Item) -> bytes:
    """32 bytes over what a server says of itself. Raises: MalformedEvidence."""
    return _hash(_LABEL_2 + b"/server", canonical(covered(SERVER, item), field=SERVER.word))


def whole_digest(sets: Mapping[str, bytes]) -> bytes:
    """32 bytes over the four sets' digests, by `Kind.name`, and the server's where it is there: what is proven."""
    lists = (sets[kind.name] for kind in KINDS)
    return _hash(_LABEL_2, sets[SERVER.name], *lists) if SERVER.name in sets else _hash(_LABEL, *lists)


def _hash(label: bytes, *parts: bytes) -> bytes:
    return hashlib.sha256(frame(label, *parts)).digest()


@dataclass(frozen=True, slots=True)
class Listing:
    """The items of one kind by name, and their digests."""

    kind: Kind
    items: Mapping[str, Item]
    digests: Mapping[str, bytes]
    digest: bytes = field(init=False)
    """The set's digest."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", set_digest(self.kind, self.digests))


def listing(kind: Kind, items: Iterable[Any]) -> Listing:
    """Read a list of items as a server gives it.

    Raises:
        MalformedEvidence: with the code `bad_manifest`, for an item without a name, a name that stands twice (which of
            the two would be called?), or more than `LIMITS.manifest_items`; `not_canonical` for JSON that has no
            canonical form.
    """
    found: dict[str, Item] = {}
    digests: dict[str, bytes] = {}
    for item in items:
        if not isinstance(item, Mapping):
            raise MalformedEvidence(f"{kind.name}: wanted objects", field=kind.name, code="bad_manifest")
        name = name_of(kind, item)
        if name in found:
            raise MalformedEvidence(f"{kind.word} {name[:80]!r} stands twice", field=kind.name, code="bad_manifest")
        if len(found) >= LIMITS.manifest_items:
            raise MalformedEvidence(
                f"{kind.name}: wanted at most {LIMITS.manifest_items}", field=kind.name, code="bad_manifest"
            )
        digests[name] = item_digest(kind, item)
        found[name] = MappingProxyType(covered(kind, item))
    return Listing(kind, MappingProxyType(found), MappingProxyType(digests))


EMPTY: Final = MappingProxyType({kind.name: listing(kind, ()) for kind in KINDS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """All that a server offers. `counter` says how often it has changed since the server started.

    `server` is what the server says of itself; None in a manifest of version 1, which does not hold it.
    """

    server: Item | None = None
    sets: Mapping[str, Listing] = field(default_factory=lambda: EMPTY)
    counter: int = 0
    digest: bytes = field(init=False)
    """What a transcript commits to (32 bytes)."""

    def __post_init__(self) -> None:
        # each receipt names it: made once, not once a call
        object.__setattr__(self, "digest", whole_digest(self.set_digests))

    @property
    def set_digests(self) -> dict[str, bytes]:
        """Each set's digest by `Kind.name`; with the server's own, from version 2 on."""
        own = {} if self.server is None else {SERVER.name: server_digest(self.server)}
        return own | {name: found.digest for name, found in self.sets.items()}

    @property
    def version(self) -> int:
        """Of the format: 2, or 1 for a manifest that does not hold what the server says of itself."""
        return 1 if self.server is None else 2

    @property
    def tools(self) -> Listing:
        """The tools."""
        return self.sets[TOOLS.name]

    @property
    def prompts(self) -> Listing:
        """The prompts."""
        return self.sets[PROMPTS.name]

    def to_json(self) -> dict[str, Any]:
        """The manifest document: the covered members of every item, sorted by name, and the digests over them."""
        return {
            "format": FORMAT_1 if self.server is None else FORMAT,
            "digest": self.digest.hex(),
            "sets": {name: digest.hex() for name, digest in self.set_digests.items()},
            **({} if self.server is None else {SERVER.name: dict(self.server)}),
            **{name: [dict(found.items[key]) for key in sorted(found.items)] for name, found in self.sets.items()},
        }

    def summary(self) -> dict[str, Any]:
        """What `_meta` of a list carries: enough to recompute the whole digest from one set."""
        return {
            "version": self.version,
            "digest": self.digest.hex(),
            "sets": {name: digest.hex() for name, digest in self.set_digests.items()},
            "counter": self.counter,
        }


def of_lists(lists: Mapping[str, Iterable[Any]], *, server: Item | None = None, counter: int = 0) -> Manifest:
    """A manifest of raw lists by `Kind.name`; a missing one is empty. Raises: MalformedEvidence."""
    sets = MappingProxyType({kind.name: listing(kind, lists.get(kind.name, ())) for kind in KINDS})
    own = None if server is None else MappingProxyType(covered(SERVER, server))
    return Manifest(server=own, sets=sets, counter=counter)


def read_document(text: str | bytes, *, source: str = "manifest") -> Manifest:
    """Read a manifest document and check it against its own digests.

    Raises:
        MalformedEvidence: with the code `bad_manifest`; it is no such document, or its digests are not its content's.
    """
    if len(text) > LIMITS.manifest:
        raise MalformedEvidence(f"{source}: wanted at most {LIMITS.manifest} bytes", field=source, code="bad_manifest")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedEvidence(f"{source}: is not JSON", field=source, code="bad_manifest") from error
    return document(value, source=source)


def document(value: Any, *, source: str = "manifest") -> Manifest:
    """As `read_document`, from parsed JSON. Raises: MalformedEvidence."""
    allowed = {"format", "digest", "sets", SERVER.name, *(kind.name for kind in KINDS)}
    known = isinstance(value, dict) and value.get("format") == (FORMAT if SERVER.name in value else FORMAT_1)
    if not known or not set(value) <= allowed:
        raise MalformedEvidence(f"{source}: is no document of {FORMAT}", field=source, code="bad_manifest")
    lists = {kind.name: value.get(kind.name, []) for kind in KINDS}
    if not all(isinstance(items, list) for items in lists.values()):
        raise MalformedEvidence(f"{source}: wanted lists of items", field=source, code="bad_manifest")
    server = value.get(SERVER.name)
    if server is not None and (not isinstance(server, dict) or not set(server) <= set(SERVER.members)):
        raise MalformedEvidence(f"{source}: server: wanted an object", field=source, code="bad_manifest")
    found = of_lists(lists, server=server)
    if value.get("digest") != found.digest.hex():
        raise MalformedEvidence(
            f"{source}: digest wanted {found.digest.hex()}, seen {str(value.get('digest'))[:64]}",
            field=source,
            code="bad_manifest",
            hint="the document was edited after it was written: write it again from the server",
        )
    return found
