"""Nitro documents: AWS's chain, which the document brings itself, and the COSE signature over its payload.

Checks not made here, on purpose: the age of the document's timestamp and debug mode are policy's (debug is claimed).
AWS publishes no revocation list; its leaves live three hours instead. Source: AWS, "Verifying the root of trust" of
Nitro Enclaves.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from attestable_mcp.errors import ChainInvalid, EvidenceError, SignatureInvalid
from attestable_mcp.rats import _MINT, Claims, ClaimValue, EndorsementQuery, Endorsements, Evidence, Tee, Verified
from attestable_mcp.verify.chain import ends_of, read_pool, walk
from attestable_mcp.verify.description import Description
from attestable_mcp.verify.signature import holds
from attestable_mcp.verify.trail import Trail
from attestable_mcp.wire.nitro import NitroDocument, read_document
from attestable_mcp.wire.x509 import X509Leaf, read_certificate

if TYPE_CHECKING:
    from attestable_mcp.verify.anchors import TrustAnchors
    from attestable_mcp.verify.memory import Memory

_SKEW = timedelta(minutes=5)
"""How far the hypervisor's clock may run ahead of ours."""
_NO_PLATFORM = "the platform's identity and TCB: a Nitro document names an instance, not a machine"


def query(evidence: Evidence) -> EndorsementQuery:
    """A document brings its own chain: nothing has to be fetched. Raises: EvidenceError where it is no document."""
    read_document(evidence.body)
    return EndorsementQuery(tee=Tee.NITRO, parameters={})


def describe(evidence: Evidence) -> Description:
    """Every field of the document, unverified. Raises: EvidenceError."""
    document = read_document(evidence.body)
    chain = (document.certificate, *document.cabundle)
    digests = tuple(hashlib.sha256(raw).hexdigest() for raw in chain)
    return Description(tee=Tee.NITRO, values=_claims(document).values, certificates=digests)


def verify(
    evidence: Evidence, endorsements: Endorsements, *, anchors: TrustAnchors, at: datetime, memory: Memory
) -> Verified:
    """Verify a document against AWS's root. Raises: EvidenceError, SignatureInvalid, ChainInvalid."""
    trail = Trail()
    document = read_document(evidence.body)
    leaf = read_certificate(document.certificate)
    _check_signature(document, leaf, trail)
    path = walk(leaf, read_pool(document.cabundle), anchors.aws, at=at, trail=trail, check="nitro.chain", memory=memory)
    wanted = f"a document made before {at:%Y-%m-%dT%H:%M:%SZ}"
    ahead = document.made_at - at > _SKEW
    trail.demand(not ahead, ChainInvalid, "nitro.timestamp", wanted, f"{document.made_at:%Y-%m-%dT%H:%M:%SZ}")
    return Verified(
        _MINT,
        claims=_claims(document),
        evidence_digest=evidence.digest,
        signed_digest=hashlib.sha256(document.message.to_be_signed).hexdigest(),
        findings=trail.findings,
        anchor=path.anchor.spki_sha256,
        anchor_name=path.anchor.name,
        simulated=path.anchor.simulated,
        at=at,
        valid_until=path.valid_until,
        ends=ends_of(path, None),
        not_proven=(_NO_PLATFORM,),
    )


def _check_signature(document: NitroDocument, leaf: X509Leaf, trail: Trail) -> None:
    message = document.message
    try:
        good = holds("ecdsa", "sha384", leaf.spki, message.signature, message.to_be_signed)
    except EvidenceError:
        good = False
    seen = "ES384" if good else "one that fails"
    trail.demand(good, SignatureInvalid, "nitro.signature", "a signature by the document's certificate", seen)


def _claims(document: NitroDocument) -> Claims:
    """PCRs that are zero were never extended, and are left out but for the first three, which debug mode zeroes."""
    values: dict[str, ClaimValue] = {
        f"pcr{number}": value.hex() for number, value in sorted(document.pcrs.items()) if any(value) or number < 3
    }
    values |= {"module_id": document.module_id, "timestamp_ms": document.timestamp_ms}
    values |= {"pcr_count": len(document.pcrs), "debug_mode": document.debug}
    values |= {name: getattr(document, name).hex() for name in ("public_key", "user_data", "nonce")}
    values |= {"payload_map_indefinite_length": document.indefinite, "cose_tagged": document.message.tagged}
    return Claims(
        tee=Tee.NITRO, values=values, report_data=document.user_data, debug=document.debug, tcb_status="",
        asserted=frozenset(("cose_tagged",)),
    )  # fmt: skip
