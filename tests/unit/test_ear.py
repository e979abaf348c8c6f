"""Results as signed tokens: what they say, that our own reader believes them, and that they never say more."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.cli.main import main
from attestable_mcp.ear import PROFILE, RESULT, SUBMOD, claims_of, sign
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.rats import AttestationResult, Verdict
from attestable_mcp.verifier import Verifier, Watermarks

AT = datetime(2026, 11, 1, tzinfo=UTC)
GOOD = AttestationResult(
    verdict=Verdict.VERIFIED, at=AT, tee="tdx", tcb_status="UpToDate", claims={"mr_td": "aa", "debug": False},
    policy="prod.toml", holds_until=AT + timedelta(minutes=10),
)  # fmt: skip
PEM, PKCS8, PLAIN = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
KEYS = {
    "ES256": ec.generate_private_key(ec.SECP256R1()), "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()), "PS256": rsa.generate_private_key(65537, 2048),
}  # fmt: skip


def private(name: str) -> bytes:
    return KEYS[name].private_bytes(PEM, PKCS8, PLAIN)


def public(name: str) -> bytes:
    return KEYS[name].public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def read_back(token: str, folder: Path, name: str, claim: str, value: str, issuer: str = "") -> AttestationResult:
    (folder / "keys.pem").write_bytes(public(name))
    said = f'issuer = "{issuer}"' if issuer else ""
    text = f"""
[[trust.tokens]]
profile = "ear"
keys = "keys.pem"
nonce = "n"
{said}
[policy]
tee = "token"
token_claims = {{ "{claim}" = "{value}" }}
"""
    policy = Policy.from_toml(text, base=folder)
    at = AT + timedelta(minutes=5)
    return Verifier(policy, sources=[], watermarks=Watermarks()).appraise_source(token.encode(), at).result


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("issuer", ["", "https://verifier.example"])
def test_our_own_reader_believes_what_we_sign(tmp_path: Path, name: str, issuer: str) -> None:
    token = sign(claims_of(GOOD, nonce="n", issuer=issuer), private(name))
    path = f"submods.{SUBMOD}.{RESULT}.claims.mr_td"
    result = read_back(token, tmp_path, name, path, "aa", issuer)
    assert result.verdict is Verdict.VERIFIED, result.error
    assert (result.tcb_status, result.claims["eat_profile"]) == ("affirming", PROFILE)
    other = "ES256" if name != "ES256" else "PS256"
    refused = read_back(token, tmp_path, other, path, "aa", issuer)
    assert refused.error is not None
    assert refused.error.code == "signature_invalid"


def test_a_token_speaks_no_longer_than_its_result_holds() -> None:
    claims = claims_of(GOOD)
    assert claims["exp"] - claims["iat"] == 600
    assert claims_of(replace(GOOD, holds_until=None))["exp"] - claims["iat"] == 3600


@pytest.mark.parametrize(
    ("changed", "status", "vector"),
    [
        ({}, "affirming", {"hardware": 2, "executables": 2, "runtime-opaque": 2}),
        ({"verdict": Verdict.PARTIAL}, "warning", {"hardware": 2, "executables": 33, "runtime-opaque": 2}),
        ({"tcb_status": "OutOfDate"}, "warning", {"hardware": 32, "executables": 2, "runtime-opaque": 2}),
        ({"simulated": True}, "contraindicated", {"hardware": 97}),
        ({"verdict": Verdict.REFUSED}, "contraindicated", {"executables": 96}),
        ({"verdict": Verdict.REFUSED, "claims": {}}, "contraindicated", {}),
        ({"verdict": Verdict.UNAVAILABLE, "claims": {}}, "none", {}),
        ({"claims": {"debug": True}}, "affirming", {"hardware": 2, "executables": 2}),
        ({"tee": "tpm", "tcb_status": ""}, "affirming", {"hardware": 2, "executables": 2}),
        ({"tee": "token", "tcb_status": "warning"}, "warning", {"hardware": 32, "executables": 2}),
    ],
)
def test_tiers_are_no_better_than_the_result(changed: dict[str, object], status: str, vector: dict[str, int]) -> None:
    submod = claims_of(replace(GOOD, **changed))["submods"][SUBMOD]  # type: ignore[arg-type]
    assert submod["ear.status"] == status
    assert submod["ear.trustworthiness-vector"] == vector
    assert submod[RESULT]["verdict"] == str(changed.get("verdict", Verdict.VERIFIED))


def test_keys_that_sign_no_token_are_refused() -> None:
    weak = ed25519.Ed25519PrivateKey.generate().private_bytes(PEM, PKCS8, PLAIN)
    for key in (b"", b"no key", public("ES256"), weak):
        with pytest.raises(ConfigurationError, match="token key"):
            sign({}, key)


def test_the_command_line_writes_a_token_for_any_verdict(
    vectors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = vectors / "nitro" / "evervault-2022-valid"
    (tmp_path / "key.pem").write_bytes(private("ES256"))
    words = ["verify", str(folder / "attestation.cose"), "--genuine-only", "--at", "2022-10-13T12:00:00Z", "--json"]
    token = ["--token", str(tmp_path / "out.jwt"), "--token-key", str(tmp_path / "key.pem"), "--token-nonce", "n"]
    code = main([*words, *token])
    shown = json.loads(capsys.readouterr().out)
    assert code in (2, 3, 4)
    from attestable_mcp.wire.token import read_token

    claims = read_token((tmp_path / "out.jwt").read_bytes()).claims
    assert claims["submods"][SUBMOD][RESULT] == shown
    assert claims["eat_nonce"] == "n"
    assert main([*words, "--token", str(tmp_path / "out.jwt")]) == 1
    assert main([*words, *token[:3], str(tmp_path / "absent.pem")]) == 1
    assert main([*words, "--token", str(tmp_path / "no" / "such"), *token[2:]]) == 1
