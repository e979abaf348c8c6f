"""Our errors towards an MCP host: their JSON-RPC codes, and how they are found in what other code wraps around them."""

from __future__ import annotations

from attestable_mcp.errors import AttestationError

NOT_ADMITTED = -32010
"""JSON-RPC error code where nothing was sent, since the server was not admitted."""
NOT_CALLED = -32011
"""JSON-RPC error code of a call that was not sent, and of a list that the evidence does not commit to."""
NO_RECEIPT = -32012
"""JSON-RPC error code of an answer that is withheld because its receipt is missing or does not hold."""


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
