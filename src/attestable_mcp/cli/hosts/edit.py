"""Put an entry into a host's file, or take it out: planned first, proven to change nothing else, then written whole.

An uninstall that finds the file exactly as an install left it gives back the bytes from before.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attestable_mcp.cli.hosts import jsonc, yaml_text
from attestable_mcp.cli.hosts.table import Entry, Host
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.files import PRIVATE, replace_file

CAP = 16 * 1024 * 1024
"""Bytes of a host's file that are read; Claude Code keeps histories in its own."""
BACKUP = ".attestable-mcp.bak"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What would be done to `path`. `before` and `after` are its bytes; None means: no file."""

    path: Path
    before: bytes | None
    after: bytes | None
    new_mode: int = PRIVATE
    """Permission bits of a file that was not there before."""

    @property
    def changes(self) -> bool:
        """Is there anything to do?"""
        return self.before != self.after

    @property
    def backup(self) -> Path | None:
        """Where the bytes from before will lie; None where there was no file."""
        return None if self.before is None else self.path.with_name(self.path.name + BACKUP)

    def diff(self) -> str:
        """A unified diff of the two texts."""
        old, new = (_lines(data) for data in (self.before, self.after))
        names = [str(self.path) if data is not None else os.devnull for data in (self.before, self.after)]
        return "".join(difflib.unified_diff(old, new, names[0], names[1]))


def _lines(data: bytes | None) -> list[str]:
    lines = (data or b"").decode("utf-8", "replace").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n\\ No newline at end of file\n"
    return lines


def plan_install(
    path: Path, host: Host, name: str, entry: Entry, *, force: bool, new_mode: int = PRIVATE
) -> Plan:  # fmt: skip
    """The file with the entry in it.

    Raises:
        ConfigurationError: it cannot be read or edited, or another program's entry has this name and not `force`.
    """
    path = Path(os.path.realpath(path))
    before = _read(path)
    text = _text(before, path)
    known = _entries(text, host, path).get(name)
    if known is not None and not force and not ours(known):
        raise ConfigurationError(
            f"{path}: {name!r} is there already, and starts something else",
            code="entry_taken",
            hint="choose another name, or replace it with --force",
        )
    if known == entry:
        return Plan(path=path, before=before, after=before)
    return Plan(path=path, before=before, after=_with(text, host, name, entry, path).encode(), new_mode=new_mode)


def plan_uninstall(path: Path, host: Host, name: str, *, force: bool) -> Plan:
    """The file without the entry; without a change where there is none.

    Raises:
        ConfigurationError: as `plan_install`.
    """
    path = Path(os.path.realpath(path))
    before = _read(path)
    text = _text(before, path)
    known = _entries(text, host, path).get(name)
    if known is None:
        return Plan(path=path, before=before, after=before)
    if not force and not ours(known):
        raise ConfigurationError(
            f"{path}: {name!r} starts something else than attestable-mcp, and is left as it is",
            code="entry_taken",
            hint="check the name; --force removes it all the same",
        )
    plan = Plan(path=path, before=before, after=None)
    if _with("", host, name, known, path) == text:
        return plan  # the file that an install made: it goes
    old = _read(plan.backup) if plan.backup else None
    if old is not None and _leads_to(old, text, host, name, known, path):
        return Plan(path=path, before=before, after=old)
    return Plan(path=path, before=before, after=_without(text, host, name, path).encode())


def _leads_to(old: bytes, text: str, host: Host, name: str, entry: Entry, path: Path) -> bool:
    """Would the entry, put into the backup, make exactly the file that is there?"""
    try:
        previous = _text(old, path)
        return name not in _entries(previous, host, path) and _with(previous, host, name, entry, path) == text
    except ConfigurationError:
        return False


def ours(entry: object) -> bool:
    """Does this entry start attestable-mcp?"""
    if not isinstance(entry, dict):
        return False
    words = entry.get("args")
    command = str(entry.get("command", entry.get("cmd", ""))).replace("\\", "/").rsplit("/", 1)[-1].lower()
    if not isinstance(words, list) or "connect" not in words:
        return False
    return command in ("attestable-mcp", "attestable-mcp.exe") or "attestable_mcp" in words


def write(plan: Plan) -> None:
    """Back the file up, then replace it whole; its permission bits stay.

    Raises:
        ConfigurationError: the system refuses, or the file has changed since it was read.
    """
    if _read(plan.path) != plan.before:
        raise ConfigurationError(f"{plan.path}: another program has just changed it", code="changed", hint="try again")
    try:
        mode = plan.new_mode if plan.before is None else stat.S_IMODE(plan.path.stat().st_mode)
        plan.path.parent.mkdir(parents=True, exist_ok=True)
        if plan.backup is not None and plan.before is not None:
            replace_file(plan.backup, plan.before, mode=mode)
        if plan.after is None:
            plan.path.unlink()
        else:
            replace_file(plan.path, plan.after, mode=mode)
    except OSError as error:
        raise ConfigurationError(
            f"{plan.path}: cannot be written: {error.strerror or error}",
            code="unwritable",
            hint="check who owns the file and its folder",
        ) from error


def _read(path: Path) -> bytes | None:
    """The whole file, None where there is none. Raises: ConfigurationError."""
    try:
        with path.open("rb") as file:
            data = file.read(CAP + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigurationError(
            f"{path}: cannot be read: {error.strerror or error}", code="unreadable", hint="check the path"
        ) from error
    if len(data) > CAP:
        raise ConfigurationError(f"{path}: more than {CAP} bytes", code="too_large", hint="is it the right file?")
    return data


def _text(data: bytes | None, path: Path) -> str:
    try:
        return (data or b"").decode("utf-8")
    except UnicodeDecodeError as error:
        line = (data or b"")[: error.start].count(b"\n") + 1
        raise _invalid(path, f"line {line}: no UTF-8 text") from error


def _invalid(path: Path, problem: object) -> ConfigurationError:
    return ConfigurationError(
        f"{path}: {problem}", code="invalid_host_file", hint="mend the file first; it is left as it is"
    )


# The two formats


def _entries(text: str, host: Host, path: Path) -> Mapping[str, Any]:
    """The host's servers by name. Raises: ConfigurationError with the line of what is wrong."""
    data = _load(text, host, path)
    found = data.get(host.key)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise _invalid(path, f"{host.key!r}: wanted servers by name")
    return found


def _load(text: str, host: Host, path: Path) -> dict[str, Any]:
    try:
        if host.format == "yaml":
            return yaml_text.load(text)
        if not text.strip("\ufeff \t\r\n"):
            return {}
        root = jsonc.parse(text)
        if not root.is_object:
            raise jsonc.BadSyntax("wanted an object", 1)
        data: dict[str, Any] = root.value
    except jsonc.BadSyntax as error:
        raise _invalid(path, error) from error
    return data


def _with(text: str, host: Host, name: str, entry: Entry, path: Path) -> str:
    wanted = _load(text, host, path)
    wanted = wanted | {host.key: {**(wanted.get(host.key) or {}), name: entry}}
    try:
        new = _put_yaml(text, host, name, entry) if host.format == "yaml" else _put_json(text, host, name, entry)
    except jsonc.BadSyntax as error:
        raise _invalid(path, error) from error
    return _proven(text, new, wanted, host, path)


def _without(text: str, host: Host, name: str, path: Path) -> str:
    wanted = _load(text, host, path)
    wanted[host.key] = {key: value for key, value in wanted[host.key].items() if key != name}
    try:
        if host.format == "yaml":
            new = yaml_text.drop(text, host.key, name)
        else:
            new = jsonc.remove(text, jsonc.parse(text).members[host.key].node, name)
    except jsonc.BadSyntax as error:
        raise _invalid(path, error) from error
    return _proven(text, new, wanted, host, path)


def _put_json(text: str, host: Host, name: str, entry: Entry) -> str:
    if not text.strip("\ufeff \t\r\n"):
        text = text.rstrip() + "{}\n"
    root = jsonc.parse(text)
    servers = root.members.get(host.key)
    if servers is None:
        return jsonc.insert(text, root, host.key, {name: entry}, 1)
    if not servers.node.is_object:
        return jsonc.replace(text, servers, {name: entry}, 1)
    known = servers.node.members.get(name)
    if known is not None:
        return jsonc.replace(text, known, entry, 2)
    return jsonc.insert(text, servers.node, name, entry, 2)


def _put_yaml(text: str, host: Host, name: str, entry: Entry) -> str:
    return yaml_text.put(text, host.key, name, entry)


def _proven(old: str, new: str, wanted: dict[str, Any], host: Host, path: Path) -> str:
    """The new text, if it says what was wanted, and no comment is lost. Raises: ConfigurationError."""
    same = _load(new, host, path) == wanted
    if host.format == "json":
        same = same and _kept(jsonc.comments(old), jsonc.comments(new))
    if not same:
        raise ConfigurationError(
            f"{path}: this file cannot be edited without a loss, and is left as it is",
            code="invalid_host_file",
            hint='add the entry by hand: "attestable-mcp install generic NAME URL" prints it',
        )
    return new


def _kept(old: list[str], new: list[str]) -> bool:
    """Are the old comments still there, in order?"""
    rest = iter(new)
    return all(any(comment == other for other in rest) for comment in old)
