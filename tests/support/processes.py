"""Looking at processes that a test did not start itself."""

from __future__ import annotations

import os


def is_alive(pid: int) -> bool:
    """Is there such a process, or what is left of one that nobody has waited for?"""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
