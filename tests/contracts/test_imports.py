"""The rooms' import contracts hold, and each of them can fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

OFFENCES = {
    "Rooms lie in layers": ("wire/der.py", "import attestable_mcp.verify"),
    "wire reads bytes": ("wire/der.py", "import socket"),
    "appraise and bind judge claims": ("appraise/judge.py", "import attestable_mcp.wire.der"),
    "verify is pure": ("verify/intel.py", "import time"),
    "Only the simulated attester": ("verifier.py", "import attestable_mcp.simulator"),
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    return subprocess.run(
        [sys.executable, "-c", program, "--no-logo", "--no-cache"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src"), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path, repository: Path) -> Path:
    shutil.copytree(repository / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(repository / "pyproject.toml", tmp_path)
    return tmp_path


def test_contracts_hold(copy: Path) -> None:
    run = lint(copy)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("contract", OFFENCES)
def test_contract_can_fail(copy: Path, contract: str) -> None:
    name, line = OFFENCES[contract]
    module = copy / "src" / "attestable_mcp" / name
    module.write_text(module.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    run = lint(copy)
    assert run.returncode != 0, f"{contract}: {line} in {name} went unnoticed"
    broken = [row for row in run.stdout.splitlines() if "BROKEN" in row]
    assert any(contract in row for row in broken), run.stdout
