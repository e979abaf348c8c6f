"""A child process with all that it starts, ended together: a process group on POSIX, a job object on Windows.

A server started through npx, uv or a shell is seldom the process that was started. On Windows the job kills what is in
it when its last handle closes, so that nothing survives us either, however we end; where no job can be made, the child
alone is ended. Sources: POSIX killpg; Microsoft, "Job Objects", JOBOBJECT_EXTENDED_LIMIT_INFORMATION.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

_log = logging.getLogger(__name__)
_KILL_ON_JOB_CLOSE = 0x2000
_EXTENDED_LIMITS = 9
_SET_QUOTA_AND_TERMINATE = 0x0101
_NEW_PROCESS_GROUP = 0x0200
_CTRL_BREAK = 1
_EXIT_CODE = 1


class Group(Protocol):
    """One child and its descendants. No method raises: whoever is gone is gone."""

    def terminate(self) -> None:
        """Ask them to end."""

    def kill(self) -> None:
        """End them."""

    def close(self) -> None:
        """Give back what the system keeps for it."""


def spawn_options() -> dict[str, Any]:
    """What a child must be started with, so that a group can be made of it."""
    if sys.platform == "win32":
        return {"creationflags": _NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def group_of(pid: int, kill_alone: Callable[[], None]) -> Group:
    """The group of a child that was started with `spawn_options`; `kill_alone` ends the child by itself."""
    if sys.platform == "win32":
        return WindowsGroup(pid, kill_alone, _kernel32())
    return PosixGroup(pid)


class PosixGroup:
    """The process group that the child leads."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def terminate(self) -> None:
        """SIGTERM to all."""
        self._signal("SIGTERM")

    def kill(self) -> None:
        """SIGKILL to all."""
        self._signal("SIGKILL")

    def close(self) -> None:
        """Nothing is kept."""

    def _signal(self, name: str) -> None:
        if sys.platform != "win32":
            with suppress(ProcessLookupError, PermissionError, OSError):
                os.killpg(self._pid, signal.Signals[name])


class _BasicLimits(ctypes.Structure):
    _fields_ = (
        ("PerProcessUserTimeLimit", ctypes.c_int64),
        ("PerJobUserTimeLimit", ctypes.c_int64),
        ("LimitFlags", ctypes.c_uint32),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", ctypes.c_uint32),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", ctypes.c_uint32),
        ("SchedulingClass", ctypes.c_uint32),
    )


class _ExtendedLimits(ctypes.Structure):
    _fields_ = (
        ("BasicLimitInformation", _BasicLimits),
        ("IoInfo", ctypes.c_uint64 * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    )


class WindowsGroup:
    """A job object with the child in it. `kernel32` is that library, its functions' types set (`_kernel32`)."""

    def __init__(self, pid: int, kill_alone: Callable[[], None], kernel32: Any) -> None:
        self._pid = pid
        self._kill_alone = kill_alone
        self._kernel32 = kernel32
        self._job = self._make() or None
        if self._job is None:
            _log.warning("no job object for process %d: what it starts may outlive it", pid)

    def _make(self) -> int:
        """The job's handle, 0 where the system refuses one."""
        api = self._kernel32
        job: int = api.CreateJobObjectW(None, None) or 0
        process = api.OpenProcess(_SET_QUOTA_AND_TERMINATE, False, self._pid) if job else 0
        limits = _ExtendedLimits()
        limits.BasicLimitInformation.LimitFlags = _KILL_ON_JOB_CLOSE
        made = bool(
            process
            and api.SetInformationJobObject(job, _EXTENDED_LIMITS, ctypes.byref(limits), ctypes.sizeof(limits))
            and api.AssignProcessToJobObject(job, process)
        )
        for handle in (process, 0 if made else job):
            if handle:
                api.CloseHandle(handle)
        return job if made else 0

    def terminate(self) -> None:
        """Ctrl-Break to the child's console group, which only console programs hear."""
        self._kernel32.GenerateConsoleCtrlEvent(_CTRL_BREAK, self._pid)

    def kill(self) -> None:
        """End the job; the child alone where there is none."""
        if self._job is None or not self._kernel32.TerminateJobObject(self._job, _EXIT_CODE):
            with suppress(ProcessLookupError, PermissionError, OSError):
                self._kill_alone()

    def close(self) -> None:
        """Close the job, which ends whoever is left in it."""
        job, self._job = self._job, None
        if job is not None:
            self._kernel32.CloseHandle(job)


def _kernel32() -> Any:
    """The library with the types of what is called: handles are pointers, and ctypes would cut them to 32 bits."""
    api = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined,unused-ignore]
    handle, word, flag, pointer = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p
    for name, result, arguments in (
        ("CreateJobObjectW", handle, (pointer, ctypes.c_wchar_p)),
        ("OpenProcess", handle, (word, flag, word)),
        ("SetInformationJobObject", flag, (handle, flag, pointer, word)),
        ("AssignProcessToJobObject", flag, (handle, handle)),
        ("TerminateJobObject", flag, (handle, word)),
        ("GenerateConsoleCtrlEvent", flag, (word, word)),
        ("CloseHandle", flag, (handle,)),
    ):
        function = getattr(api, name)
        function.restype, function.argtypes = result, arguments
    return api
