"""P7: what the host can slip into a measured program is refused at start-up or changes what is measured."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from attestable_mcp.attest.environment import INJECTING, SHAPING, demand_own_environment, shaping
from attestable_mcp.cli.main import main
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.mcp.serve import serve

SERVER = Path(__file__).resolve().parents[2] / "examples" / "server.py"


@pytest.mark.parametrize("name", INJECTING)
def test_p7_a_variable_that_loads_code_stops_the_start(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "/tmp/evil.so")

    async def start() -> None:
        async with serve(f"{SERVER}:mcp", attester="simulated"):
            raise AssertionError("it started")

    with pytest.raises(ConfigurationError, match=name) as caught:
        asyncio.run(start())
    assert caught.value.code == "host_environment"
    assert "Unset it" in caught.value.hint


def test_p7_the_command_line_refuses_it_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LD_AUDIT", "/nonexistent/evil.so")
    assert main(["serve", f"{SERVER}:mcp", "--attester", "simulated", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "host_environment"


def test_p7_what_shapes_the_code_changes_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SHAPING:
        monkeypatch.delenv(name, raising=False)
    plain = shaping(os.environ)
    assert plain == {}
    assert all(shaping({name: "/elsewhere"}) == {f"environment/{name}": "/elsewhere"} for name in SHAPING)
    assert shaping({"LD_PRELOAD": "/x.so"}) == {}
    assert shaping({"LD_PRELOAD": "/x.so"}, ["LD_PRELOAD"]) == {"environment/LD_PRELOAD": "/x.so"}
    assert shaping({"HOME": "/root", "PYTHONPATH": ""}) == {}


def test_p7_the_measurement_differs_where_the_environment_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SHAPING:
        monkeypatch.delenv(name, raising=False)

    def digest(*allowed: str, **environment: str) -> bytes:
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            return serve(f"{SERVER}:mcp", attester="simulated", allow_env=allowed)._measure().digest

    plain = digest()
    assert digest() == plain
    assert digest(UNRELATED="x") == plain
    found = {plain, digest(PYTHONPATH="/evil"), digest("LD_AUDIT", LD_AUDIT="/a.so"), digest("LD_AUDIT", LD_AUDIT="/b")}
    assert len(found) == 4


def test_p7_a_named_variable_is_let_through() -> None:
    demand_own_environment({"LD_PRELOAD": "/gramine/lib.so", "PATH": "/bin"}, ["LD_PRELOAD"])
    demand_own_environment({"LD_PRELOAD": ""})
    with pytest.raises(ConfigurationError, match="LD_AUDIT"):
        demand_own_environment({"LD_PRELOAD": "a", "LD_AUDIT": "b"}, ["LD_PRELOAD"])
