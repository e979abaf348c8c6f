"""SEV-SNP: guests by launch measurement or by who signed it, the state of guest and platform, AMD's papers.

Field names are those of AMD's SEV-SNP Firmware ABI specification (56860).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar, Literal

from attestable_mcp.appraise.fault import PolicyFault
from attestable_mcp.appraise.findings import Comparison, finding, seen, source
from attestable_mcp.appraise.kinds.base import Kind, Read, claim, number, quoted
from attestable_mcp.appraise.values import hex_text, one_of, put, whole, words
from attestable_mcp.rats import AttestationResult, Claims, Finding, Outcome, Tee, Verified

if TYPE_CHECKING:
    from attestable_mcp.appraise.policy import Policy

PRODUCTS = ("Milan", "Genoa", "Turin")
DEFAULT_PRODUCTS = ("Genoa", "Turin")
MILAN = "Milan: the seed of its endorsement keys can be extracted in software, so that anyone may sign its reports"
"""Why the default refuses Milan (arXiv 2605.12990, "MilanLaunchy" and "BadFuse")."""
SIZES = {
    "measurement": 48, "host_data": 32, "id_key_digest": 48, "author_key_digest": 48, "family_id": 16, "image_id": 16,
}  # fmt: skip
LEVELS = ("bl", "tee", "snp", "ucode", "fmc")
_REVOCATION = "snp.vek.revocation"
AMD_CRL_MISSING = "amd_crl_missing"
"""The refusal that a source of collateral can lift."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpRelease:
    """One accepted guest: by `measurement` (48 bytes hex), or by the key that signed its ID block and a lowest version.

    `id_key_digest` alone would accept every image that its owner ever signed, old faulty ones included: without a
    measurement it needs `min_guest_svn` beside it (attack P3). Everything given has to hold.

    Raises:
        ConfigurationError: no identity, or half of one.
    """

    label: str = ""
    measurement: str | None = None
    host_data: str | None = None
    id_key_digest: str | None = None
    author_key_digest: str | None = None
    family_id: str | None = None
    image_id: str | None = None
    min_guest_svn: int | None = None

    tee: ClassVar[Tee] = Tee.SEV_SNP

    def __post_init__(self) -> None:
        check_identity(self)


def check_identity(release: SnpRelease) -> None:
    """The rules that `SnpRelease` states. Raises: PolicyFault."""
    for name, size in SIZES.items():
        if (value := getattr(release, name)) is not None:
            put(release, name, hex_text(value, size, name))
    if release.min_guest_svn is not None:
        whole(release.min_guest_svn, 0, 0xFFFFFFFF, "min_guest_svn")
    if release.id_key_digest is not None and not release.id_key_digest.strip("0"):
        raise PolicyFault("an all-zero digest is that of a guest whose image nobody signed", "id_key_digest")
    if release.measurement is not None:
        return
    if release.id_key_digest is None:
        raise PolicyFault("no identity rule: measurement is missing, or id_key_digest with min_guest_svn")
    if release.min_guest_svn is None:
        raise PolicyFault("without a measurement, min_guest_svn has to stand beside it", "id_key_digest")


def compare_snp(held: Comparison, release: SnpRelease) -> Iterator[Finding]:
    """Every field that the release gives."""
    codes = {"id_key_digest": "signer_mismatch", "author_key_digest": "signer_mismatch"}
    for name in SIZES:
        if (value := getattr(release, name)) is not None:
            yield held.same(name, value, codes.get(name, "measurement_mismatch"))
    if release.min_guest_svn is not None:
        yield held.least("guest_svn", release.min_guest_svn, "min_guest_svn", "guest_svn_too_low")


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpRules:
    """The state of an SEV-SNP guest and of its platform.

    `products` are the processor generations whose word counts. `vmpl` lists the privilege levels from which a report
    may be asked; empty compares nothing. `min_tcb_*` are the lowest reported security patch levels.
    """

    products: tuple[str, ...] = DEFAULT_PRODUCTS
    signing_keys: tuple[str, ...] = ("VCEK", "VLEK")
    amd_crl: Literal["accept-missing", "require"] = "accept-missing"
    vmpl: tuple[int, ...] = ()
    smt: Literal["accept", "refuse"] = "accept"
    migrate_ma: Literal["refuse", "accept"] = "refuse"
    single_socket: Literal["accept-clear", "require"] = "accept-clear"
    alias_check: Literal["accept-missing", "require"] = "accept-missing"
    min_tcb_bl: int | None = None
    min_tcb_tee: int | None = None
    min_tcb_snp: int | None = None
    min_tcb_ucode: int | None = None
    min_tcb_fmc: int | None = None

    READ: ClassVar[Mapping[str, Read]] = {
        "products": "texts",
        "signing_keys": "texts",
        "vmpl": "numbers",
        **dict.fromkeys(("amd_crl", "smt", "migrate_ma", "single_socket", "alias_check"), "text"),
        **{f"min_tcb_{level}": "number" for level in LEVELS},
    }
    ABOUT: ClassVar[str] = "SEV-SNP"

    def __post_init__(self) -> None:
        _known(self.products, PRODUCTS, "products")
        _known(self.signing_keys, ("VCEK", "VLEK"), "signing_keys")
        one_of(self.amd_crl, ("accept-missing", "require"), "amd_crl")
        one_of(self.smt, ("accept", "refuse"), "smt")
        one_of(self.migrate_ma, ("refuse", "accept"), "migrate_ma")
        one_of(self.single_socket, ("accept-clear", "require"), "single_socket")
        one_of(self.alias_check, ("accept-missing", "require"), "alias_check")
        for index, level in enumerate(self.vmpl):
            whole(level, 0, 3, "vmpl", index)
        for name in (f"min_tcb_{level}" for level in LEVELS):
            if (least := getattr(self, name)) is not None:
                whole(least, 0, 255, name)


def _known(values: tuple[str, ...], allowed: tuple[str, ...], name: str) -> None:
    words(values, name)
    for index, value in enumerate(values):
        if value not in allowed:
            raise PolicyFault(f"wanted one of {', '.join(allowed)}, seen {value!r}", name, index)


def product(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """The processor is of a generation whose keys are still trusted."""
    accepted, shown = policy.rules.state(SnpRules).products, seen(verified.claims, "product")
    where = source(policy, "policy", "products")
    why = f"{MILAN} {where}".strip() if shown == "Milan" and shown not in accepted else where
    yield finding("products", shown in accepted, " or ".join(accepted), shown, "product_not_trusted", why)


def papers(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """Which key signs, and whether AMD's revocation list was there to look at."""
    rules, shown = policy.rules.state(SnpRules), seen(verified.claims, "signing_key")
    where = source(policy, "policy", "signing_keys")
    held = shown in rules.signing_keys
    yield finding("signing_keys", held, " or ".join(rules.signing_keys), shown, "signing_key_refused", where)
    if rules.amd_crl == "require":
        looked = any(item.check == _REVOCATION and item.outcome is Outcome.PASS for item in verified.findings)
        where = source(policy, "policy", "amd_crl")
        yield finding(
            "amd_crl", looked, "AMD's revocation list", "looked at" if looked else "none", AMD_CRL_MISSING, where
        )


def guest(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """What the owner allowed at launch (guest policy), and from which privilege level the report was asked."""
    rules, claims = policy.rules.state(SnpRules), verified.claims
    switches = (
        ("smt", "refuse", 1, "without SMT", "smt_allowed"),
        ("migrate_ma", "refuse", 1, "no migration agent", "migration_allowed"),
        ("single_socket", "require", 0, "one socket only", "several_sockets"),
    )
    for name, strict, bad, wanted, code in switches:
        if getattr(rules, name) == strict:
            bit = claims.values.get(name)
            held = bit is not None and bit != bad
            yield finding(name, held, wanted, f"bit {bit}", code, source(policy, "policy", name))
    if rules.vmpl:
        level = claims.values.get("vmpl")
        wanted = " or ".join(map(str, rules.vmpl))
        yield finding("vmpl", level in rules.vmpl, wanted, str(level), "vmpl_refused", source(policy, "policy", "vmpl"))


def platform(verified: Verified, policy: Policy) -> Iterator[Finding]:
    """Floors of the reported TCB, and the check for memory aliasing (BadRAM) where the policy demands it."""
    rules, claims = policy.rules.state(SnpRules), verified.claims
    for name in LEVELS:
        least = getattr(rules, f"min_tcb_{name}")
        if least is not None:
            level = claims.values.get(f"tcb_{name}")
            held = isinstance(level, int) and level >= least
            where = source(policy, "policy", f"min_tcb_{name}")
            yield finding(f"tcb_{name}", held, f"at least {least}", str(level), "tcb_too_low", where)
    if rules.alias_check == "require":
        done = claims.values.get("alias_check_complete") is True
        where = source(policy, "policy", "alias_check")
        yield finding("alias_check", done, "complete", "complete" if done else "not made", "alias_check_missing", where)


SNP_RULES = (product, papers, guest, platform)


def snp_open(release: SnpRelease, claims: Claims) -> Iterator[str]:
    """What a release without a measurement, a report from a higher level, or an unchecked platform leaves open."""
    if release.measurement is None:
        yield "which build: any image of this signer at or above the named guest version would pass"
    if level := claims.values.get("vmpl"):
        yield f"which code asked for the report: it runs at VMPL {level}, the measurement names what was launched at 0"
    yield from platform_open(claims)


def platform_open(claims: Claims) -> Iterator[str]:
    """What the platform itself does not vouch for."""
    if claims.values.get("alias_check_complete") is not True:
        yield "that memory is not aliased: the firmware made no alias check since the last reset (BadRAM)"


def pin_snp(result: AttestationResult) -> Iterator[str]:
    """Measurement, signer and state as seen."""
    yield from pin_identity(result)
    yield from pin_state(result)


def pin_identity(result: AttestationResult) -> Iterator[str]:
    """The lines of a release."""
    yield "# The guest as it was launched: firmware, and kernel, command line and initrd where their hashes are in it."
    yield f"measurement = {quoted(claim(result, 'measurement'))}"
    yield "# What the host gave the guest at launch: for containers, often the hash of their configuration."
    yield f"host_data = {quoted(claim(result, 'host_data'))}"
    if claim(result, "id_key_digest").strip("0"):
        yield "# Who signed the image, and its lowest version."
        yield f"id_key_digest = {quoted(claim(result, 'id_key_digest'))}"
        yield f"min_guest_svn = {number(result, 'guest_svn')}"


def pin_state(result: AttestationResult) -> Iterator[str]:
    """The lines of `SnpRules`."""
    seen_product = claim(result, "product")
    yield "# The generation of processor whose word counts."
    if seen_product == "Milan":
        yield "# CAUTION: the seed of a Milan's keys can be extracted in software. Move to Genoa or Turin if you can."
    yield f"products = [{quoted(seen_product)}]"
    yield f"signing_keys = [{quoted(claim(result, 'signing_key'))}]"
    yield "# The privilege level in the guest from which the report was asked."
    yield f"vmpl = [{number(result, 'vmpl')}]"
    yield "# Lowest security patch levels of the platform: it may only get newer."
    for level in LEVELS:
        if f"tcb_{level}" in result.claims:
            yield f"min_tcb_{level} = {number(result, f'tcb_{level}')}"
    if result.claims.get("alias_check_complete") is True:
        yield "# The firmware has looked for aliased memory."
        yield 'alias_check = "require"'
    if number(result, "migrate_ma"):
        yield "# A migration agent may move this guest."
        yield 'migrate_ma = "accept"'
    if not number(result, "smt"):
        yield 'smt = "refuse"'


HINTS = {
    "product_not_trusted": (
        "Ask the operator to move to a processor that the policy names. If you accept the risk, name the product in "
        "products or with --accept-product."
    ),
    "signing_key_refused": "Ask the operator which key signs and why, then name it in signing_keys.",
    AMD_CRL_MISSING: (
        "Have the server staple AMD's list, name kds under endorsements in [trust], or give it with --endorsements."
    ),
    "smt_allowed": "Ask the operator to launch the guest with SMT forbidden, or set smt.",
    "migration_allowed": "A migration agent can read this guest. Ask the operator, or name it with migrate_ma.",
    "several_sockets": "Ask the operator to launch the guest for a single socket, or set single_socket.",
    "vmpl_refused": "Ask which software asks for reports at that level, then name the level in vmpl.",
    "tcb_too_low": "The platform's firmware is older than you accept. Ask the operator to update.",
    "alias_check_missing": "Ask the operator for firmware that looks for aliased memory (BadRAM).",
    "guest_svn_too_low": "An old release runs here. Ask the operator to update.",
}
KEYS: Mapping[str, Read] = {**dict.fromkeys(SIZES, "text"), "min_guest_svn": "number"}
CODE = (
    "measurement", "policy", "vmpl", "host_data", "family_id", "image_id", "guest_svn", "id_key_digest",
    "author_key_digest",
)  # fmt: skip

SEV_SNP = Kind(
    tee=Tee.SEV_SNP,
    vendor="amd",
    release=SnpRelease,
    keys=KEYS,
    heads=(frozenset(("measurement", "id_key_digest")),),
    code=CODE,
    compare=compare_snp,
    pin=pin_snp,
    rules=SNP_RULES,
    states=(SnpRules,),
    open_ends=snp_open,
    hints=MappingProxyType(HINTS),
)
