"""Tokens of a third verifier: EAR (Veraison, Trustee, ours), Intel Trust Authority, Azure, Google, NVIDIA.

A token proves that its issuer said something, no more; who trusts the issuer decides (attack P12). The key comes from a
pinned key set, or from the token's own chain where it leads to a pinned root. A key that a header alone names (`jwk`,
`jku`, `kid` of an unknown key) proves nothing. Issuer, audience, expiry and, where one is demanded, the nonce are held
to what the policy names, never to what the token says. All claims count as signed, none as attested (attack E12).

A bundle of an overall token and one for each device (`wire.detached`) is one thing: every digest has to fit, every
token to hold by itself, under the same issuer, and no device may be left out or added.

Sources: RFC 7515, 7519, 8725 (best practices), 9711 (EAT); draft-ietf-rats-ear; the issuers' own documentation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

from attestable_mcp.errors import ChainInvalid, EvidenceError, SignatureInvalid, VerificationError
from attestable_mcp.rats import _MINT, Claims, ClaimValue, EndorsementQuery, Endorsements, Evidence, Tee, Verified
from attestable_mcp.verify.chain import read_pool, walk
from attestable_mcp.verify.description import Description
from attestable_mcp.verify.signature import holds
from attestable_mcp.verify.trail import Trail
from attestable_mcp.wire.detached import Tokens, read_tokens
from attestable_mcp.wire.token import ALGORITHMS, Token, TokenKey, report_data

if TYPE_CHECKING:
    from attestable_mcp.verify.anchors import TokenTrust, TrustAnchors
    from attestable_mcp.verify.memory import Memory

SKEW = timedelta(minutes=1)
"""How far the issuer's clock may run ahead of ours. Expiry knows no mercy."""
_LAST = 253_402_300_799
_EAR_TIERS = ("affirming", "warning", "contraindicated", "none")
"""AR4SI tiers of an EAR, best first; also as numbers 2, 32, 96 and 0."""
_EAR_NUMBERS = {2: "affirming", 32: "warning", 96: "contraindicated", 0: "none"}
EAR_PROFILES = (
    "tag:ietf.org,2026:rats/ear#03",
    "tag:github.com,2023:veraison/ear",
    "tag:github.com,2024:confidential-containers/Trustee",
)
_NOT_SEEN = "the evidence itself: a third verifier has judged it, {} says"
_NO_NONCE = "that this token was made for you: no nonce was demanded"
_NO_PARTS = "what the issuer says of {}: only digests of those tokens are here"
MIXED = "contraindicated"
"""The status where an issuer's tokens on one machine do not agree."""

Flat = Mapping[str, ClaimValue]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What tokens of one issuer's kind look like: closed list of algorithms, where nonces stand, what its status is.

    `status` gives the issuer's own verdict as a word, `demands` what else has to hold: name of the claim -> value.
    `detached` says whether its tokens come as bundles.
    """

    algorithms: tuple[str, ...]
    nonces: tuple[str, ...]
    status: Callable[[Token], str]
    demands: Mapping[str, ClaimValue] = field(default_factory=lambda: MappingProxyType({}))
    detached: bool = False


def _debug_words(flat: Flat) -> list[bool]:
    """What each claim of a debug facility says, at any depth: is it open? What does not say "closed" says yes."""
    likely = [name for name in flat if name.endswith(_DEBUG_ENDINGS) or "[" in name]  # most are none: do less for them
    return [opened(flat[name]) for name in likely for ending, opened in _DEBUG if _leaf(name).endswith(ending)]


def _leaf(name: str) -> str:
    return name.rpartition(".")[2].partition("[")[0]


def _said_so(value: ClaimValue) -> bool:
    return str(value).lower() not in ("false", "0")


def _not_disabled(value: ClaimValue) -> bool:
    """`dbgstat` of an EAT (RFC 9711 §4.2.9): everything but a word that begins with `disabled` is debuggable."""
    return not (isinstance(value, str) and value.startswith("disabled"))


def _under_debug(value: ClaimValue) -> bool:
    """TDATTRIBUTES as hex of the quote's bytes: its first byte is that of TDs under debug."""
    return not (isinstance(value, str) and value.startswith("00"))


_DEBUG: tuple[tuple[str, Callable[[ClaimValue], bool]], ...] = (
    ("dbgstat", _not_disabled),
    ("is-debuggable", _said_so),
    ("is_debuggable", _said_so),
    ("td_attributes_debug", _said_so),
    ("td_attributes", _under_debug),
    ("policy_debug_allowed", _said_so),
)
"""How issuers call it (attack P1): Microsoft says `tdx_td_attributes_debug` of a TD, Intel says both, Trustee hands the
quote's field or SNP's bit on. Claims of an unknown end are no part of it."""
_DEBUG_ENDINGS = tuple(ending for ending, _ in _DEBUG)


def _word(*names: str) -> Callable[[Token], str]:
    return lambda token: next((str(token.flat[name]) for name in names if name in token.flat), "")


def _ear_status(token: Token) -> str:
    """The worst tier of all submodules: one without a tier, or with one that is none, counts as none."""
    submods = token.claims.get("submods")
    if not isinstance(submods, dict) or not submods:
        return "none"
    return max((_tier(item) for item in submods.values()), key=_EAR_TIERS.index)


def _tier(submod: object) -> str:
    said = submod.get("ear.status") if isinstance(submod, dict) else None
    word = _EAR_NUMBERS.get(said) if isinstance(said, int) and not isinstance(said, bool) else said
    return word if isinstance(word, str) and word in _EAR_TIERS else "none"


def _nras_status(token: Token) -> str:
    """The whole machine's token states an overall result, which alone counts there; each device's its own."""
    overall = token.claims.get("x-nvidia-overall-att-result")
    passed = str(token.claims.get("measres", "")).lower() == "success" if overall is None else overall is True
    return "affirming" if passed else "contraindicated"


_RS, _ES = ("RS256", "RS384", "RS512"), ("ES256", "ES384", "ES512")
PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        "ear": Profile(
            algorithms=_ES + _RS + ("PS256", "PS384", "PS512"), nonces=("eat_nonce", "nonce"), status=_ear_status,
        ),
        "intel-trust-authority": Profile(
            algorithms=("PS384", "RS256"), nonces=("verifier_nonce.val", "eat_nonce", "nonce"),
            status=_word(*(f"{at}attester_tcb_status" for at in ("", "tdx.", "sgx.")), "amber_tcb_status"),
        ),
        "azure-maa": Profile(
            algorithms=("RS256",), nonces=("nonce", "x-ms-runtime.client-payload.nonce", "x-ms-runtime.nonce"),
            status=_word("x-ms-compliance-status"),
        ),
        "confidential-space": Profile(
            algorithms=("RS256",), nonces=("eat_nonce",), status=_word(),
            demands=MappingProxyType({"swname": "CONFIDENTIAL_SPACE", "secboot": True}),
        ),
        "nvidia-nras": Profile(
            algorithms=("ES384",), nonces=("eat_nonce",), status=_nras_status,
            detached=True,
        ),
    }
)  # fmt: skip
"""One row a kind of issuer."""
_MUST_STATE_DEBUG = ("confidential-space", "intel-trust-authority", "azure-maa")
_SENDERS_OWN = frozenset(("x-ms-runtime", "attester_runtime_data", "attester_held_data"))
"""Claims in which an issuer hands on what the attester wrote."""


def query(evidence: Evidence) -> EndorsementQuery:
    """Nothing has to be fetched: keys are pinned. Raises: EvidenceError."""
    read_tokens(evidence.body)
    return EndorsementQuery(tee=Tee.TOKEN, parameters={})


def describe(evidence: Evidence) -> Description:
    """Every claim, unverified, and the digests of the certificates in the header. Raises: EvidenceError."""
    sent = read_tokens(evidence.body)
    token = sent.overall
    values = sent.flat | {"alg": token.algorithm, "kid": token.kid}
    return Description(
        tee=Tee.TOKEN, values=values, certificates=tuple(hashlib.sha256(raw).hexdigest() for raw in token.x5c)
    )


def verify(
    evidence: Evidence, endorsements: Endorsements, *, anchors: TrustAnchors, at: datetime, memory: Memory
) -> Verified:
    """Verify a token of one of the pinned issuers.

    Raises: EvidenceError, SignatureInvalid, ChainInvalid (`token_key_unknown`), VerificationError (`token_issuer`,
        `token_algorithm`, `token_expired`, `token_audience`, `token_nonce`, `token_profile`, `token_submods`).
    """
    trail = Trail()
    sent = read_tokens(evidence.body)
    token = sent.overall
    trust = _trust(token, anchors, trail)
    profile = PROFILES[trust.profile]
    proof = _prove(token, trust, profile, at=at, trail=trail, memory=memory)
    anchor, name, flat, expires = proof.anchor, proof.name, proof.flat, proof.expires
    if sent.parts:
        expires = min(expires, _check_parts(sent, trust, profile, at=at, trail=trail, memory=memory))
        flat = sent.flat
    statuses = {profile.status(each) for each in (token, *sent.parts.values())}
    unseen = ", ".join(sorted(sent.digests.keys() - sent.parts.keys())) if profile.detached else ""
    return Verified(
        _MINT,
        claims=Claims(
            tee=Tee.TOKEN, values=flat, report_data=report_data(flat), debug=any(_debug_words(flat)),
            tcb_status=statuses.pop() if len(statuses) == 1 else MIXED, signed=frozenset(flat),
        ),
        evidence_digest=evidence.digest, signed_digest=hashlib.sha256(token.signed).hexdigest(),
        findings=trail.findings, anchor=anchor, anchor_name=name, simulated=False, at=at, valid_until=expires,
        ends=(("token", expires),),
        not_proven=(
            _NOT_SEEN.format(trust.issuer or "the holder of a key that the policy names"),
            *(() if trust.nonce else (_NO_NONCE,)),
            *((_NO_PARTS.format(unseen),) if unseen else ()),
        ),
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proof:
    """One token that held: the anchor (hex) and its name, every claim, and when it expires."""

    anchor: str
    name: str
    flat: Flat
    expires: datetime


def _prove(token: Token, trust: TokenTrust, profile: Profile, *, at: datetime, trail: Trail, memory: Memory) -> _Proof:
    """What holds of every token by itself, whoever it is about."""
    if token.algorithm not in profile.algorithms:
        _refuse(trail, "token.algorithm", " or ".join(profile.algorithms), token.algorithm, "token_algorithm")
    anchor, name = _check_signature(token, trust, at=at, trail=trail, memory=memory)
    flat = token.flat
    expires = _check_times(token, at, trail)
    _check_audience(token, trust, trail)
    _check_nonce(flat, trust, profile, trail)
    _check_profile(flat, trust, profile, trail)
    return _Proof(anchor=anchor, name=name, flat=flat, expires=expires)


def _check_parts(
    sent: Tokens, trust: TokenTrust, profile: Profile, *, at: datetime, trail: Trail, memory: Memory
) -> datetime:
    """Every submodule's token: named by digest, all there, each held by itself. When the first of them expires."""
    stated, parts = sorted(sent.digests), sorted(sent.parts)
    if not profile.detached or stated != parts:
        wanted = f"tokens of {', '.join(stated) or 'no submodule'}" if profile.detached else "one token"
        _refuse(trail, "token.submods", wanted, ", ".join(parts), "token_submods")
    ends = []
    for name in parts:
        if not sent.fits(name):
            _refuse(trail, "token.submods", f"the token of {name} that the digest is of", "another", "token_submods")
        ends.append(_check_part(name, sent, trust, profile, at=at, trail=trail, memory=memory))
    trail.passed("token.submods", f"{', '.join(parts)}: digests and signatures")
    return min(ends)


def _check_part(
    name: str, sent: Tokens, trust: TokenTrust, profile: Profile, *, at: datetime, trail: Trail, memory: Memory
) -> datetime:
    """One finding for all that is checked of it: a machine has a dozen devices."""
    part, inner = sent.parts[name], Trail()
    try:
        if (issuer := part.claims.get("iss", "")) != trust.issuer:
            _refuse(inner, "token.issuer", trust.issuer, str(issuer), "token_issuer")
        if any(part.flat.get(claim) != sent.overall.flat.get(claim) for claim in profile.nonces):
            _refuse(inner, "token.nonce", "the overall token's nonce", "another", "token_nonce")
        return _prove(part, trust, profile, at=at, trail=inner, memory=memory).expires
    except VerificationError as error:
        trail.refuse(type(error), "token.submods", seen=name, reason=error.message, code=error.code, hint=error.hint)


def _refuse(trail: Trail, check: str, wanted: str, seen: str, code: str) -> None:
    trail.refuse(VerificationError, check, wanted=wanted, seen=seen[:200], code=code)


def _trust(token: Token, anchors: TrustAnchors, trail: Trail) -> TokenTrust:
    """The pinned issuer whose name the token carries. EARs of Trustee carry none: one pinned EAR issuer may be ""."""
    said = token.claims.get("iss", "")
    found = next((trust for trust in anchors.tokens if trust.issuer == said), None)
    if found is None:
        wanted = " or ".join(trust.issuer or "(no issuer)" for trust in anchors.tokens) or "an issuer that is pinned"
        trail.refuse(
            VerificationError, "token.issuer", wanted=wanted, seen=str(said)[:200] or "none", code="token_issuer",
            hint="Name the issuer and its keys in a [[trust.tokens]] table, if you trust it.",
        )  # fmt: skip
    trail.passed("token.issuer", found.issuer)
    return found


def _check_signature(token: Token, trust: TokenTrust, *, at: datetime, trail: Trail, memory: Memory) -> tuple[str, str]:
    """Anchor (hex) and its name, once a trusted key has signed these bytes."""
    if trust.roots:
        pool = read_pool(token.x5c)
        if not pool or len(pool) != len(token.x5c):
            trail.refuse(ChainInvalid, "token.chain", wanted="a chain in the header", seen="none that is readable")
        path = walk(pool[0], pool[1:], trust.roots, at=at, trail=trail, check="token.chain", memory=memory)
        _demand_signature(token, (TokenKey(spki=pool[0].spki, curve=_curve_of(token)),), trail)
        return path.anchor.spki_sha256, path.anchor.name
    keys = [key for key in trust.keys if token.kid in ("", key.kid) or not key.kid]
    if not keys:
        trail.refuse(
            ChainInvalid, "token.key", wanted=f"a key of the pinned set of {trust.issuer}",
            seen=f"kid {token.kid[:80]!r}", code="token_key_unknown",
            hint="Issuers change their keys: fetch the set anew from where you trust it.",
        )  # fmt: skip
    key = _demand_signature(token, tuple(keys), trail)
    return _fingerprint(key.spki), f"{trust.issuer or trust.profile}, pinned key {key.kid}".rstrip()


@lru_cache(maxsize=64)
def _fingerprint(spki: bytes) -> str:
    return hashlib.sha256(spki).hexdigest()


def _curve_of(token: Token) -> str:
    return {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}.get(token.algorithm, "")


def _demand_signature(  # noqa: RET503 - refuse never returns
    token: Token, keys: tuple[TokenKey, ...], trail: Trail
) -> TokenKey:
    scheme, hash_name = ALGORITHMS[token.algorithm]
    for key in keys:
        try:
            if key.fits(token.algorithm) and holds(scheme, hash_name, key.spki, token.signature, token.signed):
                trail.passed("token.signature", token.algorithm)
                return key
        except EvidenceError:
            continue
    trail.refuse(SignatureInvalid, "token.signature", wanted="a signature by a trusted key", seen="one that fails")


def _time(token: Token, name: str) -> datetime | None:
    value = token.claims.get(name)
    if isinstance(value, float):
        value = int(value) if 0 <= value < _LAST else None
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LAST:
        return None
    return datetime.fromtimestamp(value, UTC)


def _check_times(token: Token, at: datetime, trail: Trail) -> datetime:
    """`exp` has to be there and ahead; `nbf` and `iat`, where there are, not ahead by more than the skew."""
    expires = _time(token, "exp")
    if expires is None or not at < expires:
        _refuse(trail, "token.expiry", f"a token that holds at {_shown(at)}", f"exp {_shown(expires)}", "token_expired")
    for name in ("nbf", "iat"):
        start = _time(token, name)
        if (name in token.claims and start is None) or (start is not None and start - at > SKEW):
            _refuse(trail, "token.start", f"{name} up to {_shown(at)}", f"{name} {_shown(start)}", "token_expired")
    assert expires is not None
    trail.passed("token.expiry", _shown(expires))
    return expires


def _shown(moment: datetime | None) -> str:
    return "none" if moment is None else f"{moment.isoformat()[:19]}Z"


def _check_audience(token: Token, trust: TokenTrust, trail: Trail) -> None:
    """A token for an audience that is not us is no token for us (RFC 7519 §4.1.3); where we have a name, nor is one
    without an audience."""
    said = token.claims.get("aud")
    listed = said if isinstance(said, list) else [] if said is None else [said]
    if not trust.audiences and not listed:
        return
    held = bool(set(trust.audiences) & {item for item in listed if isinstance(item, str)})
    if not held:
        seen = ", ".join(map(str, listed)) or "none"
        _refuse(trail, "token.audience", " or ".join(trust.audiences) or "no audience", seen, "token_audience")
    trail.passed("token.audience", ", ".join(map(str, listed)))


def _check_nonce(flat: Flat, trust: TokenTrust, profile: Profile, trail: Trail) -> None:
    if not trust.nonce:
        trail.skipped("token.nonce", "the policy demands no nonce")
        return
    said = [str(value) for name, value in flat.items() if name.split("[")[0] in profile.nonces]
    if trust.nonce not in said:
        _refuse(trail, "token.nonce", trust.nonce, ", ".join(said) or "none", "token_nonce")
    trail.passed("token.nonce", trust.nonce)


def _check_profile(flat: Flat, trust: TokenTrust, profile: Profile, trail: Trail) -> None:
    """What tokens of this kind always say. A missing claim is an objection."""
    demands = dict(profile.demands)
    for name, value in demands.items():
        if flat.get(name) != value:
            _refuse(trail, "token.profile", f"{name} = {value}", str(flat.get(name, "none")), "token_profile")
    if trust.profile in _MUST_STATE_DEBUG:
        issuers = {name: value for name, value in flat.items() if _SENDERS_OWN.isdisjoint(name.split("."))}
        if not _debug_words(issuers):
            _refuse(trail, "token.profile", "a claim on debug", "none", "token_profile")
    if trust.profile == "ear" and flat.get("eat_profile") not in EAR_PROFILES:
        _refuse(
            trail, "token.profile", " or ".join(EAR_PROFILES), str(flat.get("eat_profile", "none")), "token_profile"
        )
    trail.passed("token.profile", trust.profile)
