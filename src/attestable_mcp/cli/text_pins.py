"""The sentences about pins: trust on first use, differences, and what to do with them."""

from __future__ import annotations

from collections.abc import Iterable

from attestable_mcp.cli.text import PROGRAM

GROUP = "what connect has pinned (trust on first use)"
HELP_UPDATE = "show how the server differs from its pin, and accept it in the pin's place"
HELP_LIST = "list what is pinned on this machine"
HELP_FORGET = "remove the pin of a server: the next one that answers is trusted as a first use"
HELP_YES = "accept without asking"

ONE_MODE = "give one of --update, --list and --forget"
NO_URL = "the following arguments are required: URL"
URL_WITH_LIST = "--list takes no URL: it shows all pins"
OUTPUT_WITH_MODE = "-o writes a policy; it does not go with --update, --list or --forget"
NOTHING_PINNED = "nothing is pinned"
UNCHANGED = "the server is the one that is pinned; nothing to accept"
ASK = "accept this and pin it? [y/N] "
ACCEPTED = "pinned"
NOT_ACCEPTED = "not accepted; nothing was changed"
NOT_ASKED = "not accepted: there is no terminal to ask on; read the difference, then add --yes"
COMPARE = "Ask the operator, over another way, whether these are the values of a release that you want."
UNREVIEWED = "it is the pinned server; that anybody reviewed its code is not proven"
PINNED_FOR_US = f"judged by its pin; {UNREVIEWED}"
NOTHING_PINNED_HINT = (
    f'"{PROGRAM} pin URL -o policy.toml" writes a policy for it, "{PROGRAM} pin --update URL" shows it and pins it; '
    "--genuine-only proves the hardware but not the code"
)
NOTICE = "this server was pinned just now: trust on first use"


def not_pinned(origin: str) -> str:
    """`--forget` of an origin that has no pin."""
    return f"{origin} is not pinned"


NOT_PINNED_HINT = f'"{PROGRAM} pin --list" shows what is'


def nothing_pinned(origin: str, demand: str) -> str:
    """A verb that takes a pin in the place of a policy, for a server that has none."""
    return f"nothing is pinned for {origin}: {demand}"


def forgotten(origin: str) -> str:
    """`--forget` did it."""
    return f"forgot {origin}: the next server that answers there is trusted as a first use"


def differs(origin: str, since: str) -> str:
    """Head of a difference."""
    return f"{origin} is not the server that was pinned {since}"


def new(origin: str) -> str:
    """Head of what would be pinned where nothing is."""
    return f"nothing is pinned for {origin}; this is what answers now"


def damaged(problem: str) -> str:
    """Head of what would be pinned in the place of a damaged file."""
    return f"the pin cannot be read ({problem}); this is what answers now"


def first_use(origin: str, facts: Iterable[tuple[str, str]]) -> str:
    """`connect` has just pinned a server."""
    values = ", ".join(f"{name} {value}" for name, value in facts)
    return (
        f"{origin}: met for the first time, and pinned; that it is the server you want is not proven. {values}. "
        f'A server that differs will be refused; "{PROGRAM} pin --list" shows the pin whole'
    )
