"""What asynchronous and blocking streams have in common: what they say of themselves, and how they end."""

from __future__ import annotations

import os
import select
import socket
import sys
from math import inf
from typing import Any

from attestable_mcp.errors import ConversationError
from attestable_mcp.tls.admission import AttestedPeer, Origin
from attestable_mcp.tls.channel import Channel

GONE = "connection_closed"
"""The code of a conversation that ended because the other end left."""
ANOTHER = "the server behind this connection cannot be proven again: another instance answers at its address"
TURN_SECONDS = 0.02
"""How often one who waits for another's proof looks whether it is there."""


def plaintext_refused() -> ConversationError:
    """Somebody would speak before the other end is proven."""
    return ConversationError(
        "connection: refusing to speak before TLS and attestation", code="plaintext_refused", hint="use an https URL"
    )


def info_of(name: str, channel: Channel | None, peer: AttestedPeer | None) -> Any:
    """What a stream tells of its connection, by httpcore's names and `attested_peer`; None for any other."""
    match name:
        case "ssl_object":
            return channel
        case "attested_peer":
            return peer
        case _:
            return None


def readable(sock: socket.socket) -> bool:
    """Whether bytes or an end wait on an idle connection: the pool then drops it."""
    if sock.fileno() < 0:
        return True
    if sys.platform == "win32":
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def fed(channel: Channel, cipher: bytes) -> None:
    """Give a channel what came from the socket; nothing is its end."""
    if cipher:
        channel.feed(cipher)
    else:
        channel.feed_eof()


def binding_key(peer: AttestedPeer | None) -> bytes:
    """The key that stands for the peer in its transcripts; empty without a live binding."""
    return peer.binding.binding_key if peer is not None and peer.binding is not None else b""


def again_of(peer: AttestedPeer | None) -> float:
    """In how many seconds at the latest a proof is wanted again: ours by the peer, or its own for what it rests on.

    0 for never.
    """
    wanted = peer.said.again if peer is not None and peer.said is not None else 0
    found = min(wanted or inf, inf if peer is None else max(peer.good_for, 1.0))
    return 0.0 if found == inf else found


def unreachable(origin: Origin, error: Exception) -> ConversationError:
    """Nobody answers at all."""
    return ConversationError(
        f"server {origin}: cannot be reached: {error}", code="unreachable", hint="check the address, and that it runs"
    )


def why(error: Exception) -> str:
    """Why nobody was reached, in the system's own words, whichever library met it."""
    known = isinstance(error, OSError) and error.errno is not None and error.errno > 0
    return os.strerror(error.errno).lower() if known else str(error)  # type: ignore[attr-defined]
