"""Children are ended with all that they start; the Windows half runs against a kernel that keeps Windows' rules."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from attestable_mcp.mcp import groups


class Kernel:
    """Job objects as documented: handles, what must be open, who dies when."""

    def __init__(self, *, refuse: str = "") -> None:
        self.refuse = refuse
        self.open: dict[int, str] = {}
        self.inside: set[int] = set()
        self.dead: set[int] = set()
        self.kills_on_close = False
        self.breaks: list[tuple[int, int]] = []
        self._next = 0x1_0000_0000

    def _handle(self, kind: str) -> int:
        if self.refuse == kind:
            return 0
        self._next += 4
        self.open[self._next] = kind
        return self._next

    def CreateJobObjectW(self, attributes: None, name: None) -> int | None:
        return self._handle("job") or None

    def OpenProcess(self, access: int, inherit: bool, pid: int) -> int:
        assert access == 0x0100 | 0x0001  # PROCESS_SET_QUOTA, PROCESS_TERMINATE
        assert not inherit
        return self._handle(f"process {pid}") if self.refuse != "process" else 0

    def SetInformationJobObject(self, job: int, kind: int, pointer: Any, size: int) -> int:
        assert self.open[job] == "job"
        assert kind == 9  # JobObjectExtendedLimitInformation
        limits = pointer._obj
        assert size == ctypes.sizeof(limits)
        self.kills_on_close = bool(limits.BasicLimitInformation.LimitFlags & 0x2000)
        return int(self.refuse != "limits")

    def AssignProcessToJobObject(self, job: int, process: int) -> int:
        assert self.open[job] == "job"
        if self.refuse == "assign":
            return 0
        self.inside.add(int(self.open[process].split()[1]))
        return 1

    def TerminateJobObject(self, job: int, code: int) -> int:
        assert self.open[job] == "job"
        assert code == 1
        self.dead |= self.inside
        return int(self.refuse != "terminate")

    def GenerateConsoleCtrlEvent(self, event: int, group: int) -> int:
        self.breaks.append((event, group))
        return 0

    def CloseHandle(self, handle: int) -> int:
        if self.open.pop(handle) == "job" and self.kills_on_close:
            self.dead |= self.inside
        return 1


def test_the_structures_have_the_sizes_that_windows_checks() -> None:
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        pytest.skip("the sizes are those of 64-bit systems")
    assert ctypes.sizeof(groups._BasicLimits) == 64
    assert ctypes.sizeof(groups._ExtendedLimits) == 144


def test_a_job_ends_the_child_with_its_descendants() -> None:
    kernel, alone = Kernel(), []
    group = groups.WindowsGroup(7, lambda: alone.append(7), kernel)
    kernel.inside.add(8)
    assert list(kernel.open.values()) == ["job"]
    group.terminate()
    assert kernel.breaks == [(1, 7)]
    assert not kernel.dead
    group.kill()
    assert kernel.dead == {7, 8}
    group.close()
    group.close()
    assert not kernel.open
    assert not alone


def test_closing_the_job_is_enough_to_end_it() -> None:
    kernel = Kernel()
    groups.WindowsGroup(7, lambda: None, kernel).close()
    assert kernel.dead == {7}


@pytest.mark.parametrize("refused", ["job", "process", "limits", "assign"])
def test_without_a_job_the_child_alone_is_ended_and_no_handle_stays(refused: str, caplog: Any) -> None:
    kernel, alone = Kernel(refuse=refused), []
    group = groups.WindowsGroup(7, lambda: alone.append(7), kernel)
    assert "may outlive it" in caplog.text
    group.kill()
    group.close()
    assert alone == [7]
    assert not kernel.open


def test_a_job_that_cannot_be_ended_falls_back_and_a_gone_child_is_no_fault() -> None:
    def gone() -> None:
        raise ProcessLookupError

    groups.WindowsGroup(7, gone, Kernel(refuse="terminate")).kill()


@pytest.mark.skipif(os.name == "nt", reason="process groups are POSIX")
def test_a_group_ends_with_its_grandchildren(tmp_path: Path) -> None:
    note = tmp_path / "grandchild"
    inner = f"import os, pathlib, time; pathlib.Path({str(note)!r}).write_text(str(os.getpid())); time.sleep(60)"
    outer = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {inner!r}]); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", outer], **groups.spawn_options())
    deadline = time.monotonic() + 20
    while (not note.exists() or not note.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    group = groups.group_of(child.pid, child.kill)
    group.kill()
    child.wait(10)
    pid = int(note.read_text())
    while time.monotonic() < deadline and Path(f"/proc/{pid}").exists() and not _zombie(pid):
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists() or _zombie(pid)
    group.terminate()
    group.kill()
    group.close()


def _zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
