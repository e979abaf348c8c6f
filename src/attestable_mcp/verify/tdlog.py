"""What event logs explain of a trust domain's run-time registers: CCEL, and dstack's log.

A log is hearsay. It explains a register if its replay gives the very value that the quote signs; then the digests in it
are proven, and no more than those (attack P8). A register that no log explains is said to be unexplained, never
replayed. Registers that were never extended are zero and need no explanation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from attestable_mcp.errors import VerificationError
from attestable_mcp.rats import ClaimValue, Endorsements
from attestable_mcp.verify.trail import Trail
from attestable_mcp.wire.bootlog import secure_boot
from attestable_mcp.wire.eventlog import (
    DstackEvent,
    content_faults,
    dstack_boot_value,
    read_dstack_log,
    read_log,
    replay_rtmrs,
)

_RTMRS = range(4)
_NO_LOG = "how the RTMR values came about: no event log was replayed"
_DSTACK = {"compose-hash": "compose_hash", "app-id": "app_id", "instance-id": "instance_id"}
"""Boot events of dstack whose payload becomes a claim, by the name that the claim gets."""


def explain(
    registers: Mapping[int, bytes], endorsements: Endorsements, trail: Trail
) -> tuple[dict[str, ClaimValue], tuple[str, ...]]:
    """Claims that the logs in `endorsements` prove of `registers` (RTMR number -> value), and what stays unexplained.

    Raises:
        MalformedEvidence: a log that cannot be read.
        VerificationError: `event_log_invalid`: a log that contradicts itself.
    """
    logs = [item.body for item in endorsements.event_logs]
    if not logs:
        return {}, (_NO_LOG,)
    values: dict[str, ClaimValue] = {}
    explained = {number for number in _RTMRS if not any(registers[number])}
    for raw in logs:
        held, found = _dstack(raw, registers) if raw.lstrip()[:1] == b"[" else _ccel(raw, registers, trail)
        explained |= held
        values |= found
    left = [f"rtmr{number}" for number in _RTMRS if number not in explained]
    trail.passed("tdx.eventlog", f"{len(logs)} logs, {len(left)} registers not explained")
    values["event_log_explains"] = f"not {', '.join(left)}" if left else "all"
    return values, (f"what {', '.join(left)} mean: the event log does not explain them",) if left else ()


def _ccel(raw: bytes, registers: Mapping[int, bytes], trail: Trail) -> tuple[set[int], dict[str, ClaimValue]]:
    log = _understood(raw)
    if log.fault:
        trail.refuse(VerificationError, "tdx.eventlog", reason=log.fault, code="event_log_invalid")
    held = _matching(log.registers, registers)
    on = log.secure_boot if 0 in held else None
    return held, {} if on is None else {"secure_boot": on}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ccel:
    """What a log comes to: the registers that it leads to, its first contradiction, and what it says of Secure Boot."""

    registers: Mapping[int, bytes]
    fault: str
    secure_boot: bool | None


@lru_cache(maxsize=32)
def _understood(raw: bytes) -> _Ccel:
    """Read once: a machine sends the same log until it boots again. Raises: MalformedEvidence."""
    log = read_log(raw)
    fault = next(iter(content_faults(log)), "")
    registers = {} if fault else replay_rtmrs(log)
    return _Ccel(registers=MappingProxyType(registers), fault=fault, secure_boot=secure_boot(log, "sha384", 1))


def _dstack(raw: bytes, registers: Mapping[int, bytes]) -> tuple[set[int], dict[str, ClaimValue]]:
    events, replayed = read_dstack_log(raw)
    held = _matching(replayed, registers)
    return held, dict(_boot_values(events)) if 3 in held else {}


def _boot_values(events: tuple[DstackEvent, ...]) -> Iterable[tuple[str, ClaimValue]]:
    """What dstack measured before the application ran; the application itself writes what comes after."""
    for event, claim in _DSTACK.items():
        payload = dstack_boot_value(events, event)
        if payload is not None:
            yield claim, payload.hex()


def _matching(replayed: Mapping[int, bytes], registers: Mapping[int, bytes]) -> set[int]:
    return {number for number, value in replayed.items() if registers.get(number) == value}
