"""configfs-tsm in memory, as the kernel keeps its rules (drivers/virt/coco/guest/report.c)."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable

from attestable_mcp.simulator import amd
from attestable_mcp.simulator.intel import well_known
from attestable_mcp.simulator.options import TdxBody

INTEL, AMD = well_known(), amd.well_known()


def fault(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class Report:
    """One report directory: writes count, and a report is made anew after each of them."""

    def __init__(self) -> None:
        self.inblob = b""
        self.written = 0
        self.outblob: tuple[int, bytes] | None = None


class Kernel:
    """configfs-tsm in memory. Faults of `inblob` are lost, as at the close of a configfs file."""

    def __init__(self, provider: bytes = b"sev_guest\n") -> None:
        self.provider = provider
        self.td = TdxBody()
        self.reports: dict[str, Report] = {}
        self.made = 0
        self.busy = 0
        self.refuse: dict[str, int] = {}
        self.table = AMD.certificate_table()
        self.between: Callable[[Report], None] = lambda report: None
        self.answer: Callable[[bytes], bytes] | None = None
        self._lock = threading.Lock()

    def make(self, name: str) -> None:
        self._refuse("make")
        if name in self.reports:
            raise fault(errno.EEXIST)
        self.reports[name] = Report()
        self.made += 1

    def remove(self, name: str) -> None:
        self._refuse("remove")
        del self.reports[name]

    def write(self, name: str, data: bytes) -> int:
        report, attribute = self._find(name)
        assert attribute == "inblob"
        if "inblob" not in self.refuse and 0 < len(data) <= 64:
            report.inblob = data
            report.written += 1
        return len(data)

    def read(self, name: str, limit: int) -> bytes:
        report, attribute = self._find(name)
        self._refuse(attribute)
        match attribute:
            case "provider":
                content = self.provider
            case "generation":
                content = b"%d\n" % report.written
            case "outblob":
                content = self._outblob(report)
            case "auxblob":
                content = self.table
            case _:
                raise fault(errno.ENOENT)
        return content[: limit + 1]

    def _outblob(self, report: Report) -> bytes:
        with self._lock:
            if not report.inblob:
                raise fault(errno.EINVAL)
            if self.busy:
                self.busy -= 1
                raise fault(errno.EBUSY)
            if report.outblob is None or report.outblob[0] != report.written:
                report.outblob = (report.written, self._make(report.inblob))
        self.between(report)
        return report.outblob[1]

    def _make(self, data: bytes) -> bytes:
        data = data.ljust(64, b"\0")
        if self.answer is not None:
            return self.answer(data)
        return INTEL.quote_tdx(data, body=self.td) if self.provider == b"tdx_guest\n" else AMD.report(data, bytes(48))

    def _find(self, name: str) -> tuple[Report, str]:
        directory, _, attribute = name.partition("/")
        if directory not in self.reports:
            raise fault(errno.ENOENT)
        return self.reports[directory], attribute

    def _refuse(self, what: str) -> None:
        if what in self.refuse:
            raise fault(self.refuse[what])
