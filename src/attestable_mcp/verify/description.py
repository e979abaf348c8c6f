"""What evidence says of itself before anything is proven: for people who look, never for a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attestable_mcp.rats import ClaimValue, Tee


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Unverified fields under the names of claims, and the SHA-256 of each certificate that the evidence brings."""

    tee: Tee
    values: Mapping[str, ClaimValue]
    certificates: tuple[str, ...] = ()
