"""The sentences of `connect` beyond stdio: the local endpoint, headers, authorization."""

from __future__ import annotations

from attestable_mcp.cli.text import PROGRAM

# headers

GROUP_HEADERS = "headers for the server (sent to it alone, after the verdict; never shown or logged)"
HELP_HEADER_ENV = "send header NAME with the value of environment variable VAR; may be repeated"
HELP_HEADER_FILE = 'send the headers of this file, one "Name: value" a line; may be repeated'
UNSET_VARIABLE_HINT = "set it in the host's configuration beside the command; a value never stands on the command line"


def bad_header_pair(word: str) -> str:
    """For `--header-env`. What follows the name might be a secret: it is not repeated."""
    name = word.partition("=")[0]
    return f"wanted NAME=VAR, the header's name and the name of an environment variable, seen {name!r} and no more"


def unset_variable(variable: str, name: str) -> str:
    """For `--header-env`."""
    return f"the environment variable {variable} for header {name} is not set or empty"


def bad_header_line(path: object, number: int) -> str:
    """For `--header-file`."""
    return f'{path}, line {number}: wanted "Name: value"'


def not_utf8(path: object) -> str:
    """For `--header-file`."""
    return f"{path} is no UTF-8 text"


# the local endpoint

GROUP_LISTEN = "a local URL in place of stdio"
HELP_CONNECT_LISTEN = "serve hosts that want a URL: print it on stdout and relay; port 0 takes a free one"
HELP_TOKEN_FILE = "keep the URL's secret token in this file (made if absent), so that the URL stays the same"  # noqa: S105
HELP_ALLOW_ORIGIN = "let web pages of this origin in, such as http://localhost:6274; may be repeated"
HELP_LISTEN_BEYOND = "allow --listen on an address that other machines reach; the token then travels in the clear"
BEYOND_HINT = (
    "listen on 127.0.0.1; whoever reads this network could use the URL, so name "
    "--danger-listen-beyond-this-machine if you want it all the same"
)


def only_with(option: str, other: str) -> str:
    """An option that means nothing without another."""
    return f"{option} goes with {other} only"


def beyond_this_machine(host: str) -> str:
    """For `--listen`."""
    return f"--listen {host}: wanted an address of this machine only, such as 127.0.0.1:0"


def listening(url: str) -> str:
    """The local endpoint is ready."""
    return f"{PROGRAM}: the address above leads to {url}; whoever knows it can use it"
