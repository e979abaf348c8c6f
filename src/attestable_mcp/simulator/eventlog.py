"""Event logs as firmware writes them: a TPM's, and the CCEL of a TDX guest with its ACPI table and registers.

>>> log = write_log((Event(pcr=1, data=b"firmware"),), "sha384")

Layouts: TCG PC Client Platform Firmware Profile §10 (crypto-agile log); UEFI 2.10 §38.4 and ACPI 6.5 §5.2.34 (CCEL,
where a "PCR" of 1 to 4 is RTMR 0 to 3).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass

ALGORITHMS = {"sha1": 0x0004, "sha256": 0x000B, "sha384": 0x000C, "sha512": 0x000D}
NO_ACTION, SEPARATOR, VARIABLE = 0x03, 0x04, 0x80000001
_EVENT_TAG = 0x06
_GLOBAL = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
_TDX = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One entry of an event log: `data` is what is measured, unless `digest_of` says that something else was."""

    pcr: int
    data: bytes
    kind: int = _EVENT_TAG
    digest_of: bytes | None = None

    def digest(self, bank: str) -> bytes:
        """What extends the register."""
        return hashlib.new(bank, self.data if self.digest_of is None else self.digest_of).digest()


def secure_boot(on: bool, *, register: int = 1) -> tuple[Event, Event]:
    """The firmware's words on Secure Boot, and the separator that ends them. RTMR0, or PCR 7 as `register`."""
    name = "SecureBoot".encode("utf-16-le")
    data = _GLOBAL + struct.pack("<QQ", len(name) // 2, 1) + name + bytes((on,))
    return Event(pcr=register, data=data, kind=VARIABLE), Event(pcr=register, data=bytes(4), kind=SEPARATOR)


def write_log(events: Iterable[Event], bank: str) -> bytes:
    """A crypto-agile log with one bank."""
    size, algorithm = hashlib.new(bank).digest_size, ALGORITHMS[bank]
    head = b"Spec ID Event03\0" + struct.pack("<IBBBBIHHB", 0, 0, 2, 0, 2, 1, algorithm, size, 0)
    log = struct.pack("<II20sI", 0, NO_ACTION, bytes(20), len(head)) + head
    for event in events:
        digest = bytes(size) if event.kind == NO_ACTION else event.digest(bank)
        log += struct.pack("<IIIH", event.pcr, event.kind, 1, algorithm) + digest
        log += struct.pack("<I", len(event.data)) + event.data
    return log


def rtmrs(events: Iterable[Event]) -> tuple[bytes, bytes, bytes, bytes]:
    """RTMR 0 to 3 that a CCEL of these events leads to."""
    found = [bytes(48)] * 4
    for event in events:
        if event.kind != NO_ACTION:
            found[event.pcr - 1] = hashlib.sha384(found[event.pcr - 1] + event.digest("sha384")).digest()
    return found[0], found[1], found[2], found[3]


def ccel_table(area: int, *, kind: int = _TDX, damaged: bool = False) -> bytes:
    """The ACPI table CCEL for a log area of so many bytes."""
    body = b"CCEL" + struct.pack("<IBB", 56, 1, 0) + b"SIMUL " + b"SIMULATE" + bytes(12)
    body += struct.pack("<BBHQQ", kind, 0, 0, area, 0x51510000)
    return body[:9] + bytes(((-sum(body) + damaged) % 256,)) + body[10:]
