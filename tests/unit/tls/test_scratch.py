"""What sockets are read into: shared by a thread's connections, never by two threads."""

from __future__ import annotations

import sys
import threading

import pytest

from attestable_mcp.tls.scratch import READ, read_buffer


@pytest.mark.skipif(sys.platform == "win32", reason="there each connection has its own")
def test_a_thread_has_one_and_no_other_threads() -> None:
    mine, theirs = read_buffer(), []
    thread = threading.Thread(target=lambda: theirs.append(read_buffer()))
    thread.start()
    thread.join()
    assert read_buffer() is mine
    mine[0], theirs[0][0] = 1, 2
    assert (mine[0], len(mine), len(theirs[0])) == (1, READ, READ)
