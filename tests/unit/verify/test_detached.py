"""NRAS's whole answer: an overall token with one for each device, read and judged as one thing (attacks P12, E12)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.errors import EvidenceError
from attestable_mcp.rats import AttestationResult, Verdict
from attestable_mcp.verifier import Verifier, Watermarks
from attestable_mcp.wire.detached import looks_like_tokens, read_tokens

AT = datetime(2026, 11, 1, tzinfo=UTC)
NOW = int(AT.timestamp())
KEY, THIEF = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
ISSUER = "https://nras.attestation.nvidia.com"
BASE = {"iss": ISSUER, "iat": NOW - 5, "nbf": NOW - 5, "exp": NOW + 3600, "eat_nonce": "n-1"}
DEVICE = {**BASE, "measres": "success", "dbgstat": "disabled", "secboot": True, "hwmodel": "GH100"}
ANY = f'token_claims = {{ "iss" = "{ISSUER}" }}'
RULES = 'token_claims = { "submods.*.measres" = "success" }'
Edit = Mapping[str, Any]


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(claims: Edit, key: ec.EllipticCurvePrivateKey = KEY) -> str:
    signed = f"{b64(json.dumps({'alg': 'ES384'}).encode())}.{b64(json.dumps(dict(claims)).encode())}"
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA384())))
    return f"{signed}.{b64(r.to_bytes(48, 'big') + s.to_bytes(48, 'big'))}"


def answer(devices: Mapping[str, str], overall: Edit | None = None, **stated: Any) -> bytes:
    """NRAS's answer; `stated` replaces digests by name, None takes one away."""
    digests: dict[str, Any] = {
        name: ["DIGEST", ["SHA-256", hashlib.sha256(text.encode()).hexdigest()]] for name, text in devices.items()
    }
    digests = {name: value for name, value in (digests | stated).items() if value is not None}
    claims = {**BASE, "x-nvidia-overall-att-result": True, "submods": digests, **(overall or {})}
    return json.dumps([["JWT", token(claims)], dict(devices)]).encode()


def gpus(count: int = 2, **changed: Any) -> dict[str, str]:
    """Tokens of so many GPUs; `changed` claims are the last one's."""
    found = {f"GPU{number}": token({**DEVICE, "ueid": str(number)}) for number in range(count)}
    return found | {f"GPU{count - 1}": token({**DEVICE, **changed})}


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., AttestationResult]:
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "keys.pem").write_bytes(pem)

    def made(data: bytes, rules: str = RULES, profile: str = "nvidia-nras") -> AttestationResult:
        text = f"""
[[trust.tokens]]
profile = "{profile}"
issuer = "{ISSUER}"
keys = "keys.pem"
nonce = "n-1"
[policy]
tee = "token"
{rules}
"""
        policy = Policy.from_toml(text, base=tmp_path)
        return Verifier(policy, sources=[], watermarks=Watermarks()).appraise_source(data, AT).result

    return made


def code(result: AttestationResult) -> str:
    assert result.verdict is Verdict.REFUSED
    return result.error.code if result.error else ""


def test_overall_and_devices_are_one_result(judge: Callable[..., AttestationResult]) -> None:
    result = judge(answer(gpus(8)))
    assert result.verdict is Verdict.VERIFIED
    assert result.tcb_status == "affirming"
    assert result.claims["submods.GPU7.hwmodel"] == "GH100"
    assert not [name for name in result.claims if "[" in name], "digests gave way to what they are of"
    assert not [line for line in result.not_proven if "digest" in line]
    (finding,) = [item for item in result.findings if item.check == "token.submods"]
    assert "GPU7: digests and signatures" in finding.seen


def test_the_result_holds_until_the_first_token_expires(judge: Callable[..., AttestationResult]) -> None:
    assert judge(answer(gpus(2, exp=NOW + 60))).holds_until == datetime.fromtimestamp(NOW + 60, UTC)


@pytest.mark.parametrize(
    ("data", "wanted", "named"),
    [
        (answer(gpus(), GPU1=["DIGEST", ["SHA-256", "00" * 32]]), "token_submods", "the token of GPU1"),
        (answer(gpus(), GPU1=None), "token_submods", "tokens of GPU0, seen GPU0, GPU1"),
        (answer(gpus(), GPU2=["DIGEST", ["SHA-256", "00" * 32]]), "token_submods", "tokens of GPU0, GPU1, GPU2"),
        (answer({**gpus(1), "GPU1": token(DEVICE, THIEF)}), "signature_invalid", "seen GPU1"),
        (answer(gpus(exp=NOW - 1)), "token_expired", "seen GPU1"),
        (answer(gpus(iss="https://elsewhere.example")), "token_issuer", "seen GPU1"),
        (answer(gpus(eat_nonce="n-2")), "token_nonce", "seen GPU1"),
        (answer(gpus(), {"eat_nonce": "n-2"}), "token_nonce", "token.nonce"),
        (answer(gpus(), {"exp": NOW - 1}), "token_expired", "token.expiry"),
        (answer(gpus(dbgstat="enabled")), "debug_enclave", "debuggable"),
        (answer(gpus(measres="failure")), "measurement_mismatch", "GPU1 failure"),
    ],
    ids=[
        "swapped", "added", "left-out", "signed-by-another", "expired", "other-issuer", "other-nonce", "overall-nonce",
        "overall-expired", "debug", "not-measured",
    ],
)  # fmt: skip
def test_p12_one_token_that_does_not_belong_refuses_all(
    judge: Callable[..., AttestationResult], data: bytes, wanted: str, named: str
) -> None:
    result = judge(data)
    assert code(result) == wanted
    assert named in (result.error.message if result.error else "")


@pytest.mark.parametrize(
    "data", [answer(gpus(measres="failure")), answer(gpus(), {"x-nvidia-overall-att-result": False})]
)
def test_the_status_is_good_only_where_all_say_so(judge: Callable[..., AttestationResult], data: bytes) -> None:
    result = judge(data, ANY)
    assert code(result) == "token_status_refused"
    assert result.tcb_status == "contraindicated"


def test_an_overall_result_counts_alone_where_there_is_one(judge: Callable[..., AttestationResult]) -> None:
    said = {**BASE, "x-nvidia-overall-att-result": False, "measres": "success"}
    assert judge(token(said).encode(), ANY).tcb_status == "contraindicated"
    assert judge(token({**BASE, "measres": "Success"}).encode(), ANY).tcb_status == "affirming"


def test_a_star_wants_every_device_and_at_least_one(judge: Callable[..., AttestationResult]) -> None:
    assert judge(answer(gpus()), 'token_claims = { "submods.*.secboot" = true }').verdict is Verdict.VERIFIED
    mixed = judge(answer(gpus(hwmodel="GB200")), 'token_claims = { "submods.*.hwmodel" = "GH100" }')
    assert code(mixed) == "measurement_mismatch"
    assert "seen GPU0 GH100, GPU1 GB200" in (mixed.error.message if mixed.error else "")
    absent = judge(answer(gpus()), 'token_claims = { "submods.*.nothing" = "x" }')
    assert "seen absent" in (absent.error.message if absent.error else "")


def test_an_overall_token_alone_says_what_is_not_here(judge: Callable[..., AttestationResult]) -> None:
    (_, alone), _ = json.loads(answer(gpus()))
    held = judge(alone.encode(), ANY)
    assert held.verdict is Verdict.VERIFIED
    assert "what the issuer says of GPU0, GPU1: only digests of those tokens are here" in held.not_proven
    assert code(judge(alone.encode())) == "measurement_mismatch"


def test_other_issuers_send_no_bundles(judge: Callable[..., AttestationResult]) -> None:
    ear = {"eat_profile": "tag:github.com,2023:veraison/ear"}
    result = judge(answer({"a": token({**DEVICE, **ear})}, ear), profile="ear")
    assert code(result) == "token_submods"


@pytest.mark.parametrize(
    "data",
    [
        b"[]", b'[["JWT"]]', b'[["JWT", 7], {}]', b'[["CBOR", "x"], {}]', b'[["JWT", "a.b.c"], []]',
        b'[["JWT", "a"], {}, 1]',
        b'[["JWT", "eyJ9.eyJ9.AA"], {"a": "x", "a": "y"}]', b"[" * 100_000, b'[["JWT", "\xff"], {}]',
        answer({f"GPU{number}": "x" for number in range(65)}),
        answer({"GPU0": token(DEVICE) + "\n"}), answer({"GPU0": " "}),
    ],
)  # fmt: skip
def test_what_is_no_bundle_is_refused(data: bytes) -> None:
    with pytest.raises(EvidenceError):
        read_tokens(data)


@pytest.mark.parametrize("digest", [["DIGEST", "x"], ["DIGEST"], ["DIGEST", ["MD5", "00"]], ["DIGEST", ["SHA-256", 7]]])
def test_a_digest_of_another_shape_is_refused(judge: Callable[..., AttestationResult], digest: object) -> None:
    assert code(judge(answer(gpus(1), GPU0=digest))) in ("malformed_evidence", "unsupported_evidence")


def test_a_claim_that_stands_twice_is_refused(judge: Callable[..., AttestationResult]) -> None:
    devices = {"a": token({**DEVICE, "b": {"x": 1}}), "a.b": token({**DEVICE, "x": 2})}
    assert code(judge(answer(devices))) == "malformed_evidence"


@pytest.mark.parametrize("overall", [0, 2])
def test_real_answers_hold_the_digests_of_real_device_tokens(vectors: Path, overall: int) -> None:
    folder = vectors / "token" / "nvidia-nras-gpu-eat"
    texts = [(folder / f"nras{number}.jwt").read_text() for number in (overall, overall + 1)]
    sent = json.dumps([["JWT", texts[0]], {"GPU-0": texts[1]}]).encode()
    assert looks_like_tokens(sent)
    tokens = read_tokens(sent)
    assert len(tokens.digests) == (1 if overall == 0 else 8)
    assert tokens.flat["submods.GPU-0.hwmodel"] == "GH100 A01 GSP BROM"
    assert tokens.fits("GPU-0")
