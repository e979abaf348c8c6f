"""Receipts outside the store: one JSON object a line, so that a hundred thousand are read one after the other.

    {"format": "attestable-mcp/receipts/v1"}
    {"chain": hex, "origin": text, "begun": ms, "key": hex, "verdict": {...}, "bundle": base64 or null}
    {"receipt": base64}   ... in their order
    {"head": base64}      ... after them

Several chains stand one after the other.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from attestable_mcp.errors import MalformedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp.receipt_store import LATEST, ReceiptStore, StoredChain

FORMAT: Final = "attestable-mcp/receipts/v1"
_LINE: Final = 2 * LIMITS.bundle
SQLITE: Final = b"SQLite format 3\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainFile:
    """A chain as an export holds it. `receipts` and `heads` read the file again each time they are asked for."""

    path: Path
    offset: int
    name: bytes
    origin: str
    begun: int
    public: bytes
    verdict: dict[str, Any] = field(default_factory=dict)
    bundle: bytes | None = None

    def receipts(self) -> Iterator[bytes]:
        """Its receipts, in the order of the file."""
        return self._lines("receipt")

    def heads(self) -> Iterator[bytes]:
        """Its tree heads."""
        return self._lines("head")

    def _lines(self, kind: str) -> Iterator[bytes]:
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            for _, line in _read(stream, self.path.name):
                if "chain" in line:
                    return
                if kind in line:
                    yield _bytes(line[kind], self.path.name)


def is_store(path: Path) -> bool:
    """Is this file a store rather than an export?"""
    with path.open("rb") as stream:
        return stream.read(len(SQLITE)) == SQLITE


def read_export(path: Path) -> Iterator[ChainFile]:
    """The chains of an export.

    Raises: MalformedEvidence (`bad_export`); OSError.
    """
    with path.open("rb") as stream:
        lines = _read(stream, path.name)
        if next(lines, (0, {}))[1].get("format") != FORMAT:
            raise _fault(path.name, f"wanted {FORMAT}")
        for end, line in lines:
            if "chain" in line:
                yield _chain(path, end, line)
            elif not set(line) <= {"receipt", "head"}:
                raise _fault(path.name, "a line that is neither chain, receipt nor head")


def _chain(path: Path, offset: int, line: dict[str, Any]) -> ChainFile:
    try:
        if not 0 <= int(line["begun"]) <= LATEST:
            raise ValueError("a time that there is not")
        return ChainFile(
            path=path,
            offset=offset,
            name=bytes.fromhex(line["chain"]),
            origin=str(line["origin"]),
            begun=int(line["begun"]),
            public=bytes.fromhex(line["key"]),
            verdict=dict(line["verdict"]),
            bundle=_bytes(line["bundle"], path.name) if line["bundle"] is not None else None,
        )
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise _fault(path.name, "a chain's line lacks something") from error


def _read(stream: Any, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each line with the offset after it."""
    while line := stream.readline(_LINE + 1):
        if len(line) > _LINE:
            raise _fault(name, f"a line of more than {_LINE} bytes")
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _fault(name, "a line that is no JSON") from error
        if not isinstance(value, dict):
            raise _fault(name, "a line that is no object")
        yield stream.tell(), value


def _bytes(value: Any, name: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (ValueError, TypeError, binascii.Error) as error:
        raise _fault(name, "wanted base64") from error


def _fault(name: str, what: str) -> MalformedEvidence:
    return MalformedEvidence(
        f"{name}: {what}", field=name, code="bad_export", hint="`attestable-mcp receipts export` writes such a file"
    )


def export_lines(store: ReceiptStore, chains: Iterable[StoredChain]) -> Iterator[str]:
    """An export, line by line."""
    yield json.dumps({"format": FORMAT})
    for chain in chains:
        bundle = store.bundle(chain.public)
        yield json.dumps(
            {
                "chain": chain.name.hex(),
                "origin": chain.origin,
                "begun": chain.begun,
                "key": chain.public.hex(),
                "verdict": chain.verdict,
                "bundle": base64.b64encode(bundle).decode("ascii") if bundle is not None else None,
            }
        )
        for message in store.receipts(chain.id):
            yield json.dumps({"receipt": base64.b64encode(message).decode("ascii")})
        for message in store.heads(chain.id):
            yield json.dumps({"head": base64.b64encode(message).decode("ascii")})
