"""Event logs that firmware leaves for its system, as they go along with evidence.

They are hearsay: a log explains the registers that a quote signs, or it does not. One that contradicts itself gets the
whole evidence refused, so it is better kept here. A TDX guest's lies in the area that the ACPI table CCEL names, with
filler after it: ACPI 6.5 §5.2.34; UEFI 2.10 §38.4.
"""

from __future__ import annotations

import logging
import struct
from functools import lru_cache
from pathlib import Path

from attestable_mcp.errors import EvidenceError
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import DocumentKind, Endorsements, SignedDocument
from attestable_mcp.wire.eventlog import content_faults, read_log, replay_pcrs, replay_rtmrs, without_filler

TABLES = Path("/sys/firmware/acpi/tables")
_TABLE = struct.Struct("<4sI28xBBHQQ")
"""Signature and length, the rest of the header, type and subtype of the TEE, reserved; size and address of the area."""
_TDX = 2
LOG_MOST = LIMITS.evidence // 2
"""A longer log leaves too little room for the rest of the evidence, and is left out."""
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
    return _ccel(area) if _is_of_tdx(table, len(area)) else b""


def _ccel(area: bytes) -> bytes:
    try:
        log = without_filler(area)
        replay_rtmrs(read_log(log))
    except EvidenceError as error:
        _log.warning("event log not sent: %s", error.message)
        return b""
    return log if travels(log) else b""


@lru_cache(maxsize=4)
def travels(log: bytes) -> bool:
    """Is this a TCG log or a CCEL that a verifier would take, and short enough? Why not, goes to our own log, once."""
    try:
        parsed = read_log(log)
        fault = next(iter(content_faults(parsed)), "")
        for bank in parsed.banks:
            replay_pcrs(parsed, bank)
    except EvidenceError as error:
        fault = error.message
    if not fault and len(log) > LOG_MOST:
        fault = f"{len(log)} bytes, at most {LOG_MOST} travel"
    if fault:
        _log.warning("event log not sent: %s", fault)
    return not fault


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
