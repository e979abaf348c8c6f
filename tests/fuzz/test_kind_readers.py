"""One harness a reader of the other kinds: random edits of good evidence end in EvidenceError or parse."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from dstack_double import in_msgpack, in_scale

from attestable_mcp.errors import EvidenceError
from attestable_mcp.rats import Endorsements, Evidence, SignedDocument
from attestable_mcp.simulator import amd, aws, azure, tpm
from attestable_mcp.simulator.tpm import Event, TpmQuote
from attestable_mcp.verify import table
from attestable_mcp.wire import bag, cmw, detached, dstack, eventlog, token
from attestable_mcp.wire.kinds import KINDS, kind_of, report_data

ROUNDS = 400
INTERESTING = bytes((0x00, 0x01, 0x1F, 0x22, 0x2E, 0x30, 0x5B, 0x7B, 0x7F, 0x80, 0x9F, 0xBF, 0xD9, 0xFF))
AT = datetime(2026, 11, 1, tzinfo=UTC)


def _everything(data: bytes) -> None:
    """Recognised by content, then read for its query, its description and its report data."""
    if (kind := kind_of(data)) is not None:
        evidence = Evidence(kind=kind, body=data)
        report_data(evidence)
        table.query(evidence)
        table.describe(evidence)


def _token(data: bytes) -> None:
    token.report_data(token.read_token(data).flat)


def _log(data: bytes) -> None:
    log = eventlog.read_log(data)
    eventlog.content_faults(log)
    for bank in log.banks:
        eventlog.replay_pcrs(log, bank)


READERS: dict[str, Callable[[bytes], object]] = {
    "kinds": _everything,
    "cmw": cmw.read_extension,
    "bag": bag.read_bag,
    "token": _token,
    "bundle": lambda data: detached.read_tokens(data).flat,
    "key set": token.read_key_set,
    "event log": _log,
    "dstack log": eventlog.read_dstack_log,
    "dstack attestation": dstack.read_attestation,
}


@pytest.fixture(scope="module")
def seeds() -> dict[str, list[bytes]]:
    record = cmw.Record(type="application/eat+jwt", value=b"x" * 40, ind=4)
    quote = TpmQuote(events=(Event(pcr=7, data=b"a"), Event(pcr=4, data=b"b")))
    evidence = [
        amd.well_known().report(bytes(64), bytes(48)), aws.well_known().document(bytes(64), at=AT),
        tpm.well_known().evidence(bytes(64), options=quote), azure.well_known().evidence(bytes(64)), JWT,
    ]  # fmt: skip
    assert {kind_of(body) for body in evidence} | {next(iter(KINDS))} == set(KINDS)
    document = SignedDocument(kind="event-log", body=b"[]", signature=b"", issuer_chain=(b"c",))
    entries = [
        {"imr": 0, "digest": "00" * 48},
        {"imr": 3, "digest": "", "event": "a", "event_payload": "00", "event_type": 1},
    ]
    return {
        "kinds": evidence,
        "cmw": [cmw.write_extension({"a": record}), cmw.write_extension({"a": record, "b": record})],
        "bag": [bag.write_bag(Endorsements(certificates=(b"c",), crls=(b"r",), documents=(document,)))],
        "token": [JWT],
        "bundle": [b'[["JWT", "' + JWT + b'"], {"GPU-0": "' + JWT + b'"}]'],
        "key set": [json.dumps({"keys": [EC_KEY, {"kty": "RSA", "n": "sXch", "e": "AQAB"}]}).encode()],
        "event log": [tpm.well_known().event_log(quote)],
        "dstack log": [json.dumps(entries).encode()],
        "dstack attestation": [
            write(name, b"evidence", (eventlog.DstackEvent(name="app-id", payload=b"a"),), (b"\x30\x00",))
            for write in (in_scale, in_msgpack)
            for name in ("tdx", "gcp-tdx", "sev-snp")
        ],
    }


JWT = b"eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.eyJpc3MiOiJ4IiwiYSI6eyJiIjpbMSx0cnVlLG51bGxdfX0.AAECAwQFBgcICQoLDA0ODw"
EC_KEY = {"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
          "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0", "kid": "a"}  # fmt: skip


def _edit(data: bytes, chance: random.Random) -> bytes:
    at, size = chance.randrange(len(data)), chance.choice((0, 1, 1, 2, 8))
    insert = bytes(chance.choice(INTERESTING) for _ in range(chance.choice((0, 1, 1, 2, 6))))
    return data[:at] + insert + data[at + size :] or b"\0"


@pytest.mark.parametrize("name", READERS)
def test_a_reader_answers_or_refuses(name: str, seeds: dict[str, list[bytes]]) -> None:
    chance, read, refused = random.Random(name), READERS[name], 0
    for good in seeds[name]:
        read(good)
    for _ in range(ROUNDS):
        data = chance.choice(seeds[name])
        for _ in range(chance.choice((1, 1, 2, 5))):
            data = _edit(data, chance)
        for candidate in (data, chance.randbytes(chance.randrange(1, 60))):
            try:
                read(candidate)
            except EvidenceError:
                refused += 1
    assert refused > ROUNDS // 4
