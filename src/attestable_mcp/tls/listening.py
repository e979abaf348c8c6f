"""A listening socket, and uvicorn in an event loop and a process that somebody else owns.

`PlainServer` is HTTP without TLS for this machine: the bridge's local endpoint and the health port.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import sys
from collections.abc import Generator
from typing import Any

import uvicorn

from attestable_mcp.errors import ConfigurationError
from attestable_mcp.tls.address import in_url

_log = logging.getLogger(__name__)


class Uvicorn(uvicorn.Server):
    """Signals stay with whoever owns the process; `ready` is set once the sockets listen.

    It waits to be told to end, and ends once the last connection has. uvicorn's own looks ten times a second whether it
    should, also while nothing is asked, and takes a tenth of a second at the least where nobody is connected.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Begin to end. Call it from the server's event loop."""
        self.should_exit = True
        self._stopping.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)  # once, for the headers of every answer; none of ours changes with the time
        await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listening in (*self.servers, *(sockets or ())):
            listening.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                await self._drained()
        except TimeoutError:
            if tasks := self.server_state.tasks:
                _log.error("the time to drain is over: %d requests are cut off", len(tasks))
            for task in tasks:
                task.cancel()
        await self.lifespan.shutdown()

    async def _drained(self) -> None:
        pause = 0.001
        while self.server_state.connections or self.server_state.tasks:
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.1)
        for server in self.servers:
            await server.wait_closed()


async def run(server: Uvicorn, sock: socket.socket) -> None:
    """Serve until `server.stop()`. Raises: ConfigurationError when the application refuses to start."""
    try:
        await server.serve(sockets=[sock])
    except SystemExit as error:  # uvicorn's answer to a failed lifespan
        raise ConfigurationError(
            "server: the application refused to start", hint="its own log says why; try it without attestation first"
        ) from error


def listen(host: str, port: int) -> socket.socket:
    """A listening, non-blocking socket; port 0 takes a free one. Raises: ConfigurationError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # asyncio turns Nagle's algorithm off only where it sees the protocol's number: 40 ms a request otherwise
        sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    except OSError as error:
        raise ConfigurationError(f"listen address {host}:{port}: {error.strerror or error}") from error
    try:
        if sys.platform != "win32":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(2048)
        sock.setblocking(False)
    except (OSError, OverflowError) as error:
        sock.close()
        raise _cannot_listen(host, port, error) from error
    return sock


def _cannot_listen(host: str, port: int, error: OSError | OverflowError) -> ConfigurationError:
    hints = {
        errno.EADDRINUSE: "another program has the port; 0 takes a free one",
        errno.EADDRNOTAVAIL: "wanted an address of this machine; 0.0.0.0 stands for all that it has",
        errno.EACCES: "ports below 1024 are mostly for the system: take a higher one, or allow this user to have it",
    }
    number = getattr(error, "errno", None)
    reason = getattr(error, "strerror", None) or str(error)
    hint = hints.get(number or 0, "another program may have the port; 0 takes a free one")
    return ConfigurationError(f"listen address {in_url(host)}:{port}: {reason}", hint=hint)


class PlainServer:
    """`async with PlainServer(app, host, port) as server: server.url`: an ASGI app over HTTP/1.1 without TLS.

    Leaving takes no more connections and gives requests under way `drain_seconds`.

    Raises (on entering): ConfigurationError.
    """

    def __init__(self, app: Any, host: str, port: int, *, drain_seconds: int = 1) -> None:
        self._app = app
        self._address = (host, port)
        self._drain_seconds = drain_seconds
        self._server: Uvicorn | None = None
        self._task: asyncio.Task[None] | None = None
        self.port = port

    @property
    def url(self) -> str:
        """`http://HOST:PORT`, usable on this machine."""
        return f"http://{in_url(reachable(self._address[0]))}:{self.port}"

    async def __aenter__(self) -> PlainServer:
        sock = listen(*self._address)
        self.port = sock.getsockname()[1]
        self._server = Uvicorn(self._config())
        self._task = asyncio.create_task(run(self._server, sock))
        ready = asyncio.create_task(self._server.ready.wait())
        try:
            await asyncio.wait({ready, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self._task.done():
            sock.close()
            self._task.result()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None and self._task is not None:
            self._server.stop()
            await asyncio.wait({self._task})

    def _config(self) -> uvicorn.Config:
        return uvicorn.Config(
            self._app,
            http="h11",  # whatever is installed: see tls.server
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=self._drain_seconds,
        )


def reachable(host: str) -> str:
    """Where a client on this machine finds a server that listens everywhere."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
