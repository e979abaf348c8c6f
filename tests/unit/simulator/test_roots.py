"""The roots of the simulated vendors are the ones that verifiers know as such."""

from __future__ import annotations

from attestable_mcp.simulator import amd, aws, intel, tpm
from attestable_mcp.simulator.amd_options import Product
from attestable_mcp.verify.anchors import SIMULATED_ROOTS, TrustAnchors


def test_every_simulated_root_is_known_and_marked() -> None:
    known = {
        "intel": {intel.well_known().root_spki_sha256},
        "amd": {amd.well_known(product).root_spki_sha256 for product in Product},
        "aws": {aws.well_known().root_spki_sha256},
        "tpm": {tpm.well_known().root_spki_sha256},
    }
    for vendor, digests in known.items():
        assert {root.spki_sha256 for root in getattr(SIMULATED_ROOTS, vendor)} == digests
    assert all(root.simulated for root in SIMULATED_ROOTS.all)
    assert len(SIMULATED_ROOTS.all) == 6


def test_nobody_trusts_them_by_default() -> None:
    trusted = {root.spki_sha256 for root in TrustAnchors().all}
    assert not trusted & {root.spki_sha256 for root in SIMULATED_ROOTS.all}
