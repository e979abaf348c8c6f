"""A host of the handshake era before a server of the stateless era.

The handshake is answered from what `server/discover` said. Each request carries the host's capabilities and log level
in its `_meta`; an answer that asks for input becomes requests to the host, and the call is repeated with what the host
says. Subscriptions and list changes come over one `subscriptions/listen` stream of ours.
Source: MCP 2026-07-28, basic/versioning, basic/utilities/mrtr, server/utilities/subscriptions; 2025-11-25, lifecycle.
"""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import rpc
from attestable_mcp.mcp.translate import (
    ASKING_METHODS,
    HANDSHAKE_VERSIONS,
    LEVELS,
    NEWEST_HANDSHAKE,
    Step,
    Steps,
    answer,
    notice,
    refusal,
    request,
    table,
)
from attestable_mcp.mcp.translate_listen import Listener

_ROUNDS = 32
"""How often one call may ask for input before it is given up."""
_INVALID_PARAMS = -32602
_DEFAULT_LEVEL = "info"
"""Before `logging/setLevel` a server of the handshake era chooses; the stateless era would say nothing at all."""
_MODERN_FIELDS = ("resultType", "ttlMs", "cacheScope")
_SERVER_INFO = "io.modelcontextprotocol/serverInfo"


@dataclass(slots=True, kw_only=True)
class _Call:
    """A request of the host's, over all its rounds."""

    id: rpc.Id
    method: str
    params: rpc.Message
    key: int = 0
    rounds: int = 0
    idle: int = 0
    state: object = None
    asked: dict[int, str] = field(default_factory=dict)
    answers: rpc.Message = field(default_factory=dict)


class Upward:
    """The translator. `discovered` is the server's `server/discover` result, `version` the revision to speak to it."""

    def __init__(self, discovered: rpc.Message, version: str) -> None:
        self._discovered = discovered
        self._version = version
        self._capabilities = table(discovered.get("capabilities"))
        self._host_capabilities: rpc.Message = {}
        self._host_info: object = None
        self._level: str | None = _DEFAULT_LEVEL if "logging" in self._capabilities else None
        self._ids = itertools.count(1)
        self._calls: dict[int, _Call] = {}
        self._asked: dict[int, _Call] = {}
        self._steps = Steps()
        self._listener = Listener(self._capabilities, self._ids, self._steps, self._envelope)
        self._own: dict[str, Callable[[_Call], None]] = {
            "initialize": self._initialize,
            "ping": self._ping,
            "logging/setLevel": self._set_level,
            "resources/subscribe": self._subscribe,
            "resources/unsubscribe": self._unsubscribe,
        }

    def from_host(self, message: rpc.Message) -> Sequence[Step]:
        """The host has sent this message."""
        if rpc.is_request(message):
            call = _Call(id=message["id"], method=message["method"], params=rpc.params(message))
            self._own.get(call.method, self._forward)(call)
        elif rpc.is_response(message):
            self._answered(message)
        elif message["method"] == "notifications/initialized":
            self._listener.open()
        elif message["method"] == "notifications/cancelled":
            self._cancel(rpc.params(message))
        # What else a host of that era notifies of (roots changed, progress of its own) has no taker in this one.
        return self._steps.take()

    def from_server(self, message: rpc.Message, related: rpc.Id | None = None) -> Sequence[Step]:
        """The server has sent this message."""
        if rpc.is_response(message):
            self._result(message)
        elif "id" in message:
            text = "this protocol revision has no requests from the server"
            self._steps.to_server(refusal(message["id"], rpc.METHOD_NOT_FOUND, text))
        elif not self._listener.notified(message):
            self._steps.to_host(message)
        return self._steps.take()

    def renewed(self) -> Sequence[Step]:
        """This era has no sessions to lose."""
        return ()

    def closing(self) -> Sequence[Step]:
        """The host has closed its side: what it was asked will not be answered, and the server holds nothing of it."""
        for call in {id(call): call for call in self._asked.values()}.values():
            self._refuse(call, rpc.SERVER_ENDED, "the host closed its side before it answered what it was asked")
        self._asked.clear()
        return self._steps.take()

    # --- requests of the host --------------------------------------------------------------------------------------

    def _initialize(self, call: _Call) -> None:
        self._host_capabilities = {k: v for k, v in table(call.params.get("capabilities")).items() if k != "tasks"}
        self._host_info = call.params.get("clientInfo")
        wanted = call.params.get("protocolVersion")
        info = rpc.result_meta(self._discovered).get(_SERVER_INFO)
        result: rpc.Message = {
            "protocolVersion": wanted if wanted in HANDSHAKE_VERSIONS else NEWEST_HANDSHAKE,
            "capabilities": self._capabilities,
            "serverInfo": info if isinstance(info, dict) else {"name": "unnamed", "version": "unknown"},
        }
        if isinstance(self._discovered.get("instructions"), str):
            result["instructions"] = self._discovered["instructions"]
        self._steps.to_host(answer(call.id, result))

    def _ping(self, call: _Call) -> None:
        """The other era has none; whether the server is there is what a ping asks."""
        call.params = {}
        self._send(call, "server/discover")

    def _set_level(self, call: _Call) -> None:
        level = call.params.get("level")
        if "logging" not in self._capabilities:
            self._refuse(call, rpc.METHOD_NOT_FOUND, "the server offers no logging")
        elif level not in LEVELS:
            self._refuse(call, _INVALID_PARAMS, f"wanted a log level, one of {', '.join(LEVELS)}")
        else:
            self._level = level
            self._steps.to_host(answer(call.id, {}))

    def _subscribe(self, call: _Call) -> None:
        uri = call.params.get("uri")
        if not table(self._capabilities.get("resources")).get("subscribe"):
            self._refuse(call, rpc.METHOD_NOT_FOUND, "the server offers no subscriptions to resources")
        elif not isinstance(uri, str):
            self._refuse(call, _INVALID_PARAMS, "wanted a uri")
        else:
            self._listener.subscribe(call.id, uri)

    def _unsubscribe(self, call: _Call) -> None:
        self._listener.unsubscribe(call.params.get("uri"))
        self._steps.to_host(answer(call.id, {}))

    def _forward(self, call: _Call) -> None:
        if "task" in call.params or call.method.startswith("tasks/"):
            text = "tasks of revision 2025-11-25 cannot be translated: the server speaks a later revision"
            self._refuse(call, rpc.METHOD_NOT_FOUND, text)
        else:
            self._send(call, call.method)

    def _send(self, call: _Call, method: str, after: float = 0.0) -> None:
        call.key = next(self._ids)
        self._calls[call.key] = call
        params = call.params | {"_meta": table(call.params.get("_meta")) | self._envelope()}
        if call.rounds:
            params |= {"inputResponses": call.answers} if call.answers else {}
            params |= {"requestState": call.state} if call.state is not None else {}
        self._steps.to_server(request(call.key, method, params), after)

    def _envelope(self) -> rpc.Message:
        found: rpc.Message = {rpc.PROTOCOL_VERSION: self._version, rpc.CLIENT_CAPABILITIES: self._host_capabilities}
        if isinstance(self._host_info, dict):
            found[rpc.CLIENT_INFO] = self._host_info
        if self._level is not None:
            found[rpc.LOG_LEVEL] = self._level
        return found

    def _cancel(self, params: rpc.Message) -> None:
        for call in {id(call): call for call in (*self._calls.values(), *self._asked.values())}.values():
            if call.id == params.get("requestId"):
                if self._calls.pop(call.key, None) is not None:
                    self._steps.to_server(notice("notifications/cancelled", self._cancellation(call.key)))
                self._withdraw(call)
                return

    def _cancellation(self, key: int) -> rpc.Message:
        return {"requestId": key, "_meta": {rpc.PROTOCOL_VERSION: self._version}}

    def _refuse(self, call: _Call, code: int, text: str) -> None:
        self._steps.to_host(refusal(call.id, code, text))

    # --- answers of the server -------------------------------------------------------------------------------------

    def _result(self, message: rpc.Message) -> None:
        key = message.get("id")
        call = self._calls.pop(key, None) if isinstance(key, int) else None
        if call is None:
            self._listener.ended(message)
        elif "result" not in message:
            self._steps.to_host(message | {"id": call.id})
        elif call.method == "ping":
            self._steps.to_host(answer(call.id, {}))
        else:
            self._judge(call, table(message["result"]))

    def _judge(self, call: _Call, result: rpc.Message) -> None:
        kind = result.get("resultType", "complete")
        if kind == "complete":
            self._steps.to_host(answer(call.id, _for_handshake_era(call.method, result)))
        elif kind == "input_required":
            self._ask(call, table(result.get("inputRequests")), result.get("requestState"))
        else:
            text = f"the server answered with a result of type {kind!r:.40}, which this host's revision cannot hold"
            self._refuse(call, rpc.SERVER_ENDED, text)

    # --- input that the server asks for ----------------------------------------------------------------------------

    def _ask(self, call: _Call, wanted: rpc.Message, state: object) -> None:
        call.rounds, call.state, call.answers = call.rounds + 1, state, {}
        problem = self._input_problem(call, wanted)
        if problem is not None:
            self._refuse(call, rpc.SERVER_ENDED, problem)
        elif not wanted:
            call.idle += 1
            self._send(call, call.method, after=min(0.25, 0.05 * 2.0 ** (call.idle - 1)))
        for key, asked in wanted.items() if problem is None else ():
            number = next(self._ids)
            self._asked[number], call.asked[number] = call, key
            self._steps.to_host(request(number, asked["method"], _for_handshake_host(table(asked.get("params")))))

    def _input_problem(self, call: _Call, wanted: rpc.Message) -> str | None:
        if call.rounds > _ROUNDS:
            return f"the server asked for input more than {_ROUNDS} times"
        if len(wanted) > LIMITS.mcp_inputs:
            return f"the server asks for more than {LIMITS.mcp_inputs} inputs at a time"
        for asked in wanted.values():
            method = table(asked).get("method")
            capability = ASKING_METHODS.get(method) if isinstance(method, str) else None
            if capability is None:
                return f"the server asks for input by {method!r:.60}, which this host's revision does not have"
            if capability not in self._host_capabilities:
                return f"the server asks for input by {method}, which the host has not declared"
        return None

    def _answered(self, message: rpc.Message) -> None:
        """The host has answered what it was asked: repeat the call once all answers are there."""
        number = message.get("id")
        call = self._asked.pop(number, None) if isinstance(number, int) else None
        if call is None or not isinstance(number, int):
            return
        key = call.asked.pop(number)
        if "error" in message:
            self._withdraw(call)
            self._steps.to_host({"jsonrpc": "2.0", "id": call.id, "error": message["error"]})
            return
        call.answers[key] = message["result"]
        if not call.asked:
            self._send(call, call.method)

    def _withdraw(self, call: _Call) -> None:
        """The host need not answer what it was asked for this call."""
        for number in call.asked:
            self._asked.pop(number, None)
            self._steps.to_host(notice("notifications/cancelled", {"requestId": number}))
        call.asked.clear()


def _for_handshake_host(params: rpc.Message) -> rpc.Message:
    """Parameters of a request to the host; a URL elicitation had an id of its own in the handshake era."""
    if params.get("mode") == "url" and "elicitationId" not in params:
        return params | {"elicitationId": secrets.token_urlsafe(12)}
    return params


def _for_handshake_era(method: str, result: rpc.Message) -> rpc.Message:
    """A result without what that era does not know, and with objects where it insists on them."""
    found = {key: value for key, value in result.items() if key not in _MODERN_FIELDS}
    if method == "tools/list" and isinstance(found.get("tools"), list):
        found["tools"] = [_object_output(tool) for tool in found["tools"]]
    if method == "tools/call" and not isinstance(found.get("structuredContent", {}), dict):
        value = found.pop("structuredContent")
        if not found.get("content"):
            found["content"] = [{"type": "text", "text": json.dumps(value, ensure_ascii=False)}]
    return found


def _object_output(tool: object) -> object:
    """A tool whose output is no object is told without its output schema: that era's hosts refuse the whole list."""
    schema = table(tool).get("outputSchema")
    if schema is None or table(schema).get("type") == "object":
        return tool
    return {key: value for key, value in table(tool).items() if key != "outputSchema"}
