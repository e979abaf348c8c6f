"""Sessions at the command line as text: `$ command`, its stdout, its stderr behind `! `, its exit code in brackets."""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MARK = "$ attestable-mcp"


def normal(text: str, folder: Path) -> str:
    """The text without what differs from run to run: folders, ports, times, long digests, versions."""
    text = text.replace(str(folder), "DIR")
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "TIME", text)
    text = re.sub(r"\b[0-9a-f]{32,}\b", lambda match: f"HEX{len(match[0])}", text)
    text = re.sub(r"^attestable-mcp \d+\.\d+\.\d+\S*$", "attestable-mcp VERSION", text, flags=re.M)
    # Where a long value is cut depends on the folders that it names.
    text = re.sub(r"^(.{80}).*\.\.\. \(\d+ characters\)$", r"\1 (CUT)", text, flags=re.M)
    return re.sub(r"[ \t]+$", "", text, flags=re.M)


def run(words: list[str], monkeypatch: pytest.MonkeyPatch) -> str:
    from attestable_mcp.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        patch.setenv("COLUMNS", "100")
        code = main(words)
    talk = "".join(f"! {line}\n" for line in err.getvalue().splitlines())
    return f"{out.getvalue()}{talk}[{code}]\n"


@pytest.fixture
def replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run every command of a transcript in a folder of its own, and compare the whole text."""
    monkeypatch.chdir(tmp_path)

    def compare(name: str, **places: str) -> None:
        path = HERE / name
        wanted = path.read_text(encoding="utf-8")
        seen = []
        for line in wanted.splitlines():
            if not line.startswith(MARK):
                continue
            command = line
            for key, value in places.items():
                command = command.replace(key, value)
            seen.append(f"{line}\n{normal(run(shlex.split(command)[2:], monkeypatch), tmp_path)}")
        assert seen, f"{name} holds no command"
        text = "\n".join(seen)
        if os.environ.get("ATTESTABLE_WRITE_TRANSCRIPTS"):
            path.write_text(text, encoding="utf-8")
            return
        assert text == wanted

    return compare
