"""The loopback address that the browser is sent back to with the authorization server's answer (RFC 8252 §7.3).

Only an answer with our `state` ends the wait: any page can make a browser ask this port for something. The answer's
`iss` is compared before anything else in it is looked at (RFC 9207 §2.4).
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from contextlib import suppress
from types import TracebackType
from urllib.parse import parse_qsl, urlsplit

import anyio

from attestable_mcp.mcp.oauth.model import REFUSED, Issuer, failure, shown

PATH = "/callback"
_HEAD = 16 * 1024
_SECONDS = 5.0
_CONNECTIONS = 16
_PAGE = (
    "<!doctype html><meta charset=utf-8><title>attestable-mcp</title>"
    "<body style='font:16px sans-serif;margin:4em auto;max-width:32em'><p>{}</p>"
)


class Redirect:
    """`async with Redirect(port) as redirect`: listens on 127.0.0.1 at `port`, or at a free one where it is taken.

    `state` is what an answer must repeat.
    """

    def __init__(self, port: int = 0, *, fixed: bool = False) -> None:
        self.state = secrets.token_urlsafe(32)
        self._wanted = port
        self._fixed = fixed
        self._server: asyncio.Server | None = None
        self._answer: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        self._open = 0
        self.port = 0

    @property
    def uri(self) -> str:
        """The redirect URI."""
        return f"http://127.0.0.1:{self.port}{PATH}"

    async def __aenter__(self) -> Redirect:
        try:
            self._server = await self._listen(self._wanted)
        except OSError as error:
            if self._fixed or not self._wanted:
                raise failure(f"cannot listen on 127.0.0.1:{self._wanted} for the browser: {error}") from error
            self._server = await self._listen(0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _listen(self, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._serve, "127.0.0.1", port, limit=_HEAD)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()

    async def code(self, issuer: Issuer, seconds: float) -> str:
        """The authorization code. Raises: ConversationError for a refusal, another issuer, or nobody's answer."""
        try:
            with anyio.fail_after(seconds):
                found = await asyncio.shield(self._answer)
        except TimeoutError as error:
            raise failure(f"nobody signed in within {seconds:g} seconds", hint="the next request asks again") from error
        return _code(found, issuer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError, ValueError):
                if self._open <= _CONNECTIONS:
                    async with asyncio.timeout(_SECONDS):
                        head = await reader.readuntil(b"\r\n\r\n")
                        writer.write(self._respond(head))
                        await writer.drain()
        finally:
            self._open -= 1
            writer.close()

    def _respond(self, head: bytes) -> bytes:
        words = head.split(b"\r\n", 1)[0].split(b" ")
        target = words[1].decode("latin-1") if len(words) == 3 and words[0] == b"GET" else ""
        parts = urlsplit(target) if target.startswith("/") else None
        if parts is None or parts.path != PATH:
            return _response(404, "There is nothing here.")
        pairs = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=32)
        found = dict(pairs)
        ours = hmac.compare_digest(found.get("state", "").encode(), self.state.encode())
        if not ours or len(found) != len(pairs):
            return _response(400, "This is no answer to the sign-in that attestable-mcp waits for.")
        if not self._answer.done():
            self._answer.set_result(found)
        told = "Signed in" if "code" in found else "Not signed in"
        return _response(200, f"{told}. You can close this window and go back to your MCP host.")


def _code(found: dict[str, str], issuer: Issuer) -> str:
    named = found.get("iss")
    if named is not None and named != issuer.issuer:
        raise failure(f"the answer names the issuer {shown(named)!r}: wanted {shown(issuer.issuer)}")
    if named is None and issuer.names_itself:
        raise failure(f"the answer does not name its issuer, as {shown(issuer.issuer)} says that it does")
    if "error" in found:
        said = ": ".join(shown(found[key]) for key in ("error", "error_description") if found.get(key))
        raise failure(f"{shown(issuer.issuer)} refused: {said}", code=REFUSED, hint="the next request asks again")
    if not found.get("code"):
        raise failure("the answer holds no code")
    return found["code"]


def _response(status: int, text: str) -> bytes:
    body = _PAGE.format(text).encode()
    head = (
        f"HTTP/1.1 {status} {'OK' if status == 200 else 'No'}\r\nContent-Type: text/html; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n"
        "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\nConnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
