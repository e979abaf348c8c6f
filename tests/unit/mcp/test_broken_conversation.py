"""A server that is admitted and then breaks the conversation: one of our errors, never a bare group of foreign ones."""

from __future__ import annotations

import httpx2
import pytest

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.errors import AttestationError, ConversationError
from attestable_mcp.mcp.client import attested_client

URL = "https://127.0.0.1:9/mcp"
BROKEN = [
    (httpx2.RemoteProtocolError("Server disconnected without sending a response."), "connection_closed"),
    (httpx2.ReadError("reset by peer"), "connection_closed"),
    (httpx2.WriteError("broken pipe"), "connection_closed"),
    (httpx2.ReadTimeout("silence"), "timeout"),
    (httpx2.ConnectError("refused"), "unreachable"),
]


class Breaking(httpx2.AsyncBaseTransport):
    """Ends every request with the same failure, as a transport does whose peer goes away."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        raise self.error


@pytest.mark.anyio
@pytest.mark.parametrize(("error", "code"), BROKEN, ids=lambda value: type(value).__name__ if value else "")
async def test_a_broken_transport_is_a_conversation_error(error: Exception, code: str) -> None:
    mounts = {"https://": Breaking(error)}
    with pytest.raises(AttestationError) as caught:
        async with attested_client(URL, policy=Policy.genuine_only(), mounts=mounts) as client:
            await client.list_tools()
    assert isinstance(caught.value, ConversationError)
    assert caught.value.code == code
    assert caught.value.hint
