"""Our errors, found again in what other people's code wraps around them."""

from __future__ import annotations

from attestable_mcp.errors import AttestationError


def find_refusal(error: BaseException) -> AttestationError | None:
    """The first error of our family in an exception, its group or its causes; each is looked at once."""
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        found = waiting.pop(0)
        if isinstance(found, AttestationError):
            return found
        if id(found) not in seen:
            seen.add(id(found))
            waiting += found.exceptions if isinstance(found, BaseExceptionGroup) else ()
            waiting += [linked for linked in (found.__cause__, found.__context__) if linked is not None]
    return None
