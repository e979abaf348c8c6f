"""Endorsements as one canonical CBOR map, for every kind of evidence that has no form of its own for them.

`{"version": 1, "certificates": [DER …], "crls": [DER …], "documents": [[kind, body, signature, [DER …]] …]}`. All of it
is untrusted until `verify` has looked at it.
"""

from __future__ import annotations

from collections.abc import Iterator

from attestable_mcp.errors import MalformedEvidence, UnsupportedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Endorsements, SignedDocument
from attestable_mcp.wire import cbor

MEDIA_TYPE = "application/vnd.attestable-mcp.endorsements+cbor"
_KEYS = {"version", "certificates", "crls", "documents"}
_MOST = 32
"""Pieces of one sort in a bag."""


def write_bag(endorsements: Endorsements) -> bytes:
    """The bag without the words on where its pieces came from."""
    documents: list[cbor.Value] = [
        [str(item.kind), item.body, item.signature, list(item.issuer_chain)] for item in endorsements.documents
    ]
    return cbor.encode(
        {
            "version": 1,
            "certificates": list(endorsements.certificates),
            "crls": list(endorsements.crls),
            "documents": documents,
        }
    )


def read_bag(data: bytes, *, source: str = "stapled") -> Endorsements:
    """Read what `write_bag` wrote. Raises: MalformedEvidence, UnsupportedEvidence (another version)."""
    body = cbor.decode(data, field="endorsements", most=LIMITS.endorsement)
    if not isinstance(body, dict) or set(body) != _KEYS:
        raise MalformedEvidence(f"endorsements: wanted a map of {', '.join(sorted(_KEYS))}", field="endorsements")
    if body["version"] != 1 or isinstance(body["version"], bool):
        raise UnsupportedEvidence(f"endorsements: wanted version 1, seen {body['version']!r}")
    return Endorsements(
        certificates=tuple(_octets(body["certificates"], "certificates")),
        crls=tuple(_octets(body["crls"], "crls")),
        documents=tuple(_documents(body["documents"])),
        sources=(source,),
    )


def _items(value: cbor.Value, field: str) -> list[cbor.Value]:
    if not isinstance(value, list) or len(value) > _MOST:
        raise MalformedEvidence(f"endorsements: wanted a list of at most {_MOST}", field=field)
    return value


def _octets(value: cbor.Value, field: str) -> Iterator[bytes]:
    for item in _items(value, field):
        if not isinstance(item, bytes):
            raise MalformedEvidence("endorsements: wanted byte strings", field=field)
        yield item


def _documents(value: cbor.Value) -> Iterator[SignedDocument]:
    for item in _items(value, "documents"):
        match item:
            case [str() as kind, bytes() as body, bytes() as signature, list() as chain]:
                issuers = tuple(_octets(chain, "documents.issuer_chain"))
                yield SignedDocument(kind=kind, body=body, signature=signature, issuer_chain=issuers)
            case _:
                raise MalformedEvidence(
                    "endorsements: wanted documents of kind, body, signature and chain", field="documents"
                )
