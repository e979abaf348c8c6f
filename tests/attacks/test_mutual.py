"""Attacks on proofs that go both ways and on proofs that are renewed (C4, C13), and front doors (C10).

Each attacker here holds all that it could: the right code, a genuine attester, where that makes it stronger even the
other side's leaf key. What it cannot have is an answer to a challenge that was made for somebody or something else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from attestable_mcp.appraise.policy import Policy, Rules, SgxRelease, TrustPolicy
from attestable_mcp.appraise.reattest import ReattestPolicy
from attestable_mcp.appraise.server_policy import ServerPolicy
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.bind.keys import BindingKey
from attestable_mcp.bind.live import Answer, Challenge
from attestable_mcp.bind.transcript import Role
from attestable_mcp.cli.impostors import relay_with_key
from attestable_mcp.errors import AttestationError, AttestationUnavailable, ConversationError
from attestable_mcp.tls.certificate import issue
from attestable_mcp.tls.challenge import AttestationMiddleware
from attestable_mcp.tls.client import Gate, attest_server, attested_http_client, attested_sync_http_client
from attestable_mcp.tls.clients import ClientGate, Said
from attestable_mcp.tls.prover import ClientProver
from attestable_mcp.tls.server import Server

CODE = b"\x01" * 32
ATTESTER = SimulatedAttester(CODE)
"""The same code at both ends: an exchange of roles is then all that an attacker needs."""


def _policy(**options: Any) -> Policy:
    return Policy(
        rules=Rules(releases=(SgxRelease(label="both", mrenclave=CODE.hex()),)),
        trust=TrustPolicy(simulated="accept", endorsements=("stapled",)),
        **options,
    )


async def _app(scope: Any, receive: Any, send: Any) -> None:
    APPLICATION.append(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": b"served"})


APPLICATION: list[str] = []


@pytest.fixture(autouse=True)
def _fresh() -> None:
    APPLICATION.clear()


def _required(**options: Any) -> ClientGate:
    return ClientGate(ServerPolicy(clients="required", policy=_policy(), **options))


@asynccontextmanager
async def _serving(clients: ClientGate | None = None) -> AsyncIterator[Server]:
    async with Server(_app, ATTESTER, clients=clients) as server:
        yield server


async def _get(url: str, gate: Gate, times: int = 1, *, fresh: bool = False) -> httpx2.Response:
    async with attested_http_client(gate.policy, url=url, gate=gate) as http:
        for turn in range(times):
            response = await http.get(f"{url}/{turn}", extensions={"reattest": fresh and turn > 0})
    return response


class TwistedProver(ClientProver):
    """A client that may answer with anything."""

    twist: Callable[[Answer, Challenge, Any], Answer] = staticmethod(lambda answer, challenge, channel: answer)

    def answer(self, challenge: Challenge, channel: Any, peer_spki: bytes) -> Any:
        answer = yield from super().answer(challenge, channel, peer_spki)
        return self.twist(answer, challenge, channel)


class TwistedServer(AttestationMiddleware):
    """A server that may answer with anything."""

    twist: Callable[[Answer, Challenge, Any], Answer] = staticmethod(lambda answer, challenge, channel: answer)

    async def answer(self, challenge: Challenge, channel: Any) -> Answer:
        return self.twist(await super().answer(challenge, channel), challenge, channel)


def _twisted(server: Server, twist: Callable[[Answer, Challenge, Any], Answer]) -> None:
    server.challenge.__class__ = TwistedServer
    server.challenge.twist = twist  # type: ignore[attr-defined]


# C4: reflection


def test_c4_the_servers_own_proof_is_none_of_its_client() -> None:
    """Same connection, so the same exporter; same code; the same nonce and link would not help: the role differs."""
    kept: list[Answer] = []

    async def run() -> None:
        async with _serving(_required()) as server:
            _twisted(server, lambda answer, challenge, channel: kept.append(answer) or answer)
            prover = TwistedProver(ATTESTER)
            prover.twist = lambda answer, challenge, channel: replace(kept[-1], challenge=None)
            with pytest.raises(ConversationError) as caught:
                await _get(server.url, Gate(_policy(), prover=prover))
            assert caught.value.code == "client_refused"
            assert "channel_binding_mismatch" in caught.value.message

    asyncio.run(run())
    assert APPLICATION == []


def test_c4_the_clients_own_proof_is_none_of_its_server() -> None:
    """The server has kept what the client proved on an earlier connection, and gives it back as its own."""
    kept: list[Answer] = []

    class Keeping(TwistedProver):
        pass

    async def run() -> None:
        async with _serving(_required()) as server:
            prover = Keeping(ATTESTER)
            prover.twist = lambda answer, challenge, channel: kept.append(answer) or answer
            assert (await _get(server.url, Gate(_policy(), prover=prover))).text == "served"
            _twisted(server, lambda answer, challenge, channel: replace(kept[0], challenge=answer.challenge))
            with pytest.raises(AttestationError) as caught:
                await _get(server.url, Gate(_policy(), prover=prover))
            assert caught.value.code == "channel_binding_mismatch"

    asyncio.run(run())
    assert len(APPLICATION) == 1


@pytest.mark.parametrize("proving", [Role.SERVER, Role.CLIENT])
def test_c4_the_roles_and_both_keys_are_in_every_transcript(proving: Role) -> None:
    """An honest attester that is asked to prove the other role, or another pair of keys, gives another digest."""
    from attestable_mcp.bind.transcript import Transcript

    mine, theirs, value = b"\x0a" * 32, b"\x0b" * 32, b"\x0c" * 32
    honest = Transcript(role=proving, nonce=value, exporter=value, own_spki=mine, peer_spki=theirs)
    other = Role.CLIENT if proving is Role.SERVER else Role.SERVER
    for changed in (
        {"role": other},
        {"role": other, "own_spki": theirs, "peer_spki": mine},
        {"own_spki": theirs, "peer_spki": mine},
        {"peer_spki": b""},
        {"peer_spki": mine},
    ):
        assert replace(honest, **changed).digest() != honest.digest()


def test_c4_a_client_in_the_middle_cannot_lend_its_proof_to_another_connection() -> None:
    """Diversion at the client's side: what an honest client proves to the attacker is nothing to the real server."""
    lent: list[Answer] = []

    async def run() -> None:
        async with _serving(_required()) as attacker, _serving(_required()) as real:
            honest = TwistedProver(ATTESTER)
            honest.twist = lambda answer, challenge, channel: lent.append(answer) or answer
            await _get(attacker.url, Gate(_policy(), prover=honest))
            thief = TwistedProver(SimulatedAttester(CODE))
            thief.twist = lambda answer, challenge, channel: lent[0]
            with pytest.raises(ConversationError) as caught:
                await _get(real.url, Gate(_policy(), prover=thief))
            assert "channel_binding_mismatch" in caught.value.message

    asyncio.run(run())


def test_c4_a_relay_with_the_servers_leaf_key_is_seen_by_both_ends() -> None:
    """The relay ends TLS with a stolen key: the client finds another exporter, before it shows any proof of its own."""
    shown: list[Answer] = []

    async def run() -> None:
        async with _serving(_required()) as server:
            leaf = server.issued
            prover = TwistedProver(ATTESTER)
            prover.twist = lambda answer, challenge, channel: shown.append(answer) or answer
            async with relay_with_key(leaf.certificate_der, leaf.key_pem, server.url) as url:
                with pytest.raises(AttestationError) as caught:
                    await _get(url, Gate(_policy(), prover=prover))
            assert caught.value.code == "channel_binding_mismatch"

    asyncio.run(run())
    assert shown == []
    assert APPLICATION == []


def test_c4_a_certificate_alone_is_no_client() -> None:
    """Who copies a client's certificate lacks its key; who has one of its own, but proves nothing, is nobody."""

    class Silent(ClientProver):
        def answer(self, challenge: Challenge, channel: Any, peer_spki: bytes) -> Any:
            raise ConversationError("says nothing", code="silent")
            yield

    async def run() -> None:
        async with _serving(_required()) as server:
            with pytest.raises(ConversationError, match="says nothing"):
                await _get(server.url, Gate(_policy(), prover=Silent(ATTESTER)))
            victim = issue(ATTESTER, ())
            own = issue(ATTESTER, ())
            gate = Gate(_policy())
            with pytest.raises(AttestationError):
                gate.context.swap(victim.certificate_der, own.key_pem)

    asyncio.run(run())
    assert APPLICATION == []


def test_c4_a_proof_is_taken_once_and_only_when_asked() -> None:
    from attestable_mcp.tls.challenge import CLIENT_PATH

    kept: list[Answer] = []

    async def run() -> None:
        async with _serving(_required()) as server:
            prover = TwistedProver(ATTESTER)
            prover.twist = lambda answer, challenge, channel: kept.append(answer) or answer
            gate = Gate(_policy(), prover=prover)
            async with attested_http_client(gate.policy, url=server.url, gate=gate) as http:
                assert (await http.get(server.url)).text == "served"
                again = await http.post(server.url + CLIENT_PATH, content=kept[0].encode())
                assert (again.status_code, again.json()["error"]) == (400, "not_asked")
                assert (await http.get(server.url)).text == "served"  # and nobody is worse off

    asyncio.run(run())


# C13: stale, skipped and reordered proofs at re-attestation


STALE = [("last", "channel_binding_mismatch"), ("first", "channel_binding_mismatch"), ("next", "stale_evidence")]


def _replays(history: list[Answer], which: str) -> Callable[[Answer, Challenge, Any], Answer]:
    """Honest twice; from the third challenge on an older answer, dressed up as far as that is possible."""

    def twist(answer: Answer, challenge: Challenge, channel: Any) -> Answer:
        history.append(answer)
        if len(history) < 3:
            return answer
        stale = {"last": history[-2], "first": history[0], "next": answer}[which]
        counter = challenge.counter + 1 if which == "next" else challenge.counter
        return replace(stale, counter=counter, challenge=answer.challenge)

    return twist


@pytest.mark.parametrize(("which", "code"), STALE)
def test_c13_a_server_cannot_answer_challenge_n_plus_1_with_evidence_of_n(which: str, code: str) -> None:
    async def run() -> None:
        async with _serving() as server:
            _twisted(server, _replays([], which))
            with pytest.raises(AttestationError) as caught:
                await _get(server.url, Gate(_policy()), 3, fresh=True)
            assert caught.value.code == code

    asyncio.run(run())
    assert APPLICATION == ["/0", "/1"]  # the third request was not sent


@pytest.mark.parametrize(("which", "code"), STALE)
def test_c13_nor_can_a_client(which: str, code: str) -> None:
    async def run() -> None:
        async with _serving(_required()) as server:
            prover = TwistedProver(ATTESTER)
            prover.twist = _replays([], which)
            with pytest.raises(ConversationError) as caught:
                await _get(server.url, Gate(_policy(), prover=prover), 3, fresh=True)
            assert (caught.value.code, code in caught.value.message) == ("client_refused", True)

    asyncio.run(run())
    assert APPLICATION == ["/0", "/1"]


def test_c13_every_proof_stands_at_the_next_place_of_its_conversation() -> None:
    asked: list[Challenge] = []

    async def run() -> None:
        async with _serving() as server:
            _twisted(server, lambda answer, challenge, channel: asked.append(challenge) or answer)
            gate = Gate(_policy())
            await _get(server.url, gate, 4, fresh=True)
            assert [challenge.counter for challenge in asked] == [0, 1, 2, 3]
            assert asked[0].previous == b""
            assert len({challenge.previous for challenge in asked}) == 4
            assert all(not challenge.known_key for challenge in asked)  # a renewed proof is always a quote
            assert gate.newest is not None
            assert gate.newest.counter == 3

    asyncio.run(run())


def test_c13_a_server_that_answers_for_another_link_is_refused() -> None:
    """It skips: honest evidence, but over the link of a conversation that this client never had."""

    class Skipping(AttestationMiddleware):
        async def answer(self, challenge: Challenge, channel: Any) -> Answer:
            return replace(
                await super().answer(replace(challenge, previous=b"\x07" * 64), channel), counter=challenge.counter
            )

    async def run() -> None:
        async with _serving() as server:
            server.challenge.__class__ = Skipping
            with pytest.raises(AttestationError) as caught:
                await _get(server.url, Gate(_policy()))
            assert caught.value.code == "channel_binding_mismatch"

    asyncio.run(run())


# When a proof is renewed


@pytest.mark.parametrize("blocking", [False, True], ids=["async", "blocking"])
def test_c13_a_connection_is_proven_again_after_its_time(blocking: bool) -> None:
    now = 0.0
    seen: list[int] = []

    async def run() -> None:
        nonlocal now
        async with _serving() as server:
            gate = Gate(_policy(reattest=ReattestPolicy(every=60.0)))
            gate.freshness.ticks = lambda: now
            url = server.url

            def blockingly() -> None:
                nonlocal now
                with attested_sync_http_client(gate.policy, url=url, gate=gate) as http:
                    for step in (0.0, 59.0, 2.0, 1.0):
                        now += step
                        seen.append(http.get(url).extensions["attestation"].counter)

            if blocking:
                await asyncio.to_thread(blockingly)
                return
            async with attested_http_client(gate.policy, url=url, gate=gate) as http:
                for step in (0.0, 59.0, 2.0, 1.0):
                    now += step
                    seen.append((await http.get(url)).extensions["attestation"].counter)

    asyncio.run(run())
    assert seen == [0, 0, 1, 1]


def test_c13_renew_reaches_every_open_connection() -> None:
    async def run() -> None:
        async with _serving() as server:
            gate = Gate(_policy())
            async with attested_http_client(gate.policy, url=server.url, gate=gate) as http:
                first = await asyncio.gather(*(http.get(server.url) for _ in range(4)))
                proven = {response.extensions["attestation"].transcript for response in first}
                gate.freshness.renew()
                later = await asyncio.gather(*(http.get(server.url) for _ in range(4)))
                assert not proven & {response.extensions["attestation"].transcript for response in later}

    asyncio.run(run())


def test_c13_an_idle_connection_that_ended_is_replaced_and_no_reason_to_fail() -> None:
    async def run() -> None:
        async with _serving() as server:
            gate = Gate(_policy())
            async with attested_http_client(gate.policy, url=server.url, gate=gate) as http:
                await http.get(server.url)
                streams = [c._connection._network_stream for c in http._transport._pool.connections]
                for stream in streams:
                    stream._channel.feed_eof()  # as if the server's FIN came just now, unseen by the pool
                response = await http.get(server.url, extensions={"reattest": True})
                assert response.text == "served"

    asyncio.run(run())


@pytest.mark.parametrize("which", [0, 1])
def test_c13_a_proof_that_was_demanded_is_made_on_whichever_connection_carries_the_request(which: int) -> None:
    """Whoever cuts one idle connection does not send the request over another that was proven long ago."""

    async def run() -> None:
        async with _serving() as server:
            gate = Gate(_policy())
            async with attested_http_client(gate.policy, url=server.url, gate=gate) as http:
                first = await asyncio.gather(*(http.get(server.url) for _ in range(2)))
                proven = {response.extensions["attestation"].transcript for response in first}
                streams = [c._connection._network_stream for c in http._transport._pool.connections]
                assert len(streams) == 2
                streams[which]._channel.feed_eof()
                response = await http.get(server.url, extensions={"reattest": True})
                assert response.extensions["attestation"].transcript not in proven

    asyncio.run(run())


def test_c1_a_certificate_that_was_young_when_it_was_judged_does_not_stay_so() -> None:
    """Its verdict is remembered, no longer than the policy lets it be old."""
    now = datetime.now(UTC)
    trust = replace(_policy().trust, freshness="certificate", max_certificate_age=3600.0, max_age=86400.0)
    policy = replace(_policy(), trust=trust)

    async def run() -> None:
        nonlocal now
        async with _serving() as server:
            gate = Gate(policy, clock=lambda: now)
            for step in (0.0, 3000.0):
                now += timedelta(seconds=step)
                await attest_server(policy, server.url, gate=gate)
            now += timedelta(seconds=900)
            with pytest.raises(AttestationError) as caught:
                await attest_server(policy, server.url, gate=gate)
            assert caught.value.code == "stale_evidence"

    asyncio.run(run())


class Borrowed(BindingKey):
    """Says that it is another's key."""

    __slots__ = ()

    def __init__(self, public: bytes) -> None:
        super().__init__()
        self.public = public


def test_c2_no_client_takes_anothers_name_by_its_binding_key() -> None:
    """Tools and sessions know a client by that key: one with evidence of its own names the key of another."""

    async def run() -> None:
        clients = _required()
        async with _serving(clients) as server:
            owner = ClientProver(ATTESTER)
            await _get(server.url, Gate(_policy(), prover=owner))
            thief = ClientProver(ATTESTER, key=Borrowed(owner.key.public))
            with pytest.raises(ConversationError, match="binding key") as caught:
                await _get(server.url, Gate(_policy(), prover=thief))
            assert caught.value.code == "client_refused"

    asyncio.run(run())
    assert len(APPLICATION) == 1


# C10: front doors


def test_c10_a_front_door_with_an_ordinary_certificate_is_named_and_never_verified() -> None:
    async def run() -> None:
        async with _serving() as server, _plain_tls(server) as url:
            with pytest.raises(AttestationUnavailable) as caught:
                await _get(url, Gate(_policy()))
            assert caught.value.exit_code == 3
            assert "front door" in caught.value.hint

    asyncio.run(run())
    assert APPLICATION == []


def test_c10_a_front_door_that_was_given_the_servers_certificate_is_seen_too() -> None:
    """An operator who hands certificate and key to a load balancer: genuine evidence, TLS that ends elsewhere."""

    async def run() -> None:
        async with _serving() as server:
            leaf = server.issued
            async with relay_with_key(leaf.certificate_der, leaf.key_pem, server.url) as url:
                with pytest.raises(AttestationError) as caught:
                    await attest_server(_policy(), url)
            assert caught.value.code == "channel_binding_mismatch"
            assert "ends TLS" in caught.value.hint

    asyncio.run(run())


@asynccontextmanager
async def _plain_tls(server: Server) -> AsyncIterator[str]:
    """What stunnel does: TLS with its own ordinary certificate, each byte passed on."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "balancer.example")])
    leaf = server.issued
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(7).not_valid_before(leaf.not_before).not_valid_after(leaf.not_after).sign(key, SHA256())
    )  # fmt: skip
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    async with relay_with_key(certificate.public_bytes(Encoding.DER), pem, server.url) as url:
        yield url


def test_a_blocking_client_proves_itself_as_well() -> None:
    seen: list[Any] = []

    def work(url: str) -> None:
        gate = Gate(_policy(), prover=ClientProver(ATTESTER))
        with attested_sync_http_client(gate.policy, url=url, gate=gate) as http:
            for fresh in (False, True):
                peer = http.get(url, extensions={"reattest": fresh}).extensions["attestation"]
                seen.append((peer.counter, peer.said.verdict))

    async def run() -> None:
        async with _serving(_required()) as server:
            await asyncio.to_thread(work, server.url)

    asyncio.run(run())
    assert seen == [(0, "verified"), (1, "verified")]


def test_the_servers_word_on_a_proof_is_read_strictly() -> None:
    said = Said(served=True, verdict="verified", again=60)
    assert Said.decode(said.encode()) == said
    for damaged in (
        said.encode()[:-1],
        said.encode() + b"\0",
        b"\xa0",
        b"",
        said.encode().replace(b"served", b"Served"),
    ):
        with pytest.raises(AttestationError):
            Said.decode(damaged)


# A client that is served less than it thinks


@pytest.mark.parametrize("code", ["\x01", "\x02"])
def test_c4_a_client_whose_proof_is_refused_and_that_is_served_all_the_same_is_told(code: str) -> None:
    """Under "optional" a refused client is served as nobody: it has to learn that, or it misses what it came for."""
    clients = ClientGate(ServerPolicy(clients="optional", policy=_policy()))

    async def run() -> tuple[str, ...]:
        async with _serving(clients) as server:
            gate = Gate(_policy(), prover=ClientProver(SimulatedAttester(code.encode() * 32)))
            assert (await _get(server.url, gate)).status_code == 200
            assert gate.newest is not None
            return gate.newest.result.not_proven

    told = [sentence for sentence in asyncio.run(run()) if "who we are" in sentence]
    assert told == (
        []
        if code == "\x01"
        else ["who we are: the server refuses our proof (measurement_mismatch) and serves us as it serves anybody"]
    )
