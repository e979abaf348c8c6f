"""What event logs prove of a trust domain's registers, and what nobody can make them say (attack P8)."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace

import pytest

from attestable_mcp.errors import MalformedEvidence, UnsupportedEvidence, VerificationError
from attestable_mcp.rats import DocumentKind, Endorsements, SignedDocument
from attestable_mcp.verify.tdlog import explain
from attestable_mcp.verify.trail import Trail
from attestable_mcp.wire.bootlog import boot_applications, secure_boot
from attestable_mcp.wire.eventlog import SEPARATOR, VARIABLE_DRIVER_CONFIG, DstackEvent, EventLog, read_log

COMPOSE = bytes(range(32))
APPLICATION, ACTION = 0x80000003, 0x80000007


def entry(event: DstackEvent, digest: str | None = None) -> dict[str, object]:
    shown = event.digest.hex() if digest is None else digest
    return {
        "imr": 3, "event_type": event.type, "digest": shown, "event": event.name, "event_payload": event.payload.hex(),
    }  # fmt: skip


BOOT = [
    DstackEvent(name="app-id", payload=b"\x0a" * 20),
    DstackEvent(name="compose-hash", payload=COMPOSE),
    DstackEvent(name="instance-id", payload=b"\x0b" * 20),
    DstackEvent(name="system-ready", payload=b""),
]


def extended(*digests: bytes) -> bytes:
    value = bytes(48)
    for digest in digests:
        value = hashlib.sha384(value + digest).digest()
    return value


def bag(*logs: bytes) -> Endorsements:
    kind = DocumentKind.EVENT_LOG
    return Endorsements(
        documents=tuple(SignedDocument(kind=kind, body=log, signature=b"", issuer_chain=()) for log in logs)
    )


def registers(**values: bytes) -> dict[int, bytes]:
    return {number: values.get(f"rtmr{number}", bytes(48)) for number in range(4)}


def test_dstacks_log_proves_the_compose_hash() -> None:
    log = json.dumps([entry(event) for event in BOOT]).encode()
    values, left = explain(registers(rtmr3=extended(*(e.digest for e in BOOT))), bag(log), Trail())
    assert values == {
        "compose_hash": COMPOSE.hex(), "app_id": "0a" * 20, "instance_id": "0b" * 20, "event_log_explains": "all",
    }  # fmt: skip
    assert left == ()


def test_dstacks_events_of_version_2_are_measured_as_canonical_json() -> None:
    """dstack, cc-eventlog: the digest is over {"name", "payload", "type"} (RFC 8785); its test has the same text."""
    event = DstackEvent(name="compose-hash", payload=b"\xab\xcd", version=2)
    text = b'{"name":"compose-hash","payload":"abcd","type":134217729}'
    assert event.digest == hashlib.sha384(text).digest()
    boot = [replace(item, version=2) for item in BOOT]
    log = json.dumps([{**entry(item), "version": 2, "preimage": "ignored"} for item in boot]).encode()
    values, left = explain(registers(rtmr3=extended(*(item.digest for item in boot))), bag(log), Trail())
    assert (values["compose_hash"], left) == (COMPOSE.hex(), ())
    odd = json.dumps([{**entry(item), "version": 3} for item in boot]).encode()
    with pytest.raises(UnsupportedEvidence, match="version 1 or 2"):
        explain(registers(), bag(odd), Trail())


def test_a_register_that_the_log_does_not_lead_to_is_not_explained_and_gives_no_claims() -> None:
    log = json.dumps([entry(event) for event in BOOT]).encode()
    values, left = explain(registers(rtmr1=b"\1" * 48, rtmr3=b"\3" * 48), bag(log), Trail())
    assert values == {"event_log_explains": "not rtmr1, rtmr3"}
    assert left == ("what rtmr1, rtmr3 mean: the event log does not explain them",)


def test_without_a_log_that_is_said() -> None:
    assert explain(registers(rtmr3=b"\3" * 48), Endorsements(), Trail())[0] == {}
    assert "no event log" in explain(registers(), Endorsements(), Trail())[1][0]


def test_p8_a_swapped_payload_beside_a_kept_digest_is_refused() -> None:
    lie = entry(DstackEvent(name="compose-hash", payload=b"\xff" * 32), digest=BOOT[1].digest.hex())
    log = json.dumps([entry(BOOT[0]), lie, *map(entry, BOOT[2:])]).encode()
    with pytest.raises(MalformedEvidence, match="not that of its fields"):
        explain(registers(rtmr3=extended(*(e.digest for e in BOOT))), bag(log), Trail())


def test_p8_what_the_application_logs_after_boot_is_no_boot_claim() -> None:
    events = [BOOT[0], BOOT[3], BOOT[1]]
    log = json.dumps([entry(event) for event in events]).encode()
    values, _ = explain(registers(rtmr3=extended(*(e.digest for e in events))), bag(log), Trail())
    assert "compose_hash" not in values


# --- TCG logs ---------------------------------------------------------------------------------------------------------


def spec() -> bytes:
    data = b"Spec ID Event03\0" + struct.pack("<IBBBB", 0, 0, 2, 0, 2) + struct.pack("<IHHB", 1, 0x000C, 48, 0)
    return struct.pack("<II", 0, 3) + bytes(20) + struct.pack("<I", len(data)) + data


def event(index: int, kind: int, data: bytes, digest: bytes | None = None) -> bytes:
    digest = hashlib.sha384(data).digest() if digest is None else digest
    return struct.pack("<IIIH", index, kind, 1, 0x000C) + digest + struct.pack("<I", len(data)) + data


def variable(on: bool) -> bytes:
    name = "SecureBoot".encode("utf-16-le")
    head = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c") + struct.pack("<QQ", len(name) // 2, 1)
    return head + name + bytes((on,))


def log(*events: bytes) -> EventLog:
    return read_log(spec() + b"".join(events))


def on(register: int, value: bool) -> bytes:
    return event(register, VARIABLE_DRIVER_CONFIG, variable(value))


def closed(register: int) -> bytes:
    return event(register, SEPARATOR, bytes(4))


def test_secure_boot_counts_only_before_the_separator() -> None:
    assert secure_boot(log(on(7, True), closed(7)), "sha384") is True
    assert secure_boot(log(on(7, False), closed(7)), "sha384") is False
    assert secure_boot(log(on(7, True)), "sha384") is None
    assert secure_boot(log(closed(7), on(7, True)), "sha384") is None
    assert secure_boot(log(on(7, True), on(7, False), closed(7)), "sha384") is None


def test_p8_a_system_cannot_say_secure_boot_by_renaming_the_firmwares_events() -> None:
    """It extends the register with a variable of its own, and calls the firmware's events something else."""
    hidden = event(7, 0x800000E0, b"nothing to see", hashlib.sha384(variable(False)).digest())
    renamed = event(7, 0x80000006, b"no separator", hashlib.sha384(bytes(4)).digest())
    assert secure_boot(log(hidden, renamed, on(7, True), closed(7)), "sha384") is None


def test_p8_everything_in_the_boot_register_is_an_application_whatever_it_is_called() -> None:
    loader, kit = b"\x11" * 48, b"\x66" * 48
    call = event(4, ACTION, b"Calling EFI Application from Boot Option")
    honest = log(call, closed(4), event(4, APPLICATION, b"path", loader))
    assert boot_applications(honest, "sha384") == (loader.hex(),)
    for kind in (ACTION, SEPARATOR, 0x0D, APPLICATION):
        seen = boot_applications(
            log(call, closed(4), event(4, APPLICATION, b"", loader), event(4, kind, b"", kit)), "sha384"
        )
        assert seen == (loader.hex(), kit.hex())
    action = event(4, ACTION, b"the very bytes that Authenticode hashes of a boot kit")
    assert len(boot_applications(log(call, closed(4), action), "sha384")) == 1


def test_a_log_that_contradicts_itself_is_refused() -> None:
    raw = spec() + event(1, SEPARATOR, b"\7\7\7\7", b"\1" * 48)
    with pytest.raises(VerificationError) as caught:
        explain(registers(rtmr0=b"\1" * 48), bag(raw), Trail())
    assert caught.value.code == "event_log_invalid"
