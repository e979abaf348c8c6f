"""A digest over a server's own code and configuration: what the simulated attester reports as MRENCLAVE.

A measurement is a set of named parts. Its digest is SHA-256 over the label `attestable-mcp/measure/v1` and then, in the
order of the names' bytes, each name and the SHA-256 of its content, every item framed by its u32 big-endian length.

What counts, by target:

- `module:object`, where the module lies in a package: every file of its top-level package. Where it is a single file:
  that file and, transitively, the modules and packages that it imports and that lie beside it.
- a command: each word. A program or script counts by name and content, never by where it lies; a Python file brings the
  modules beside it, `-m NAME` and a console script of this environment bring their package, other words stand as they
  are.
- an http(s) URL: the text only. The code behind it is out of reach, and no measurement can say otherwise.
- always: this package's own files, since they stand between the peer and the server; and the named configuration.

What does not count: absolute paths, times, owners, byte-code caches. So the same code measures the same elsewhere,
and a changed byte measures differently. Installed dependencies other than those named above are not covered, nor is the
interpreter's standard library: a real TEE measures them, this stands in for one.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType

from attestable_mcp.errors import ConfigurationError

LABEL = b"attestable-mcp/measure/v1"
_CACHES = frozenset({"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"})
_BYTECODE = (".pyc", ".pyo")
_FILES = 20_000
"""More files than this is not one server's code."""

ConfigurationValue = str | int | bool
Target = str | Sequence[str] | Path | ModuleType | object


@dataclass(frozen=True, slots=True)
class Measurement:
    """Named parts of a server, each with the SHA-256 of its content."""

    parts: Mapping[str, bytes]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", MappingProxyType(dict(self.parts)))

    @property
    def digest(self) -> bytes:
        """32 bytes over all parts: the simulated MRENCLAVE."""
        hasher = hashlib.sha256(_framed(LABEL))
        for name, content in sorted((name.encode(), content) for name, content in self.parts.items()):
            hasher.update(_framed(name) + _framed(content))
        return hasher.digest()


def _framed(item: bytes) -> bytes:
    return len(item).to_bytes(4, "big") + item


def measure_target(target: Target, *, configuration: Mapping[str, ConfigurationValue] | None = None) -> Measurement:
    """The measurement of a server: `module:object`, a URL, a command's words, a file or folder, a module, an object.

    A server object counts by the module that holds it as a global.

    Raises:
        ConfigurationError: The target cannot be found or read.
    """
    own = _tree(Path(__file__).resolve().parents[1], "attestable-mcp")
    parts = own | _target(target) | _configuration(configuration or {})
    return Measurement(parts)


def _target(target: Target) -> dict[str, bytes]:
    match target:
        case str() if target.startswith(("http://", "https://")):
            return {"upstream": _text(target)}
        case str():
            return _named(target)
        case Path():
            return _path(target)
        case ModuleType():
            return _module_file(target)
        case list() | tuple():
            return _command([str(word) for word in target])
        case _:
            return _object(target)


def _text(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _configuration(configuration: Mapping[str, ConfigurationValue]) -> dict[str, bytes]:
    """`true` and `"true"` differ: the type is part of the text."""
    return {f"configuration/{name}": _text(f"{type(value).__name__}:{value}") for name, value in configuration.items()}


def _named(target: str) -> dict[str, bytes]:
    """`module:object`, or `file.py:object`."""
    module, _, attribute = target.rpartition(":") if ":" in target else (target, "", "")
    entry = {"entry": _text(f"{Path(module).name if module.endswith('.py') else module}:{attribute}")}
    if module.endswith(".py"):
        return entry | _path(Path(module))
    return entry | _module(module)


def _path(path: Path) -> dict[str, bytes]:
    if path.is_dir():
        return _tree(path, f"code/{path.resolve().name}")
    return _beside([path]) if path.suffix == ".py" else {f"code/{path.name}": _file(path)}


def _module(name: str) -> dict[str, bytes]:
    """The top-level package or the single file of a dotted name; nothing of it is imported to find it."""
    top = name.partition(".")[0]
    spec = _spec(top)
    if spec is None:
        raise ConfigurationError(
            f"module {name}: wanted a module on the import path, seen none",
            hint="run from the folder that holds it, or install it",
        )
    if spec.submodule_search_locations:
        return _package(spec.submodule_search_locations, top)
    if spec.origin is None or not Path(spec.origin).is_file():
        return {f"code/{top}": _text(f"built in: {top}")}
    origin = Path(spec.origin)
    return _beside([origin]) if origin.suffix == ".py" else {f"code/{origin.name}": _file(origin)}


def _spec(top: str) -> importlib.machinery.ModuleSpec | None:
    found = importlib.machinery.PathFinder.find_spec(top, [os.getcwd(), *sys.path])
    try:
        return found or importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None


def _package(folders: Iterable[str], top: str) -> dict[str, bytes]:
    """All folders of a package: a namespace package may have several, of which the first on the path wins."""
    parts: dict[str, bytes] = {}
    for folder in folders:
        parts = _tree(Path(folder), f"code/{top}") | parts
    return parts


def _module_file(module: ModuleType) -> dict[str, bytes]:
    top = module.__name__.partition(".")[0]
    package = sys.modules.get(top, module)
    if hasattr(package, "__path__"):
        return _package(package.__path__, top)
    origin = getattr(module, "__file__", None)
    if origin is None:
        raise ConfigurationError(
            f"module {module.__name__}: wanted a source file to measure, seen none",
            hint="serve it as module:object, or name the files to measure",
        )
    return _beside([Path(origin)])


def _object(target: object) -> dict[str, bytes]:
    holders = (module for module in list(sys.modules.values()) if isinstance(module, ModuleType))
    for module in sorted(holders, key=lambda module: module.__name__):
        if any(value is target for value in list(vars(module).values())) and getattr(module, "__file__", None):
            return _module_file(module)
    raise ConfigurationError(
        f"{type(target).__name__} object: wanted a module that holds it as a global, seen none",
        hint="serve it as module:object, or say which files make it up",
    )


def _command(words: Sequence[str]) -> dict[str, bytes]:
    if not words:
        raise ConfigurationError("command: wanted at least one word, seen none")
    parts = _program(words[0])
    for number, word in enumerate(words[1:], start=1):
        parts |= _argument(number, word)
        if words[number - 1] == "-m" and _spec(word.partition(".")[0]) is not None:
            parts |= _module(word)
    return parts


def _argument(number: int, word: str) -> dict[str, bytes]:
    path = Path(word)
    if not path.is_file():
        return {f"argument/{number:04}": _text(f"word:{word}")}
    return {f"argument/{number:04}": _text(f"file:{path.name}")} | _path(path)


def _program(word: str) -> dict[str, bytes]:
    found = shutil.which(word)
    if found is None:
        raise ConfigurationError(
            f"command {word}: wanted a program on the path, seen none", hint="install it, or give its full name"
        )
    path = Path(found)
    script = _console_script(path)
    return {"program/name": _text(path.name)} | (script or {"program/content": _file(path, shebang=False)})


def _console_script(path: Path) -> dict[str, bytes] | None:
    """The files of the distribution behind a console script of this environment; None for any other program."""
    if path.parent.resolve() != Path(sys.executable).parent.resolve():
        return None
    points = importlib.metadata.entry_points(group="console_scripts", name=path.stem)
    for point in points:
        return {"program/entry": _text(point.value)} | _module(point.module)
    return None


def _beside(files: Sequence[Path]) -> dict[str, bytes]:
    """Python files and what they import from their own folder, transitively."""
    parts: dict[str, bytes] = {}
    waiting = list(files)
    while waiting:
        path = waiting.pop()
        name = f"code/{path.name}"
        if name in parts:
            continue
        parts[name] = _file(path)
        for imported in _imports(path):
            waiting += [beside for beside in [path.parent / f"{imported}.py"] if beside.is_file()]
            package = path.parent / imported
            if (package / "__init__.py").is_file() and f"code/{imported}/__init__.py" not in parts:
                parts |= _tree(package, f"code/{imported}")
    return parts


def _imports(path: Path) -> Iterator[str]:
    """The first component of each module that a Python file imports, wherever in the file it does so."""
    try:
        tree = ast.parse(path.read_bytes(), filename=path.name)
    except (OSError, SyntaxError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path.name}: wanted Python source, seen {error}") from error
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name.partition(".")[0] for alias in names)
            case ast.ImportFrom(module=str(module)):
                yield module.partition(".")[0]
            case ast.ImportFrom(module=None, names=names):
                yield from (alias.name for alias in names)


def _tree(folder: Path, prefix: str) -> dict[str, bytes]:
    return {f"{prefix}/{path.relative_to(folder).as_posix()}": _file(path) for path in _walk(folder)}


def _walk(folder: Path) -> Iterable[Path]:
    found = []
    for place, folders, files in os.walk(folder, onerror=_unreadable):
        folders[:] = [name for name in folders if name not in _CACHES]
        found += [Path(place) / name for name in files if not name.endswith(_BYTECODE)]
        if len(found) > _FILES:
            raise ConfigurationError(
                f"{folder.name}: wanted at most {_FILES} files to measure, seen more",
                hint="serve a package of its own, not a folder that holds other things",
            )
    return found


def _unreadable(error: OSError) -> None:
    raise ConfigurationError(f"measuring {Path(error.filename or '?').name}: {error.strerror}") from error


def _file(path: Path, *, shebang: bool = True) -> bytes:
    """SHA-256 of a file; without the first line of a script where that only says where its interpreter lies."""
    hasher = hashlib.sha256()
    try:
        with path.open("rb") as file:
            first = file.readline(4096) if not shebang else b""
            hasher.update(b"" if first.startswith(b"#!") else first)
            while block := file.read(1 << 20):
                hasher.update(block)
    except OSError as error:
        raise ConfigurationError(f"measuring {path.name}: {error.strerror}", hint="make it readable") from error
    return hasher.digest()
