"""ASGI middleware: answers the live challenge on the connection that asks, and nothing else.

The only thing that a caller chooses are the typed, framed parts of a challenge (a nonce, a counter, a link): what the
Attester signs is a hash of a transcript built here, so no caller can have bytes of its own making signed.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from attestable_mcp.attest.base import Attester
from attestable_mcp.bind.keys import BindingKey
from attestable_mcp.bind.live import Answer, Challenge, Commitments, KeyProof, QuoteProof
from attestable_mcp.bind.transcript import LABEL, Role, Transcript
from attestable_mcp.bind.tree import Tree
from attestable_mcp.errors import AttestationError, AttesterError, ConversationError, MalformedEvidence
from attestable_mcp.limits import LIMITS, Limits
from attestable_mcp.rats import ErrorReport
from attestable_mcp.tls.asgi import App, Receive, Scope, Send
from attestable_mcp.tls.channel import Channel
from attestable_mcp.tls.clients import OUTRUN, ClientGate
from attestable_mcp.tls.crowd import Crowd
from attestable_mcp.tls.deployment import DeploymentHolder
from attestable_mcp.tls.lasting import Lasting
from attestable_mcp.tls.prover import transcript_for
from attestable_mcp.wire.kinds import kind_of_tee

PATH = "/.well-known/attestation"
CLIENT_PATH = "/.well-known/attestation/client"
"""Where a client proves itself, on the connection on which it was challenged."""
REFUSED = -32013
"""JSON-RPC error code: the server wants to know who asks, and the client has not proven it on this connection."""
MEDIA_TYPE = "application/cbor"
STATE_KEY = "attestable_mcp.channel"
"""Where the protocol mixin puts the connection's `Channel` in an ASGI scope's state."""
WAITING_MAX = 2 * LIMITS.connections
"""One a connection, and as many again whose client left: an address that asks and leaves keeps nobody waiting."""
_log = logging.getLogger(__name__)


class Quoter:
    """One quote for all who wait: while the device works, transcripts gather for the next quote.

    In a thread of its own: whatever else waits in the event loop's threads, this end can prove itself.
    """

    def __init__(self, attester: Attester, *, waiting_max: int = WAITING_MAX) -> None:
        self._attester = attester
        self._waiting_max = waiting_max
        self._waiting: list[tuple[bytes, asyncio.Future[QuoteProof]]] = []
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="quote")
        self.quotes = 0
        """How many quotes were taken."""

    async def prove(self, transcript: Transcript) -> QuoteProof:
        """Evidence whose tree holds this transcript.

        Raises:
            AttesterError: of the device, or too many wait already.
        """
        if len(self._waiting) >= self._waiting_max:
            raise AttesterError(f"attester: {self._waiting_max} connections wait for a quote", code="attester_busy")
        future: asyncio.Future[QuoteProof] = asyncio.get_running_loop().create_future()
        self._waiting.append((transcript.digest(), future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            try:
                await self._quote(batch)
            except asyncio.CancelledError:
                self._fail(batch, AttesterError("attester: the server is closing"))
                raise
            except AttestationError as error:
                self._fail(batch, error)
            except Exception as error:  # noqa: BLE001 - an Attester of the user's own may raise anything
                _log.exception("attester failed")
                self._fail(batch, AttesterError(f"attester: {type(error).__name__}"))

    async def _quote(self, batch: list[tuple[bytes, asyncio.Future[QuoteProof]]]) -> None:
        tree = Tree([digest for digest, _ in batch])
        self.quotes += 1
        evidence = await asyncio.get_running_loop().run_in_executor(self._thread, self._attester.attest, tree.root)
        for index, (_, future) in enumerate(batch):
            if not future.done():
                path = tree.path(index)
                future.set_result(QuoteProof(evidence=evidence, index=index, size=tree.size, path=path))

    @staticmethod
    def _fail(batch: list[tuple[bytes, asyncio.Future[QuoteProof]]], error: AttestationError) -> None:
        for _, future in batch:
            if not future.done():
                future.set_exception(error)


class AttestationMiddleware:
    """Wraps `app`. `commitments` is asked at each challenge, so that a changed tool manifest shows at once.

    `deployment` holds the deployment's key and grant; the key's hash then stands in the commitments. `clients` judges
    clients that show a certificate: they are challenged in the answer, and prove themselves at `CLIENT_PATH`. Where it
    demands that, nothing else is served to a client before. `crowd` learns whose connections those are that proved it.

    One binding key for the life of this object. Needs the protocol mixin of `tls.server` beneath it.
    """

    def __init__(
        self,
        app: App,
        attester: Attester,
        *,
        commitments: Callable[[], Commitments] = Commitments,
        deployment: DeploymentHolder | None = None,
        clients: ClientGate | None = None,
        crowd: Crowd | None = None,
        limits: Limits = LIMITS,
        key: BindingKey | None = None,
    ) -> None:
        self._app = app
        self._clients = clients
        self._crowd = crowd
        self._attester = attester
        self._commitments = commitments
        self._deployment = deployment
        self._limits = limits
        self._key = key or BindingKey()
        self.quoter = Quoter(attester)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == CLIENT_PATH and self._clients is not None:
            await self._client(self._clients, scope, receive, send)
            return
        if scope["type"] != "http" or scope["path"] != PATH:
            await self._pass(scope, receive, send)
            return
        match scope["method"]:
            case "POST":
                await self._post(scope, receive, send)
            case "GET" | "HEAD":
                await _respond(send, 200, "application/json", self._description())
            case _:
                await _respond(send, 405, "application/json", b"{}", (b"allow", b"GET, HEAD, POST"))

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """On to the application, unless the client has to prove itself first."""
        if self._clients is None or scope["type"] != "http":
            await self._app(scope, receive, send)
        elif (refusal := self._clients.refusal(_channel(scope))) is not None:
            await _unserved(send, refusal)
        elif (left := self._clients.lasts(_channel(scope))) is not None:
            await Lasting(send, left=left, refuse=lambda: _unserved(send, OUTRUN)).run(self._app, scope, receive)
        else:
            await self._app(scope, receive, send)

    async def _client(self, clients: ClientGate, scope: Scope, receive: Receive, send: Send) -> None:
        """A client's own proof: whatever it is worth, it is told. Anything but POST is nothing."""
        if scope["method"] != "POST":
            await _respond(send, 405, "application/json", b"{}", (b"allow", b"POST"))
            return
        limits = self._limits
        try:
            async with asyncio.timeout(limits.challenge_seconds + limits.endorsement_seconds):
                body = await _body(receive, limits.client_answer)
                said = await clients.judge(_channel(scope), body)
                self._note_proven(clients, _channel(scope))
        except TimeoutError:
            await _refuse(send, 503, "timeout", "the client's proof was not judged in time")
        except AttestationError as error:
            await _refuse(send, 400, error.code, error.message)
        else:
            await _respond(send, 200, MEDIA_TYPE, said.encode())

    def _note_proven(self, clients: ClientGate, channel: Channel) -> None:
        caller = clients.caller(channel)
        if caller is not None and self._crowd is not None:
            self._crowd.proven(channel, caller.key)

    def _description(self) -> bytes:
        return json.dumps(
            {
                "binding": LABEL.decode("ascii"),
                "evidence": [str(kind_of_tee(self._attester.tee))],
                "tee": self._attester.tee,
                "simulated": self._attester.simulated,
                "clients": self._clients.mode if self._clients is not None else "none",
            }
        ).encode("ascii")

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self._limits.challenge_seconds):
                body = await _body(receive, self._limits.challenge_request)
                answer = await self.answer(Challenge.decode(body, limits=self._limits), _channel(scope))
        except TimeoutError:
            await _refuse(send, 503, "timeout", "the challenge was not answered in time")
        except MalformedEvidence as error:
            await _refuse(send, 400, error.code, error.message)
        except AttestationError as error:
            _log.warning("challenge not answered: %s", error.message)
            await _refuse(send, 503, error.code, "no evidence can be had now")
        else:
            await _respond(send, 200, MEDIA_TYPE, answer.encode())

    async def answer(self, challenge: Challenge, channel: Channel) -> Answer:
        """The binding key's signature over the transcript of this very connection, and evidence where it is not known.

        Raises:
            AttesterError: of the device. ConversationError: not a TLS connection of ours.
        """
        if channel.own is None:
            raise ConversationError("challenge: this end of the connection showed no certificate")
        commitments = self._commitments()
        if self._deployment is not None:
            commitments = replace(commitments, deployment_key=self._deployment.key.spki_sha256)
        asked = self._clients.challenge(channel) if self._clients is not None else None
        transcript = transcript_for(
            challenge,
            channel,
            role=Role.SERVER,
            peer_spki=asked.spki_sha256 if asked is not None else b"",
            commitments=commitments,
            binding_key=self._key.public,
        )
        channel.transcript = transcript.digest()
        signature = self._key.sign(channel.transcript)
        return Answer(
            counter=challenge.counter,
            binding_key=self._key.public,
            commitments=commitments,
            proof=KeyProof(signature=signature)
            if challenge.known_key == self._key.public
            else replace(await self.quoter.prove(transcript), signature=signature),
            deployment=self._deployment.prove(transcript.digest()) if self._deployment is not None else None,
            challenge=asked.challenge if asked is not None else None,
        )


def _channel(scope: Scope) -> Channel:
    channel = scope.get("state", {}).get(STATE_KEY)
    if not isinstance(channel, Channel):
        raise ConversationError("challenge: wanted a TLS connection of this package's server")
    return channel


async def _body(receive: Receive, most: int) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConversationError("challenge: the peer went away")
        body += message.get("body", b"")
        if len(body) > most:
            raise MalformedEvidence(f"challenge: wanted at most {most} bytes", field="challenge")
        if not message.get("more_body", False):
            return bytes(body)


async def _unserved(send: Send, refusal: ErrorReport) -> None:
    error = {"code": REFUSED, "message": refusal.message, "data": refusal.to_json()}
    body = json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode("ascii")
    await _respond(send, 403, "application/json", body)


async def _refuse(send: Send, status: int, code: str, message: str) -> None:
    await _respond(send, status, "application/json", json.dumps({"error": code, "message": message}).encode())


async def _respond(send: Send, status: int, media_type: str, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    fixed = [
        (b"content-type", media_type.encode("ascii")),
        (b"content-length", str(len(body)).encode("ascii")),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body})
