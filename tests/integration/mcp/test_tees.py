"""Every kind of TEE from end to end: served, pinned, called by a client that proves it first, refused when changed."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from mcp.server import MCPServer
from tsm_double import INTEL, Kernel

from attestable_mcp import AppraisalRefused, AttestationError, Policy, Verdict, attested_client, serve
from attestable_mcp.appraise.write import policy_toml
from attestable_mcp.attest.simulated import PLAYERS
from attestable_mcp.attest.tpm import TpmAttester
from attestable_mcp.attest.tsm import TsmAttester
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.rats import Tee
from attestable_mcp.simulator.eventlog import Event, ccel_table, rtmrs, secure_boot, write_log
from attestable_mcp.simulator.options import TdxBody
from attestable_mcp.simulator.tpm import well_known as simulated_tpm
from attestable_mcp.tls.client import attest_server
from attestable_mcp.tls.replay import Recorder, replay
from attestable_mcp.wire import ratls
from attestable_mcp.wire.bundle import StoredPolicy, read_bundle

pytestmark = pytest.mark.anyio
MEASURED, OTHER = bytes(range(32)), bytes(32)
GENUINE = Policy.genuine_only(simulated="accept")
Start = Callable[[], str]
Extend = Callable[[str, int, bytes], None]


def sums() -> MCPServer:
    server = MCPServer("sums", log_level="ERROR")

    @server.tool()
    async def add(a: int, b: int) -> int:
        return a + b

    return server


async def total(url: str, policy: Policy) -> Any:
    async with attested_client(url, policy=policy) as client:
        assert client.attestation.verdict is Verdict.VERIFIED
        answer = await client.call_tool("add", {"a": 2, "b": 3})
        return answer.structured_content["result"]


async def pinned(url: str) -> str:
    peer = await attest_server(GENUINE, url)
    return policy_toml(peer.result, anchors=("intel", "amd", "aws", "tpm"), endorsements=("stapled",))


@pytest.mark.parametrize("tee", list(PLAYERS))
async def test_each_kind_is_pinned_called_and_refused_when_it_runs_other_code(tee: Tee) -> None:
    async with serve(sums(), attester=f"simulated:{tee}", measured=MEASURED) as server:
        assert server.tee == tee
        text = await pinned(server.url)
        assert await total(server.url, Policy.from_toml(text)) == 5
        with pytest.raises(AttestationError) as caught:
            await attest_server(Policy.from_toml(text.replace('simulated = "accept"', "")), server.url)
        assert caught.value.code == "simulated_evidence"
    async with serve(sums(), attester=f"simulated:{tee}", measured=OTHER) as server:
        with pytest.raises(AppraisalRefused) as refused:
            await attest_server(Policy.from_toml(text), server.url)
        assert refused.value.code == "measurement_mismatch"


async def test_a_nitro_certificate_lives_no_longer_than_the_document_in_it() -> None:
    async with serve(sums(), attester="simulated:nitro", measured=MEASURED, lifetime=timedelta(days=1)) as server:
        issued = server.server.issued
        assert timedelta(hours=1) < issued.not_after - issued.not_before < timedelta(hours=3)


async def test_a_td_brings_the_log_of_its_boot_and_a_client_replays_it(tmp_path: Path) -> None:
    """The kernel's report files and the firmware's tables by doubles; all else as it is."""
    booted = (*secure_boot(True), Event(pcr=2, data=b"shim"), Event(pcr=3, data=b"kernel"))
    log = write_log(booted, "sha384")
    (tmp_path / "data").mkdir()
    (tmp_path / "CCEL").write_bytes(ccel_table(4096))
    (tmp_path / "data" / "CCEL").write_bytes(log.ljust(4096, b"\xff"))
    (tmp_path / "collateral.json").write_text(json.dumps(INTEL.collateral_json(at=datetime.now(UTC), tee=Tee.TDX)))
    kernel = Kernel(b"tdx_guest\n")
    kernel.td = TdxBody(rtmr=rtmrs(booted))
    attester = TsmAttester(files=kernel, tables=tmp_path)
    async with serve(sums(), attester=attester, staple=tmp_path / "collateral.json") as server:
        result = (await attest_server(GENUINE, server.url)).result
        assert (result.claims["event_log_explains"], result.claims["secure_boot"]) == ("all", True)
        demanding = await pinned(server.url) + '\nevent_log = "require"\n'
        text = demanding.replace("[policy]", '[policy]\nsecure_boot = "require"', 1)
        assert await total(server.url, Policy.from_toml(text)) == 5
        later = (*booted, Event(pcr=3, data=b"module"))
        kernel.td = TdxBody(rtmr=rtmrs(later))
        with pytest.raises(AttestationError, match=r"rtmr2 wanted .* as in the certificate"):
            await attest_server(GENUINE, server.url)
        await server.server.renew()
        result = (await attest_server(GENUINE, server.url)).result
        assert result.claims["event_log_explains"] == "not rtmr2"
        assert "what rtmr2 mean: the event log does not explain them" in result.not_proven


# A real TPM 2.0 in software: nothing below is simulated.


def boot(where: str, extend: Extend) -> None:
    for pcr in (0, 4, 7, 8, 9):
        extend(where, pcr, b"stage %d" % pcr)


def certified(ak: bytes) -> tuple[bytes, bytes]:
    """A CA of our own and its certificate for the attestation key, PEM."""
    authority, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]) for text in ("our TPM CA", "AK")]
    built = []
    for subject, key, is_ca in ((names[0], authority.public_key(), True), (names[1], load_der_public_key(ak), False)):
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(names[0]).public_key(key)  # type: ignore[arg-type]
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(hours=1))
        builder = builder.not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        built.append(builder.sign(authority, hashes.SHA256()).public_bytes(Encoding.PEM))
    return built[0], built[1]


def policy_for(anchor: Path, pcrs: dict[int, bytes]) -> Policy:
    lines = [f'pcr{number} = "{value.hex()}"' for number, value in pcrs.items()]
    head = f'[trust]\nanchors = ["tpm={anchor}"]\nendorsements = ["stapled"]\n[policy]\ntee = "tpm"\n'
    return Policy.from_toml(head + "\n".join(lines))


def measured(what: bytes) -> bytes:
    """What a PCR holds after one measurement."""
    return hashlib.sha256(bytes(32) + hashlib.sha256(what).digest()).digest()


async def test_a_real_tpm_certified_by_a_ca_is_verified_by_its_pcrs(
    swtpm: Start, extend: Extend, tmp_path: Path
) -> None:
    where = swtpm()
    boot(where, extend)
    root, leaf = certified(TpmAttester(where).ak)
    (tmp_path / "root.pem").write_bytes(root)
    (tmp_path / "ak.pem").write_bytes(leaf)
    good = policy_for(tmp_path / "root.pem", {4: measured(b"stage 4"), 9: measured(b"stage 9")})
    async with serve(sums(), attester=f"tpm:{where}", staple=tmp_path / "ak.pem") as server:
        assert (server.tee, server.simulated) == ("tpm", False)
        assert await total(server.url, good) == 5
        with pytest.raises(AppraisalRefused) as caught:
            await attest_server(
                policy_for(tmp_path / "root.pem", {4: measured(b"another loader"), 9: measured(b"stage 9")}), server.url
            )
        assert caught.value.code == "measurement_mismatch"
        other, _ = certified(TpmAttester(where).ak)
        (tmp_path / "other.pem").write_bytes(other)
        with pytest.raises(AttestationError):
            await attest_server(policy_for(tmp_path / "other.pem", {4: measured(b"stage 4")}), server.url)
        extend(where, 9, b"something loaded later")
        with pytest.raises(AppraisalRefused) as caught:
            await attest_server(good, server.url)
        assert caught.value.code == "measurement_mismatch"
        assert "pcr9" in caught.value.message


async def test_a_verdict_on_a_real_tpm_replays_with_the_root_that_the_server_did_not_send(
    swtpm: Start, extend: Extend, tmp_path: Path
) -> None:
    where = swtpm()
    boot(where, extend)
    root, leaf = certified(TpmAttester(where).ak)
    (tmp_path / "root.pem").write_bytes(root)
    (tmp_path / "ak.pem").write_bytes(leaf)
    policy = policy_for(tmp_path / "root.pem", {4: measured(b"stage 4")})
    stored = StoredPolicy(name=policy.name, toml=f'[policy]\ntee = "tpm"\npcr4 = "{measured(b"stage 4").hex()}"')
    async with serve(sums(), attester=f"tpm:{where}", staple=tmp_path / "ak.pem") as server:
        recording = await Recorder(policy=policy, stored=stored, at=datetime.now(UTC)).of_server(server.url)
    again = replay(read_bundle(recording.bundle.encode()), recording.bundle.made_at)
    assert recording.result.verdict is again.verdict is Verdict.VERIFIED
    assert [finding.check for finding in again.findings] == [finding.check for finding in recording.result.findings]


async def test_another_tpm_with_the_same_pcrs_is_refused(swtpm: Start, extend: Extend, tmp_path: Path) -> None:
    """The PCRs are public: whoever has a TPM can make them. The key is what the other machine has not."""
    ours, theirs = swtpm(), swtpm()
    for where in (ours, theirs):
        boot(where, extend)
    root, leaf = certified(TpmAttester(ours).ak)
    (tmp_path / "root.pem").write_bytes(root)
    (tmp_path / "ak.pem").write_bytes(leaf)
    policy = policy_for(tmp_path / "root.pem", {4: measured(b"stage 4")})
    async with serve(sums(), attester=f"tpm:{theirs}", staple=tmp_path / "ak.pem") as server:
        with pytest.raises(AttestationError) as caught:
            await attest_server(policy, server.url)
        assert caught.value.code == "ak_certificate_mismatch"


@asynccontextmanager
async def served(*words: str, folder: Path) -> Any:
    """`attestable-mcp serve` as a process; its ready line."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "attestable_mcp", "serve", *words, "--json",
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert child.stdout is not None
    try:
        yield json.loads(await asyncio.wait_for(child.stdout.readline(), 50))
    finally:
        child.send_signal(signal.SIGTERM)
        await asyncio.wait_for(child.wait(), 20)


def command(*words: str, folder: Path) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "attestable_mcp", *words, "--json"],
        cwd=folder, capture_output=True, text=True, timeout=50, check=False, env=dict(os.environ),
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout)


@pytest.mark.slow
async def test_the_command_line_from_doctor_to_call_with_a_real_tpm(
    swtpm: Start, extend: Extend, tmp_path: Path
) -> None:
    where = swtpm()
    boot(where, extend)
    (tmp_path / "srv.py").write_text(
        "from mcp.server import MCPServer\nmcp = MCPServer('sums')\n@mcp.tool()\ndef add(a: int, b: int) -> int:\n"
        "    return a + b\n"
    )
    run = lambda *words: asyncio.to_thread(command, *words, folder=tmp_path)  # noqa: E731
    code, found = await run("doctor", f"tpm:{where}", "--ak", "ak.pem")
    assert (code, found["ready"]) == (0, ["tpm"])
    async with served("srv.py:mcp", "--attester", f"tpm:{where}", folder=tmp_path) as ready:
        url = ready["url"]
        assert ready["tee"] == "tpm"
        assert (await run("verify", url, "--genuine-only"))[0] == 3
        code, found = await run("pin", url, "-o", "p.toml", "--anchor", "tpm=ak.pem")
        assert (code, found["verdict"]) == (0, "verified")
        code, found = await run("call", url, "add", "a=2", "b=3", "--policy", "p.toml")
        assert (code, found["result"]["structuredContent"]) == (0, {"result": 5})
        extend(where, 4, b"another loader")
        code, found = await run("verify", url, "--policy", "p.toml")
        assert (code, found["error"]["code"]) == (2, "measurement_mismatch")


async def test_a_staple_that_clients_would_pass_over_stops_the_server(tmp_path: Path) -> None:
    """What openssl writes by default is a certificate of version 1: better said here than missed at every client."""
    leaf = x509.load_pem_x509_certificate(certified(simulated_tpm().ak)[1]).public_bytes(Encoding.DER)
    damaged = base64.encodebytes(leaf.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x00", 1))
    pem = b"-----BEGIN CERTIFICATE-----\n" + damaged + b"-----END CERTIFICATE-----\n"
    (tmp_path / "v1.pem").write_bytes(pem)
    with pytest.raises(ConfigurationError, match="a certificate that no client here reads") as caught:
        async with serve(sums(), attester="simulated:tpm", measured=MEASURED, staple=tmp_path / "v1.pem"):
            pytest.fail("a server was started that no client can verify")
    assert "-extfile" in caught.value.hint


async def test_the_certificate_carries_quote_and_staple(swtpm: Start, tmp_path: Path) -> None:
    where = swtpm()
    root, leaf = certified(TpmAttester(where).ak)
    (tmp_path / "chain.pem").write_bytes(leaf + root)
    async with serve(sums(), attester=f"tpm:{where}", staple=str(tmp_path / "chain.pem")) as server:
        read = ratls.read(server.server.issued.certificate_der)
    assert read.endorsements is not None
    assert len(read.endorsements.certificates) == 2
