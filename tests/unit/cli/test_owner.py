"""`owner`: keys, grants and lists as files, and what it refuses to sign."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.bind.deployment import DeploymentKey, spki_of
from attestable_mcp.cli.ownerkey import make_key, read_private, read_public
from attestable_mcp.tls.deployment import DeploymentHolder
from attestable_mcp.wire.grant import GrantRequest, read_request

ATTESTER = SimulatedAttester(b"\x01" * 32)
ASKED = ("--genuine-only", "--danger-accept-simulated", "--name", "prod", "--host", "MCP.example")


@pytest.fixture
def owner(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = cli("owner", "init", "--json")
    assert ended.code == 0, ended.err
    return ended.json()["owner"]


@pytest.fixture
def request_file(tmp_path):
    """What a server writes at its start."""
    path = tmp_path / "request.pem"
    DeploymentHolder(spki_of(make_key("ed25519")), request_file=path).open(ATTESTER)
    return path


@pytest.mark.parametrize("algorithm", ["ed25519", "p256"])
def test_a_key_pair_is_made_once_and_kept_from_others(cli, tmp_path, monkeypatch, algorithm):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "word").write_text("correct horse\n")
    made = cli("owner", "init", "o.pem", "--algorithm", algorithm, "--passphrase-file", "word", "--json")
    assert made.code == 0, made.err
    if sys.platform != "win32":
        assert os.stat("o.pem").st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in (tmp_path / "o.pem").read_bytes()
    assert cli("owner", "init", "o.pem").code == 1
    key = read_private(tmp_path / "o.pem", tmp_path / "word")
    assert spki_of(key) == read_public(tmp_path / "o.pub")
    assert cli("owner", "show", "o.pub", "--json").json()["owner"] == made.json()["owner"]
    locked = cli("owner", "show", "o.pem")
    assert (locked.code, "passphrase" in locked.err) == (1, True)
    (tmp_path / "wrong").write_text("battery staple\n")
    assert cli("owner", "show", "o.pem", "--passphrase-file", "wrong").code == 1


def test_a_request_is_granted_renewed_and_taken_back(cli, owner, request_file, tmp_path):
    granted = cli("owner", "grant", "request.pem", *ASKED, "-o", "grant.pem", "--json")
    assert granted.code == 4, granted.err  # --genuine-only: the code was not compared
    first = granted.json()["grant"]
    assert (first["owner"], first["name"], first["hosts"]) == (owner, "prod", ["mcp.example"])
    renewed = cli("owner", "renew", "grant.pem", "--days", "1", "--host", "other.example", "--json").json()["grant"]
    assert renewed["serial"] > first["serial"]
    assert renewed["hosts"] == ["mcp.example", "other.example"]
    assert renewed["key"] == first["key"]
    revoke = ("owner", "revoke", "list.pem", "-o", "list.pem")
    assert cli(*revoke, "--name", "prod", "--serial", str(first["serial"])).code == 0
    assert cli(*revoke, "--deployment-key", first["key"], "--force").code == 0
    shown = cli("owner", "show", "list.pem", "--json").json()
    assert (shown["serials"], shown["keys"]) == ([first["serial"]], [first["key"]])
    again = cli(*revoke, "--refresh", "--force")
    assert again.code == 0
    assert cli("owner", "show", "list.pem", "--json").json()["number"] > shown["number"]


def test_a_request_whose_key_was_put_in_by_somebody_else_is_refused(cli, owner, request_file):
    real = read_request(request_file.read_bytes())
    swapped = GrantRequest(key=DeploymentKey().spki, evidence=real.evidence, endorsements=real.endorsements)
    request_file.write_bytes(swapped.to_pem())
    ended = cli("owner", "grant", "request.pem", *ASKED, "--json")
    assert (ended.code, ended.json()["error"]["code"]) == (2, "channel_binding_mismatch")


def test_a_request_from_other_code_than_the_policy_names_is_refused(cli, owner, request_file, tmp_path):
    (tmp_path / "image.toml").write_text(f'[trust]\nsimulated = "accept"\n[policy]\nmrenclave = "{"02" * 32}"\n')
    ended = cli("owner", "grant", "request.pem", "--policy", "image.toml", "--name", "p", "--host", "h", "--json")
    assert (ended.code, ended.json()["error"]["code"]) == (2, "measurement_mismatch")


def test_what_another_owner_signed_is_neither_renewed_nor_gone_on_from(cli, owner, request_file):
    assert cli("owner", "grant", "request.pem", *ASKED, "-o", "grant.pem").code == 4
    assert cli("owner", "revoke", "--name", "prod", "--below", "5", "-o", "list.pem").code == 0
    assert cli("owner", "init", "other.pem").code == 0
    assert cli("owner", "renew", "grant.pem", "--key", "other.pem").code == 1
    assert cli("owner", "revoke", "list.pem", "--refresh", "--key", "other.pem").code == 1


@pytest.mark.parametrize(
    "words",
    [
        ("owner",),
        ("owner", "sell"),
        ("owner", "grant"),
        ("owner", "grant", "request.pem", "--genuine-only"),
        ("owner", "grant", "request.pem", "--genuine-only", "--name", "prod"),
        ("owner", "grant", "request.pem", "--name", "prod", "--host", "h"),
        ("owner", "grant", "nowhere.pem", *ASKED),
        ("owner", "grant", "request.pem", *ASKED, "--days", "0"),
        ("owner", "grant", "request.pem", *ASKED, "--name", "a\nb"),
        ("owner", "renew"),
        ("owner", "renew", "request.pem"),
        ("owner", "revoke", "--name", "prod"),
        ("owner", "revoke", "--below", "3"),
        ("owner", "revoke", "--name", "prod", "--serial", "x"),
        ("owner", "show", "request.toml"),
        ("serve", "x:y", "--grant", "grant.pem"),
        ("serve", "x:y", "--owner", "request.pem"),
    ],
    ids=lambda words: " ".join(words).replace("\n", " ")[:50],
)
def test_a_wrong_command_ends_with_1(cli, owner, request_file, words):
    ended = cli(*words)
    assert ended.code == 1, ended.out
    assert "fault in" not in ended.err


def test_a_running_server_is_granted_pinned_and_told_from_a_copy(cli, owner, tmp_path, repository):
    """As docs/deployment.md has it: the server runs, the owner grants to what answers, the client pins."""
    target = f"{repository / 'examples' / 'server.py'}:mcp"
    words = ["serve", target, "--attester", "simulated", "--owner", "owner.pub", "--grant", "grant.pem", "--json"]
    child = subprocess.Popen(
        [sys.executable, "-m", "attestable_mcp", *words],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert child.stdout is not None
        url = json.loads(child.stdout.readline())["url"]
        asked = ("--genuine-only", "--danger-accept-simulated", "--timeout", "30")
        granted = cli("owner", "grant", url, "--name", "prod", *asked, "-o", "grant.pem", "--json")
        assert (granted.code, granted.json()["grant"]["hosts"]) == (4, ["127.0.0.1"])
        assert "nobody compared the code that holds it" in granted.err
        time.sleep(1.1)  # the server looks at its files once a second
        pinned = cli("pin", url, "--danger-accept-simulated", "-o", "policy.toml", "--json")
        assert pinned.code == 0, pinned.err
        written = (tmp_path / "policy.toml").read_text()
        assert "[deployment]" in written
        assert f'owner = "{owner}"' in written
        assert cli("verify", url, "--policy", "policy.toml").code == 0
        (tmp_path / "other.toml").write_text(written.replace(owner, "00" * 32))
        refused = cli("verify", url, "--policy", "other.toml", "--json")
        assert (refused.code, refused.json()["error"]["code"]) == (2, "wrong_deployment")
        assert refused.json()["deployment"]["owner"] == owner
        elsewhere = cli("verify", url.replace("127.0.0.1", "localhost"), "--policy", "policy.toml", "--json").json()
        assert "deployment.hosts: wanted localhost, seen 127.0.0.1" in elsewhere["error"]["message"]
        assert "name its host in [deployment]" in elsewhere["error"]["hint"]
        nowhere = cli("call", url.replace("/mcp", "/nowhere"), "add", "--policy", "policy.toml", "--json")
        assert (nowhere.code, nowhere.json()["error"]["code"]) == (1, "mcp_error")  # admitted: nothing was refused
    finally:
        child.terminate()
        child.communicate(timeout=20)


def test_serve_wants_an_existing_key(cli, owner):
    ended = cli("serve", "x:y", "--owner", "nobody.pub")
    assert (ended.code, ended.err.count("nobody.pub")) == (1, 1)
    private = cli("serve", "x:y", "--owner", "owner.pem")
    assert "wanted a PUBLIC KEY block, seen PRIVATE KEY" in private.err
    assert "give owner.pub" in private.err


def test_a_missing_key_is_told_as_a_file_and_not_as_a_source(cli, owner, request_file):
    ended = cli("owner", "grant", "request.pem", *ASKED, "--key", "nowhere.pem")
    assert (ended.code, "a SOURCE is" in ended.err, "Check the path" in ended.err) == (1, False, True)
