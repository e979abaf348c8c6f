"""A bridge that cannot start still has a host that waits: it is told why, or it would only see a server disconnect."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import anyio

from attestable_mcp.errors import AttestationError
from attestable_mcp.mcp import rpc
from attestable_mcp.mcp.bridge_failure import failure_of

PATIENCE_SECONDS = 2.0
"""How long the host's next request is waited for: hosts ask at once, and again in the other era if that fails."""


async def tell_host(
    error: AttestationError,
    url: str,
    lines: AsyncIterator[bytes | None],
    write: Callable[[bytes], Awaitable[None]],
    *,
    seconds: float = PATIENCE_SECONDS,
) -> None:
    """Answer each request with this error, until the host closes its side or has asked nothing for so long."""
    failure = failure_of(error, url)
    with anyio.move_on_after(seconds) as patience:
        async for line in lines:
            message = rpc.parse(line or b"")
            if rpc.fault(message) is None and rpc.is_request(message):
                await write(failure.answer(message["id"]))
                patience.deadline = anyio.current_time() + seconds
