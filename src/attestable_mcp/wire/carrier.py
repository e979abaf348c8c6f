"""What a certificate carries: one piece of evidence, and what ties it to the certificate's key."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, TypeAlias

from attestable_mcp.rats import Evidence

Source: TypeAlias = Literal[
    "dice-tagged-evidence", "gramine-legacy", "intel-sgx-sdk", "cmw", "dstack", "nitro-in-name"
]  # fmt: skip
HASHES: dict[int, str] = {1: "sha256", 7: "sha384", 8: "sha512"}
"""IANA Named Information hash algorithms that a pubkey-hash may name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PubkeyHash:
    """The pubkey-hash claim: `algorithm` is a key of HASHES, `digest` of that hash's size."""

    algorithm: int
    digest: bytes

    def matches(self, spki: bytes) -> bool:
        """Is it the hash of this DER SubjectPublicKeyInfo?"""
        return hashlib.new(HASHES[self.algorithm], spki).digest() == self.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateEvidence:
    """One piece of evidence in a certificate, and what ties it to the certificate's key.

    The tie holds if the evidence carries `report_data` (as `rats.carried` says for its kind) AND `key_matches`. In the
    forms of `dice-tagged-evidence` and `intel-sgx-sdk` the report data names the claims, and the claims name the key:
    `pubkey_hash` is that claim, `claims` its exact bytes, `key_matches` whether it is this key's hash. In all others it
    names the key itself. `report_data` has 64 bytes, but for `nitro-in-name`, where it is the key.
    """

    evidence: Evidence
    source: Source
    report_data: bytes
    key_matches: bool
    claims: bytes = b""
    pubkey_hash: PubkeyHash | None = None
    nonce: bytes | None = None
