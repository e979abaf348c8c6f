"""`completion SHELL`: a script that completes verbs and options, made from the parsers themselves."""

from __future__ import annotations

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


def vocabulary() -> dict[str, tuple[str, ...]]:
    """Verb -> its long options, in the order of the help."""
    from attestable_mcp.cli.main import VERBS, build, load

    return {name: _options(build(name, load(name))) for name in VERBS}


def _options(parser: Parser) -> tuple[str, ...]:
    return tuple(word for action in parser._actions for word in action.option_strings if word.startswith("--"))


def bash(words: dict[str, tuple[str, ...]]) -> str:
    """For `source <(attestable-mcp completion bash)`."""
    cases = "\n".join(f'    {verb}) words="{" ".join(options)}" ;;' for verb, options in words.items())
    return f"""\
_attestable_mcp() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{" ".join(words)} --help --version" -- "$current"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  case "$current" in
    -*) COMPREPLY=($(compgen -W "$words" -- "$current")) ;;
    *) COMPREPLY=($(compgen -f -- "$current")) ;;
  esac
}}
complete -o filenames -F _attestable_mcp {text.PROGRAM}
"""


def zsh(words: dict[str, tuple[str, ...]]) -> str:
    """For a file `_attestable-mcp` in `$fpath`."""
    verbs = "\n".join(f"    '{verb}:{text.SUMMARIES[verb]}'" for verb in words)
    cases = "\n".join(f"    {verb}) compadd -- {' '.join(options)} ;;" for verb, options in words.items())
    return f"""\
#compdef {text.PROGRAM}
_attestable_mcp() {{
  local -a verbs
  verbs=(
{verbs}
  )
  if (( CURRENT == 2 )); then
    _describe 'verb' verbs
    return
  fi
  [[ $words[CURRENT] == -* ]] || {{ _files; return }}
  case $words[2] in
{cases}
  esac
}}
compdef _attestable_mcp {text.PROGRAM}
"""


def fish(words: dict[str, tuple[str, ...]]) -> str:
    """For a file in `~/.config/fish/completions`."""
    lines = [f"complete -c {text.PROGRAM} -n __fish_use_subcommand -f -a {v} -d '{text.SUMMARIES[v]}'" for v in words]
    for verb, options in words.items():
        lines += [f"complete -c {text.PROGRAM} -n '__fish_seen_subcommand_from {verb}' -l {o[2:]}" for o in options]
    return "\n".join(lines) + "\n"
