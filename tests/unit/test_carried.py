"""The report data that each kind of evidence carries."""

from __future__ import annotations

import hashlib

from attestable_mcp.rats import EvidenceKind, carried

REPORT_DATA = bytes(range(64))


def test_tpms_carry_a_hash_and_all_others_the_bytes_themselves() -> None:
    hashed = {EvidenceKind.TPM_QUOTE, EvidenceKind.AZURE_VTPM}
    for kind in EvidenceKind:
        wanted = hashlib.sha256(REPORT_DATA).digest() if kind in hashed else REPORT_DATA
        assert carried(REPORT_DATA, kind) == wanted
