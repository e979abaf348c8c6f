"""Choosing an attester never ends at a simulated one by accident."""

from __future__ import annotations

from pathlib import Path

import pytest

from attestable_mcp.attest.detect import choose
from attestable_mcp.attest.gramine import GramineAttester
from attestable_mcp.attest.measurement import Measurement
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.errors import AttesterError, ConfigurationError


def device(root: Path, kind: bytes = b"dcap") -> Path:
    (root / "attestation_type").write_bytes(kind)
    return root


def test_auto_without_a_device_is_an_error_that_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(AttesterError) as caught:
        choose("auto", measured=bytes(32), device_root=tmp_path / "attestation")
    assert "--attester simulated" in caught.value.hint
    assert caught.value.exit_code == 3


def test_auto_takes_the_device_that_is_there(tmp_path: Path) -> None:
    assert isinstance(choose("auto", device_root=device(tmp_path)), GramineAttester)


def test_auto_does_not_look_past_a_faulty_device(tmp_path: Path) -> None:
    with pytest.raises(AttesterError, match="wanted dcap, seen 'none'"):
        choose("auto", measured=bytes(32), device_root=device(tmp_path, b"none"))


def test_sgx_without_a_device_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AttesterError) as caught:
        choose("sgx", measured=bytes(32), device_root=tmp_path)
    assert "gramine-sgx" in caught.value.hint


def test_simulated_must_be_asked_for_and_measured() -> None:
    measured = Measurement({"a": bytes(32)})
    for given in (measured, measured.digest, lambda: measured):
        attester = choose("simulated", measured=given)
        assert isinstance(attester, SimulatedAttester)
        assert attester.mrenclave == measured.digest
    with pytest.raises(ConfigurationError, match="measurement"):
        choose("simulated")


def test_measuring_happens_only_for_the_simulated_one(tmp_path: Path) -> None:
    def never() -> Measurement:
        raise AssertionError("measured without need")

    assert not choose("sgx", measured=never, device_root=device(tmp_path)).simulated


@pytest.mark.parametrize("name", ["", "tdx!", "Simulated", "x" * 1000])
def test_unknown_names_list_the_choices(name: str) -> None:
    with pytest.raises(ConfigurationError, match="auto, simulated, sgx") as caught:
        choose(name, measured=bytes(32))
    assert len(caught.value.message) < 200
