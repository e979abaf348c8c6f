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
        [sys.executable, "-m", "attestable_mcp", "call", url, "wait", "seconds=2", "--genuine-only",
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
