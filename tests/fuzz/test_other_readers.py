"""One harness a reader of everything else: our own protocol, files, lists, policies and event streams.

Edits are of bytes, and of the values that JSON and CBOR hold: strange numbers, other types, keys gone or renamed.
"""

from __future__ import annotations

import copy
import inspect
import json
import pkgutil
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import attestable_mcp.wire
from attestable_mcp.appraise.reading import read_policy
from attestable_mcp.appraise.server_policy import read_server_policy
from attestable_mcp.bind import deployment, receipt
from attestable_mcp.bind.keys import BindingKey
from attestable_mcp.bind.live import Answer, Challenge, Commitments, KeyProof
from attestable_mcp.endorse.files import read_piece
from attestable_mcp.errors import AttestationError, MalformedEvidence
from attestable_mcp.mcp import manifest, rpc, signed
from attestable_mcp.mcp.bridge_sse import EventReader
from attestable_mcp.mcp.receipt_file import FORMAT, read_export
from attestable_mcp.mcp.rewrite import EventRewriter
from attestable_mcp.rats import Evidence, EvidenceKind
from attestable_mcp.simulator import amd, aws, azure, intel, tpm
from attestable_mcp.tls.clients import Said
from attestable_mcp.tls.pins import read_pin, to_json
from attestable_mcp.wire import base64url, bundle, cbor, collateral, cose, grant, hcl, msgpack, platforms, snp
from attestable_mcp.wire import intel as quotes
from attestable_mcp.wire import tpm as tpm_wire

ROUNDS = 250
NOW = datetime(2026, 11, 21, tzinfo=UTC)
OWNER, BINDING = Ed25519PrivateKey.generate(), BindingKey()
INTERESTING = bytes(
    (0x00, 0x01, 0x0A, 0x0D, 0x1B, 0x22, 0x2E, 0x30, 0x5B, 0x7B, 0x7F, 0x80, 0x9F, 0xBF, 0xD9, 0xFB, 0xFF)
)
STRANGE: tuple[Any, ...] = (
    None, True, 0, -1, 1 << 70, -(1 << 70), (1 << 64) - 1, 253402300800, "", "\x1b[2J", "a" * 3000, "٣", "1_0", "..",
    "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", [], {}, [[]], {"": 0}, [None] * 3,
)  # fmt: skip
ONLY_JSON = (float("inf"), float("nan"), -0.0, 1e-7, "\ud800")
ONLY_CBOR = (b"", bytes(32), b"\xff" * 64)
TOML = (
    "'x'",
    "1",
    "-1",
    "1e999",
    "inf",
    "nan",
    "true",
    "[]",
    "[1]",
    "{}",
    "1979-05-27",
    "'9999999999999999d'",
    "'0s'",
    "'٣d'",
)


def statement(content_type: str) -> Callable[[bytes], grant.Signed]:
    return lambda data: grant.Signed(
        algorithm=grant.EDDSA, content_type=content_type, payload=data, signature=bytes(64)
    )  # fmt: skip


def the_grant() -> grant.Grant:
    return grant.Grant(
        owner=deployment.spki_of(OWNER), name="prod", hosts=("a", "b"), key=bytes([7]) * 32, serial=7, not_before=NOW,
        not_after=NOW + timedelta(days=1),
    )  # fmt: skip


def the_receipt() -> receipt.Receipt:
    return receipt.Receipt(
        chain=bytes(16), counter=3, previous=bytes(32), time=1_790_000_000_000, method="tools/call", name="pay",
        request=bytes(32), result=bytes(32), transcript=bytes(receipt.DIGEST_SIZE),
    )  # fmt: skip


def pin_of() -> dict[str, Any]:
    """A pin file's content, by its own writer's shape."""
    words = {"origin": "https://a.example", "tee": "tdx", "deployment": "", "release_identity": ""}
    digests = dict.fromkeys(("anchor", "owner", "deployment_key", "manifest", "configuration"), "ab" * 32)
    times = dict.fromkeys(("first_use", "accepted"), "2026-01-01T00:00:00Z")
    return {"version": 1, "simulated": False, "code": {"mr_td": "00" * 48}, **words, **digests, **times}


def verified_receipt(data: bytes) -> None:
    assert receipt.verify(data, BINDING.public) == the_receipt()


def opened_grant(data: bytes) -> None:
    assert deployment.open_grant(data) == the_grant()


def in_file(read: Callable[[Path], object], folder: Path) -> Callable[[bytes], object]:
    path = folder / "file"

    def write_and_read(data: bytes) -> object:
        path.write_bytes(data)
        path.chmod(0o600)
        return read(path)

    return write_and_read


def exported(path: Path) -> None:
    for chain in read_export(path):
        list(chain.receipts())
        list(chain.heads())


def in_pieces(data: bytes) -> list[bytes]:
    return [data[at : at + 7] for at in range(0, len(data), 7)]


def events(data: bytes) -> None:
    reader = EventReader(cap=400)
    for piece in in_pieces(data):
        list(reader.feed(piece))


def rewritten(data: bytes) -> None:
    async def look(message: rpc.Message) -> rpc.Message | None:
        return message if "id" in message else None

    async def run() -> None:
        for strict in (False, True):
            rewriter = EventRewriter(look, strict=strict, cap=400)
            for piece in in_pieces(data):
                await rewriter.feed(piece)
            rewriter.finish()

    with pytest.raises(StopIteration):
        run().send(None)  # it never waits


def toml(read: Callable[[str, str], object]) -> Callable[[bytes], object]:
    return lambda data: read(data.decode("utf-8", "replace"), "policy.toml")


def encoded(data: bytes) -> None:
    with suppress(ValueError):  # it says so: its callers name the field
        base64url.decode(data)


def collateral_read(data: bytes) -> None:
    for document in collateral.read_collateral_json(data).documents:
        (collateral.read_qe_identity if b"isvprodid" in document.body else collateral.read_tcb_info)(document.body)


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Callable[[bytes], object], bytes]]:
    """By name: the reader, and good bytes. Bytes that begin as JSON, CBOR or TOML are edited as such as well."""
    folder = tmp_path_factory.mktemp("fuzz")
    vendor = intel.well_known()
    listed = manifest.of_lists({"tools": [{"name": "a", "inputSchema": {"type": "object", "x": 1.5}}]})
    offer = signed.sign(listed, OWNER, issued=NOW, expires=NOW + timedelta(days=1))
    proof = KeyProof(signature=bytes(64))
    answer = Answer(counter=0, binding_key=BINDING.public, commitments=Commitments(), proof=proof)
    given = the_grant()
    revocation = grant.Revocation(
        owner=given.owner, name="prod", number=2, issued_at=NOW, serials=(3, 4), keys=(bytes([1]) * 32,)
    )
    machines = platforms.Platforms(
        signer=given.owner, name="ours", issued=NOW, expires=NOW + timedelta(days=3),
        ids={kind: (b"\x01" * size,) for kind, size in platforms.ID_SIZES.items()},
    )  # fmt: skip
    request = grant.GrantRequest(key=bytes(44), evidence=Evidence(kind=EvidenceKind.SNP_REPORT, body=bytes(50)))
    saved = bundle.Bundle(
        made_at=NOW, source="quote.bin", subject=bundle.FileSubject(data=b"\x04\x00quote"),
        policy=bundle.StoredPolicy(name="p.toml", toml="[policy]\n"), anchors=(), result=b"{}",
    )  # fmt: skip
    chain = {"chain": "00" * 16, "origin": "https://a", "begun": 1, "key": "00" * 32, "verdict": {}, "bundle": None}
    lines = [{"format": FORMAT}, chain, {"receipt": "AAAA"}, {"head": "AAAA"}]
    message = b'{"jsonrpc":"2.0","id":1,"result":{"tools":[]}}'
    stream = b"\xef\xbb\xbf: c\r\nid: 7\ndata: " + message + b"\n\nretry: 9\r\rdata:\ndata: {}\r\n\r\n"
    hardware = azure.well_known().evidence(bytes(64))
    report = amd.well_known().report(bytes(64), bytes(48))
    quoted = tpm_wire.read_evidence(tpm.well_known().evidence(bytes(64)))
    documents = vendor.collateral(at=NOW).documents
    image = f"mrenclave = '{'01' * 32}'\n"
    clients = f"clients = 'required'\n[[policy.accept]]\nname = 'b'\n{image}"
    clients += "[[tool]]\nname = 'pay'\n[[tool.allow]]\nclient = 'b'\n"
    rules = f"[trust]\nmax_certificate_age = '24h'\n[policy]\n{image}"
    return {
        "challenge": (Challenge.decode, Challenge().encode()),
        "answer": (Answer.decode, answer.encode()),
        "said": (Said.decode, Said(served=True, verdict="verified").encode()),
        "receipt": (verified_receipt, receipt.sign(the_receipt(), BINDING)),
        "grant": (opened_grant, deployment.sign_grant(OWNER, given)),
        "grant payload": (lambda data: grant.read_grant(statement(grant.GRANT_TYPE)(data)), given.payload()),
        "revocation": (
            lambda data: grant.read_revocation(statement(grant.REVOCATION_TYPE)(data)),
            revocation.payload(),
        ),
        "platforms": (lambda data: platforms.read_platforms(statement("x")(data)), machines.payload()),
        "request": (grant.read_request, request.encode()),
        "bundle": (bundle.read_bundle, saved.encode()),
        "export": (in_file(exported, folder), b"\n".join(json.dumps(line).encode() for line in lines)),
        "manifest": (manifest.read_document, json.dumps(listed.to_json()).encode()),
        "signed manifest": (signed.read, json.dumps(offer.to_json()).encode()),
        "pin": (in_file(lambda path: to_json(read_pin(path)), folder), json.dumps(pin_of()).encode()),
        "piece": (read_piece, json.dumps(vendor.collateral_json(at=NOW)).encode()),
        "collateral": (collateral_read, json.dumps(vendor.collateral_json(at=NOW)).encode()),
        "tcb info": (collateral.read_component_names, documents[0].body),
        "quote": (quotes.read_quote, vendor.quote_tdx(bytes(64))),
        "snp": (snp.read_report, report),
        "hcl": (hcl.read_hcl, hcl.read_evidence(hardware).hcl),
        "azure": (hcl.read_evidence, hardware),
        "tpm quote": (tpm_wire.read_quote, quoted.quote),
        "tpm signature": (tpm_wire.read_signature, quoted.signature),
        "cose": (cose.read_sign1, aws.well_known().document(bytes(64), at=NOW)),
        "lenient": (lambda data: cose.read_lenient(data, "x"), given.payload()),
        "prefix": (cbor.decode_prefix, given.payload()),
        "msgpack": (lambda data: msgpack.decode(data, field="x"), b"\x82\xa1a\x93\x01\x02\xc0\xa1b\xc4\x02ab"),
        "base64url": (encoded, b"AAECAwQFBgcICQ"),
        "policy": (toml(read_policy), rules.encode()),
        "server policy": (toml(read_server_policy), clients.encode()),
        "message": (rpc.parse, message),
        "events": (events, stream),
        "rewriter": (rewritten, stream),
    }


NAMES = (
    "challenge", "answer", "said", "receipt", "grant", "grant payload", "revocation", "platforms", "request", "bundle",
    "export", "manifest", "signed manifest", "pin", "piece", "collateral", "tcb info", "quote", "snp", "hcl", "azure",
    "tpm quote", "tpm signature", "cose", "lenient", "prefix", "msgpack", "base64url", "policy", "server policy",
    "message", "events", "rewriter",
)  # fmt: skip


def bytes_edited(data: bytes, chance: random.Random) -> bytes:
    for _ in range(chance.choice((1, 1, 2, 5))):
        at, size = chance.randrange(len(data) or 1), chance.choice((0, 1, 1, 2, 8))
        insert = bytes(chance.choice(INTERESTING) for _ in range(chance.choice((0, 1, 1, 2, 6))))
        data = data[:at] + insert + data[at + size :]
    return data


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container with a key or index in it."""
    if isinstance(value, cbor.Tagged):
        return places(value.value)
    inner = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    return [(value, key) for key, _ in inner] + [place for _, item in inner for place in places(item)]


def value_edited(value: Any, chance: random.Random, strange: tuple[Any, ...]) -> Any:
    value = copy.deepcopy(value)
    for _ in range(chance.choice((1, 1, 2))):
        if not (found := places(value)):
            break
        container, key = chance.choice(found)
        act = chance.random()
        if act < 0.6:
            container[key] = copy.deepcopy(chance.choice(strange))
        elif act < 0.8 or isinstance(container, list):
            del container[key]
        else:
            container[chance.choice(("x", "", "version"))] = container.pop(key)
    return value


def edited(data: bytes, chance: random.Random) -> bytes:
    """Bytes, JSON (each line of it), CBOR or TOML changed somewhere."""
    if chance.random() < 0.4:
        return bytes_edited(data, chance)
    if data.startswith(b"{"):
        lines = [json.loads(line) for line in data.split(b"\n")]
        at = chance.randrange(len(lines))
        lines[at] = value_edited(lines[at], chance, STRANGE + ONLY_JSON)
        return b"\n".join(json.dumps(line).encode() for line in lines)
    if b" = '" in data:
        rows = data.decode().split("\n")
        at = chance.randrange(len(rows) - 1)
        rows[at] = f"{rows[at].split(' = ')[0]} = {chance.choice(TOML)}" if chance.random() < 0.8 else ""
        return "\n".join(rows).encode()
    try:
        return cbor.encode(value_edited(cbor.decode(data), chance, STRANGE + ONLY_CBOR))
    except (AttestationError, ValueError, TypeError, OverflowError):  # no CBOR, or no way to write the edit
        return bytes_edited(data, chance)


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_answers_or_refuses(name: str, readers: dict[str, tuple[Callable[[bytes], object], bytes]]) -> None:
    chance, (read, good) = random.Random(name), readers[name]
    read(good)
    for _ in range(ROUNDS):
        data = edited(good, chance)
        for candidate in (data, chance.randbytes(chance.randrange(1, 60))):
            if candidate != good:
                try:
                    read(candidate)
                except AttestationError:
                    continue
                assert name not in ("receipt", "grant"), "signed bytes were changed, and it was accepted"


def test_an_endless_number_ends_no_reader_of_exports(
    readers: dict[str, tuple[Callable[[bytes], object], bytes]],
) -> None:
    """Found here with another seed: `int` has its own error for it."""
    read, good = readers["export"]
    with pytest.raises(MalformedEvidence):
        read(good.replace(b'"begun": 1', b'"begun": 1e999'))


def test_every_harness_is_run(readers: dict[str, tuple[Callable[[bytes], object], bytes]]) -> None:
    assert set(readers) == set(NAMES)


THROUGH = {
    "read_certificate_table", "read_pck_extension", "read_pem_chain", "read_short_certificate", "read_short_chain",
    "read_short_crl_head", "read_tcb", "read_blocks", "read_crl", "read_json", "read_signed_document", "read_signed"
}  # fmt: skip
"""Parts that the readers named above go through."""


def test_every_reader_of_the_wire_has_a_harness() -> None:
    """Its name stands in this folder: a new one needs a harness."""
    said = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    names = [f"attestable_mcp.wire.{item.name}" for item in pkgutil.iter_modules(attestable_mcp.wire.__path__)]
    found = [(name, function) for name in names for function in vars(import_module(name)).values()]
    readers = {
        function.__name__
        for module, function in found
        if inspect.isfunction(function)
        and function.__module__ == module
        and function.__name__.startswith(("read", "decode"))
        and next(iter(inspect.signature(function).parameters.values())).annotation in ("bytes", "bytes | str")
    }
    assert len(readers) > 30
    assert sorted(name for name in readers if name not in said) == []
