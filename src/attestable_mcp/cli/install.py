"""`install HOST NAME URL`: write the line into a host's configuration that puts the attested channel under it."""

from __future__ import annotations

import difflib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attestable_mcp.appraise.policy import split_anchor
from attestable_mcp.cli import connect, text, text_install
from attestable_mcp.cli.command import Arguments, Parser, UsageError, existing_path
from attestable_mcp.cli.hosts.edit import Plan, plan_install, write
from attestable_mcp.cli.hosts.table import GENERIC, HOSTS, Host, Machine, plain
from attestable_mcp.cli.source import address
from attestable_mcp.cli.terminal import Terminal
from attestable_mcp.cli.trust import genuine_policy, named
from attestable_mcp.files import PRIVATE
from attestable_mcp.tls.address import in_url

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_SHARED_MODE = 0o644
_PROGRAM = f"{text.PROGRAM} install"
_NOT_IN_AN_ENTRY = ("listen", "token_file", "allow_origin", "danger_listen_beyond_this_machine", "login", "logout")
"""Options of `connect` that make no stdio server of it."""


def configure(parser: Parser) -> None:
    """`install HOST NAME URL [--scope user|project] [--dry-run] [options of connect]`."""
    add_place(parser)
    parser.add_argument("--command", metavar="COMMAND", dest="program", help=text_install.HELP_COMMAND)
    parser.add_argument("--force", action="store_true", help=text_install.HELP_FORCE)
    connect.configure(parser)


def add_place(parser: Parser) -> None:
    """Which entry of which file: for `install` and `uninstall`."""
    parser.add_argument("host", metavar="HOST", help=text_install.HELP_HOST)
    parser.add_argument("name", metavar="NAME", help=text_install.HELP_NAME)
    parser.add_argument("--scope", choices=("user", "project"), help=text_install.HELP_SCOPE)
    parser.add_argument("--file", metavar="FILE", type=existing_path, help=text_install.HELP_FILE)
    parser.add_argument("--dry-run", action="store_true", help=text_install.HELP_DRY_RUN)


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Write the entry, or print what would change. Raises: UsageError, ConfigurationError."""
    check_name(arguments.name)
    command, words = command_of(arguments)
    if arguments.host == GENERIC:
        return _print(arguments, plain(arguments.name, command, words), terminal)
    host, path = place_of(arguments)
    entry = host.entry(arguments.name, command, words)
    mode = _SHARED_MODE if arguments.scope == "project" else PRIVATE
    plan = plan_install(path, host, arguments.name, entry, force=arguments.force, new_mode=mode)
    carry_out(plan, arguments, terminal, {"host": arguments.host, "name": arguments.name, "entry": entry})
    if not terminal.json and not arguments.dry_run:
        for line in _told(plan, host, arguments, command):
            terminal.say(line)
    return 0


def carry_out(plan: Plan, arguments: Arguments, terminal: Terminal, facts: dict[str, Any]) -> None:
    """Write the plan unless it is a dry run; the difference goes to stdout then, or into the JSON object."""
    if plan.changes and not arguments.dry_run:
        write(plan)
    if terminal.json:
        backup = str(plan.backup) if plan.backup and plan.changes and not arguments.dry_run else None
        done = {"path": str(plan.path), "changed": plan.changes, "dry_run": arguments.dry_run, "backup": backup}
        terminal.emit({**facts, **done, "diff": plan.diff()})
    elif arguments.dry_run and plan.changes:
        terminal.data(plan.diff().rstrip("\n"))
    elif arguments.dry_run:
        terminal.say(text_install.NO_CHANGE)


def place_of(arguments: Arguments) -> tuple[Host, Path]:
    """The host and its file. Raises: UsageError, ConfigurationError."""
    host = HOSTS.get(arguments.host)
    if host is None:
        near = difflib.get_close_matches(arguments.host, (*HOSTS, GENERIC), n=1)
        raise UsageError(
            text_install.unknown_host(arguments.host, near[0] if near else ""), hint=text.see_help(_PROGRAM)
        )
    if arguments.file is not None:
        return host, arguments.file
    return host, host.path(Machine(), arguments.scope or "user")


def check_name(name: str) -> None:
    """Raises: UsageError."""
    if not _NAME.fullmatch(name):
        raise UsageError(text_install.bad_name(name), hint=text.see_help(_PROGRAM))


def _print(arguments: Arguments, entry: dict[str, Any], terminal: Terminal) -> int:
    if arguments.file or arguments.scope or arguments.dry_run:
        raise UsageError(text_install.GENERIC_FILE, hint=text.see_help(_PROGRAM))
    servers = {"mcpServers": {arguments.name: entry}}
    if terminal.json:
        terminal.emit(servers)
    else:
        import json

        terminal.data(json.dumps(servers, indent=2))
    return 0


def _told(plan: Plan, host: Host, arguments: Arguments, command: str) -> Iterator[str]:
    if not plan.changes:
        yield text_install.NO_CHANGE
        return
    yield text_install.wrote(host.title, plan.path)
    if plan.backup is not None:
        yield text_install.backup(plan.backup)
    yield text_install.next_step(host.after)
    if not named(arguments):
        yield text_install.FIRST_USE
    if arguments.scope == "project" and arguments.program is None:
        yield text_install.SHARED
    if {"archive-v0", ".cache"} & set(Path(command).parts):
        yield text_install.CACHED
    if arguments.host == "gemini-cli" and "_" in arguments.name:
        yield text_install.UNDERSCORE


# The command that the host starts


def command_of(arguments: Arguments) -> tuple[str, list[str]]:
    """The command and its words. What they demand is tried first: a policy that cannot be read is found out here.

    Raises: UsageError, ConfigurationError.
    """
    url = address(arguments.url)
    genuine_policy(arguments, _PROGRAM)
    command, lead = (arguments.program, []) if arguments.program else own_command()
    return command, [*lead, "connect", url, *_options(arguments)]


def own_command() -> tuple[str, list[str]]:
    """The absolute path of this program: hosts start commands with another PATH than a shell's."""
    name = f"{text.PROGRAM}.exe" if sys.platform == "win32" else text.PROGRAM
    beside = Path(sys.executable).parent / name
    if beside.is_file():
        return str(beside.absolute()), []
    found = shutil.which(text.PROGRAM)
    if found:
        return str(Path(found).absolute()), []
    return sys.executable, ["-m", "attestable_mcp"]


def _options(arguments: Arguments) -> Iterator[str]:
    """What `connect` was told, as words again: every option that differs from its default. Raises: UsageError."""
    parser = Parser(prog=_PROGRAM)
    connect.configure(parser)
    for action in parser._actions:
        flag = next((word for word in action.option_strings if word.startswith("--")), None)
        value = getattr(arguments, action.dest, action.default)
        if flag is None or value == action.default:
            continue
        if action.dest in _NOT_IN_AN_ENTRY:
            raise UsageError(text_install.not_in_an_entry(flag), hint=text.see_help(_PROGRAM))
        for item in value if isinstance(value, list) else [value]:
            yield flag
            if item is not True:
                yield _word(action.dest, item)


def _word(dest: str, value: object) -> str:
    """A value as a host's entry has it: paths are absolute, whatever folder the host starts in."""
    if dest == "anchor":
        return _anchor(str(value))
    match value:
        case (str() as host, int() as port):
            return f"{in_url(host)}:{port}"
        case (str() as name, str() as variable):
            return f"{name}={variable}"
    return str(value.absolute()) if isinstance(value, Path) else str(value)


def _anchor(word: str) -> str:
    vendor, path = split_anchor(word)
    absolute = str(Path(path or word).absolute())
    return f"{vendor}={absolute}" if vendor and path else absolute
