"""The demo as a user runs it: every step with its code, in time, and no success where a step failed."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from attestable_mcp.cli.demo import Step

STEPS = [
    "verified",
    "verified",
    "measurement_mismatch",
    "key_not_proven",
    "channel_binding_mismatch",
    "untrusted_root",
    "simulated_evidence",
    "verified",
    "verified",
    "tool_not_allowed",
    "client_attestation_required",
    "verified",
    "wrong_deployment",
]


def test_the_demo_proves_servers_and_clients_and_refuses_impostors_each_for_its_reason():
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-m", "attestable_mcp", "demo", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr + ended.stdout
    answer = json.loads(ended.stdout)
    assert [step["code"] for step in answer["steps"]] == STEPS
    assert answer["ok"] is True
    assert answer["simulated"] is True
    assert "20" in answer["steps"][0]["answer"]
    assert answer["steps"][1]["answer"] == "5"
    assert all(step["attestation"]["simulated"] for step in answer["steps"][:3])
    modified = answer["steps"][2]
    assert modified["wanted"] != modified["seen"]
    assert all(step["hint"] for step in answer["steps"] if step["expected"] != "verified")
    assert [step["answer"] for step in answer["steps"][7:9]] == [
        "5 moved for billing",
        "37, says the ledger to reports",
    ]
    assert time.monotonic() - began < 30


def test_a_step_is_right_only_if_the_expected_code_came():
    assert Step(title="x", expected="untrusted_root", code="untrusted_root").ok
    assert not Step(title="x", expected="untrusted_root", code="chain_invalid").ok
    assert not Step(title="x", expected="untrusted_root", code="verified").ok
    assert not Step(title="x", expected="verified", code="verified", call="add", answer="").ok
