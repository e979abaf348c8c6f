"""The sentences of `connect` beyond stdio: the local endpoint, headers, authorization."""

from __future__ import annotations

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
HELP_ALLOW_ORIGIN = "also let in requests with this Origin, such as vscode-webview://app; may be repeated"
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
    return f"the address above leads to {url}; whoever knows it can use it"


# authorization

GROUP_OAUTH = "authorization (OAuth, run by the bridge where the server asks for it)"
HELP_LOGIN = "sign in now, at a terminal, and exit; hosts then find the token"
HELP_LOGOUT = "forget the tokens for this server, revoke them where that is possible, and exit"
HELP_NO_BROWSER = "only print the sign-in address on stderr"
HELP_NO_OAUTH = "pass the server's demand for authorization on to the host"
HELP_CLIENT_ID = "a client registered by hand, or the https URL of a client id metadata document"
HELP_CLIENT_SECRET = "that client's secret, from environment variable VAR"  # noqa: S105
HELP_SCOPE = "ask for these scopes (one word, or several in quotes) in place of those that the server names"
HELP_REDIRECT_PORT = "take the browser's answer on this port of 127.0.0.1 (default: a free one)"
HELP_STORE = (
    "where tokens are kept: the system keyring, or a file of mode 600 (default: auto, the keyring if there is one)"
)
OWN_AUTHORIZATION = "an Authorization header of your own"
CLIENT_SECRET = "the client secret"  # noqa: S105


def excluded(option: str, other: str) -> str:
    """Two options that exclude one another."""
    return f"{option} has no meaning with {other}"


def not_a_port(value: str) -> str:
    """For `--oauth-redirect-port`."""
    return f"{value!r} is not a port from 1 to 65535"


def sign_in(page: str, *, opened: bool) -> str:
    """The server wants somebody to sign in."""
    told = "a browser window was opened; if it does not show, open" if opened else "open in a browser"
    return f"the server wants you to sign in: {told} {page}"


def logged_in(*, asked: bool, refused: bool, status: int) -> str:
    """`--login` came to its end."""
    if refused:
        return f"not authorized: the server answers HTTP {status} and does not say where to sign in"
    return "authorized" if asked else "the server wants no authorization"


def logged_out(*, found: bool, revoked: bool) -> str:
    """`--logout` came to its end."""
    if not found:
        return "there were no tokens for this server"
    return f"tokens forgotten{', and revoked at the authorization server' if revoked else ''}"


# logs and health

GROUP_LOGS = "what is said on stderr (never an argument or a result)"
HELP_LOG_FORMAT = "text, or one JSON object a line (default: text, and json with --json)"
HELP_VERBOSE = "also say what goes well"
HELP_HEALTH = "answer GET /healthz and /readyz here, over plain HTTP, for those who watch this process"
GROUP_SESSIONS = "sessions of a command behind --"
HELP_MAX_SESSIONS = "handshake-era sessions at a time, each a process of its own (default: %(default)s)"
HELP_SESSION_IDLE = "seconds after which a silent session ends (default: %(default)s)"
HELP_DRAIN = "seconds that running calls have after SIGTERM or Ctrl-C (default: %(default)s)"


def not_a_count(value: str) -> str:
    """For `--max-sessions`."""
    return f"{value!r} is not a whole number from 1 to 100000"


# telemetry

NO_TELEMETRY = (
    "OTEL_* variables ask for telemetry, and its SDK is not installed: pip install 'attestable-mcp[telemetry]'"
)


def unknown_exporter(kind: str, name: str) -> str:
    """An exporter that is not offered."""
    return f"OTEL_{kind.upper()}_EXPORTER={name}: wanted otlp (over HTTP), console or none; no {kind} are sent"
