"""TDX quotes from dstack's guest agent, over its Unix socket.

`POST /GetQuote` with `{"report_data": HEX}` answers `{"quote": HEX, "event_log": JSON, ...}` (dstack guest agent, RPC
API). The older agent, `tappd`, answers the same at `/prpc/Tappd.RawQuote`. Both put the bytes into the quote as they
are. The event log explains the registers of that very quote: events of the application may follow.
"""

from __future__ import annotations

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
from attestable_mcp.wire.eventlog import read_dstack_log

_log = logging.getLogger(__name__)
SOCKETS = (Path("/var/run/dstack.sock"), Path("/run/dstack.sock"), Path("/var/run/tappd.sock"))
_HINT = "mount the agent's socket into the container: volumes: [/var/run/dstack.sock:/var/run/dstack.sock]"


class DstackAttester:
    """The confidential VM whose guest agent listens at `socket`. Safe to share between threads.

    Raises:
        AttesterError: there is no such socket.
    """

    tee = Tee.TDX.value
    simulated = False

    def __init__(self, socket: Path | None = None) -> None:
        self._socket = socket or next((path for path in SOCKETS if path.exists()), SOCKETS[0])
        self._target = "/prpc/Tappd.RawQuote" if self._socket.name == "tappd.sock" else "/GetQuote"
        self._lock = threading.Lock()
        self._given = Endorsements()
        if not self._socket.exists():
            raise AttesterAbsent(f"{self._socket}: No such file or directory", hint=_HINT)

    def attest(self, report_data: bytes) -> Evidence:
        """A TDX quote over 64 bytes. Tens of milliseconds, at the pace of the agent.

        Raises:
            AttesterError: the agent refuses, is silent, or answers with something else.
        """
        demand_report_data(report_data)
        with self._lock:
            answer = self._ask(report_data)
            self._given = log_endorsements(_event_log(answer), f"{self._socket} (event_log)")
        evidence = Evidence(kind=EvidenceKind.INTEL_QUOTE, body=self._quote(answer))
        demand_carries(evidence, report_data, str(self._socket))
        return evidence

    def endorsements(self) -> Endorsements:
        """The event log that came with the last quote. Collateral comes from a PCS or PCCS."""
        return self._given

    def _ask(self, report_data: bytes) -> dict[str, Any]:
        where = f"{self._socket}{self._target}"
        return request_json(
            unix(str(self._socket)), "POST", self._target, where, body={"report_data": report_data.hex()}
        )

    def _quote(self, answer: dict[str, Any]) -> bytes:
        text = answer.get("quote")
        if not isinstance(text, str) or not 0 < len(text) <= 2 * LIMITS.evidence + 2:
            raise AttesterError(f"{self._socket}: wanted a quote in hex, seen none", hint="is this VM on TDX?")
        try:
            return bytes.fromhex(text.removeprefix("0x"))
        except ValueError as error:
            raise AttesterError(f"{self._socket}: wanted a quote in hex, seen {text[:40]!r}") from error


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
