"""The roots of the simulated vendors are the ones that verifiers know as such."""

from __future__ import annotations

from datetime import UTC, datetime

from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind
from attestable_mcp.simulator import amd, aws, intel, tpm
from attestable_mcp.simulator.amd_options import Product
from attestable_mcp.verify import nitro
from attestable_mcp.verify import tpm as verify_tpm
from attestable_mcp.verify.anchors import SIMULATED_ROOTS, TrustAnchor, TrustAnchors
from attestable_mcp.verify.memory import Memory

AT = datetime(2026, 6, 1, tzinfo=UTC)


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


def test_a_simulated_root_of_another_seed_keeps_its_mark() -> None:
    """Also where somebody pins it as his own."""
    aws_root, tpm_root = aws.AwsVendor.unknown(), tpm.TpmVendor.unknown()
    anchors = TrustAnchors(
        aws=(TrustAnchor(name="mine", spki_sha256=aws_root.root_spki_sha256),),
        tpm=(TrustAnchor(name="mine", spki_sha256=tpm_root.root_spki_sha256),),
    )
    document = Evidence(kind=EvidenceKind.NITRO_DOCUMENT, body=aws_root.document(bytes(64), at=AT))
    quote = Evidence(kind=EvidenceKind.TPM_QUOTE, body=tpm_root.evidence(bytes(64)))
    collateral = tpm_root.collateral(at=AT)
    assert nitro.verify(document, Endorsements(), anchors=anchors, at=AT, memory=Memory()).simulated
    assert verify_tpm.verify(quote, collateral, anchors=anchors, at=AT, memory=Memory()).simulated


def test_nobody_trusts_them_by_default() -> None:
    trusted = {root.spki_sha256 for root in TrustAnchors().all}
    assert not trusted & {root.spki_sha256 for root in SIMULATED_ROOTS.all}
