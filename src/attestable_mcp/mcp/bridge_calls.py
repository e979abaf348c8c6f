"""The host's requests that wait for their answers: whoever takes one out of here is the one who answers it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import anyio

from attestable_mcp.mcp import rpc

LISTEN = "subscriptions/listen"


@dataclass(slots=True, kw_only=True)
class Call:
    """A request of the host's that waits for its answer."""

    message: rpc.Message
    body: bytes
    version: str | None
    translated: bool = False
    """Was it made by the translator rather than the host?"""
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)

    @property
    def id(self) -> rpc.Id:
        """The host's id for it."""
        found: rpc.Id = self.message["id"]
        return found

    @property
    def method(self) -> str:
        """What is asked for."""
        return str(self.message["method"])


class Calls:
    """At most `most` of them at a time."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: dict[rpc.Id, Call] = {}
        self._idle = fired()

    def objection(self, call: Call) -> str:
        """Why this request cannot wait here, or nothing."""
        if call.id in self._waiting:
            return "this request id is already in flight"
        if len(self._waiting) >= self._most:
            return f"wanted at most {self._most} requests in flight"
        return ""

    def add(self, call: Call) -> None:
        """One more that waits."""
        self._waiting[call.id] = call
        self._idle = anyio.Event() if self._idle.is_set() else self._idle

    def get(self, request_id: object) -> Call | None:
        """The request with this id, if it still waits."""
        return self._waiting.get(request_id) if rpc.is_id(request_id) else None

    def take(self, request_id: object) -> Call | None:
        """The same, and it waits no longer. Once its answer is written, `settle`."""
        return self._waiting.pop(request_id, None) if rpc.is_id(request_id) else None

    def drop(self, request_id: rpc.Id) -> None:
        """Nobody is to answer this one."""
        self.take(request_id)
        self.settle()

    def settle(self) -> None:
        """Let `until_idle` go on where nothing waits any more."""
        if not self._waiting:
            self._idle.set()

    async def until_idle(self) -> None:
        """Until every request has its answer."""
        await self._idle.wait()

    def awaited(self) -> bool:
        """Does any wait for its answer? A subscription has none to wait for."""
        return any(call.method != LISTEN for call in self._waiting.values())

    def __contains__(self, request_id: object) -> bool:
        return request_id in self._waiting

    def __iter__(self) -> Iterator[Call]:
        return iter(list(self._waiting.values()))


def fired() -> anyio.Event:
    """An event that has already happened."""
    event = anyio.Event()
    event.set()
    return event
