"""OAuth by the bridge, against an authorization server that checks: every wrong turn ends without a token anywhere."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp.server import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from oauth_double import Authority, Knobs, Protected, authority, browse, make_ca, trusting

from attestable_mcp import Policy, serve
from attestable_mcp.errors import AttestationError, ConversationError
from attestable_mcp.mcp.local import AttestedRelay
from attestable_mcp.mcp.oauth.model import Grant, OAuthOptions
from attestable_mcp.mcp.oauth.session import OAuthSession, log_out
from attestable_mcp.mcp.oauth.store import FileStore, Kept, folder
from attestable_mcp.mcp.oauth.web import Web
from attestable_mcp.mcp.outbound import Outbound
from attestable_mcp.tls.admission import Gate
from attestable_mcp.tls.client import attested_transport

pytestmark = pytest.mark.anyio
MEASURED = bytes(range(32))
CALL = {
    "jsonrpc": "2.0", "id": 1, "method": "tools/call",
    "params": {"name": "add", "arguments": {"a": 2, "b": 3}, "_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"}}},
}  # fmt: skip
SENT = {
    "accept": "application/json, text/event-stream", "content-type": "application/json",
    "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "add",
}  # fmt: skip


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_ca(tmp_path_factory.mktemp("ca"))


def policy(measured: bytes = MEASURED) -> Policy:
    text = '[trust]\nsimulated = "accept"\nendorsements = ["stapled"]\n\n[policy]\nmrenclave = "{}"\n'
    return Policy.from_toml(text.format(measured.hex()))


class World:
    """An authorization server, an attested MCP server that wants its tokens, and a bridge's way to it."""

    def __init__(self, made: Authority, behind: Protected, url: str, ca: Path) -> None:
        self.authority = made
        self.behind = behind
        self.url = url
        self.ca = ca
        self.pages: list[str] = []
        self.said: list[str] = []
        self.ahead = 0.0

    async def show(self, page: str) -> None:
        self.pages.append(page)
        await browse(page, self.ca)

    def web(self, inner: httpx2.AsyncBaseTransport | None) -> Web:
        return Web(self.url, inner, httpx2.AsyncHTTPTransport(verify=trusting(self.ca), trust_env=False))

    @asynccontextmanager
    async def bridge(self, chosen: Policy | None = None, **options: Any) -> AsyncIterator[httpx2.AsyncClient]:
        import time

        show = options.pop("show", self.show)
        inner = Outbound(attested_transport(Gate(chosen or policy()), self.url), headers={"x-key": "k"})
        session = OAuthSession(
            self.url, self.web(inner), Kept(FileStore(), self.url), show=show, say=self.said.append,
            options=OAuthOptions(**options), now=lambda: time.time() + self.ahead,
        )  # fmt: skip
        async with session, httpx2.AsyncClient(transport=Outbound(inner, authorizer=session)) as http:
            yield http

    async def call(self, http: httpx2.AsyncClient) -> httpx2.Response:
        return await http.post(self.url, json=CALL, headers=SENT, timeout=30)

    def kept(self) -> Grant | None:
        text = FileStore().load(self.url)
        return Grant.from_json(text) if text else None


@pytest.fixture
async def world(certificates: tuple[Path, Path]) -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def build(**knobs: Any) -> World:
            made = await stack.enter_async_context(authority(Knobs(**knobs), certificates[1]))
            mcp = MCPServer("behind")

            @mcp.tool()
            def add(a: int, b: int) -> int:
                return a + b

            loose = TransportSecuritySettings(enable_dns_rebinding_protection=False)
            behind = Protected(mcp.streamable_http_app(transport_security=loose), made)
            running = await stack.enter_async_context(serve(behind, attester="simulated", measured=MEASURED))
            behind.url = running.url
            behind.tokens.clear()  # `serve` itself asks for the lists, and is refused
            return World(made, behind, running.url, certificates[0])

        yield build


def result(answer: httpx2.Response) -> str:
    assert answer.status_code == 200, answer.text
    text = answer.text.partition("data: ")[2] or answer.text
    return str(json.loads(text)["result"]["content"][0]["text"])


# --- the good way


async def test_a_401_leads_through_the_browser_to_a_token(world: Any) -> None:
    here: World = await world()
    async with here.bridge() as http:
        assert result(await here.call(http)) == "5"
        assert result(await here.call(http)) == "5"
    first, second, third = here.behind.tokens
    assert first is None
    assert second == third
    asked = here.authority.asked("/authorize")[0]
    assert asked["resource"] == here.url
    assert asked["scope"] == "tools offline_access"
    assert len(asked["state"]) >= 43
    assert len(here.pages) == 1
    assert here.authority.asked("/token")[0]["grant_type"] == "authorization_code"
    grant = here.kept()
    assert grant is not None
    assert grant.issuer == f"{here.authority.url}/tenant"
    if os.name == "posix":
        (path,) = folder().glob("*.json")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(folder().stat().st_mode) == 0o700


async def test_the_next_process_finds_the_token_and_registers_no_second_client(world: Any) -> None:
    here: World = await world()
    async with here.bridge() as http:
        await here.call(http)
    async with here.bridge() as http:
        assert result(await here.call(http)) == "5"
    assert len(here.pages) == 1
    assert here.behind.tokens[-1] == here.behind.tokens[-2]
    here.authority.access.clear()
    here.authority.refresh.clear()
    async with here.bridge() as http:
        assert result(await here.call(http)) == "5"
    assert len(here.pages) == 2
    assert len(here.authority.asked("/register")) == 1


async def test_the_access_token_goes_to_the_attested_origin_only(world: Any) -> None:
    here: World = await world()
    async with here.bridge() as http:
        await here.call(http)
        here.ahead = 7200
        await here.call(http)
    tokens = set(here.authority.access)
    assert len(tokens) == 2
    for _, path, headers, form in here.authority.log:
        assert not tokens & set(headers.values()), path
        assert not any(token in json.dumps([headers, form]) for token in tokens), path
        assert "x-key" not in headers, path
        assert "cookie" not in headers


async def test_no_token_before_the_verdict(world: Any) -> None:
    here: World = await world()
    async with here.bridge() as http:
        await here.call(http)
    before = len(here.behind.tokens)
    async with here.bridge(policy(b"\1" * 32)) as http:
        with pytest.raises(AttestationError) as refused:
            await here.call(http)
    assert refused.value.code == "measurement_mismatch"
    assert len(here.behind.tokens) == before
    assert len(here.pages) == 1


async def test_a_token_that_ran_out_is_renewed_before_it_is_sent(world: Any) -> None:
    here: World = await world()
    async with here.bridge() as http:
        await here.call(http)
        here.ahead = 7200
        answers = []
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(lambda: _append(answers, here.call(http)))
        assert [result(answer) for answer in answers] == ["5"] * 5
    renewals = [form for form in here.authority.asked("/token") if form["grant_type"] == "refresh_token"]
    assert len(renewals) == 1
    assert renewals[0]["resource"] == here.url
    assert not here.authority.stolen
    assert len(here.pages) == 1


async def _append(found: list[Any], work: Any) -> None:
    found.append(await work)


async def test_two_bridges_renew_once_between_them(world: Any) -> None:
    here: World = await world()
    async with here.bridge() as one, here.bridge() as two:
        await here.call(one)
        await here.call(two)
        here.ahead = 7200
        answers: list[Any] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: _append(answers, here.call(one)))
            tasks.start_soon(lambda: _append(answers, here.call(two)))
        assert [result(answer) for answer in answers] == ["5", "5"]
    assert not here.authority.stolen
    assert len(here.pages) == 1


async def test_a_token_refused_early_is_renewed_and_a_dead_grant_asks_the_person_again(world: Any) -> None:
    here: World = await world()
    async with here.bridge() as http:
        await here.call(http)
        here.ahead = 60
        here.authority.access.clear()
        assert result(await here.call(http)) == "5"
        assert len(here.pages) == 1
        here.ahead = 120
        here.authority.access.clear()
        here.authority.refresh.clear()
        assert result(await here.call(http)) == "5"
        assert len(here.pages) == 2


async def test_a_server_that_refuses_every_token_opens_one_page_only(world: Any) -> None:
    here: World = await world(refuse_tokens=True)
    async with here.bridge() as http:
        for _ in range(3):
            assert (await here.call(http)).status_code == 401
    assert len(here.pages) == 1


async def test_more_scope_is_asked_for_on_top(world: Any) -> None:
    here: World = await world()
    async with here.bridge() as http:
        await here.call(http)
        here.authority.knobs.scope_needed = "admin"
        assert result(await here.call(http)) == "5"
        here.authority.knobs.scope_needed = ""
    assert here.authority.asked("/authorize")[1]["scope"] == "tools offline_access admin"


async def test_a_client_registered_by_hand_is_used_with_its_secret(world: Any) -> None:
    here: World = await world(registers=False)
    async with here.bridge(client_id="by-hand", client_secret="s3cret") as http:
        assert result(await here.call(http)) == "5"
    assert not here.authority.asked("/register")
    assert "client_secret" not in here.authority.asked("/token")[0]


@pytest.mark.parametrize("documents", [True, False])
async def test_a_metadata_document_is_preferred_where_the_server_takes_one(world: Any, documents: bool) -> None:
    here: World = await world(documents=documents)
    document = "https://client.example/attestable-mcp.json"
    async with here.bridge(client_id=document) as http:
        assert result(await here.call(http)) == "5"
    assert (here.authority.asked("/authorize")[0]["client_id"] == document) is documents
    assert bool(here.authority.asked("/register")) is not documents


async def test_log_out_revokes_and_forgets(world: Any) -> None:
    here: World = await world()
    async with here.bridge() as http:
        await here.call(http)
    kept = Kept(FileStore(), here.url)
    assert await log_out(here.url, here.web(None), kept) == (True, True)
    assert here.authority.revoked[0].startswith("rt-")
    assert here.kept() is None
    assert await log_out(here.url, here.web(None), kept) == (False, False)


async def test_the_local_endpoint_signs_in_too_and_sends_the_body_again(world: Any) -> None:
    here: World = await world()
    inner = Outbound(attested_transport(Gate(policy()), here.url))
    session = OAuthSession(here.url, here.web(inner), Kept(FileStore(), here.url), show=here.show, say=here.said.append)
    relay = AttestedRelay(here.url, Outbound(inner, authorizer=session), say=here.said.append, met=lambda _: None)
    async with session, relay, httpx2.AsyncClient(transport=httpx2.ASGITransport(relay)) as http:
        answer = await http.post("http://127.0.0.1/mcp", json=CALL, headers=SENT, timeout=30)
    assert result(answer) == "5"
    assert len(here.pages) == 1
    assert answer.headers["attestation-verdict"].startswith("verified;")


# --- wrong turns


@pytest.mark.parametrize(
    ("knobs", "said"),
    [
        ({"iss": "https://evil.example"}, "names the issuer 'https://evil.example'"),
        ({"iss": None}, "does not name its issuer"),
        ({"deny": "access_denied"}, "refused: access_denied"),
        ({"code": "invented"}, "gives no token: invalid_grant"),
        ({"resource": "https://evil.example/mcp"}, "is about the resource 'https://evil.example/mcp'"),
        ({"resource": "https://127.0.0.1:1/mcp"}, "is about the resource"),
        ({"resource_metadata": "https://evil.example/prm"}, "wanted it on its own, attested origin"),
        ({"metadata": {"issuer": "https://evil.example"}}, "names the issuer 'https://evil.example'"),
        ({"metadata": {"token_endpoint": "http://127.0.0.1:1/token"}}, "wanted an https URL"),
        ({"metadata": {"authorization_endpoint": "file:///etc/passwd"}}, "wanted an https URL"),
        ({"metadata": {"code_challenge_methods_supported": ["plain"]}}, "PKCE with S256"),
        ({"registers": False}, "registers no clients by itself"),
        ({"token": {"token_type": "DPoP"}}, "of type Bearer"),
        ({"token": {"access_token": "a b\r\nX-Evil: 1"}}, "wanted an access token"),
        ({"cap": 300_000}, "at most 262144 bytes"),
        ({"redirect_metadata": "https://127.0.0.1:1/"}, "publishes no authorization server metadata"),
        ({"redirect_token": "https://127.0.0.1:1/"}, "gives no token: HTTP 307"),
    ],
)
async def test_a_wrong_turn_ends_without_a_token(world: Any, knobs: dict[str, Any], said: str) -> None:
    here: World = await world(**knobs)
    async with here.bridge() as http:
        with pytest.raises(ConversationError) as told:
            await here.call(http)
    assert said in told.value.message
    assert told.value.code in ("authorization_failed", "authorization_refused")
    assert here.kept() is None
    assert here.behind.tokens == [None]


async def test_an_answer_with_another_state_is_none(world: Any) -> None:
    here: World = await world(state="guessed")
    async with here.bridge(login_seconds=0.5) as http:
        with pytest.raises(ConversationError, match="nobody signed in within"):
            await here.call(http)
    assert not here.authority.asked("/token")
    assert here.kept() is None


async def test_a_host_that_waits_too_long_is_told_where_to_sign_in_and_asks_again(world: Any) -> None:
    here: World = await world()
    go = anyio.Event()

    async def later(page: str) -> None:
        here.pages.append(page)
        await go.wait()
        await browse(page, here.ca)

    async with here.bridge(wait_seconds=0.3, show=later) as http:
        with pytest.raises(ConversationError) as told:
            await here.call(http)
        assert told.value.code == "authorization_pending"
        assert here.pages[0] in told.value.message
        go.set()
        with anyio.fail_after(40):
            while here.kept() is None:
                await anyio.sleep(0.02)
        assert result(await here.call(http)) == "5"
    assert len(here.pages) == 1


async def test_a_server_without_metadata_is_a_plain_401(world: Any) -> None:
    here: World = await world(with_metadata=False)
    async with here.bridge() as http:
        assert (await here.call(http)).status_code == 401
    assert not here.pages


async def test_an_authorization_server_that_nobody_vouches_for_gets_nothing(world: Any) -> None:
    here: World = await world()
    inner = attested_transport(Gate(policy()), here.url)
    session = OAuthSession(
        here.url, Web(here.url, inner), Kept(FileStore(), here.url), show=here.show, say=here.said.append
    )
    async with session, httpx2.AsyncClient(transport=Outbound(inner, authorizer=session)) as http:
        with pytest.raises(ConversationError, match="CERTIFICATE_VERIFY_FAILED"):
            await here.call(http)
    assert not here.authority.log


async def test_tokens_that_others_may_read_are_not_used(world: Any) -> None:
    if os.name != "posix":
        pytest.skip("modes are POSIX")
    here: World = await world()
    async with here.bridge() as http:
        await here.call(http)
    (path,) = folder().glob("*.json")
    path.chmod(0o644)
    async with here.bridge() as http:
        with pytest.raises(AttestationError, match="wanted mode 600"):
            await here.call(http)


# --- as a host starts it


async def test_the_command_signs_in_and_its_tokens_are_in_no_log(world: Any, tmp_path: Path) -> None:
    here: World = await world()
    path = tmp_path / "p.toml"
    path.write_text(
        f'[trust]\nsimulated = "accept"\nendorsements = ["stapled"]\n\n[policy]\nmrenclave = "{MEASURED.hex()}"\n'
        '[manifest]\nmode = "uncommitted"\n'  # `serve` has no token to read this server's lists with
    )
    words = ["-m", "attestable_mcp", "connect", here.url, "--policy", str(path), "--no-browser", "--json"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdin=pipe, stdout=pipe, stderr=pipe,
        env={**os.environ, "SSL_CERT_FILE": str(here.ca)},
    )  # fmt: skip
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(json.dumps(CALL).encode() + b"\n")
        said = b""
        with anyio.fail_after(15):
            while b"https://127" not in (line := await process.stderr.readline()) or b"authorize" not in line:
                said += line
        page = json.loads(line)["message"].rpartition(" ")[2]
        await browse(page, here.ca)
        with anyio.fail_after(10):
            answer = json.loads(await process.stdout.readline())
        assert "result" in answer, answer
        assert answer["result"]["content"][0]["text"] == "5"
        _, err = await asyncio.wait_for(process.communicate(b""), 10)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said += line + err
    assert process.returncode == 0
    for secret in (*here.authority.access, *here.authority.refresh):
        assert secret.encode() not in said
    assert b"Traceback" not in said
