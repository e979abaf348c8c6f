"""Start `_server.py` in a process of its own and end it again."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def running(mode: str) -> Iterator[str]:
    """The URL of a server in `mode`, for as long as the block lasts."""
    with running_with_pid(mode) as (url, _):
        yield url


@contextlib.contextmanager
def running_with_pid(mode: str) -> Iterator[tuple[str, int]]:
    """The same with the number of its process."""
    command = [sys.executable, str(Path(__file__).with_name("_server.py")), mode]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()
        if not url:
            raise SystemExit(f"the {mode} server did not start")
        yield url, process.pid
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
