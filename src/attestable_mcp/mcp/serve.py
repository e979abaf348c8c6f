"""`serve`: any MCP server behind TLS 1.3 that proves itself.

async with serve("my_server:mcp", attester="sgx", listen="0.0.0.0:8443", hosts=["mcp.example"]) as server:
    print(server.url)
    await server.wait()
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from attestable_mcp.appraise.server_policy import ServerPolicy
from attestable_mcp.attest.base import Attester, Stapling
from attestable_mcp.attest.detect import choose
from attestable_mcp.attest.environment import demand_own_environment, shaping
from attestable_mcp.attest.measurement import Measurement, measure_target
from attestable_mcp.bind.keys import BindingKey
from attestable_mcp.bind.live import Commitments
from attestable_mcp.bind.receipt import Ledger
from attestable_mcp.endorse.files import FileSource
from attestable_mcp.errors import ConfigurationError, EvidenceError
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import asgi
from attestable_mcp.mcp.access import Access, Introduce
from attestable_mcp.mcp.apps import running_app
from attestable_mcp.mcp.catalogue import Catalogue
from attestable_mcp.mcp.drain import Drain
from attestable_mcp.mcp.guard import Guard, names_for
from attestable_mcp.mcp.lister import of_app
from attestable_mcp.mcp.manifest import Manifest
from attestable_mcp.mcp.sessions import Sessions
from attestable_mcp.mcp.signed import SignedManifest, read_file
from attestable_mcp.mcp.stdio import StdioOptions
from attestable_mcp.mcp.target import StdioServer, Target, Upstream, resolve
from attestable_mcp.mcp.witness import Witness
from attestable_mcp.rats import Endorsements
from attestable_mcp.tls.certificate import DEFAULT_LIFETIME
from attestable_mcp.tls.clients import ClientGate
from attestable_mcp.tls.deployment import DeploymentHolder
from attestable_mcp.tls.server import DRAIN_SECONDS, MAX_BODY, Server
from attestable_mcp.wire.x509 import read_certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class _Options:
    host: str
    port: int
    attester: str | Attester
    staple: FileSource | None
    hosts: tuple[str, ...]
    origins: tuple[str, ...]
    mcp_path: str
    measured: Measurement | bytes | None
    stdio: StdioOptions
    lifetime: timedelta
    commitments: Callable[[], Commitments]
    deployment: DeploymentHolder | None
    clients: ServerPolicy
    allow_env: tuple[str, ...]
    drain_seconds: int
    max_body: int
    manifest: bool | Manifest


def serve(
    target: object,
    *,
    listen: str = "127.0.0.1:0",
    attester: str | Attester = "auto",
    staple: str | Path | None = None,
    hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    mcp_path: str = "/mcp",
    measured: Measurement | bytes | None = None,
    stdio: StdioOptions | None = None,
    lifetime: timedelta = DEFAULT_LIFETIME,
    commitments: Callable[[], Commitments] = Commitments,
    deployment: DeploymentHolder | None = None,
    clients: ServerPolicy | Path | str | None = None,
    drain_seconds: int = DRAIN_SECONDS,
    max_body: int = MAX_BODY,
    manifest: bool | Manifest | Path = True,
    allow_env: Sequence[str] = (),
    danger_remote_upstream: bool = False,
) -> RunningServer:
    """Serve `target` (see `mcp.target`) at `listen`; use with `async with`, or await it and `aclose` it later.

    `hosts` are further names by which clients address the server: they stand in the certificate and pass the Host
    check. `origins` are web origins that may call it. `measured` is what the simulated attester reports instead of a
    digest over the target's own code. `staple` is a file or folder of collateral that certificates carry, read anew for
    each: a TPM key's certificates, a VCEK with its chain. `lifetime` is the certificate's; it is renewed while
    connections live.
    `manifest` True: the server is asked at the start what it lists, and each live proof commits to that; a Manifest, or
    the path of its document, is committed to as it is; False commits to none, writes nothing into lists and gives no
    receipts.
    `deployment` holds an owner's grant for this deployment and the key that it names. `clients` (a ServerPolicy, or the
    path or text of one) says which clients are served and which tools are for which of them; a tool learns who calls
    by `attestation_of(context).peer`.
    `allow_env` names variables that load code into this process (`LD_PRELOAD` …) and may: an attester chosen by
    name starts with no other.

    Raises: ConfigurationError at once for a bad option; on starting also AttesterError, and ConfigurationError for a
    target that does not start or an address that is taken.
    """
    host, port = parse_listen(listen)
    if not mcp_path.startswith("/") or "?" in mcp_path or "#" in mcp_path:
        raise ConfigurationError(f"mcp path: wanted a path such as /mcp, seen {mcp_path!r}")
    options = _Options(
        host=host,
        port=port,
        attester=attester,
        staple=None if staple is None else FileSource(staple),
        hosts=tuple(hosts),
        origins=tuple(origins),
        mcp_path=mcp_path,
        measured=measured,
        stdio=replace(stdio or StdioOptions(), path=mcp_path),
        lifetime=lifetime,
        commitments=commitments,
        deployment=deployment,
        clients=_server_policy(clients),
        allow_env=tuple(allow_env),
        drain_seconds=drain_seconds,
        max_body=max_body,
        manifest=_document(manifest) if isinstance(manifest, Path) else manifest,
    )
    resolved = resolve(target, danger_remote_upstream=danger_remote_upstream)
    return RunningServer(target, resolved, options)


def _document(path: Path) -> Manifest:
    found = read_file(path)
    return found.manifest if isinstance(found, SignedManifest) else found


def _server_policy(clients: ServerPolicy | Path | str | None) -> ServerPolicy:
    if clients is None or isinstance(clients, ServerPolicy):
        return clients or ServerPolicy()
    if isinstance(clients, str) and "\n" in clients:
        return ServerPolicy.from_toml(clients)
    return ServerPolicy.load(clients)


def parse_listen(text: str) -> tuple[str, int]:
    """`HOST:PORT` or `[IPv6]:PORT`; port 0 takes a free one.

    Raises: ConfigurationError.
    """
    host, colon, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not bare or (":" in bare and not bracketed) or not port.isascii() or not port.isdecimal():
        raise ConfigurationError(f"listen: wanted HOST:PORT, seen {text!r:.80}", hint="for example 127.0.0.1:0")
    if len(port) > 5 or int(port) > 65535:
        raise ConfigurationError(f"listen: wanted a port up to 65535, seen {text!r:.80}")
    return bare, int(port)


class RunningServer:
    """A server made by `serve`. Start and end it from whichever task: all of it runs in a task of its own."""

    def __init__(self, given: object, target: Target, options: _Options) -> None:
        self._given = given
        self._target = target
        self._options = options
        self._ready = asyncio.Event()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._server: Server | None = None
        self._catalogue: Catalogue | None = None

    def __await__(self) -> Generator[Any, None, RunningServer]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> RunningServer:
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        ready = asyncio.create_task(self._ready.wait())
        try:
            await asyncio.wait({ready, self._task}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._cancel()
            raise
        finally:
            ready.cancel()
        if not self._ready.is_set():
            self._task.result()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Take no more connections, end standing streams, let requests end, stop the server behind."""
        self.stop()
        if self._task is not None:
            await asyncio.shield(self._task)

    def stop(self) -> None:
        """Begin to end; `wait` returns when it is done."""
        self._stop.set()

    async def wait(self) -> None:
        """Until the server has ended."""
        if self._task is not None:
            await asyncio.shield(self._task)

    async def wait_for_signal(self) -> None:
        """Until SIGTERM or SIGINT ends the server gracefully. Call it in the main thread."""
        loop = asyncio.get_running_loop()
        numbers = [signal.SIGINT, signal.SIGTERM]
        before = {number: signal.signal(number, lambda *_: loop.call_soon_threadsafe(self.stop)) for number in numbers}
        try:
            await self.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @property
    def url(self) -> str:
        """The MCP endpoint's URL, usable on this machine."""
        path = self._target.path if isinstance(self._target, Upstream) else self._options.mcp_path
        return self.origin + path

    @property
    def origin(self) -> str:
        """`https://HOST:PORT`."""
        return self._running.url

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._running.port

    @property
    def tee(self) -> str:
        """The attester's kind."""
        return self._running.tee

    @property
    def simulated(self) -> bool:
        """Whether the evidence proves nothing."""
        return self._running.simulated

    @property
    def spki_sha256(self) -> str:
        """Lower-case hex SHA-256 of the present certificate's public key."""
        return self._running.spki_sha256

    @property
    def server(self) -> Server:
        """The TLS server beneath."""
        return self._running

    @property
    def _running(self) -> Server:
        if self._server is None:
            raise TypeError("the server is not running: use it with `async with serve(...)`")
        return self._server

    async def _run(self) -> None:
        async with self._open() as server:
            self._server = server
            self._ready.set()
            stopped = asyncio.create_task(self._stop.wait())
            ended = asyncio.create_task(server.wait())
            try:
                await asyncio.wait({stopped, ended}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                stopped.cancel()
                ended.cancel()

    async def _cancel(self) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait({self._task})

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Server]:
        options = self._options
        names = names_for(options.host, options.hosts, options.origins)
        attester = await asyncio.to_thread(self._attester)
        if options.deployment is not None:
            await asyncio.to_thread(options.deployment.open, attester)
        async with AsyncExitStack() as stack:
            app = await stack.enter_async_context(
                running_app(self._target, attester=attester, names=names, path=options.mcp_path, stdio=options.stdio)
            )
            if isinstance(self._target, StdioServer):
                app = Sessions(app, most=options.stdio.max_sessions, opening=LIMITS.mcp_sessions_opening)
                app = Introduce(app, max_body=options.max_body)
            else:
                app = Sessions(app)
            key = BindingKey()
            if options.manifest is not False:
                app = await self._witnessed(app, key, stack)
            clients = None if options.clients.clients == "none" else ClientGate(options.clients)
            access = Access(app, policy=options.clients, clients=clients, max_body=options.max_body)
            drain = Drain(Guard(access, names))
            server = await stack.enter_async_context(self._tls_server(drain, attester, key, clients))
            stack.callback(drain.stop)
            yield server

    async def _witnessed(self, app: asgi.App, key: BindingKey, stack: AsyncExitStack) -> Witness:
        """`app` behind what writes manifests and receipts, listed once."""
        options = self._options
        fixed = options.manifest if isinstance(options.manifest, Manifest) else None
        path = self._target.path if isinstance(self._target, Upstream) else options.mcp_path
        self._catalogue = Catalogue(of_app(app, path), fixed=fixed)
        stack.push_async_callback(self._catalogue.aclose)
        await self._catalogue.refresh()
        return Witness(app, catalogue=self._catalogue, ledger=Ledger(key), max_body=options.max_body)

    @property
    def manifest(self) -> Manifest | None:
        """What the server lists and its proofs commit to; None where it could not be listed."""
        return self._catalogue.manifest if self._catalogue is not None else None

    def _commitments(self) -> Commitments:
        found = self._options.commitments()
        return found if self._catalogue is None else replace(found, manifest=self._catalogue.digest)

    def _tls_server(self, app: Drain, attester: Attester, key: BindingKey, clients: ClientGate | None) -> Server:
        options = self._options
        return Server(
            app,
            attester,
            host=options.host,
            port=options.port,
            hosts=_certificate_hosts(options),
            lifetime=options.lifetime,
            commitments=self._commitments,
            key=key,
            deployment=options.deployment,
            clients=clients,
            max_body=options.max_body,
            drain_seconds=options.drain_seconds,
            lifespan="off",
        )

    def _attester(self) -> Attester:
        attester = self._chosen()
        source = self._options.staple
        return attester if source is None else Stapling(attester, lambda: _stapled(source))

    def _chosen(self) -> Attester:
        if not isinstance(self._options.attester, str):
            return self._options.attester
        demand_own_environment(os.environ, self._options.allow_env)
        return choose(self._options.attester, measured=self._options.measured or self._measure)

    def _measure(self) -> Measurement:
        """What a simulated attester reports: the target's code, and the parts of the configuration that change it."""
        configuration = {"mcp_path": self._options.mcp_path, **shaping(os.environ, self._options.allow_env)}
        match self._target:
            case StdioServer(command=command):
                return measure_target(list(command.argv), configuration=configuration)
            case _:
                return measure_target(self._given, configuration=configuration)


def _stapled(source: FileSource) -> Endorsements:
    """Everything in the source. Raises: ConfigurationError, also where clients would pass a certificate over."""
    found = source.everything()
    for raw in found.certificates:
        try:
            read_certificate(raw)
        except EvidenceError as error:
            raise ConfigurationError(
                f"staple {source.name}: a certificate that no client here reads: {error.message}",
                hint="openssl x509 writes version 1 unless it gets extensions: add -extfile with basicConstraints",
            ) from error
    return found


def _certificate_hosts(options: _Options) -> tuple[str, ...]:
    wildcard = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
    return tuple(dict.fromkeys((*options.hosts, wildcard.get(options.host, options.host), "localhost")))
