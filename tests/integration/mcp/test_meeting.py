"""What each verb that meets a server demands of it without a policy, and how it proves itself: in one place for all."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from mcp.server import MCPServer

from attestable_mcp import Pins, serve
from attestable_mcp.attest.measurement import measure_target
from attestable_mcp.cli import text_offer
from attestable_mcp.cli.main import main

pytestmark = pytest.mark.anyio
FIRST, OTHER = bytes(range(32)), bytes(32)
DANGER = "--danger-accept-simulated"
CLIENT = measure_target("attestable_mcp.mcp.bridge").digest.hex()
"""What the simulated attester of the command line reports."""
CLIENTS = f"""clients = "required"
[trust]
simulated = "accept"
endorsements = ["stapled"]
[policy]
mrenclave = "{CLIENT}"
"""


def demo() -> MCPServer:
    server = MCPServer("demo", log_level="ERROR")

    @server.tool()
    def add(a: int, b: int) -> int:
        return a + b

    return server


def serving(measured: bytes = FIRST, **options: Any) -> Any:
    return serve(demo(), attester="simulated", measured=measured, **options)


Run = Callable[..., Any]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line in a thread, beside the server of the test: exit code, stdout, stderr."""

    async def run(*words: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        code = await anyio.to_thread.run_sync(main, list(words))
        return code, out.getvalue(), err.getvalue()

    return run


# A server that asks who calls


def asking(url: str, tmp_path: Path) -> dict[str, list[str]]:
    """A command line for each verb that talks with the server."""
    trust = ["--genuine-only", DANGER]
    return {
        "call": ["call", url, "add", "a=2", "b=3", *trust],
        "tools": ["tools", url, *trust],
        "manifest": ["manifest", url, *trust],
        "pin": ["pin", url, DANGER, "-o", str(tmp_path / "pinned.toml"), "--force"],
        "verify": ["verify", url, *trust],
    }


@pytest.mark.parametrize("verb", ["call", "tools", "manifest", "pin", "verify"])
async def test_a_server_that_demands_proof_of_its_clients_serves_a_verb_with_an_attester(
    verb: str, cli: Run, tmp_path: Path
) -> None:
    async with serving(clients=CLIENTS) as server:
        words = [*asking(server.url, tmp_path)[verb], "--json"]
        code, out, _ = await cli(*words, "--attester", "simulated")
        found = json.loads(out)
    assert code == (0 if verb == "pin" else 4)
    assert found["error"] is None if verb != "manifest" else found["committed"]
    if verb == "call":
        assert found["result"]["structuredContent"] == {"result": 5}
    if verb == "pin":
        assert "document = " in found["policy_toml"], "the lists were read, which takes a proof of this end"


async def test_without_an_attester_the_reason_says_which_option_is_missing(cli: Run, tmp_path: Path) -> None:
    async with serving(clients=CLIENTS) as server:
        for verb in ("call", "tools"):
            code, out, _ = await cli(*asking(server.url, tmp_path)[verb], "--json")
            error = json.loads(out)["error"]
            assert (code, error["code"]) == (2, "client_attestation_required")
            assert "--attester" in error["hint"]


async def test_verify_with_an_attester_says_whether_the_server_would_serve_us(cli: Run, tmp_path: Path) -> None:
    refusing = CLIENTS.replace(CLIENT, "00" * 32)
    async with serving(clients=refusing) as server:
        words = [*asking(server.url, tmp_path)["verify"], "--json"]
        assert (await cli(*words))[0] == 4, "the server itself is genuine"
        code, out, _ = await cli(*words, "--attester", "simulated")
        assert json.loads(out)["error"]["code"] == "client_refused"
        assert code == 2


async def test_an_attester_that_is_not_there_is_the_error(cli: Run) -> None:
    code, _, err = await cli("tools", "https://127.0.0.1:1/mcp", "--genuine-only", "--attester", "nitro")
    assert code != 0
    assert "nitro" in err
    code, _, err = await cli("verify", __file__, "--genuine-only", "--attester", "simulated")
    assert (code, "live server" in err) == (1, True)


# Pins in the place of a policy


MEETING = ("verify", "tools", "manifest", "call")


def plain(verb: str, url: str) -> list[str]:
    return [verb, url, *(["add", "a=2", "b=3"] if verb == "call" else []), DANGER]


@pytest.mark.parametrize("verb", MEETING)
async def test_a_pinned_server_is_held_to_its_pin_and_another_refused(verb: str, cli: Run) -> None:
    async with serving() as server:
        port, url = server.port, server.url
        assert (await cli("pin", "--update", url, "--yes", DANGER))[0] == 0
        code, out, err = await cli(*plain(verb, url))
        assert code == 0, out + err
        assert "nobody" in out + err or "anybody reviewed" in out + err, "it says what stood in a policy's place"
        assert "SIMULATED" in out + err, "nobody takes it for hardware"
        code, out, _ = await cli(*plain(verb, url), "--json")
        result = json.loads(out)
        result = result.get("attestation", result)
        assert (result["verdict"], "pin of" in result["policy"]) == ("verified", True)
        assert any("trust on first use" in words for words in result["not_proven"])
    before = Pins().get(f"https://127.0.0.1:{port}")
    async with serving(OTHER, listen=f"127.0.0.1:{port}"):
        code, out, _ = await cli(*plain(verb, url), "--json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "pin_mismatch")
    assert Pins().get(f"https://127.0.0.1:{port}") == before


@pytest.mark.parametrize("verb", MEETING)
async def test_what_is_not_pinned_is_not_pinned_silently_nor_trusted(verb: str, cli: Run) -> None:
    async with serving() as server:
        origin = server.url.removesuffix("/mcp")
        code, out, err = await cli(*plain(verb, server.url))
    assert (code, out) == (1, "")
    assert f"nothing is pinned for {origin}" in err
    assert "pin --update URL" in err
    assert not list(Pins().folder.glob("*.json"))


async def test_a_policy_that_is_named_takes_the_place_of_the_pin(cli: Run) -> None:
    """Never both: whoever names what to demand is told what that came to."""
    async with serving() as server:
        assert (await cli("pin", "--update", server.url, "--yes", DANGER))[0] == 0
        code, out, _ = await cli("verify", server.url, "--genuine-only", DANGER, "--json")
    assert (code, json.loads(out)["policy"]) == (4, "genuine-only + simulated evidence accepted")


async def test_a_pin_does_not_make_a_simulated_server_acceptable(cli: Run) -> None:
    async with serving() as server:
        assert (await cli("pin", "--update", server.url, "--yes", DANGER))[0] == 0
        code, out, _ = await cli("verify", server.url, "--json")
    assert (code, json.loads(out)["error"]["code"]) == (2, "simulated_evidence")


async def test_a_pin_that_goes_between_the_look_and_the_connection_is_not_made_again(tmp_path: Path) -> None:
    from attestable_mcp import ConfigurationError, attested_client

    async with serving() as server:
        with pytest.raises(ConfigurationError) as caught:
            async with attested_client(
                server.url, pins=Pins(tmp_path, first_use="refuse"), danger_accept_simulated=True
            ):
                pass
    assert caught.value.code == "not_pinned"
    assert not list(tmp_path.iterdir())


async def test_a_damaged_pin_refuses_and_is_no_first_use(cli: Run) -> None:
    async with serving() as server:
        path = Pins().path(server.url.removesuffix("/mcp"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{")
        code, out, _ = await cli("verify", server.url, DANGER, "--json")
    assert (code, json.loads(out)["error"]["code"]) == (1, "pin_damaged")


# What a pin could not hold


async def test_pin_says_where_it_could_hold_no_tools(cli: Run, tmp_path: Path) -> None:
    """The policy is the weaker for it, and looks like any other."""
    async with serving(manifest=False) as server:
        code, _, err = await cli(*asking(server.url, tmp_path)["pin"])
    assert code == 0
    assert text_offer.NO_OFFER in err
    async with serving(clients=CLIENTS) as server:
        code, _, err = await cli(*asking(server.url, tmp_path)["pin"])
    assert code == 0
    assert text_offer.OFFER_UNREAD in err
    async with serving() as server:
        code, _, err = await cli(*asking(server.url, tmp_path)["pin"])
    assert text_offer.NO_OFFER not in err
    assert text_offer.OFFER_UNREAD not in err


async def test_an_error_of_an_admitted_server_is_no_refusal(cli: Run, tmp_path: Path) -> None:
    async with serving() as server:
        elsewhere = server.url.replace("/mcp", "/nowhere")
        code, out, _ = await cli("tools", elsewhere, "--genuine-only", DANGER, "--json")
    assert (code, json.loads(out)["error"]["code"]) == (1, "mcp_error")
