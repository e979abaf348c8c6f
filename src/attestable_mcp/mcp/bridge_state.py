"""What the parts of a bridge share: who waits, in which session, and through which translator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from attestable_mcp.mcp.bridge_calls import Calls
from attestable_mcp.mcp.bridge_headers import Catalogue
from attestable_mcp.mcp.bridge_session import Session
from attestable_mcp.mcp.translate import Translator

Start = Callable[..., None]
"""Starts a task of the bridge's: a coroutine function and its arguments."""


@dataclass(slots=True, kw_only=True)
class State:
    """One conversation, from the host's first line to its last."""

    calls: Calls
    catalogue: Catalogue = field(default_factory=Catalogue)
    session: Session = field(default_factory=Session)
    translator: Translator | None = None
    """Stands between the two where the server speaks the other era only."""
    era_known: bool = False
    """Has the server shown that it speaks the host's own era?"""
