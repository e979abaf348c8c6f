"""`completion SHELL`: a script that completes verbs, their actions and options, made from the parsers themselves."""

from __future__ import annotations

from dataclasses import dataclass

from attestable_mcp.cli import text
from attestable_mcp.cli.command import Arguments, Parser
from attestable_mcp.cli.terminal import Terminal


def configure(parser: Parser) -> None:
    """`completion bash|zsh|fish`."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help=text.HELP_SHELL)


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Print the script."""
    script = {"bash": bash, "zsh": zsh, "fish": fish}[arguments.shell](vocabulary())
    if terminal.json:
        terminal.emit({"shell": arguments.shell, "script": script})
    else:
        terminal.data(script.rstrip())
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """What may follow a verb: `first`, where its first argument is one of a few words, and its long options."""

    first: tuple[str, ...]
    options: tuple[str, ...]


def vocabulary() -> dict[str, Words]:
    """Verb -> what may follow it, in the order of the help."""
    from attestable_mcp.cli.main import VERBS, build, load

    return {name: _words(build(name, load(name))) for name in VERBS}


def _words(parser: Parser) -> Words:
    flags = [word for action in parser._actions for word in action.option_strings if word.startswith("--")]
    first = next((action for action in parser._actions if not action.option_strings), None)
    choices = () if first is None else tuple(first.choices or ())
    if first is not None and first.dest == "host":
        from attestable_mcp.cli.hosts.table import GENERIC, HOSTS

        choices = (*HOSTS, GENERIC)
    return Words(first=choices, options=tuple(flags))


def bash(words: dict[str, Words]) -> str:
    """For `source <(attestable-mcp completion bash)`."""
    cases = "\n".join(
        f'    {verb}) first="{" ".join(found.first)}" words="{" ".join(found.options)}" ;;'
        for verb, found in words.items()
    )
    return f"""\
_attestable_mcp() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" first="" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{" ".join(words)} --help --version" -- "$current"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  case "$current" in
    -*) COMPREPLY=($(compgen -W "$words" -- "$current")); return ;;
  esac
  if [ "$COMP_CWORD" -eq 2 ] && [ -n "$first" ]; then
    COMPREPLY=($(compgen -W "$first" -- "$current"))
  else
    COMPREPLY=($(compgen -f -- "$current"))
  fi
}}
complete -o filenames -F _attestable_mcp {text.PROGRAM}
"""


def zsh(words: dict[str, Words]) -> str:
    """For a file `_attestable-mcp` in `$fpath`, or `source <(attestable-mcp completion zsh)` after `compinit`."""
    verbs = "\n".join(f"    {_quoted(f'{verb}:{text.SUMMARIES[verb]}', zsh=True)}" for verb in words)
    cases = "\n".join(
        f"    {verb}) first=({' '.join(found.first)}) options=({' '.join(found.options)}) ;;"
        for verb, found in words.items()
    )
    return f"""\
#compdef {text.PROGRAM}
_attestable_mcp() {{
  local -a verbs first options
  verbs=(
{verbs}
  )
  if (( CURRENT == 2 )); then
    _describe 'verb' verbs
    return
  fi
  case $words[2] in
{cases}
  esac
  if [[ $words[CURRENT] == -* ]]; then
    compadd -- $options
  elif (( CURRENT == 3 && $#first )); then
    compadd -- $first
  else
    _files
  fi
}}
if [ "$funcstack[1]" = "_{text.PROGRAM}" ]; then
  _attestable_mcp "$@"
else
  compdef _attestable_mcp {text.PROGRAM}
fi
"""


def fish(words: dict[str, Words]) -> str:
    """For a file in `~/.config/fish/completions`."""
    lines = [
        f"complete -c {text.PROGRAM} -n __fish_use_subcommand -f -a {verb} -d {_quoted(text.SUMMARIES[verb])}"
        for verb in words
    ]
    for verb, found in words.items():
        here = f"__fish_seen_subcommand_from {verb}"
        if found.first:
            first = " ".join(found.first)
            alone = f"{here}; and not __fish_seen_subcommand_from {first}"
            lines.append(f"complete -c {text.PROGRAM} -n '{alone}' -f -a '{first}'")
        lines += [f"complete -c {text.PROGRAM} -n '{here}' -l {option[2:]}" for option in found.options]
    return "\n".join(lines) + "\n"


def _quoted(words: str, *, zsh: bool = False) -> str:
    """One word of a shell: an apostrophe ends a quoted word, and only fish takes a backslash within it."""
    return "'" + words.replace("'", "'\\''" if zsh else "\\'") + "'"
