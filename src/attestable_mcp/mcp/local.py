"""The bridge as a local HTTP endpoint: an opaque relay from this machine to one attested server.

A request passes when its Host is this machine's, its Origin (if any) too, and its path begins with a secret token: a
web page or another user's program that finds the port knows no token. Bodies and event streams pass untouched, both
protocol eras alike, and a client that leaves closes the stream to the server, which is its cancellation. The verdict
stands in a header of each answer; a refusal is an HTTP status with a JSON-RPC error that hosts show.
Source: RFC 9651 (structured fields, for the header); MCP 2025-11-25, basic/transports, Security Warning.
"""

from __future__ import annotations

import hmac
import logging
import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx2

from attestable_mcp.errors import ConfigurationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp import asgi, rpc
from attestable_mcp.mcp.bridge_failure import Failure, failure_of
from attestable_mcp.mcp.guard import Guard, Names
from attestable_mcp.mcp.refusal import NOT_ADMITTED
from attestable_mcp.mcp.relay import Body, Relay
from attestable_mcp.rats import AttestationResult
from attestable_mcp.tls.admission import AttestedPeer
from attestable_mcp.tls.client import EXTENSION

_log = logging.getLogger(__name__)
HEADER = b"attestation-verdict"
DETAILS = "attestation"
"""Under the token, GET of this path answers the whole result as JSON."""
_TOKEN = re.compile(r"[A-Za-z0-9_-]{32,128}")
_STATUS = {"stalled": 504, "timeout": 504, "endorsement_unavailable": 503, "attestation_unavailable": 503}


def new_token() -> str:
    """A path token nobody guesses: 256 bits."""
    return secrets.token_urlsafe(32)


def kept_token(path: Path) -> str:
    """The token that the file holds; a file that is not there is made, for its owner only, with a new token.

    Raises: ConfigurationError.
    """
    try:
        with suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(descriptor, "w", encoding="ascii") as stream:
                stream.write(new_token() + "\n")
        with open(path, encoding="ascii") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            found = stream.read(256).strip()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"token file {path}: {error}", code="unreadable") from error
    if os.name == "posix" and mode & 0o077:
        raise ConfigurationError(
            f"token file {path}: wanted mode 600, seen {mode & 0o777:o}: others of this machine may read it",
            code="unreadable",
            hint="remove the file, and a new token is made",
        )
    if not _TOKEN.fullmatch(found):
        raise ConfigurationError(
            f"token file {path}: wanted 32 to 128 letters, digits, - or _",
            code="unreadable",
            hint="remove the file, and a new token is made",
        )
    return found


def verdict_header(result: AttestationResult) -> bytes:
    """The verdict as an RFC 9651 item with parameters: `verified;tee="sgx";tcb="UpToDate";evidence="…"`."""
    parameters = {
        "tee": result.tee,
        "tcb": result.tcb_status,
        "policy": result.policy,
        "at": result.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "evidence": result.evidence_digest,
    }
    flags = ";simulated" if result.simulated else ""
    return f"{result.verdict}{_parameters(parameters)}{flags}".encode("ascii")


def failure_header(failure: Failure) -> bytes:
    """The same for a server that was not admitted or not met: `refused;code="measurement_mismatch";check="…"`."""
    verdict = failure.data.get("verdict") or ("refused" if failure.code == NOT_ADMITTED else "unavailable")
    parameters = {"code": failure.data.get("code", ""), "check": failure.data.get("check", "")}
    return f"{verdict}{_parameters(parameters)}".encode("ascii")


def _parameters(values: dict[str, str]) -> str:
    return "".join(f";{key}={_quoted(value)}" for key, value in values.items() if value and _plain(value))


def _plain(value: str) -> bool:
    return value.isascii() and value.isprintable() and len(value) <= 200


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


class AttestedRelay(Relay):
    """The relay whose server is proven before it hears a byte. `url` names it in errors, `say` one sentence for a log.

    `met` is told of each peer that answered.
    """

    def __init__(
        self,
        url: str,
        transport: httpx2.AsyncBaseTransport,
        *,
        say: Callable[[str], None],
        met: Callable[[AttestedPeer], None],
    ) -> None:
        parts = urlsplit(url)
        super().__init__(f"{parts.scheme}://{parts.netloc}", transport, keep=LIMITS.mcp_request)
        self._url = url
        self._say = say
        self._met = met

    def forwarded(self, scope: asgi.Scope) -> asgi.Headers:
        """Nothing: how a host reaches its own machine is not the server's business."""
        return ()

    def added(self, response: httpx2.Response) -> asgi.Headers:
        """The verdict on the connection that this answer came from."""
        peer = response.extensions.get(EXTENSION)
        if not isinstance(peer, AttestedPeer):
            return ()
        self._met(peer)
        return [(HEADER, verdict_header(peer.result))]

    async def failed(self, error: Exception, body: Body, send: asgi.Send) -> None:
        """A status, the verdict, and a JSON-RPC error for the request that met it."""
        failure = failure_of(error, self._url)
        self._say(failure.message)
        message = None if body.more else rpc.parse(body.first)
        request_id = message.get("id") if isinstance(message, dict) and "method" in message else None
        answer = failure.answer(request_id if rpc.is_id(request_id) else None)
        status = _STATUS.get(str(failure.data.get("code")), 502)
        await asgi.reply_json(send, status, answer, [(HEADER, failure_header(failure))])


class TokenPath:
    """Lets through what asks for `/TOKEN` + the server's path, which is then asked of the server; 404 to the rest."""

    def __init__(self, app: asgi.App, token: str, path: str, *, newest: Callable[[], AttestationResult | None]) -> None:
        self._app = app
        self._token = token.encode("ascii")
        self._path = path.encode("ascii")
        self._newest = newest

    async def __call__(self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
        """ASGI entry."""
        raw = scope.get("raw_path") or scope["path"].encode()
        token, slash, rest = bytes(raw)[1:].partition(b"/")
        known = hmac.compare_digest(token, self._token)
        if known and slash + rest == self._path:
            await self._app({**scope, "raw_path": self._path, "path": self._path.decode("ascii")}, receive, send)
        elif known and rest == DETAILS.encode() and scope["method"] == "GET":
            await self._details(send)
        else:
            await asgi.reply_text(send, 404, "not found\n")

    async def _details(self, send: asgi.Send) -> None:
        result = self._newest()
        if result is None:
            await asgi.reply_text(send, 404, "no server has been proven yet\n")
        else:
            await asgi.reply_json(send, 200, rpc.dump(result.to_json()))


def local_app(
    relay: AttestedRelay, *, token: str, path: str, names: Names, newest: Callable[[], AttestedPeer | None]
) -> asgi.App:
    """The endpoint whole: Host and Origin, then the token, then the relay."""

    def result() -> AttestationResult | None:
        peer = newest()
        return peer.result if peer is not None else None

    return Guard(TokenPath(relay, token, path, newest=result), names)
