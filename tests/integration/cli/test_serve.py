"""`serve` as a process: one line when it is ready, signals drain it, wrong targets are told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from attestable_mcp.attest.detect import DEVICES

SERVER = """
from pathlib import Path

import anyio
from mcp.server import MCPServer
mcp = MCPServer("slow")

@mcp.tool()
async def wait(seconds: float) -> str:
    Path("started").touch()
    await anyio.sleep(seconds)
    return "done"
"""
SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture
def started(tmp_path):
    """Start `serve` with these words; every child is ended."""
    children = []
    (tmp_path / "slow.py").write_text(SERVER)

    def start(*words: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-m", "attestable_mcp", "serve", *words],
            cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        children.append(child)
        return child

    yield start
    for child in children:
        if child.poll() is None:
            child.kill()
        child.communicate(timeout=20)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM between processes")
@pytest.mark.parametrize("number", SIGNALS)
def test_one_line_when_ready_and_a_signal_ends_with_0(started, number):
    child = started("slow.py:mcp", "--attester", "simulated", "--json")
    ready = json.loads(child.stdout.readline())
    assert set(ready) == {"url", "tee", "manifest", "spki_sha256"}
    assert ready["url"].startswith("https://127.0.0.1:")
    assert ready["tee"] == "sgx"
    assert len(bytes.fromhex(ready["spki_sha256"])) == 32
    child.send_signal(number)
    out, err = child.communicate(timeout=20)
    assert child.returncode == 0
    assert out == ""
    assert "Traceback" not in err


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM between processes")
def test_a_running_call_ends_before_the_server_does(started, tmp_path):
    child = started("slow.py:mcp", "--attester", "simulated", "--json")
    url = json.loads(child.stdout.readline())["url"]
    caller = subprocess.Popen(
        [sys.executable, "-m", "attestable_mcp", "call", url, "wait", "seconds=1", "--genuine-only",
         "--danger-accept-simulated", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)
    out, err = caller.communicate(timeout=30)
    assert caller.returncode == 4, err
    assert json.loads(out)["result"]["content"][0]["text"] == "done"
    assert child.wait(timeout=20) == 0


def test_a_command_after_the_dashes_is_served(started):
    child = started("--attester", "simulated", "--json", "--", sys.executable, "-m", "mcp_server_time")
    assert json.loads(child.stdout.readline())["tee"] == "sgx"


NO_DEVICE = pytest.mark.skipif(
    any(Path(device.place).exists() for device in DEVICES), reason="this machine has an attestation device"
)


@pytest.mark.parametrize(
    ("words", "code", "status"),
    [
        (("absent_module:mcp", "--attester", "simulated"), "target", 1),
        (("slow.py:nothing", "--attester", "simulated"), "target", 1),
        (("slow.py:mcp", "--attester", "nonsense"), "configuration", 1),
        (("slow.py:mcp", "--attester", "sgx"), "attester_absent", 3),
        pytest.param(("slow.py:mcp",), "attester_absent", 3, marks=NO_DEVICE),
    ],
)
def test_what_cannot_be_served_is_told_and_nothing_falls_back_to_simulated(started, words, code, status):
    child = started(*words, "--json")
    out, err = child.communicate(timeout=30)
    answer = json.loads(out)
    assert child.returncode == status, err
    assert answer["error"]["code"] == code
    assert answer["verdict"] == "unavailable"
    assert "Traceback" not in err


def test_a_taken_port_is_told(started):
    first = started("slow.py:mcp", "--attester", "simulated", "--json")
    port = json.loads(first.stdout.readline())["url"].rsplit(":", 1)[1].removesuffix("/mcp")
    second = started("slow.py:mcp", "--attester", "simulated", "--json", "--listen", f"127.0.0.1:{port}")
    out, _ = second.communicate(timeout=30)
    assert second.returncode == 1
    assert json.loads(out)["error"]["code"] == "configuration"


# What it says at its start


def granted(folder: Path, key: bytes) -> None:
    from datetime import UTC, datetime, timedelta

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    from attestable_mcp.bind.deployment import sign_grant, spki_of
    from attestable_mcp.wire.grant import GRANT_LABEL, Grant, to_pem

    owner, now = Ed25519PrivateKey.generate(), datetime.now(UTC).replace(microsecond=0)
    public = owner.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "owner.pub").write_bytes(public)
    grant = Grant(
        owner=spki_of(owner), name="my prod", hosts=("mcp.example", "10.0.0.1"), key=key, serial=1,
        not_before=now - timedelta(minutes=1), not_after=now + timedelta(hours=1),
    )  # fmt: skip
    (folder / "grant.pem").write_bytes(to_pem(GRANT_LABEL, sign_grant(owner, grant)))


def test_after_a_restart_it_says_that_the_new_key_needs_a_grant_and_how_to_sign_it(started, tmp_path):
    granted(tmp_path, key=bytes(32))
    child = started("slow.py:mcp", "--attester", "simulated", "--json", "--owner", "owner.pub", "--grant", "grant.pem")
    origin = json.loads(child.stdout.readline())["url"].removesuffix("/mcp")
    lines = (json.loads(line)["message"] for line in iter(child.stderr.readline, ""))
    told = next(line for line in lines if "no grant in force" in line)
    assert "an earlier key: a key lives as long as its process" in told
    words = f"owner grant {origin} --policy POLICY.toml --name 'my prod' --host mcp.example --host 10.0.0.1"
    assert f'"attestable-mcp {words} -o grant.pem --force"; it is taken within a second' in told


def advised(holder=None, manifest=None, **given):
    from argparse import Namespace

    from attestable_mcp.cli.advice import advice

    options = {"deployment_request": None, "grant": None, "host": [], "no_manifest": False, "command": None}
    options |= {"clients_policy": None}
    running = Namespace(origin="https://127.0.0.1:8443", manifest=manifest)
    return list(advice(running, holder, Namespace(**{**options, "target": "my:app", **given})))


def test_a_first_start_names_the_request_or_the_hosts_it_was_given():
    from attestable_mcp.bind.deployment import DeploymentKey
    from attestable_mcp.tls.deployment import DeploymentHolder

    holder = DeploymentHolder(DeploymentKey().spki)
    (told,) = advised(holder, manifest=object(), host=["a.example"], deployment_request=Path("my request.pem"))
    assert "none is there yet" in told
    assert "owner grant 'my request.pem' --policy POLICY.toml --name NAME --host a.example -o grant.pem\"" in told
    assert "start the server with --grant" in told


def test_a_server_that_lists_nothing_is_told_how_its_lists_are_written_down():
    (told,) = advised()
    assert '"attestable-mcp manifest -o FILE --header-env Authorization=VARIABLE my:app", then serve it' in told
    (told,) = advised(command=["python", "my server.py"])
    assert "VARIABLE -- python 'my server.py'" in told
    assert advised(no_manifest=True) == []
    assert advised(manifest=object()) == []


def test_rules_about_tools_that_the_server_does_not_list_are_told(tmp_path):
    """A typing error in the name leaves the tool or prompt that was meant to every client."""
    from attestable_mcp.mcp.manifest import of_lists

    path = tmp_path / "clients.toml"
    rules = "".join(f'[[tool]]\nname = "{name}"\nallow = [{{ attested = true }}]\n' for name in ("wip", "w*", "zzz"))
    path.write_text(f'clients = "optional"\n[policy]\nmrenclave = "{"01" * 32}"\n{rules}')
    lists = {"tools": [{"name": "wipe", "inputSchema": {}}, {"name": "add", "inputSchema": {}}]}
    first, second = advised(manifest=of_lists(lists), clients_policy=path)
    assert "a rule for tool 'wip', and the server lists none of that name; close to it: wipe." in first
    assert "a rule for tool 'zzz', and the server lists none of that name. What" in second
    assert advised(manifest=of_lists({}), clients_policy=path) == []
    path.write_text(path.read_text().replace("[[tool]]", "[[prompt]]"))
    told = advised(manifest=of_lists({"prompts": [{"name": "wipe"}]}), clients_policy=path)
    assert [sentence.split(",")[0] for sentence in told] == [
        f"the clients' policy has a rule for prompt '{name}'" for name in ("wip", "zzz")
    ]


def test_the_lists_of_a_server_that_wants_credentials_are_written_down(tmp_path, monkeypatch, capsys):
    """And served: what it then commits to is what a client with credentials is given."""
    from attestable_mcp.cli.main import main

    (tmp_path / "secret.py").write_text(SERVER + CLOSED)
    monkeypatch.setenv("TOKEN", "Bearer abcdef")
    target = f"{tmp_path / 'secret.py'}:app"
    assert main(["manifest", target]) != 0
    capsys.readouterr()
    assert main(["manifest", target, "--header-env", "Authorization=TOKEN"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [tool["name"] for tool in document["tools"]] == ["wait"]
    assert document["server"]["name"] == "slow"


CLOSED = """

inner = mcp.streamable_http_app()

async def app(scope, receive, send):
    if scope["type"] == "http" and dict(scope["headers"]).get(b"authorization") != b"Bearer abcdef":
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    await inner(scope, receive, send)
"""
