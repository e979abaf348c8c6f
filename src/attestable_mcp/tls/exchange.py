"""The handshake, and one POST with its answer over HTTP/1.1 on the connection itself, as steps without I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h11

from attestable_mcp.errors import AttestationUnavailable, ConversationError
from attestable_mcp.limits import Limits
from attestable_mcp.tls.address import in_url
from attestable_mcp.tls.challenge import MEDIA_TYPE, PATH
from attestable_mcp.tls.channel import RECORD, Channel
from attestable_mcp.tls.steps import Receive, Send, Steps

if TYPE_CHECKING:
    from attestable_mcp.tls.admission import Origin

HANDSHAKE_MAX = 256 * 1024
INFORMATIONAL_MAX = 8
_NO_LIVE = (404, 405, 501)


def handshake(channel: Channel) -> Steps[None]:
    """Until the handshake stands. Raises: OpenSSL.SSL.Error; ConversationError with the code `flooded`."""
    seen = 0
    while not channel.handshake():
        yield Send(channel.take())
        data: bytes = yield Receive()
        seen += len(data)
        if not data:
            channel.feed_eof()
        elif seen > HANDSHAKE_MAX:
            raise ConversationError(f"TLS handshake: more than {HANDSHAKE_MAX} bytes", code="flooded")
        channel.feed(data)
    yield Send(channel.take())


def converse(channel: Channel, origin: Origin, challenge: bytes, limits: Limits, *, path: str = PATH) -> Steps[bytes]:
    """POST the challenge, read the answer, and leave the connection clean for whoever comes next.

    Raises:
        AttestationUnavailable: the server knows no live binding.
        ConversationError: anything but a complete answer of the right type and size.
    """
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=limits.challenge_header)
    yield Send(channel.write(_request(http, origin, challenge, path)))
    try:
        body = yield from _answer(http, channel, limits)
    except h11.RemoteProtocolError as error:
        raise ConversationError(f"live challenge: the answer is not HTTP/1.1: {error}", code="garbage") from error
    if http.trailing_data[0] or channel.read(1):
        raise ConversationError("live challenge: bytes after the answer that nobody asked for", code="garbage")
    if http.our_state is not h11.DONE or http.their_state is not h11.DONE:
        raise ConversationError(
            "live challenge: the server closes the connection that it has just proven", code="connection_closed"
        )
    return body


def _request(http: h11.Connection, origin: Origin, challenge: bytes, path: str) -> bytes:
    host = in_url(origin.host)
    request = h11.Request(
        method="POST",
        target=path,
        headers=[
            ("host", host if origin.port == 443 else f"{host}:{origin.port}"),
            ("content-type", MEDIA_TYPE),
            ("accept", MEDIA_TYPE),
            ("content-length", str(len(challenge))),
        ],
    )
    parts = (http.send(request), http.send(h11.Data(data=challenge)), http.send(h11.EndOfMessage()))
    return b"".join(part for part in parts if part)


def _answer(http: h11.Connection, channel: Channel, limits: Limits) -> Steps[bytes]:
    body = bytearray()
    left = limits.challenge_answer + 4 * limits.challenge_header
    patience = INFORMATIONAL_MAX
    while True:
        event = http.next_event()
        match event:
            case h11.NEED_DATA:
                data = yield from _plaintext(channel)
                left -= len(data)
                if left < 0:
                    raise ConversationError("live challenge: the answer does not end", code="flooded")
                http.receive_data(data)
            case h11.InformationalResponse():
                patience -= 1
                if patience < 0:
                    raise ConversationError("live challenge: one interim answer after another", code="flooded")
            case h11.Response():
                _status(event, limits)
            case h11.Data():
                body += event.data
                if len(body) > limits.challenge_answer:
                    raise ConversationError(
                        f"live challenge: an answer of more than {limits.challenge_answer} bytes", code="flooded"
                    )
            case h11.EndOfMessage():
                return bytes(body)
            case h11.ConnectionClosed():
                raise ConversationError("live challenge: closed before an answer", code="connection_closed")


def _plaintext(channel: Channel) -> Steps[bytes]:
    while (data := channel.read(RECORD)) is None:
        cipher: bytes = yield Receive()
        if cipher:
            channel.feed(cipher)
        else:
            channel.feed_eof()
    return data


def _status(response: h11.Response, limits: Limits) -> None:
    status = response.status_code
    if status in _NO_LIVE:
        raise AttestationUnavailable(
            f"live challenge: the server has no live binding (HTTP {status})",
            hint='a foreign RA-TLS server may be met with freshness = "certificate"',
        )
    if 300 <= status < 400:
        raise ConversationError(f"live challenge: answered by a redirect (HTTP {status})", code="redirect_refused")
    if status != 200:
        raise ConversationError(f"live challenge: refused by the server (HTTP {status})", code="challenge_refused")
    headers = dict(response.headers)
    kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != MEDIA_TYPE.encode("ascii"):
        raise ConversationError(f"live challenge: answer wanted {MEDIA_TYPE}, seen {kind[:60]!r}", code="garbage")
    length = headers.get(b"content-length", b"0")
    if len(length) > 9 or int(length) > limits.challenge_answer:
        raise ConversationError(
            f"live challenge: an answer of more than {limits.challenge_answer} bytes announced", code="flooded"
        )
