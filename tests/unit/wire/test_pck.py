"""The SGX extension of a PCK certificate is read strictly."""

from __future__ import annotations

import pytest

from attestable_mcp.errors import MalformedEvidence
from attestable_mcp.simulator import options as o
from attestable_mcp.simulator.pki import sgx_extension
from attestable_mcp.wire.pck import read_pck_extension


@pytest.mark.parametrize("ca", ["platform", "processor"])
def test_the_sgx_extension_is_read_in_full(ca: str) -> None:
    platform = o.Platform(pck_ca=ca, components=tuple(range(100, 116)), pcesvn=300, smt_enabled=False)
    extension = read_pck_extension(sgx_extension(platform, o.Certificates()))
    assert (extension.fmspc, extension.pce_id, extension.ppid) == (platform.fmspc, platform.pceid, platform.ppid)
    assert (extension.components, extension.cpusvn, extension.pcesvn) == (platform.cpusvn, platform.cpusvn, 300)
    mine = (extension.platform_instance_id, extension.smt_enabled)
    assert mine == ((platform.platform_instance_id, False) if ca == "platform" else (None, None))


def test_a_damaged_sgx_extension_is_malformed_or_differs() -> None:
    good = sgx_extension(o.Platform(), o.Certificates())
    reference = read_pck_extension(good)
    for position in range(len(good)):
        for mask in (0x01, 0x80):
            flipped = bytearray(good)
            flipped[position] ^= mask
            try:
                assert read_pck_extension(bytes(flipped)) != reference, position
            except MalformedEvidence:
                continue
    for size in range(len(good)):
        with pytest.raises(MalformedEvidence):
            read_pck_extension(good[:size])
    with pytest.raises(MalformedEvidence):
        read_pck_extension(good + b"\0")


@pytest.mark.parametrize(
    "options", [o.Certificates(pck_components=n) for n in (0, 15, 17)] + [o.Certificates(pck_fmspc_twice=True)]
)
def test_an_sgx_extension_with_another_count_is_malformed(options: o.Certificates) -> None:
    with pytest.raises(MalformedEvidence):
        read_pck_extension(sgx_extension(o.Platform(), options))
