"""What verification costs: cold and warm, beside dcap-qvl and beside the floor of P-256 verifications, in one run."""

from __future__ import annotations

import hashlib
import json
import warnings
from datetime import UTC, datetime

import dcap_qvl
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from attestable_mcp.rats import Tee
from attestable_mcp.simulator.intel import Vendor, evidence
from attestable_mcp.verify import table as verify_table
from attestable_mcp.verify.anchors import SIMULATED_ROOT, TrustAnchors
from attestable_mcp.verify.memory import Memory, anchor_digest
from attestable_mcp.verify.x509 import point_key
from attestable_mcp.wire.intel import read_short_chain
from measure import interleaved, table

AT = datetime(2026, 6, 1, tzinfo=UTC)
WARM_AIM, COLD_AIM = 0.4, 1.3


def p256_floor() -> object:
    """One P-256 verification, the floor that everything is counted in."""
    key = ec.generate_private_key(ec.SECP256R1())
    message = b"x" * 432
    signature = key.sign(message, ec.ECDSA(hashes.SHA256()))
    public = key.public_key()
    return lambda: public.verify(signature, message, ec.ECDSA(hashes.SHA256()))


def subjects(tee: Tee) -> dict[str, object]:
    vendor = Vendor()
    report_data = hashlib.sha512(b"bench").digest()
    quote = vendor.quote_sgx(report_data, bytes(32)) if tee is Tee.SGX else vendor.quote_tdx(report_data)
    endorsements = vendor.collateral(at=AT, tee=tee)
    record = vendor.collateral_json(at=AT, tee=tee)
    collateral = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(record))
    anchors = TrustAnchors(intel=(SIMULATED_ROOT,))
    root, seconds, warm = vendor.root_der, int(AT.timestamp()), Memory()
    piece = evidence(quote)

    def ours(memory: Memory) -> object:
        return verify_table.verify(piece, endorsements, anchors=anchors, at=AT, memory=memory)

    def cold() -> object:
        """Nothing remembered: neither what was proven nor how pieces decode."""
        read_short_chain.cache_clear()
        point_key.cache_clear()
        anchor_digest.cache_clear()
        return ours(Memory())

    return {
        "floor": p256_floor(),
        "dcap-qvl": lambda: dcap_qvl.verify_with_root_ca(quote, collateral, root, seconds),
        "cold": cold,
        "warm": lambda: ours(warm),
    }


def main() -> None:
    warnings.simplefilter("ignore")
    for tee in Tee.SGX, Tee.TDX:
        seconds = interleaved(subjects(tee))
        peer, floor = seconds["dcap-qvl"], seconds["floor"]
        rows = [("one P-256 verification", f"{floor * 1e3:.3f} ms", "1", "floor")]
        rows += [
            (
                name,
                f"{seconds[name] * 1e3:.3f} ms",
                f"{seconds[name] / peer:.2f} x dcap-qvl, {seconds[name] / floor:.1f} x floor",
                aim,
            )
            for name, aim in (
                ("dcap-qvl", "peer"),
                ("cold", f"at most {COLD_AIM} x dcap-qvl"),
                ("warm", f"at most {WARM_AIM} x dcap-qvl"),
            )
        ]
        table(f"verification of one {tee} quote", rows)


if __name__ == "__main__":
    main()
