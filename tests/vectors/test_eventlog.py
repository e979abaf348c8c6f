"""Every real event log gets its verdict: replay to the listed registers, and no contradiction in what it says."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path

import pytest

from attestable_mcp.errors import MalformedEvidence
from attestable_mcp.wire.bootlog import secure_boot
from attestable_mcp.wire.eventlog import content_faults, read_log, replay_pcrs, replay_rtmrs

_DEFAULT = Path(__file__).resolve().parents[2].parent / "shared" / "vectors"
ROOT = Path(os.environ.get("ATTESTABLE_VECTORS", _DEFAULT))
FOLDER = ROOT / "eventlog"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="no vectors: set ATTESTABLE_VECTORS")


def test_every_set_gets_its_verdict_and_replays_to_its_registers() -> None:
    seen: dict[str, int] = {}
    registers = 0
    for meta_path in sorted(FOLDER.glob("*/meta.toml")):
        folder, meta = meta_path.parent, tomllib.loads(meta_path.read_text())
        log = read_log((folder / "event_log.bin").read_bytes())
        for bank, listed in json.loads((folder / "expected_pcrs.json").read_text()).items():
            replayed = replay_pcrs(log, bank.lower())
            for number, value in listed.items():
                assert replayed[int(number)].hex() == value, (folder.name, bank, number)
                registers += 1
        for name, value in meta["measurements"].items():
            bank, _, number = name.partition("_pcr")
            assert replay_pcrs(log, bank.lower())[int(number)].hex() == value
        verdict = "fail" if content_faults(log) else "pass"
        assert verdict == meta["expect"]["verdict"], (folder.name, content_faults(log))
        seen[verdict] = seen.get(verdict, 0) + 1
    assert seen == {"pass": 8, "fail": 2}
    assert registers > 100


def test_faults_name_their_reason() -> None:
    arch = content_faults(read_log((FOLDER / "gotpm-arch-linux-workstation/event_log.bin").read_bytes()))
    assert len(arch) == 1
    assert "SecureBoot holds 0 bytes" in arch[0]
    gdc = content_faults(read_log((FOLDER / "gotpm-gdc-host/event_log.bin").read_bytes()))
    assert len(gdc) == 1
    assert "type 00000008" in gdc[0]


def test_padding_is_taken_and_truncation_refused() -> None:
    raw = (FOLDER / "gotpm-cos-101-amd-sev/event_log.bin").read_bytes()
    log = read_log(raw)
    assert read_log(raw + b"\xff" * 4096) == read_log(raw + bytes(4096)) == log
    refused = 0
    for end in range(0, len(raw), 997):
        try:
            assert len(read_log(raw[:end]).events) < len(log.events)
        except MalformedEvidence:
            refused += 1
    assert refused >= 20


def test_a_ccel_replays_to_the_rtmrs_of_its_quote() -> None:
    folder = ROOT / "tdx" / "gotdx-v4-cos113-with-ccel"
    stated = tomllib.loads((folder / "meta.toml").read_text())["measurements"]
    log = read_log((folder / "ccel_data.bin").read_bytes())
    replayed = replay_rtmrs(log)
    assert {f"rtmr{number}": value.hex() for number, value in replayed.items()} == {
        f"rtmr{number}": stated[f"rtmr{number}"] for number in replayed
    }
    assert set(replayed) == {0, 1, 2}
    assert content_faults(log) == ()
    assert secure_boot(log, "sha384", 1) is not None


def test_a_ccel_cut_off_in_its_last_event_is_refused() -> None:
    """As stored, the set's log ends 4066 bytes early."""
    with pytest.raises(MalformedEvidence):
        read_log((ROOT / "tdx" / "trustee-v4-debug-td-with-ccel" / "ccel_data.bin").read_bytes())
