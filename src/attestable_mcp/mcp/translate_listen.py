"""The one `subscriptions/listen` stream that serves a host of the handshake era: list changes and resource updates.

A change of what is wanted opens a new stream, and the old one is closed once the new one is acknowledged: nothing
is missed in between. A stream that was lost is opened again, and the host is told to look at everything anew.
Source: MCP 2026-07-28, server/utilities/subscriptions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import rpc
from attestable_mcp.mcp.translate import LIST_CHANGED, UPDATED, Steps, answer, notice, refusal, request, table

_METHOD = "subscriptions/listen"
_ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
_TRIES = 8
_LASTING_ERRORS = frozenset({rpc.METHOD_NOT_FOUND, -32602, rpc.INVALID_REQUEST})


class Listener:
    """What the host wants to hear of, and the stream that tells it."""

    def __init__(
        self, capabilities: rpc.Message, ids: Iterator[int], steps: Steps, envelope: Callable[[], rpc.Message]
    ) -> None:
        self._kinds = [name for name in LIST_CHANGED if table(capabilities.get(name)).get("listChanged")]
        self._ids = ids
        self._steps = steps
        self._envelope = envelope
        self._uris: dict[str, None] = {}
        self._waiting: dict[rpc.Id, str] = {}
        self._current: int | None = None
        self._replaced: list[int] = []
        self._failures = 0
        self._lost = False

    def open(self) -> None:
        """The host is ready: listen, if there is anything to listen to."""
        self._listen()

    def subscribe(self, request_id: rpc.Id, uri: str) -> None:
        """The host wants to hear of this resource; it is answered once the server has agreed."""
        if uri not in self._uris and len(self._uris) >= LIMITS.mcp_waiting:
            text = f"wanted at most {LIMITS.mcp_waiting} subscriptions"
            self._steps.to_host(refusal(request_id, rpc.INVALID_REQUEST, text))
            return
        self._uris[uri] = None
        self._waiting[request_id] = uri
        self._listen()

    def unsubscribe(self, uri: object) -> None:
        """The host wants to hear of this resource no longer."""
        if isinstance(uri, str) and uri in self._uris:
            del self._uris[uri]
            self._listen()

    def notified(self, message: rpc.Message) -> bool:
        """Take a notification if it is of a subscription stream."""
        method, params = message["method"], rpc.params(message)
        if method == _ACKNOWLEDGED:
            self._acknowledged(rpc.meta(message).get(rpc.SUBSCRIPTION_ID), table(params.get("notifications")))
        elif method == "notifications/cancelled":
            self._over(params.get("requestId"), None)
        elif method == UPDATED and not self._uris:
            pass  # a stream that is being replaced; else the uri may be below one that was asked for
        elif rpc.SUBSCRIPTION_ID in rpc.meta(message):
            rest = {key: value for key, value in rpc.meta(message).items() if key != rpc.SUBSCRIPTION_ID}
            bare = {key: value for key, value in params.items() if key != "_meta"}
            self._steps.to_host(notice(method, bare | ({"_meta": rest} if rest else {})))
        else:
            return False
        return True

    def ended(self, message: rpc.Message) -> None:
        """An answer that is for none of the host's requests: a stream has ended."""
        self._over(message.get("id"), table(message.get("error")).get("code"))

    def _listen(self, after: float = 0.0) -> None:
        if self._current is not None:
            self._replaced.append(self._current)
        wanted: rpc.Message = {LIST_CHANGED[name][0]: True for name in self._kinds}
        wanted |= {"resourceSubscriptions": list(self._uris)} if self._uris else {}
        if not wanted:
            self._current = None
            self._close_replaced()
            return
        self._current = next(self._ids)
        # No log level: log lines belong to requests, and a stream that never ends would gather them all.
        envelope = {key: value for key, value in self._envelope().items() if key != rpc.LOG_LEVEL}
        self._steps.to_server(request(self._current, _METHOD, {"notifications": wanted, "_meta": envelope}), after)

    def _acknowledged(self, key: object, honoured: rpc.Message) -> None:
        if key != self._current:
            return
        self._failures = 0
        self._close_replaced()
        agreed = honoured.get("resourceSubscriptions")
        for request_id, uri in self._waiting.items():
            if isinstance(agreed, list) and uri in agreed:
                self._steps.to_host(answer(request_id, {}))
            else:
                self._uris.pop(uri, None)
                text = "the server does not take a subscription to this resource"
                self._steps.to_host(refusal(request_id, -32602, text))
        self._waiting.clear()
        if self._lost:
            self._lost = False
            self._tell_all()

    def _tell_all(self) -> None:
        """Nothing is replayed after a stream was lost: what was listed or read before may have changed."""
        for name in self._kinds:
            self._steps.to_host(notice(LIST_CHANGED[name][1]))
        for uri in self._uris:
            self._steps.to_host(notice(UPDATED, {"uri": uri}))

    def _close_replaced(self) -> None:
        version = self._envelope()[rpc.PROTOCOL_VERSION]
        for key in self._replaced:
            params = {"requestId": key, "_meta": {rpc.PROTOCOL_VERSION: version}}
            self._steps.to_server(notice("notifications/cancelled", params))
        self._replaced.clear()

    def _over(self, key: object, code: object) -> None:
        self._replaced = [old for old in self._replaced if old != key]
        if key != self._current or key is None:
            return
        self._current = self._replaced.pop() if self._replaced else None
        for request_id, uri in self._waiting.items():
            self._uris.pop(uri, None)
            self._steps.to_host(refusal(request_id, rpc.SERVER_ENDED, "the server ended the subscription"))
        self._waiting.clear()
        self._failures += 1
        if self._current is None and code not in _LASTING_ERRORS and self._failures <= _TRIES:
            self._lost = True
            self._listen(after=min(30.0, 0.5 * 2.0 ** (self._failures - 1)))
