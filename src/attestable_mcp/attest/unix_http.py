"""One HTTP request with a JSON answer, to an agent on this machine: over a Unix socket, or to a link-local address.

Every size and time is bounded: an agent is trusted with nothing but its own evidence.
"""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

from attestable_mcp.errors import AttesterError
from attestable_mcp.limits import LIMITS

TIMEOUT_SECONDS = 8.0


class _UnixConnection(http.client.HTTPConnection):
    """`http.client` over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        family = getattr(socket, "AF_UNIX", None)
        if family is None:
            raise OSError("no Unix sockets on this system")
        self.sock = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def unix(path: str, timeout: float = TIMEOUT_SECONDS) -> http.client.HTTPConnection:
    """A connection to the agent that listens on this socket."""
    return _UnixConnection(path, timeout)


def request_json(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    where: str,
    *,
    body: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The JSON object that the agent answers with 200; closes the connection.

    Raises:
        AttesterError: nobody answers, or not in time, not with 200, too much, or no JSON object.
    """
    sent = None if body is None else json.dumps(body).encode()
    kind = {} if sent is None else {"Content-Type": "application/json"}
    try:
        connection.request(method, target, body=sent, headers=kind | (headers or {}))
        response = connection.getresponse()
        content = response.read(LIMITS.endorsement + 1)
    except (OSError, http.client.HTTPException) as error:
        raise AttesterError(f"{where}: {error or type(error).__name__}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise AttesterError(f"{where}: wanted 200, seen {response.status}: {_excerpt(content)}")
    if len(content) > LIMITS.endorsement:
        raise AttesterError(f"{where}: more than {LIMITS.endorsement} bytes")
    return _object(content, where)


def _object(content: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise AttesterError(f"{where}: wanted JSON, seen {_excerpt(content)}") from error
    if not isinstance(found, dict):
        raise AttesterError(f"{where}: wanted a JSON object, seen {_excerpt(content)}")
    return found


def _excerpt(content: bytes) -> str:
    return repr(content[:80].decode("utf-8", "replace"))
