"""An attester for machines without a TEE: real formats, worthless proof.

Its quotes carry a measurement of the server's code and configuration, so that everything above can be tried out:
pinning, refusing a changed server, binding. They hang from the simulated root, whose key is public. A verifier refuses
them unless its policy says `simulated = "accept"`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from attestable_mcp.attest.base import demand_report_data
from attestable_mcp.attest.measurement import Measurement
from attestable_mcp.rats import Endorsements, Evidence, Tee
from attestable_mcp.simulator.intel import Vendor, evidence, well_known

_REISSUE_AFTER = timedelta(days=7)
"""Collateral lives 29 days from issue: a week leaves three for a verifier whose clock or cache lags."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SimulatedAttester:
    """Quotes of an enclave that does not exist. Safe to share between threads.

    `measured` is a Measurement or the 32 bytes to report as MRENCLAVE; `vendor` is the well-known one unless given.
    """

    tee = Tee.SGX.value
    simulated = True

    def __init__(
        self, measured: Measurement | bytes, *, vendor: Vendor | None = None, now: Callable[[], datetime] = _utc_now
    ) -> None:
        self._mrenclave = measured.digest if isinstance(measured, Measurement) else measured
        if not isinstance(self._mrenclave, bytes) or len(self._mrenclave) != 32:
            raise TypeError(f"measured: wanted a Measurement or 32 bytes, seen {measured!r:.80}")
        self._vendor = vendor or well_known()
        self._now = now
        self._lock = threading.Lock()
        self._collateral: tuple[datetime, Endorsements] | None = None

    @property
    def mrenclave(self) -> bytes:
        """What the quotes report, 32 bytes."""
        return self._mrenclave

    def attest(self, report_data: bytes) -> Evidence:
        """An SGX quote v3 over 64 bytes, well under a millisecond: keys and certificates are made once."""
        return evidence(self._vendor.quote_sgx(demand_report_data(report_data), self._mrenclave))

    def endorsements(self) -> Endorsements:
        """Collateral that is valid now; issued anew each week, and at once when the clock has been set back."""
        now = self._now()
        with self._lock:
            if self._collateral is None or not timedelta(0) <= now - self._collateral[0] < _REISSUE_AFTER:
                self._collateral = (now, self._vendor.collateral(at=now))
            return self._collateral[1]
