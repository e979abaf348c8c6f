"""What every attesting device offers, whatever it is.

An Attester signs what it is handed, so what it is handed is decided here: 64 bytes that `bind.transcript` or
`wire.ratls` computed from typed parts inside this process. No verb, header or tool argument of a peer ever reaches
`attest` as bytes, for then a peer could have a transcript of its own making signed (attacks.md C12).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from attestable_mcp.errors import AttesterError, EvidenceError
from attestable_mcp.rats import Endorsements, Evidence, carried
from attestable_mcp.wire.kinds import report_data as stated_report_data

REPORT_DATA_SIZE = 64


@runtime_checkable
class Attester(Protocol):
    """A source of evidence about this very process. Every method may be called from any thread."""

    @property
    def tee(self) -> str:
        """Which kind of TEE speaks, a `rats.Tee` word."""
        ...

    @property
    def simulated(self) -> bool:
        """Whether the evidence proves nothing, because anybody can make it."""
        ...

    def attest(self, report_data: bytes) -> Evidence:
        """Fresh evidence that carries these 64 bytes: a transcript digest or a tree root, or the hash of a key claim.

        Raises:
            AttesterError: The device is absent, forbidden or faulty.
            TypeError: `report_data` is not 64 bytes (a fault of the calling code).
        """
        ...

    def endorsements(self) -> Endorsements:
        """Collateral to staple to the evidence, or an empty bag where the device has none.

        Raises:
            AttesterError: The device is absent, forbidden or faulty.
        """
        ...


class Stapling:
    """An Attester whose certificates carry further collateral: what `more` gives each time a certificate is issued."""

    def __init__(self, attester: Attester, more: Callable[[], Endorsements]) -> None:
        self._attester = attester
        self._more = more

    @property
    def tee(self) -> str:
        """See Attester."""
        return self._attester.tee

    @property
    def simulated(self) -> bool:
        """See Attester."""
        return self._attester.simulated

    def attest(self, report_data: bytes) -> Evidence:
        """See Attester."""
        return self._attester.attest(report_data)

    def endorsements(self) -> Endorsements:
        """See Attester; further, what `more` raises."""
        return self._attester.endorsements() + self._more()


def demand_report_data(report_data: bytes) -> bytes:
    """The same bytes, if they are 64.

    Raises:
        TypeError: They are not: whoever called has not hashed a transcript.
    """
    if not isinstance(report_data, bytes) or len(report_data) != REPORT_DATA_SIZE:
        raise TypeError(
            f"report data: wanted {REPORT_DATA_SIZE} bytes of a transcript digest, seen {report_data!r:.80}"
        )
    return report_data


def demand_carries(evidence: Evidence, report_data: bytes, where: str) -> None:
    """Evidence over anything else would bind nothing: better to fail here than at every peer.

    Raises:
        AttesterError: it cannot be read, or speaks of other report data.
    """
    try:
        seen = stated_report_data(evidence)
    except EvidenceError as error:
        raise AttesterError(f"{where}: wanted evidence of kind {evidence.kind}, seen {error.message}") from error
    if seen != carried(report_data, evidence.kind):
        raise AttesterError(
            f"{where}: wanted the report data just given, seen {seen.hex()[:16]}...",
            hint="another process or thread asks the device at the same time",
        )
