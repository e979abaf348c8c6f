"""A policy's anchors: vendors by word, files by path, a TPM's key by itself."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import pytest

from attestable_mcp.appraise.policy import TrustPolicy
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.simulator.intel import well_known
from attestable_mcp.verifier import resolve_anchors
from attestable_mcp.verify.anchors import AWS_NITRO_ROOT, TrustAnchors

KEY = b"\x30\x03\x02\x01\x07"


def _key_file(folder: Path) -> str:
    path = folder / "ak.pem"
    path.write_text(f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(KEY).decode()}\n-----END PUBLIC KEY-----\n")
    return str(path)


def test_by_default_every_vendor_speaks_for_its_own_hardware() -> None:
    found = resolve_anchors(TrustPolicy())
    for vendor in ("intel", "amd", "aws", "tpm"):
        genuine = [anchor for anchor in getattr(found, vendor) if not anchor.simulated]
        assert genuine == list(getattr(TrustAnchors(), vendor))


def test_a_vendor_that_is_not_named_has_no_anchor() -> None:
    found = resolve_anchors(TrustPolicy(anchors=("aws",)))
    assert found.aws[0] == AWS_NITRO_ROOT
    assert not found.intel
    assert not found.amd
    assert not found.tpm


def test_a_path_counts_for_all_and_a_vendors_path_for_one(tmp_path: Path) -> None:
    path = tmp_path / "root.pem"
    path.write_text(well_known().root_pem)
    everywhere = resolve_anchors(TrustPolicy(anchors=(str(path),)))
    assert {len(getattr(everywhere, vendor)) for vendor in ("intel", "amd", "aws", "tpm")} == {1}
    one = resolve_anchors(TrustPolicy(anchors=("amd", f"tpm={path}")))
    assert [anchor.replaced for anchor in one.tpm] == [True]
    assert not one.intel
    assert not any(anchor.replaced for anchor in one.amd)


def test_an_attestation_key_is_pinned_for_tpms_only(tmp_path: Path) -> None:
    path = _key_file(tmp_path)
    found = resolve_anchors(TrustPolicy(anchors=(f"tpm={path}",)))
    assert [anchor.spki_sha256 for anchor in found.tpm] == [hashlib.sha256(KEY).hexdigest()]
    for name in (f"amd={path}", path):
        with pytest.raises(ConfigurationError, match="wanted CERTIFICATE, seen PUBLIC KEY"):
            resolve_anchors(TrustPolicy(anchors=(name,)))


@pytest.mark.parametrize("name", ["nvidia", "tpm=", "tpm=intel", "nvidia=./x.pem", "amd=https://x/y"])
def test_words_that_are_no_anchor_are_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="anchors"):
        TrustPolicy(anchors=(name,))
