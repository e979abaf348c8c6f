"""The seam between verification and the outside: where collateral comes from. Sources fetch, and judge nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol, runtime_checkable

from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import EndorsementQuery, Endorsements


@runtime_checkable
class EndorsementSource(Protocol):
    """Something that hands out untrusted collateral.

    A source that answers for some vendors only may have `serves(query) -> bool`, and one that makes one wait for one's
    turn `patience_seconds`: see `serves` and `patience` here.
    """

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


def serves(source: EndorsementSource, query: EndorsementQuery) -> bool:
    """Is this a question for this source? One that does not say is asked everything."""
    ask = getattr(source, "serves", None)
    return True if ask is None else bool(ask(query))


def patience(sources: Iterable[EndorsementSource]) -> float:
    """Seconds that asking these sources may take in all: more than usual where one makes one wait for one's turn."""
    named = [float(getattr(source, "patience_seconds", 0.0)) for source in sources]
    return max((LIMITS.endorsement_seconds, *named))
