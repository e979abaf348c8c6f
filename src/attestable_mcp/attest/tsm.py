"""TDX quotes and SEV-SNP reports from the kernel's configfs-tsm, Linux 6.7 and later.

Facts that shape this code (Linux, Documentation/ABI/testing/configfs-tsm-report): a report is a directory that one
makes under `/sys/kernel/config/tsm/report`; the kernel fills it with attributes. A write to `inblob` takes effect when
the file is closed, and errors at that moment are lost, so `generation`, which counts writes, is the only witness that
ours came through and nobody else's came after. `outblob` is made while it is read. Each quote gets a directory of its
own with a name that nobody guesses, so that no other program's writes come between. A TDX guest's firmware has left an
event log (`ccel`), which goes along.
"""

from __future__ import annotations

import errno
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from attestable_mcp.attest.base import demand_carries, demand_report_data
from attestable_mcp.attest.eventlogs import TABLES, log_endorsements, read_ccel
from attestable_mcp.attest.gramine import FileDevice
from attestable_mcp.attest.pace import Pace
from attestable_mcp.errors import AttesterAbsent, AttesterError, EvidenceError
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind, Tee
from attestable_mcp.wire.snp import read_certificate_table

REPORT_ROOT = Path("/sys/kernel/config/tsm/report")
_PROVIDERS = {
    "tdx_guest": (Tee.TDX, EvidenceKind.INTEL_QUOTE),
    "sev_guest": (Tee.SEV_SNP, EvidenceKind.SNP_REPORT),
}
_TABLE_MOST = 64 * 1024
_ABSENT = frozenset({errno.ENOENT, errno.ENODATA, errno.ENXIO, errno.EOPNOTSUPP})
"""What reading `auxblob` says where the host hands out no certificates."""

_NO_DEVICE = frozenset({errno.ENOENT, errno.ENXIO})


class ReportFiles(Protocol):
    """The directory of reports. Each call opens anew and closes: the kernel does its work at open and at close."""

    def make(self, name: str) -> None:
        """mkdir. Raises: OSError."""
        ...

    def remove(self, name: str) -> None:
        """rmdir. Raises: OSError."""
        ...

    def read(self, name: str, limit: int) -> bytes:
        """Read `REPORT/ATTRIBUTE` to the end, or one byte past `limit`. Raises: OSError."""
        ...

    def write(self, name: str, data: bytes) -> int:
        """Write in one call and close; how many bytes were taken. Raises: OSError."""
        ...


class ConfigfsFiles(FileDevice):
    """The real one."""

    def __init__(self, root: Path = REPORT_ROOT) -> None:
        super().__init__(root)
        self._directory = root

    def make(self, name: str) -> None:
        """See ReportFiles."""
        os.mkdir(self._directory / name)

    def remove(self, name: str) -> None:
        """See ReportFiles."""
        os.rmdir(self._directory / name)


class TsmAttester:
    """The confidential VM that this process runs in: TDX or SEV-SNP, as the kernel says. Safe to share between threads.

    Raises:
        AttesterError: there is no configfs-tsm, or no provider of a kind that is known here.
    """

    simulated = False

    def __init__(
        self,
        root: Path = REPORT_ROOT,
        *,
        files: ReportFiles | None = None,
        pace: Pace | None = None,
        tables: Path = TABLES,
    ) -> None:
        self._files = files if files is not None else ConfigfsFiles(root)
        self._where = str(root)
        self._lock = threading.Lock()
        self._given = Endorsements()
        self._tables = tables
        self._kind, self.tee = self._provider()
        # Nobody throttles TDX quotes, whose quoting enclave takes tens of milliseconds for each.
        self._pace = pace or (Pace() if self._kind is EvidenceKind.SNP_REPORT else Pace(every=0))

    def _provider(self) -> tuple[EvidenceKind, str]:
        with self._report() as report:
            name = self._read(f"{report}/provider", 64).decode("ascii", "replace").strip()
        if name not in _PROVIDERS:
            raise AttesterError(
                f"{self._where}: wanted provider {' or '.join(_PROVIDERS)}, seen {name!r:.40}",
                hint="this kind of confidential VM is not known here",
            )
        tee, kind = _PROVIDERS[name]
        return kind, tee.value

    def attest(self, report_data: bytes) -> Evidence:
        """A quote or report over 64 bytes. Tens of milliseconds; seconds where the host throttles.

        Raises:
            AttesterError: the kernel or the host refuses, throttles for too long, or answers for other report data.
        """
        demand_report_data(report_data)
        with self._lock:
            body = self._paced(report_data)
        evidence = Evidence(kind=self._kind, body=body)
        demand_carries(evidence, report_data, self._where)
        return evidence

    def endorsements(self) -> Endorsements:
        """What the host gave with the last report; on TDX the firmware's event log: collateral comes from Intel."""
        if self._kind is EvidenceKind.INTEL_QUOTE:
            return log_endorsements(read_ccel(self._tables), str(self._tables / "data" / "CCEL"))
        return self._given

    def _paced(self, report_data: bytes) -> bytes:
        try:
            return self._pace.run(lambda: self._make(report_data), self._where)
        except OSError as error:
            raise self._fault("outblob", error) from error

    def _make(self, report_data: bytes) -> bytes:
        """One report. OSError leaves as it is, for `Pace` to look at."""
        with self._report() as report:
            before = self._generation(report)
            self._files.write(f"{report}/inblob", report_data)
            body = self._files.read(f"{report}/outblob", LIMITS.evidence)
            table = self._table(report)
            after = self._generation(report)
        if after != before + 1:
            raise OSError(errno.EAGAIN, f"generation went from {before} to {after}: our write is not the only one")
        if not 0 < len(body) <= LIMITS.evidence:
            raise AttesterError(f"{self._where}/outblob: wanted 1 to {LIMITS.evidence} bytes, seen {len(body)}")
        self._keep(table)
        return body

    def _table(self, report: str) -> bytes:
        if self._kind is not EvidenceKind.SNP_REPORT:
            return b""
        try:
            return self._files.read(f"{report}/auxblob", _TABLE_MOST)
        except OSError as error:
            if error.errno in _ABSENT:
                return b""
            raise

    def _keep(self, table: bytes) -> None:
        """Remember what can be read of it. The host's table proves nothing, so a damaged one is only no help."""
        try:
            found = read_certificate_table(table) if table else {}
        except EvidenceError:
            found = {}
        self._given = Endorsements(
            certificates=tuple(raw for name, raw in found.items() if name != "CRL"),
            crls=tuple(raw for name, raw in found.items() if name == "CRL"),
            sources=(f"{self._where} (auxblob)",) if found else (),
        )

    def _generation(self, report: str) -> int:
        text = self._files.read(f"{report}/generation", 32).strip()
        if not text.isdigit():
            raise AttesterError(f"{self._where}/generation: wanted a number, seen {text[:32]!r}")
        return int(text)

    @contextmanager
    def _report(self) -> Iterator[str]:
        """A fresh directory, removed again whatever happens."""
        name = f"attestable-mcp-{secrets.token_hex(8)}"
        try:
            self._files.make(name)
        except OSError as error:
            raise self._fault("", error) from error
        try:
            yield name
        finally:
            try:
                self._files.remove(name)
            except OSError:
                pass  # a directory left behind costs the kernel a page, a failed quote costs a connection

    def _read(self, name: str, limit: int) -> bytes:
        try:
            return self._files.read(name, limit)
        except OSError as error:
            raise self._fault(name.partition("/")[2], error) from error

    def _fault(self, name: str, error: OSError) -> AttesterError:
        hints = {
            errno.ENOENT: "wanted Linux 6.7 or later with configfs mounted (mount -t configfs none /sys/kernel/config)"
            " and the guest driver loaded (modprobe tdx_guest or sev-guest)",
            errno.ENXIO: "no driver offers reports: modprobe tdx_guest or sev-guest, inside the confidential VM",
            errno.EACCES: "configfs is root's: run as root, or let root give this user the directory",
            errno.EPERM: "configfs is read-only here: give the container /sys/kernel/config writable",
            errno.EROFS: "configfs is read-only here: give the container /sys/kernel/config writable",
            errno.EINVAL: "the kernel took no report data: is another program writing to the same report?",
        }
        where = f"{self._where}/{name}" if name else self._where
        kind = AttesterAbsent if error.errno in _NO_DEVICE else AttesterError
        return kind(f"{where}: {error.strerror or type(error).__name__}", hint=hints.get(error.errno or 0, ""))
