"""An attester for machines without a TEE: real formats, worthless proof.

It plays every kind of TEE. Its evidence carries a measurement of the server's code and configuration where that kind
has it, so that everything above can be tried out: pinning, refusing a changed server, binding. It hangs from the
simulated roots, whose keys are public. A verifier refuses it unless its policy says `simulated = "accept"`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Protocol

from attestable_mcp.attest.base import demand_report_data
from attestable_mcp.attest.measurement import Measurement
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.rats import Endorsements, Evidence, Tee
from attestable_mcp.simulator import amd, aws, azure, tpm
from attestable_mcp.simulator.aws import Document
from attestable_mcp.simulator.azure import Hcl
from attestable_mcp.simulator.eventlog import Event
from attestable_mcp.simulator.intel import Vendor, well_known
from attestable_mcp.simulator.options import TdxBody
from attestable_mcp.simulator.tpm import TpmQuote
from attestable_mcp.wire.kinds import kind_of_tee

_REISSUE_AFTER = timedelta(days=7)
"""Collateral lives 29 days from issue: a week leaves three for a verifier whose clock or cache lags."""
MEASURED_PCR = 11
"""Where a TPM finds the booted image (systemd's stub, UAPI group's TPM PCR registry)."""


class Player(Protocol):
    """One kind of TEE with one measurement."""

    def body(self, report_data: bytes, at: datetime) -> bytes:
        """Evidence over these 64 bytes."""
        ...

    def collateral(self, at: datetime) -> Endorsements:
        """Collateral that is valid then."""
        ...


class IntelPlayer:
    """SGX with the measurement as MRENCLAVE, or TDX with its SHA-384 as MRTD."""

    def __init__(self, measured: bytes, tee: Tee, vendor: Vendor | None = None) -> None:
        self._measured = measured
        self._tee = tee
        self._vendor = vendor or well_known()

    def body(self, report_data: bytes, at: datetime) -> bytes:
        """See Player."""
        if self._tee is Tee.SGX:
            return self._vendor.quote_sgx(report_data, self._measured)
        return self._vendor.quote_tdx(report_data, body=TdxBody(mrtd=wide(self._measured)))

    def collateral(self, at: datetime) -> Endorsements:
        """See Player."""
        return self._vendor.collateral(at=at, tee=self._tee)


class AmdPlayer:
    """SEV-SNP on a Genoa chip with SHA-384 of the measurement as MEASUREMENT."""

    def __init__(self, measured: bytes, vendor: amd.AmdVendor | None = None) -> None:
        self._measurement = wide(measured)
        self._vendor = vendor or amd.well_known()

    def body(self, report_data: bytes, at: datetime) -> bytes:
        """See Player."""
        return self._vendor.report(report_data, self._measurement)

    def collateral(self, at: datetime) -> Endorsements:
        """See Player."""
        return self._vendor.collateral(at=at)


class AwsPlayer:
    """A Nitro enclave with SHA-384 of the measurement as PCR0. It needs no collateral."""

    def __init__(self, measured: bytes, vendor: aws.AwsVendor | None = None) -> None:
        self._document = Document(pcrs={0: wide(measured)})
        self._vendor = vendor or aws.well_known()

    def body(self, report_data: bytes, at: datetime) -> bytes:
        """See Player."""
        return self._vendor.document(report_data, at=at, options=self._document)

    def collateral(self, at: datetime) -> Endorsements:
        """See Player."""
        return Endorsements()


class TpmPlayer:
    """A TPM whose PCR 11 was extended with SHA-256 of the measurement, and whose log says so."""

    def __init__(self, measured: bytes, vendor: tpm.TpmVendor | None = None) -> None:
        self._quote = TpmQuote(events=_boot(measured), with_certificates=True)
        self._vendor = vendor or tpm.well_known()

    def body(self, report_data: bytes, at: datetime) -> bytes:
        """See Player."""
        return self._vendor.evidence(report_data, options=self._quote)

    def collateral(self, at: datetime) -> Endorsements:
        """See Player."""
        return self._vendor.collateral(at=at)


class AzurePlayer:
    """An Azure VM: the measurement as in `AmdPlayer`, or in `IntelPlayer` on TDX, and in PCR 11 of its vTPM."""

    def __init__(self, measured: bytes, tee: Tee, vm: azure.AzureVm | None = None) -> None:
        self._hcl = Hcl(measurement=wide(measured), tdx=tee is Tee.AZURE_TDX)
        self._quote = TpmQuote(events=_boot(measured))
        self._vm = vm or azure.well_known()

    def body(self, report_data: bytes, at: datetime) -> bytes:
        """See Player."""
        return self._vm.evidence(report_data, hcl=self._hcl, quote=self._quote)

    def collateral(self, at: datetime) -> Endorsements:
        """See Player."""
        return self._vm.intel.collateral(at=at, tee=Tee.TDX) if self._hcl.tdx else self._vm.amd.collateral(at=at)


PLAYERS: Mapping[Tee, Callable[[bytes], Player]] = MappingProxyType(
    {
        Tee.SGX: lambda measured: IntelPlayer(measured, Tee.SGX),
        Tee.TDX: lambda measured: IntelPlayer(measured, Tee.TDX),
        Tee.SEV_SNP: AmdPlayer,
        Tee.NITRO: AwsPlayer,
        Tee.TPM: TpmPlayer,
        Tee.AZURE_SEV_SNP: lambda measured: AzurePlayer(measured, Tee.AZURE_SEV_SNP),
        Tee.AZURE_TDX: lambda measured: AzurePlayer(measured, Tee.AZURE_TDX),
    }
)
"""Every kind that can be played."""


def _boot(measured: bytes) -> tuple[Event, ...]:
    return (Event(pcr=0, data=b"firmware"), Event(pcr=4, data=b"boot loader"), Event(pcr=MEASURED_PCR, data=measured))


def wide(measured: bytes) -> bytes:
    """The 48 bytes that stand for a measurement where a register has 48."""
    return hashlib.sha384(measured).digest()


def _utc_now() -> datetime:
    return datetime.now(UTC)


class SimulatedAttester:
    """Evidence of a TEE that does not exist. Safe to share between threads.

    `measured` is a Measurement or the 32 bytes to report; `tee` is the kind to play. `vendor` is another Intel than the
    well-known one, `player` another of any kind.

    Raises:
        ConfigurationError: this kind cannot be played.
    """

    simulated = True

    def __init__(
        self,
        measured: Measurement | bytes,
        *,
        tee: Tee | str = Tee.SGX,
        vendor: Vendor | None = None,
        player: Player | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._measured = measured.digest if isinstance(measured, Measurement) else measured
        if not isinstance(self._measured, bytes) or len(self._measured) != 32:
            raise TypeError(f"measured: wanted a Measurement or 32 bytes, seen {measured!r:.80}")
        kind = _playable(tee)
        self.tee = kind.value
        self._kind = kind_of_tee(kind)
        self._player = player or (
            IntelPlayer(self._measured, kind, vendor) if vendor else PLAYERS[kind](self._measured)
        )
        self._now = now
        self._lock = threading.Lock()
        self._collateral: tuple[datetime, Endorsements] | None = None

    @property
    def mrenclave(self) -> bytes:
        """What SGX quotes report, 32 bytes; other kinds report what follows from it."""
        return self._measured

    def attest(self, report_data: bytes) -> Evidence:
        """Evidence over 64 bytes, a millisecond or few: keys and certificates are made once."""
        return Evidence(kind=self._kind, body=self._player.body(demand_report_data(report_data), self._now()))

    def endorsements(self) -> Endorsements:
        """Collateral that is valid now; issued anew each week, and at once when the clock has been set back."""
        now = self._now()
        with self._lock:
            if self._collateral is None or not timedelta(0) <= now - self._collateral[0] < _REISSUE_AFTER:
                self._collateral = (now, self._player.collateral(now))
            return self._collateral[1]


def _playable(tee: Tee | str) -> Tee:
    if tee in PLAYERS:
        return Tee(tee)
    raise ConfigurationError(f"simulated TEE: wanted one of {', '.join(PLAYERS)}, seen {tee!r:.40}")
