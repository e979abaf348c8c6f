"""What an owner signs about a deployment: grants, revocation lists, and the request that asks for a grant.

Grants and revocation lists are COSE_Sign1 (RFC 9052 section 4.2, tag 18) over deterministic CBOR:

    18([ protected: bstr, {}, payload: bstr, signature: bstr ])
    protected  = {1: alg (-8 EdDSA with Ed25519, -7 ES256), 3: content type}
    grant      = {"version": 1, "owner": SPKI, "name": text, "hosts": [text, ...], "key": 32, "serial": u64,
                  "not_before": seconds, "not_after": seconds}
    revocation = {"version": 1, "owner": SPKI, "name": text, "number": u64, "issued_at": seconds,
                  "minimum_serial": u64, "serials": [u64, ...], "keys": [32, ...]}

Times are seconds since 1970 UTC. `key` is the SHA-256 of the deployment key's SubjectPublicKeyInfo. The content type
stands in the signed header, so that no signature over one kind passes for the other. A request is CBOR, not signed by
anybody: its evidence carries `request_report_data` of the key.

    request    = {"version": 1, "key": SPKI, "evidence": bytes, "kind": text, "endorsements": bytes (may be empty)}

In files each is one PEM block under a label of its own. This room reads and writes; who signed is `bind.deployment`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from attestable_mcp.errors import MalformedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Evidence, EvidenceKind
from attestable_mcp.wire import cbor
from attestable_mcp.wire.pem import encode_pem, is_pem, read_blocks

VERSION = 1
GRANT_TYPE = "application/attestable-mcp-grant+cbor"
REVOCATION_TYPE = "application/attestable-mcp-revocation+cbor"
GRANT_LABEL = "ATTESTABLE MCP GRANT"
REVOCATION_LABEL = "ATTESTABLE MCP REVOCATION"
REQUEST_LABEL = "ATTESTABLE MCP REQUEST"
REQUEST_DOMAIN = b"attestable-mcp/deployment-request/v1"
EDDSA, ES256 = -8, -7
SIGNATURE_SIZE = 64
"""Ed25519 (RFC 8032) and ES256 (r || s, RFC 9053 section 2.1) are both 64 bytes."""
NAME_MAX = 128
HOST_MAX = 253
_TAG = 18
_U64 = 1 << 64
_LATEST = 253402300799
"""9999-12-31T23:59:59Z: the last second that a datetime holds."""
_Fields = Mapping[int | str | bytes, cbor.Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """One COSE_Sign1 of ours. `to_be_signed` is its Sig_structure (RFC 9052 section 4.4), no external data."""

    algorithm: int
    content_type: str
    payload: bytes
    signature: bytes

    @property
    def to_be_signed(self) -> bytes:
        """What the signature covers."""
        return cbor.encode(["Signature1", self._protected, b"", self.payload])

    @property
    def _protected(self) -> bytes:
        return cbor.encode({1: self.algorithm, 3: self.content_type})

    def encode(self) -> bytes:
        """Canonical CBOR."""
        return cbor.encode(cbor.Tagged(_TAG, [self._protected, {}, self.payload, self.signature]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """An owner's word that the holder of one key is its deployment `name`, from `not_before` to `not_after`.

    `owner` is the owner's SubjectPublicKeyInfo (DER), `key` the SHA-256 of the deployment key's. `hosts` are the names
    or addresses under which clients may meet it; in lower case.
    """

    owner: bytes
    name: str
    hosts: tuple[str, ...]
    key: bytes
    serial: int
    not_before: datetime
    not_after: datetime

    def payload(self) -> bytes:
        """The bytes that the owner signs around."""
        return cbor.encode(
            {
                "version": VERSION,
                "owner": self.owner,
                "name": self.name,
                "hosts": list(self.hosts),
                "key": self.key,
                "serial": self.serial,
                "not_before": int(self.not_before.timestamp()),
                "not_after": int(self.not_after.timestamp()),
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """An owner's list of what it takes back of deployment `name`. A higher `number` replaces a lower one.

    What it revokes: see `rats.RevocationList`.
    """

    owner: bytes
    name: str
    number: int
    issued_at: datetime
    minimum_serial: int = 0
    serials: tuple[int, ...] = ()
    keys: tuple[bytes, ...] = ()

    def payload(self) -> bytes:
        """The bytes that the owner signs around."""
        return cbor.encode(
            {
                "version": VERSION,
                "owner": self.owner,
                "name": self.name,
                "number": self.number,
                "issued_at": int(self.issued_at.timestamp()),
                "minimum_serial": self.minimum_serial,
                "serials": list(self.serials),
                "keys": list(self.keys),
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantRequest:
    """A deployment key (SPKI, DER) with evidence that the code behind it made it. Untrusted until appraised."""

    key: bytes
    evidence: Evidence
    endorsements: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        """Canonical CBOR."""
        return cbor.encode(
            {
                "version": VERSION,
                "key": self.key,
                "kind": str(self.evidence.kind),
                "evidence": self.evidence.body,
                "endorsements": self.endorsements,
            }
        )

    def to_pem(self) -> bytes:
        """One PEM block."""
        return encode_pem(REQUEST_LABEL, self.encode())


def request_report_data(key: bytes) -> bytes:
    """The report data that vouches for a deployment key: SHA-512 over two parts framed by their u32 lengths."""
    framed = b"".join(len(part).to_bytes(4, "big") + part for part in (REQUEST_DOMAIN, key))
    return hashlib.sha512(framed).digest()


def read_signed(data: bytes, content_type: str, *, most: int = LIMITS.grant) -> Signed:
    """The COSE_Sign1 in `data` (CBOR), of this content type.

    Raises:
        MalformedEvidence: Anything but our deterministic form of it.
    """
    value = cbor.decode(data, field="grant", most=most)
    if not isinstance(value, cbor.Tagged) or value.tag != _TAG:
        raise MalformedEvidence("owner's document: wanted a COSE_Sign1 (tag 18)", field="grant", offset=0)
    parts = value.value
    if not isinstance(parts, list) or len(parts) != 4 or parts[1] != {}:
        raise MalformedEvidence("COSE_Sign1: wanted 4 parts with an empty unprotected header", field="grant")
    protected, _, payload, signature = parts
    if not (isinstance(protected, bytes) and isinstance(payload, bytes) and isinstance(signature, bytes)):
        raise MalformedEvidence("COSE_Sign1: wanted byte strings for protected, payload, signature", field="grant")
    signed = Signed(
        algorithm=_algorithm(protected, content_type), content_type=content_type, payload=payload, signature=signature
    )
    if len(signature) != SIGNATURE_SIZE or signed.encode() != data:
        raise MalformedEvidence("COSE_Sign1: wanted its one deterministic form, with 64 bytes signature", field="grant")
    return signed


def _algorithm(protected: bytes, content_type: str) -> int:
    header = cbor.decode(protected, field="grant.protected", most=256)
    if not isinstance(header, dict) or set(header) != {1, 3} or header[3] != content_type:
        raise MalformedEvidence(f"COSE_Sign1: wanted alg and content type {content_type}", field="grant.protected")
    algorithm = header[1]
    if isinstance(algorithm, bool) or algorithm not in (EDDSA, ES256):
        raise MalformedEvidence("COSE_Sign1: alg wanted -8 (EdDSA) or -7 (ES256)", field="grant.protected")
    assert isinstance(algorithm, int)
    return algorithm


def read_grant(signed: Signed) -> Grant:
    """The grant in a signed document.

    Raises:
        MalformedEvidence: Other keys, types or sizes; a life that ends before it begins.
    """
    wanted = {"version", "owner", "name", "hosts", "key", "serial", "not_before", "not_after"}
    fields = _map(signed.payload, wanted, "grant")
    hosts = fields["hosts"]
    if not isinstance(hosts, list) or not 0 < len(hosts) <= LIMITS.grant_hosts:
        raise MalformedEvidence(f"grant: hosts wanted 1..{LIMITS.grant_hosts} names", field="grant.hosts")
    grant = Grant(
        owner=_bytes(fields, "owner", range(32, LIMITS.public_key + 1)),
        name=_text(fields["name"], NAME_MAX, "grant.name"),
        hosts=tuple(_text(host, HOST_MAX, "grant.hosts") for host in hosts),
        key=_bytes(fields, "key", (32,)),
        serial=_uint(fields, "serial"),
        not_before=_moment(fields, "not_before"),
        not_after=_moment(fields, "not_after"),
    )
    if grant.not_after <= grant.not_before or any(host != host.lower() for host in hosts if isinstance(host, str)):
        raise MalformedEvidence("grant: wanted hosts in lower case and an end after its beginning", field="grant")
    return grant


def read_revocation(signed: Signed) -> Revocation:
    """The revocation list in a signed document.

    Raises:
        MalformedEvidence: Other keys, types or sizes.
    """
    wanted = {"version", "owner", "name", "number", "issued_at", "minimum_serial", "serials", "keys"}
    fields = _map(signed.payload, wanted, "revocation")
    serials, keys = _list(fields, "serials"), _list(fields, "keys")
    return Revocation(
        owner=_bytes(fields, "owner", range(32, LIMITS.public_key + 1)),
        name=_text(fields["name"], NAME_MAX, "revocation.name"),
        number=_uint(fields, "number"),
        issued_at=_moment(fields, "issued_at"),
        minimum_serial=_uint(fields, "minimum_serial"),
        serials=tuple(_uint({"serials": serial}, "serials") for serial in serials),
        keys=tuple(_bytes({"keys": key}, "keys", (32,)) for key in keys),
    )


def read_request(data: bytes) -> GrantRequest:
    """A request for a grant, from its PEM or its CBOR.

    Raises:
        MalformedEvidence: Anything else.
    """
    body = from_pem(data, REQUEST_LABEL)
    fields = _map(body, {"version", "key", "kind", "evidence", "endorsements"}, "request", most=LIMITS.certificate)
    kind, stapled = fields["kind"], fields["endorsements"]
    if not isinstance(kind, str) or kind not in set(EvidenceKind):
        raise MalformedEvidence(f"request: kind wanted one of {[str(k) for k in EvidenceKind]}", field="request.kind")
    if not isinstance(stapled, bytes):
        raise MalformedEvidence("request: endorsements wanted bytes", field="request.endorsements")
    return GrantRequest(
        key=_bytes(fields, "key", range(32, LIMITS.public_key + 1)),
        evidence=Evidence(kind=EvidenceKind(kind), body=_bytes(fields, "evidence", range(1, LIMITS.evidence + 1))),
        endorsements=stapled,
    )


def to_pem(label: str, body: bytes) -> bytes:
    """One PEM block under `GRANT_LABEL` or `REVOCATION_LABEL`."""
    return encode_pem(label, body)


def from_pem(data: bytes, label: str) -> bytes:
    """The body of the one PEM block in `data`, or `data` itself where it is no PEM.

    Raises:
        MalformedEvidence: Several blocks, another label, or text around it.
    """
    if len(data) > 2 * LIMITS.certificate:
        raise MalformedEvidence(f"owner's document: wanted at most {2 * LIMITS.certificate} bytes", field="pem")
    if not is_pem(data):
        return data
    (block,) = read_blocks(data, field="pem", most=1)
    if block.label != label:
        raise MalformedEvidence(f"PEM label: wanted {label}, seen {block.label}", field="pem")
    return block.der


def _map(data: bytes, wanted: set[str], what: str, most: int = LIMITS.grant) -> _Fields:
    value = cbor.decode(data, field=what, most=most)
    if not isinstance(value, dict) or set(value) != wanted:
        raise MalformedEvidence(f"{what}: wanted exactly the keys {', '.join(sorted(wanted))}", field=what)
    if value["version"] != VERSION or isinstance(value["version"], bool):
        raise MalformedEvidence(f"{what}: version wanted {VERSION}", field=f"{what}.version")
    return value


def _list(fields: _Fields, name: str) -> list[cbor.Value]:
    value = fields[name]
    if not isinstance(value, list) or len(value) > LIMITS.revoked:
        raise MalformedEvidence(f"revocation: {name} wanted at most {LIMITS.revoked} entries", field=name)
    return value


def _bytes(fields: _Fields, name: str, sizes: Collection[int]) -> bytes:
    value = fields[name]
    if not isinstance(value, bytes) or len(value) not in sizes:
        raise MalformedEvidence(f"owner's document: {name} has a wrong type or size", field=name)
    return value


def _uint(fields: _Fields, name: str) -> int:
    value = fields[name]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _U64:
        raise MalformedEvidence(f"owner's document: {name} wanted a u64", field=name)
    return value


def _moment(fields: _Fields, name: str) -> datetime:
    seconds = _uint(fields, name)
    if seconds > _LATEST:
        raise MalformedEvidence(f"owner's document: {name} wanted seconds up to {_LATEST}", field=name)
    return datetime.fromtimestamp(seconds, UTC)


def _text(value: cbor.Value, most: int, field: str) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable() or value != value.strip():
        raise MalformedEvidence(f"owner's document: wanted 1..{most} printable characters", field=field)
    return value
