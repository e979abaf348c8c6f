"""A host of the stateless era before a server of the handshake era.

One session of ours serves the one host. What the server asks while a call runs becomes the call's answer, "input
required"; the call goes on when the host repeats it with the input. Subscriptions are ours to tell apart, and the
session's log level follows what requests ask for.
Source: MCP 2026-07-28, basic/versioning, basic/utilities/mrtr, server/utilities/subscriptions; 2025-11-25, lifecycle.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import rpc
from attestable_mcp.mcp.translate import (
    ASKING_METHODS,
    HANDSHAKE_VERSIONS,
    LEVELS,
    LIST_CHANGED,
    MODERN_VERSIONS,
    NEWEST_HANDSHAKE,
    REMOVED,
    RESUMABLE,
    UPDATED,
    Step,
    Steps,
    answer,
    notice,
    refusal,
    request,
    table,
)
from attestable_mcp.mcp.translate_subscriptions import Subscriptions

_HELD_SECONDS = 900.0
"""How long a call waits for the host to bring the input that it was asked for."""
_HELD = 256
_INVALID_PARAMS = -32602
_UNSUPPORTED_VERSION = -32022
_CAPABILITY_MISSING = -32021
_NOT_FOUND_BEFORE = -32002
"""A resource that is not there, in the handshake era; the stateless era says "invalid params"."""
_CACHEABLE = frozenset(
    {"tools/list", "prompts/list", "resources/list", "resources/templates/list", "resources/read", "server/discover"}
)
_ENVELOPE = frozenset({rpc.PROTOCOL_VERSION, rpc.CLIENT_CAPABILITIES, rpc.CLIENT_INFO, rpc.LOG_LEVEL})
_SERVER_INFO = "io.modelcontextprotocol/serverInfo"


def opening(message: rpc.Message, fallback: rpc.Message) -> rpc.Message:
    """The parameters of `initialize` for a host that has sent this; `fallback` describes a client without a name."""
    found = rpc.meta(message)
    declared = table(found.get(rpc.CLIENT_CAPABILITIES))
    capabilities = {key: value for key, value in declared.items() if key != "extensions"}
    info = found.get(rpc.CLIENT_INFO)
    return {
        "protocolVersion": NEWEST_HANDSHAKE,
        "capabilities": capabilities,
        "clientInfo": info if isinstance(info, dict) else fallback,
    }


@dataclass(slots=True, kw_only=True)
class _Call:
    """A request at the server. `host_id` is None while the host owes us input."""

    key: int
    method: str
    name: object
    host_id: rpc.Id | None
    token: rpc.Id | None
    capabilities: rpc.Message
    level: int | None
    asks: dict[str, rpc.Message] = field(default_factory=dict)
    outcome: rpc.Message | None = None
    state: str = ""
    since: float = 0.0


class Downward:
    """The translator. `opened` is the server's `initialize` result; `clock` gives seconds."""

    def __init__(self, opened: rpc.Message, clock: Callable[[], float] = time.monotonic) -> None:
        self._opened = opened
        self._clock = clock
        self._capabilities = {k: v for k, v in table(opened.get("capabilities")).items() if k != "tasks"}
        self._ids = itertools.count(1)
        self._calls: dict[int, _Call] = {}
        self._held: dict[str, _Call] = {}
        self._after: dict[int, list[rpc.Message]] = {}
        self._level: int | None = None
        self._steps = Steps()
        self._subscriptions = Subscriptions(self._capabilities, self._ids, self._steps)

    def from_host(self, message: rpc.Message) -> Sequence[Step]:
        """The host has sent this message."""
        self._expire()
        if rpc.is_request(message):
            problem = self._envelope_problem(message)
            if problem is not None:
                self._steps.to_host(problem)
            else:
                self._request(message)
        elif message.get("method") == "notifications/cancelled":
            self._cancel(rpc.params(message).get("requestId"))
        return self._steps.take()

    def from_server(self, message: rpc.Message, related: rpc.Id | None = None) -> Sequence[Step]:
        """The server has sent this message; `related` is our id of the request on whose stream it came."""
        if rpc.is_response(message):
            self._response(message)
        elif "id" in message:
            self._asked(message, related)
        else:
            self._notified(message)
        return self._steps.take()

    def renewed(self) -> Sequence[Step]:
        """The server had forgotten the session: tell it again what the session had been told."""
        level, self._level = self._level, None
        if level is not None:
            self._set_level(level)
        self._subscriptions.renew()
        return self._steps.take()

    def closing(self) -> Sequence[Step]:
        """The host has closed its side: it will bring no more input."""
        for call in list(self._held.values()):
            self._drop(call, "the host has closed its side")
        return self._steps.take()

    # --- requests of the host --------------------------------------------------------------------------------------

    def _envelope_problem(self, message: rpc.Message) -> rpc.Message | None:
        found = rpc.meta(message)
        version = found.get(rpc.PROTOCOL_VERSION)
        if not isinstance(version, str) or not isinstance(found.get(rpc.CLIENT_CAPABILITIES), dict):
            text = f"wanted {rpc.PROTOCOL_VERSION} and {rpc.CLIENT_CAPABILITIES} in _meta"
            return refusal(message["id"], _INVALID_PARAMS, text)
        if version not in MODERN_VERSIONS:
            data = {"supported": list(MODERN_VERSIONS), "requested": version}
            return refusal(message["id"], _UNSUPPORTED_VERSION, "Unsupported protocol version", data)
        return None

    def _request(self, message: rpc.Message) -> None:
        method, params = message["method"], rpc.params(message)
        if method in REMOVED:
            text = f"{method}: not a method of this protocol revision"
            self._steps.to_host(refusal(message["id"], rpc.METHOD_NOT_FOUND, text))
        elif method == "server/discover":
            self._steps.to_host(answer(message["id"], self._for_modern_era(method, self._discovered())))
        elif method == "subscriptions/listen":
            self._subscriptions.open(message["id"], table(params.get("notifications")))
        elif "requestState" in params or "inputResponses" in params:
            self._resume(message, params)
        else:
            self._forward(message, params)

    def _discovered(self) -> rpc.Message:
        version = self._opened.get("protocolVersion")
        versions = [*([version] if version in HANDSHAKE_VERSIONS else []), *MODERN_VERSIONS]
        found: rpc.Message = {"supportedVersions": versions, "capabilities": self._capabilities}
        if isinstance(self._opened.get("instructions"), str):
            found["instructions"] = self._opened["instructions"]
        return found

    def _forward(self, message: rpc.Message, params: rpc.Message) -> None:
        call = self._new_call(message, params)
        self._calls[call.key] = call
        meta = {key: value for key, value in rpc.meta(message).items() if key not in _ENVELOPE}
        meta |= {"progressToken": call.key} if call.token is not None else {}
        rest = {key: value for key, value in params.items() if key != "_meta"} | ({"_meta": meta} if meta else {})
        onward = request(call.key, call.method, rest)
        waiting = self._set_level(call.level) if call.level is not None else None
        if waiting is None:
            self._steps.to_server(onward)
        else:
            self._after[waiting].append(onward)

    def _new_call(self, message: rpc.Message, params: rpc.Message) -> _Call:
        found = rpc.meta(message)
        token, level = found.get("progressToken"), found.get(rpc.LOG_LEVEL)
        return _Call(
            key=next(self._ids),
            method=message["method"],
            name=params.get("name", params.get("uri")),
            host_id=message["id"],
            token=token if rpc.is_id(token) else None,
            capabilities=table(found.get(rpc.CLIENT_CAPABILITIES)),
            level=LEVELS.index(level) if level in LEVELS else None,
        )

    def _set_level(self, level: int) -> int | None:
        """Make the session at least that talkative. The id of our request, where one was needed."""
        if "logging" not in self._capabilities or (self._level is not None and self._level <= level):
            return None
        self._level = level
        key = next(self._ids)
        self._after[key] = []
        self._steps.to_server(request(key, "logging/setLevel", {"level": LEVELS[level]}))
        return key

    def _cancel(self, request_id: object) -> None:
        if self._subscriptions.close(request_id):
            return
        for call in list(self._calls.values()):
            if call.host_id is not None and call.host_id == request_id:
                self._drop(call, "the host has cancelled the request")

    def _drop(self, call: _Call, reason: str) -> None:
        """Nobody waits for this call any more: the server need not go on."""
        self._calls.pop(call.key, None)
        self._held.pop(call.state, None)
        for asked in call.asks.values():
            self._steps.to_server(refusal(asked["id"], rpc.SERVER_ENDED, reason))
        if call.outcome is None:
            self._steps.to_server(notice("notifications/cancelled", {"requestId": call.key, "reason": reason}))

    def _expire(self) -> None:
        limit = self._clock() - _HELD_SECONDS
        held = list(self._held.values())
        for number, call in enumerate(held):
            if call.since < limit or number < len(held) - _HELD:
                self._drop(call, "the host has not brought the input that it was asked for")

    # --- input that the server asks for ----------------------------------------------------------------------------

    def _asked(self, message: rpc.Message, related: rpc.Id | None) -> None:
        method, capability = message["method"], ASKING_METHODS.get(message["method"])
        if method == "ping":
            self._steps.to_server(answer(message["id"], {}))
            return
        call = self._asker(related)
        if capability is None or (call is not None and capability not in call.capabilities):
            text = f"the host does not offer {method}"
            self._steps.to_server(refusal(message["id"], rpc.METHOD_NOT_FOUND, text))
        elif call is None:
            text = f"{method}: a host of this revision can be asked only while a call of its own runs that allows it"
            self._steps.to_server(refusal(message["id"], rpc.METHOD_NOT_FOUND, text))
        elif len(call.asks) >= LIMITS.mcp_inputs:
            text = f"wanted at most {LIMITS.mcp_inputs} questions for one call at a time"
            self._steps.to_server(refusal(message["id"], rpc.INVALID_REQUEST, text))
        else:
            call.asks[f"input-{next(self._ids)}"] = message
            self._advance(call)

    def _asker(self, related: rpc.Id | None) -> _Call | None:
        """The call that a question belongs to: the one on whose stream it came, else the newest that may ask."""
        if isinstance(related, int) and related in self._calls:
            call = self._calls[related]
            return call if call.method in RESUMABLE else None
        able = [call for call in self._calls.values() if call.method in RESUMABLE and call.outcome is None]
        return able[-1] if able else None

    def _advance(self, call: _Call) -> None:
        """Answer the host's present request, with the outcome or with what the server asks for."""
        if call.host_id is None:
            return
        if call.outcome is not None:
            self._calls.pop(call.key, None)
            self._steps.to_host(call.outcome | {"id": call.host_id})
        elif call.asks:
            call.state, call.since = secrets.token_urlsafe(18), self._clock()
            self._held[call.state] = call
            wanted = {key: {"method": asked["method"], "params": rpc.params(asked)} for key, asked in call.asks.items()}
            result = {"resultType": "input_required", "inputRequests": wanted, "requestState": call.state}
            self._steps.to_host(answer(call.host_id, self._signed(result)))
            call.host_id = None

    def _resume(self, message: rpc.Message, params: rpc.Message) -> None:
        state = params.get("requestState")
        call = self._held.get(state) if isinstance(state, str) else None
        fresh = self._new_call(message, params)
        if call is None or (call.method, call.name) != (fresh.method, fresh.name):
            text = "requestState: unknown, used before or expired; make the call anew"
            self._steps.to_host(refusal(message["id"], _INVALID_PARAMS, text))
            return
        del self._held[call.state]
        call.host_id, call.token, call.capabilities, call.level = (
            fresh.host_id, fresh.token, fresh.capabilities, fresh.level,
        )  # fmt: skip
        given = table(params.get("inputResponses"))
        for key in [key for key in call.asks if key in given]:
            self._steps.to_server(answer(call.asks.pop(key)["id"], given[key]))
        self._advance(call)

    # --- answers and notifications of the server -------------------------------------------------------------------

    def _response(self, message: rpc.Message) -> None:
        key = message.get("id")
        if not isinstance(key, int) or self._subscriptions.answered(key, message):
            return
        if key in self._after:
            for onward in self._after.pop(key):
                if onward["id"] in self._calls:
                    self._steps.to_server(onward)
            return
        call = self._calls.get(key)
        if call is not None:
            call.outcome = self._outcome(call, message)
            call.asks.clear()
            self._advance(call)

    def _outcome(self, call: _Call, message: rpc.Message) -> rpc.Message:
        if "result" in message:
            return message | {"result": self._for_modern_era(call.method, table(message["result"]))}
        error = table(message.get("error"))
        if error.get("code") == _NOT_FOUND_BEFORE:
            error = error | {"code": _INVALID_PARAMS}
        return message | {"error": error}

    def _for_modern_era(self, method: str, result: rpc.Message) -> rpc.Message:
        found: rpc.Message = {"resultType": "complete"} | result
        if method in _CACHEABLE:
            found = {"ttlMs": 0, "cacheScope": "private"} | found
        return self._signed(found)

    def _signed(self, result: rpc.Message) -> rpc.Message:
        """A result that says which server gave it, as that era's results should."""
        info = self._opened.get("serverInfo")
        return result | {"_meta": {_SERVER_INFO: info} | rpc.result_meta(result)} if isinstance(info, dict) else result

    def _notified(self, message: rpc.Message) -> None:
        method, params = message["method"], rpc.params(message)
        if method == "notifications/progress":
            self._progress(message, params)
        elif method == "notifications/message":
            self._logged(message, params)
        elif method == "notifications/cancelled":
            self._withdrawn(params.get("requestId"))
        elif method == UPDATED or any(method == named for _, named in LIST_CHANGED.values()):
            self._subscriptions.changed(method, params)
        elif method != "notifications/elicitation/complete":  # the stateless era has none: hosts ask again
            self._steps.to_host(message)

    def _progress(self, message: rpc.Message, params: rpc.Message) -> None:
        key = params.get("progressToken")
        call = self._calls.get(int(key)) if isinstance(key, int) or (isinstance(key, str) and key.isdecimal()) else None
        if call is not None and call.host_id is not None and call.token is not None:
            self._steps.to_host(message | {"params": params | {"progressToken": call.token}})

    def _logged(self, message: rpc.Message, params: rpc.Message) -> None:
        """Log lines go to a host that asked for them with a request that still runs."""
        level = LEVELS.index(params["level"]) if params.get("level") in LEVELS else len(LEVELS)
        wanted = [call.level for call in self._calls.values() if call.host_id is not None and call.level is not None]
        if wanted and level >= min(wanted):
            self._steps.to_host(message)

    def _withdrawn(self, request_id: object) -> None:
        """The server no longer wants an answer to what it asked; the host's input for it will be dropped."""
        for call in self._calls.values():
            for key in [key for key, asked in call.asks.items() if asked["id"] == request_id]:
                del call.asks[key]
