"""Signed tokens: JSON Web Signatures in compact form (RFC 7515), and key sets (RFC 7517).

Strict: three parts of unpadded base64url in its one form, strict JSON (no key twice), `alg` out of a closed list, no
`crit`. What a header says of keys (`jwk`, `jku`, `x5u`, `x5c`) is kept for those who know whom they trust and proves
nothing by itself. Real headers are large: Google's hold three certificates in 8736 characters.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NoReturn

from attestable_mcp.errors import MalformedEvidence, UnsupportedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import ClaimValue
from attestable_mcp.wire import base64url, der
from attestable_mcp.wire.document import STRICT_JSON
from attestable_mcp.wire.hcl import rsa_spki
from attestable_mcp.wire.pem import PemBlock, is_pem, read_blocks
from attestable_mcp.wire.x509 import read_certificate

ALGORITHMS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        **{f"RS{bits}": ("rsassa", f"sha{bits}") for bits in (256, 384, 512)},
        **{f"PS{bits}": ("rsapss", f"sha{bits}") for bits in (256, 384, 512)},
        **{f"ES{bits}": ("ecdsa", f"sha{bits}") for bits in (256, 384, 512)},
    }
)
"""`alg` to scheme and hash (RFC 7518 §3.1). No HMAC: a verifier's key must not sign. No `none`."""
_CURVES = {"P-256": ("1.2.840.10045.3.1.7", 32), "P-384": ("1.3.132.0.34", 48), "P-521": ("1.3.132.0.35", 66)}
_ALG_CURVES = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_EC_KEY = "1.2.840.10045.2.1"
_KEYS = 64
_CLAIMS = 2048
_DEPTH = 12
_SHORT_HEADER = 16384
"""Characters of a header whose reading is remembered: those with a chain take 9000."""
_REPORT_DATA = (
    "x-ms-sevsnpvm-reportdata", "x-ms-sgx-report-data", "x-ms-isolation-tee.x-ms-sevsnpvm-reportdata",
    "tdx_report_data", "sgx_report_data", "tdx.tdx_report_data", "sgx.sgx_report_data", "amber_report_data",
)  # fmt: skip
"""Where the issuers that we know put the evidence's report data, in hex."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A parsed token, nothing verified. `signed` is the exact span that the signature covers."""

    algorithm: str
    kid: str
    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signed: bytes
    signature: bytes
    x5c: tuple[bytes, ...] = ()

    @property
    def flat(self) -> dict[str, ClaimValue]:
        """Every scalar claim by its dotted path. Raises: MalformedEvidence where two claims share a path."""
        found: dict[str, ClaimValue] = {}
        _flatten(self.claims, "", 0, found)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """A public key of a key set: its SubjectPublicKeyInfo (DER), and what the set says of its use; "" for nothing."""

    spki: bytes
    kid: str = ""
    algorithm: str = ""
    curve: str = ""

    def fits(self, algorithm: str) -> bool:
        """May a token of this algorithm be signed by this key? The curve of an ECDSA key decides its algorithm."""
        return self.algorithm in ("", algorithm) and self.curve == _ALG_CURVES.get(algorithm, "")


def looks_like_token(data: bytes) -> bool:
    """Three parts of base64url, the first a JSON object, none of them empty."""
    parts = data.strip().split(b".")
    return data.startswith(b"eyJ") and len(parts) == 3 and all(parts)


def read_token(data: bytes) -> Token:
    """Read a compact token; white space may stand around it.

    Raises: MalformedEvidence, UnsupportedEvidence (an algorithm outside the list, or a critical header).
    """
    if len(data) > LIMITS.evidence:
        _fail(f"wanted at most {LIMITS.evidence} bytes, seen {len(data)}", "token")
    parts = data.strip().split(b".")
    if len(parts) != 3:
        _fail(f"wanted three parts, seen {len(parts)}", "token")
    header = (_read_short_header if len(parts[0]) <= _SHORT_HEADER else _read_header)(parts[0])
    return Token(
        algorithm=header.algorithm, kid=header.kid, header=header.members,
        claims=MappingProxyType(_object(parts[1], "claims")), signed=parts[0] + b"." + parts[1],
        signature=_decode(parts[2], "signature"), x5c=header.x5c,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Header:
    algorithm: str
    kid: str
    members: Mapping[str, Any]
    x5c: tuple[bytes, ...]


def _read_header(part: bytes) -> _Header:
    members = _object(part, "header")
    algorithm, kid = members.get("alg"), members.get("kid", "")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise UnsupportedEvidence(f"token: wanted one of {', '.join(ALGORITHMS)}, seen {str(algorithm)[:40]!r}")
    if "crit" in members:
        raise UnsupportedEvidence("token: a critical header, which changes what the token means")
    if not isinstance(kid, str):
        _fail("wanted text as kid", "header")
    return _Header(algorithm=algorithm, kid=kid, members=MappingProxyType(members), x5c=_x5c(members))


@lru_cache(maxsize=32)
def _read_short_header(part: bytes) -> _Header:
    """`_read_header`, remembered: an issuer writes the same header until it changes its key."""
    return _read_header(part)


def report_data(flat: Mapping[str, ClaimValue]) -> bytes:
    """The report data of the evidence behind a token, as its issuer states it; empty where it does not."""
    for name in _REPORT_DATA:
        value = flat.get(name)
        if isinstance(value, str):
            try:
                return bytes.fromhex(value)
            except ValueError:
                return b""
    return b""


def _object(part: bytes, field: str) -> dict[str, Any]:
    try:
        found = STRICT_JSON.decode(_decode(part, field).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MalformedEvidence("token: not strict JSON", field=field) from error
    if not isinstance(found, dict):
        _fail("wanted a JSON object", field)
    return found


def _decode(part: bytes, field: str) -> bytes:
    try:
        return base64url.decode(part)
    except ValueError as error:
        raise MalformedEvidence("token: not base64url without padding, in its one form", field=field) from error


def _x5c(header: Mapping[str, Any]) -> tuple[bytes, ...]:
    """The chain in the header, or in its jwk (Trustee), leaf first; DER in plain base64 (RFC 7515 §4.1.6)."""
    jwk = header.get("jwk")
    listed = header.get("x5c", jwk.get("x5c", []) if isinstance(jwk, dict) else [])
    if not isinstance(listed, list) or len(listed) > LIMITS.chain:
        _fail(f"wanted at most {LIMITS.chain} certificates", "x5c")
    return tuple(_certificate(item) for item in listed)


def _certificate(item: object) -> bytes:
    """Plain base64 as RFC 7515 §4.1.6 says, or base64url without padding as Trustee writes."""
    if not isinstance(item, str):
        _fail("wanted certificates as text", "x5c")
    text = item.replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedEvidence("token: a certificate that is not base64", field="x5c") from error


def _flatten(value: object, path: str, depth: int, found: dict[str, ClaimValue]) -> None:
    if depth > _DEPTH or (depth == _DEPTH and value and isinstance(value, (dict, MappingProxyType))):
        _fail(f"claims nested deeper than {_DEPTH}", "claims")
    if isinstance(value, (dict, MappingProxyType)):
        prefix = f"{path}." if path else ""
        for name, member in value.items():
            if path == "submods" and ("." in str(name) or "[" in str(name)):
                _fail(f"submodule {str(name)!r}: its claims could pass for those of another", "claims")
            if type(member) is str:
                _put(found, prefix + str(name), member)
            else:
                _flatten(member, prefix + str(name), depth + 1, found)
    elif isinstance(value, (str, int)):
        _put(found, path, value)
    elif isinstance(value, list):
        for index, member in enumerate(value):
            _flatten(member, f"{path}[{index}]", depth + 1, found)
    elif isinstance(value, float):
        _put(found, path, repr(value))


def _put(found: dict[str, ClaimValue], path: str, value: ClaimValue) -> None:
    if path in found or len(found) >= _CLAIMS:
        _fail(f"claim {path!r} stands twice, or there are more than {_CLAIMS}", "claims")
    found[path] = value


# Key sets


def read_key_set(data: bytes) -> tuple[TokenKey, ...]:
    """The keys of a JSON Web Key Set, of one JSON Web Key, or PEM public keys, which have no kid.

    Keys for encryption and of other kinds are left out.

    Raises: MalformedEvidence.
    """
    if len(data) > LIMITS.endorsement:
        _fail(f"a key set of {len(data)} bytes", "keys")
    if is_pem(data):
        return tuple(_pem_key(block) for block in read_blocks(data, field="keys", explanatory=True))
    try:
        body = STRICT_JSON.decode(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise MalformedEvidence("key set: not strict JSON", field="keys") from error
    listed = body.get("keys", [body]) if isinstance(body, dict) else None
    if (
        not isinstance(listed, list)
        or not 1 <= len(listed) <= _KEYS
        or not all(isinstance(key, dict) for key in listed)
    ):
        _fail(f"key set: wanted 1 to {_KEYS} keys", "keys")
    found = [_key(key) for key in listed if key.get("use", "sig") == "sig" and key.get("kty") in ("RSA", "EC")]
    if not found:
        _fail("key set: no key for signatures", "keys")
    return tuple(found)


def _pem_key(block: PemBlock) -> TokenKey:
    if block.label != "PUBLIC KEY":
        _fail(f"key: wanted PEM public keys, seen {block.label}", "keys")
    algorithm = der.parse(block.der, der.SEQUENCE, field="keys").reader("keys").read(der.SEQUENCE).reader("keys")
    if der.read_oid(algorithm.read(der.OID)) != _EC_KEY:
        return TokenKey(spki=block.der)
    oid = der.read_oid(algorithm.read(der.OID))
    curve = next((name for name, (number, _) in _CURVES.items() if number == oid), "")
    if not curve:
        _fail(f"key: wanted curve {', '.join(_CURVES)}, seen {oid[:40]}", "keys")
    return TokenKey(spki=block.der, curve=curve)


def _key(jwk: Mapping[str, Any]) -> TokenKey:
    kid, algorithm, curve = jwk.get("kid", ""), jwk.get("alg", ""), ""
    if not isinstance(kid, str) or not isinstance(algorithm, str):
        _fail("key: wanted text as kid and alg", "keys")
    if jwk["kty"] == "EC":
        curve = str(jwk.get("crv"))
        spki = _ec_spki(curve, jwk)
    elif "n" in jwk:
        spki = rsa_spki(_integer(jwk, "n"), _integer(jwk, "e"))
    else:
        chain = _x5c(jwk)  # Azure's key sets hold certificates only
        if not chain:
            _fail("key: neither modulus nor certificate", "keys")
        spki = read_certificate(chain[0]).spki
    return TokenKey(spki=spki, kid=kid, algorithm=algorithm, curve=curve)


def _ec_spki(curve: str, jwk: Mapping[str, Any]) -> bytes:
    if curve not in _CURVES:
        _fail(f"key: wanted curve {', '.join(_CURVES)}, seen {curve[:20]!r}", "keys")
    oid, size = _CURVES[curve]
    point = b"\4" + b"".join(_integer(jwk, name).to_bytes(size, "big") for name in ("x", "y"))
    algorithm = der.encode_sequence(der.encode_oid(_EC_KEY), der.encode_oid(oid))
    return der.encode_sequence(algorithm, der.encode(der.BIT_STRING, b"\0" + point))


def _integer(jwk: Mapping[str, Any], name: str) -> int:
    value = jwk.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= 2048 or not value.isascii():
        _fail(f"key: wanted base64url text as {name}", "keys")
    found = int.from_bytes(_decode(value.encode("ascii"), f"keys.{name}"), "big")
    if name in ("x", "y") and found.bit_length() > 8 * _CURVES[str(jwk["crv"])][1]:
        _fail(f"key: {name} is larger than its curve", "keys")
    return found


def _fail(message: str, field: str) -> NoReturn:
    raise MalformedEvidence(f"token: {message}", field=field)
