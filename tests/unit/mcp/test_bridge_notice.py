"""What the bridge tells the host of itself: only where, and only while, the host may be told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from attestable_mcp.mcp.bridge_notice import Notice

pytestmark = pytest.mark.anyio
OPENED: dict[str, Any] = {"protocolVersion": "2025-11-25", "capabilities": {"logging": {}, "tools": {}}}
TOLD = {"message": "pinned"}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def answer(request_id: object, result: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": request_id, "result": result}).encode()


async def asked(notice: Notice, request_id: object, level: str | None) -> None:
    meta = {} if level is None else {"io.modelcontextprotocol/logLevel": level}
    line = json.dumps({"jsonrpc": "2.0", "id": request_id, "method": "tools/list", "params": {"_meta": meta}}).encode()

    async def one() -> AsyncIterator[bytes | None]:
        yield line
        yield None

    assert [line async for line in notice.watch(one())] == [line, None]


def told(lines: tuple[bytes, ...]) -> list[str]:
    return [json.loads(line).get("method", "answer") for line in lines]


async def test_a_server_of_the_handshake_era_that_logs_lets_the_host_be_told_after_its_answer() -> None:
    notice = Notice()
    notice.tell(TOLD)
    lines = notice.around(answer(1, OPENED))
    assert told(lines) == ["answer", "notifications/message"]
    assert json.loads(lines[1])["params"] == {"level": "notice", "logger": "attestable-mcp", "data": TOLD}
    assert told(notice.around(answer(2, OPENED))) == ["answer"]


async def test_a_host_that_asked_for_logs_in_the_stateless_era_is_told_before_the_answer() -> None:
    notice = Notice()
    await asked(notice, "a", "info")
    notice.tell(TOLD)
    assert told(notice.around(b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}')) == [
        "notifications/progress"
    ]
    assert told(notice.around(answer("a", {}))) == ["notifications/message", "answer"]


@pytest.mark.parametrize("level", [None, "warning", "emergency", "loud"])
async def test_a_host_that_did_not_ask_is_told_nothing(level: str | None) -> None:
    notice = Notice()
    await asked(notice, 1, level)
    notice.tell(TOLD)
    silent = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}}
    for line in (answer(1, {}), answer(2, silent), b"not JSON", b"[]", answer(None, {})):
        assert notice.around(line) == (line,)


async def test_without_a_notice_by_the_first_answer_nothing_is_read_any_more() -> None:
    notice = Notice()
    assert told(notice.around(answer(1, {}))) == ["answer"]
    notice.tell(TOLD)
    assert told(notice.around(answer(2, OPENED))) == ["answer"]
