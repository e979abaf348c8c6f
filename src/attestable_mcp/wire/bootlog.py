"""What an event log says of the boot, read so that nobody who writes the log can make it say more (attack P8).

Digests are proven by the replay; types, names and data are not. Whoever controls the system may therefore call an event
whatever she likes, and extend registers with digests of her own choosing, but only after the firmware has handed over:
the firmware closes its registers with a separator first (TCG PC Client Platform Firmware Profile 1.06 §3.3.2). So

- the Secure Boot variable counts only before the separator of its register, and
- every event of the boot register is a booted application, whatever its type says, but for a few whose digest is that
  of a fixed text.

All of this holds only in a bank whose replay matched the register: digests of other banks are hearsay.
"""

from __future__ import annotations

import hashlib

from attestable_mcp.wire.eventlog import NO_ACTION, VARIABLE_DRIVER_CONFIG, Event, EventLog, read_variable

_SEPARATORS = (bytes(4), b"\xff" * 4)
_ACTIONS = (
    b"Calling EFI Application from Boot Option",
    b"Returning from EFI Application from Boot Option",
    b"Exit Boot Services Invocation",
    b"Exit Boot Services Returned with Success",
)
"""Texts that the firmware measures into the boot register beside applications (PFP 1.06 §10.4.3)."""


def secure_boot(log: EventLog, bank: str, register: int = 7) -> bool | None:
    """Was Secure Boot on? None where nothing before the register's separator proves it, or where two events disagree.

    `register` is PCR 7, or 1 in a CCEL (RTMR0). An event counts if its digest in this bank measures its data.
    """
    said: set[bool] = set()
    for event in _extending(log, register):
        if _is_one_of(event, bank, _SEPARATORS):
            return said.pop() if len(said) == 1 else None
        if event.type == VARIABLE_DRIVER_CONFIG and _is_one_of(event, bank, (event.data,)):
            variable = read_variable(event)
            if variable and variable[0] == "SecureBoot" and len(variable[1]) == 1:
                said.add(variable[1] == b"\1")
    return None  # no separator: nothing tells the firmware's events from those of whoever came after


def boot_applications(log: EventLog, bank: str, register: int = 4) -> tuple[str, ...]:
    """Digests (hex) of all that was measured into the boot register, but separators and the firmware's fixed texts.

    `register` is PCR 4, or 2 in a CCEL (RTMR1). For EFI applications these are Authenticode digests.
    """
    fixed = (*_SEPARATORS, *_ACTIONS)
    found = [event.digests[bank].hex() for event in _extending(log, register) if not _is_one_of(event, bank, fixed)]
    return tuple(dict.fromkeys(found))


def _extending(log: EventLog, register: int) -> list[Event]:
    return [event for event in log.events if event.index == register and event.type != NO_ACTION]


def _is_one_of(event: Event, bank: str, texts: tuple[bytes, ...]) -> bool:
    """Is its digest that of one of these texts? What the event says of itself does not matter."""
    return any(hashlib.new(bank, text).digest() == event.digests.get(bank) for text in texts)
