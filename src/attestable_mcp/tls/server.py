"""Any ASGI app behind TLS 1.3 that proves itself: uvicorn with our engine, certificate renewal, graceful drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from types import FrameType, TracebackType
from typing import Any, Literal

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from attestable_mcp.attest.base import Attester
from attestable_mcp.bind.keys import BindingKey
from attestable_mcp.bind.live import Commitments
from attestable_mcp.errors import AttestationError, ConfigurationError
from attestable_mcp.limits import LIMITS, Limits
from attestable_mcp.tls import heap
from attestable_mcp.tls.address import in_url
from attestable_mcp.tls.asgi import App, Message, Receive, Scope, Send
from attestable_mcp.tls.certificate import DEFAULT_LIFETIME, Issued, issue, lifetime_of
from attestable_mcp.tls.challenge import STATE_KEY, AttestationMiddleware
from attestable_mcp.tls.clients import ClientGate
from attestable_mcp.tls.crowd import Crowd
from attestable_mcp.tls.deployment import DeploymentHolder
from attestable_mcp.tls.engine import ServerContext
from attestable_mcp.tls.listening import Uvicorn, listen, reachable, run
from attestable_mcp.tls.transport import TlsProtocol, tls_protocol_factory

MAX_BODY = 8 * 1024 * 1024
MAX_HEADER = 64 * 1024
DRAIN_SECONDS = 10
RENEW_AT = 2 / 3
"""The share of a certificate's life after which it is renewed."""
RETRY = timedelta(seconds=30)
_log = logging.getLogger(__name__)


class AttestedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1, which shows the connection's `Channel` to the application through the scope's state.

    h11, also where httptools is installed: that one sets no bound to the head of a request, and takes the trailers of a
    body for headers. A head or a body that is not whole in time ends the connection: who drips it byte by byte holds no
    socket, nor what was read so far.
    """

    head_seconds = LIMITS.head_seconds
    body_seconds = LIMITS.body_seconds
    _overdue: asyncio.TimerHandle | None = None
    _waits_for: object = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, STATE_KEY: transport.get_extra_info("channel")}
        self._await_request()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._wait_for(None)

    @property
    def rests(self) -> bool:
        """Is no request being read or answered?"""
        return self.conn.their_state is h11.IDLE and (self.cycle is None or self.cycle.response_complete)

    def _await_request(self) -> None:
        """`IDLE` until a head is whole, `SEND_BODY` until its body is."""
        state = self.conn.their_state
        self._wait_for(state if state in (h11.IDLE, h11.SEND_BODY) else None)

    def _wait_for(self, state: object) -> None:
        if state is self._waits_for:
            return
        if self._overdue is not None:
            self._overdue.cancel()
        self._overdue, self._waits_for = None, state
        if state is not None:
            seconds = self.head_seconds if state is h11.IDLE else self.body_seconds
            self._overdue = self.loop.call_later(seconds, self.transport.close)


class RequestLimits:
    """Refuses requests whose headers or body are too long, in bytes: 431 and 413.

    An application that is cut off in a body of unannounced length meets a disconnect. What the peer still sends is then
    read up to `DISCARD` times the limit, so that it finds the refusal and no broken connection.
    """

    DISCARD = 4

    def __init__(self, app: App, *, body: int, header: int = MAX_HEADER) -> None:
        self._app = app
        self._most = body
        self._header = header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif sum(len(name) + len(value) for name, value in scope["headers"]) > self._header:
            await _status(send, 431)
        elif self._announced(scope) > self._most:
            await _status(send, 413)
        else:
            metered = _Metered(receive, send, self._most)
            await self._app(scope, metered.receive, metered.send)
            if metered.seen > self._most and not metered.answered:
                await metered.discard(self.DISCARD * self._most)
                await _status(send, 413)

    @staticmethod
    def _announced(scope: Scope) -> int:
        value = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        return int(value) if value.isdigit() else 0


class _Metered:
    """Counts the bytes of one request's body and sees whether it was answered."""

    __slots__ = ("_more", "_most", "_receive", "_send", "answered", "seen")

    def __init__(self, receive: Receive, send: Send, most: int) -> None:
        self._receive = receive
        self._send = send
        self._most = most
        self._more = True
        self.seen = 0
        self.answered = False

    async def receive(self) -> Message:
        message = await self._receive()
        self.seen += len(message.get("body", b""))
        self._more = bool(message.get("more_body", False))
        return {"type": "http.disconnect"} if self.seen > self._most else message

    async def send(self, message: Message) -> None:
        self.answered = True
        await self._send(message)

    async def discard(self, most: int) -> None:
        while self._more and self.seen <= most:
            await self.receive()


async def _status(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


class Server:
    """`async with Server(app, attester) as server: server.url`. Needs an asyncio event loop.

    `port` 0 takes a free one. `hosts` are the names in the certificate, `host` and localhost if not given. `lifetime`
    is the certificate's. `commitments` is asked at each challenge; `key` is the binding key (one of its own
    if none is given), with which `app` may sign receipts; `deployment` says whose copy this is; `clients` asks clients
    for a certificate and judges those that show one. Leaving drains for `drain_seconds` at most.

    Raises (on entering):
        AttesterError: no evidence for the first certificate. ConfigurationError: the address cannot be listened on,
            or the application refuses to start.
    """

    def __init__(
        self,
        app: App,
        attester: Attester,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        hosts: Sequence[str] | None = None,
        lifetime: timedelta = DEFAULT_LIFETIME,
        commitments: Callable[[], Commitments] = Commitments,
        key: BindingKey | None = None,
        deployment: DeploymentHolder | None = None,
        clients: ClientGate | None = None,
        limits: Limits = LIMITS,
        max_body: int = MAX_BODY,
        drain_seconds: int = DRAIN_SECONDS,
        lifespan: Literal["auto", "on", "off"] = "auto",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._attester = attester
        self._address = (host, port)
        self._hosts = tuple(hosts) if hosts else tuple(dict.fromkeys((reachable(host), "localhost")))
        self._lifetime = lifetime_of(attester, lifetime)
        self._now = now
        self._drain_seconds = drain_seconds
        self._lifespan: Literal["auto", "on", "off"] = lifespan
        self._crowd = Crowd(limits.connections)
        self.challenge = AttestationMiddleware(
            RequestLimits(app, body=max_body),
            attester,
            commitments=commitments,
            deployment=deployment,
            clients=clients,
            crowd=self._crowd,
            limits=limits,
            key=key,
        )
        seconds = {"head_seconds": limits.head_seconds, "body_seconds": limits.body_seconds}
        self._protocol = type("Protocol", (AttestedProtocol,), seconds)
        self._limits = limits
        self._ask_client = clients is not None
        self._issued: Issued | None = None
        self._context: ServerContext | None = None
        self._uvicorn: Uvicorn | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._bound: tuple[str, int] = self._address

    @property
    def url(self) -> str:
        """`https://HOST:PORT` of the socket that is listened on; an address that clients on this machine can use."""
        host, port = self._bound
        return f"https://{in_url(reachable(host))}:{port}"

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._bound[1]

    @property
    def tee(self) -> str:
        """The Attester's kind."""
        return self._attester.tee

    @property
    def simulated(self) -> bool:
        """Whether the evidence proves nothing."""
        return self._attester.simulated

    @property
    def issued(self) -> Issued:
        """The certificate for connections to come."""
        if self._issued is None:
            raise TypeError("the server is not running")
        return self._issued

    @property
    def spki_sha256(self) -> str:
        """Lower-case hex SHA-256 of the present certificate's SubjectPublicKeyInfo."""
        return self.issued.spki_sha256

    @property
    def context(self) -> ServerContext:
        """The live TLS context."""
        if self._context is None:
            raise TypeError("the server is not running")
        return self._context

    async def __aenter__(self) -> Server:
        self._issued = await self._issue()
        self._context = ServerContext(self._issued.certificate_der, self._issued.key_pem, ask_client=self._ask_client)
        sock = listen(*self._address)
        self._bound = sock.getsockname()[:2]
        self._uvicorn = Uvicorn(self._config(self._context))
        serving = asyncio.create_task(run(self._uvicorn, sock))
        context = self._context
        beside = [self._renew(), heap.tend(lambda: context.established)]
        self._tasks = [serving, *(asyncio.create_task(work) for work in beside)]
        started = asyncio.create_task(self._uvicorn.ready.wait())
        await asyncio.wait({serving, started}, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if serving.done():
            for task in self._tasks[1:]:
                task.cancel()
            sock.close()
            serving.result()
            raise ConfigurationError("server: the application ended at start-up")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Take no more connections, let requests under way end for the drain time, and stop."""
        if self._uvicorn is None:
            return
        self._uvicorn.stop()
        for beside in self._tasks[1:]:
            beside.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stop(self) -> None:
        """Ask the server to end; `wait` returns once it has. Call it from the server's event loop."""
        if self._uvicorn is not None:
            self._uvicorn.stop()

    async def wait(self) -> None:
        """Until the server has stopped."""
        await asyncio.shield(self._tasks[0])

    async def renew(self) -> None:
        """Take a new key and certificate now; connections that live keep theirs.

        Raises:
            AttesterError: of the device; the old certificate stays.
        """
        issued = await self._issue()
        self.context.swap(issued.certificate_der, issued.key_pem)
        self._issued = issued

    async def _issue(self) -> Issued:
        return await asyncio.to_thread(issue, self._attester, self._hosts, lifetime=self._lifetime, now=self._now())

    async def _renew(self) -> None:
        wait = self._lifetime * RENEW_AT
        while True:
            await asyncio.sleep(wait.total_seconds())
            try:
                await self.renew()
                wait = self._lifetime * RENEW_AT
            except AttestationError as error:
                wait = min(RETRY, self._lifetime / 10)
                _log.error("certificate not renewed, valid until %s: %s", self.issued.not_after, error.message)

    def _connections(self, context: ServerContext) -> Callable[..., TlsProtocol]:
        return tls_protocol_factory(self._protocol, context, crowd=self._crowd, limits=self._limits)

    def _config(self, context: ServerContext) -> uvicorn.Config:
        return uvicorn.Config(
            self.challenge,
            http=self._connections(context),  # type: ignore[arg-type]  # uvicorn only calls it
            ws="none",
            loop="asyncio",
            lifespan=self._lifespan,
            workers=1,
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            h11_max_incomplete_event_size=MAX_HEADER,
            timeout_keep_alive=60,
            timeout_graceful_shutdown=self._drain_seconds,
        )


async def serve_app(
    app: App, attester: Attester, *, ready: Callable[[Server], None] | None = None, signals: bool = True, **options: Any
) -> None:
    """Serve until SIGTERM or SIGINT (with `signals`), then drain. `ready` is called once connections are taken.

    `options` are those of `Server`, and so are the errors.
    """
    async with Server(app, attester, **options) as server, _signals(server, signals):
        if ready is not None:
            ready(server)
        await server.wait()


@contextlib.asynccontextmanager
async def _signals(server: Server, wanted: bool) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()

    def stop(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(server.stop)

    with _handlers(stop) if wanted and threading.current_thread() is threading.main_thread() else _none():
        yield


@contextlib.contextmanager
def _handlers(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    numbers = [signal.SIGINT, signal.SIGTERM]
    if sys.platform == "win32":
        numbers.append(signal.SIGBREAK)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def _none() -> Iterator[None]:
    yield
