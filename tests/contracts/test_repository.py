"""What git keeps of this project: no key that a command left behind in the folder."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

# A PEM block with a body: the bare words stand in code that reads such blocks.
PRIVATE_KEY = re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\r?\n[A-Za-z0-9+/=:, -]")


def test_nothing_that_git_keeps_holds_a_private_key(repository: Path) -> None:
    if shutil.which("git") is None or not (repository / ".git").exists():
        pytest.skip("git or the repository's history is absent: nothing to look through")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, check=True, timeout=60)
    files = [repository / name.decode() for name in listed.stdout.split(b"\0") if name]
    assert len(files) > 400
    assert [str(path) for path in files if path.is_file() and PRIVATE_KEY.search(path.read_bytes())] == []
