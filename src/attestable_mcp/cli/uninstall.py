"""`uninstall HOST NAME`: take the line out of a host's configuration again."""

from __future__ import annotations

from attestable_mcp.cli import text, text_install
from attestable_mcp.cli.command import Arguments, Parser, UsageError
from attestable_mcp.cli.hosts.edit import plan_uninstall
from attestable_mcp.cli.hosts.table import GENERIC
from attestable_mcp.cli.install import add_place, carry_out, check_name, place_of
from attestable_mcp.cli.terminal import Terminal


def configure(parser: Parser) -> None:
    """`uninstall HOST NAME [--scope user|project] [--dry-run]`."""
    add_place(parser)
    parser.add_argument("--force", action="store_true", help=text_install.HELP_FORCE_REMOVE)


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Remove the entry; one that is not there is no error. Raises: UsageError, ConfigurationError."""
    check_name(arguments.name)
    if arguments.host == GENERIC:
        raise UsageError(text_install.GENERIC_FILE, hint=text.see_help(f"{text.PROGRAM} uninstall"))
    host, path = place_of(arguments)
    plan = plan_uninstall(path, host, arguments.name, force=arguments.force)
    carry_out(plan, arguments, terminal, {"host": arguments.host, "name": arguments.name})
    if terminal.json or arguments.dry_run:
        return 0
    if not plan.changes:
        terminal.say(text_install.NOT_THERE)
        return 0
    terminal.say(text_install.removed(host.title, plan.path))
    terminal.say(text_install.backup(plan.backup))
    terminal.say(text_install.next_step(text_install.after_removal(host.title)))
    return 0
