"""The same quotes and collateral before two judges: this package, and dcap-qvl under the simulated vendor's root.

They must agree on acceptance, TCB status and advisories. Where they differ on purpose, a test of its own says why: the
last part of this file holds them all.
"""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import dcap_qvl
import pytest

from attestable_mcp.errors import AttestationError
from attestable_mcp.rats import Tee
from attestable_mcp.simulator import options as o
from attestable_mcp.simulator.intel import Vendor
from attestable_mcp.verify.anchors import TrustAnchor, TrustAnchors
from attestable_mcp.verify.intel import verify
from attestable_mcp.verify.memory import Memory
from attestable_mcp.wire.intel import read_quote

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
GOOD_PLATFORM, GOOD_CERTIFICATES, GOOD_COLLATERAL = o.Platform(), o.Certificates(), o.Collateral()
GOOD_QUOTE, GOOD_SGX, GOOD_TDX = o.Quote(), o.SgxBody(), o.TdxBody()
QE_STATUSES = (o.TcbStatus.UP_TO_DATE, o.TcbStatus.OUT_OF_DATE, o.TcbStatus.REVOKED)
"""The words of QE and TDX module identities (PCS API v4); the other four are for platforms only."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """Accepted with a status and advisories, or refused for a reason."""

    accepted: bool
    status: str = ""
    advisories: frozenset[str] = frozenset()
    reason: str = ""
    debug: bool = False

    @property
    def comparable(self) -> tuple[bool, str, frozenset[str]]:
        """What both have words for. dcap-qvl refuses debug by itself; here every default policy does, by this flag."""
        return (False, "", frozenset()) if self.debug else (self.accepted, self.status, self.advisories)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A quote and its collateral, described by the knobs that make them."""

    tee: Tee = Tee.SGX
    platform: o.Platform = GOOD_PLATFORM
    certificates: o.Certificates = GOOD_CERTIFICATES
    collateral: o.Collateral = GOOD_COLLATERAL
    quote: o.Quote = GOOD_QUOTE
    sgx: o.SgxBody = GOOD_SGX
    tdx: o.TdxBody = GOOD_TDX


@functools.lru_cache(maxsize=256)
def vendor_of(platform: o.Platform, certificates: o.Certificates) -> Vendor:
    return Vendor(seed=b"differential", platform=platform, certificates=certificates)


def quote_of(pair: Pair) -> bytes:
    vendor = vendor_of(pair.platform, pair.certificates)
    if pair.tee is Tee.TDX:
        return vendor.quote_tdx(bytes(range(64)), body=pair.tdx, options=pair.quote)
    return vendor.quote_sgx(bytes(range(64)), bytes(32), body=pair.sgx, options=pair.quote)


def ours(pair: Pair) -> Opinion:
    """This package, with the vendor's root as only anchor and nothing remembered."""
    vendor = vendor_of(pair.platform, pair.certificates)
    anchor = TrustAnchor(name="test", spki_sha256=vendor.root_spki_sha256, simulated=True, replaced=True)
    endorsements = vendor.collateral(at=AT, tee=pair.tee, options=pair.collateral)
    anchors = TrustAnchors(intel=(anchor,))
    try:
        verified = verify(read_quote(quote_of(pair)), endorsements, anchors=anchors, at=AT, memory=Memory())
    except AttestationError as error:
        return Opinion(False, reason=f"{error.code}: {error.message}")
    claims = verified.claims
    return Opinion(True, claims.tcb_status, frozenset(claims.advisories), debug=claims.debug)


def theirs(pair: Pair) -> Opinion:
    """dcap-qvl on the same bytes. What the collateral leaves out is empty there, since all fields are demanded."""
    vendor = vendor_of(pair.platform, pair.certificates)
    record = vendor.collateral_json(at=AT, tee=pair.tee, options=pair.collateral)
    for name in ("tcb_info", "qe_identity"):
        for key in (name, f"{name}_signature", f"{name}_issuer_chain"):
            record.setdefault(key, "")
    for name in ("root_ca_crl", "pck_crl"):
        record.setdefault(name, "")
    try:
        collateral = dcap_qvl.QuoteCollateralV3.from_json(json.dumps(record))
        seen = dcap_qvl.verify_with_root_ca(quote_of(pair), collateral, vendor.root_der, int(AT.timestamp()))
    except ValueError as error:
        return Opinion(False, reason=str(error))
    return Opinion(True, seen.status, frozenset(seen.advisory_ids))


# --- one knob at a time, on each kind of platform and quote -----------------------------------------------------------

MODULE_1 = (5, 1, 8, *([0] * 13))
BASES: dict[str, Pair] = {
    "sgx-platform": Pair(),
    "sgx-processor": Pair(platform=o.Platform(pck_ca="processor")),
    "tdx-v4": Pair(tee=Tee.TDX),
    "tdx-v4-module-1": Pair(tee=Tee.TDX, platform=o.Platform(tdx_components=MODULE_1)),
    "tdx-v5": Pair(tee=Tee.TDX, quote=o.Quote(version=5)),
    "tdx-v5-1.5": Pair(tee=Tee.TDX, quote=o.Quote(version=5), tdx=o.TdxBody(td15=True)),
}
Knob = Callable[[Pair], Pair]


def tcb(**knobs: object) -> Knob:
    return lambda pair: replace(
        pair, collateral=replace(pair.collateral, tcb_info=replace(pair.collateral.tcb_info, **knobs))  # type: ignore[arg-type]
    )  # fmt: skip


def identity(**knobs: object) -> Knob:
    return lambda pair: replace(
        pair, collateral=replace(pair.collateral, qe_identity=replace(pair.collateral.qe_identity, **knobs))  # type: ignore[arg-type]
    )  # fmt: skip


def crls(**knobs: object) -> Knob:
    return lambda pair: replace(pair, collateral=replace(pair.collateral, crls=o.Crls(**knobs)))  # type: ignore[arg-type]


def certificates(**knobs: object) -> Knob:
    return lambda pair: replace(pair, certificates=o.Certificates(**knobs))  # type: ignore[arg-type]


def quote(**knobs: object) -> Knob:
    return lambda pair: replace(pair, quote=replace(pair.quote, **knobs))  # type: ignore[arg-type]


def qe(**knobs: object) -> Knob:
    return quote(qe=o.QuotingEnclave(**knobs))  # type: ignore[arg-type]


def tdx(**knobs: object) -> Knob:
    return lambda pair: replace(pair, tdx=replace(pair.tdx, **knobs))  # type: ignore[arg-type]


PAST = o.Validity(not_after=datetime(2021, 1, 1, tzinfo=UTC))
AHEAD = o.Validity(not_before=datetime(2030, 1, 1, tzinfo=UTC))
EVERYWHERE: dict[str, Knob] = {
    "untouched": lambda pair: pair,
    **{f"platform {status}": tcb(status=status, advisories=("INTEL-SA-00615",)) for status in o.TcbStatus},
    **{f"QE {status}": identity(status=status, advisories=("INTEL-SA-00219",)) for status in QE_STATUSES},
    **{f"TCB info signed by {signer}": tcb(signer=signer) for signer in (o.Signer.PCK_CA, o.Signer.STRANGER)},
    **{f"QE identity signed by {signer}": identity(signer=signer) for signer in (o.Signer.PCK_CA, o.Signer.STRANGER)},
    "TCB info expired": tcb(span=o.EXPIRED),
    "TCB info of the future": tcb(span=o.FUTURE),
    "QE identity expired": identity(span=o.EXPIRED),
    "QE identity of the future": identity(span=o.FUTURE),
    "root CRL expired": crls(root=o.EXPIRED),
    "PCK CRL expired": crls(pck=o.EXPIRED),
    "PCK revoked": crls(revoke_pck=True),
    "PCK CA revoked": crls(revoke_pck_ca=True),
    "TCB signer revoked": crls(revoke_tcb_signing=True),
    "root CRL forged": crls(root_signed_by_stranger=True),
    "PCK CRL forged": crls(pck_signed_by_stranger=True),
    "PCK CRL of the root": crls(pck_issued_by_root=True),
    "no root CRL": crls(with_root=False),
    "no PCK CRL": crls(with_pck=False),
    "empty CRLs": crls(others=0),
    "long CRLs": crls(others=40),
    "no TCB info": lambda pair: replace(pair, collateral=o.Collateral(with_tcb_info=False)),
    "no QE identity": lambda pair: replace(pair, collateral=o.Collateral(with_qe_identity=False)),
    "below all levels": tcb(below_all_levels=True),
    "no levels": tcb(levels=()),
    "15 components": tcb(component_count=15),
    "17 components": tcb(component_count=17),
    "FMSPC of another": tcb(fmspc=bytes(6)),
    "TCB info of another kind": tcb(id="OTHER"),
    "TCB info tampered": tcb(tampered=True),
    "another evaluation number": tcb(evaluation_number=21),
    "QE identity of another signer": identity(mrsigner=bytes(32)),
    "QE identity of another product": identity(isvprodid=7),
    "QE identity of another miscselect": identity(miscselect=b"1" * 4),
    "QE identity that ignores miscselect": lambda pair: identity(miscselect_mask=bytes(4))(
        qe(miscselect=b"1\0\0\0")(pair)
    ),
    "QE identity of other attributes": identity(attributes=b"1" * 16),
    "QE identity of another kind": identity(id="OTHER"),
    "QE identity of version 1": identity(version=1),
    "QE identity tampered": identity(tampered=True),
    "attestation key type 3": quote(attestation_key_type=3),
    "unknown TEE type": quote(tee_type=5),
    "unknown QE vendor": quote(qe_vendor_id=bytes(16)),
    "bad ISV signature": quote(bad_isv_signature=True),
    "bad QE signature": quote(bad_qe_signature=True),
    "conjugate signatures": quote(conjugate_signatures=True),
    "type 3, no PCK to be had": quote(certification_type=3),
    "zeros after the quote": quote(trailing=bytes(3065)),
    "no NUL after the chain": quote(nul_terminated=False),
    "chain: leaf, root, CA": quote(chain_order=("pck", "root", "ca")),
    "chain without root": quote(chain_order=("pck", "ca")),
    "chain without leaf": quote(chain_order=("ca", "root")),
    "user data": quote(user_data=b"u" * 20),
    "QE of another signer": qe(mrsigner=bytes(32)),
    "QE of another product": qe(isvprodid=9),
    "QE older": qe(isvsvn=7),
    "QE newer": qe(isvsvn=9),
    "QE with another miscselect": qe(miscselect=b"1" * 4),
    "QE in debug": qe(attributes=bytes.fromhex("1700000000000000e700000000000000")),
    "QE that commits to another key": qe(report_data=bytes(64)),
    "QE signed by a stranger": qe(signed_by_stranger=True),
    **{f"{name} expired": certificates(**{name: PAST}) for name in ("pck_ca", "pck", "tcb_signing")},
    **{f"{name} of the future": certificates(**{name: AHEAD}) for name in ("pck_ca", "pck", "tcb_signing")},
    "PCK CA that is no CA": certificates(pck_ca_is_ca=False),
    "PCK CA that may not sign": certificates(pck_ca_key_usage=False),
    "PCK signed by a stranger": certificates(pck_signed_by_stranger=True),
    "PCK without SGX extension": certificates(pck_sgx_extension=False),
    "PCK with an unknown critical extension": certificates(pck_unknown_critical_extension=True),
}
TDX_ONLY: dict[str, Knob] = {
    "15 TDX components": tcb(tdx_component_count=15),
    "17 TDX components": tcb(tdx_component_count=17),
    "TCB info without TDX parts": tcb(with_tdx_parts=False),
    "module of another signer": tcb(module_mrsigner=b"1" * 48),
    "module of other attributes": tcb(module_attributes=b"1" * 8),
    "MRSIGNERSEAM": tdx(mrsignerseam=b"1" * 48),
    "SEAMATTRIBUTES": tdx(seamattributes=b"1" * 8),
    "TEE_TCB_SVN too low": tdx(tee_tcb_svn=bytes(16)),
    "TEE_TCB_SVN high": tdx(tee_tcb_svn=bytes([9, 0] + [9] * 14)),
    "no such module": tdx(tee_tcb_svn=bytes([5, 2, 8] + [0] * 13)),
    "debug": tdx(debug=True),
}
SGX_ONLY: dict[str, Knob] = {
    "debug": lambda pair: replace(pair, sgx=o.SgxBody(debug=True)),
    "old CPUSVN in the report": lambda pair: replace(pair, sgx=o.SgxBody(cpusvn=bytes(16))),
}
MODULE_ONLY: dict[str, Knob] = {
    **{f"module {status}": tcb(module_status=status, module_advisories=("INTEL-SA-01099",)) for status in QE_STATUSES},
    "no module identities": tcb(modules=()),
    "module below all levels": tcb(modules=(o.ModuleIdentity(version=1, levels=(o.IsvLevel(isvsvn=6),)),)),
}


def one_knob_pairs() -> Iterator[tuple[str, Pair]]:
    for base, pair in BASES.items():
        knobs = EVERYWHERE | (TDX_ONLY if pair.tee is Tee.TDX else SGX_ONLY)
        knobs |= MODULE_ONLY if pair.platform.tdx_components[1] else {}
        for name, knob in knobs.items():
            yield f"{base}: {name}", knob(pair)


# --- TDs that outlived an update of the TDX module ("relaunch advised") -----------------------------------------------

SVN_PAIRS = {
    "launched and now current": ((5, 1, 8), (5, 1, 8)),
    "launched under an older module": ((4, 1, 8), (5, 1, 8)),
    "module still old": ((4, 1, 8), (4, 1, 8)),
    "module gone back": ((5, 1, 8), (4, 1, 8)),
    "launched under older microcode": ((5, 1, 7), (5, 1, 8)),
    "launched under version 0": ((5, 0, 8), (5, 1, 8)),
    "now at version 0": ((4, 1, 8), (5, 0, 8)),
    "now at an unknown module": ((4, 1, 8), (5, 2, 8)),
}


def relaunch_pairs() -> Iterator[tuple[str, Pair]]:
    """TEE_TCB_SVN is what the TD was launched with, TEE_TCB_SVN_2 what runs now (quote v5, body type 3)."""
    old = o.IsvLevel(isvsvn=3, status=o.TcbStatus.OUT_OF_DATE, advisories=("INTEL-SA-01099",))
    modules = (o.ModuleIdentity(version=1, levels=(o.IsvLevel(isvsvn=5), old)),)
    fallen = o.Level(components=(0,) * 16, pcesvn=0, status=o.TcbStatus.OUT_OF_DATE, advisories=("INTEL-SA-00001",))
    for name, (launched, now) in SVN_PAIRS.items():
        for status in o.TcbStatus:
            top = o.Level(components=(0,) * 16, pcesvn=0, tdx=(0, 1, 8, *([0] * 13)), status=status, advisories=("A",))
            info = o.TcbInfo(levels=(top, fallen), modules=modules)
            td = o.TdxBody(
                td15=True, tee_tcb_svn=bytes(launched).ljust(16, b"\0"), tee_tcb_svn_2=bytes(now).ljust(16, b"\0")
            )
            collateral = o.Collateral(tcb_info=info)
            yield f"{name}, {status}", Pair(tee=Tee.TDX, collateral=collateral, quote=o.Quote(version=5), tdx=td)


# --- whole ladders of TCB levels, by chance but repeatably ------------------------------------------------------------

RANDOM_PAIRS = 240


def some(rng: random.Random, count: int, most: int = 3) -> tuple[int, ...]:
    """Mostly the same small numbers, so that levels often just match or just fail to."""
    return tuple(rng.choice((1, 1, 1, 1, rng.randint(0, most))) for _ in range(count))


LADDER = (
    o.TcbStatus.UP_TO_DATE, o.TcbStatus.SW_HARDENING_NEEDED, o.TcbStatus.CONFIGURATION_NEEDED,
    o.TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED, o.TcbStatus.OUT_OF_DATE,
    o.TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED, o.TcbStatus.REVOKED,
)  # fmt: skip


def levels(rng: random.Random) -> tuple[o.Level, ...]:
    """As Intel makes them: no rung better than a newer one. Half of the lists are served out of order."""
    rungs: dict[tuple[tuple[int, ...], int, tuple[int, ...]], None] = {}
    for _ in range(6):
        low = rng.random() < 0.5
        components = tuple(rng.randint(0, 1) for _ in range(16)) if low else some(rng, 16, 2)
        tdx_components = (rng.randint(0, 3), 0, *(rng.randint(0, 1) for _ in range(14)))
        rungs[components, rng.randint(0, 12), tdx_components] = None
    rungs[(0,) * 16, rng.choice((0, 0, 6)), (0,) * 16] = None
    statuses = sorted((rng.choice(LADDER) for _ in rungs), key=LADDER.index)
    ladder = []
    for (components, pcesvn, tdx_components), status in zip(sorted(rungs, reverse=True), statuses, strict=True):
        advisories = tuple(f"INTEL-SA-{rng.randint(0, 9):05}" for _ in range(rng.randint(0, 2)))
        ladder.append(
            o.Level(components=components, pcesvn=pcesvn, tdx=tdx_components, status=status, advisories=advisories)
        )
    if rng.random() < 0.5:
        rng.shuffle(ladder)
    return tuple(ladder)


def isv_levels(rng: random.Random) -> tuple[o.IsvLevel, ...]:
    svns = sorted({rng.randint(0, 10) for _ in range(3)}, reverse=True)
    weighted = (o.TcbStatus.UP_TO_DATE, o.TcbStatus.UP_TO_DATE, o.TcbStatus.OUT_OF_DATE, o.TcbStatus.REVOKED)
    return tuple(
        o.IsvLevel(isvsvn=svn, status=rng.choice(weighted), advisories=(f"INTEL-SA-1000{svn % 10}",)) for svn in svns
    )


def random_pair(seed: int) -> Pair:
    rng = random.Random(seed)
    version = rng.choice((0, 0, 1, 2))
    platform = o.Platform(
        pck_ca=rng.choice(("platform", "processor")), components=some(rng, 16, 4), pcesvn=rng.choice((5, 11)),
        tdx_components=(rng.randint(0, 8), version, *some(rng, 14, 4)), fmspc=rng.randbytes(6), pceid=rng.randbytes(2),
    )  # fmt: skip
    modules = tuple(o.ModuleIdentity(version=number, levels=isv_levels(rng)) for number in (1, 2))
    info = o.TcbInfo(levels=levels(rng), modules=modules)
    qe_identity = o.QeIdentity(levels=isv_levels(rng))
    options = o.Quote(qe=o.QuotingEnclave(isvsvn=rng.randint(4, 10)))
    collateral = o.Collateral(tcb_info=info, qe_identity=qe_identity)
    return Pair(tee=rng.choice((Tee.SGX, Tee.TDX)), platform=platform, collateral=collateral, quote=options)


PAIRS = dict(one_knob_pairs())
RELAUNCH = dict(relaunch_pairs())
RANDOM = {f"ladder {seed}": random_pair(seed) for seed in range(RANDOM_PAIRS)}


@pytest.mark.parametrize("name", PAIRS)
def test_one_knob_gets_the_same_verdict_from_both(name: str) -> None:
    ours_says, theirs_says = ours(PAIRS[name]), theirs(PAIRS[name])
    assert ours_says.comparable == theirs_says.comparable, (ours_says, theirs_says)


@pytest.mark.parametrize("name", RELAUNCH)
def test_relaunch_gets_the_same_verdict_from_both(name: str) -> None:
    ours_says, theirs_says = ours(RELAUNCH[name]), theirs(RELAUNCH[name])
    assert ours_says.comparable == theirs_says.comparable, (ours_says, theirs_says)


def test_random_ladders_get_the_same_verdict_from_both() -> None:
    differing = {}
    seen: list[Opinion] = []
    for name, pair in RANDOM.items():
        ours_says, theirs_says = ours(pair), theirs(pair)
        seen.append(theirs_says)
        if ours_says.comparable != theirs_says.comparable:
            differing[name] = (ours_says, theirs_says)
    assert not differing
    assert sum(opinion.accepted for opinion in seen) > RANDOM_PAIRS // 5, "too few were good: nothing was compared"
    assert sum(not opinion.accepted for opinion in seen) > RANDOM_PAIRS // 5, "too few were bad"
    assert {opinion.status for opinion in seen if opinion.accepted} == set(o.TcbStatus) - {"Revoked"}


def test_there_are_at_least_three_hundred_pairs() -> None:
    assert len(PAIRS) + len(RELAUNCH) + len(RANDOM) >= 800
    verdicts = [ours(PAIRS[f"{base}: untouched"]).accepted for base in BASES]
    assert verdicts == [True] * len(BASES)


# --- where they differ, and why ---------------------------------------------------------------------------------------


def differ(pair: Pair, *, ours_accepts: bool) -> tuple[Opinion, Opinion]:
    ours_says, theirs_says = ours(pair), theirs(pair)
    assert (ours_says.accepted, theirs_says.accepted) == (ours_accepts, not ours_accepts), (ours_says, theirs_says)
    return ours_says, theirs_says


EVERY_BASE = pytest.mark.parametrize("base", BASES)
DOCUMENT = pytest.mark.parametrize("knob", [tcb, identity], ids=["tcb-info", "qe-identity"])


@EVERY_BASE
@DOCUMENT
def test_differ_documents_signed_by_a_pck_leaf(base: str, knob: Callable[..., Knob]) -> None:
    """dcap-qvl takes any leaf under the root. One extracted PCK key could then call every platform UpToDate."""
    differ(knob(signer=o.Signer.PCK_LEAF)(BASES[base]), ours_accepts=False)


@EVERY_BASE
@DOCUMENT
def test_differ_documents_signed_by_a_leaf_of_another_name(base: str, knob: Callable[..., Knob]) -> None:
    """The same gap: the root signs other leaves too. We demand the subject `Intel SGX TCB Signing`."""
    differ(knob(signer=o.Signer.OTHER_NAME)(BASES[base]), ours_accepts=False)


@EVERY_BASE
def test_differ_pceid_of_another(base: str) -> None:
    """dcap-qvl compares FMSPC but not PCEID: TCB info for another provisioning enclave would judge this platform."""
    differ(tcb(pceid=b"\x01\x00")(BASES[base]), ours_accepts=False)


@EVERY_BASE
@pytest.mark.parametrize("which", ["root", "pck"])
def test_differ_crl_of_the_future(base: str, which: str) -> None:
    """dcap-qvl looks at nextUpdate only. A list not yet in force says that a clock is wrong, here or there."""
    differ(crls(**{which: o.FUTURE})(BASES[base]), ours_accepts=False)


@EVERY_BASE
def test_differ_bytes_after_the_quote(base: str) -> None:
    """dcap-qvl ignores what follows. Zeros pad a buffer; anything else is data that no signature covers."""
    differ(quote(trailing=b"\0\0x")(BASES[base]), ours_accepts=False)


@EVERY_BASE
@pytest.mark.parametrize("size", [0, 31, 33, 1000])
def test_differ_length_of_authentication_data(base: str, size: int) -> None:
    """The format gives it a length, zero included; dcap-qvl wants 32 bytes."""
    differ(quote(auth_data=bytes(size))(BASES[base]), ours_accepts=True)


def test_differ_service_td() -> None:
    """dcap-qvl refuses a bound service TD outright; here a policy decides, and sees MRSERVICETD among the claims."""
    differ(tdx(mrservicetd=b"1" * 48)(BASES["tdx-v5-1.5"]), ours_accepts=True)


@pytest.mark.parametrize("base", [name for name, pair in BASES.items() if pair.tee is Tee.TDX])
@pytest.mark.parametrize(
    ("what", "bits"), [("SEPT_VE_DISABLE clear", 0), ("migratable", o.TD_SEPT_VE_DISABLE | 1 << 29)]
)
def test_differ_td_attributes_that_policy_decides_on(base: str, what: str, bits: int) -> None:
    """dcap-qvl refuses these TDs outright; here they are named policy switches (verify.md, decision 6)."""
    differ(tdx(tdattributes=bits)(BASES[base]), ours_accepts=True)


@EVERY_BASE
def test_differ_identity_that_demands_bits_outside_its_own_mask(base: str) -> None:
    """dcap-qvl masks both sides. The mask is for the report (PCS API v4): bits beyond it, no report can meet."""
    differ(identity(miscselect=b"1\0\0\0", miscselect_mask=bytes(4))(BASES[base]), ours_accepts=False)


@pytest.mark.parametrize("version", [4, 5])
def test_differ_sgx_in_later_quote_versions(version: int) -> None:
    """Versions 4 and 5 have a TEE type and may hold an enclave's report; dcap-qvl wants version 3 for SGX."""
    differ(quote(version=version)(BASES["sgx-platform"]), ours_accepts=True)


def test_differ_encrypted_ppid_with_the_chain_beside_it() -> None:
    """Certification data type 3 names the platform, and the PCK chain comes with the collateral."""
    pair = replace(
        quote(certification_type=3)(BASES["sgx-platform"]), collateral=o.Collateral(with_pck_chain=True)
    )  # fmt: skip
    assert ours(pair).comparable == (True, "UpToDate", frozenset())
