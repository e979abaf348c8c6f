"""Which machines: a signed, expiring list of chip identities that a policy holds its peers to.

Against keys that were extracted with physical access (WireTap, Battering RAM, TEE.fail) no quote helps: only to know
that the chip stands where nobody can get at it. The list says which chips do. That a CPU and a GPU belong to one
machine is out of reach here: no evidence that is read ties the two together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from attestable_mcp.appraise.fault import PolicyFault
from attestable_mcp.appraise.findings import finding, source
from attestable_mcp.appraise.values import hex_text, put
from attestable_mcp.rats import Claims, Finding, PlatformList, Verified

if TYPE_CHECKING:
    from attestable_mcp.appraise.policy import Policy

IDENTITIES = ("ppid", "piid", "chip_id")
HINTS = {
    "platform_list_missing": "The list that the policy names was not read: judge with Verifier, which reads it.",
    "platform_list_expired": "Get a newer list from whoever signs it, and put it in the file's place.",
    "platform_identity_missing": (
        "This evidence names no chip: it is masked, or its kind has none. Ask the operator to unmask it, or to move."
    ),
    "platform_unknown": (
        "The peer runs on a machine that nobody vouched for. Ask the operator which one it is; "
        "`attestable-mcp platforms add` notes a machine for the next list."
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformRule:
    """The list in `file`, signed by the key whose SubjectPublicKeyInfo has the SHA-256 `key` (hex).

    `listed` is what the file held; `verifier` fills it in.

    Raises:
        ConfigurationError: no file, or no hash.
    """

    file: str
    key: str
    listed: PlatformList | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.file, str) or not self.file.strip():
            raise PolicyFault("wanted the path of a signed list", "file")
        put(self, "key", hex_text(self.key, 32, "key"))

    def holding(self, listed: PlatformList) -> PlatformRule:
        """The rule with its list."""
        return replace(self, listed=listed)


def identities(claims: Claims) -> dict[str, str]:
    """What the evidence says of its chip; an all-zero or absent value is no identity (attack E9)."""
    found = {name: claims.values.get(name) for name in IDENTITIES}
    return {name: value for name, value in found.items() if isinstance(value, str) and value.strip("0")}


def platform(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """The chip stands on the list, and the list is in force."""
    rule = policy.rules.platforms
    if rule is None:
        return
    where = source(policy, "policy", "platforms")
    seen = identities(verified.claims)
    shown = ", ".join(f"{name} {value}" for name, value in seen.items()) or "no chip identity"
    listed = rule.listed
    if listed is None:
        yield finding("platforms", False, f"a platform of {rule.file}", shown, "platform_list_missing", where)
        return
    span = f"{listed.issued:%Y-%m-%dT%H:%M:%SZ} to {listed.expires:%Y-%m-%dT%H:%M:%SZ}"
    if not listed.issued <= verified.at < listed.expires:
        wanted = f"a list in force at {verified.at:%Y-%m-%dT%H:%M:%SZ}"
        yield finding("platforms", False, wanted, f"{listed.name}, {span}", "platform_list_expired", where)
    known = any(value in listed.ids.get(name, ()) for name, value in seen.items())
    code = "platform_unknown" if seen else "platform_identity_missing"
    yield finding("platforms", known, f"a platform of {listed.name}", shown, code, where)
