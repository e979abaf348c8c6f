"""Attacks on whose copy answers (C2, C14): the same code, on genuine hardware, run by somebody else."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestable_mcp.appraise.deployment import DeploymentPolicy
from attestable_mcp.appraise.policy import Policy, Rules, SgxRelease, TrustPolicy
from attestable_mcp.appraise.server_policy import ServerPolicy
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.bind.deployment import (
    DeploymentKey,
    DeploymentProof,
    check_deployment,
    key_hash,
    sign_grant,
    sign_revocation,
    spki_of,
)
from attestable_mcp.errors import AttestationError, ConfigurationError, MalformedEvidence, WrongDeployment
from attestable_mcp.tls.client import Gate, attest_server, attested_http_client
from attestable_mcp.tls.clients import ClientGate
from attestable_mcp.tls.deployment import DeploymentHolder
from attestable_mcp.tls.prover import ClientProver
from attestable_mcp.tls.server import Server
from attestable_mcp.wire.grant import GRANT_LABEL, REVOCATION_LABEL, Grant, Revocation, from_pem, to_pem

CODE = b"\x01" * 32
OWNER, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
HASH = key_hash(spki_of(OWNER))
ATTESTER = SimulatedAttester(CODE)
NOW = datetime.now(UTC).replace(microsecond=0)


def _policy(**deployment: Any) -> Policy:
    return Policy(
        rules=Rules(releases=(SgxRelease(mrenclave=CODE.hex()),)),
        trust=TrustPolicy(simulated="accept", endorsements=("stapled",)),
        deployment=DeploymentPolicy(owners=(HASH,), name="prod", **deployment),
    )


def _grant(key: bytes, owner: Ed25519PrivateKey = OWNER, **changed: Any) -> bytes:
    given = Grant(
        owner=spki_of(owner), name="prod", hosts=("127.0.0.1",), key=key, serial=7,
        not_before=NOW - timedelta(minutes=1), not_after=NOW + timedelta(hours=1),
    )  # fmt: skip
    return to_pem(GRANT_LABEL, sign_grant(owner, replace(given, **changed)))


def _list(number: int = 1, owner: Ed25519PrivateKey = OWNER, **changed: Any) -> bytes:
    given = Revocation(owner=spki_of(owner), name="prod", number=number, issued_at=NOW)
    return to_pem(REVOCATION_LABEL, sign_revocation(owner, replace(given, **changed)))


def _holder(folder: Path, owner: Ed25519PrivateKey = OWNER, **options: Any) -> DeploymentHolder:
    folder.mkdir(exist_ok=True, parents=True)
    return DeploymentHolder(
        spki_of(owner), grant_file=folder / "grant.pem", revocation_file=folder / "list.pem", **options
    )


async def _app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"served"})


@asynccontextmanager
async def _serving(holder: DeploymentHolder | None):
    async with Server(_app, ATTESTER, deployment=holder) as server:
        yield server.url


async def _refused(url: str, policy: Policy | None = None, gate: Gate | None = None) -> AttestationError:
    with pytest.raises(AttestationError) as caught:
        await attest_server(policy or _policy(), url, gate=gate)
    return caught.value


def test_c2_another_operators_copy_of_the_same_code_is_refused(tmp_path: Path) -> None:
    async def run() -> None:
        mine, theirs = _holder(tmp_path / "a"), _holder(tmp_path / "b", OTHER)
        (tmp_path / "a" / "grant.pem").write_bytes(_grant(mine.key.spki_sha256))
        (tmp_path / "b" / "grant.pem").write_bytes(_grant(theirs.key.spki_sha256, OTHER))
        async with _serving(mine) as owned, _serving(theirs) as foreign, _serving(None) as bare:
            peer = await attest_server(_policy(), owned)
            assert peer.deployment is not None
            assert (peer.deployment.owner, peer.deployment.name) == (HASH, "prod")
            assert peer.result.deployment == peer.deployment
            for url in (foreign, bare):
                refusal = await _refused(url)
                assert (refusal.code, refusal.exit_code) == ("wrong_deployment", 2)

    asyncio.run(run())


def test_c2_without_a_deployment_in_the_policy_the_result_says_what_is_open() -> None:
    async def run() -> None:
        async with _serving(None) as url:
            peer = await attest_server(replace(_policy(), deployment=None), url)
            assert any("whose copy" in sentence for sentence in peer.result.not_proven)

    asyncio.run(run())


def test_c2_a_stolen_grant_is_worth_nothing_without_its_key(tmp_path: Path) -> None:
    """The thief runs the same image under its own key and shows the owner's grant, which is public."""

    class Thief(DeploymentHolder):
        def prove(self, transcript: bytes) -> DeploymentProof | None:
            return DeploymentProof(grant=stolen, key=self.key.spki, signature=self.key.sign(transcript))

    stolen = from_pem(_grant(DeploymentKey().spki_sha256), GRANT_LABEL)

    async def run() -> None:
        async with _serving(Thief(spki_of(OWNER))) as url:
            assert (await _refused(url)).code == "wrong_deployment"

    asyncio.run(run())


def test_c2_nor_with_the_key_that_it_names(tmp_path: Path) -> None:
    """The thief shows the right public key as well, and signs with the one it has."""
    mine = DeploymentKey()
    stolen = from_pem(_grant(mine.spki_sha256), GRANT_LABEL)

    class Thief(DeploymentHolder):
        def prove(self, transcript: bytes) -> DeploymentProof | None:
            return DeploymentProof(grant=stolen, key=mine.spki, signature=self.key.sign(transcript))

    async def run() -> None:
        async with _serving(Thief(spki_of(OWNER))) as url:
            assert (await _refused(url)).code == "wrong_deployment"

    asyncio.run(run())


def test_c2_a_key_that_the_evidence_does_not_vouch_for_is_refused() -> None:
    """The host holds a granted key outside the TEE; the attested code commits to another."""
    key, digest = DeploymentKey(), b"\x05" * 64
    body = sign_grant(
        OWNER,
        Grant(owner=spki_of(OWNER), name="prod", hosts=("127.0.0.1",), key=key.spki_sha256, serial=7,
              not_before=NOW, not_after=NOW + timedelta(hours=1)),
    )  # fmt: skip
    proof = DeploymentProof(grant=body, key=key.spki, signature=key.sign(digest))
    assert check_deployment(proof, committed=key.spki_sha256, transcript=digest).name == "prod"
    with pytest.raises(WrongDeployment):
        check_deployment(proof, committed=DeploymentKey().spki_sha256, transcript=digest)
    with pytest.raises(WrongDeployment):
        check_deployment(proof, committed=b"", transcript=digest)
    with pytest.raises(WrongDeployment):  # another connection's signature
        check_deployment(proof, committed=key.spki_sha256, transcript=b"\x06" * 64)
    with pytest.raises((WrongDeployment, MalformedEvidence)):
        check_deployment(replace(proof, key=b"\x00" * 44), committed=key.spki_sha256, transcript=digest)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"name": "test"}, "wrong_deployment"),
        ({"hosts": ("mcp.example",)}, "wrong_deployment"),
        ({"not_before": NOW + timedelta(minutes=30)}, "grant_not_yet_valid"),
    ],
    ids=["name", "host", "early"],
)
def test_c2_a_grant_for_something_else_is_refused(tmp_path: Path, changed: dict[str, Any], code: str) -> None:
    async def run() -> None:
        holder = _holder(tmp_path)
        (tmp_path / "grant.pem").write_bytes(_grant(holder.key.spki_sha256, **changed))
        async with _serving(holder) as url:
            assert (await _refused(url)).code == code

    asyncio.run(run())


def test_c2_a_grant_is_renewed_and_revoked_while_the_server_runs(tmp_path: Path) -> None:
    clock = iter(range(10**6)).__next__  # each look is a second after the last

    async def run() -> None:
        holder = _holder(tmp_path, clock=lambda: 2.0 * clock())
        async with _serving(holder) as url:
            assert (await _refused(url)).code == "wrong_deployment"  # no grant yet
            (tmp_path / "grant.pem").write_bytes(_grant(holder.key.spki_sha256))
            gate = Gate(_policy())
            assert (await attest_server(_policy(), url, gate=gate)).deployment.serial == 7
            (tmp_path / "grant.pem").write_bytes(_grant(holder.key.spki_sha256, serial=8, name="prod"))
            assert (await attest_server(_policy(), url, gate=gate)).deployment.serial == 8
            (tmp_path / "list.pem").write_bytes(_list(serials=(8,)))
            assert (await _refused(url, gate=gate)).code == "grant_revoked"  # bound by key, and refused all the same
            (tmp_path / "grant.pem").write_bytes(_grant(holder.key.spki_sha256, serial=9))
            assert (await attest_server(_policy(), url, gate=gate)).deployment.serial == 9

    asyncio.run(run())


def test_c2_a_thief_that_leaves_the_revocation_list_out_is_met_by_the_clients_own(tmp_path: Path) -> None:
    async def run() -> None:
        holder = _holder(tmp_path / "server")
        (tmp_path / "server" / "grant.pem").write_bytes(_grant(holder.key.spki_sha256))
        held = tmp_path / "held.pem"
        held.write_bytes(_list(number=3, keys=(b"\x01" * 32,)))
        gate = Gate(_policy(revocations=str(held)))
        async with _serving(holder) as url:
            await attest_server(_policy(), url, gate=gate)
            held.write_bytes(_list(number=4, keys=(holder.key.spki_sha256,)))
            assert (await _refused(url, gate=gate)).code == "grant_revoked"
            held.write_bytes(_list(number=2))  # an older list is no way back
            assert (await _refused(url, gate=gate)).code == "grant_revoked"
            held.write_bytes(b"garbage")
            assert (await _refused(url, gate=gate)).code == "grant_revoked"
            demanding = _policy(max_revocation_age=60.0)
            assert (await _refused(url, demanding)).code == "revocation_list_missing"
        with pytest.raises(ConfigurationError):
            Gate(_policy(revocations=str(held)))
        held.write_bytes(_list(number=9, owner=OTHER))
        with pytest.raises(ConfigurationError):
            Gate(_policy(revocations=str(held)))

    asyncio.run(run())


def test_c2_a_newer_list_that_an_admitted_server_showed_is_remembered(tmp_path: Path) -> None:
    async def run() -> None:
        first, second = _holder(tmp_path / "a"), _holder(tmp_path / "b")
        for holder, name in ((first, "a"), (second, "b")):
            (tmp_path / name / "grant.pem").write_bytes(_grant(holder.key.spki_sha256))
        (tmp_path / "a" / "list.pem").write_bytes(_list(number=2, keys=(second.key.spki_sha256,)))
        gate = Gate(_policy())
        async with _serving(first) as good, _serving(second) as taken_back:
            await attest_server(_policy(), taken_back, gate=gate)  # nobody has told this client yet
            await attest_server(_policy(), good, gate=gate)
            assert (await _refused(taken_back, gate=gate)).code == "grant_revoked"

    asyncio.run(run())


GARBAGE = {
    "garbage": b"\x00\x01",
    "another owner's": lambda key: _grant(key, OTHER),
    "another key's": lambda key: _grant(b"\x09" * 32),
    "an older one": lambda key: _grant(key, serial=6),
    "one that has ended": lambda key: _grant(
        key, serial=99, not_before=NOW - timedelta(days=2), not_after=NOW - timedelta(days=1)
    ),
    "a damaged one": lambda key: _grant(key, serial=99).replace(b"A", b"B", 3),
    "too much": b"x" * 10**6,
}


def test_c14_what_is_put_in_the_grants_place_changes_nothing(tmp_path: Path) -> None:
    clock = iter(range(10**6)).__next__
    holder = _holder(tmp_path, clock=lambda: 2.0 * clock())
    (tmp_path / "grant.pem").write_bytes(_grant(holder.key.spki_sha256))
    assert holder.deployment is not None
    for junk in GARBAGE.values():
        (tmp_path / "grant.pem").write_bytes(junk(holder.key.spki_sha256) if callable(junk) else junk)
        (tmp_path / "list.pem").write_bytes(_list(number=9, owner=OTHER, minimum_serial=99))
        assert holder.deployment.serial == 7
        assert holder.prove(b"\0" * 64).revocation == b""
    (tmp_path / "grant.pem").unlink()
    assert holder.deployment.serial == 7


async def _besieged(attempts: int, tmp_path: Path) -> None:
    """Impostors of three kinds at the owner's own address and elsewhere, the owner served in between."""
    mine, theirs = _holder(tmp_path / "a"), _holder(tmp_path / "b", OTHER)
    (tmp_path / "a" / "grant.pem").write_bytes(_grant(mine.key.spki_sha256))
    (tmp_path / "b" / "grant.pem").write_bytes(_grant(theirs.key.spki_sha256, OTHER))
    gate = Gate(_policy())
    async with _serving(mine) as owned, _serving(theirs) as foreign, _serving(None) as bare:
        first = await attest_server(_policy(), owned, gate=gate)
        remembered = len(gate.peers)
        for attempt in range(attempts):
            assert (await _refused((foreign, bare)[attempt % 2], gate=gate)).code == "wrong_deployment"
            if attempt % 10 == 0:
                peer = await attest_server(_policy(), owned, gate=gate)
                assert peer.binding.method == "key"  # what was remembered of the owner still stands
                assert peer.binding.binding_key == first.binding.binding_key
        assert len(gate.peers) == remembered
        assert (await attest_server(_policy(), owned, gate=gate)).counter == attempts // 10 + 1


def test_c14_impostors_change_nothing_for_the_owner(tmp_path: Path) -> None:
    asyncio.run(_besieged(20, tmp_path))


@pytest.mark.slow
def test_c14_a_thousand_impostors_change_nothing_for_the_owner(tmp_path: Path) -> None:
    asyncio.run(_besieged(1000, tmp_path))


def test_c2_a_grant_that_ends_ends_what_goes_on_under_it(tmp_path: Path) -> None:
    """The connection was proven while the grant held, and lives longer: the next request is not sent."""
    asked: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        await _app(scope, receive, send)

    async def run() -> None:
        holder = _holder(tmp_path)
        soon = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
        (tmp_path / "grant.pem").write_bytes(_grant(holder.key.spki_sha256, not_after=soon))
        async with Server(app, ATTESTER, deployment=holder) as server:
            async with attested_http_client(_policy(), url=server.url) as http:
                await http.get(f"{server.url}/before")
                await asyncio.sleep((soon - datetime.now(UTC)).total_seconds() + 0.1)
                with pytest.raises(AttestationError) as caught:
                    await http.get(f"{server.url}/after")
        assert caught.value.code == "grant_expired"

    asyncio.run(run())
    assert asked == ["/before"]


def test_c2_so_does_a_clients(tmp_path: Path) -> None:
    async def run() -> None:
        holder = _holder(tmp_path)
        soon = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
        (tmp_path / "grant.pem").write_bytes(_grant(holder.key.spki_sha256, not_after=soon))
        clients = ClientGate(ServerPolicy(clients="required", policy=_policy()))
        gate = Gate(replace(_policy(), deployment=None), prover=ClientProver(ATTESTER, deployment=holder))
        gate.freshness.every = lambda *_: inf  # type: ignore[method-assign]  # a client that never proves itself again
        async with Server(_app, ATTESTER, clients=clients) as server:
            async with attested_http_client(gate.policy, url=server.url, gate=gate) as http:
                assert (await http.get(server.url)).status_code == 200
                await asyncio.sleep((soon - datetime.now(UTC)).total_seconds() + 0.1)
                answer = await http.get(server.url)
        assert answer.status_code == 403
        assert "client_attestation_stale" in answer.text

    asyncio.run(run())
