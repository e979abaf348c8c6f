"""The `subscriptions/listen` streams of a host of the stateless era, before a server of the handshake era.

List changes are told to every stream that asked for them; a resource is subscribed to at the server while any stream
wants it. Source: MCP 2026-07-28, server/utilities/subscriptions; MCP 2025-11-25, server/resources.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import rpc
from attestable_mcp.mcp.translate import LIST_CHANGED, UPDATED, Steps, notice, refusal, request, table

_ACKNOWLEDGED = "notifications/subscriptions/acknowledged"


@dataclass(slots=True, kw_only=True)
class _Stream:
    """One listen request: what it will be told, and the resources that the server has not yet agreed to."""

    id: rpc.Id
    kinds: dict[str, bool]
    uris: list[str]
    open_questions: set[int] = field(default_factory=set)


class Subscriptions:
    """All listen streams of one host."""

    def __init__(self, capabilities: rpc.Message, ids: Iterator[int], steps: Steps) -> None:
        self._capabilities = capabilities
        self._ids = ids
        self._steps = steps
        self._streams: dict[rpc.Id, _Stream] = {}
        self._questions: dict[int, tuple[_Stream | None, str]] = {}

    def open(self, request_id: rpc.Id, wanted: rpc.Message) -> None:
        """A listen request: acknowledged once the server has said which resources it tells of."""
        uris = wanted.get("resourceSubscriptions")
        able = bool(table(self._capabilities.get("resources")).get("subscribe")) and isinstance(uris, list)
        stream = _Stream(
            id=request_id,
            kinds={
                kind: True
                for name, (kind, _) in LIST_CHANGED.items()
                if wanted.get(kind) is True and table(self._capabilities.get(name)).get("listChanged")
            },
            uris=list(dict.fromkeys(uri for uri in uris or () if isinstance(uri, str))) if able else [],
        )
        if len(self._wanted()) + len(stream.uris) > LIMITS.mcp_waiting or len(self._streams) >= LIMITS.mcp_waiting:
            text = f"wanted at most {LIMITS.mcp_waiting} subscriptions"
            self._steps.to_host(refusal(request_id, rpc.INVALID_REQUEST, text))
            return
        known = self._wanted()
        self._streams[request_id] = stream
        for uri in stream.uris:
            if uri not in known:
                stream.open_questions.add(self._ask("resources/subscribe", uri, stream))
        self._acknowledge(stream)

    def close(self, request_id: object) -> bool:
        """The host ends a stream. False: it is none of ours."""
        stream = self._streams.pop(request_id, None) if rpc.is_id(request_id) else None
        if stream is None:
            return False
        still = self._wanted()
        for uri in stream.uris:
            if uri not in still:
                self._ask("resources/unsubscribe", uri, None)
        return True

    def answered(self, key: int, message: rpc.Message) -> bool:
        """An answer to a question of ours. False: it is none."""
        if key not in self._questions:
            return False
        stream, uri = self._questions.pop(key)
        if stream is not None:
            stream.open_questions.discard(key)
            if "error" in message:
                stream.uris.remove(uri)
            if stream.id in self._streams:
                self._acknowledge(stream)
        return True

    def changed(self, method: str, params: rpc.Message) -> None:
        """Something has changed at the server: tell each stream that wants to know."""
        kind = next((kind for kind, named in LIST_CHANGED.values() if named == method), None)
        for stream in self._streams.values():
            # An update may be of a resource below the one subscribed to, so any subscriber of resources is told.
            if (kind in stream.kinds) if kind else (method == UPDATED and stream.uris):
                self._tell(stream, method, params)

    def renew(self) -> None:
        """A new session: subscribe again, and have the host look at everything anew."""
        for uri in self._wanted():
            self._ask("resources/subscribe", uri, None)
        for stream in self._streams.values():
            for kind, named in LIST_CHANGED.values():
                if kind in stream.kinds:
                    self._tell(stream, named, {})
            for uri in stream.uris:
                self._tell(stream, UPDATED, {"uri": uri})

    def _wanted(self) -> dict[str, None]:
        return dict.fromkeys(uri for stream in self._streams.values() for uri in stream.uris)

    def _ask(self, method: str, uri: str, stream: _Stream | None) -> int:
        key = next(self._ids)
        self._questions[key] = (stream, uri)
        self._steps.to_server(request(key, method, {"uri": uri}))
        return key

    def _acknowledge(self, stream: _Stream) -> None:
        if not stream.open_questions:
            honoured: rpc.Message = dict(stream.kinds)
            honoured |= {"resourceSubscriptions": stream.uris} if stream.uris else {}
            self._tell(stream, _ACKNOWLEDGED, {"notifications": honoured})

    def _tell(self, stream: _Stream, method: str, params: rpc.Message) -> None:
        meta = table(params.get("_meta")) | {rpc.SUBSCRIPTION_ID: stream.id}
        self._steps.to_host(notice(method, params | {"_meta": meta}))
