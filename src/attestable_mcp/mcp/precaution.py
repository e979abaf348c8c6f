"""Before which calls a server proves itself again, as the policy's `[reattest]` has it, and what that takes to know."""

from __future__ import annotations

from typing import Any

from attestable_mcp.limits import LIMITS
from attestable_mcp.tls.fresh import Freshness


class Precaution:
    """One conversation's knowledge of tools: which are marked destructive (MCP, server/tools, annotations).

    A tool that was never listed counts as destructive: nobody has said that it is not.
    """

    def __init__(self, freshness: Freshness) -> None:
        self._freshness = freshness
        self._destructive: dict[str, bool] = {}

    def learn(self, tools: list[Any]) -> None:
        """Take note of listed tools that may be called."""
        if len(self._destructive) > 2 * LIMITS.manifest_items:
            self._destructive.clear()  # what is not known counts as destructive
        for tool in tools:
            name = tool.get("name") if isinstance(tool, dict) else None
            marks = tool.get("annotations") if isinstance(tool, dict) else None
            if isinstance(name, str):
                self._destructive[name] = isinstance(marks, dict) and marks.get("destructiveHint") is True

    def changed(self) -> None:
        """The server says that a list has changed: every connection is proven again before its next request."""
        if self._freshness.policy.list_changed:
            self._freshness.renew()

    def demands(self, tool: object) -> bool:
        """Must the connection be proven again for a call of this tool?"""
        policy = self._freshness.policy
        if not isinstance(tool, str):
            return False
        return policy.names(tool) or (policy.destructive and self._destructive.get(tool, True))
