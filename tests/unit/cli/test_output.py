"""Files that verbs write: whole or not at all, never over another without --force."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from attestable_mcp.cli.output import write_file, write_parts
from attestable_mcp.errors import ConfigurationError, ReceiptError

posix = pytest.mark.skipif(os.name != "posix", reason="modes, links and devices are POSIX's")


def _fails() -> Iterator[str]:
    yield "half"
    raise ReceiptError("damaged", code="receipt_chain")


def test_a_file_that_exists_stands(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, "old", force=False)
    with pytest.raises(ConfigurationError) as caught:
        write_file(path, "new", force=False)
    assert caught.value.code == "file_exists"
    assert path.read_text() == "old"
    write_file(path, b"new", force=True)
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("force", [False, True])
def test_an_error_on_the_way_leaves_no_half_file(tmp_path: Path, force: bool) -> None:
    path = tmp_path / "file"
    if force:
        path.write_text("old")
    with pytest.raises(ReceiptError):
        write_parts(path, _fails(), force=force)
    assert os.listdir(tmp_path) == (["file"] if force else [])
    assert not force or path.read_text() == "old"


@posix
@pytest.mark.parametrize("force", [False, True])
def test_a_private_file_is_its_users_alone(tmp_path: Path, force: bool) -> None:
    path = tmp_path / "key"
    if force:
        path.write_text("old")
        path.chmod(0o644)
    write_file(path, "secret", force=force, private=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@posix
def test_what_is_replaced_keeps_its_mode_and_its_link(tmp_path: Path) -> None:
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_text("old")
    path.chmod(0o640)
    link.symlink_to(path)
    write_file(link, "new", force=True)
    assert link.is_symlink()
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@posix
def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_file(pipe, "through", force=True)
        assert os.read(reader, 20) == b"through"
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    for force in (False, True):
        with pytest.raises(ConfigurationError) as caught:
            write_file(tmp_path / "none" / "file", "x", force=force)
        assert caught.value.code == "unwritable"
