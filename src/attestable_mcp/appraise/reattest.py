"""When a client asks a server to prove itself again: the `[reattest]` section of a policy."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from attestable_mcp.appraise.fault import PolicyFault

if TYPE_CHECKING:
    from attestable_mcp.appraise.section import Section


@dataclass(frozen=True, slots=True, kw_only=True)
class ReattestPolicy:
    """Each is answered by a new quote, on the connection that is then used, at the next counter.

    `every`: seconds after which a connection is proven again before its next request; None leaves it at the first
    proof. `list_changed`: once a server says that its lists have changed. `destructive`: before calls of tools that
    are marked destructive, and of tools that were never listed. `before`: before calls of tools of these names or
    patterns.

    Raises:
        ConfigurationError: A value of the wrong form.
    """

    every: float | None = 1800.0
    list_changed: bool = True
    destructive: bool = True
    before: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.every is not None and not 0 < self.every < float("inf"):
            raise PolicyFault(f"wanted a time above zero, seen {self.every!r}", "every")
        for index, name in enumerate(self.before):
            if not isinstance(name, str) or not name.strip():
                raise PolicyFault(f"wanted a tool's name or a pattern, seen {name!r}", "before", index)

    def names(self, tool: str) -> bool:
        """Is this tool among those that are named?"""
        return any(fnmatchcase(tool, pattern) for pattern in self.before)


NEVER = ReattestPolicy(every=None, list_changed=False, destructive=False)
"""For servers that know no live binding."""


def read_reattest(section: Section) -> ReattestPolicy:
    """The policy in a `[reattest]` table; `every = "never"` leaves a connection at its first proof.

    Raises:
        ConfigurationError: Unknown keys, empty or wrong values, with file and line.
    """
    never = section.left.get("every") == "never"
    every = None if never and section.text("every") else section.seconds("every")
    values = {
        "list_changed": section.flag("list_changed"),
        "destructive": section.flag("destructive"),
        "before": section.texts("before", or_one=True),
    }
    section.finish()
    if never:
        return section.build(lambda **given: ReattestPolicy(every=None, **given), **values)
    return section.build(ReattestPolicy, every=every, **values)
