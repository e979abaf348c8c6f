"""The sentences of `install` and `uninstall`."""

from __future__ import annotations

from attestable_mcp.cli.text import PROGRAM

HELP_HOST = "claude-desktop, claude-code, cursor, vscode, gemini-cli, goose, or generic (prints JSON)"
HELP_NAME = "the server's name in the host: letters, digits, - and _"
HELP_SCOPE = "user: for all your work; project: in the current folder, to be shared (default: user)"
HELP_FILE = "edit this file in place of the host's usual one"
HELP_COMMAND = "the command that the host shall start (default: the absolute path of this program)"
HELP_DRY_RUN = "print the difference and change nothing"
HELP_FORCE = "also replace an entry of that name which starts another program"
HELP_FORCE_REMOVE = "also remove an entry which starts another program"

NO_CHANGE = "nothing to do: the file says so already"
NOT_THERE = "nothing to do: there is no such entry"
FIRST_USE = (
    "no policy: the first server that answers is pinned (trust on first use), and one that differs later is refused; "
    f'"{PROGRAM} pin --list" shows it'
)
CACHED = (
    "this program runs from a cache that may be emptied: install it for good (uv tool install, pipx install), "
    "or name a lasting command with --command"
)
UNDERSCORE = "Gemini CLI splits tool names at underscores: a name without _ is safer"
SHARED = (
    "the file is shared with a project: paths in it are of this machine; --command and a relative policy may fit better"
)
GENERIC_FILE = "generic prints what to paste; --file, --scope and --dry-run go with a host"


def bad_name(name: str) -> str:
    """A name that some host would misread."""
    return f"{name!r} is no name for a server: wanted 1 to 64 letters, digits, - and _, a letter or digit first"


def unknown_host(word: str, near: str) -> str:
    """A host that is not in the table."""
    return f"there is no host {word!r}" + (f"; did you mean {near!r}?" if near else "")


def not_in_an_entry(flag: str) -> str:
    """An option that makes `connect` something else than a stdio server."""
    return f"{flag} does not go into a host's entry: hosts start a stdio server"


def wrote(title: str, path: object) -> str:
    """The entry is in the file."""
    return f"{title}: wrote {path}"


def removed(title: str, path: object) -> str:
    """The entry is out of the file."""
    return f"{title}: removed from {path}"


def backup(path: object) -> str:
    """Where the old bytes are."""
    return f"  before   {path}"


def after_removal(title: str) -> str:
    """A host that runs keeps what it has started."""
    return f"start {title} anew: until then it may go on with the server"


def next_step(what: str) -> str:
    """What the host needs now."""
    return f"  next     {what}"
