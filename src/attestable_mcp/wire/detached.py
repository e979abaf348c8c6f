"""Detached EAT bundles: one overall token, and a token of each submodule that the overall one holds a digest of.

NVIDIA's Remote Attestation Service answers so: `[["JWT", OVERALL], {"GPU-0": TOKEN, …}]`, where `submods` of the
overall token says `"GPU-0": ["DIGEST", ["SHA-256", HEX]]` over the text of that submodule's token. A token alone is
read as a bundle without parts. Sources: RFC 9711 §4.2.18 (submodules) and §5 (detached bundles); NVIDIA attestation,
claims guide, version 2 and 3; checked on real answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from attestable_mcp.errors import MalformedEvidence, UnsupportedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import ClaimValue
from attestable_mcp.wire.document import STRICT_JSON
from attestable_mcp.wire.token import Token, looks_like_token, read_token

_FIELD = "detached bundle"
_PARTS = 64
_NONE: Mapping[str, Any] = MappingProxyType({})
_DIGEST = "DIGEST"
_HASHES = {"SHA-256": "sha256", "SHA256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """An overall token, and those of its submodules by name; nothing verified, digests included."""

    overall: Token
    parts: Mapping[str, Token]
    texts: Mapping[str, bytes]
    """The text of each part, which its digest is over."""

    @property
    def digests(self) -> dict[str, tuple[str, str]]:
        """Hash and digest (hex) of each submodule that the overall token names by digest. Raises: MalformedEvidence."""
        return dict(_digests(self.overall.claims.get("submods")))

    @property
    def flat(self) -> dict[str, ClaimValue]:
        """Every scalar claim by its dotted path, those of a part under `submods.NAME`. Raises: MalformedEvidence."""
        found = self.overall.flat
        for name, part in self.parts.items():
            found = {path: value for path, value in found.items() if not path.startswith(f"submods.{name}[")}
            claims = {f"submods.{name}.{path}": value for path, value in part.flat.items()}
            if twice := claims.keys() & found.keys():
                raise MalformedEvidence(f"{_FIELD}: claim {min(twice)!r:.80} stands twice", field=name)
            found |= claims
        return found

    def fits(self, name: str) -> bool:
        """Is the token of this submodule the one whose digest the overall token holds?"""
        algorithm, digest = self.digests[name]
        return hashlib.new(algorithm, self.texts[name]).hexdigest() == digest


def looks_like_tokens(data: bytes) -> bool:
    """A token, or a bundle."""
    return looks_like_token(data) or b"".join(data[:64].split()).startswith(b'[["JWT",')


def read_tokens(data: bytes) -> Tokens:
    """A bundle, or a token alone. Raises: MalformedEvidence, UnsupportedEvidence."""
    if data.lstrip()[:1] != b"[":
        return Tokens(overall=read_token(data), parts=_NONE, texts=_NONE)
    if len(data) > LIMITS.evidence:
        raise MalformedEvidence(f"{_FIELD}: wanted at most {LIMITS.evidence} bytes, seen {len(data)}", field=_FIELD)
    try:
        found = STRICT_JSON.decode(data.decode("utf-8").strip())
    except (ValueError, RecursionError) as error:
        raise MalformedEvidence(f"{_FIELD}: not strict JSON", field=_FIELD) from error
    match found:
        case [["JWT", str() as overall], dict() as parts] if len(parts) <= _PARTS:
            texts = {name: _text(text, name) for name, text in parts.items()}
            return Tokens(
                overall=read_token(_text(overall, "overall")),
                parts=MappingProxyType({name: read_token(text) for name, text in texts.items()}),
                texts=MappingProxyType(texts),
            )
    raise MalformedEvidence(f'{_FIELD}: wanted [["JWT", token], {{name: token, …}}], at most {_PARTS}', field=_FIELD)


def _text(text: object, name: str) -> bytes:
    """Exactly a token's characters: white space would be under the digest, and in no token."""
    if not isinstance(text, str) or not text.isascii() or text != text.strip():
        raise MalformedEvidence(f"{_FIELD}: wanted a token as text", field=name[:80])
    return text.encode("ascii")


def _digests(submods: object) -> Iterator[tuple[str, tuple[str, str]]]:
    for name, value in submods.items() if isinstance(submods, dict) else ():
        match value:
            case [str() as kind, [str() as algorithm, str() as digest]] if kind == _DIGEST:
                if algorithm not in _HASHES:
                    raise UnsupportedEvidence(f"{_FIELD}: digest of {name!r:.40} by {algorithm!r:.40}")
                yield name, (_HASHES[algorithm], digest.lower())
            case [str() as kind, *_] if kind == _DIGEST:
                raise MalformedEvidence(f"{_FIELD}: a digest of another shape", field=str(name)[:80])
