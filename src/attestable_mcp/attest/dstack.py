"""Evidence from dstack's guest agent, over its Unix socket: TDX quotes, SEV-SNP reports, Nitro documents.

`POST /GetQuote` with `{"report_data": HEX}` answers `{"quote": HEX, "event_log": JSON, ...}` (dstack guest agent, RPC
API). The older agent, `tappd`, answers the same at `/prpc/Tappd.RawQuote`. Both put the bytes into the quote as they
are. The event log explains the registers of that very quote: events of the application may follow. On other platforms
than TDX `quote` is empty, and `attestation` holds the evidence in dstack's own form (`wire.dstack`).
"""

from __future__ import annotations

import hashlib
import logging
import threading
from pathlib import Path
from typing import Any

from attestable_mcp.attest.base import demand_carries, demand_report_data
from attestable_mcp.attest.eventlogs import LOG_MOST, log_endorsements
from attestable_mcp.attest.unix_http import request_json, unix
from attestable_mcp.errors import AttesterAbsent, AttesterError, EvidenceError
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind, Tee
from attestable_mcp.wire.dstack import read_attestation
from attestable_mcp.wire.eventlog import read_dstack_log

_log = logging.getLogger(__name__)
SOCKETS = (Path("/var/run/dstack.sock"), Path("/run/dstack.sock"), Path("/var/run/tappd.sock"))
_PROBE = hashlib.sha512(b"attestable-mcp/dstack-platform").digest()
_TEES = {
    EvidenceKind.INTEL_QUOTE: Tee.TDX,
    EvidenceKind.SNP_REPORT: Tee.SEV_SNP,
    EvidenceKind.NITRO_DOCUMENT: Tee.NITRO,
}
_HINT = "mount the agent's socket into the container: volumes: [/var/run/dstack.sock:/var/run/dstack.sock]"


class DstackAttester:
    """The confidential VM whose guest agent listens at `socket`. Safe to share between threads.

    Opening it makes one piece of evidence over a fixed hash, to learn which platform it is.

    Raises:
        AttesterError: there is no such socket, or no agent behind it that makes evidence of a kind that is read here.
    """

    simulated = False

    def __init__(self, socket: Path | None = None) -> None:
        self._socket = socket or next((path for path in SOCKETS if path.exists()), SOCKETS[0])
        self._target = "/prpc/Tappd.RawQuote" if self._socket.name == "tappd.sock" else "/GetQuote"
        self._lock = threading.Lock()
        if not self._socket.exists():
            raise AttesterAbsent(f"{self._socket}: No such file or directory", hint=_HINT)
        evidence, self._given = self._made(_PROBE)
        self.tee = _TEES[evidence.kind].value

    def attest(self, report_data: bytes) -> Evidence:
        """Evidence over 64 bytes. Tens of milliseconds, at the pace of the agent.

        Raises:
            AttesterError: the agent refuses, is silent, or answers with something else.
        """
        demand_report_data(report_data)
        with self._lock:
            evidence, self._given = self._made(report_data)
        return evidence

    def endorsements(self) -> Endorsements:
        """What came with the last evidence: an event log, or AMD's certificates."""
        return self._given

    def _made(self, report_data: bytes) -> tuple[Evidence, Endorsements]:
        where = f"{self._socket}{self._target}"
        asked = {"report_data": report_data.hex()}
        answer = request_json(unix(str(self._socket)), "POST", self._target, where, body=asked)
        if body := self._octets(answer, "quote"):
            evidence = Evidence(kind=EvidenceKind.INTEL_QUOTE, body=body)
            given = log_endorsements(_event_log(answer), f"{self._socket} (event_log)")
        else:
            evidence, given = self._versioned(self._octets(answer, "attestation"))
        demand_carries(evidence, report_data, str(self._socket))
        return evidence, given

    def _versioned(self, data: bytes) -> tuple[Evidence, Endorsements]:
        if not data:
            raise AttesterError(f"{self._socket}: wanted a quote in hex, seen none", hint="does this VM run in a TEE?")
        try:
            found = read_attestation(data)
        except EvidenceError as error:
            raise AttesterError(f"{self._socket}: {error.message}", hint=error.hint) from error
        given = Endorsements(certificates=found.certificates, sources=(f"{self._socket} (attestation)",))
        return found.evidence, given if found.certificates else Endorsements()

    def _octets(self, answer: dict[str, Any], name: str) -> bytes:
        text = answer.get(name, "")
        if not isinstance(text, str) or len(text) > 2 * LIMITS.evidence + 2:
            raise AttesterError(f"{self._socket}: wanted {name} in hex, seen none")
        try:
            return bytes.fromhex(text.removeprefix("0x"))
        except ValueError as error:
            raise AttesterError(f"{self._socket}: wanted {name} in hex, seen {text[:40]!r}") from error


def _event_log(answer: dict[str, Any]) -> bytes:
    """The log in the agent's answer; empty where there is none that a verifier would take."""
    text = answer.get("event_log")
    log = text.encode("utf-8", "replace") if isinstance(text, str) else b""
    try:
        events, _ = read_dstack_log(log or b"[]")
    except EvidenceError as error:
        _log.warning("event log not sent: %s", error.message)
        return b""
    if len(log) > LOG_MOST:
        _log.warning("event log not sent: %d bytes, at most %d travel", len(log), LOG_MOST)
    return log if events and len(log) <= LOG_MOST else b""
