"""The seam between verification and the outside: where collateral comes from. Sources fetch, and judge nothing."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from attestable_mcp.rats import EndorsementQuery, Endorsements


@runtime_checkable
class EndorsementSource(Protocol):
    """Something that hands out untrusted collateral."""

    @property
    def name(self) -> str:
        """The source in words, for reports: an address or a path."""
        ...

    def fetch(self, query: EndorsementQuery, *, deadline_seconds: float) -> Endorsements:
        """What this source holds for the query, within the deadline.

        Raises:
            EndorsementUnavailable: it cannot be reached, or holds nothing fitting.
            ConfigurationError: the source itself is set up wrongly.
        """
        ...
