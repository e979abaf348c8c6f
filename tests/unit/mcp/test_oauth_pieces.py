"""The parts of the OAuth room by themselves: where grants are kept, what challenges say, which answers count."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import keyring
import keyring.backend
import keyring.errors
import pytest

from attestable_mcp.cli.main import main
from attestable_mcp.errors import ConfigurationError, ConversationError
from attestable_mcp.mcp.oauth import store
from attestable_mcp.mcp.oauth.discovery import covers, demand_of, same_issuer
from attestable_mcp.mcp.oauth.endpoints import Pkce, granted
from attestable_mcp.mcp.oauth.model import Client, Grant, Issuer
from attestable_mcp.mcp.oauth.redirect import Redirect

pytestmark = pytest.mark.anyio
SERVER = "https://mcp.example:8443/mcp"
GRANT = Grant(
    server=SERVER, resource=SERVER, issuer="https://as.example", token_endpoint="https://as.example/token",
    revocation_endpoint="", client=Client(id="c", secret="s3cret"), access_token="at-1", refresh_token="rt-1",
)  # fmt: skip
ISSUER = Issuer(issuer="https://as.example", authorization_endpoint="x", token_endpoint="x", names_itself=True)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Ring(keyring.backend.KeyringBackend):
    """A keyring that lives in memory, or one that is locked."""

    priority = 5  # type: ignore[assignment]

    def __init__(self, *, locked: bool = False) -> None:
        super().__init__()
        self.locked = locked
        self.kept: dict[tuple[str, str], str] = {}

    def _check(self) -> None:
        if self.locked:
            raise keyring.errors.KeyringLocked("CANARY")

    def get_password(self, service: str, username: str) -> str | None:
        self._check()
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self._check()
        self.kept[(service, username)] = password

    def delete_password(self, service: str, username: str) -> None:
        self._check()
        if (service, username) not in self.kept:
            raise keyring.errors.PasswordDeleteError
        del self.kept[(service, username)]


@pytest.fixture
def ring() -> Iterator[Ring]:
    found = Ring()
    before = keyring.get_keyring()
    keyring.set_keyring(found)
    yield found
    keyring.set_keyring(before)


def test_a_real_keyring_is_preferred_and_kept_to(ring: Ring) -> None:
    chosen = store.open_store("auto")
    assert chosen.name.startswith("the system keyring")
    chosen.save(SERVER, GRANT.to_json())
    assert list(ring.kept) == [("attestable-mcp", SERVER)]
    assert Grant.from_json(chosen.load(SERVER) or "") == GRANT
    assert chosen.forget(SERVER)
    assert not chosen.forget(SERVER)
    assert isinstance(store.open_store("file"), store.FileStore)


def test_a_locked_keyring_is_told_without_its_words(ring: Ring) -> None:
    ring.locked = True
    with pytest.raises(ConfigurationError, match="KeyringLocked") as told:
        store.open_store("keyring").load(SERVER)
    assert told.value.code == "keyring"
    assert "CANARY" not in str(told.value)


def test_without_a_keyring_a_file_is_used_and_saying_keyring_is_an_error() -> None:
    before = keyring.get_keyring()
    keyring.set_keyring(keyring.backends.fail.Keyring())
    try:
        assert isinstance(store.open_store("auto"), store.FileStore)
        with pytest.raises(ConfigurationError, match="no system keyring"):
            store.open_store("keyring")
    finally:
        keyring.set_keyring(before)


def test_a_file_is_replaced_whole_and_for_its_owner(tmp_path: Path) -> None:
    files = store.FileStore(tmp_path / "oauth")
    assert files.load(SERVER) is None
    files.save(SERVER, "first")
    files.save(SERVER, "second")
    (path,) = (tmp_path / "oauth").iterdir()
    assert path.read_text() == "second"
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SERVER not in path.name
    assert files.forget(SERVER)
    assert not files.forget(SERVER)


@pytest.mark.parametrize("text", ["", "null", "[]", "{}", '{"version": 2}', '{"version": 1, "client": 3}', "[" * 5000])
def test_what_is_no_grant_counts_as_none(text: str) -> None:
    assert Grant.from_json(text) is None


def test_secrets_are_not_in_a_grants_repr() -> None:
    assert not [word for word in ("at-1", "rt-1", "s3cret") if word in repr(GRANT)]


async def test_a_grant_of_another_server_is_not_taken(tmp_path: Path) -> None:
    files = store.FileStore(tmp_path)
    files.save("https://evil.example/mcp", GRANT.to_json())
    assert await store.Kept(files, "https://evil.example/mcp").load() is None


async def test_two_cannot_work_on_one_grant_at_once(tmp_path: Path) -> None:
    one, two = (store.Kept(store.FileStore(tmp_path), SERVER) for _ in range(2))
    async with one.alone(1):
        with pytest.raises(ConversationError, match="another bridge"):
            async with two.alone(0.2):
                pass
    async with two.alone(0.2):
        pass


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([], (True, "", "", "")),
        (["Basic realm=x"], (False, "", "", "")),
        (['Bearer error="invalid_token", scope="a b", resource_metadata="https://x/y"'],
         (True, "invalid_token", "a b", "https://x/y")),
        (["Basic realm=x", 'bearer scope="a\\\\b\\"c"'], (True, "", "", "")),
        (["DPoP algs=ES256, Bearer error=insufficient_scope, scope=admin"],
         (True, "insufficient_scope", "admin", "")),
    ],
)  # fmt: skip
def test_challenges_are_read(values: list[str], wanted: tuple[Any, ...]) -> None:
    response = httpx2.Response(401, headers=[("www-authenticate", value) for value in values])
    found = demand_of(response)
    assert (found.bearer, found.error, found.scope, found.metadata) == wanted


@pytest.mark.parametrize(
    ("resource", "fits"),
    [
        (SERVER, True),
        ("https://MCP.example:8443/mcp/", True),
        ("https://mcp.example:8443", True),
        ("https://mcp.example:8443/m", False),
        ("https://mcp.example:8443/mcp/deeper", False),
        ("https://mcp.example/mcp", False),
        ("http://mcp.example:8443/mcp", False),
        ("https://mcp.example:8443@evil.example/mcp", False),
        ("https://evil.example/mcp", False),
        ("https://mcp.example:8443/mcp#x", False),
        ("mcp", False),
    ],
)
def test_a_resource_covers_its_own_paths_only(resource: str, fits: bool) -> None:
    assert covers(resource, SERVER) is fits


def test_issuers_are_equal_as_strings_save_for_a_bare_slash() -> None:
    assert same_issuer("https://a.example", "https://a.example/")
    assert not same_issuer("https://a.example/t", "https://a.example/t/")
    assert not same_issuer("https://a.example", "https://A.example")


def test_pkce_is_rfc_7636s() -> None:
    made = Pkce.make()
    assert 43 <= len(made.verifier) <= 128
    assert len(made.challenge) == 43
    assert Pkce.make() != made


def test_a_refresh_may_leave_things_out() -> None:
    found = granted(GRANT, {"access_token": "at-2", "token_type": "bearer", "expires_in": "60"}, 1000.0)
    assert (found.access_token, found.refresh_token, found.expires_at) == ("at-2", "rt-1", 1060.0)
    assert found.fresh(1029)
    assert not found.fresh(1031)


async def ask(redirect: Redirect, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", redirect.port)
    writer.write(request + b"\r\nHost: x\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


async def test_only_the_answer_with_our_state_counts() -> None:
    async with Redirect() as redirect:
        state = redirect.state.encode()
        strangers = [
            b"GET / HTTP/1.1", b"GET /callback HTTP/1.1", b"GET /callback?code=evil HTTP/1.1", b"nonsense", b"",
            b"POST /callback?code=evil&state=" + state + b" HTTP/1.1",
            b"GET /callback?code=a&code=b&state=" + state + b" HTTP/1.1",
            b"GET /callback?code=evil&state=" + state[:-1] + b" HTTP/1.1",
            b"GET /callback?" + b"&".join(b"a%d=1" % number for number in range(50)) + b" HTTP/1.1",
        ]  # fmt: skip
        for request in strangers:
            assert b" 200 " not in await ask(redirect, request)
        good = b"GET /callback?code=right&iss=https%3A%2F%2Fas.example&state=" + state + b" HTTP/1.1"
        page = await ask(redirect, good)
        assert b" 200 " in page
        assert b"right" not in page
        assert await redirect.code(ISSUER, 1) == "right"


async def test_a_port_that_is_taken_is_an_error_only_where_it_was_asked_for() -> None:
    async with Redirect() as first:
        async with Redirect(first.port) as second:
            assert second.port != first.port
        with pytest.raises(ConversationError, match="cannot listen"):
            async with Redirect(first.port, fixed=True):
                pass


async def test_silent_visitors_do_not_block_the_answer() -> None:
    async with Redirect() as redirect:
        silent = [await asyncio.open_connection("127.0.0.1", redirect.port) for _ in range(8)]
        good = b"GET /callback?code=right&iss=https%3A%2F%2Fas.example&state=" + redirect.state.encode() + b" HTTP/1.1"
        with anyio.fail_after(3):
            assert b" 200 " in await ask(redirect, good)
        for _, writer in silent:
            writer.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--no-oauth", "--login"], "--login has no meaning with --no-oauth"),
        (["--no-oauth", "--oauth-scope", "a"], "--oauth-scope has no meaning with --no-oauth"),
        (["--header-env", "Authorization=TOKEN", "--oauth-client-id", "x"], "an Authorization header of your own"),
        (["--oauth-client-secret-env", "TOKEN"], "goes with --oauth-client-id only"),
        (["--oauth-client-id", "x", "--oauth-client-secret-env", "NOT_SET"], "is not set or empty"),
        (["--oauth-redirect-port", "0"], "is not a port"),
        (["--login", "--listen", "127.0.0.1:0"], "--login has no meaning with --listen"),
    ],
)
def test_options_that_exclude_one_another_are_told(
    words: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOKEN", "Bearer CANARY")
    assert main(["connect", "https://127.0.0.1:1/mcp", "--genuine-only", *words]) == 1
    out, err = capsys.readouterr()
    assert said in err
    assert "CANARY" not in err + out


def test_log_out_without_tokens_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["connect", SERVER, "--logout", "--oauth-store", "file"]) == 0
    assert capsys.readouterr().out == "there were no tokens for this server\n"
    assert main(["connect", SERVER, "--logout", "--oauth-store", "file", "--json"]) == 0
    assert capsys.readouterr().out == '{"forgotten": false, "revoked": false}\n'
