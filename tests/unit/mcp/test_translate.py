"""Translation between the eras, message by message: odd servers, odd hosts, and what neither may cause."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import rpc
from attestable_mcp.mcp.translate import ToHost, ToServer, modern_version, refuses_modern
from attestable_mcp.mcp.translate_down import Downward, opening
from attestable_mcp.mcp.translate_up import Upward

MODERN = "2026-07-28"
ALL = {"sampling": {}, "elicitation": {}, "roots": {}}
DISCOVERED = {
    "supportedVersions": [MODERN],
    "capabilities": {
        "tools": {"listChanged": True},
        "resources": {"subscribe": True, "listChanged": True},
        "logging": {},
    },
    "instructions": "be kind",
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1"}},
}
OPENED = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {"listChanged": True}, "resources": {"subscribe": True}, "logging": {}, "tasks": {}},
    "serverInfo": {"name": "s", "version": "1"},
}


def ask(request_id: object, method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}


def modern(request_id: object, method: str, meta: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    envelope = {rpc.PROTOCOL_VERSION: MODERN, rpc.CLIENT_CAPABILITIES: ALL, **(meta or {})}
    return ask(request_id, method, **params, _meta=envelope)


def done(request_id: object, result: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "result": result}


def failed(request_id: object, code: int) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request_id, "error": {"code": code, "message": "no"}}


def upward(capabilities: dict[str, Any] | None = None) -> Upward:
    made = Upward(DISCOVERED, MODERN)
    params = {
        "protocolVersion": "2025-06-18",
        "capabilities": ALL if capabilities is None else capabilities,
        "clientInfo": {"name": "h", "version": "2"},
    }
    [step] = made.from_host(ask(0, "initialize", **params))
    assert isinstance(step, ToHost)
    assert step.message["result"]["protocolVersion"] == "2025-06-18"
    assert step.message["result"]["serverInfo"] == {"name": "s", "version": "1"}
    return made


def only_to_server(steps: Any) -> dict[str, Any]:
    [step] = steps
    assert isinstance(step, ToServer)
    return step.message


def only_to_host(steps: Any) -> dict[str, Any]:
    [step] = steps
    assert isinstance(step, ToHost)
    return step.message


def code_of(steps: Any) -> int:
    return int(only_to_host(steps)["error"]["code"])


def input_required(state: Any = "S", **requests: Any) -> dict[str, Any]:
    return {"resultType": "input_required", "inputRequests": requests, "requestState": state}


# --- a handshake-era host ---------------------------------------------------------------------------------------------


def test_each_request_carries_the_hosts_envelope_and_its_own_meta() -> None:
    sent = only_to_server(upward().from_host(ask("x", "tools/call", name="t", _meta={"progressToken": 7, "a/b": 1})))
    assert sent["params"]["_meta"] == {
        "progressToken": 7,
        "a/b": 1,
        rpc.PROTOCOL_VERSION: MODERN,
        rpc.CLIENT_CAPABILITIES: ALL,
        rpc.CLIENT_INFO: {"name": "h", "version": "2"},
        rpc.LOG_LEVEL: "info",
    }


@pytest.mark.parametrize("state", ["", "a\u2028b", "x" * 10_000, None])
def test_the_request_state_goes_back_as_it_came_and_the_call_is_repeated_whole(state: str | None) -> None:
    made = upward()
    first = only_to_server(made.from_host(ask("x", "tools/call", name="t", arguments={"n": 1.5})))
    asked = only_to_host(made.from_server(done(first["id"], input_required(state, k={"method": "roots/list"}))))
    assert (asked["method"], "params" in asked) == ("roots/list", False)
    again = only_to_server(made.from_host(done(asked["id"], {"roots": []})))
    assert again["id"] != first["id"]
    assert again["params"]["inputResponses"] == {"k": {"roots": []}}
    assert again["params"].get("requestState") == state
    assert ("requestState" in again["params"]) == (state is not None)
    assert (again["params"]["name"], again["params"]["arguments"]) == ("t", {"n": 1.5})
    assert only_to_host(made.from_server(done(again["id"], {"resultType": "complete", "content": []}))) == done(
        "x", {"content": []}
    )


def test_a_server_that_only_wants_time_is_asked_again_later_but_not_for_ever() -> None:
    made = upward()
    sent = only_to_server(made.from_host(ask("x", "tools/call", name="t")))
    for _ in range(32):
        [step] = made.from_server(done(sent["id"], {"resultType": "input_required", "requestState": "s"}))
        assert isinstance(step, ToServer)
        assert 0 < step.after <= 0.25
        sent = step.message
    assert code_of(made.from_server(done(sent["id"], input_required()))) == -32000


@pytest.mark.parametrize(
    ("requests", "word"),
    [
        ({"k": {"method": "no/such"}}, "no/such"),
        ({"k": {"method": 5}}, "5"),
        ({"k": None}, "None"),
        ({"k": {"method": "sampling/createMessage"}}, "not declared"),
        ({str(n): {"method": "roots/list"} for n in range(LIMITS.mcp_inputs + 1)}, "more than"),
    ],
)
def test_input_that_the_host_cannot_give_is_a_clear_error(requests: dict[str, Any], word: str) -> None:
    made = upward({"roots": {}})
    sent = only_to_server(made.from_host(ask("x", "tools/call", name="t")))
    error = only_to_host(made.from_server(done(sent["id"], input_required(**requests))))
    assert error["id"] == "x"
    assert word in error["error"]["message"]


def test_results_hold_only_what_the_hosts_era_can_hold() -> None:
    made = upward()
    listing = only_to_server(made.from_host(ask(1, "tools/list")))
    tools = [{"name": "a", "outputSchema": {"type": "array"}}, {"name": "b", "outputSchema": {"type": "object"}}]
    result = {"resultType": "complete", "ttlMs": 5, "cacheScope": "public", "tools": tools, "nextCursor": "c"}
    told = only_to_host(made.from_server(done(listing["id"], result)))["result"]
    assert told == {"tools": [{"name": "a"}, tools[1]], "nextCursor": "c"}
    call = only_to_server(made.from_host(ask(2, "tools/call", name="a")))
    told = only_to_host(made.from_server(done(call["id"], {"content": [], "structuredContent": [1, "ü"]})))["result"]
    assert told == {"content": [{"type": "text", "text": '[1, "ü"]'}]}
    call = only_to_server(made.from_host(ask(3, "tools/call", name="a")))
    error = only_to_host(made.from_server(done(call["id"], {"resultType": "task", "task": {}})))
    assert "'task'" in error["error"]["message"]


def test_what_cannot_be_translated_is_an_error_at_once() -> None:
    made = upward()
    assert code_of(made.from_host(ask(1, "tasks/list"))) == -32601
    assert code_of(made.from_host(ask(2, "tools/call", name="t", task={"ttl": 1}))) == -32601
    assert code_of(made.from_host(ask(3, "logging/setLevel", level="loud"))) == -32602
    assert code_of(made.from_host(ask(4, "resources/subscribe"))) == -32602
    bare = Upward({"supportedVersions": [MODERN], "capabilities": {}}, MODERN)
    assert code_of(bare.from_host(ask(1, "logging/setLevel", level="info"))) == -32601
    assert code_of(bare.from_host(ask(2, "resources/subscribe", uri="a:b"))) == -32601


def test_cancelling_while_the_host_is_asked_takes_the_question_back() -> None:
    made = upward()
    sent = only_to_server(made.from_host(ask("x", "tools/call", name="t")))
    asked = only_to_host(made.from_server(done(sent["id"], input_required(k={"method": "roots/list"}))))
    cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "x"}}
    withdrawn = only_to_host(made.from_host(cancel))
    assert withdrawn["params"] == {"requestId": asked["id"]}
    assert made.from_host(done(asked["id"], {"roots": []})) == []


def acknowledged(listen: dict[str, Any], **notifications: Any) -> dict[str, Any]:
    meta = {rpc.SUBSCRIPTION_ID: listen["id"]}
    params = {"_meta": meta, "notifications": notifications}
    return {"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params}


def test_a_new_subscription_replaces_the_stream_only_once_it_is_acknowledged() -> None:
    made = upward()
    first = only_to_server(made.from_host({"jsonrpc": "2.0", "method": "notifications/initialized"}))
    assert first["params"]["notifications"] == {"toolsListChanged": True, "resourcesListChanged": True}
    assert rpc.LOG_LEVEL not in first["params"]["_meta"]
    made.from_server(acknowledged(first))
    second = only_to_server(made.from_host(ask(5, "resources/subscribe", uri="a:b")))
    assert second["params"]["notifications"]["resourceSubscriptions"] == ["a:b"]
    closed, answered = made.from_server(acknowledged(second, resourceSubscriptions=["a:b"]))
    assert closed.message["params"]["requestId"] == first["id"]
    assert answered.message == done(5, {})
    third = only_to_server(made.from_host(ask(6, "resources/subscribe", uri="c:d")))
    _, refused = made.from_server(acknowledged(third, resourceSubscriptions=["a:b"]))
    assert refused.message["error"]["code"] == -32602


def test_a_refused_subscription_keeps_the_stream_that_was_there() -> None:
    made = upward()
    first = only_to_server(made.from_host({"jsonrpc": "2.0", "method": "notifications/initialized"}))
    made.from_server(acknowledged(first))
    second = only_to_server(made.from_host(ask(5, "resources/subscribe", uri="a:b")))
    assert code_of(made.from_server(failed(second["id"], -32602))) == -32000
    meta = {"_meta": {rpc.SUBSCRIPTION_ID: first["id"]}}
    event = {"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": meta}
    assert only_to_host(made.from_server(event)) == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}


def test_a_lost_stream_is_opened_again_and_the_host_looks_anew() -> None:
    made = upward()
    sent = only_to_server(made.from_host({"jsonrpc": "2.0", "method": "notifications/initialized"}))
    made.from_server(acknowledged(sent))
    pauses = []
    for _ in range(8):
        [step] = made.from_server(failed(sent["id"], -32000))
        assert isinstance(step, ToServer)
        pauses.append(step.after)
        sent = step.message
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]
    told = [step.message["method"] for step in made.from_server(acknowledged(sent))]
    assert told == ["notifications/tools/list_changed", "notifications/resources/list_changed"]
    assert made.from_server(failed(sent["id"], -32601)) == []


# --- a stateless-era host ---------------------------------------------------------------------------------------------


def started(made: Downward, request_id: object = "x", method: str = "tools/call", **more: Any) -> dict[str, Any]:
    return only_to_server(made.from_host(modern(request_id, method, name="t", **more)))


def test_discovery_is_answered_from_the_handshake() -> None:
    result = only_to_host(Downward(OPENED).from_host(modern(1, "server/discover")))["result"]
    assert result["supportedVersions"] == ["2025-11-25", MODERN]
    assert "tasks" not in result["capabilities"]
    assert (result["resultType"], result["ttlMs"], result["cacheScope"]) == ("complete", 0, "private")
    assert result["_meta"] == {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1"}}


def test_an_envelope_that_is_not_ours_is_refused() -> None:
    made = Downward(OPENED)
    assert code_of(made.from_host(ask(1, "tools/list"))) == -32602
    assert code_of(made.from_host(modern(1, "tools/list", {rpc.PROTOCOL_VERSION: "2099-01-01"}))) == -32022
    assert code_of(made.from_host(modern(1, "tools/list", {rpc.CLIENT_CAPABILITIES: None}))) == -32602
    for removed in ("initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"):
        assert code_of(made.from_host(modern(1, removed))) == -32601


def test_a_question_becomes_the_answer_and_the_answer_a_reply() -> None:
    made = Downward(OPENED)
    sent = started(made, meta={"progressToken": "p", "a/b": 1})
    assert sent["params"] == {"name": "t", "_meta": {"progressToken": sent["id"], "a/b": 1}}
    result = only_to_host(made.from_server(ask("q", "roots/list"), sent["id"]))["result"]
    [(key, wanted)] = result["inputRequests"].items()
    assert (result["resultType"], wanted) == ("input_required", {"method": "roots/list", "params": {}})
    progress = {"progressToken": sent["id"], "progress": 1}
    moved = {"jsonrpc": "2.0", "method": "notifications/progress", "params": progress}
    assert made.from_server(moved) == []
    again = modern("y", "tools/call", {"progressToken": "r"}, name="t", requestState=result["requestState"])
    again["params"]["inputResponses"] = {key: {"roots": []}}
    assert only_to_server(made.from_host(again)) == done("q", {"roots": []})
    assert only_to_host(made.from_server(moved))["params"]["progressToken"] == "r"
    assert only_to_host(made.from_server(done(sent["id"], {"content": []})))["id"] == "y"
    assert code_of(made.from_host(again)) == -32602


@pytest.mark.parametrize("change", [{"name": "other"}, {"requestState": "S"}, {"requestState": 5}])
def test_a_state_serves_only_the_call_that_it_was_given_for(change: dict[str, Any]) -> None:
    made = Downward(OPENED)
    sent = started(made)
    result = only_to_host(made.from_server(ask("q", "roots/list"), sent["id"]))["result"]
    params = {"name": "t", "requestState": result["requestState"], "inputResponses": {}} | change
    assert code_of(made.from_host(modern("y", "tools/call", **params))) == -32602


def test_what_comes_while_the_host_is_away_waits_for_it() -> None:
    made = Downward(OPENED)
    sent = started(made)
    result = only_to_host(made.from_server(ask("q", "roots/list"), sent["id"]))["result"]
    assert made.from_server(ask("r", "sampling/createMessage"), sent["id"]) == []
    assert made.from_server(done(sent["id"], {"content": []})) == []
    answered = made.from_host(modern("y", "tools/call", name="t", requestState=result["requestState"]))
    assert only_to_host(answered)["id"] == "y"


def test_a_question_finds_the_call_on_whose_stream_it_came() -> None:
    made = Downward(OPENED)
    first, second = started(made, "a"), started(made, "b")
    assert only_to_host(made.from_server(ask("q", "roots/list"), first["id"]))["id"] == "a"
    assert only_to_host(made.from_server(ask("r", "roots/list"), None))["id"] == "b"
    assert second["id"] != first["id"]


def test_questions_that_nobody_can_answer_are_refused_at_once() -> None:
    made = Downward(OPENED)
    assert "error" in only_to_server(made.from_server(ask("q", "roots/list")))
    assert only_to_server(made.from_server(ask("p", "ping"))) == done("p", {})
    listing = only_to_server(made.from_host(modern(1, "tools/list")))
    assert "error" in only_to_server(made.from_server(ask("q", "roots/list"), listing["id"]))
    sent = started(made, meta={rpc.CLIENT_CAPABILITIES: {}})
    assert "error" in only_to_server(made.from_server(ask("q", "roots/list"), sent["id"]))
    able = started(made, "z")
    made.from_server(ask("q0", "roots/list"), able["id"])
    for number in range(1, LIMITS.mcp_inputs):
        assert made.from_server(ask(f"q{number}", "roots/list"), able["id"]) == []
    assert "error" in only_to_server(made.from_server(ask("more", "roots/list"), able["id"]))


def test_a_host_that_never_comes_back_frees_the_server() -> None:
    now = 0.0
    made = Downward(OPENED, clock=lambda: now)
    sent = started(made)
    made.from_server(ask("q", "roots/list"), sent["id"])
    now = 901.0
    refused, cancelled, _ = made.from_host(modern(9, "server/discover"))
    assert (refused.message["id"], "error" in refused.message) == ("q", True)
    assert cancelled.message["params"]["requestId"] == sent["id"]


def test_a_host_that_leaves_frees_the_server() -> None:
    made = Downward(OPENED)
    sent = started(made)
    made.from_server(ask("q", "roots/list"), sent["id"])
    refused, cancelled = made.closing()
    assert "error" in refused.message
    assert cancelled.message["params"]["requestId"] == sent["id"]


def test_errors_of_the_older_era_get_the_newer_code() -> None:
    made = Downward(OPENED)
    sent = only_to_server(made.from_host(modern(1, "resources/read", uri="a:b")))
    assert code_of(made.from_server(failed(sent["id"], -32002))) == -32602


def test_the_log_level_is_set_before_the_call_and_told_again_to_a_new_session() -> None:
    made = Downward(OPENED)
    level = only_to_server(made.from_host(modern(1, "tools/call", {rpc.LOG_LEVEL: "warning"}, name="t")))
    assert (level["method"], level["params"]) == ("logging/setLevel", {"level": "warning"})
    assert only_to_server(made.from_server(done(level["id"], {})))["method"] == "tools/call"
    assert only_to_server(made.renewed())["params"] == {"level": "warning"}
    for spoken, heard in (("info", 0), ("error", 1)):
        line = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": spoken, "data": "x"}}
        assert len(made.from_server(line)) == heard


def test_only_what_the_server_offers_is_honoured() -> None:
    made = Downward(OPENED | {"capabilities": {"tools": {}, "prompts": {"listChanged": True}}})
    wanted = {"toolsListChanged": True, "promptsListChanged": True, "resourceSubscriptions": ["a:b"]}
    told = only_to_host(made.from_host(modern("L", "subscriptions/listen", notifications=wanted)))
    assert told["params"] == {"notifications": {"promptsListChanged": True}, "_meta": {rpc.SUBSCRIPTION_ID: "L"}}


def test_a_resource_that_the_server_refuses_is_left_out_of_the_acknowledgement() -> None:
    made = Downward(OPENED)
    wanted = {"resourceSubscriptions": ["a:b", "c:d", "a:b"]}
    steps = made.from_host(modern("L", "subscriptions/listen", notifications=wanted))
    first, second = [step.message for step in steps]
    assert made.from_server(failed(first["id"], -32602)) == []
    told = only_to_host(made.from_server(done(second["id"], {})))
    assert told["params"]["notifications"] == {"resourceSubscriptions": ["c:d"]}
    again = made.renewed()
    assert [step.message.get("method") for step in again] == ["resources/subscribe", "notifications/resources/updated"]


def test_the_handshake_is_opened_with_what_the_host_says_of_itself() -> None:
    found = opening(modern(1, "x", {rpc.CLIENT_INFO: {"name": "h", "version": "1"}}), {"name": "us", "version": "0"})
    assert found == {"protocolVersion": "2025-11-25", "capabilities": ALL, "clientInfo": {"name": "h", "version": "1"}}
    assert opening(ask(1, "x"), {"name": "us", "version": "0"})["clientInfo"]["name"] == "us"


# --- which era --------------------------------------------------------------------------------------------------------


def test_answers_that_show_the_era() -> None:
    assert modern_version({"supportedVersions": ["2025-11-25", MODERN]}) == MODERN
    assert modern_version({"supportedVersions": MODERN}) is None
    assert not refuses_modern("tools/call", done(1, {}))
    assert not refuses_modern("server/discover", done(1, DISCOVERED))
    assert refuses_modern("server/discover", done(1, {"supportedVersions": ["2025-11-25"]}))
    assert not refuses_modern("tools/call", failed(1, -32020))
    offered = failed(1, -32022)
    offered["error"]["data"] = {"supported": [MODERN]}
    assert not refuses_modern("tools/call", offered)


# --- whatever comes ---------------------------------------------------------------------------------------------------

SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 12) | st.sampled_from(["", "x", "input-3", "task", MODERN, "info"])
)
KEYS = st.sampled_from(
    ["_meta", "requestState", "inputResponses", "inputRequests", "resultType", "notifications", "tools", "uri", "level",
     "requestId", "progressToken", "capabilities", "resourceSubscriptions", "method", "code", "outputSchema", "content",
     "structuredContent", rpc.PROTOCOL_VERSION, rpc.CLIENT_CAPABILITIES, rpc.SUBSCRIPTION_ID, rpc.LOG_LEVEL]
)  # fmt: skip
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4))
METHODS = st.sampled_from(
    ["initialize", "ping", "tools/call", "tools/list", "resources/read", "resources/subscribe", "resources/unsubscribe",
     "logging/setLevel", "server/discover", "subscriptions/listen", "sampling/createMessage", "roots/list",
     "notifications/cancelled", "notifications/initialized", "notifications/progress", "notifications/message",
     "notifications/resources/updated", "notifications/tools/list_changed", "notifications/subscriptions/acknowledged"]
)  # fmt: skip
IDS = st.integers(0, 12) | st.sampled_from(["x", "1"])
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=5)
ENVELOPES = OBJECTS.map(
    lambda found: found | {"_meta": {rpc.PROTOCOL_VERSION: MODERN, rpc.CLIENT_CAPABILITIES: ALL, "progressToken": 1}}
)
MESSAGES = st.one_of(
    st.builds(lambda i, m, p: {"jsonrpc": "2.0", "id": i, "method": m, "params": p}, IDS, METHODS, OBJECTS | ENVELOPES),
    st.builds(lambda m, p: {"jsonrpc": "2.0", "method": m, "params": p}, METHODS, VALUES.filter(
        lambda value: isinstance(value, (dict, list)))),
    st.builds(lambda i, r: {"jsonrpc": "2.0", "id": i, "result": r}, IDS | st.none(), OBJECTS | VALUES),
    st.builds(lambda i, r: {"jsonrpc": "2.0", "id": i, "error": r}, IDS | st.none(), OBJECTS | VALUES),
)  # fmt: skip


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), MESSAGES), max_size=12))
def test_no_message_of_either_side_breaks_a_translator(turns: list[tuple[bool, Any]]) -> None:
    for made in (upward(), Downward(OPENED), Upward({}, MODERN), Downward({})):
        for of_host, message in turns:
            steps = made.from_host(message) if of_host else made.from_server(message)
            for step in steps:
                assert rpc.fault(step.message) is None
                rpc.dump(step.message)
        made.renewed()
        made.closing()
