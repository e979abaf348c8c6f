"""Bundles: the same verdict again with no network, and no better one for whoever alters what stands in the file."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.bind.deployment import key_hash, sign_grant, sign_revocation, spki_of
from attestable_mcp.bind.live import Answer, Challenge
from attestable_mcp.errors import ConfigurationError, ConversationError, EndorsementUnavailable, MalformedEvidence
from attestable_mcp.rats import AttestationResult, Outcome, Tee, Verdict
from attestable_mcp.simulator.intel import well_known
from attestable_mcp.tls.deployment import DeploymentHolder
from attestable_mcp.tls.replay import CHOSEN_NONCE, CHOSEN_POLICY, Recorder, Recording, replay
from attestable_mcp.tls.server import Server
from attestable_mcp.wire.bundle import Bundle, LiveSubject, StoredAnchor, StoredPolicy, read_bundle
from attestable_mcp.wire.grant import GRANT_LABEL, REVOCATION_LABEL, Grant, Revocation, to_pem
from attestable_mcp.wire.token import read_token

MRENCLAVE = "01" * 32
TOML = '[trust]\nsimulated = "accept"\nendorsements = ["stapled"]\n[policy]\nmrenclave = "{}"\n'
STORED = StoredPolicy(name="prod.toml", toml=TOML.format(MRENCLAVE))
OTHER = StoredPolicy(name="other.toml", toml=TOML.format("02" * 32))


async def _app(scope: Any, receive: Any, send: Any) -> None: ...


def policy_of(stored: StoredPolicy) -> Policy:
    return Policy.from_toml(stored.toml, stored.name) if stored.toml else Policy.genuine_only(simulated="accept")


def live(stored: StoredPolicy) -> Recording:
    async def run() -> Recording:
        async with Server(_app, SimulatedAttester(bytes.fromhex(MRENCLAVE))) as server:
            recorder = Recorder(policy=policy_of(stored), stored=stored, at=datetime.now(UTC))
            return await recorder.of_server(server.url)

    return asyncio.run(run())


@pytest.fixture(scope="module")
def admitted() -> Recording:
    return live(STORED)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a replay asks nobody")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def findings(result: AttestationResult) -> str:
    return json.dumps([finding.to_json() for finding in result.findings])


def again(recording: Recording) -> Bundle:
    return read_bundle(recording.bundle.encode())


@pytest.mark.parametrize("stored", [STORED, OTHER, StoredPolicy(name="genuine-only", simulated=True)])
def test_a_live_verdict_replays_with_the_same_findings(stored: StoredPolicy, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = live(stored)
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "connect", None)
        result = replay(again(recording), recording.bundle.made_at)
    assert recording.result.verdict is {
        "prod.toml": Verdict.VERIFIED,
        "other.toml": Verdict.REFUSED,
        "genuine-only": Verdict.PARTIAL,
    }[stored.name]  # fmt: skip
    assert findings(result) == findings(recording.result)
    assert len(result.findings) > 15
    known = {**recording.result.to_json(), "not_proven": None}
    assert {**result.to_json(), "not_proven": None} == known
    assert set(result.not_proven) == {*recording.result.not_proven, CHOSEN_NONCE, CHOSEN_POLICY}


@pytest.mark.usefixtures("no_network")
def test_a_replay_is_of_its_own_time_only_where_asked(admitted: Recording) -> None:
    bundle = again(admitted)
    later = replay(bundle, bundle.made_at + timedelta(days=400))
    assert later.verdict is Verdict.REFUSED
    assert later.error is not None
    assert later.error.code == "stale_evidence"
    assert later.at == bundle.made_at + timedelta(days=400)


@pytest.mark.usefixtures("no_network")
def test_ones_own_policy_takes_the_place_of_the_bundles(admitted: Recording) -> None:
    bundle = again(admitted)
    strict = replay(bundle, bundle.made_at, policy_of(OTHER))
    assert strict.verdict is Verdict.REFUSED
    assert CHOSEN_POLICY not in strict.not_proven
    real = replay(bundle, bundle.made_at, Policy.genuine_only())
    assert real.error is not None
    assert real.error.code == "simulated_evidence"


def altered(bundle: Bundle, **changes: bytes) -> Bundle:
    assert isinstance(bundle.subject, LiveSubject)
    return replace(bundle, subject=replace(bundle.subject, **changes))


def _nonce(subject: LiveSubject) -> dict[str, bytes]:
    return {"challenge": replace(Challenge.decode(subject.challenge), nonce=bytes(32)).encode()}


def _exporter(subject: LiveSubject) -> dict[str, bytes]:
    return {"exporter": bytes(len(subject.exporter))}


def _commitment(subject: LiveSubject) -> dict[str, bytes]:
    answer = Answer.decode(subject.answer)
    return {"answer": replace(answer, commitments=replace(answer.commitments, manifest=bytes(32))).encode()}


def _key(subject: LiveSubject) -> dict[str, bytes]:
    return {"answer": replace(Answer.decode(subject.answer), binding_key=bytes(32)).encode()}


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("alter", [_nonce, _exporter, _commitment, _key])
def test_a_fact_of_the_transcript_cannot_be_altered(
    admitted: Recording, alter: Callable[[LiveSubject], dict[str, bytes]]
) -> None:
    bundle = again(admitted)
    assert isinstance(bundle.subject, LiveSubject)
    result = replay(altered(bundle, **alter(bundle.subject)), bundle.made_at)
    assert result.verdict is Verdict.REFUSED
    assert result.error is not None
    assert result.error.code == "channel_binding_mismatch"


@pytest.mark.usefixtures("no_network")
def test_an_unchallenged_server_is_not_proven_live(admitted: Recording) -> None:
    bundle = again(admitted)
    result = replay(altered(bundle, challenge=Challenge().encode(), answer=b"", exporter=b""), bundle.made_at)
    assert result.verdict is Verdict.REFUSED
    for junk in (b"", b"\xff"):
        assert not replay(altered(bundle, challenge=junk), bundle.made_at).admitted
        assert not replay(altered(bundle, certificate=junk), bundle.made_at).admitted


@pytest.mark.usefixtures("no_network")
def test_a_root_of_the_makers_own_is_named_as_such(admitted: Recording) -> None:
    """Whoever makes a bundle can put any root into it and call it Intel's."""
    bundle = again(admitted)
    simulated = next(anchor for anchor in bundle.anchors if anchor.vendor == "intel" and anchor.simulated)
    forged = StoredAnchor(
        vendor="intel", name="Intel SGX Root CA", spki_sha256=simulated.spki_sha256, simulated=False, replaced=False
    )
    result = replay(replace(bundle, anchors=(forged,)), bundle.made_at)
    assert result.simulated
    assert "SIMULATED" in result.trust_anchor
    mine = replace(forged, replaced=True)
    result = replay(replace(bundle, anchors=(mine,)), bundle.made_at)
    assert result.simulated
    assert any("the trust anchor was replaced" in sentence for sentence in result.not_proven)
    with pytest.raises(MalformedEvidence):
        replay(replace(bundle, anchors=(replace(forged, vendor="acme"),)), bundle.made_at)


def test_a_policy_that_is_none_is_an_error_of_ours_to_report(admitted: Recording) -> None:
    bundle = replace(admitted.bundle, policy=StoredPolicy(name="x.toml", toml="[policy]\n"))
    with pytest.raises(ConfigurationError, match="no identity rule"):
        replay(bundle, bundle.made_at)


@pytest.mark.parametrize(
    "rules",
    [
        'platforms = {{ file = "{path}", key = "{key}" }}\n',
        '[deployment]\nowner = "{key}"\nname = "prod"\nrevocations = "{path}"\n',
    ],
)
def test_a_strangers_policy_opens_no_file_of_this_machine(admitted: Recording, tmp_path: Path, rules: str) -> None:
    path = tmp_path / "pipe"
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)  # whoever opened it would wait for ever
    toml = TOML.format(MRENCLAVE) + rules.format(path=path, key="ab" * 32)
    bundle = replace(admitted.bundle, policy=StoredPolicy(name="x.toml", toml=toml))
    with pytest.raises(MalformedEvidence, match="which it does not bring"):
        replay(bundle, bundle.made_at)


def test_nobody_there_is_nothing_to_keep() -> None:
    recorder = Recorder(policy=policy_of(STORED), stored=STORED, at=datetime.now(UTC))
    with pytest.raises(ConversationError):
        asyncio.run(recorder.of_server("https://127.0.0.1:9"))


def collateral_file(folder: Path, at: datetime) -> Path:
    path = folder / "collateral.json"
    path.write_text(json.dumps(well_known().collateral_json(at=at, tee=Tee.SGX)))
    return path


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("there", [True, False])
def test_a_stored_quote_replays_without_its_sources(tmp_path: Path, there: bool) -> None:
    at = datetime(2026, 6, 1, 12, 0, 0, 7, tzinfo=UTC)
    path = collateral_file(tmp_path, at)
    if not there:
        path.write_text('{"tcbInfo": 1}')
    text = f'[trust]\nsimulated = "accept"\nendorsements = ["{path}"]\n[policy]\nmrenclave = "{MRENCLAVE}"\n'
    stored = StoredPolicy(name="prod.toml", toml=text)
    recorder = Recorder(
        policy=Policy.from_toml(text, "prod.toml"), stored=stored, at=at, provenance=(("r.json", b"{}"),)
    )
    quote = well_known().quote_sgx(bytes(64), bytes.fromhex(MRENCLAVE))
    if not there:
        with pytest.raises(ConfigurationError):
            recorder.of_file("quote.bin", quote)
        return
    recording = recorder.of_file("quote.bin", quote)
    assert recording.result.verdict is Verdict.VERIFIED
    path.unlink()
    bundle = again(recording)
    assert bundle.provenance == (("r.json", b"{}"),)
    result = replay(bundle, at)
    assert result.verdict is Verdict.VERIFIED
    assert findings(result) == findings(recording.result)


@pytest.mark.usefixtures("no_network")
def test_missing_collateral_replays_as_missing() -> None:
    at = datetime(2026, 6, 1, tzinfo=UTC)
    text = f'[trust]\nsimulated = "accept"\nendorsements = ["stapled"]\n[policy]\nmrenclave = "{MRENCLAVE}"\n'
    recorder = Recorder(policy=Policy.from_toml(text, "p"), stored=StoredPolicy(name="p", toml=text), at=at)
    recording = recorder.of_file("quote.bin", well_known().quote_sgx(bytes(64), bytes.fromhex(MRENCLAVE)))
    assert recording.result.verdict is Verdict.UNAVAILABLE
    result = replay(again(recording), at)
    assert (result.verdict, result.error) == (recording.result.verdict, recording.result.error)


@pytest.mark.usefixtures("no_network")
def test_real_evidence_replays_the_same(vectors: Path) -> None:
    folder = vectors / "tdx" / "dcapqvl-v4-uptodate"
    at = datetime(2025, 7, 19, 10, 0, 34, tzinfo=UTC)
    policy = Policy.genuine_only()
    policy = replace(policy, trust=replace(policy.trust, endorsements=(str(folder / "collateral"),)))
    recorder = Recorder(policy=policy, stored=StoredPolicy(name="genuine-only"), at=at)
    recording = recorder.of_file("quote.bin", (folder / "quote.bin").read_bytes())
    assert recording.result.verdict is Verdict.PARTIAL
    result = replay(again(recording), at)
    assert findings(result) == findings(recording.result)
    assert sum(finding.outcome is Outcome.PASS for finding in result.findings) > 15
    assert result.to_json() == {
        **recording.result.to_json(),
        "not_proven": [*recording.result.not_proven, CHOSEN_POLICY],
    }


def test_a_token_replays_without_its_issuers_keys(vectors: Path, tmp_path: Path) -> None:
    data = (vectors / "token" / "trustee-ear-tokens" / "ear.jwt").read_bytes()
    token = read_token(data)
    at = datetime.fromtimestamp(token.claims["iat"] + 60, UTC)
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [token.header["jwk"]]}))
    text = (
        '[[trust.tokens]]\nprofile = "ear"\nkeys = "keys.json"\n[policy]\ntee = "token"\n'
        'token_claims = { "submods.cpu0.ear.status" = "affirming" }\n'
    )
    policy = Policy.from_toml(text, "tokens.toml", base=tmp_path)
    recording = Recorder(policy=policy, stored=StoredPolicy(name="tokens.toml", toml=text), at=at).of_file("t", data)
    assert recording.result.verdict is Verdict.VERIFIED
    keys.unlink()
    bundle = again(recording)
    result = replay(bundle, at)
    assert result.verdict is Verdict.VERIFIED
    assert findings(result) == findings(recording.result)
    stranger = replace(bundle, issuers=tuple(replace(item, keys=()) for item in bundle.issuers))
    assert replay(stranger, at).verdict is Verdict.REFUSED
    far = Policy.from_toml(text.replace("keys.json", "https://127.0.0.1:9/jwks"), "tokens.toml")
    with pytest.raises(EndorsementUnavailable):
        Recorder(policy=far, stored=StoredPolicy(name="t", toml=text), at=at).of_file("t", data)


@pytest.mark.parametrize("revoked", [False, True])
def test_a_deployment_replays_with_the_list_that_was_held(tmp_path: Path, revoked: bool) -> None:
    owner, at = Ed25519PrivateKey.generate(), datetime.now(UTC).replace(microsecond=0)
    holder = DeploymentHolder(spki_of(owner), grant_file=tmp_path / "grant.pem", revocation_file=tmp_path / "none")
    grant = Grant(
        owner=spki_of(owner), name="prod", hosts=("127.0.0.1",), key=holder.key.spki_sha256, serial=7,
        not_before=at - timedelta(minutes=1), not_after=at + timedelta(hours=1),
    )  # fmt: skip
    (tmp_path / "grant.pem").write_bytes(to_pem(GRANT_LABEL, sign_grant(owner, grant)))
    taken = Revocation(owner=spki_of(owner), name="prod", number=1, issued_at=at, serials=(7,) if revoked else ())
    held = tmp_path / "list.pem"
    held.write_bytes(to_pem(REVOCATION_LABEL, sign_revocation(owner, taken)))
    text = TOML.format(MRENCLAVE) + (
        f'[deployment]\nowner = "{key_hash(spki_of(owner))}"\nname = "prod"\nrevocations = "{held}"\n'
    )
    stored = StoredPolicy(name="prod.toml", toml=text)

    async def run() -> Recording:
        async with Server(_app, SimulatedAttester(bytes.fromhex(MRENCLAVE)), deployment=holder) as server:
            recorder = Recorder(policy=Policy.from_toml(text, "prod.toml"), stored=stored, at=datetime.now(UTC))
            return await recorder.of_server(server.url)

    recording = asyncio.run(run())
    assert recording.result.verdict is (Verdict.REFUSED if revoked else Verdict.VERIFIED), recording.result.error
    held.unlink()
    result = replay(again(recording), recording.bundle.made_at)
    assert (result.verdict, findings(result)) == (recording.result.verdict, findings(recording.result))
    assert result.deployment == recording.result.deployment
