"""Fixtures shared by every suite. Tests run offline, on loopback, and never touch the user's own cache or configuration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def vectors_root() -> Path | None:
    """Where the real vectors lie: $ATTESTABLE_VECTORS, or ../shared/vectors beside the repository; None where absent."""
    named = os.environ.get("ATTESTABLE_VECTORS")
    root = Path(named) if named else REPOSITORY.parent / "shared" / "vectors"
    return root if root.is_dir() else None


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of real evidence; its tests skip by name where it is absent."""
    root = vectors_root()
    if root is None:
        pytest.skip("real vectors are absent: set ATTESTABLE_VECTORS to their folder")
    return root


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test its own cache and configuration folders, and no proxy of the machine's."""
    home = tmp_path_factory.mktemp("home")
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(home / name.lower()))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
