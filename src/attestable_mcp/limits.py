"""Every appetite has a number: caps on size, count, depth, age and time. This module imports nothing of ours."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """All caps in one place. Sizes in bytes, times in seconds."""

    certificate: int = 192 * 1024
    """A leaf certificate with evidence and stapled endorsements."""
    evidence: int = 64 * 1024
    """One quote, report or document."""
    endorsement: int = 1024 * 1024
    """One answer of a collateral service, one collateral file."""
    endorsement_files: int = 256
    """Files read from an --endorsements folder."""
    challenge_answer: int = 512 * 1024
    """The body of an answer to a live challenge."""
    challenge_header: int = 16 * 1024
    challenge_request: int = 4 * 1024
    der_depth: int = 32
    der_items: int = 4096
    cbor_depth: int = 16
    cbor_items: int = 4096
    chain: int = 8
    """Certificates in one chain."""
    tree_depth: int = 20
    """Nodes in an inclusion path of the transcript tree."""
    policy_file: int = 1024 * 1024
    connect_seconds: float = 10.0
    challenge_seconds: float = 10.0
    endorsement_seconds: float = 10.0
    binding_max_age: float = 600.0
    certificate_max_age: float = 86400.0
    """Greatest age of a certificate where a policy asks for certificate freshness only."""
    binding_keys: int = 1024
    """Attested binding keys remembered by a client."""


LIMITS = Limits()
