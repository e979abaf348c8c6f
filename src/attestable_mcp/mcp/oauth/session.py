"""The bridge's authorization at one attested server: which token goes out, and what happens when it is refused.

One sign-in at a time: whoever meets a 401 meanwhile waits for it, and it goes on when they leave. A token is sent to
the attested origin alone, because only the transport above that connection asks for it (`mcp.outbound`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType

import anyio
import anyio.abc
import httpx2

from attestable_mcp.errors import AttestationError
from attestable_mcp.mcp.oauth import discovery, endpoints
from attestable_mcp.mcp.oauth.model import PENDING, Client, Grant, Issuer, OAuthOptions, Resource, failure, shown
from attestable_mcp.mcp.oauth.redirect import Redirect
from attestable_mcp.mcp.oauth.store import Kept
from attestable_mcp.mcp.oauth.web import Web

_log = logging.getLogger(__name__)
_AGAIN_SECONDS = 30.0
"""A token that is refused so soon after it was made is no reason to make another."""


class OAuthSession:
    """Use as `async with`; an `outbound.Authorizer`. `show` brings a URL before the person, `say` is for the
    log, `hide` is told of each token that the log must not show.
    """

    def __init__(
        self,
        server: str,
        web: Web,
        kept: Kept,
        *,
        show: Callable[[str], Awaitable[None]],
        say: Callable[[str], None],
        hide: Callable[[str], None] = lambda secret: None,
        options: OAuthOptions | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._server = server
        self._web = web
        self._kept = kept
        self._show = show
        self._say = say
        self._hide = hide
        self._options = options or OAuthOptions()
        self._now = now
        self._grant: Grant | None = None
        self._loaded = False
        self._made = _Made()
        self._work: _Work | None = None
        self._tasks = anyio.create_task_group()

    async def __aenter__(self) -> OAuthSession:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tasks.cancel_scope.cancel()
        await self._tasks.__aexit__(None, None, None)
        with anyio.CancelScope(shield=True):
            await self._web.aclose()

    # --- for the transport -----------------------------------------------------------------------------------------

    async def header(self) -> str | None:
        """The token as it should go out now, renewed if it has run out. Raises: AttestationError."""
        if not self._loaded:
            self._take(await self._kept.load())
            self._loaded = True
        grant = self._grant
        if grant is None or grant.fresh(self._now()) or not grant.refresh_token:
            return grant.header if grant is not None else None
        return await self._join(_Work(self._renewed, grant.header))

    async def challenged(self, response: httpx2.Response, sent: str | None) -> str | None:
        """Another token after the server refused `sent`. Raises: AttestationError."""
        demand = discovery.demand_of(response)
        if not demand.bearer or (response.status_code == 403 and demand.error != "insufficient_scope"):
            return None
        if response.status_code == 403 and self._holds(demand.scope):
            return None
        held = self._grant.header if self._grant is not None else None
        if held is not None and held != sent:
            return held

        async def work(refused: str | None) -> str | None:
            return await self._replaced(demand, refused, more=response.status_code == 403)

        return await self._join(_Work(work, sent))

    def _holds(self, scope: str) -> bool:
        return self._grant is not None and set(scope.split()) <= set(self._grant.scope.split())

    async def _join(self, work: _Work) -> str | None:
        """Run the work, or wait for the work that runs."""
        if self._work is None:
            self._work = work
            self._tasks.start_soon(self._run, work)
        running = self._work
        with anyio.move_on_after(self._options.wait_seconds):
            await running.done.wait()
        if not running.done.is_set():
            where = f"; open {running.page}" if running.page else ""
            raise failure(
                f"waiting for somebody to sign in{where}",
                code=PENDING,
                hint="sign in with the browser, then ask again",
            )
        if running.error is not None:
            raise running.error
        return running.header

    async def _run(self, work: _Work) -> None:
        try:
            work.header = await work.call(work.refused)
        except AttestationError as error:
            work.error = error
        except Exception as error:  # noqa: BLE001 - a fault here must not end the bridge; who waits is told
            _log.debug("authorization", exc_info=True)
            work.error = failure(f"a fault: {type(error).__name__}")
        finally:
            self._work = None
            work.done.set()

    # --- the work --------------------------------------------------------------------------------------------------

    async def _renewed(self, old: str | None) -> str | None:
        """The header of a renewed token; that of the old one is gone where it cannot be renewed."""
        async with self._kept.alone(self._options.login_seconds):
            return await self._refresh(old)

    async def _replaced(self, demand: discovery.Demand, refused: str | None, *, more: bool) -> str | None:
        async with self._kept.alone(self._options.login_seconds):
            if not more:
                if self._made.recent("sign-in", refused, self._now()):
                    return None
                header = await self._refresh(refused)
                if header is not None:
                    return header
            return await self._sign_in(demand)

    async def _refresh(self, refused: str | None) -> str | None:
        """Another process's newer token, or one for the refresh token; None where a person must sign in."""
        grant = await self._kept.load()
        if grant is not None and grant.header != refused and grant.fresh(self._now()):
            self._take(grant)
            return grant.header
        if grant is None or not grant.refresh_token or self._made.recent("refresh", refused, self._now()):
            return None
        try:
            grant = await endpoints.refresh(self._web, grant, now=self._now())
        except endpoints.GrantGone as gone:
            _log.info("the refresh token is taken no more: %s", gone)
            await self._drop(None if gone.client_unknown else grant.without_tokens())
            return None
        await self._keep(grant, "refresh")
        return grant.header

    def _take(self, grant: Grant | None) -> None:
        self._grant = grant
        for secret in (grant.access_token, grant.refresh_token, grant.client.secret) if grant is not None else ():
            self._hide(secret)

    async def _keep(self, grant: Grant, how: str) -> None:
        self._take(grant)
        self._made = _Made(how=how, header=grant.header, at=self._now())
        await self._kept.save(grant)

    async def _drop(self, rest: Grant | None) -> None:
        """Keep no token, and `rest` if anything of it is of use."""
        self._grant = None
        if rest is None:
            await self._kept.forget()
        else:
            await self._kept.save(rest)

    async def _sign_in(self, demand: discovery.Demand) -> str | None:
        """Through the browser to a new grant; None where the server does not say who may authorize."""
        resource = await discovery.find_resource(self._web, self._server, demand)
        if resource is None:
            return None
        held = await self._kept.load()
        issuer = await discovery.find_issuer(self._web, _choose(resource, held))
        known = held.client if held is not None and held.issuer == issuer.issuer else None
        if known is not None and known.expires_at and known.expires_at < self._now():
            known = None
        port = self._options.redirect_port or (known.redirect_port if known is not None else 0)
        async with Redirect(port, fixed=bool(self._options.redirect_port)) as redirect:
            client = await endpoints.find_client(self._web, issuer, self._options, known, redirect.port)
            scope = self._scope(demand, resource, issuer)
            try:
                grant = await self._granted(resource, issuer, client, redirect, scope)
            except AttestationError:
                if client is known:  # it may have been deleted there, which only the person's browser is told
                    await self._drop(None)
                raise
        await self._keep(grant, "sign-in")
        self._say(f"signed in at {shown(issuer.issuer)} for {shown(resource.resource)}")
        return grant.header

    async def _granted(
        self, resource: Resource, issuer: Issuer, client: Client, redirect: Redirect, scope: str
    ) -> Grant:
        empty = Grant(
            server=self._server,
            resource=resource.resource,
            issuer=issuer.issuer,
            token_endpoint=issuer.token_endpoint,
            revocation_endpoint=issuer.revocation_endpoint,
            client=client,
            scope=scope,
        )
        pkce = endpoints.Pkce.make()
        url = endpoints.authorization_url(
            issuer,
            client,
            redirect_uri=redirect.uri,
            state=redirect.state,
            pkce=pkce,
            resource=empty.resource,
            scope=scope,
        )
        if self._work is not None:
            self._work.page = url
        await self._show(url)
        code = await redirect.code(issuer, self._options.login_seconds)
        return await endpoints.exchange(
            self._web, empty, code=code, redirect_uri=redirect.uri, pkce=pkce, now=self._now()
        )

    def _scope(self, demand: discovery.Demand, resource: Resource, issuer: Issuer) -> str:
        """What to ask for (MCP basic/authorization, Scope Selection Strategy); what was granted before is kept."""
        wanted = (self._options.scope or demand.scope).split() or list(resource.scopes)
        before = self._grant.scope.split() if self._grant is not None and demand.error == "insufficient_scope" else []
        extra = ["offline_access"] if wanted and "offline_access" in issuer.scopes else []
        return " ".join(dict.fromkeys([*before, *wanted, *extra]))


class _Work:
    """One piece of work that several requests may wait for."""

    def __init__(self, call: Callable[[str | None], Awaitable[str | None]], refused: str | None) -> None:
        self.call = call
        self.refused = refused
        self.page = ""
        self.done = anyio.Event()
        self.header: str | None = None
        self.error: AttestationError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """How and when this process got the token that it sends."""

    how: str = ""
    header: str | None = None
    at: float = 0.0

    def recent(self, how: str, header: str | None, now: float) -> bool:
        """Was this very token made in this way a moment ago?"""
        return header is not None and (how, header) == (self.how, self.header) and now - self.at < _AGAIN_SECONDS


def _choose(resource: Resource, held: Grant | None) -> str:
    """The authorization server that is known already, if the attested server still names it; else its first."""
    if held is not None:
        for issuer in resource.issuers:
            if discovery.same_issuer(issuer, held.issuer):
                return issuer
    return resource.issuers[0]


async def log_out(server: str, web: Web, kept: Kept) -> tuple[bool, bool]:
    """Forget what was granted for the server: (was there anything, was it revoked at the authorization server too).

    Raises: AttestationError of the store; a revocation that fails is no error.
    """
    async with kept.alone(5.0):
        grant = await kept.load()
        revoked = False
        if grant is not None:
            try:
                revoked = await endpoints.revoke(web, grant)
            except AttestationError as error:
                _log.info("not revoked: %s", error.message)
        return await kept.forget(), revoked
