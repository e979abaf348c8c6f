"""Attacks on the channel and on freshness (C rows): each defence, shown against a server that really attacks."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from attestable_mcp.appraise.policy import Policy, Rules, SgxRelease, TrustPolicy
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.bind.live import Answer, Challenge, Method
from attestable_mcp.errors import (
    AppraisalRefused,
    AttestationError,
    AttestationUnavailable,
    ChannelMismatch,
    ConversationError,
    EndorsementUnavailable,
)
from attestable_mcp.limits import Limits
from attestable_mcp.rats import EndorsementQuery, Endorsements
from attestable_mcp.tls.certificate import Issued, issue
from attestable_mcp.tls.challenge import AttestationMiddleware
from attestable_mcp.tls.client import Gate, attest_server, attested_http_client, attested_sync_http_client
from attestable_mcp.tls.engine import ClientContext, ServerContext, TlsSocket
from attestable_mcp.tls.server import Server
from attestable_mcp.verifier import Verifier
from attestable_mcp.wire import ratls

OURS, OTHER = b"\x01" * 32, b"\x02" * 32
ATTESTER = SimulatedAttester(OURS)
QUICK = Limits(connect_seconds=1.0, challenge_seconds=0.5, endorsement_seconds=1.0)
HASTY = Limits(connect_seconds=0.3, challenge_seconds=0.15)
"""For those who wait until nothing comes."""
PATIENT = Limits(connect_seconds=5.0, challenge_seconds=5.0)
ONE_REQUEST = b"POST /.well-known/attestation HTTP/1.1\r\n"


def _policy(*mrenclaves: bytes, **trust: Any) -> Policy:
    releases = tuple(SgxRelease(mrenclave=value.hex()) for value in mrenclaves or (OURS,))
    return Policy(
        rules=Rules(releases=releases), trust=TrustPolicy(simulated="accept", endorsements=("stapled",), **trust)
    )


async def _app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    message = {"body": b"", "more_body": True}
    body = b""
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
    headers = [(b"content-length", str(len(body) or 5).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body or b"hello"})


class Hostile:
    """A TCP server of its own thread. `behave` gets each socket; `seen` collects what it was sent in clear."""

    def __init__(self, behave: Callable[[Hostile, socket.socket], None]) -> None:
        self._behave = behave
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"https://127.0.0.1:{self.port}"
        self.seen = b""
        self.connections = 0
        self.end = threading.Event()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Hostile:
        self._threads[0].start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.end.set()
        with contextlib.suppress(OSError):  # whoever waits to accept wakes up
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            if self.end.is_set():
                sock.close()
                break
            self.connections += 1
            self._sockets.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            sock.settimeout(5)
            self._behave(self, sock)


def _issued(measured: bytes = OURS, **options: Any) -> Issued:
    return issue(SimulatedAttester(measured), ["127.0.0.1", "localhost"], **options)


def _after_handshake(
    speak: Callable[[Hostile, TlsSocket], None], issued: Issued | None = None
) -> Callable[[Hostile, socket.socket], None]:
    """A server with a genuine certificate and its key, whose conduct after the handshake is `speak`."""
    identity = issued or _issued()
    context = ServerContext(identity.certificate_der, identity.key_pem)

    def behave(host: Hostile, sock: socket.socket) -> None:
        tls = context.wrap_socket(sock, server_side=True)
        speak(host, tls)
        with contextlib.suppress(OSError):
            while data := tls.recv(65536):
                host.seen += data

    return behave


def _challenge(host: Hostile, tls: TlsSocket) -> Challenge:
    """Read the one request and give its challenge."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += tls.recv(65536)
    head, body = data.split(b"\r\n\r\n", 1)
    length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
    while len(body) < length:
        body += tls.recv(65536)
    host.seen += head + b"\r\n\r\n" + body
    return Challenge.decode(body)


def _response(body: bytes, *, status: bytes = b"200 OK", kind: bytes = b"application/cbor", more: bytes = b"") -> bytes:
    head = b"HTTP/1.1 %s\r\ncontent-type: %s\r\ncontent-length: %d\r\n%s\r\n" % (status, kind, len(body), more)
    return head + body


def _attest(url: str, policy: Policy | None = None, *, limits: Limits = PATIENT, **options: Any) -> Any:
    return asyncio.run(attest_server(policy or _policy(), url, limits=limits, **options))


def _refusal(url: str, policy: Policy | None = None, **options: Any) -> AttestationError:
    """The refusal that a client meets when it tries to POST a secret; nothing else may come out."""
    with pytest.raises(AttestationError) as caught:
        asyncio.run(_post(url, policy or _policy(), **options))
    return caught.value


async def _post(url: str, policy: Policy, **options: Any) -> bytes:
    options = {"limits": PATIENT} | options
    async with attested_http_client(policy, url=url, **options) as client:
        return (await client.post(url + "/mcp", content=b"SECRET")).content


def _only_the_challenge(host: Hostile) -> None:
    assert b"SECRET" not in host.seen
    assert host.seen == b"" or host.seen.startswith(ONE_REQUEST)
    assert host.seen.count(b"HTTP/1.1") <= 1


class Counting:
    """A source of collateral that counts who asks."""

    name = "counting"

    def __init__(self) -> None:
        self.calls = 0

    def fetch(self, query: EndorsementQuery, *, deadline_seconds: float) -> Endorsements:
        self.calls += 1
        raise EndorsementUnavailable("counting source has nothing")


# C1: replay


def test_c1_a_certificates_evidence_under_another_key_is_refused() -> None:
    victim = ratls.read(_issued().certificate_der)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "impostor")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(7).not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
    )  # fmt: skip
    for extension in victim.leaf.extensions:
        if extension.oid.startswith("2.23.133.5.4"):
            copied = x509.UnrecognizedExtension(x509.ObjectIdentifier(extension.oid), extension.value)
            builder = builder.add_extension(copied, critical=False)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    der = builder.sign(key, SHA256()).public_bytes(Encoding.DER)
    forged = replace(_issued(), certificate_der=der, key_pem=pem)
    with Hostile(_after_handshake(lambda host, tls: None, forged)) as host:
        error = _refusal(host.url)
    assert isinstance(error, AppraisalRefused)
    assert error.code == "channel_binding_mismatch"
    assert host.seen == b""


def test_c1_a_replayed_certificate_without_its_key_is_refused_by_name() -> None:
    from attestable_mcp.cli.impostors import thief_of_certificate

    async def run() -> AttestationError:
        async with thief_of_certificate(_issued().certificate_der) as url:
            return await asyncio.to_thread(_refusal, url)

    error = asyncio.run(run())
    assert isinstance(error, ConversationError)
    assert error.code == "key_not_proven"
    assert error.hint


def test_c1_an_expired_certificate_is_refused_before_any_network_call() -> None:
    source = Counting()
    old = _issued(now=datetime.now(UTC) - timedelta(days=3))
    policy = _policy()
    with Hostile(_after_handshake(lambda host, tls: None, old)) as host:
        error = _refusal(host.url, policy, verifier=Verifier(policy, sources=[source]))
    assert error.code == "stale_evidence"
    assert source.calls == 0
    assert host.seen == b""


def _recorded(server_url: str) -> bytes:
    """A good session's answer, as someone who sees the plaintext would record it."""
    port = int(server_url.rsplit(":", 1)[1])
    sock = socket.create_connection(("127.0.0.1", port), 5)
    with ClientContext().wrap_socket(sock, server_hostname="localhost") as tls:
        body = Challenge().encode()
        tls.sendall(ONE_REQUEST + b"host: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        data = b""
        while b"\r\n\r\n" not in data:
            data += tls.recv(65536)
        head, answer = data.split(b"\r\n\r\n", 1)
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"content-length"))
        while len(answer) < length:
            answer += tls.recv(65536)
        return answer


def test_c1_c11_a_recorded_answer_is_refused_even_with_the_stolen_leaf_key() -> None:
    """The verifier is new each time, as after a restart: nothing that it remembers makes the difference."""

    async def record() -> tuple[Issued, bytes]:
        async with Server(_app, ATTESTER) as server:
            return server.issued, await asyncio.to_thread(_recorded, server.url)

    stolen, answer = asyncio.run(record())
    Answer.decode(answer)

    def replay(host: Hostile, tls: TlsSocket) -> None:
        _challenge(host, tls)
        tls.sendall(_response(answer))

    with Hostile(_after_handshake(replay, stolen)) as host:
        for _ in range(2):
            error = _refusal(host.url)
            assert isinstance(error, ChannelMismatch)
            assert error.code == "channel_binding_mismatch"
    assert b"SECRET" not in host.seen


# C3: relay with the leaf key


def _relay(port: int) -> Callable[[Hostile, TlsSocket], None]:
    def speak(host: Hostile, tls: TlsSocket) -> None:
        onward = ClientContext().wrap_socket(socket.create_connection(("127.0.0.1", port), 5))
        with onward:
            data = tls.recv(65536)
            host.seen += data
            onward.sendall(data)
            onward.settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                while more := onward.recv(65536):
                    tls.sendall(more)

    return speak


@pytest.mark.parametrize("binding", ["key", "quote"])
def test_c3_a_relay_that_holds_the_leaf_key_is_refused(binding: str) -> None:
    async def run() -> tuple[AttestationError, Hostile, int]:
        policy = _policy(binding=binding)
        async with Server(_app, ATTESTER) as server:
            honest = await _post(server.url, policy)
            with Hostile(_after_handshake(_relay(server.port), server.issued)) as host:
                with pytest.raises(AttestationError) as caught:
                    await _post(host.url, policy)
            return caught.value, host, len(honest)

    error, host, length = asyncio.run(run())
    assert length == len(b"SECRET")
    assert isinstance(error, ChannelMismatch)
    assert error.code == "channel_binding_mismatch"
    _only_the_challenge(host)


def test_c3_a_relay_to_a_known_server_cannot_use_its_binding_key() -> None:
    """The client knows the server's key already and meets the relay under the same origin."""

    async def run() -> AttestationError:
        gate = Gate(_policy(), limits=PATIENT)
        async with Server(_app, ATTESTER) as server:
            turns = iter(["honest", "relay"])
            with Hostile(_switch(turns, server, _after_handshake(_relay(server.port), server.issued))) as host:
                await attest_server(gate.policy, host.url, gate=gate)
                with pytest.raises(AttestationError) as caught:
                    await attest_server(gate.policy, host.url, gate=gate)
                return caught.value

    error = asyncio.run(run())
    assert isinstance(error, ChannelMismatch)
    assert "signature" in error.message


def _pump(left: socket.socket, right: socket.socket) -> None:
    """Bare TCP, both ways, until either ends."""

    def one(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    back = threading.Thread(target=one, args=(right, left), daemon=True)
    back.start()
    one(left, right)
    back.join(0.2)  # the server may share a thread with the test that waits for us


def _switch(
    turns: Iterator[str], server: Server, otherwise: Callable[[Hostile, socket.socket], None]
) -> Callable[[Hostile, socket.socket], None]:
    def behave(host: Hostile, sock: socket.socket) -> None:
        if next(turns) == "honest":
            with socket.create_connection(("127.0.0.1", server.port), 5) as onward:
                _pump(sock, onward)
        else:
            otherwise(host, sock)

    return behave


# C5: one connection owns handshake, evidence and requests


def test_c5_a_certificate_that_changes_between_dials_is_judged_again() -> None:
    async def run() -> tuple[bytes, AttestationError, int]:
        async with Server(_app, ATTESTER) as good, Server(_app, SimulatedAttester(OTHER)) as bad:
            ports = iter([good.port, bad.port])

            def behave(host: Hostile, sock: socket.socket) -> None:
                with socket.create_connection(("127.0.0.1", next(ports)), 5) as onward:
                    _pump(sock, onward)

            with Hostile(behave) as host:
                async with attested_http_client(_policy(), url=host.url, limits=PATIENT) as client:
                    headers = {"connection": "close"}
                    first = (await client.post(host.url, content=b"one", headers=headers)).content
                    assert host.connections == 1, "handshake, challenge and request went over one connection"
                    with pytest.raises(AttestationError) as caught:
                        await client.post(host.url, content=b"SECRET")
                return first, caught.value, host.connections

    first, error, connections = asyncio.run(run())
    assert first == b"one"
    assert error.code == "measurement_mismatch"
    assert connections == 2


def test_c5_certificate_and_live_evidence_must_be_of_the_same_code() -> None:
    async def run() -> AttestationError:
        server = Server(_app, ATTESTER)
        server.challenge = AttestationMiddleware(_app, SimulatedAttester(OTHER))
        async with server:
            with pytest.raises(AttestationError) as caught:
                await _post(server.url, _policy(OURS, OTHER))
            return caught.value

    error = asyncio.run(run())
    assert isinstance(error, ChannelMismatch)
    assert "mrenclave" in error.message


# C6: redirects, other origins, proxies


@contextlib.contextmanager
def _listening() -> Iterator[Hostile]:
    def swallow(host: Hostile, sock: socket.socket) -> None:
        while data := sock.recv(65536):
            host.seen += data

    with Hostile(swallow) as host:
        yield host


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("scheme", ["https", "http"])
def test_c6_a_redirect_to_another_host_is_an_error_and_carries_nothing(status: int, scheme: str) -> None:
    async def run(target: str) -> AttestationError:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                headers = [(b"location", target.encode()), (b"content-length", b"0")]
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": b""})

        async with Server(app, ATTESTER) as server:
            with pytest.raises(AttestationError) as caught:
                await _post(server.url, _policy())
            return caught.value

    with _listening() as elsewhere:
        error = asyncio.run(run(f"{scheme}://127.0.0.1:{elsewhere.port}/mcp"))
    assert error.code == "redirect_refused"
    assert (elsewhere.connections, elsewhere.seen) == (0, b"")


def test_c6_a_client_cannot_be_told_to_follow_redirects() -> None:
    for option in ({"follow_redirects": True}, {"trust_env": True}, {"proxy": "http://127.0.0.1:1"}, {"verify": False}):
        with pytest.raises(TypeError):
            attested_http_client(_policy(), **option)


def test_c6_other_origins_and_plain_http_are_refused_unmet() -> None:
    async def run(other: Hostile) -> list[str]:
        codes = []
        async with Server(_app, ATTESTER) as server:
            async with attested_http_client(_policy(), limits=PATIENT) as client:
                await client.get(server.url)
                for url in (other.url, other.url.replace("https", "http"), server.url.replace("https", "http")):
                    with pytest.raises(ConversationError) as caught:
                        await client.post(url, content=b"SECRET", follow_redirects=True)
                    codes.append(caught.value.code)
        return codes

    with _listening() as other:
        assert asyncio.run(run(other)) == ["other_origin", "plaintext_refused", "plaintext_refused"]
    assert other.connections == 0


def test_c6_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with _listening() as proxy:
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")

        async def run() -> bytes:
            async with Server(_app, ATTESTER) as server:
                return await _post(server.url, _policy())

        assert asyncio.run(run()) == b"SECRET"
    assert proxy.connections == 0


# C7: nothing before the verdict


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"\x00garbage\r\n\r\n", "garbage"),
        (_response(b"not cbor"), None),
        (_response(b"\xa0"), "malformed_evidence"),
        (_response(b"{}", kind=b"application/json"), "garbage"),
        (_response(b"", status=b"500 Oops"), "challenge_refused"),
        (_response(b"", status=b"404 Not Found"), "attestation_unavailable"),
        (_response(b"", status=b"307 Elsewhere", more=b"location: https://127.0.0.1:1/\r\n"), "redirect_refused"),
    ],
)
def test_c7_a_server_that_fails_the_challenge_sees_the_challenge_only(answer: bytes, code: str | None) -> None:
    def speak(host: Hostile, tls: TlsSocket) -> None:
        _challenge(host, tls)
        tls.sendall(answer)

    with Hostile(_after_handshake(speak)) as host:
        error = _refusal(host.url)
    assert code in (None, error.code)
    assert host.seen.startswith(ONE_REQUEST)
    _only_the_challenge(host)


def test_c7_a_server_of_other_code_sees_not_even_the_challenge() -> None:
    with Hostile(_after_handshake(lambda host, tls: None, _issued(OTHER))) as host:
        error = _refusal(host.url)
    assert error.code == "measurement_mismatch"
    assert isinstance(error, AppraisalRefused)
    assert error.result is not None
    assert host.seen == b""


def test_c7_the_blocking_client_holds_the_same_gate() -> None:
    with Hostile(_after_handshake(lambda host, tls: None, _issued(OTHER))) as host:
        with attested_sync_http_client(_policy(), url=host.url, limits=PATIENT) as client:
            with pytest.raises(AppraisalRefused):
                client.post(host.url, content=b"SECRET")
    assert host.seen == b""


def test_c7_simulated_evidence_is_refused_unless_asked_for() -> None:
    strict = Policy(rules=Rules(releases=(SgxRelease(mrenclave=OURS.hex()),)), trust=TrustPolicy())
    with Hostile(_after_handshake(lambda host, tls: None)) as host:
        error = _refusal(host.url, strict)
    assert isinstance(error, AppraisalRefused)
    assert host.seen == b""


# C8: no silent fallback


def test_c8_an_ordinary_certificate_is_attestation_unavailable(ordinary: tuple[bytes, bytes]) -> None:
    context = ServerContext(*ordinary)

    def behave(host: Hostile, sock: socket.socket) -> None:
        tls = context.wrap_socket(sock, server_side=True)
        host.seen += tls.recv(65536)

    with Hostile(behave) as host:
        error = _refusal(host.url)
    assert isinstance(error, AttestationUnavailable)
    assert (error.code, error.exit_code, host.seen) == ("attestation_unavailable", 3, b"")


@pytest.fixture
def ordinary() -> tuple[bytes, bytes]:
    """A certificate without evidence, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "ordinary")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(7).not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(hours=1))
        .sign(key, SHA256())
    )  # fmt: skip
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.DER), pem


# C9: TLS itself


def test_c9_a_server_older_than_tls_1_3_is_refused(tmp_path: Path) -> None:
    issued = _issued()
    pem = tmp_path / "server.pem"
    pem.write_bytes(ssl.DER_cert_to_PEM_cert(issued.certificate_der).encode() + issued.key_pem)
    stock = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    stock.load_cert_chain(pem)
    stock.maximum_version = ssl.TLSVersion.TLSv1_2

    def behave(host: Hostile, sock: socket.socket) -> None:
        with contextlib.suppress(ssl.SSLError), stock.wrap_socket(sock, server_side=True) as tls:
            host.seen += tls.recv(65536)

    with Hostile(behave) as host:
        error = _refusal(host.url)
    assert isinstance(error, ConversationError)
    assert error.code == "tls_version"
    assert host.seen == b""


def test_c9_a_forced_hello_retry_request_changes_nothing() -> None:
    async def run() -> tuple[bytes, str | None]:
        async with Server(_app, ATTESTER) as server:
            server.context._current[0].set_tmp_ecdh(ec.SECP521R1())
            async with attested_http_client(_policy(), url=server.url, limits=PATIENT) as client:
                response = await client.post(server.url, content=b"over P-521")
                channel = response.extensions["network_stream"].get_extra_info("ssl_object")
                return response.content, channel.group()

    body, group = asyncio.run(run())
    assert body == b"over P-521"
    assert group in ("secp521r1", "P-521")


def test_c9_a_plain_http_server_is_refused() -> None:
    def behave(host: Hostile, sock: socket.socket) -> None:
        host.seen += sock.recv(65536)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with Hostile(behave) as host:
        error = _refusal(host.url)
    assert isinstance(error, ConversationError)
    assert b"SECRET" not in host.seen


# Conduct: stalls, garbage, half-closed connections, floods


def _stall_before_tls(host: Hostile, sock: socket.socket) -> None:
    host.end.wait(5)


def _stall_after_handshake(host: Hostile, tls: TlsSocket) -> None:
    host.end.wait(5)


def _drip(host: Hostile, tls: TlsSocket) -> None:
    with contextlib.suppress(OSError):
        for byte in _response(b"\xa0" * 1000):
            tls.sendall(bytes([byte]))
            if host.end.wait(0.05):
                return


def _hang_up(host: Hostile, tls: TlsSocket) -> None:
    _challenge(host, tls)
    tls.close()


def _cut_off(host: Hostile, tls: TlsSocket) -> None:
    _challenge(host, tls)
    tls.sendall(_response(b"\xa0" * 100)[:-50])
    tls.unwrap().shutdown(socket.SHUT_RDWR)


def _no_close_notify(host: Hostile, tls: TlsSocket) -> None:
    _challenge(host, tls)
    tls.shutdown(socket.SHUT_RDWR)


def _flood(block: bytes, head: bytes = b"") -> Callable[[Hostile, TlsSocket], None]:
    def speak(host: Hostile, tls: TlsSocket) -> None:
        with contextlib.suppress(OSError):
            tls.sendall(head)
            while not host.end.is_set():
                tls.sendall(block)

    return speak


def _too_much(host: Hostile, tls: TlsSocket) -> None:
    _challenge(host, tls)
    tls.sendall(_response(b"\xa0") + b"HTTP/1.1 200 OK\r\n\r\n")


def _closing(host: Hostile, tls: TlsSocket) -> None:
    _challenge(host, tls)
    tls.sendall(_response(b"\xa0", more=b"connection: close\r\n"))


CHUNK = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
CONDUCT = {
    "stall": (_stall_after_handshake, "stalled"),
    "drip": (_drip, "stalled"),
    "hang up": (_hang_up, "garbage"),
    "cut off": (_cut_off, "garbage"),
    "no close_notify": (_no_close_notify, "tls"),
    "garbage flood": (_flood(b"\x00" * 65536), "garbage"),
    "header flood": (_flood(b"x-a: " + b"y" * 8000 + b"\r\n", b"HTTP/1.1 200 OK\r\n"), "garbage"),
    "informational flood": (_flood(b"HTTP/1.1 103 Early\r\n\r\n" * 500), "flooded"),
    "chunked flood": (
        _flood(CHUNK, b"HTTP/1.1 200 OK\r\ncontent-type: application/cbor\r\ntransfer-encoding: chunked\r\n\r\n"),
        "flooded",
    ),
    "announced flood": (
        _flood(b"z" * 65536, b"HTTP/1.1 200 OK\r\ncontent-type: application/cbor\r\ncontent-length: 104857600\r\n\r\n"),
        "flooded",
    ),
    "bytes after the answer": (_too_much, "garbage"),
    "closing after the answer": (_closing, "connection_closed"),
}


@pytest.mark.parametrize("name", CONDUCT)
@pytest.mark.parametrize("blocking", [False, True], ids=["async", "blocking"])
def test_c7_bad_conduct_after_the_handshake_is_refused_in_time(name: str, blocking: bool) -> None:
    speak, code = CONDUCT[name]
    limits = HASTY if code == "stalled" else QUICK
    with Hostile(_after_handshake(speak)) as host:
        started = time.monotonic()
        if blocking:
            with attested_sync_http_client(_policy(), url=host.url, limits=limits) as client:
                with pytest.raises(AttestationError) as caught:
                    client.post(host.url, content=b"SECRET")
            error: AttestationError = caught.value
        else:
            error = _refusal(host.url, limits=limits)
        seconds = time.monotonic() - started
        host.end.set()
    assert isinstance(error, ConversationError)
    assert error.code == code
    assert seconds < 2.5
    assert b"SECRET" not in host.seen


@pytest.mark.parametrize(
    ("behave", "code"),
    [
        (_stall_before_tls, "stalled"),
        (lambda host, sock: sock.sendall(b"\x00" * 1000), "tls"),
        (lambda host, sock: sock.shutdown(socket.SHUT_WR), "tls"),
    ],
)
def test_c7_bad_conduct_before_the_handshake_is_refused_in_time(behave: Any, code: str) -> None:
    with Hostile(behave) as host:
        started = time.monotonic()
        error = _refusal(host.url, limits=HASTY if code == "stalled" else QUICK)
        seconds = time.monotonic() - started
        host.end.set()
    assert error.code == code
    assert seconds < 2.5


def test_an_unreachable_server_is_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConversationError) as caught:
        _attest(f"https://127.0.0.1:{port}")
    assert caught.value.code == "unreachable"
    with pytest.raises(httpx2.ConnectError):
        asyncio.run(_post(f"https://127.0.0.1:{port}", _policy()))


# E7: appetite, measured in a process of its own


METER = """
    import asyncio, resource, sys, time
    from attestable_mcp.appraise.policy import Policy, Rules, SgxRelease, TrustPolicy
    from attestable_mcp.errors import AttestationError
    from attestable_mcp.tls.client import attest_server
    policy = Policy(rules=Rules(releases=(SgxRelease(mrenclave="01" * 32),)),
                    trust=TrustPolicy(simulated="accept", endorsements=("stapled",)))
    async def meet(url):
        try:
            await attest_server(policy, url)
        except AttestationError as error:
            return error.code
    asyncio.run(meet("https://127.0.0.1:1"))
    unit = 1 if sys.platform == "darwin" else 1024
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for url in sys.argv[1:]:
        started = time.process_time()  # what it costs us; what else the machine does is not asked
        code = asyncio.run(meet(url))
        print(code, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - idle) * unit, time.process_time() - started)
"""


def _appetite(*urls: str) -> list[tuple[str, int, float]]:
    """Of one client that meets one after the other: each refusal, the growth up to it, its seconds."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(METER), *urls], capture_output=True, text=True, timeout=30, check=True
    )
    found = [line.split() for line in done.stdout.splitlines()]
    return [(code, int(growth), float(seconds)) for code, growth, seconds in found]


def _giant() -> Issued:
    """A certificate of 15 MB: TLS cannot announce more than 16 in one message (RFC 8446 section 4)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "giant")])
    now = datetime.now(UTC)
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(ratls.OID_TAGGED_EVIDENCE), bytes(15_000_000))
    der = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(now).not_valid_after(now + timedelta(hours=1)).add_extension(extension, critical=False)
        .sign(key, SHA256()).public_bytes(Encoding.DER)
    )  # fmt: skip
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return replace(_issued(), certificate_der=der, key_pem=pem)


@pytest.mark.skipif(sys.platform == "win32", reason="resource is a POSIX module")
def test_e7_a_hostile_100_mb_is_refused_with_little_memory_and_at_once() -> None:
    conduct = {
        kind: _after_handshake(CONDUCT[kind][0]) for kind in ("chunked flood", "announced flood", "garbage flood")
    }
    conduct["certificate"] = _after_handshake(lambda host, tls: None, _giant())
    with contextlib.ExitStack() as stack:
        hosts = [stack.enter_context(Hostile(behave)) for behave in conduct.values()]
        met = _appetite(*(host.url for host in hosts))
    assert len(met) == len(conduct)
    for kind, (code, growth, seconds) in zip(conduct, met, strict=True):
        assert code in ("tls", "flooded", "garbage"), kind
        assert growth < 60_000_000, kind
        assert seconds < 1.5, kind


# The good case: what all the refusals are measured against


def test_later_connections_are_bound_by_the_attested_key() -> None:
    async def run() -> list[tuple[Method, int]]:
        seen = []
        for binding in ("key", "quote"):
            gate = Gate(_policy(binding=binding), limits=PATIENT)
            async with Server(_app, ATTESTER) as server:
                for _ in range(3):
                    peer = await attest_server(gate.policy, server.url, gate=gate)
                    assert peer.binding is not None
                    seen.append((peer.binding.method, peer.counter))
        return seen

    assert asyncio.run(run()) == [
        (Method.QUOTE, 0), (Method.KEY, 1), (Method.KEY, 2), (Method.QUOTE, 0), (Method.QUOTE, 1), (Method.QUOTE, 2),
    ]  # fmt: skip


def test_a_key_past_its_age_is_replaced_by_a_quote() -> None:
    async def run() -> list[Method]:
        start = datetime.now(UTC)
        moment = [start]
        gate = Gate(_policy(max_age=600.0), limits=PATIENT, clock=lambda: moment[0])
        methods = []
        async with Server(_app, ATTESTER) as server:
            for seconds in (0, 599, 602):
                moment[0] = start + timedelta(seconds=seconds)
                peer = await attest_server(gate.policy, server.url, gate=gate)
                assert peer.binding is not None
                methods.append(peer.binding.method)
        return methods

    assert asyncio.run(run()) == [Method.QUOTE, Method.KEY, Method.QUOTE]


def test_certificate_freshness_says_what_it_leaves_open() -> None:
    async def run() -> Any:
        async with Server(_app, ATTESTER) as server:
            return await attest_server(_policy(freshness="certificate"), server.url)

    peer = asyncio.run(run())
    assert peer.binding is None
    assert any("nothing ties it to a live connection" in sentence for sentence in peer.result.not_proven)
