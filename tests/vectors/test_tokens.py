"""Every real token gets its verdict, gives back its claims, and names its own keys in vain."""

from __future__ import annotations

import json
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.rats import AttestationResult, Verdict
from attestable_mcp.verifier import Verifier, Watermarks
from attestable_mcp.wire.token import read_token

PROFILES = {
    "google-confidential-space-pki-tdx": "confidential-space",
    "intel-amber-sgx-2022": "intel-trust-authority",
    "maa-sevsnpvm-2025": "azure-maa",
    "nvidia-nras-gpu-eat": "nvidia-nras",
    "trustee-ear-tokens": "ear",
}


def toml(profile: str, issuer: str, trust: str, claim: str = '"iss"', value: str = '"x"', more: str = "") -> str:
    return f"""
[[trust.tokens]]
profile = "{profile}"
{f'issuer = "{issuer}"' if issuer else ""}
{trust}
{more}
[policy]
tee = "token"
token_claims = {{ {claim} = {value} }}
"""


def judge(text: str, data: bytes, at: datetime, base: Path) -> AttestationResult:
    policy = Policy.from_toml(text, "tokens.toml", base=base)
    return Verifier(policy, sources=[], watermarks=Watermarks()).appraise_source(data, at).result


def at_of(token: Path) -> datetime:
    return datetime.fromtimestamp(read_token(token.read_bytes()).claims["iat"] + 60, UTC)


def jwk_of(token: Path) -> dict[str, Any]:
    return dict(read_token(token.read_bytes()).header["jwk"])


def test_every_set_is_met_by_a_test(vectors: Path) -> None:
    unsigned = {"oak-confidential-space-claim-sets"}
    assert {path.parent.name for path in (vectors / "token").glob("*/meta.toml")} == set(PROFILES) | unsigned


def test_google_confidential_space_by_its_pinned_root(vectors: Path) -> None:
    folder = vectors / "token" / "google-confidential-space-pki-tdx"
    meta = tomllib.loads((folder / "meta.toml").read_text())
    stated = meta["measurements"]
    data, at = (folder / "token.jwt").read_bytes(), datetime.fromtimestamp(meta["verify"]["time"], UTC)
    trust = 'root = "collateral/confidential_space_root.pem"'
    claim, value = '"submods.container.image_digest"', f'"{stated["image_digest"]}"'
    more = f'audience = ["{stated["aud"]}"]\nnonce = "{stated["eat_nonce"]}"'
    text = toml("confidential-space", stated["iss"], trust, claim, value, more)
    result = judge(text, data, at, folder)
    assert result.verdict is Verdict.VERIFIED, result.error
    assert {name: result.claims[name] for name in ("iss", "aud", "hwmodel", "swname", "dbgstat", "eat_nonce")} == {
        name: stated[name] for name in ("iss", "aud", "hwmodel", "swname", "dbgstat", "eat_nonce")
    }
    assert set(result.to_json()["origins"].values()) == {"signed"}
    assert any("a third verifier has judged it" in line for line in result.not_proven)
    for changed, code in {
        text.replace(stated["eat_nonce"], "00" * 32): "token_nonce",
        text.replace(f'audience = ["{stated["aud"]}"]', 'audience = ["another"]'): "token_audience",
        text.replace(f'audience = ["{stated["aud"]}"]', ""): "token_audience",
        text.replace(f'issuer = "{stated["iss"]}"', 'issuer = "https://evil.example"'): "token_issuer",
        text.replace(stated["image_digest"], "sha256:00"): "measurement_mismatch",
        text.replace('"confidential-space"', '"nvidia-nras"'): "token_algorithm",
    }.items():
        refused = judge(changed, data, at, folder)
        assert (refused.verdict, refused.error.code if refused.error else "") == (Verdict.REFUSED, code)
    for moment in (datetime(2025, 9, 5, 8, 0, tzinfo=UTC), datetime(2025, 9, 5, 9, 17, 30, tzinfo=UTC)):
        late = judge(text, data, moment, folder)
        assert late.error is not None
        assert late.error.code == "token_expired"


@pytest.mark.parametrize("name", ["ear.jwt", "ear_with_additional_device.jwt"])
def test_trustees_ear_by_its_pinned_key_and_by_no_key_of_its_own(vectors: Path, tmp_path: Path, name: str) -> None:
    path = vectors / "token" / "trustee-ear-tokens" / name
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [jwk_of(path)]}))
    stranger = {"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}  # fmt: skip
    (tmp_path / "other.json").write_text(json.dumps(stranger))
    claim = ('"submods.cpu0.ear.status"', '"affirming"')
    pinned = judge(toml("ear", "", 'keys = "keys.json"', *claim), path.read_bytes(), at_of(path), tmp_path)
    assert pinned.verdict is Verdict.VERIFIED, pinned.error
    assert pinned.tcb_status in ("affirming", "warning")
    own = judge(toml("ear", "", 'keys = "other.json"', *claim), path.read_bytes(), at_of(path), tmp_path)
    assert own.error is not None
    assert own.error.code == "signature_invalid"  # its jwk header verifies it, and does not count


def test_trustees_simple_token_is_no_ear(vectors: Path, tmp_path: Path) -> None:
    path = vectors / "token" / "trustee-ear-tokens" / "simple.jwt"
    (tmp_path / "keys.json").write_text(json.dumps(jwk_of(path)))
    result = judge(
        toml("ear", "CoCo-Attestation-Service", 'keys = "keys.json"'), path.read_bytes(), at_of(path), tmp_path
    )
    assert result.error is not None
    assert result.error.code == "token_profile"
    assert [finding.check for finding in result.findings if finding.outcome == "pass"][:2] == [
        "token.issuer", "token.signature",
    ]  # fmt: skip


OFFLINE = [
    "intel-amber-sgx-2022/token.jwt", "maa-sevsnpvm-2025/token.jwt",
    *(f"nvidia-nras-gpu-eat/nras{number}.jwt" for number in range(4)),
]  # fmt: skip


@pytest.mark.parametrize("name", OFFLINE)
def test_tokens_whose_keys_are_not_stored_are_read_and_not_believed(vectors: Path, tmp_path: Path, name: str) -> None:
    path = vectors / "token" / name
    token = read_token(path.read_bytes())
    (tmp_path / "keys.json").write_text(json.dumps({"kty": "RSA", "n": "sXch" * 86, "e": "AQAB", "kid": "another"}))
    profile = PROFILES[path.parent.name]
    text = toml(profile, token.claims["iss"], 'keys = "keys.json"')
    result = judge(text, path.read_bytes(), at_of(path), tmp_path)
    assert result.error is not None
    assert result.error.code == "token_key_unknown"
    for stated, value in tomllib.loads((path.parent / "meta.toml").read_text()).get("measurements", {}).items():
        seen = token.flat.get(stated, token.claims.get(stated))
        assert str(seen).startswith(str(value)) or str(value).startswith(str(seen)[:100]), stated
    far = judge(text.replace('"keys.json"', '"https://127.0.0.1:9/jwks"'), path.read_bytes(), at_of(path), tmp_path)
    assert far.verdict is Verdict.UNAVAILABLE  # only the pinned address is asked, never the token's jku
