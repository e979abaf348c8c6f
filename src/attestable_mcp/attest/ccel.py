"""The event log that a TDX guest's firmware leaves for its system: the ACPI table CCEL, and the area that it names.

The kernel shows both to root: the table says for which kind of TEE the log is, the area holds the log and, after it,
filler. Source: ACPI 6.5 §5.2.34 (CCEL); UEFI 2.10 §38.4 (the log). The log is hearsay: it travels beside a quote, and
whoever verifies replays it against the registers that the quote signs.
"""

from __future__ import annotations

import logging
import struct
from pathlib import Path

from attestable_mcp.errors import EvidenceError
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import DocumentKind, Endorsements, SignedDocument
from attestable_mcp.wire.eventlog import content_faults, read_log, replay_rtmrs, without_filler

TABLES = Path("/sys/firmware/acpi/tables")
_TABLE = struct.Struct("<4sI28xBBHQQ")
"""Signature and length, the rest of the header, type and subtype of the TEE, reserved; size and address of the area."""
_TDX = 2
LOG_MOST = LIMITS.evidence // 2
"""A longer log leaves too little room in a certificate, and is left out."""
_log = logging.getLogger(__name__)


def read_ccel(tables: Path = TABLES) -> bytes:
    """The log without its filler; empty where there is none for TDX, or none that a verifier would take.

    A quote proves the registers without it, so nothing here is an error; what is left out and why goes to our own log.
    """
    try:
        table, area = _bytes(tables / "CCEL", 4096), _bytes(tables / "data" / "CCEL", LIMITS.endorsement)
    except FileNotFoundError:
        return b""
    except OSError as error:
        _log.warning("event log not sent: %s: %s (it is root's)", error.filename, error.strerror)
        return b""
    if not _is_of_tdx(table, len(area)):
        return b""
    fault = ""
    try:
        log = without_filler(area)
        fault = next(iter(content_faults(read_log(log))), "")
        replay_rtmrs(read_log(log))
    except EvidenceError as error:
        fault = error.message
    if fault or len(log) > LOG_MOST:
        _log.warning("event log not sent: %s", fault or f"{len(log)} bytes, at most {LOG_MOST} travel")
        return b""
    return log


def log_endorsements(log: bytes, source: str) -> Endorsements:
    """An event log as it travels beside a quote; nothing for an empty one."""
    if not log:
        return Endorsements()
    document = SignedDocument(kind=DocumentKind.EVENT_LOG, body=log, signature=b"", issuer_chain=())
    return Endorsements(documents=(document,), sources=(source,))


def _bytes(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        return file.read(most + 1)


def _is_of_tdx(table: bytes, area: int) -> bool:
    if len(table) != _TABLE.size or sum(table) % 256:
        _log.warning("event log not sent: the ACPI table CCEL is damaged")
        return False
    signature, size, kind, _, _, length, _ = _TABLE.unpack(table)
    if (signature, size) != (b"CCEL", _TABLE.size) or area > length:
        _log.warning("event log not sent: the ACPI table CCEL is not of this log")
        return False
    return bool(kind == _TDX)
