"""The options and steps of `connect` that concern authorization: OAuth by the bridge, signing in and out by hand."""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import anyio

from attestable_mcp.cli import text_connect as text
from attestable_mcp.cli.command import Arguments, Parser, UsageError
from attestable_mcp.cli.terminal import Terminal

if TYPE_CHECKING:
    import httpx2

    from attestable_mcp.mcp.oauth.model import OAuthOptions
    from attestable_mcp.mcp.oauth.store import Kept

_DEFAULTS = {
    "oauth_client_id": "",
    "oauth_client_secret_env": "",
    "oauth_scope": "",
    "oauth_redirect_port": 0,
    "no_browser": False,
}


def add_oauth(parser: Parser) -> None:
    """`--no-oauth`, `--no-browser`, `--oauth-*`, `--login`, `--logout`."""
    group = parser.add_argument_group(text.GROUP_OAUTH)
    group.add_argument("--login", action="store_true", help=text.HELP_LOGIN)
    group.add_argument("--logout", action="store_true", help=text.HELP_LOGOUT)
    group.add_argument("--no-browser", action="store_true", help=text.HELP_NO_BROWSER)
    group.add_argument("--no-oauth", action="store_true", help=text.HELP_NO_OAUTH)
    group.add_argument("--oauth-client-id", metavar="ID", default="", help=text.HELP_CLIENT_ID)
    group.add_argument("--oauth-client-secret-env", metavar="VAR", default="", help=text.HELP_CLIENT_SECRET)
    group.add_argument("--oauth-scope", metavar="SCOPES", default="", help=text.HELP_SCOPE)
    group.add_argument("--oauth-redirect-port", metavar="PORT", type=_port, default=0, help=text.HELP_REDIRECT_PORT)
    group.add_argument("--oauth-store", choices=("auto", "keyring", "file"), default="auto", help=text.HELP_STORE)


def _port(value: str) -> int:
    if not value.isascii() or not value.isdecimal() or not 0 < int(value[:6]) < 65536:
        raise argparse.ArgumentTypeError(text.not_a_port(value))
    return int(value)


def oauth_of(arguments: Arguments, headers: dict[str, str]) -> OAuthOptions | None:
    """What the options say, or None where the bridge runs no OAuth. Raises: UsageError."""
    from attestable_mcp.mcp.oauth.model import OAuthOptions

    off = "--no-oauth" if arguments.no_oauth else text.OWN_AUTHORIZATION if "authorization" in headers else ""
    if off:
        wanted = [name for name, value in _DEFAULTS.items() if getattr(arguments, name) != value]
        wanted += ["login"] if arguments.login else []
        if wanted:
            raise UsageError(text.excluded(f"--{wanted[0].replace('_', '-')}", off))
        return None
    if arguments.login and arguments.listen is not None:
        raise UsageError(text.excluded("--login", "--listen"))
    options = OAuthOptions(
        client_id=arguments.oauth_client_id,
        client_secret=_secret(arguments),
        scope=arguments.oauth_scope,
        redirect_port=arguments.oauth_redirect_port,
    )
    return replace(options, wait_seconds=options.login_seconds + 30) if arguments.login else options


def _secret(arguments: Arguments) -> str:
    variable: str = arguments.oauth_client_secret_env
    if not variable:
        return ""
    if not arguments.oauth_client_id:
        raise UsageError(text.only_with("--oauth-client-secret-env", "--oauth-client-id"))
    value = os.environ.get(variable, "")
    if not value:
        raise UsageError(text.unset_variable(variable, text.CLIENT_SECRET), hint=text.UNSET_VARIABLE_HINT)
    return value


@asynccontextmanager
async def authorized(
    url: str,
    inner: httpx2.AsyncBaseTransport,
    options: OAuthOptions | None,
    arguments: Arguments,
    say: Callable[[str], None],
    *,
    hide: Callable[[str], None],
) -> AsyncIterator[httpx2.AsyncBaseTransport]:
    """`inner`, which speaks to the attested server, with the bridge's authorization above it."""
    if options is None:
        yield inner
        return
    from attestable_mcp.mcp.oauth.session import OAuthSession
    from attestable_mcp.mcp.oauth.web import Web
    from attestable_mcp.mcp.outbound import Outbound

    async def show(page: str) -> None:
        opened = not arguments.no_browser and await anyio.to_thread.run_sync(_open, page)
        say(text.sign_in(page, opened=opened))

    hide(options.client_secret)
    kept = _kept(url, arguments)
    async with OAuthSession(url, Web(url, inner), kept, show=show, say=say, hide=hide, options=options) as session:
        yield Outbound(inner, authorizer=session)


def _open(page: str) -> bool:
    """Open the page in a browser with a window of its own; one in the terminal would eat the host's messages."""
    if sys.platform not in ("win32", "darwin") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return False
    try:
        return webbrowser.open(page)
    except (webbrowser.Error, OSError):
        return False


def _kept(url: str, arguments: Arguments) -> Kept:
    from attestable_mcp.mcp.oauth.store import Kept, open_store

    return Kept(open_store(arguments.oauth_store), url)


async def log_in(url: str, transport: httpx2.AsyncBaseTransport, terminal: Terminal) -> int:
    """Ask the server for its event stream, which makes it ask for authorization, and close it."""
    import httpx2

    from attestable_mcp.mcp.bridge_headers import BASE

    async with httpx2.AsyncClient(transport=transport, trust_env=False) as http:
        async with http.stream("GET", url, headers=BASE, timeout=30.0) as response:
            asked, status = "authorization" in response.request.headers, response.status_code
    refused = status in (401, 403)
    if terminal.json:
        terminal.emit({"authorized": asked and not refused, "status": status})
    else:
        terminal.data(text.logged_in(asked=asked, refused=refused, status=status))
    return 2 if refused else 0


async def log_out(url: str, arguments: Arguments, terminal: Terminal) -> int:
    """Forget the tokens for this server, here and at the authorization server."""
    from attestable_mcp.mcp.oauth import session
    from attestable_mcp.mcp.oauth.web import Web

    web = Web(url, None)
    try:
        found, revoked = await session.log_out(url, web, _kept(url, arguments))
    finally:
        await web.aclose()
    if terminal.json:
        terminal.emit({"forgotten": found, "revoked": revoked})
    else:
        terminal.data(text.logged_out(found=found, revoked=revoked))
    return 0
