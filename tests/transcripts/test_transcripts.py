"""Every transcript in this folder is replayed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_every_transcript_has_a_test():
    assert {path.name for path in HERE.glob("*.txt")} == {"usage.txt", "files.txt", "stored.txt", "live.txt"}


def test_usage(replay):
    replay("usage.txt")


def test_files(replay, tmp_path):
    (tmp_path / "empty.bin").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "garbage.bin").write_bytes(b"\x00\x01\x02\x03" * 8)
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "policy.toml").write_text("[policy]\nmrenclav = 'x'\n")
    with (tmp_path / "huge.bin").open("wb") as stream:
        stream.truncate(200 * 1024 * 1024)
    replay("files.txt")


def test_stored(replay, vectors, tmp_path):
    (tmp_path / "vectors").symlink_to(vectors)
    replay("stored.txt")


@pytest.fixture
def server(repository, tmp_path):
    """A server of the examples on a free port; its URL."""
    target = f"{repository / 'examples' / 'server.py'}:mcp"
    child = subprocess.Popen(
        [sys.executable, "-m", "attestable_mcp", "serve", target, "--attester", "simulated", "--json"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        line = child.stdout.readline()
        assert line, child.stderr.read().decode()
        yield json.loads(line)["url"]
    finally:
        child.terminate()
        child.communicate(timeout=20)


def test_live(replay, server):
    replay("live.txt", URL=server)
