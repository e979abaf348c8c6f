"""Platform lists from the person who writes one to the policy that holds peers to it."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.bind.deployment import key_hash, sign_document, spki_of
from attestable_mcp.bind.platforms import open_platforms, sign_platforms
from attestable_mcp.errors import AttestationError, ConfigurationError, MalformedEvidence, SignatureInvalid
from attestable_mcp.rats import AttestationResult, Tee, Verdict
from attestable_mcp.simulator.intel import Vendor, evidence, well_known
from attestable_mcp.simulator.options import Platform
from attestable_mcp.tls.replay import Recorder, replay
from attestable_mcp.verifier import Verifier
from attestable_mcp.wire.bundle import StoredPolicy, read_bundle
from attestable_mcp.wire.grant import GRANT_TYPE, from_pem, to_pem
from attestable_mcp.wire.platforms import PLATFORMS_LABEL, PLATFORMS_TYPE, Platforms, platform_id

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
KEY = Ed25519PrivateKey.generate()
PPID = well_known().platform.ppid
MRENCLAVE = bytes(range(32))


def listed(key: Any = KEY, **changed: Any) -> Platforms:
    known = {
        "signer": spki_of(key), "name": "rack 7", "issued": AT - timedelta(days=1), "expires": AT + timedelta(days=29),
        "ids": {"ppid": (PPID,)},
    }  # fmt: skip
    return Platforms(**(known | changed))


def policy(path: Path, key: Any = KEY) -> Policy:
    text = (
        f'[trust]\nsimulated = "accept"\nendorsements = ["stapled"]\n[policy]\nmrenclave = "{MRENCLAVE.hex()}"\n'
        f'platforms = {{ file = "{path}", key = "{key_hash(spki_of(key))}" }}\n'
    )
    return Policy.from_toml(text, "prod.toml")


def judge(verifier: Verifier, at: datetime = AT, vendor: Vendor | None = None) -> AttestationResult:
    vendor = vendor or well_known()
    stapled = vendor.collateral(at=at, tee=Tee.SGX)
    quote = evidence(vendor.quote_sgx(bytes(64), MRENCLAVE))
    return verifier.appraise_evidence(quote, stapled=stapled, at=at).result


def code(result: AttestationResult) -> str:
    return result.error.code if result.error else ""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "list.pem"
    path.write_bytes(sign_platforms(KEY, listed()))
    return path


@pytest.mark.parametrize("key", [KEY, ec.generate_private_key(ec.SECP256R1())])
def test_a_list_opens_as_it_was_signed(key: Any) -> None:
    made = listed(key, ids={"chip_id": (b"\x01" * 64,), "piid": (b"\x02" * 16, b"\x03" * 16), "ppid": (PPID,)})
    assert open_platforms(sign_platforms(key, made)) == made


def test_a_listed_machine_is_accepted_and_the_verdict_ends_with_the_list(path: Path) -> None:
    path.write_bytes(sign_platforms(KEY, listed(expires=AT + timedelta(days=2))))
    result = judge(Verifier(policy(path), sources=[]))
    assert result.verdict is Verdict.VERIFIED
    assert result.holds_until == AT + timedelta(days=2)


@pytest.mark.parametrize("ids", [{"ppid": (b"\x09" * 16,)}, {"piid": (PPID,)}, {"chip_id": (PPID * 4,)}])
def test_hw_wiretap_a_machine_that_is_not_listed_is_refused(path: Path, ids: dict[str, tuple[bytes, ...]]) -> None:
    """Its quote is genuine in every respect: the chip's keys may have been taken out of it."""
    path.write_bytes(sign_platforms(KEY, listed(ids=ids)))
    result = judge(Verifier(policy(path), sources=[]))
    assert (result.verdict, code(result)) == (Verdict.REFUSED, "platform_unknown")
    assert PPID.hex() in result.error.message if result.error else False


def test_hw_wiretap_without_a_list_the_same_quote_passes(path: Path) -> None:
    plain = replace(policy(path), rules=replace(policy(path).rules, platforms=None))
    assert judge(Verifier(plain, sources=[])).verdict is Verdict.VERIFIED


@pytest.mark.parametrize("days", [29, 30, -2])
def test_a_list_out_of_its_time_refuses_every_machine(path: Path, days: int) -> None:
    result = judge(Verifier(policy(path), sources=[]), AT + timedelta(days=days))
    assert code(result) == "platform_list_expired"


def test_e9_an_all_zero_identity_is_none(path: Path) -> None:
    vendor = Vendor(platform=Platform(ppid=bytes(16), platform_instance_id=bytes(16)))
    result = judge(Verifier(policy(path), sources=[]), vendor=vendor)
    assert code(result) == "platform_identity_missing"
    with pytest.raises(MalformedEvidence, match="all-zero"):
        listed(ids={"ppid": (bytes(16),)})


def test_a_policy_whose_list_was_not_read_refuses(path: Path) -> None:
    from attestable_mcp.appraise.judge import appraise
    from attestable_mcp.verify import table
    from attestable_mcp.verify.memory import Memory

    verifier = Verifier(policy(path), sources=[])
    quote = evidence(well_known().quote_sgx(bytes(64), MRENCLAVE))
    bag = well_known().collateral(at=AT, tee=Tee.SGX)
    verified = table.verify(quote, bag, anchors=verifier.anchors, at=AT, memory=Memory())
    assert code(appraise(verified, policy(path))) == "platform_list_missing"


def test_a_newer_list_counts_at_once_and_a_worse_one_never(path: Path) -> None:
    verifier = Verifier(policy(path), sources=[])
    assert judge(verifier).admitted
    good = path.read_bytes()
    other = listed(ids={"ppid": (b"\x09" * 16,)}, issued=AT)
    path.write_bytes(sign_platforms(KEY, other))
    assert code(judge(verifier)) == "platform_unknown"
    path.write_bytes(good)  # older than the one in force: somebody brings the thrown-out machine back
    assert code(judge(verifier)) == "platform_unknown"
    for bad in (b"", b"garbage", sign_platforms(Ed25519PrivateKey.generate(), listed())):
        path.write_bytes(bad)
        assert code(judge(verifier)) == "platform_unknown"
    path.unlink()
    assert code(judge(verifier)) == "platform_unknown"


def test_another_signer_is_refused_by_name(path: Path) -> None:
    stranger = Ed25519PrivateKey.generate()
    path.write_bytes(sign_platforms(stranger, listed(stranger)))
    with pytest.raises(ConfigurationError, match="wanted the signer's key") as caught:
        Verifier(policy(path), sources=[])
    assert caught.value.code == "platform_list"


def test_no_byte_of_a_list_can_be_changed() -> None:
    body, chance = from_pem(sign_platforms(KEY, listed()), PLATFORMS_LABEL), random.Random(5)
    for at in range(len(body)):
        odd = bytearray(body)
        odd[at] ^= 1 << chance.randrange(8)
        with pytest.raises((MalformedEvidence, SignatureInvalid)):
            open_platforms(bytes(odd))
    for cut in range(0, len(body), 7):
        with pytest.raises(AttestationError):
            open_platforms(body[:cut])


def test_a_signature_over_another_kind_of_document_is_none() -> None:
    payload = listed().payload()
    with pytest.raises(MalformedEvidence, match="content type"):
        open_platforms(to_pem(PLATFORMS_LABEL, sign_document(KEY, GRANT_TYPE, payload)))
    assert open_platforms(sign_document(KEY, PLATFORMS_TYPE, payload)) == listed()


@pytest.mark.parametrize(
    "changed",
    [
        {"ids": {}},
        {"ids": {"ppid": (PPID, PPID)}},
        {"ids": {"ppid": (b"short",)}},
        {"ids": {"serial": (PPID,)}},
        {"ids": {"ppid": tuple(n.to_bytes(16, "big") for n in range(1, 4002))}},
        {"expires": AT - timedelta(days=1)},
        {"name": ""},
        {"name": "a\nb"},
    ],
)
def test_a_list_that_cannot_be_is_not_made(changed: dict[str, Any]) -> None:
    with pytest.raises(MalformedEvidence):
        listed(**changed)


def test_a_chip_id_of_turin_is_filled_up() -> None:
    assert platform_id("chip_id", "ab" * 8) == b"\xab" * 8 + bytes(56)
    for kind, text in (("ppid", "ab" * 8), ("ppid", "0x" + "ab" * 15), ("piid", "zz" * 16), ("other", "ab" * 16)):
        with pytest.raises(MalformedEvidence):
            platform_id(kind, text)


def test_a_bundle_brings_the_list_along(path: Path) -> None:
    at = datetime.now(UTC).replace(microsecond=0)
    path.write_bytes(sign_platforms(KEY, listed(issued=at - timedelta(days=1), expires=at + timedelta(days=9))))
    chosen = policy(path)
    chosen = replace(chosen, trust=replace(chosen.trust, endorsements=("stapled", str(path.parent / "c.json"))))
    (path.parent / "c.json").write_text(json.dumps(well_known().collateral_json(at=at, tee=Tee.SGX)))
    text = (
        f'[trust]\nsimulated = "accept"\n[policy]\nmrenclave = "{MRENCLAVE.hex()}"\n'
        f'platforms = {{ file = "{path}", key = "{key_hash(spki_of(KEY))}" }}\n'
    )
    recorder = Recorder(policy=chosen, stored=StoredPolicy(name="prod.toml", toml=text), at=at)
    recording = recorder.of_file("quote.bin", well_known().quote_sgx(bytes(64), MRENCLAVE))
    assert recording.result.verdict is Verdict.VERIFIED
    path.unlink()
    result = replay(read_bundle(recording.bundle.encode()), at)
    assert result.verdict is Verdict.VERIFIED
    assert [item.check for item in result.findings] == [item.check for item in recording.result.findings]


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ('{ file = "list.pem" }', "key is missing"),
        ('{ key = "ab" }', "file is missing"),
        ('{ file = "list.pem", key = "ab" }', "64 hex digits"),
        ('{ file = "list.pem", key = "KEY", more = 1 }', "unknown key"),
        ('"list.pem"', "wanted a table"),
    ],
)
def test_a_rule_that_cannot_be_is_an_error_with_its_line(written: str, said: str) -> None:
    text = f'[policy]\nmrenclave = "{MRENCLAVE.hex()}"\nplatforms = {written.replace("KEY", "ab" * 32)}\n'
    with pytest.raises(ConfigurationError, match=said) as caught:
        Policy.from_toml(text, "prod.toml")
    assert caught.value.message.startswith("prod.toml, line 3")
