"""Prompts, resources and tasks that are reserved, and every way around that which a client could try.

The rules stand in front of a server that answers whatever reaches it; here it says what that was.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from two_clients import BILLING, KNOWN, POLICY, REPORTS, SERVER

from attestable_mcp import attested_http_client, serve
from attestable_mcp.appraise.rule import Allow, Rule
from attestable_mcp.appraise.server_policy import ServerPolicy
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.errors import ConversationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp.access import Access
from attestable_mcp.mcp.gate import make_gate
from attestable_mcp.mcp.manifest import META_KEY, PROMPTS, item_digest
from attestable_mcp.mcp.reserved import About, Reserved, Seen

TOKEN = "s3cret"
ALLOW = f'allow = [{{ token_sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}" }}]\n'
RULES = (
    f'[[prompt]]\nname = "payroll"\n{ALLOW}[[prompt]]\nname = "hr_*"\n{ALLOW}'
    f'[[resource]]\nuri = "ledger://accounts/*"\n{ALLOW}[[resource]]\nuri = "note://secret"\n{ALLOW}'
)
JSON = [(b"content-type", b"application/json")]


class Behind:
    """Notes each message that comes, and answers with `result` as JSON or as events."""

    def __init__(self, result: Any = None, *told: Any) -> None:
        self.seen: list[Any] = []
        self.result = {} if result is None else result
        self.told = told

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive()).get("body", b"")
        self.seen.append(json.loads(body) if body else None)
        answer = {"jsonrpc": "2.0", "id": 1, "result": self.result}
        kind = b"text/event-stream" if self.told else b"application/json"
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
        if self.told:
            events = [{"jsonrpc": "2.0", **message} for message in self.told] + [answer]
            text = "".join(f"data: {json.dumps(message)}\n\n" for message in events).encode()
        else:
            text = json.dumps(answer).encode()
        await send({"type": "http.response.body", "body": text[:50], "more_body": True})
        await send({"type": "http.response.body", "body": text[50:], "more_body": False})


def sent(app: Behind, message: Any, *, token: str | None = None, rules: str = RULES, method: str = "POST") -> Any:
    """What a client without proof gets: status, and text."""
    policy = ServerPolicy.from_toml(f'clients = "none"\n{rules}')
    headers = [*JSON] + ([(b"authorization", f"Bearer {token}".encode())] if token else [])
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    out: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(part: Any) -> None:
        out.append(part)

    scope = {"type": "http", "method": method, "path": "/mcp", "headers": headers, "state": {}}
    asyncio.run(_run(Access(app, policy=policy), scope, receive, send))
    return out[0]["status"], b"".join(part.get("body", b"") for part in out[1:]).decode()


async def _run(app: Any, scope: Any, receive: Any, send: Any) -> None:
    await app(scope, receive, send)


def ask(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def listen(*uris: Any, **more: Any) -> dict[str, Any]:
    return ask("subscriptions/listen", notifications={"resourceSubscriptions": list(uris), **more})


RESERVED = {
    "a prompt": ask("prompts/get", name="payroll"),
    "a prompt by pattern": ask("prompts/get", name="hr_salaries", arguments={}),
    "a prompt's arguments": ask("completion/complete", ref={"type": "ref/prompt", "name": "payroll"}),
    "a resource": ask("resources/read", uri="ledger://accounts/7"),
    "a subscription": ask("resources/subscribe", uri="ledger://accounts/7"),
    "the end of one": ask("resources/unsubscribe", uri="note://secret"),
    "an extension's method": ask("resources/directory/read", uri="ledger://accounts/"),
    "a stream of changes": listen("note://public", "ledger://accounts/7"),
    "a resource's completion": ask("completion/complete", ref={"type": "ref/resource", "uri": "note://secret"}),
    "what a template leads to": ask("completion/complete", ref={"type": "ref/resource", "uri": "ledger://{book}/{id}"}),
    "a template of everything": ask("completion/complete", ref={"type": "ref/resource", "uri": "{+uri}"}),
    "a reference of both kinds": ask("completion/complete", ref={"type": "ref/x", "name": "x", "uri": "note://secret"}),
    "another spelling": ask("resources/read", uri="LEDGER://Accounts/%37"),
    "a way up": ask("resources/read", uri="note://public/../secret"),
    "with a query": ask("resources/read", uri="note://secret?x=1"),
    "no text": ask("resources/read", uri=["note://secret"]),
    "none": ask("resources/read"),
    "a NUL behind a name": ask("prompts/get", name="payroll\0"),
    "a space behind a name": ask("prompts/get", name="payroll "),
    "what is not seen in a name": ask("prompts/get", name="pay\u200broll"),
    "half a character in a name": ask("prompts/get", name="payroll\ud800"),
    "no list": ask("subscriptions/listen", notifications={"resourceSubscriptions": "note://secret"}),
    "a task of nobody's": ask("tasks/result", taskId="786"),
    "a task on a stream": listen(taskIds=["786"]),
}


@pytest.mark.parametrize("name", RESERVED)
def test_c4_what_is_reserved_is_refused_before_the_server_sees_the_request(name: str) -> None:
    app = Behind()
    status, text = sent(app, RESERVED[name])
    assert (status, app.seen) == (200, [])
    error = json.loads(text)["error"]
    assert error["code"] in (-32014, -32602)
    assert error["data"]["code"] in ("prompt_not_allowed", "resource_not_allowed", "task_not_found")
    sent(app, RESERVED[name], rules="")
    assert app.seen == [RESERVED[name]], "without rules nothing is kept from anybody"


NOBODYS = (
    "a way up", "no text", "none", "no list", "a task of nobody's", "a task on a stream",
    *(name for name in RESERVED if name.endswith(" a name")),
)  # fmt: skip


@pytest.mark.parametrize("name", RESERVED)
def test_who_is_allowed_has_it_where_it_can_be_only_one_thing(name: str) -> None:
    app = Behind()
    sent(app, RESERVED[name], token=TOKEN)
    assert app.seen == ([] if name in NOBODYS else [RESERVED[name]])


OPEN = [
    ask("prompts/get", name="Payroll"), ask("prompts/list"), ask("resources/list"), ask("tools/call", name="payroll"),
    ask("resources/read", uri="note://public"), ask("resources/read", uri="mailto:a@b.example"),
    ask("resources/read", uri="note://Größe"), listen("note://public"), listen(), ask("subscriptions/listen"),
    ask("completion/complete", ref={"type": "ref/resource", "uri": "ledger://public/{id}"}),
    ask("completion/complete", ref={"type": "ref/prompt", "name": "hello"}),
]  # fmt: skip


@pytest.mark.parametrize("message", OPEN, ids=[message["method"] for message in OPEN])
def test_what_no_table_names_is_for_everybody(message: Any) -> None:
    app = Behind()
    assert sent(app, message)[0] == 200
    assert app.seen == [message]


def text(method: str = "prompts/get", **params: Any) -> str:
    return json.dumps(ask(method, **params))


SMUGGLED = {
    "a name twice": text(name="hello").replace('"name"', '"name": "payroll", "name"'),
    "a name in another case": text(name="hello", Name="payroll"),
    "a URI in another case": text("resources/read", uri="note://public", URI="note://secret"),
    "a URI twice": text("resources/read", uri="note://public").replace('"uri"', '"uri": "note://secret", "uri"'),
    "a method in another case": text("Prompts/Get", name="payroll"),
    "a method with a space": text(" prompts/get", name="payroll"),
    "a method in another case, of tasks": text("tasks/Result", taskId="1"),
    "by position": json.dumps({**ask("resources/read"), "params": ["note://secret"]}),
    "in a batch": json.dumps([ask("prompts/get", name="hello"), ask("prompts/get", name="payroll")]),
    "a list in a batch": json.dumps([ask("prompts/list")]),
    "another case below": text("completion/complete", ref={"type": "ref/prompt", "name": "x", "NAME": "payroll"}),
    "a reference twice": text("completion/complete", ref={}, Ref={"type": "ref/prompt", "name": "payroll"}),
    "another case of a filter": text(
        "subscriptions/listen", notifications={"resourcesubscriptions": ["note://secret"]}
    ),
    "a task in another case": text("tasks/get", taskId="1", taskid="2"),
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_smuggling_what_two_readers_could_take_differently_goes_to_nobody(name: str) -> None:
    for body in (SMUGGLED[name].encode(), SMUGGLED[name].encode("utf-16")):
        app = Behind()
        assert sent(app, body, token=TOKEN)[0] == 400, name
        assert app.seen == []


LISTS: dict[str, list[dict[str, Any]]] = {
    "prompts": [{"name": "hello"}, {"name": "payroll"}, {"name": "hr_x"}, {"title": "nameless"}],
    "resources": [{"uri": uri} for uri in ("note://public", "Note://Secret", "ledger://accounts/1", "x/../y")],
    "resourceTemplates": [{"uriTemplate": "note://{x}"}, {"uriTemplate": "ledger://accounts/{id}"}],
    "tasks": [{"taskId": "1"}],
}


@pytest.mark.parametrize("member", LISTS)
@pytest.mark.parametrize("told", [(), ({"method": "notifications/message", "params": {}},)], ids=["json", "events"])
def test_c4_lists_hold_what_is_for_the_client(member: str, told: Any) -> None:
    shown = LISTS[member][:1] if member != "tasks" else []
    _, got = sent(Behind({member: LISTS[member], "more": 1}, *told), ask("x/list"))
    answer = json.loads(got.rpartition("data: ")[2])["result"]
    assert answer == {member: shown, "more": 1}
    _, got = sent(Behind({member: LISTS[member]}, *told), ask("x/list"), rules="")
    assert json.loads(got.rpartition("data: ")[2])["result"] == {member: LISTS[member]}


def test_c4_no_cache_gives_one_clients_list_to_another() -> None:
    for member, kept in (("prompts", "private"), ("resources", "private"), ("tools", "public"), ("contents", "public")):
        result = {member: [], "ttlMs": 60000, "cacheScope": "public"}
        answer = json.loads(sent(Behind(result), ask("x"), token=TOKEN)[1])["result"]
        assert answer == result | {"cacheScope": kept}, "nothing is reserved there" if kept == "public" else member


def test_a_list_says_what_it_keeps_back_as_the_manifest_wants_it() -> None:
    items = LISTS["prompts"][:3]
    listed = {"prompts": items, "_meta": {META_KEY: {"digest": "00"}}}
    answer = json.loads(sent(Behind(listed), ask("prompts/list"))[1])["result"]
    assert answer["prompts"] == items[:1]
    assert answer["_meta"][META_KEY]["hidden"] == {i["name"]: item_digest(PROMPTS, i).hex() for i in items[1:]}


def test_c4_a_notice_about_what_is_reserved_is_not_heard() -> None:
    told = [{"method": "notifications/resources/updated", "params": {"uri": uri}} for uri in ("a://b", "note://SECRET")]
    told += [{"method": "notifications/tasks/status", "params": {"taskId": "7", "status": "working"}}]
    for method in ("GET", "POST"):
        _, got = sent(Behind({}, *told), b"" if method == "GET" else ask("x"), method=method)
        assert "a://b" in got
        assert "note" not in got.lower().replace("notifications", "")
        assert "taskId" not in got
        assert '"result"' in got


def test_a_list_that_is_too_long_to_be_looked_at_is_not_passed_on() -> None:
    class Long(Behind):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": JSON})
            for _ in range(LIMITS.mcp_message // 2**24 + 1):
                await send({"type": "http.response.body", "body": bytes(2**24), "more_body": True})

    with pytest.raises(ConversationError) as caught:
        sent(Long(), ask("prompts/list"))
    assert caught.value.code == "flooded"


def test_a_task_with_an_endless_name_is_nobodys() -> None:
    reserved = Reserved(ServerPolicy(tools=(Rule(name="x", allow=(Allow(token_sha256="00" * 32),)),)))
    for size, held in ((LIMITS.resource_uri, True), (LIMITS.resource_uri + 1, False)):
        reserved.began("t" * size, Seen(None, None), ())
        assert reserved.allows(About("task", "t" * size), Seen(None, None)) is held


# --- tasks: whose they are ------------------------------------------------------------------------------------------

CLIENTS = f"""clients = "optional"
{KNOWN}[[tool]]
name = "transfer"
allow = [{{ client = "billing" }}, {{ token_sha256 = "{hashlib.sha256(TOKEN.encode()).hexdigest()}" }}]
"""


@asynccontextmanager
async def client(url: str, measured: bytes | None) -> AsyncIterator[Any]:
    gate = make_gate(POLICY, attester=None if measured is None else SimulatedAttester(measured))
    async with attested_http_client(gate.policy, url=url, gate=gate, timeout=30) as http:

        async def post(message: Any, **headers: str) -> Any:
            answer: httpx2.Response = await http.post(url, json=message, headers=headers)
            return answer.json()

        yield post


@pytest.mark.parametrize("era", ["2025-11-25", "2026-07-28"])
def test_c4_a_task_is_for_the_client_that_began_it(era: str) -> None:
    """It is known by an id only; whoever learns or guesses it must not have what came of a reserved call."""
    fields = {"taskId": "t1", "status": "working"}
    begun = {"task": fields} if era == "2025-11-25" else {"resultType": "task", **fields}

    async def run() -> None:
        app = Behind(begun)
        async with serve(app, attester=SimulatedAttester(SERVER), clients=CLIENTS, manifest=False) as server:
            async with client(server.url, BILLING) as billing, client(server.url, REPORTS) as reports:
                assert (await billing(ask("tools/call", name="transfer", task={})))["result"] == begun
                assert (await reports(ask("tools/call", name="look", task={})))[
                    "result"
                ] == begun  # its id claims nothing
                app.result = {"tasks": [fields], "content": "the result"}
                for method in ("tasks/get", "tasks/result", "tasks/cancel", "tasks/update", "tasks/later"):
                    refused = await reports(ask(method, taskId="t1"))
                    assert refused["error"]["message"] == "task not found", method
                    assert "result" in await billing(ask(method, taskId="t1"))
                assert (await reports(ask("tasks/list")))["result"]["tasks"] == []
                assert (await billing(ask("tasks/list")))["result"]["tasks"] == [fields]

    asyncio.run(run())


def test_c4_a_task_of_a_reserved_call_is_for_who_may_call_it_also_among_those_who_prove_nothing() -> None:
    async def run() -> None:
        app = Behind({"task": {"taskId": "t1"}})
        async with serve(app, attester=SimulatedAttester(SERVER), clients=CLIENTS, manifest=False) as server:
            async with client(server.url, None) as anybody:
                bearer = {"authorization": f"Bearer {TOKEN}"}
                assert "result" in await anybody(ask("tools/call", name="transfer"), **bearer)
                assert "error" in await anybody(ask("tasks/result", taskId="t1"))
                assert "result" in await anybody(ask("tasks/result", taskId="t1"), **bearer)

    asyncio.run(run())
