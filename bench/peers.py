"""Other people's bridges, installed once beside the benchmarks; one that cannot be installed is left out."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).with_name(".peers")
NPM = ("mcp-remote@0.15.1", "supergateway@4.0.0")
PYPI = ("mcp-proxy==0.13.0",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A bridge from stdio to HTTP: its name, the command for a URL, and the protocol eras that it passes on."""

    name: str
    command: Callable[[str], list[str]]
    eras: tuple[str, ...] = ("legacy",)


def _run(command: list[str], where: Path) -> bool:
    try:
        return subprocess.run(command, cwd=where, capture_output=True, timeout=300, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _npm() -> list[Peer]:
    npm, node = shutil.which("npm"), shutil.which("node")
    if not npm or not node:
        return []
    where = FOLDER / "npm"
    where.mkdir(parents=True, exist_ok=True)
    modules = where / "node_modules"
    if not (modules / "supergateway").is_dir() and not _run([npm, "install", "--prefix", str(where), *NPM], where):
        return []
    remote, gateway = str(modules / "mcp-remote/dist/proxy.js"), str(modules / "supergateway/dist/index.js")
    return [
        Peer(
            name="mcp-remote 0.15.1",
            command=lambda url: [node, remote, url, "--allow-http", "--transport", "http-only"],
            eras=("legacy", "modern"),
        ),
        Peer(name="supergateway 4.0.0", command=lambda url: [node, gateway, "--streamableHttp", url]),
    ]


def _pypi() -> list[Peer]:
    where = FOLDER / "pypi"
    scripts = where / ("Scripts" if sys.platform == "win32" else "bin")
    if not (scripts / "mcp-proxy").exists():
        venv.create(where, with_pip=True, clear=True)
        if not _run([str(scripts / "python"), "-m", "pip", "install", "--quiet", *PYPI], where):
            return []
    proxy = str(scripts / "mcp-proxy")
    return [Peer(name="mcp-proxy 0.13.0", command=lambda url: [proxy, "--transport", "streamablehttp", url])]


def installed() -> list[Peer]:
    """The peers that this machine could install."""
    return [*_npm(), *_pypi()]
