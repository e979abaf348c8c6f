"""What a token's own header, times and shape cannot do (attacks P12 and E12; RFC 8725)."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.rats import AttestationResult, Verdict
from attestable_mcp.verifier import Verifier, Watermarks

AT = datetime(2026, 11, 1, tzinfo=UTC)
NOW = int(AT.timestamp())
KEY, THIEF = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
CLAIMS = {
    "iss": "https://verifier.example", "iat": NOW - 5, "exp": NOW + 300, "eat_nonce": "n-1",
    "eat_profile": "tag:github.com,2023:veraison/ear", "submods": {"m": {"ear.status": "affirming"}},
}  # fmt: skip
CLAIM = '"submods.m.ear.status" = "affirming"'


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk(key: ec.EllipticCurvePrivateKey, **more: str) -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    x, y = (b64(value.to_bytes(32, "big")) for value in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y, **more}


def token(claims: dict[str, Any], key: ec.EllipticCurvePrivateKey = KEY, **header: Any) -> bytes:
    head = {"alg": "ES256", "kid": "one", **header}
    signed = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(claims).encode())}"
    r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}".encode()


@pytest.fixture
def judge(tmp_path: Path) -> Callable[..., AttestationResult]:
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [jwk(KEY, kid="one"), jwk(KEY, kid="e", use="enc")]}))

    def made(
        data: bytes, more: str = 'nonce = "n-1"', rules: str = "", profile: str = "ear", claim: str = CLAIM
    ) -> AttestationResult:
        text = f"""
[[trust.tokens]]
profile = "{profile}"
issuer = "https://verifier.example"
keys = "keys.json"
{more}
[policy]
{rules}
tee = "token"
[policy.token_claims]
{claim}
"""
        policy = Policy.from_toml(text, "tokens.toml", base=tmp_path)
        return Verifier(policy, sources=[], watermarks=Watermarks()).appraise_source(data, AT).result

    return made


def code(result: AttestationResult) -> str:
    assert result.verdict is Verdict.REFUSED
    assert result.error is not None
    return result.error.code


def test_p12_a_good_token_of_the_pinned_issuer_is_believed(judge: Callable[..., AttestationResult]) -> None:
    result = judge(token(CLAIMS))
    assert result.verdict is Verdict.VERIFIED, result.error
    assert result.tcb_status == "affirming"
    unasked = judge(token(CLAIMS), more="")
    assert any("no nonce was demanded" in line for line in unasked.not_proven)


def test_p12_keys_in_the_header_prove_nothing(judge: Callable[..., AttestationResult]) -> None:
    for header in ({"jwk": jwk(THIEF)}, {"jku": "https://evil.example/keys"}, {"x5u": "https://evil.example/c"}, {}):
        assert code(judge(token(CLAIMS, THIEF, **header))) == "signature_invalid"
    assert code(judge(token(CLAIMS, THIEF, kid="two", jwk=jwk(THIEF, kid="two")))) == "token_key_unknown"
    assert code(judge(token(CLAIMS, kid="e"))) == "token_key_unknown"  # a key for encryption signs nothing


@pytest.mark.parametrize("algorithm", ["none", "HS256", "ES256K", "EdDSA", None, 7])
def test_p12_algorithms_outside_the_list_are_refused(
    judge: Callable[..., AttestationResult], algorithm: object
) -> None:
    assert code(judge(token(CLAIMS, alg=algorithm))) in ("unsupported_evidence", "unrecognised_source")


def test_p12_an_algorithm_that_the_key_is_not_of_is_refused(judge: Callable[..., AttestationResult]) -> None:
    for algorithm in ("ES384", "RS256", "PS512"):
        assert code(judge(token(CLAIMS, alg=algorithm))) == "signature_invalid"


def test_p12_a_critical_header_is_refused(judge: Callable[..., AttestationResult]) -> None:
    assert code(judge(token(CLAIMS, crit=["b64"], b64=False))) == "unsupported_evidence"


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"exp": NOW}, "token_expired"), ({"exp": None}, "token_expired"), ({"exp": "soon"}, "token_expired"),
        ({"exp": True}, "token_expired"), ({"exp": 1 << 70}, "token_expired"), ({"iat": NOW + 90}, "token_expired"),
        ({"nbf": NOW + 90}, "token_expired"), ({"nbf": "x"}, "token_expired"), ({"iss": "https://x"}, "token_issuer"),
        ({"iss": ["https://verifier.example"]}, "token_issuer"), ({"aud": "us"}, "token_audience"),
        ({"eat_nonce": "n-2"}, "token_nonce"), ({"eat_nonce": None}, "token_nonce"),
        ({"eat_profile": "tag:evil"}, "token_profile"), ({"dbgstat": "enabled"}, "debug_enclave"),
        *(
            ({"submods": {"m": {"ear.status": "affirming"}, "n": {"ear.status": tier}}}, "token_status_refused")
            for tier in ("contraindicated", "warning", 32, "great", 2.5, None)
        ),
        ({"submods": {}}, "measurement_mismatch"),
        ({"submods.m.ear.status": "affirming"}, "malformed_evidence"),
    ],
)  # fmt: skip
def test_p12_a_signed_token_that_says_something_else_is_refused(
    judge: Callable[..., AttestationResult], changed: dict[str, Any], wanted: str
) -> None:
    claims = {name: value for name, value in (CLAIMS | changed).items() if value is not None}
    assert code(judge(token(claims))) == wanted


INTEL = {"iss": "https://verifier.example", "iat": NOW - 5, "exp": NOW + 300, "tdx_mrtd": "ab", "nonce": "n-1"}


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize(
    ("profile", "said", "wanted"),
    [
        (profile, said, wanted)
        for profile in ("intel-trust-authority", "azure-maa")
        for said, wanted in (
            ({"tdx_td_attributes_debug": False, "tdx_td_attributes": "0000001000000000"}, None),
            ({"tdx": {"tdx_is_debuggable": False}}, None),
            ({"x-ms-isolation-tee": {"x-ms-sevsnpvm-is-debuggable": False}}, None),
            ({"tdx_td_attributes_debug": True}, "debug_enclave"),
            ({"x-ms-isolation-tee": {"tdx_td_attributes_debug": True}}, "debug_enclave"),
            ({"tdx_td_attributes": "0100001000000000"}, "debug_enclave"),
            ({"tdx_td_attributes": 0}, "debug_enclave"),
            ({"is-debuggable": "true"}, "debug_enclave"),
            ({"is-debuggable": [True]}, "debug_enclave"),
            ({"tdx_is_debuggable": False, "dbgstat": "enabled"}, "debug_enclave"),
            ({}, "token_profile"),
            ({"x-ms-runtime": {"is-debuggable": False}}, "token_profile"),
            ({"attester_runtime_data": {"keys": [{"tdx_is_debuggable": False}]}}, "token_profile"),
        )
    ],
)
def test_p1_a_token_of_a_debuggable_machine_is_refused_whatever_its_issuer_calls_it(
    judge: Callable[..., AttestationResult],
    rsa_key: rsa.RSAPrivateKey,
    tmp_path: Path,
    profile: str,
    said: dict[str, Any],
    wanted: str | None,
) -> None:
    """What says nothing of debug is refused too; what the attester wrote into its own data says nothing."""
    numbers = rsa_key.public_key().public_numbers()
    modulus = b64(numbers.n.to_bytes(256, "big"))
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [{"kty": "RSA", "kid": "r", "n": modulus, "e": "AQAB"}]}))
    signed = f"{b64(json.dumps({'alg': 'RS256', 'kid': 'r'}).encode())}.{b64(json.dumps(INTEL | said).encode())}"
    data = f"{signed}.{b64(rsa_key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}".encode()
    result = judge(data, profile=profile, claim='"tdx_mrtd" = "ab"')
    if wanted:
        assert code(result) == wanted
    else:
        assert result.verdict is Verdict.VERIFIED, result.error


@pytest.mark.parametrize("name", ["m.x", "m[0]"])
def test_p12_no_submodule_hides_behind_the_name_of_another(judge: Callable[..., AttestationResult], name: str) -> None:
    good, bad = {"ear.status": "affirming", "ok": True}, {"ear.status": "affirming", "ok": False}
    rule = '"submods.*.ok" = true'
    assert judge(token(CLAIMS | {"submods": {"m": good, "n": good}}), claim=rule).verdict is Verdict.VERIFIED
    assert code(judge(token(CLAIMS | {"submods": {"m": good, "n": bad}}), claim=rule)) == "measurement_mismatch"
    assert code(judge(token(CLAIMS | {"submods": {"m": good, name: bad}}), claim=rule)) == "malformed_evidence"


def test_p12_every_flipped_character_is_refused(judge: Callable[..., AttestationResult]) -> None:
    good, refused = token(CLAIMS), 0
    for at in range(0, len(good), 7):
        letter = b"A" if good[at : at + 1] != b"A" else b"B"
        if judge(good[:at] + letter + good[at + 1 :]).verdict is Verdict.REFUSED:
            refused += 1
    assert refused == len(range(0, len(good), 7))


def test_p12_a_list_of_nonces_and_of_audiences_is_understood(judge: Callable[..., AttestationResult]) -> None:
    claims = CLAIMS | {"eat_nonce": ["n-0", "n-1"], "aud": ["them", "us"]}
    assert judge(token(claims), more='nonce = "n-1"\naudience = ["us"]').verdict is Verdict.VERIFIED


def test_e12_no_token_passes_for_hardware(judge: Callable[..., AttestationResult]) -> None:
    """A token that says what a quote would say is still the word of its issuer, and no policy for hardware takes it."""
    result = judge(token(CLAIMS | {"mrenclave": "aa" * 32, "tee": "sgx"}))
    assert result.tee == "token"
    assert result.to_json()["origins"]["mrenclave"] == "signed"
    policy = Policy.from_toml(f'[policy]\nmrenclave = "{"aa" * 32}"')
    refused = Verifier(policy, sources=[], watermarks=Watermarks()).appraise_source(token(CLAIMS), AT).result
    assert code(refused) == "token_issuer"  # by default nobody is believed


def test_p12_a_nonce_for_one_call_stands_above_the_files(
    judge: Callable[..., AttestationResult], tmp_path: Path
) -> None:
    text = (
        '[[trust.tokens]]\nprofile = "ear"\nissuer = "https://verifier.example"\nkeys = "keys.json"\nnonce = "n-1"\n'
        '[policy]\ntoken_claims = { "eat_nonce" = "n-1" }'
    )
    policy = Policy.from_toml(text, base=tmp_path).with_nonce("n-2")
    verifier = Verifier(policy, sources=[], watermarks=Watermarks())
    assert code(verifier.appraise_source(token(CLAIMS), AT).result) == "token_nonce"
    with pytest.raises(ConfigurationError, match="believes no issuer"):
        Policy.genuine_only().with_nonce("n")
