"""The command line run in this process, with its two streams apart."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """The one object on stdout; anything else there is a failure."""
        lines = self.out.splitlines()
        assert len(lines) == 1, f"wanted one line on stdout, seen {lines!r}"
        value = json.loads(lines[0])
        assert isinstance(value, dict)
        return value

    def json_of(self) -> dict[str, Any]:
        """An object over several lines."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ended]:
    from attestable_mcp.cli.main import main

    def run(*words: str) -> Ended:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        code = main(list(words))
        return Ended(code=code, out=out.getvalue(), err=err.getvalue())

    return run
