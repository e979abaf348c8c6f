"""The command `attestable-mcp`: finds the verb, parses its words, runs it, ends with its code."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import sys
import threading
import warnings
from collections.abc import Sequence
from typing import NoReturn, cast

from attestable_mcp.cli import text
from attestable_mcp.cli.command import Arguments, Parser, UsageError, Verb, add_common
from attestable_mcp.cli.endings import guarded
from attestable_mcp.cli.logs import show_waits
from attestable_mcp.cli.terminal import Terminal, open_terminal

_GRACE_SECONDS = 0.2
VERBS = (
    "serve",
    "verify",
    "inspect",
    "bundle",
    "manifest",
    "receipts",
    "tcb",
    "platforms",
    "pin",
    "call",
    "tools",
    "connect",
    "install",
    "uninstall",
    "owner",
    "doctor",
    "demo",
    "completion",
)


def main(words: Sequence[str] | None = None) -> int:
    """Entry point. `words` are the arguments without the program's name. Returns the exit code; raises nothing."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # of libraries, about a peer's odd bytes: stderr is for what we have to say
    given = list(sys.argv[1:] if words is None else words)
    ours = given[: given.index("--")] if "--" in given else given
    terminal = open_terminal(json_output="--json" in ours, debug="--debug" in ours)
    return guarded(lambda: _run(given, terminal), terminal)


def entry(words: Sequence[str] | None = None) -> NoReturn:
    """The command itself: `main`, then the end of the process, on time.

    A thread that still waits for a vendor's service, after --timeout or Ctrl-C gave it up, is not waited for: Python
    would, for as long as that service keeps silent.
    """
    code = main(words)
    threads = [
        thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()
    ]
    for thread in threads:
        thread.join(_GRACE_SECONDS)
    if any(thread.is_alive() for thread in threads):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):  # it may be absent, closed or broken
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _run(words: list[str], terminal: Terminal) -> int:
    leading = [word for word in words[: _verb_index(words)] if word not in ("--json", "--debug")]
    rest = words[_verb_index(words) :]
    if leading or not rest:
        return _without_verb(leading, terminal)
    name, *arguments = rest
    module = load(name)
    parser = build(name, module)
    if any(word in ("-h", "--help") for word in arguments[: _dashes(arguments)]):
        return _help(parser, terminal)
    show_waits(terminal)
    return module.run(_parse(name, parser, arguments), terminal)


def _parse(name: str, parser: Parser, words: list[str]) -> Arguments:
    """The words of a verb. What follows `--` is another program's command line where a verb takes one."""
    if name not in ("serve", "manifest"):
        return parser.parse(words)
    arguments = parser.parse(words[: _dashes(words)])
    arguments.command = words[_dashes(words) + 1 :] if "--" in words else None
    return arguments


def _verb_index(words: list[str]) -> int:
    return next((index for index, word in enumerate(words) if not word.startswith("-") or word == "--"), len(words))


def _dashes(words: list[str]) -> int:
    return words.index("--") if "--" in words else len(words)


def _without_verb(leading: list[str], terminal: Terminal) -> int:
    parser = top_parser()
    if "--version" in leading or "-V" in leading:
        return _version(terminal)
    if "-h" in leading or "--help" in leading:
        return _help(parser, terminal)
    if leading:
        parser.error(f"unrecognized arguments: {' '.join(leading)}")
    raise UsageError(text.MISSING_VERB, hint=text.see_help(text.PROGRAM))


def _help(parser: Parser, terminal: Terminal) -> int:
    shown = parser.format_help().rstrip()
    if terminal.json:
        terminal.emit({"help": shown})
    else:
        terminal.data(shown)
    return 0


def _version(terminal: Terminal) -> int:
    from importlib.metadata import version

    number = version(text.PROGRAM)
    if terminal.json:
        terminal.emit({"name": text.PROGRAM, "version": number})
    else:
        terminal.data(f"{text.PROGRAM} {number}")
    return 0


def load(name: str) -> Verb:
    """The module of a verb; loaded only when asked for, so that `--help` is fast. Raises: UsageError."""
    if name not in VERBS:
        near = difflib.get_close_matches(name, VERBS, n=1)
        raise UsageError(text.unknown_verb(name, near[0] if near else ""), hint=text.see_help(text.PROGRAM))
    return cast("Verb", importlib.import_module(f"attestable_mcp.cli.{name}"))


def build(name: str, module: Verb) -> Parser:
    """The parser of one verb."""
    parser = Parser(
        prog=f"{text.PROGRAM} {name}",
        description=text.SUMMARIES[name][0].upper() + text.SUMMARIES[name][1:] + ".",
        epilog=text.EPILOGS[name],
    )
    module.configure(parser)
    add_common(parser)
    return parser


def top_parser() -> Parser:
    """The parser that holds the general help. Verbs are found by hand: argparse's own cannot mix words and options."""
    verbs = "\n".join(f"  {name:<12}{text.SUMMARIES[name]}" for name in VERBS)
    parser = Parser(
        prog=text.PROGRAM,
        usage=f"{text.PROGRAM} VERB [ARGUMENTS...]",
        description=f"{text.DESCRIPTION}\n\nverbs\n{verbs}",
        epilog=text.MAIN_EPILOG,
    )
    parser.add_argument("--version", "-V", action="store_true", help=text.HELP_VERSION)
    add_common(parser)
    return parser
