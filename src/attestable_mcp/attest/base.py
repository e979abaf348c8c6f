"""What every attesting device offers, whatever it is.

An Attester signs what it is handed, so what it is handed is decided here: 64 bytes that `bind.transcript` or
`wire.ratls` computed from typed parts inside this process. No verb, header or tool argument of a peer ever reaches
`attest` as bytes, for then a peer could have a transcript of its own making signed (attacks.md C12).
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from attestable_mcp.rats import Endorsements, Evidence

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
