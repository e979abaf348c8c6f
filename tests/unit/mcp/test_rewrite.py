"""What the client's strict side of an event stream lets through, byte by byte."""

from __future__ import annotations

from typing import Any

import pytest

from attestable_mcp.mcp.rewrite import EventRewriter

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def leave(message: dict[str, Any]) -> None:
    """Replace nothing."""


@pytest.mark.parametrize(
    ("sent", "passed"),
    [
        (b'id: 1\r\ndata: {"a": 1}\r\n\r\n', b'id: 1\ndata: {"a":1}\n\n'),
        (b"id: 78\nretry: 100\ndata: \n\n", b"id: 78\nretry: 100\ndata: \n\n"),
        (b"id: 78\ndata:\n\n", b"id: 78\ndata: \n\n"),
        (b"id: 79\n\n", b"id: 79\n\n"),
        (b"data: no message\n\n", b":\n\n"),
        (b": ping\n\n", b":\n\n"),
    ],
)
async def test_an_event_passes_as_a_message_as_an_id_or_not_at_all(sent: bytes, passed: bytes) -> None:
    """An id with empty data is what a client comes back with (SEP-1699): readers drop events that have no data line."""
    rewriter = EventRewriter(leave, strict=True)
    assert await rewriter.feed(sent) == passed
