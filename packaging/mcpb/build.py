"""Builds the .mcpb bundle of the bridge: `make mcpb`, or `python packaging/mcpb/build.py [FOLDER]`.

A bundle of the type `uv` (MCPB manifest 0.4) holds our source and says what it needs; the host's uv brings Python and
the libraries, in the versions of requirements/runtime.txt. The same tree gives the same bytes.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip archive can name."""
_PIN = re.compile(r"^([A-Za-z0-9._-]+==[^ \\]+(?: *;[^\\]+)?)")


def build(folder: Path) -> Path:
    """Write the bundle into `folder` and give its path."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{project['name']}-{project['version']}.mcpb"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files(project)):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
            archive.writestr(entry, data)
    return path


def files(project: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """What goes into the bundle: names and contents."""
    yield "manifest.json", (HERE / "manifest.json").read_bytes()
    yield "main.py", (HERE / "main.py").read_bytes()
    yield "pyproject.toml", pyproject(project).encode()
    for name in ("LICENSE", "README.md"):
        yield name, (REPOSITORY / name).read_bytes()
    package = REPOSITORY / "src" / "attestable_mcp"
    for path in package.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(REPOSITORY).as_posix(), path.read_bytes()


def pyproject(project: dict[str, Any]) -> str:
    """The bundle's own project file: what we need to run, in the versions that we are tested with."""
    pins = [
        found.group(1).strip()
        for line in (REPOSITORY / "requirements" / "runtime.txt").read_text(encoding="utf-8").splitlines()
        if (found := _PIN.match(line))
    ]
    lines = [
        "[build-system]",
        'requires = ["hatchling>=1.27"]',
        'build-backend = "hatchling.build"',
        "",
        "[project]",
        *(f"{key} = {json.dumps(project[key])}" for key in ("name", "version", "description", "requires-python")),
        f"dependencies = {json.dumps(project['dependencies'], indent=2)}",
        "",
        "[tool.hatch.build.targets.wheel]",
        'packages = ["src/attestable_mcp"]',
        "",
        "[tool.uv]",
        f"constraint-dependencies = {json.dumps(pins, indent=2)}",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(f"{build(Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / 'dist')}\n")
