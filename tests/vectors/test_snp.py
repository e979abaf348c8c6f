"""Every real SEV-SNP set gets its verdict and gives back its stated measurements."""

from __future__ import annotations

import os
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from attestable_mcp.errors import ChainInvalid, EndorsementUnavailable, SignatureInvalid
from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind, Verified
from attestable_mcp.verify import snp
from attestable_mcp.verify.anchors import AMD_GENOA_ROOT, TrustAnchors
from attestable_mcp.verify.memory import Memory
from attestable_mcp.wire.x509 import pem_to_der

_DEFAULT = Path(__file__).resolve().parents[2].parent / "shared" / "vectors"
FOLDER = Path(os.environ.get("ATTESTABLE_VECTORS", _DEFAULT)) / "snp"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="no vectors: set ATTESTABLE_VECTORS")


def _sets() -> list[Path]:
    return sorted(path.parent for path in FOLDER.glob("*/meta.toml"))


def _meta(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "meta.toml").read_text())


def _endorsements(folder: Path) -> Endorsements:
    found: list[bytes] = [path.read_bytes() for path in sorted(folder.glob("collateral/v?ek.der"))]
    for path in folder.glob("collateral/ask_ark.pem"):
        found += pem_to_der(path.read_bytes())
    return Endorsements(certificates=tuple(found))


def _verify(
    folder: Path, endorsements: Endorsements | None = None, anchors: TrustAnchors | None = None, flip: int | None = None
) -> Verified:
    body = bytearray((folder / "report.bin").read_bytes())
    if flip is not None:
        body[flip] ^= 1
    return snp.verify(
        Evidence(kind=EvidenceKind.SNP_REPORT, body=bytes(body)),
        _endorsements(folder) if endorsements is None else endorsements,
        anchors=anchors or TrustAnchors(),
        at=datetime.fromtimestamp(_meta(folder).get("verify", {}).get("time", 1_740_670_648), UTC),
        memory=Memory(),
    )


def test_every_set_gets_its_verdict_and_its_measurements() -> None:
    seen: dict[str, int] = {}
    for folder in _sets():
        meta = _meta(folder)
        verdict = meta["expect"]["verdict"]
        seen[verdict] = seen.get(verdict, 0) + 1
        if verdict == "indeterminate":
            with pytest.raises(EndorsementUnavailable):
                _verify(folder)
            continue
        if verdict == "fail":
            with pytest.raises(SignatureInvalid, match="another chip"):
                _verify(folder)
            continue
        values = _verify(folder).claims.values
        stated = meta["measurements"]
        assert {name: values.get(name) for name in stated} == stated, folder.name
    assert seen == {"pass": 11, "pass-with-status": 1, "indeterminate": 1, "fail": 1}


def test_debug_is_claimed_and_missing_revocation_list_is_not_proven() -> None:
    verified = _verify(FOLDER / "gosev-milan-v2-debug")
    assert verified.claims.debug
    assert verified.claims.values["product"] == "Milan"
    assert any("revocation" in line for line in verified.not_proven)


def test_zero_chip_id_is_no_platform_identity() -> None:
    verified = _verify(FOLDER / "trustee-milan-v3-vlek-aws")
    assert any("identity" in line for line in verified.not_proven)
    assert verified.claims.values["csp_id"] == "CN=cc-us-east-2.amazonaws.com"


def test_every_flipped_byte_of_the_signed_body_is_refused() -> None:
    folder = FOLDER / "oak-genoa-oc-v5"
    refused = 0
    for at in (4, 8, 0x30, 0x50, 0x90, 0xC0, 0x140, 0x180, 0x1A0, 0x1E0, 0x1F0, 0x1F8, 0x200, 0x2A0, 0x2A0 + 72):
        with pytest.raises(SignatureInvalid):
            _verify(folder, flip=at)
        refused += 1
    assert refused == 15


def test_another_root_is_refused_and_missing_chain_is_unavailable() -> None:
    folder = FOLDER / "trustee-milan-v2-vcek"
    with pytest.raises(ChainInvalid) as error:
        _verify(folder, anchors=TrustAnchors(amd=(AMD_GENOA_ROOT,)))
    assert error.value.code == "untrusted_root"
    assert [finding.check for finding in error.value.findings] == ["snp.report.signature", "snp.vek.chain"]
    vcek = Endorsements(certificates=((folder / "collateral" / "vcek.der").read_bytes(),))
    with pytest.raises(EndorsementUnavailable):
        _verify(folder, vcek)
    with pytest.raises(SignatureInvalid):
        _verify(folder, vcek, flip=0x90)
