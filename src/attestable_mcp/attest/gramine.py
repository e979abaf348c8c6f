"""SGX evidence from inside Gramine, through the pseudo-files of `/dev/attestation` (Gramine docs, Attestation).

Facts that shape this code: files exist only under SGX; their stat size is always 0, so they are read to the end;
`user_report_data` takes its 64 bytes in ONE write call; `quote` is made when it is opened, so each quote needs a new
open after the write, and a lock around the pair; every failure comes as a bare EACCES.
"""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Protocol

from attestable_mcp.attest.base import REPORT_DATA_SIZE, demand_carries, demand_report_data
from attestable_mcp.errors import AttesterAbsent, AttesterError
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind, Tee

DEVICE_ROOT = Path("/dev/attestation")
_BLOCK = 16 * 1024
_FLAGS = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class Device(Protocol):
    """The pseudo-files by name. Each call opens anew: Gramine does its work at open."""

    def read(self, name: str, limit: int) -> bytes:
        """Open, read to the end or one byte past `limit`, close.

        Raises:
            OSError: As the operating system says it.
        """
        ...

    def write(self, name: str, data: bytes) -> int:
        """Open, write in one call, close; how many bytes were taken.

        Raises:
            OSError: As the operating system says it.
        """
        ...


class FileDevice:
    """The device as files under a root, unbuffered."""

    def __init__(self, root: Path = DEVICE_ROOT) -> None:
        self._root = root

    def read(self, name: str, limit: int) -> bytes:
        """See Device. The stat size is not asked: it is always 0."""
        descriptor = os.open(self._root / name, os.O_RDONLY | _FLAGS)
        try:
            content = b""
            while len(content) <= limit and (block := os.read(descriptor, min(_BLOCK, limit + 1 - len(content)))):
                content += block
            return content
        finally:
            os.close(descriptor)

    def write(self, name: str, data: bytes) -> int:
        """See Device. Neither creates nor truncates: a file that is not there stays away."""
        descriptor = os.open(self._root / name, os.O_WRONLY | _FLAGS)
        try:
            return os.write(descriptor, data)
        finally:
            os.close(descriptor)


class GramineAttester:
    """The enclave that this process runs in. Safe to share between threads.

    Raises:
        AttesterError: There is no device, or it does not offer DCAP quotes.
    """

    tee = Tee.SGX.value
    simulated = False

    def __init__(self, root: Path = DEVICE_ROOT, *, device: Device | None = None) -> None:
        self._device = device if device is not None else FileDevice(root)
        self._where = str(root)
        self._lock = threading.Lock()
        self._demand_dcap()

    def _demand_dcap(self) -> None:
        kind = self._read("attestation_type", 64)
        if kind != b"dcap":
            raise AttesterError(
                f"{self._where}/attestation_type: wanted dcap, seen {kind.decode('ascii', 'replace')!r}",
                hint='set sgx.remote_attestation = "dcap" in the manifest and sign it again',
            )

    def attest(self, report_data: bytes) -> Evidence:
        """A DCAP quote over 64 bytes. Milliseconds to tens of them, at the pace of the quoting enclave.

        Raises:
            AttesterError: The device refuses, or answers with a quote over other report data.
        """
        demand_report_data(report_data)
        with self._lock:
            self._write("user_report_data", report_data)
            quote = self._read("quote", LIMITS.evidence)
        evidence = Evidence(kind=EvidenceKind.INTEL_QUOTE, body=quote)
        demand_carries(evidence, report_data, f"{self._where}/quote")
        return evidence

    def endorsements(self) -> Endorsements:
        """None: Gramine hands out quotes only. Collateral comes from a PCS or PCCS."""
        return Endorsements()

    def _write(self, name: str, data: bytes) -> None:
        try:
            taken = self._device.write(name, data)
        except OSError as error:
            raise self._fault(name, error) from error
        if taken != REPORT_DATA_SIZE:
            raise AttesterError(
                f"{self._where}/{name}: wanted {REPORT_DATA_SIZE} bytes taken in one write, seen {taken}"
            )

    def _read(self, name: str, limit: int) -> bytes:
        try:
            content = self._device.read(name, limit)
        except OSError as error:
            raise self._fault(name, error) from error
        if not content or len(content) > limit:
            raise AttesterError(f"{self._where}/{name}: wanted 1 to {limit} bytes, seen {len(content)}")
        return content

    def _fault(self, name: str, error: OSError) -> AttesterError:
        hints = {
            errno.ENOENT: "run under gramine-sgx; gramine-direct and plain processes have no attestation device",
            errno.EACCES: "Gramine says no more than this: see whether the host's aesmd and PCCS answer, and whether"
            " the manifest has sgx.remote_attestation",
            errno.EPERM: "the manifest or the host forbids the device to this process",
        }
        reason = error.strerror or type(error).__name__
        kind = AttesterAbsent if error.errno == errno.ENOENT else AttesterError
        return kind(f"{self._where}/{name}: {reason}", hint=hints.get(error.errno or 0))
