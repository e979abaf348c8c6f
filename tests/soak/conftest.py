"""What the soaks share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # for soaking.py


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def progress(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Says a sentence on stderr at once, also where pytest keeps what tests print."""

    def say(sentence: str) -> None:
        with capsys.disabled():
            print(sentence, file=sys.stderr, flush=True)

    return say
