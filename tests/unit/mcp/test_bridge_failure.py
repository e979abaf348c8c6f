"""What a host is told of each error of ours: the JSON-RPC code that docs/errors.md names, and what to do."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx2
import pytest

from attestable_mcp import errors
from attestable_mcp.mcp.bridge_failure import _OUR_WORD, failure_of, plain
from attestable_mcp.mcp.bridge_unstarted import tell_host
from attestable_mcp.rats import Finding, Outcome

URL = "https://server.example/mcp"
ADMISSION = "attestation refused, nothing was sent: "
OURS = "refused, for something on this side: "
CODES = {errors.ToolRefused: -32011, errors.ReceiptError: -32012, errors.ConversationError: -32000}
LEADS = {-32011: "", -32012: "", -32000: ""}


def family() -> list[type[errors.AttestationError]]:
    found, todo = [], [errors.AttestationError]
    while todo:
        kind = todo.pop()
        found.append(kind)
        todo.extend(child for child in kind.__subclasses__() if child.__module__ == errors.__name__)
    return found


@pytest.mark.parametrize("kind", family(), ids=lambda kind: kind.__name__)
def test_each_class_of_the_family_reaches_the_host_by_its_documented_code(kind: type[errors.AttestationError]) -> None:
    wrapped = httpx2.ConnectError("all attempts failed")
    wrapped.__cause__ = kind("file x: wanted a, seen b", hint="Mend x.")
    told = failure_of(wrapped, URL)
    assert told.code == CODES.get(kind, -32010)
    ours = issubclass(kind, (errors.ConfigurationError, errors.AttesterError))
    lead = OURS if ours else LEADS.get(told.code, ADMISSION)
    assert told.message == f"{lead}file x: wanted a, seen b (Mend x.)"
    assert told.data == {"code": kind.code, "message": "file x: wanted a, seen b", "hint": "Mend x.", "url": URL}


@pytest.mark.parametrize("code", sorted(_OUR_WORD))
def test_a_conversation_that_one_end_refuses_is_a_refusal(code: str) -> None:
    told = failure_of(errors.ConversationError("no", code=code), URL)
    assert (told.code, told.message.startswith(ADMISSION)) == (-32010, True)


@pytest.mark.parametrize("code", ["unreachable", "connection_lost", "stalled", "flooded", "garbage", "closing"])
def test_a_conversation_that_broke_is_no_refusal(code: str) -> None:
    told = plain("it broke", URL, code=code, hint="Ask again.")
    assert (told.code, told.message) == (-32000, "it broke (Ask again.)")


def test_the_checks_that_failed_come_with_wanted_and_seen() -> None:
    held = Finding(check="a.b", outcome=Outcome.PASS, wanted="1", seen="1", reason="")
    failed = [Finding(check=f"c.{n}", outcome=Outcome.FAIL, wanted="2", seen="3", reason="why") for n in (1, 2)]
    told = failure_of(errors.Revoked("revoked", findings=(held, *failed)), URL)
    shape = {"check": "c.1", "wanted": "2", "seen": "3", "reason": "why"}
    assert {key: told.data[key] for key in shape} == shape
    assert told.data["checks"] == [shape, shape | {"check": "c.2"}]


def test_the_table_of_errors_names_these_codes(repository: Path) -> None:
    table = (repository / "docs" / "errors.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (-320\d\d) \| (.*?) \|", table, re.MULTILINE))
    assert set(re.findall(r"`([a-z_]+)`", rows["-32010"])) == _OUR_WORD
    for kind, code in CODES.items():
        assert f"`{kind.__name__}" in rows[str(code)]


def test_a_foreign_fault_is_named_by_its_type_only() -> None:
    told = failure_of(ValueError("secret argument of a call"), URL)
    assert (told.code, told.data["code"]) == (-32000, "internal")
    assert "secret" not in told.message


@pytest.mark.anyio
async def test_a_host_of_a_bridge_that_cannot_start_is_answered_until_it_falls_silent() -> None:
    answers: list[bytes] = []
    ended = False

    async def lines() -> AsyncIterator[bytes | None]:
        nonlocal ended
        yield b'{"jsonrpc":"2.0","id":1,"method":"server/discover"}'
        yield b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
        yield None
        yield b"no JSON"
        for request_id in (2, 3):
            await anyio.sleep(0.3)
            yield b'{"jsonrpc":"2.0","id":%d,"method":"initialize"}' % request_id
        try:
            await anyio.sleep(30)
        finally:
            ended = True

    async def write(line: bytes) -> None:
        answers.append(line)

    error = errors.ConfigurationError("policy p.toml, line 3: not TOML", hint="Policies are TOML 1.0.")
    await tell_host(error, URL, lines(), write, seconds=0.5)
    found = [(message["id"], message["error"]["code"]) for message in map(json.loads, answers)]
    assert found == [(1, -32010), (2, -32010), (3, -32010)]
    assert ended
