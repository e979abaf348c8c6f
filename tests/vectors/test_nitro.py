"""Every real Nitro set gets its verdict and gives back its stated measurements."""

from __future__ import annotations

import os
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from attestable_mcp.errors import ChainInvalid, EvidenceError, SignatureInvalid
from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind, Verified
from attestable_mcp.verify import nitro
from attestable_mcp.verify.anchors import AMD_GENOA_ROOT, TrustAnchors
from attestable_mcp.verify.memory import Memory

_DEFAULT = Path(__file__).resolve().parents[2].parent / "shared" / "vectors"
FOLDER = Path(os.environ.get("ATTESTABLE_VECTORS", _DEFAULT)) / "nitro"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="no vectors: set ATTESTABLE_VECTORS")


def _sets() -> list[Path]:
    return sorted(path.parent for path in FOLDER.glob("*/meta.toml"))


def _meta(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "meta.toml").read_text())


def _verify(body: bytes, at: datetime, anchors: TrustAnchors | None = None) -> Verified:
    evidence = Evidence(kind=EvidenceKind.NITRO_DOCUMENT, body=body)
    return nitro.verify(evidence, Endorsements(), anchors=anchors or TrustAnchors(), at=at, memory=Memory())


def _read(folder: Path) -> tuple[bytes, datetime]:
    return (folder / "attestation.cose").read_bytes(), datetime.fromtimestamp(_meta(folder)["verify"]["time"], UTC)


def test_every_set_gets_its_verdict_and_its_measurements() -> None:
    seen: dict[str, int] = {}
    for folder in _sets():
        meta = _meta(folder)
        verdict = meta["expect"]["verdict"]
        seen[verdict] = seen.get(verdict, 0) + 1
        if verdict == "fail":
            with pytest.raises(SignatureInvalid):
                _verify(*_read(folder))
            continue
        verified = _verify(*_read(folder))
        stated = meta["measurements"]
        assert {name: verified.claims.values.get(name) for name in stated} == stated, folder.name
        assert verified.claims.debug is stated["debug_mode"], folder.name
    assert seen == {"pass": 6, "fail": 1}


def test_outside_its_three_hours_a_document_is_refused() -> None:
    body, at = _read(FOLDER / "fortanix-2021-proper-debug")
    for moment in (at - timedelta(hours=1), at + timedelta(hours=4)):
        with pytest.raises(ChainInvalid) as error:
            _verify(body, moment)
        assert error.value.code == "certificate_expired"


def test_another_root_is_refused() -> None:
    body, at = _read(FOLDER / "evervault-2022-valid")
    with pytest.raises(ChainInvalid) as error:
        _verify(body, at, TrustAnchors(aws=(AMD_GENOA_ROOT,)))
    assert error.value.code == "untrusted_root"


def test_no_flipped_byte_passes_and_no_truncation() -> None:
    body, at = _read(FOLDER / "fastcrypto-2025-pcr16-indefinite-cbor")
    refused = 0
    for place in range(8, len(body), 97):
        changed = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
        with pytest.raises((SignatureInvalid, EvidenceError)):
            _verify(changed, at)
        refused += 1
    for end in (0, 1, 100, len(body) - 1):
        with pytest.raises(EvidenceError):
            _verify(body[:end], at)
        refused += 1
    assert refused == len(range(8, len(body), 97)) + 4
