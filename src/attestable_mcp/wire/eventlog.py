"""Measured-boot event logs and their replay: TCG logs (crypto-agile and SHA-1), CCEL (the TDX form), dstack's log.

A log is hearsay until its replay gives the very registers that hardware signed. Even then only the digests are proven:
the data beside a digest is proven where the digest is its hash, which `Event.proves_data` tells. Sources: TCG PC Client
Platform Firmware Profile 1.06 §10 (event structures), §10.4.5.3 (StartupLocality); UEFI 2.10 §38.4 (CC_EVENT, CCEL);
dstack's source for its runtime events.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from attestable_mcp.errors import MalformedEvidence, UnsupportedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.wire.jcs import canonical

HASHES = {0x0004: "sha1", 0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}
SIZES = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
NO_ACTION = 0x03
SEPARATOR = 0x04
CRTM_VERSION = 0x08
VARIABLE_DRIVER_CONFIG = 0x80000001
EFI_ACTION = 0x80000007
_DATA_IS_MEASURED = {SEPARATOR, CRTM_VERSION, VARIABLE_DRIVER_CONFIG, EFI_ACTION}
"""Events whose digest is by definition the hash of their data; a digest of anything else is a lie or a fault.

EV_EFI_VARIABLE_AUTHORITY is not among them: shim measures the certificate and logs the variable around it."""
_SPEC_ID = b"Spec ID Event03\0"
_LOCALITY = b"StartupLocality\0"
_SEPARATOR_ERROR = b"\x01\0\0\0"
_EFI_GLOBAL = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
EVENTS = 8192
"""Most events in one log; real logs hold some hundreds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event. `index` is a PCR number, or in a CCEL the measurement register (1 to 4 are RTMR0 to RTMR3)."""

    index: int
    type: int
    digests: Mapping[str, bytes]
    data: bytes
    offset: int

    @property
    def proves_data(self) -> bool:
        """Is every digest that we can compute the hash of the data? Then the data is as proven as the digest."""
        return all(hashlib.new(name, self.data).digest() == digest for name, digest in self.digests.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLog:
    """A parsed log: the banks that every event carries, and the events in order."""

    banks: tuple[str, ...]
    events: tuple[Event, ...]


class _Reader:
    """Little-endian fields of a log, every one bounded by what is there."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, size: int, field: str) -> bytes:
        if size > len(self.data) - self.at:
            raise MalformedEvidence(
                f"event log: wanted {size} bytes, seen {len(self.data) - self.at}", field=field, offset=self.at
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int, field: str) -> int:
        return int.from_bytes(self.take(size, field), "little")

    def padding(self) -> bool:
        """Is the rest filler of a fixed buffer: nothing, or all 0xff, or all zeros?"""
        rest = self.data[self.at :]
        return not rest.strip(b"\xff") or not rest.strip(b"\0")


def is_event_log(data: bytes) -> bool:
    """Do these bytes begin as a crypto-agile TCG log, a CCEL, or dstack's JSON list?"""
    return data[32:48] == _SPEC_ID or (data.lstrip()[:1] == b"[" and b'"imr"' in data[:4096])


def read_log(data: bytes) -> EventLog:
    """Read a TCG log (crypto-agile, or SHA-1 only) or a CCEL. Raises: MalformedEvidence, UnsupportedEvidence."""
    return _read(data)[0]


def without_filler(data: bytes) -> bytes:
    """The same log without what fills the rest of its fixed buffer. Raises: MalformedEvidence, UnsupportedEvidence."""
    return data[: _read(data)[1]]


def _read(data: bytes) -> tuple[EventLog, int]:
    """A log, and where its last event ends."""
    if len(data) > LIMITS.endorsement:
        raise MalformedEvidence(f"event log: wanted at most {LIMITS.endorsement} bytes, seen {len(data)}", field="log")
    reader = _Reader(data)
    first = _legacy_event(reader)
    if first.type != NO_ACTION or not first.data.startswith(_SPEC_ID):
        return EventLog(banks=("sha1",), events=tuple(_rest(reader, None, first))), reader.at
    sizes = _spec_id(first.data)
    banks = tuple(HASHES[number] for number in sizes if number in HASHES)
    return EventLog(banks=banks, events=tuple(_rest(reader, sizes, first))), reader.at


def _rest(reader: _Reader, sizes: Mapping[int, int] | None, first: Event) -> Iterable[Event]:
    yield first
    for _ in range(EVENTS):
        if reader.padding():
            return
        yield _legacy_event(reader) if sizes is None else _agile_event(reader, sizes)
    raise MalformedEvidence(f"event log: more than {EVENTS} events", field="log", offset=reader.at)


def _legacy_event(reader: _Reader) -> Event:
    offset = reader.at
    index, kind = reader.number(4, "pcrIndex"), reader.number(4, "eventType")
    digest = reader.take(20, "digest")
    data = reader.take(reader.number(4, "eventSize"), "event")
    return Event(index=index, type=kind, digests=MappingProxyType({"sha1": digest}), data=data, offset=offset)


def _spec_id(data: bytes) -> Mapping[int, int]:
    reader = _Reader(data)
    reader.take(24, "specId")
    count = reader.number(4, "numberOfAlgorithms")
    if not 1 <= count <= len(HASHES) + 4:
        raise MalformedEvidence(f"event log: wanted 1 to 8 algorithms, seen {count}", field="specId")
    sizes = {reader.number(2, "algorithmId"): reader.number(2, "digestSize") for _ in range(count)}
    for number, size in sizes.items():
        if number in HASHES and size != SIZES[HASHES[number]]:
            raise MalformedEvidence(f"event log: {HASHES[number]} of {size} bytes", field="specId")
    if len(sizes) != count or not any(number in HASHES for number in sizes):
        raise UnsupportedEvidence("event log: no hash algorithm that we know, or one stated twice")
    return sizes


def _agile_event(reader: _Reader, sizes: Mapping[int, int]) -> Event:
    offset = reader.at
    index, kind = reader.number(4, "pcrIndex"), reader.number(4, "eventType")
    count = reader.number(4, "digestCount")
    if count > len(sizes):
        raise MalformedEvidence(
            f"event log: wanted at most {len(sizes)} digests, seen {count}", field="digests", offset=offset
        )
    digests: dict[int, bytes] = {}
    for _ in range(count):
        number = reader.number(2, "digests.algorithm")
        if number not in sizes or number in digests:
            raise MalformedEvidence(
                f"event log: algorithm {number:04x} unannounced or twice", field="digests", offset=offset
            )
        digests[number] = reader.take(sizes[number], "digests.digest")
    data = reader.take(reader.number(4, "eventSize"), "event")
    known = {HASHES[number]: digest for number, digest in digests.items() if number in HASHES}
    return Event(index=index, type=kind, digests=MappingProxyType(known), data=data, offset=offset)


def replay_pcrs(log: EventLog, bank: str) -> dict[int, bytes]:
    """The PCRs that the log leads to in one bank; only those that it extends. Raises: MalformedEvidence.

    EV_NO_ACTION extends nothing; StartupLocality among them sets the last byte of PCR0's first value.
    """
    if bank not in log.banks:
        raise MalformedEvidence(f"event log: holds {', '.join(log.banks)}, not {bank}", field="log")
    registers: dict[int, bytes] = {}
    start = {0: _locality(log)}
    for event in log.events:
        if event.type == NO_ACTION:
            continue
        if not 0 <= event.index < 24:
            raise MalformedEvidence(f"event log: PCR {event.index}", field="pcrIndex", offset=event.offset)
        before = registers.get(event.index) or _first(bank, start.get(event.index, 0), event.index)
        registers[event.index] = hashlib.new(bank, before + _digest(event, bank)).digest()
    return registers


def replay_rtmrs(log: EventLog) -> dict[int, bytes]:
    """RTMR0 to RTMR3 that a CCEL leads to; only those that it extends. Raises: MalformedEvidence.

    Measurement register 0 is MRTD, which no event extends: events that some firmware logs for it explain nothing.
    """
    registers: dict[int, bytes] = {}
    for event in log.events:
        if event.type == NO_ACTION or event.index == 0:
            continue
        if not 1 <= event.index <= 4:
            raise MalformedEvidence(
                f"CCEL: register {event.index}, wanted 0 to 4", field="mrIndex", offset=event.offset
            )
        before = registers.get(event.index - 1, bytes(48))
        registers[event.index - 1] = hashlib.sha384(before + _digest(event, "sha384")).digest()
    return registers


def _first(bank: str, locality: int, index: int) -> bytes:
    """17 to 22 start as ones, until a dynamic launch resets them; PCR0 ends in the startup locality."""
    size = SIZES[bank]
    return b"\xff" * size if 17 <= index <= 22 else locality.to_bytes(size, "big")


def _locality(log: EventLog) -> int:
    found = [event.data[16] for event in log.events if _states_locality(event)]
    if len(found) > 1 or any(value not in (0, 3, 4) for value in found):
        raise MalformedEvidence("event log: wanted at most one startup locality of 0, 3 or 4", field="StartupLocality")
    return found[0] if found else 0


def _states_locality(event: Event) -> bool:
    return event.type == NO_ACTION and event.index == 0 and event.data.startswith(_LOCALITY) and len(event.data) == 17


def _digest(event: Event, bank: str) -> bytes:
    if bank not in event.digests:
        raise MalformedEvidence(f"event log: an event without a {bank} digest", field="digests", offset=event.offset)
    return event.digests[bank]


def content_faults(log: EventLog) -> tuple[str, ...]:
    """What contradicts itself in a log that may still replay: data that its digest does not measure, bad variables.

    A digest of an error separator is of the value 1, whatever data follows it (PFP §3.3.2.1).
    """
    return tuple(fault for event in log.events if (fault := _fault(event)))


def _fault(event: Event) -> str:
    where = f"event at byte {event.offset}, register {event.index}"
    if event.type in _DATA_IS_MEASURED and not event.proves_data and not _error_separator(event):
        return f"{where}: the digest is not the hash of the event's data (type {event.type:08x})"
    variable = read_variable(event) if event.type == VARIABLE_DRIVER_CONFIG else None
    if variable and variable[0] == "SecureBoot" and len(variable[1]) != 1:
        return f"{where}: SecureBoot holds {len(variable[1])} bytes, wanted 1"
    return ""


def _error_separator(event: Event) -> bool:
    if event.type != SEPARATOR:
        return False
    return all(hashlib.new(name, _SEPARATOR_ERROR).digest() == digest for name, digest in event.digests.items())


def read_variable(event: Event) -> tuple[str, bytes] | None:
    """Name and data of a UEFI_VARIABLE_DATA; None outside the global namespace. Raises: MalformedEvidence."""
    reader = _Reader(event.data)
    namespace = reader.take(16, "VariableName")
    characters, size = reader.number(8, "UnicodeNameLength"), reader.number(8, "VariableDataLength")
    raw = reader.take(min(2 * characters, LIMITS.endorsement), "UnicodeName")
    value = reader.take(size, "VariableData")
    if namespace != _EFI_GLOBAL:
        return None
    return raw.decode("utf-16-le", "replace").rstrip("\0"), value


DSTACK_EVENT = 0x08000001
_DSTACK_LIMIT = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class DstackEvent:
    """One runtime event of a dstack guest in RTMR3. The digest is always recomputed from these fields, never taken."""

    name: str
    payload: bytes
    type: int = DSTACK_EVENT
    version: int = 1

    @property
    def digest(self) -> bytes:
        """SHA-384 of the type (u32 little-endian), the name and the payload with colons between; in version 2 of
        `{"name", "payload": HEX, "type"}` as canonical JSON (RFC 8785)."""
        if self.version == 2:
            fields = {"name": self.name, "payload": self.payload.hex(), "type": self.type}
            return hashlib.sha384(canonical(fields, field="event")).digest()
        return hashlib.sha384(
            self.type.to_bytes(4, "little") + b":" + self.name.encode() + b":" + self.payload
        ).digest()


def read_dstack_log(data: bytes) -> tuple[tuple[DstackEvent, ...], Mapping[int, bytes]]:
    """Read a dstack event log (JSON): the events of RTMR3, and the RTMRs that the whole log leads to.

    The events of RTMR0 to 2 carry no data and stand for their digest only. Raises: MalformedEvidence.
    """
    entries = _json_list(data)
    events: list[DstackEvent] = []
    registers: dict[int, bytes] = {}
    for entry in entries:
        index, digest = _integer(entry, "imr"), _hex(entry, "digest")
        if index == 3:
            event = _dstack_event(entry)
            if digest not in (b"", event.digest):
                raise MalformedEvidence(
                    f"dstack event {event.name!r}: its digest is not that of its fields", field="digest"
                )
            digest = event.digest
            events.append(event)
        elif not 0 <= index <= 2 or len(digest) != 48:
            raise MalformedEvidence("dstack event: wanted imr 0 to 3 and a SHA-384 digest", field="imr")
        registers[index] = hashlib.sha384(registers.get(index, bytes(48)) + digest).digest()
    return tuple(events), MappingProxyType(registers)


def _dstack_event(entry: Mapping[str, Any]) -> DstackEvent:
    version = _integer(entry, "version") if "version" in entry else 1
    if version not in (1, 2):
        raise UnsupportedEvidence(f"dstack event: wanted version 1 or 2, seen {version}")
    return DstackEvent(
        name=_string(entry, "event"), payload=_hex(entry, "event_payload"), type=_integer(entry, "event_type"),
        version=version,
    )  # fmt: skip


def dstack_boot_value(events: tuple[DstackEvent, ...], name: str) -> bytes | None:
    """The payload of the one event `name` that came before `system-ready`: the application writes what comes after.

    Raises: MalformedEvidence where the boundary is missing, or the event stands twice before it.
    """
    names = [event.name for event in events]
    if "system-ready" not in names:
        raise MalformedEvidence(
            "dstack log: no event `system-ready`, so boot and application events are not apart", field="log"
        )
    boot = [event.payload for event in events[: names.index("system-ready")] if event.name == name]
    if len(boot) > 1:
        raise MalformedEvidence(f"dstack log: event {name!r} stands twice in the boot", field="event")
    return boot[0] if boot else None


def _json_list(data: bytes) -> list[dict[str, Any]]:
    if len(data) > LIMITS.endorsement:
        raise MalformedEvidence(f"dstack log: wanted at most {LIMITS.endorsement} bytes, seen {len(data)}", field="log")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise MalformedEvidence("dstack log: not JSON", field="log") from error
    if not isinstance(found, list) or len(found) > _DSTACK_LIMIT or not all(isinstance(entry, dict) for entry in found):
        raise MalformedEvidence(f"dstack log: wanted a list of at most {_DSTACK_LIMIT} objects", field="log")
    return found


def _string(entry: Mapping[str, Any], name: str) -> str:
    value = entry.get(name)
    if not isinstance(value, str):
        raise MalformedEvidence(f"dstack event: wanted text in {name}", field=name)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise MalformedEvidence("dstack event: text that is not Unicode", field=name) from error
    return value


def _integer(entry: Mapping[str, Any], name: str) -> int:
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise MalformedEvidence(f"dstack event: wanted a 32-bit number in {name}", field=name)
    return value


def _hex(entry: Mapping[str, Any], name: str) -> bytes:
    value = _string(entry, name)
    try:
        return bytes.fromhex(value)
    except ValueError as error:
        raise MalformedEvidence(f"dstack event: wanted hex digits in {name}", field=name) from error
