"""The file that `attestable-mcp bundle` writes: everything that one verdict rested on. The format is in docs/bundle.md.

`55799(["attestable-mcp bundle", 1, {...}])`, canonical CBOR (RFC 8949 §4.2.1): one content has exactly one form. Read
strictly: exactly these keys and types, nothing after them, every size capped. Nothing in a bundle is believed for
standing in it: it is replayed, and whoever made it chose its pieces, its policy and its time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from attestable_mcp.errors import MalformedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import EndorsementQuery, Endorsements, SignedDocument, Tee
from attestable_mcp.wire import cbor

NAME = "attestable-mcp bundle"
VERSION = 1
_TAG = 55799
MAGIC = cbor.encode(cbor.Tagged(_TAG, [NAME, VERSION, 0]))[:-1]
"""How every bundle of this version begins."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = 253402300800 * 1_000_000
"""The year 10000, in microseconds."""
_EXPORTED = 32
"""Bytes of keying material (`bind.transcript.EXPORTER_SIZE`)."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPolicy:
    """The policy as it was given: TOML text (empty for --genuine-only) and what the command line added."""

    name: str
    toml: str = ""
    accept_statuses: tuple[str, ...] = ()
    accept_products: tuple[str, ...] = ()
    simulated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredAnchor:
    """A trust anchor with its vendor (`intel`, `amd`, ...); the rest as in `verify.anchors`."""

    vendor: str
    name: str
    spki_sha256: str
    simulated: bool
    replaced: bool
    certificate: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredIssuer:
    """An issuer of tokens as `verify.anchors.TokenTrust` knows it: its keys as they were, never an address.

    `keys` are rows (SubjectPublicKeyInfo, kid, algorithm, curve), `roots` rows (name, SHA-256 of the key, and the
    certificate or nothing).
    """

    profile: str
    issuer: str
    keys: tuple[tuple[bytes, str, str, str], ...] = ()
    roots: tuple[tuple[str, str, bytes], ...] = ()
    audiences: tuple[str, ...] = ()
    nonce: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSubject:
    """What was judged came from a file: its bytes as they were."""

    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSubject:
    """What was judged was a connection: certificate (DER), challenge, answer (CBOR) and exported keying material.

    The last three are empty where the server was refused before it was challenged, or asked for no live proof.
    """

    url: str
    certificate: bytes
    challenge: bytes = b""
    answer: bytes = b""
    exporter: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What a source said in place of collateral."""

    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceAnswer:
    """What one source answered to one question."""

    source: str
    query: EndorsementQuery
    answer: Endorsements | Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Everything that one verdict rested on. `made_at` (UTC, to the microsecond) is the maker's word.

    `sources` are the names of all sources in their order, `files` what the policy names beside itself and `provenance`
    what speaks of the code's origin, both as (name, bytes). `result` is the verdict's JSON, for comparison only.
    """

    made_at: datetime
    source: str
    subject: FileSubject | LiveSubject
    policy: StoredPolicy
    anchors: tuple[StoredAnchor, ...]
    issuers: tuple[StoredIssuer, ...] = ()
    sources: tuple[str, ...] = ()
    answers: tuple[SourceAnswer, ...] = ()
    files: tuple[tuple[str, bytes], ...] = ()
    provenance: tuple[tuple[str, bytes], ...] = ()
    result: bytes = b""

    def encode(self) -> bytes:
        """The one canonical form. Raises: ValueError where it would be larger than `LIMITS.bundle`."""
        body: dict[cbor.Key, cbor.Value] = {
            "made_at": (self.made_at - _EPOCH) // timedelta(microseconds=1),
            "source": self.source,
            "subject": _subject(self.subject),
            "policy": {
                "name": self.policy.name,
                "toml": self.policy.toml,
                "accept_statuses": list(self.policy.accept_statuses),
                "accept_products": list(self.policy.accept_products),
                "simulated": self.policy.simulated,
            },
            "anchors": [
                [a.vendor, a.name, a.spki_sha256, a.simulated, a.replaced, a.certificate] for a in self.anchors
            ],
            "issuers": [_issuer(item) for item in self.issuers],
            "sources": list(self.sources),
            "answers": [_answer(item) for item in self.answers],
            "files": [[name, data] for name, data in self.files],
            "provenance": [[name, data] for name, data in self.provenance],
            "result": self.result,
        }
        data = cbor.encode(cbor.Tagged(_TAG, [NAME, VERSION, body]))
        if len(data) > LIMITS.bundle:
            raise ValueError(f"a bundle of {len(data)} bytes, at most {LIMITS.bundle} are read")
        return data


def is_bundle(data: bytes) -> bool:
    """Do these bytes begin as a bundle of any version does?"""
    return data.startswith(MAGIC[:-1])


def read_bundle(data: bytes) -> Bundle:
    """Read a bundle. Raises: MalformedEvidence for anything but the one canonical form of one content."""
    if len(data) > LIMITS.bundle:
        raise MalformedEvidence(f"bundle: wanted at most {LIMITS.bundle} bytes, seen {len(data)}", field="bundle")
    if is_bundle(data) and not data.startswith(MAGIC):
        raise MalformedEvidence(
            f"bundle: wanted version {VERSION}, seen another", field="version", code="unsupported_bundle",
            hint="Read it with the version of attestable-mcp that wrote it, or a later one.",
        )  # fmt: skip
    if not data.startswith(MAGIC):
        raise MalformedEvidence("bundle: these bytes are none", field="bundle", offset=0)
    value = cbor.decode(data, field="bundle", most=LIMITS.bundle)
    if cbor.encode(value) != data:
        raise MalformedEvidence("bundle: wanted its canonical form", field="bundle")
    assert isinstance(value, cbor.Tagged)
    assert isinstance(value.value, list)
    if len(value.value) != 3:
        raise MalformedEvidence("bundle: wanted name, version and content", field="bundle")
    return _Fields(value.value[2], "bundle").bundle()


def _subject(subject: FileSubject | LiveSubject) -> dict[cbor.Key, cbor.Value]:
    if isinstance(subject, FileSubject):
        return {"data": subject.data}
    return {
        "url": subject.url,
        "certificate": subject.certificate,
        "challenge": subject.challenge,
        "answer": subject.answer,
        "exporter": subject.exporter,
    }


def _issuer(item: StoredIssuer) -> dict[cbor.Key, cbor.Value]:
    return {
        "profile": item.profile,
        "issuer": item.issuer,
        "keys": [[*row] for row in item.keys],
        "roots": [[*row] for row in item.roots],
        "audiences": [*item.audiences],
        "nonce": item.nonce,
    }


def _answer(item: SourceAnswer) -> dict[cbor.Key, cbor.Value]:
    parameters: dict[cbor.Key, cbor.Value] = {str(name): value for name, value in item.query.parameters.items()}
    found: dict[cbor.Key, cbor.Value] = {"source": item.source, "tee": str(item.query.tee), "parameters": parameters}
    if isinstance(item.answer, Refusal):
        return found | {"refusal": [item.answer.code, item.answer.message, item.answer.hint]}
    bag = item.answer
    return found | {
        "endorsements": {
            "certificates": list(bag.certificates),
            "crls": list(bag.crls),
            "documents": [[str(d.kind), d.body, d.signature, list(d.issuer_chain)] for d in bag.documents],
            "sources": list(bag.sources),
        }
    }


class _Fields:
    """A CBOR map of which every key is taken once, with its type; what is left over or missing is a fault."""

    def __init__(self, value: object, where: str) -> None:
        if not isinstance(value, dict):
            raise MalformedEvidence(f"bundle: {where}: wanted a map", field=where)
        self.left = dict(value)
        self.where = where

    def fail(self, key: str, what: str) -> MalformedEvidence:
        return MalformedEvidence(f"bundle: {self.where}.{key}: {what}", field=f"{self.where}.{key}")

    def take(self, key: str, kind: type[_T]) -> _T:
        value = self.left.pop(key, None)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise self.fail(key, f"wanted {kind.__name__}, seen {type(value).__name__}")
        return value

    def each(self, key: str, read: Callable[[object], _T]) -> tuple[_T, ...]:
        return tuple(read(item) for item in self.take(key, list))

    def texts(self, key: str) -> tuple[str, ...]:
        return self.each(key, lambda item: self.only(key, item, str))

    def blobs(self, key: str) -> tuple[bytes, ...]:
        return self.each(key, lambda item: self.only(key, item, bytes))

    def only(self, key: str, item: object, kind: type[_T]) -> _T:
        if not isinstance(item, kind) or (isinstance(item, bool) and kind is not bool):
            raise self.fail(key, f"wanted {kind.__name__}, seen {type(item).__name__}")
        return item

    def row(self, key: str, item: object, *kinds: type) -> list[object]:
        if not isinstance(item, list) or [type(part) for part in item] != list(kinds):
            raise self.fail(key, f"wanted rows of {', '.join(kind.__name__ for kind in kinds)}")
        return item

    def finish(self, value: _T) -> _T:
        if self.left:
            raise MalformedEvidence(
                f"bundle: {self.where}: unknown keys {', '.join(sorted(map(str, self.left)))[:80]}", field=self.where
            )
        return value

    def bundle(self) -> Bundle:
        found = Bundle(
            made_at=self.moment("made_at"),
            source=self.take("source", str),
            subject=_read_subject(_Fields(self.take("subject", dict), "subject")),
            policy=_Fields(self.take("policy", dict), "policy").policy(),
            anchors=self.each("anchors", self.anchor),
            issuers=self.each("issuers", lambda item: _Fields(item, "issuers").issuer()),
            sources=self.texts("sources"),
            answers=self.each("answers", lambda item: _Fields(item, "answers").answer()),
            files=self.named("files"),
            provenance=self.named("provenance"),
            result=self.take("result", bytes),
        )
        return self.finish(found)

    def moment(self, key: str) -> datetime:
        number = self.take(key, int)
        if not 0 <= number < _LAST:
            raise self.fail(key, "wanted microseconds since 1970")
        return _EPOCH + timedelta(microseconds=number)

    def named(self, key: str) -> tuple[tuple[str, bytes], ...]:
        def pair(item: object) -> tuple[str, bytes]:
            name, data = self.row(key, item, str, bytes)
            assert isinstance(name, str)
            assert isinstance(data, bytes)
            return name, data

        return self.each(key, pair)

    def policy(self) -> StoredPolicy:
        found = StoredPolicy(
            name=self.take("name", str),
            toml=self.take("toml", str),
            accept_statuses=self.texts("accept_statuses"),
            accept_products=self.texts("accept_products"),
            simulated=self.take("simulated", bool),
        )
        return self.finish(found)

    def anchor(self, item: object) -> StoredAnchor:
        vendor, name, digest, simulated, replaced, root = self.row("anchors", item, str, str, str, bool, bool, bytes)
        return StoredAnchor(
            vendor=str(vendor), name=str(name), spki_sha256=str(digest), simulated=bool(simulated),
            replaced=bool(replaced), certificate=root if isinstance(root, bytes) else b"",
        )  # fmt: skip

    def issuer(self) -> StoredIssuer:
        def key(item: object) -> tuple[bytes, str, str, str]:
            spki, kid, algorithm, curve = self.row("keys", item, bytes, str, str, str)
            assert isinstance(spki, bytes)
            return spki, str(kid), str(algorithm), str(curve)

        def root(item: object) -> tuple[str, str, bytes]:
            name, digest, certificate = self.row("roots", item, str, str, bytes)
            assert isinstance(certificate, bytes)
            return str(name), str(digest), certificate

        found = StoredIssuer(
            profile=self.take("profile", str), issuer=self.take("issuer", str), keys=self.each("keys", key),
            roots=self.each("roots", root), audiences=self.texts("audiences"), nonce=self.take("nonce", str),
        )  # fmt: skip
        return self.finish(found)

    def answer(self) -> SourceAnswer:
        source, tee = self.take("source", str), self.take("tee", str)
        if tee not in tuple(Tee):
            raise self.fail("tee", f"unknown kind {tee[:40]!r}")
        parameters = self.take("parameters", dict)
        if not all(isinstance(key, str) and isinstance(value, str) for key, value in parameters.items()):
            raise self.fail("parameters", "wanted text")
        query = EndorsementQuery(tee=Tee(tee), parameters=parameters)
        if "refusal" in self.left:
            code, message, hint = self.row("refusal", self.take("refusal", list), str, str, str)
            refusal = Refusal(code=str(code), message=str(message), hint=str(hint))
            return self.finish(SourceAnswer(source=source, query=query, answer=refusal))
        bag = _Fields(self.take("endorsements", dict), "endorsements").endorsements()
        return self.finish(SourceAnswer(source=source, query=query, answer=bag))

    def endorsements(self) -> Endorsements:
        found = Endorsements(
            certificates=self.blobs("certificates"),
            crls=self.blobs("crls"),
            documents=self.each("documents", self.document),
            sources=self.texts("sources"),
        )
        return self.finish(found)

    def document(self, item: object) -> SignedDocument:
        kind, body, signature, chain = self.row("documents", item, str, bytes, bytes, list)
        assert isinstance(body, bytes)
        assert isinstance(signature, bytes)
        assert isinstance(chain, list)
        issuers = tuple(self.only("documents", der, bytes) for der in chain)
        return SignedDocument(kind=str(kind), body=body, signature=signature, issuer_chain=issuers)


def _read_subject(fields: _Fields) -> FileSubject | LiveSubject:
    if "data" in fields.left:
        return fields.finish(FileSubject(data=fields.take("data", bytes)))
    found = LiveSubject(
        url=fields.take("url", str),
        certificate=fields.take("certificate", bytes),
        challenge=fields.take("challenge", bytes),
        answer=fields.take("answer", bytes),
        exporter=fields.take("exporter", bytes),
    )
    if len(found.exporter) != (_EXPORTED if found.answer else 0):
        raise fields.fail("exporter", f"wanted {_EXPORTED} bytes beside an answer, and none without")
    return fields.finish(found)


def recorded_verdict(bundle: Bundle) -> str:
    """The verdict that its maker recorded; empty where the bundle holds no readable one."""
    found = recorded_result(bundle).get("verdict")
    return found if isinstance(found, str) else ""


def recorded_result(bundle: Bundle) -> dict[str, object]:
    """The result that its maker recorded, in its JSON shape; empty where the bundle holds no readable one."""
    try:
        found = json.loads(bundle.result)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
