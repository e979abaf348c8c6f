"""How many connections a server has open, and whose gives way where one more comes (see `shares`)."""

from __future__ import annotations

import importlib
import logging
import time
from contextlib import suppress
from typing import Protocol

from attestable_mcp.shares import Shares
from attestable_mcp.tls.channel import Channel

_OF_DESCRIPTORS = 3 / 4
"""The share of this process's descriptors that connections may take; processes, files and listeners need the rest."""
_TOLD_SECONDS = 60.0
_log = logging.getLogger(__name__)


class Connection(Protocol):
    """One connection, as `tls.transport` has them."""

    channel: Channel

    @property
    def rests(self) -> bool:
        """Is nothing under way on it that its peer waits for?"""

    def give_way(self) -> None:
        """End it for another's sake."""


class Crowd:
    """At most `most` connections, fewer where this process may open fewer descriptors."""

    def __init__(self, most: int) -> None:
        self.most = min(most, _descriptors(most))
        self._shares: Shares[Channel] = Shares()
        self._connections: dict[Channel, Connection] = {}
        self._told_at = float("-inf")

    def __len__(self) -> int:
        return len(self._connections)

    def admit(self, connection: Connection) -> bool:
        """Take it in, and end another's where that has more than its share. False: there is no room for it."""
        channel = connection.channel
        while len(self._connections) >= self.most:
            self._tell()
            gone = self._shares.surplus(channel.network, lambda other: self._connections[other].rests)
            if gone is None:
                return False
            ended = self._connections[gone]
            self.leave(gone)
            ended.give_way()
        self._connections[channel] = connection
        self._shares.add(channel, channel.network)
        return True

    def touch(self, channel: Channel) -> None:
        """Its peer said something."""
        self._shares.touch(channel)

    def proven(self, channel: Channel, client: str) -> None:
        """The client at the other end proved itself by this key: it has a share of its own, not its network's."""
        if channel in self._connections:
            self._shares.add(channel, f"client {client}")

    def leave(self, channel: Channel) -> None:
        """It has ended."""
        self._shares.remove(channel)
        self._connections.pop(channel, None)

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told_at > _TOLD_SECONDS:
            self._told_at = now
            _log.warning("all %d connections are taken: whoever holds most of them gives way to others", self.most)


def _descriptors(most: int) -> int:
    """How many connections this process's descriptors allow; it takes leave to open more where it may."""
    try:
        resource = importlib.import_module("resource")
    except ImportError:  # Windows: sockets are no descriptors there
        return most
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * most  # a burst is accepted before any of it is looked at
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):
            more = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return most if soft == resource.RLIM_INFINITY else max(1, int(soft * _OF_DESCRIPTORS))
