"""Does the server's evidence commit to what it has just said? How a client reads the digests in `_meta`. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attestable_mcp.appraise.offer import ManifestPolicy
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import rpc
from attestable_mcp.mcp.manifest import KINDS, META_KEY, SERVER, Item, identity, introduction, whole_digest
from attestable_mcp.mcp.warden import Refusal

_NAMES = frozenset(kind.name for kind in KINDS)
_SILENT = (
    'a server of this package commits by itself; to accept one that does not, say [manifest] mode = "uncommitted" in '
    "the policy"
)
_MISMATCH = (
    "it depends on the session, or someone changes it on the way; an operator can commit to a written manifest "
    "with serve --manifest"
)
_PINNED = "`attestable-mcp manifest URL --diff FILE` shows what differs; pin the server anew if the change is wanted"
OLD_PIN = (
    "what the server says of itself (name, version, instructions): the policy's manifest is of version 1, which does "
    "not hold it; write it anew with `attestable-mcp pin URL`"
)
OLD_SERVER = "what the server says of itself (name, version, instructions): its evidence commits to its lists only"


def sets_of(result: rpc.Message) -> dict[str, bytes] | None:
    """The sets' digests as a `_meta` gives them: four, and from version 2 on the server's own."""
    sets = _summary(result).get("sets")
    if not isinstance(sets, dict) or set(sets) - {SERVER.name} != _NAMES:
        return None
    return _digests(sets)


def hidden_of(result: rpc.Message) -> dict[str, bytes]:
    """Digests of tools that the server keeps from this client, by name; the committed set counts them in."""
    found = _summary(result).get("hidden")
    if not isinstance(found, dict) or len(found) > LIMITS.manifest_items:
        return {}
    return _digests(found) or {}


def said_of(result: rpc.Message) -> Item:
    """What the server says of itself; members that this era's answer has no place for, as `_meta` gives them."""
    said, more = introduction(result), _summary(result).get(SERVER.name)
    unsaid = identity(more) if isinstance(more, dict) else {}
    return {**{name: unsaid[name] for name in SERVER.members if unsaid.get(name) is not None}, **said}


def doubt(
    policy: ManifestPolicy, committed: bytes, sets: Mapping[str, bytes] | None, name: str, held: bytes
) -> Refusal | None:
    """Why the evidence, which commits to the manifest `committed`, does not cover `name` with the digest `held`."""
    if not committed:
        text = "the server's evidence commits to no manifest"
        return Refusal(code="manifest_uncommitted", message=text, hint=_SILENT)
    if sets is None or sets.get(name) != held or whole_digest(sets) != committed:
        what = "what the server says of itself" if name == SERVER.name else f"the list of {name}"
        text = f"{what} is not what the server's evidence commits to"
        return Refusal(code="manifest_mismatch", message=text, hint=_MISMATCH)
    if policy.digest and not policy.document and policy.digest not in (committed.hex(), lists_digest(sets).hex()):
        text = f"manifest: wanted {policy.digest}, seen {committed.hex()}"
        return Refusal(code="manifest_mismatch", message=text, hint=_PINNED)
    return None


def leaves_out_server(committed: bytes, sets: Mapping[str, bytes] | None) -> bool:
    """Does the evidence commit to a manifest of version 1, which says nothing of the server itself?"""
    return sets is not None and SERVER.name not in sets and whole_digest(sets) == committed


def lists_digest(sets: Mapping[str, bytes]) -> bytes:
    """The digest of version 1 over the same lists."""
    return whole_digest({name: digest for name, digest in sets.items() if name != SERVER.name})


def _summary(result: rpc.Message) -> Mapping[str, Any]:
    meta = result.get("_meta")
    summary = meta.get(META_KEY) if isinstance(meta, dict) else None
    return summary if isinstance(summary, dict) else {}


def _digests(found: Mapping[Any, Any]) -> dict[str, bytes] | None:
    try:
        for name in found:
            str(name).encode()  # a lone surrogate names nothing
        return {str(name): bytes.fromhex(digest) for name, digest in found.items()}
    except (ValueError, TypeError):
        return None
