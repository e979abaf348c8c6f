"""The challenge endpoint: what it signs, what it refuses, and how it shares quotes."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.bind.keys import check_signature
from attestable_mcp.bind.live import Answer, Challenge, Commitments, KeyProof, QuoteProof, rebuild
from attestable_mcp.bind.transcript import EXPORTER_LABEL, Role
from attestable_mcp.bind.tree import leaf_hash, root_from_path
from attestable_mcp.errors import AttesterError
from attestable_mcp.limits import Limits
from attestable_mcp.rats import Endorsements, Evidence
from attestable_mcp.tls.certificate import issue
from attestable_mcp.tls.challenge import PATH, STATE_KEY, AttestationMiddleware
from attestable_mcp.tls.channel import Channel
from attestable_mcp.tls.engine import ClientContext, ServerContext
from attestable_mcp.wire.intel import read_quote

REAL = SimulatedAttester(b"\x01" * 32)
CONTEXT = (lambda issued: ServerContext(issued.certificate_der, issued.key_pem))(issue(REAL, ["localhost"]))


class Recording:
    """Counts and keeps every report data that it is asked to sign; can be held back or broken."""

    tee = "sgx"
    simulated = True

    def __init__(self, fault: Exception | None = None) -> None:
        self.signed: list[bytes] = []
        self.gate = threading.Event()
        self.gate.set()
        self._fault = fault

    def attest(self, report_data: bytes) -> Evidence:
        self.gate.wait(5)
        self.signed.append(report_data)
        if self._fault is not None:
            raise self._fault
        return REAL.attest(report_data)

    def endorsements(self) -> Endorsements:
        return Endorsements()


def _connection() -> tuple[Channel, Channel]:
    server, client = CONTEXT.channel(), ClientContext().channel()
    for _ in range(4):
        client.handshake()
        server.feed(client.take())
        server.handshake()
        client.feed(server.take())
    return server, client


async def _inner(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b"inner"})


async def _call(
    app: AttestationMiddleware, body: bytes, server: Channel | None, *, method: str = "POST", path: str = PATH
) -> tuple[int, bytes]:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    state = {} if server is None else {STATE_KEY: server}
    await app({"type": "http", "method": method, "path": path, "state": state}, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


def _post(app: AttestationMiddleware, body: bytes, server: Channel | None) -> tuple[int, bytes]:
    return asyncio.run(_call(app, body, server))


def _rebuilt(answer: Answer, challenge: Challenge, client: Channel) -> bytes:
    exporter = client.export_keying_material(EXPORTER_LABEL, 32)
    spki = CONTEXT.identity.spki_sha256
    return rebuild(answer, challenge, role=Role.SERVER, exporter=exporter, own_spki=spki).digest()


def test_the_answer_commits_to_the_clients_own_view_of_the_connection() -> None:
    server, client = _connection()
    commitments = Commitments(manifest=b"m" * 32, configuration=b"c" * 64, deployment_key=b"d" * 32)
    app = AttestationMiddleware(_inner, REAL, commitments=lambda: commitments)
    challenge = Challenge(counter=4, previous=b"p" * 64)
    status, body = _post(app, challenge.encode(), server)
    answer = Answer.decode(body)
    assert status == 200
    assert answer.commitments == commitments
    assert isinstance(answer.proof, QuoteProof)
    assert read_quote(answer.proof.evidence.body).report_data == leaf_hash(_rebuilt(answer, challenge, client))


def test_a_known_key_answers_without_a_quote() -> None:
    server, client = _connection()
    attester = Recording()
    app = AttestationMiddleware(_inner, attester)
    key = Answer.decode(_post(app, Challenge().encode(), server)[1]).binding_key
    challenge = Challenge(counter=1, previous=b"p" * 64, known_key=key)
    answer = Answer.decode(_post(app, challenge.encode(), server)[1])
    assert isinstance(answer.proof, KeyProof)
    check_signature(key, answer.proof.signature, _rebuilt(answer, challenge, client))
    assert len(attester.signed) == 1


def test_an_unknown_key_gets_a_quote() -> None:
    server, _ = _connection()
    answer = Answer.decode(
        _post(AttestationMiddleware(_inner, REAL), Challenge(known_key=b"k" * 32).encode(), server)[1]
    )
    assert isinstance(answer.proof, QuoteProof)


def test_one_quote_serves_all_who_wait() -> None:
    attester = Recording()
    app = AttestationMiddleware(_inner, attester)
    pairs = [(_connection(), Challenge()) for _ in range(7)]

    async def run() -> list[tuple[int, bytes]]:
        attester.gate.clear()
        calls = [asyncio.create_task(_call(app, challenge.encode(), server)) for (server, _), challenge in pairs[:1]]
        await asyncio.sleep(0.05)
        calls += [asyncio.create_task(_call(app, challenge.encode(), server)) for (server, _), challenge in pairs[1:]]
        await asyncio.sleep(0.05)
        attester.gate.set()
        return await asyncio.gather(*calls)

    sizes = []
    for ((_, client), challenge), (status, body) in zip(pairs, asyncio.run(run()), strict=True):
        answer = Answer.decode(body)
        proof = answer.proof
        assert status == 200
        assert isinstance(proof, QuoteProof)
        root = root_from_path(_rebuilt(answer, challenge, client), proof.index, proof.size, proof.path)
        assert read_quote(proof.evidence.body).report_data == root
        sizes.append(proof.size)
    assert sizes == [1] + [6] * 6
    assert len(attester.signed) == 2


@settings(max_examples=40)
@given(
    st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda nonce, counter, previous: Challenge(nonce=nonce, counter=counter, previous=previous).encode(),
            st.binary(min_size=32, max_size=32),
            st.integers(0, 2**64 - 1),
            st.binary(min_size=64, max_size=64),
        ),
    )
)
def test_c12_nothing_that_a_caller_sends_is_signed_as_it_is(body: bytes) -> None:
    attester = Recording()
    server, client = _connection()
    status, sent = _post(AttestationMiddleware(_inner, attester), body, server)
    for signed in attester.signed:
        answer = Answer.decode(sent)
        assert signed not in body
        assert signed == leaf_hash(_rebuilt(answer, Challenge.decode(body), client))
    assert (status == 200) == bool(attester.signed)


def test_c12_no_wished_for_report_data_is_ever_signed() -> None:
    wished = b"\xde\xad\xbe\xef" * 16
    attester = Recording()
    app = AttestationMiddleware(_inner, attester)
    server, _ = _connection()
    bodies = [wished, b"\x58\x40" + wished, Challenge(nonce=wished[:32], previous=wished).encode()]
    for body in bodies:
        _post(app, body, server)
    assert len(attester.signed) == 1
    assert wished not in attester.signed


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00", b"\xa0", b"x" * 5000, Challenge().encode() + b"\x00"],
    ids=["empty", "number", "map", "long", "trailing"],
)
def test_challenges_out_of_form_are_refused_without_a_quote(body: bytes) -> None:
    attester = Recording()
    status, sent = _post(AttestationMiddleware(_inner, attester), body, _connection()[0])
    assert status == 400
    assert json.loads(sent)["error"]
    assert attester.signed == []


def test_a_connection_that_is_not_ours_is_refused() -> None:
    assert _post(AttestationMiddleware(_inner, Recording()), Challenge().encode(), None)[0] == 503


@pytest.mark.parametrize("fault", [AttesterError("device gone"), RuntimeError("bug")])
def test_a_failing_device_is_told_without_its_secrets(fault: Exception) -> None:
    app = AttestationMiddleware(_inner, Recording(fault))
    status, sent = _post(app, Challenge().encode(), _connection()[0])
    assert status == 503
    assert b"gone" not in sent
    assert b"bug" not in sent


def test_a_device_that_hangs_is_given_up_and_the_queue_is_bounded() -> None:
    attester = Recording()
    app = AttestationMiddleware(_inner, attester, limits=Limits(challenge_seconds=0.1))
    app.quoter._waiting_max = 2
    server = _connection()[0]

    async def run() -> list[tuple[int, bytes]]:
        attester.gate.clear()
        calls = [asyncio.create_task(_call(app, Challenge().encode(), server)) for _ in range(6)]
        answers = await asyncio.gather(*calls)
        attester.gate.set()
        return answers

    assert {status for status, _ in asyncio.run(run())} == {503}
    assert len(attester.signed) <= 2


def test_get_describes_and_other_methods_are_refused() -> None:
    app = AttestationMiddleware(_inner, REAL)
    status, body = asyncio.run(_call(app, b"", None, method="GET"))
    assert status == 200
    assert json.loads(body) == {
        "binding": "attestable-mcp/bind/v1", "evidence": ["intel-quote"], "tee": "sgx", "simulated": True,
        "clients": "none",
    }  # fmt: skip
    assert asyncio.run(_call(app, b"", None, method="DELETE"))[0] == 405


@pytest.mark.parametrize("path", ["/", "/mcp", PATH + "/", PATH + "x", PATH.upper()])
def test_everything_else_goes_to_the_application(path: str) -> None:
    assert asyncio.run(_call(AttestationMiddleware(_inner, REAL), b"", None, path=path)) == (299, b"inner")
