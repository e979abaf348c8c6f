"""Choosing an attester never ends at a simulated one by accident, and says of each kind why it is not there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from attestable_mcp.attest.detect import CHOICES, DEVICES, Device, choose, survey
from attestable_mcp.attest.gramine import GramineAttester
from attestable_mcp.attest.measurement import Measurement
from attestable_mcp.attest.simulated import PLAYERS, SimulatedAttester
from attestable_mcp.attest.tpm import TpmAttester
from attestable_mcp.errors import AttesterAbsent, AttesterError, ConfigurationError


def sgx(root: Path, kind: bytes = b"dcap") -> Path:
    root.mkdir()
    (root / "attestation_type").write_bytes(kind)
    return root


def machine(tmp_path: Path, **places: str) -> tuple[Device, ...]:
    """A machine that has nothing but what `places` names."""
    return tuple(
        replace(device, place=places.get(device.name, str(tmp_path / "none" / device.name))) for device in DEVICES
    )


def test_auto_without_a_device_says_of_every_kind_why(tmp_path: Path) -> None:
    with pytest.raises(AttesterAbsent) as caught:
        choose("auto", measured=bytes(32), devices=machine(tmp_path))
    for device in DEVICES:
        assert f"{device.name} (" in caught.value.message
    assert "--attester simulated" in caught.value.hint
    assert caught.value.exit_code == 3


def test_auto_takes_the_device_that_is_there(tmp_path: Path) -> None:
    devices = machine(tmp_path, sgx=str(sgx(tmp_path / "attestation")))
    assert isinstance(choose("auto", devices=devices), GramineAttester)


def test_auto_takes_a_tpm_where_there_is_nothing_better(tmp_path: Path, swtpm: Callable[[], str]) -> None:
    where = swtpm()
    devices = machine(tmp_path, azure=where, tpm=where)
    assert isinstance(choose("auto", devices=devices), TpmAttester)
    both = machine(tmp_path, sgx=str(sgx(tmp_path / "attestation")), azure=where, tpm=where)
    assert isinstance(choose("auto", devices=both), GramineAttester)


def test_auto_does_not_look_past_a_faulty_device(tmp_path: Path, swtpm: Callable[[], str]) -> None:
    devices = machine(tmp_path, sgx=str(sgx(tmp_path / "attestation", b"none")), tpm=swtpm())
    with pytest.raises(AttesterError, match="wanted dcap, seen 'none'"):
        choose("auto", measured=bytes(32), devices=devices)


@pytest.mark.parametrize("name", [device.name for device in DEVICES])
def test_a_kind_that_is_not_there_is_absent_with_what_to_do(name: str, tmp_path: Path) -> None:
    with pytest.raises(AttesterAbsent) as caught:
        choose(f"{name}:{tmp_path / 'none'}", measured=bytes(32))
    assert caught.value.hint
    assert str(tmp_path) in caught.value.message


def test_a_place_may_follow_the_name(swtpm: Callable[[], str]) -> None:
    assert isinstance(choose(f"tpm:{swtpm()}"), TpmAttester)


def test_simulated_must_be_asked_for_and_measured() -> None:
    measured = Measurement({"a": bytes(32)})
    for given in (measured, measured.digest, lambda: measured):
        attester = choose("simulated", measured=given)
        assert isinstance(attester, SimulatedAttester)
        assert attester.mrenclave == measured.digest
        assert attester.tee == "sgx"
    with pytest.raises(ConfigurationError, match="measurement"):
        choose("simulated")


@pytest.mark.parametrize("tee", list(PLAYERS))
def test_simulated_plays_every_kind(tee: str) -> None:
    attester = choose(f"simulated:{tee}", measured=bytes(32))
    assert attester.tee == tee
    assert attester.simulated


def test_a_kind_that_cannot_be_played_lists_those_that_can() -> None:
    with pytest.raises(ConfigurationError, match="wanted one of sgx, tdx, sev-snp"):
        choose("simulated:azure", measured=bytes(32))


def test_measuring_happens_only_for_the_simulated_one(tmp_path: Path) -> None:
    def never() -> Measurement:
        raise AssertionError("measured without need")

    assert not choose(f"sgx:{sgx(tmp_path / 'attestation')}", measured=never).simulated


@pytest.mark.parametrize("name", ["", "tdx!", "Simulated", "x" * 1000, "auto:x", ":", "sev-snp"])
def test_unknown_names_list_the_choices(name: str) -> None:
    with pytest.raises(ConfigurationError, match="auto, simulated, sgx") as caught:
        choose(name, measured=bytes(32))
    assert len(caught.value.message) < 200
    assert '"tsm"' in caught.value.hint


def test_a_survey_names_ready_absent_and_faulty(tmp_path: Path, swtpm: Callable[[], str]) -> None:
    where = swtpm()
    devices = machine(tmp_path, sgx=str(sgx(tmp_path / "attestation", b"none")), azure=where, tpm=where)
    found = {item.device.name: item for item in survey(devices)}
    states = {name: item.state for name, item in found.items()}
    assert states == {
        "sgx": "faulty", "nitro": "absent", "dstack": "absent", "tsm": "absent", "azure": "absent", "tpm": "ready",
    }  # fmt: skip
    assert all(item.error is not None and item.error.hint for item in found.values() if item.state == "absent")


def test_the_choices_are_what_the_help_lists() -> None:
    assert CHOICES == ("auto", "simulated", "sgx", "nitro", "dstack", "tsm", "azure", "tpm")
