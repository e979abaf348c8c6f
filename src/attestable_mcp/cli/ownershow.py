"""What `owner show` says of a file: a key, a grant, a revocation list or a request, told apart by its PEM label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attestable_mcp.bind.deployment import deployment_of, key_hash, open_grant, open_revocation, spki_of
from attestable_mcp.cli import text_owner
from attestable_mcp.cli.ownerkey import read_private, read_public
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.wire.grant import GRANT_LABEL, REQUEST_LABEL, REVOCATION_LABEL, from_pem, read_request


def shown(data: bytes, path: Path, passphrase_file: Path | None) -> dict[str, Any]:
    """Names and values; signatures of grants and lists are checked against the owner that they name.

    Raises:
        AttestationError: The file is none of these, or a signature does not hold.
    """
    if _labelled(data, GRANT_LABEL):
        return {"kind": "grant", **deployment_of(open_grant(from_pem(data, GRANT_LABEL))).to_json()}
    if _labelled(data, REVOCATION_LABEL):
        return _revocation(data)
    if _labelled(data, REQUEST_LABEL):
        request = read_request(data)
        told = {"kind": "request", "deployment_key": key_hash(request.key), "evidence": str(request.evidence.kind)}
        return {**told, "checked": "nothing: `owner grant` checks it"}
    if _labelled(data, "PUBLIC KEY"):
        return {"kind": "public key", "owner": key_hash(read_public(path))}
    if b"PRIVATE KEY-----" in data:
        return {"kind": "private key", "owner": key_hash(spki_of(read_private(path, passphrase_file)))}
    raise ConfigurationError(f"{path}: {text_owner.NOT_OURS}", code="unrecognised_source")


def _labelled(data: bytes, label: str) -> bool:
    return f"-----BEGIN {label}-----".encode() in data


def _revocation(data: bytes) -> dict[str, Any]:
    found = open_revocation(from_pem(data, REVOCATION_LABEL))
    return {
        "kind": "revocation list",
        "owner": key_hash(found.owner),
        "name": found.name,
        "number": found.number,
        "issued_at": found.issued_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "minimum_serial": found.minimum_serial,
        "serials": list(found.serials),
        "keys": [key.hex() for key in found.keys],
    }
