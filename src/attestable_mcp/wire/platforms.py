"""A list of platforms that its signer vouches for: chip identities, with the day on which the list ends.

COSE_Sign1 as in `wire.grant`, with a content type of its own, over deterministic CBOR:

    platforms = {"version": 1, "signer": SPKI, "name": text, "issued": seconds, "expires": seconds,
                 "ids": {"ppid": [16, ...], "piid": [16, ...], "chip_id": [64, ...]}}

`ppid` and `piid` are Intel's (PCK certificate), `chip_id` AMD's (report; 8 bytes on Turin, here filled up with zeros as
in the report). In files it is one PEM block. This room reads and writes; who signed is `bind.platforms`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from attestable_mcp.errors import MalformedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.wire import cbor
from attestable_mcp.wire.grant import Signed

PLATFORMS_TYPE = "application/attestable-mcp-platforms+cbor"
PLATFORMS_LABEL = "ATTESTABLE MCP PLATFORMS"
ID_SIZES: Mapping[str, int] = {"ppid": 16, "piid": 16, "chip_id": 64}
SHORT_CHIP_ID = 8
"""Turin's, before it is filled up."""
NAME_MAX = 128
VERSION = 1
_KEYS = frozenset(("version", "signer", "name", "issued", "expires", "ids"))
_LATEST = 253402300799


@dataclass(frozen=True, slots=True, kw_only=True)
class Platforms:
    """The list. `signer` is a SubjectPublicKeyInfo (DER), `ids` are bytes by kind; `expires` is the first moment after.

    Raises:
        MalformedEvidence: no id at all, a wrong size, one twice, an all-zero one, or an end before the beginning.
    """

    signer: bytes
    name: str
    issued: datetime
    expires: datetime
    ids: Mapping[str, tuple[bytes, ...]]

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= NAME_MAX or not self.name.isprintable():
            raise _bad(f"wanted a name of 1..{NAME_MAX} printable characters", "name")
        if self.expires <= self.issued:
            raise _bad("wanted an end after its beginning", "expires")
        count = sum(len(ids) for ids in self.ids.values())
        if not 0 < count <= LIMITS.platform_ids:
            raise _bad(f"wanted 1..{LIMITS.platform_ids} platforms, seen {count}", "ids")
        for kind, ids in self.ids.items():
            _check(kind, ids)

    def payload(self) -> bytes:
        """The bytes that the signer signs around."""
        ids: dict[cbor.Key, cbor.Value] = {kind: [*sorted(found)] for kind, found in self.ids.items() if found}
        return cbor.encode(
            {
                "version": VERSION,
                "signer": self.signer,
                "name": self.name,
                "issued": int(self.issued.timestamp()),
                "expires": int(self.expires.timestamp()),
                "ids": ids,
            }
        )


def _bad(what: str, field: str) -> MalformedEvidence:
    return MalformedEvidence(f"platform list: {what}", field=field)


def _check(kind: str, ids: Iterable[bytes]) -> None:
    size = ID_SIZES.get(kind)
    if size is None:
        raise _bad(f"wanted ids of {', '.join(ID_SIZES)}, seen {kind[:40]!r}", "ids")
    seen: set[bytes] = set()
    for item in ids:
        if len(item) != size:
            raise _bad(f"wanted {size} bytes, seen {len(item)}", f"ids.{kind}")
        if not any(item):
            raise _bad("an all-zero id is that of no platform", f"ids.{kind}")
        if item in seen:
            raise _bad(f"{item.hex()} stands there twice", f"ids.{kind}")
        seen.add(item)


def platform_id(kind: str, text: str) -> bytes:
    """An id as people write it: hex; a chip id of Turin may be given in its 8 bytes. Raises: MalformedEvidence."""
    try:
        value = bytes.fromhex(text) if text.isalnum() else b""
    except ValueError:
        value = b""
    if kind == "chip_id" and len(value) == SHORT_CHIP_ID:
        value += bytes(ID_SIZES[kind] - SHORT_CHIP_ID)
    if len(value) != ID_SIZES.get(kind, -1):
        raise _bad(f"wanted {ID_SIZES.get(kind, 0)} bytes in hex, seen {text[:160]!r}", kind)
    return value


def read_platforms(signed: Signed) -> Platforms:
    """The list in a signed document. Raises: MalformedEvidence: other keys, types or sizes."""
    value = cbor.decode(signed.payload, field="platforms", most=LIMITS.platform_list)
    if not isinstance(value, dict) or set(value) != _KEYS or value["version"] is not VERSION:
        raise _bad(f"wanted exactly the keys {', '.join(sorted(_KEYS))}, version {VERSION}", "platforms")
    signer, name, ids = value["signer"], value["name"], value["ids"]
    if not isinstance(signer, bytes) or not 32 <= len(signer) <= LIMITS.public_key:
        raise _bad("wanted a SubjectPublicKeyInfo", "signer")
    if not isinstance(name, str) or not isinstance(ids, dict):
        raise _bad("wanted text for name and a map for ids", "name")
    found = Platforms(
        signer=signer, name=name, issued=_moment(value["issued"]), expires=_moment(value["expires"]),
        ids={_kind(kind): _ids(items) for kind, items in ids.items()},
    )  # fmt: skip
    if found.payload() != signed.payload:
        raise _bad("wanted its one deterministic form", "platforms")
    return found


def _kind(value: object) -> str:
    if not isinstance(value, str):
        raise _bad("wanted text for the kinds of ids", "ids")
    return value


def _ids(value: cbor.Value) -> tuple[bytes, ...]:
    if not isinstance(value, list):
        raise _bad("wanted arrays of byte strings", "ids")
    found = tuple(item for item in value if isinstance(item, bytes))
    if len(found) != len(value):
        raise _bad("wanted arrays of byte strings", "ids")
    return found


def _moment(value: cbor.Value) -> datetime:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _LATEST:
        raise _bad(f"wanted seconds since 1970, up to {_LATEST}", "issued")
    return datetime.fromtimestamp(value, UTC)
