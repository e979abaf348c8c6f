"""Receipts: what an attested server says it was asked and answered, signed by the key that its evidence vouches for.

A receipt is a COSE_Sign1 (RFC 9052 section 4.2, tag 18, alg EdDSA, nothing else in the headers) by the binding key. Its
payload is deterministic CBOR:

    {"kind": "receipt", "version": 1, "chain": 16, "counter": u64, "previous": 0|32, "time": milliseconds since 1970,
     "method": text, "name": text, "request": 32, "result": 32, "item": 0|32, "manifest": 0|32|48|64, "transcript": 64}

`previous` is the SHA-256 of the whole receipt before it in its chain (empty for counter 0), so that a chain has one
order and no gap. A tree head is the same kind of message over all receipts of a chain so far:

    {"kind": "head", "version": 1, "chain": 16, "size": u64, "root": 64, "time": milliseconds, "transcript": 64}

`root` is `bind.tree` over the SHA-256 of each receipt. Digests are SHA-256 over framed labels and canonical JSON.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from attestable_mcp.bind import receipt_form
from attestable_mcp.bind.keys import SIG_STRUCTURE, SIGNATURE_SIZE, BindingKey
from attestable_mcp.bind.transcript import COMMITMENT_SIZES, DIGEST_SIZE, frame
from attestable_mcp.bind.tree import Frontier
from attestable_mcp.errors import MalformedEvidence, SignatureInvalid
from attestable_mcp.limits import LIMITS
from attestable_mcp.shares import Shared
from attestable_mcp.wire import cbor
from attestable_mcp.wire.jcs import canonical

VERSION: Final = 1
CHAIN_SIZE: Final = 16
HASH_SIZE: Final = 32
EDDSA: Final = -8
"""COSE algorithm of Ed25519 under its general name (RFC 9053 section 2.2)."""
_REQUEST: Final = frame(b"attestable-mcp/receipt/v1/request")
_RESULT: Final = frame(b"attestable-mcp/receipt/v1/result")
_PROTECTED: Final = cbor.encode(cbor.encode({1: EDDSA}))
_HEAD: Final = b"\xd2\x84" + _PROTECTED + b"\xa0"
"""Tag 18, an array of four, the protected header as byte string, an empty unprotected header."""
_SIGNATURE: Final = b"\x58\x40"
_TAIL: Final = 2 + SIGNATURE_SIZE
_SIGNED: Final = SIG_STRUCTURE + _PROTECTED + b"\x40"
"""The `Sig_structure` with empty external data, up to the payload."""
_U64: Final = 1 << 64
RECEIPT_KEY: Final = "dev.attestable-mcp/receipt"
"""Where a result's `_meta` carries its receipt (base64url without padding)."""
RECEIPTS_KEY: Final = "dev.attestable-mcp/receipts"
"""Where a request's `_meta` asks for one: {"chain": 32 hex digits, "held": receipts that the client has of it}.

The client's own name for the chain; what is signed has the server's."""


def request_digest(method: str, params: Mapping[str, Any]) -> bytes:
    """32 bytes over method and params; `_meta`, which transports write into, is left out. Raises: MalformedEvidence."""
    bare = {key: value for key, value in params.items() if key != "_meta"}
    return _digest(_REQUEST, {"method": method, "params": bare})


def result_digest(result: Mapping[str, Any]) -> bytes:
    """32 bytes over a result without its receipt; an empty `_meta` stands for none. Raises: MalformedEvidence."""
    meta = result.get("_meta")
    if "_meta" not in result or (meta and not (isinstance(meta, dict) and RECEIPT_KEY in meta)):
        return _digest(_RESULT, result)
    bare = {key: value for key, value in result.items() if key != "_meta"}
    if isinstance(meta, dict):
        kept = {key: value for key, value in meta.items() if key != RECEIPT_KEY}
        bare |= {"_meta": kept} if kept else {}
    elif meta is not None:
        bare["_meta"] = meta
    return _digest(_RESULT, bare)


def _digest(label: bytes, value: Any) -> bytes:
    text = canonical(value, parsed=True)
    return hashlib.sha256(label + len(text).to_bytes(4, "big") + text).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """One receipt's payload; see the head of this module. `time` is in milliseconds since 1970."""

    chain: bytes
    counter: int
    previous: bytes
    time: int
    method: str
    name: str
    request: bytes
    result: bytes
    item: bytes = b""
    manifest: bytes = b""
    transcript: bytes

    def payload(self) -> bytes:
        """Deterministic CBOR."""
        return receipt_form.write(
            chain=self.chain, counter=self.counter, previous=self.previous, time=self.time, method=self.method,
            name=self.name, request=self.request, result=self.result, item=self.item, manifest=self.manifest,
            transcript=self.transcript,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A signed tree head's payload."""

    chain: bytes
    size: int
    root: bytes
    time: int
    transcript: bytes

    def payload(self) -> bytes:
        """Deterministic CBOR."""
        values: dict[cbor.Key, cbor.Value] = {"kind": "head", "version": VERSION}
        return cbor.encode(values | {name: getattr(self, name) for name in _HEAD_FIELDS})


_HEAD_FIELDS: Final = ("chain", "size", "root", "time", "transcript")
_SIZES: Final[Mapping[str, frozenset[int]]] = {
    "chain": frozenset({CHAIN_SIZE}), "previous": frozenset({0, HASH_SIZE}), "request": frozenset({HASH_SIZE}),
    "result": frozenset({HASH_SIZE}), "item": frozenset({0, HASH_SIZE}), "manifest": COMMITMENT_SIZES,
    "transcript": frozenset({DIGEST_SIZE}), "root": frozenset({DIGEST_SIZE}),
}  # fmt: skip


def receipt_hash(message: bytes) -> bytes:
    """By which the next receipt names this one, and the leaf it is in a tree head: SHA-256 of the whole message."""
    return hashlib.sha256(message).digest()


def sign(statement: Receipt | Head, key: BindingKey) -> bytes:
    """The COSE_Sign1 message."""
    return _signed(statement.payload(), key)


def _signed(payload: bytes, key: BindingKey) -> bytes:
    wrapped = receipt_form.wrap(payload)
    return _HEAD + wrapped + _SIGNATURE + key.sign_receipt(_SIGNED + wrapped)


def read(message: bytes) -> Receipt | Head:
    """What a message says. Nothing is proven yet: `verify` does that.

    Raises:
        MalformedEvidence: any deviation from the format.
    """
    return _statement(_payload(message))


def _payload(message: bytes) -> bytes:
    """The payload as the byte string that it is in the message: the rest of an envelope has one form only."""
    if len(message) > LIMITS.receipt:
        raise _malformed(f"wanted at most {LIMITS.receipt} bytes, seen {len(message)}")
    if not message.startswith(_HEAD) or message[-_TAIL : -_TAIL + 2] != _SIGNATURE:
        raise _malformed("wanted a tagged COSE_Sign1 with EdDSA, no other header, and 64 bytes of signature")
    return message[len(_HEAD) : -_TAIL]


def _statement(payload: bytes) -> Receipt | Head:
    if (values := receipt_form.read(payload)) is not None:
        return Receipt(**values)
    fields = _map(payload)
    if not isinstance(fields, dict) or fields.get("version") != VERSION or isinstance(fields["version"], bool):
        raise _malformed(f"wanted version {VERSION}")
    match fields.get("kind"):
        case "receipt":
            return Receipt(**_fields(fields, receipt_form.KEYS))
        case "head":
            return Head(**_fields(fields, _HEAD_FIELDS))
    raise _malformed("wanted a receipt or a head")


def _map(payload: bytes) -> cbor.Value:
    try:
        inner = cbor.decode(payload, field="receipt")
        return cbor.decode(inner, field="receipt") if isinstance(inner, bytes) else None
    except MalformedEvidence as error:
        raise _malformed(error.message) from error


def _fields(fields: Mapping[Any, Any], names: tuple[str, ...]) -> dict[str, Any]:
    if set(fields) != {"kind", "version", *names}:
        raise _malformed("keys missing or not known")
    for name in names:
        value = fields[name]
        if name in _SIZES:
            good = isinstance(value, bytes) and len(value) in _SIZES[name]
        elif name in ("method", "name"):
            good = isinstance(value, str) and len(value) <= receipt_form.NAME_MAX
        else:
            good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _U64
        if not good:
            raise _malformed(f"{name} is of the wrong type or size")
    return {name: fields[name] for name in names}


def _malformed(message: str) -> MalformedEvidence:
    return MalformedEvidence(f"receipt: {message}", field="receipt", code="bad_receipt")


def verify(message: bytes, public: bytes | Ed25519PublicKey) -> Receipt | Head:
    """What the holder of the attested key signed.

    Raises:
        MalformedEvidence: no receipt. SignatureInvalid: another key's, or altered.
    """
    payload = _payload(message)
    statement = _statement(payload)
    _check(message, payload, public)
    return statement


def check_signature(message: bytes, public: bytes | Ed25519PublicKey) -> None:
    """The signature of a message that `read` has read already.

    Raises: as `verify`.
    """
    _check(message, _payload(message), public)


def _check(message: bytes, payload: bytes, public: bytes | Ed25519PublicKey) -> None:
    key = public if isinstance(public, Ed25519PublicKey) else Ed25519PublicKey.from_public_bytes(public)
    try:
        key.verify(message[2 - _TAIL :], _SIGNED + payload)
    except InvalidSignature as error:
        raise SignatureInvalid(
            "receipt: not signed by the key that the evidence vouches for, or altered since",
            code="receipt_signature",
            hint="do not rely on it: it proves nothing about this server",
        ) from error


# The server's side


class UnknownChain(Exception):
    """The client holds receipts of a chain that this server does not continue. Internal: told before the call runs."""


@dataclass(slots=True, kw_only=True)
class _Chain:
    """`name` is ours: what clients choose could have been begun before, and two histories under one name are a fork."""

    name: bytes
    previous: bytes = b""
    tree: Frontier = field(default_factory=Frontier)


class Ledger:
    """The chains of receipts that a server writes; bounded: of whoever has most, the one that rested longest goes.

    A chain belongs to whoever knows the random name by which it was asked for. What is signed has another, of the
    server's own choice: nobody can have two histories signed under one, and who reads receipts learns no way to ask for
    more. A chain that was given up is not continued: its owner says that it holds receipts, and is told to begin anew.
    """

    def __init__(
        self,
        key: BindingKey,
        *,
        most: int = LIMITS.receipt_chains,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        names: Callable[[], bytes] = lambda: os.urandom(CHAIN_SIZE),
    ) -> None:
        self._key = key
        self._clock = clock
        self._names = names
        self._chains: Shared[bytes, _Chain] = Shared(most)

    def begin(self, chain: bytes, held: int, holder: str = "") -> None:
        """A call of `holder` (who that is, in words) is about to run whose result shall go into this chain.

        Raises: UnknownChain.
        """
        if self._chains.get(chain) is None:
            if held:
                raise UnknownChain
            self._chains.put(chain, _Chain(name=self._names()), holder)

    def issue(
        self, chain: bytes, *, method: str, name: str, request: bytes, result: bytes, item: bytes, manifest: bytes,
        transcript: bytes,
    ) -> bytes:  # fmt: skip
        """The next receipt of a chain that was begun.

        Raises: UnknownChain: it was given up since.
        """
        found = self._chains.get(chain)
        if found is None:
            raise UnknownChain
        payload = receipt_form.write(
            chain=found.name, counter=found.tree.size, previous=found.previous, time=self._clock(), method=method,
            name=name[: receipt_form.NAME_MAX], request=request, result=result, item=item, manifest=manifest,
            transcript=transcript,
        )  # fmt: skip
        message = _signed(payload, self._key)
        found.previous = receipt_hash(message)
        found.tree.push(found.previous)
        return message

    def head(self, chain: bytes, transcript: bytes) -> bytes:
        """A signed tree head over all receipts of a chain.

        Raises: UnknownChain: there is none.
        """
        found = self._chains.get(chain)
        if found is None or not found.tree.size:
            raise UnknownChain
        size, root = found.tree.size, found.tree.root
        return sign(Head(chain=found.name, size=size, root=root, time=self._clock(), transcript=transcript), self._key)
