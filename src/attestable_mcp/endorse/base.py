"""The seam to every source of collateral: it fetches, and never judges what it fetched."""

from __future__ import annotations

from typing import Protocol

from attestable_mcp.rats import EndorsementQuery, Endorsements


class EndorsementSource(Protocol):
    """Where Endorsements come from (RFC 9334 section 4.2): a vendor's service, a cache, a folder."""

    @property
    def name(self) -> str:
        """Words for reports, such as `files in ./collateral`."""
        ...

    def fetch(self, query: EndorsementQuery, *, deadline_seconds: float) -> Endorsements:
        """Untrusted collateral that may serve `query`, within `deadline_seconds`. Safe to call from any thread.

        Raises:
            EndorsementUnavailable: it could not be had.
        """
        ...
