"""The hosts that `install` knows: where each keeps its servers, per system and scope, and what an entry looks like.

Paths as the hosts document them in November 2026. Claude Desktop for Windows is an MSIX package since February 2026:
its file then lies under the package's own folder, and the plain one is never read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from attestable_mcp.errors import ConfigurationError

Scope = Literal["user", "project"]
Entry = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What paths depend on. `system` is as `sys.platform`; `folder` is the project."""

    system: str = field(default_factory=lambda: sys.platform)
    home: Path = field(default_factory=lambda: Path.home())
    folder: Path = field(default_factory=lambda: Path.cwd())
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)

    def variable(self, name: str, otherwise: Path) -> Path:
        """An absolute path out of the environment, or another; relative ones count as unset, as XDG has it."""
        value = Path(self.environ.get(name, ""))
        return value if value.is_absolute() else otherwise

    @property
    def roaming(self) -> Path:
        """Where applications keep settings: %APPDATA%, Application Support, or $XDG_CONFIG_HOME."""
        if self.system == "win32":
            return self.variable("APPDATA", self.home / "AppData" / "Roaming")
        if self.system == "darwin":
            return self.home / "Library" / "Application Support"
        return self.variable("XDG_CONFIG_HOME", self.home / ".config")


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One host. `key` holds its servers; `project` is None where it has no files of a project."""

    title: str
    key: str
    user: Callable[[Machine], Path]
    project: str | None
    entry: Callable[[str, str, list[str]], Entry]
    after: str
    format: Literal["json", "yaml"] = "json"

    def path(self, machine: Machine, scope: Scope) -> Path:
        """Its configuration file. Raises: ConfigurationError for a scope that it has not."""
        if scope == "user":
            return self.user(machine)
        if self.project is None:
            raise ConfigurationError(f"{self.title} has no configuration of a project", hint="leave --scope out")
        return machine.folder / self.project


def plain(name: str, command: str, words: list[str]) -> Entry:
    """What most hosts read; the name stands outside."""
    return {"command": command, "args": words}


def _typed(name: str, command: str, words: list[str]) -> Entry:
    return {"type": "stdio", "command": command, "args": words}


def _goose(name: str, command: str, words: list[str]) -> Entry:
    return {
        "enabled": True,
        "type": "stdio",
        "name": name,
        "description": "over an attested channel",
        "cmd": command,
        "args": words,
        "envs": {},
        "env_keys": [],
        "timeout": 300,
    }


def _claude_desktop(machine: Machine) -> Path:
    name = "claude_desktop_config.json"
    if machine.system == "win32":
        packages = machine.variable("LOCALAPPDATA", machine.home / "AppData" / "Local") / "Packages"
        found = sorted(path / "LocalCache" / "Roaming" / "Claude" for path in packages.glob("Claude_*"))
        used = [path for path in found if (path / name).is_file()] or [path for path in found if path.is_dir()]
        if len(used or found) > 1:
            raise ConfigurationError(
                f"Claude Desktop is installed more than once: {', '.join(map(str, used or found))}",
                hint="name the file with --file",
            )
        if found:
            return (used or found)[0] / name
    return machine.roaming / "Claude" / name


def _claude_code(machine: Machine) -> Path:
    return machine.variable("CLAUDE_CONFIG_DIR", machine.home) / ".claude.json"


def _goose_file(machine: Machine) -> Path:
    if machine.system == "win32":
        return machine.roaming / "Block" / "goose" / "config" / "config.yaml"
    base = machine.home / ".config"
    return (base if machine.system == "darwin" else machine.variable("XDG_CONFIG_HOME", base)) / "goose" / "config.yaml"


HOSTS: dict[str, Host] = {
    "claude-desktop": Host(
        title="Claude Desktop", key="mcpServers", user=_claude_desktop, project=None, entry=plain,
        after="quit Claude Desktop and start it again",
    ),
    "claude-code": Host(
        title="Claude Code", key="mcpServers", user=_claude_code, project=".mcp.json", entry=_typed,
        after="start Claude Code anew; /mcp shows the server",
    ),
    "cursor": Host(
        title="Cursor", key="mcpServers", user=lambda machine: machine.home / ".cursor" / "mcp.json",
        project=".cursor/mcp.json", entry=_typed, after="switch the server on under Settings, MCP",
    ),
    "vscode": Host(
        title="VS Code", key="servers", user=lambda machine: machine.roaming / "Code" / "User" / "mcp.json",
        project=".vscode/mcp.json", entry=_typed, after='start the server: command "MCP: List Servers"',
    ),
    "gemini-cli": Host(
        title="Gemini CLI", key="mcpServers", user=lambda machine: machine.home / ".gemini" / "settings.json",
        project=".gemini/settings.json", entry=plain, after="start Gemini CLI anew; /mcp shows the server",
    ),
    "goose": Host(
        title="Goose", key="extensions", user=_goose_file, project=None, entry=_goose, format="yaml",
        after="start a new Goose session",
    ),
}  # fmt: skip
GENERIC = "generic"
"""Not a host: prints the entry as most hosts have it."""
