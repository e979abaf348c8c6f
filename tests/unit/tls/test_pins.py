"""Trust on first use: what is pinned, what counts as a difference, and what becomes of files and races."""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from attestable_mcp import files, rats
from attestable_mcp.appraise.deployment import NO_OWNER
from attestable_mcp.appraise.pins import FIRST_USE, Pin, changed
from attestable_mcp.appraise.policy import Policy, Rules, SgxRelease, TrustPolicy
from attestable_mcp.appraise.rules import CODE_NOT_COMPARED
from attestable_mcp.bind.live import Commitments
from attestable_mcp.errors import AppraisalRefused, ChannelMismatch, ConfigurationError
from attestable_mcp.rats import Deployment, Endorsements, Evidence, RevocationList, Tee, Verdict, Verified
from attestable_mcp.simulator.intel import Vendor, evidence, well_known
from attestable_mcp.simulator.options import Collateral, Platform, SgxBody, TcbInfo, TcbStatus, TdxBody
from attestable_mcp.tls.admission import AttestedPeer, Origin
from attestable_mcp.tls.identity import same_identity
from attestable_mcp.tls.pins import PinMismatch, Pins, read_pin, seen_of
from attestable_mcp.verifier import Verifier
from attestable_mcp.verify.anchors import INTEL_SGX_ROOT, TrustAnchor, TrustAnchors
from attestable_mcp.wire.intel import read_quote

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
ORIGIN = Origin("https", "mcp.example", 8443)
CODE = bytes(range(32))
GENUINE = Policy.genuine_only(simulated=True)
OTHER_VENDOR = Vendor(seed=b"another vendor whose root is an anchor")


def sgx(vendor: Vendor | None = None, mrenclave: bytes = CODE, **body: Any) -> Evidence:
    return evidence((vendor or well_known()).quote_sgx(bytes(64), mrenclave, body=SgxBody(**body)))


def tdx(vendor: Vendor | None = None, **body: Any) -> Evidence:
    return evidence((vendor or well_known()).quote_tdx(bytes(64), body=TdxBody(**body)))


@functools.cache
def stapled(vendor: Vendor, tee: Tee, at: datetime, options: Collateral) -> Endorsements:
    return vendor.collateral(at=at, tee=tee, options=options)


def met(
    quote: Evidence | None = None,
    *,
    vendor: Vendor | None = None,
    collateral: Collateral | None = None,
    policy: Policy = GENUINE,
    at: datetime = AT,
    origin: Origin = ORIGIN,
    **commitments: bytes,
) -> AttestedPeer:
    """A peer that was admitted; `vendor` is trusted, whoever it is."""
    quote, chosen = quote or sgx(vendor), vendor or well_known()
    anchor = TrustAnchor(name="root", spki_sha256=chosen.root_spki_sha256, simulated=vendor is None, replaced=False)
    verifier = Verifier(policy, sources=(), anchors=TrustAnchors(intel=(anchor,), amd=(), aws=(), tpm=()))
    kind = Tee.SGX if read_quote(quote.body).tee is Tee.SGX else Tee.TDX
    appraisal = verifier.appraise_evidence(quote, stapled=stapled(chosen, kind, at, collateral or Collateral()), at=at)
    assert appraisal.verified is not None, appraisal.result.error
    return AttestedPeer(
        origin=origin, result=appraisal.result, certificate_result=appraisal.result, verified=appraisal.verified,
        binding=None, commitments=Commitments(**commitments), spki_sha256="", certificate_der=b"",
    )  # fmt: skip


@pytest.fixture
def pins(tmp_path: Path) -> Pins:
    return Pins(tmp_path / "pins", clock=lambda: AT)


def refused(pins: Pins, peer: AttestedPeer) -> PinMismatch:
    before = {path.name: path.read_bytes() for path in pins.folder.glob("*.json")}
    with pytest.raises(PinMismatch) as caught:
        pins.admit(peer)
    assert {path.name: path.read_bytes() for path in pins.folder.glob("*.json")} == before, "a refusal re-pinned"
    return caught.value


def differing(refusal: PinMismatch) -> list[str]:
    return [finding.check.removeprefix("pin.") for finding in changed(refusal.findings)]


def test_a_first_use_is_partial_and_pins_and_a_second_is_verified_with_its_open_end(pins: Pins) -> None:
    first = pins.admit(met()).result
    assert first.verdict is Verdict.PARTIAL
    assert CODE_NOT_COMPARED in first.not_proven
    assert any("trust on first use" in words for words in first.not_proven)
    assert FIRST_USE in [finding.check for finding in first.findings]
    second = pins.admit(met(at=AT + timedelta(days=3))).result
    assert second.verdict is Verdict.VERIFIED
    assert CODE_NOT_COMPARED not in second.not_proven
    assert any("that anybody reviewed this code" in words and "2026-06-01" in words for words in second.not_proven)
    assert "policy.code" not in [finding.check for finding in second.findings]
    assert "pin.mrenclave" in [finding.check for finding in second.findings]
    assert second.policy.endswith("pin of 2026-06-01T12:00:00Z")


def test_a_policy_that_names_the_code_keeps_its_verdict_beside_pins(pins: Pins) -> None:
    policy = Policy(
        rules=Rules(releases=(SgxRelease(mrenclave=CODE.hex()),)), trust=TrustPolicy(simulated="accept")
    )  # fmt: skip
    assert pins.admit(met(policy=policy)).result.verdict is Verdict.VERIFIED
    again = pins.admit(met(policy=policy)).result
    assert again.verdict is Verdict.VERIFIED
    assert not any("reviewed" in words for words in again.not_proven)


SGX_CHANGES: dict[str, Callable[[], AttestedPeer]] = {
    "mrenclave": lambda: met(sgx(mrenclave=bytes(32))),
    "mrsigner": lambda: met(sgx(mrsigner=b"\7" * 32)),
    "isvprodid": lambda: met(sgx(isvprodid=2)),
    "isvsvn": lambda: met(sgx(isvsvn=0)),
    "attributes": lambda: met(sgx(flags=0x01)),
    "miscselect": lambda: met(sgx(miscselect=b"\1\0\0\0")),
    "configid": lambda: met(sgx(configid=b"\1" * 64)),
    "isvfamilyid": lambda: met(sgx(isvfamilyid=b"\1" * 16)),
}
TDX_CHANGES: dict[str, Callable[[], AttestedPeer]] = {
    "mr_td": lambda: met(tdx(mrtd=b"\1" * 48)),
    **{
        f"rtmr{n}": lambda n=n: met(tdx(rtmr=tuple(b"\1" * 48 if i == n else bytes(48) for i in range(4))))
        for n in range(4)
    },
    "mr_config_id": lambda: met(tdx(mrconfigid=b"\1" * 48)),
    "mr_owner": lambda: met(tdx(mrowner=b"\1" * 48)),
    "mr_owner_config": lambda: met(tdx(mrownerconfig=b"\1" * 48)),
    "xfam": lambda: met(tdx(xfam=bytes.fromhex("e700060000000000"))),
}


@pytest.mark.parametrize("field", SGX_CHANGES)
def test_each_field_of_sgx_code_is_held_and_named(pins: Pins, field: str) -> None:
    pins.admit(met())
    assert differing(refused(pins, SGX_CHANGES[field]())) == [field]


@pytest.mark.parametrize("field", TDX_CHANGES)
def test_each_field_of_tdx_code_is_held_and_named(pins: Pins, field: str) -> None:
    pins.admit(met(tdx()))
    assert differing(refused(pins, TDX_CHANGES[field]())) == [field]


@pytest.mark.parametrize("field", ["deployment_key", "manifest", "configuration"])
def test_c2_commitments_are_held_and_neither_go_missing_nor_appear(pins: Pins, field: str) -> None:
    pins.admit(met(**{field: b"\1" * 32}))
    assert pins.admit(met(**{field: b"\1" * 32})).result.verdict is Verdict.VERIFIED
    assert differing(refused(pins, met(**{field: b"\2" * 32}))) == [field]
    gone = refused(pins, met())
    assert differing(gone) == [field]
    assert "is gone" in changed(gone.findings)[0].reason
    pins.forget(str(ORIGIN))
    pins.admit(met())
    assert differing(refused(pins, met(**{field: b"\1" * 32}))) == [field]


OWNER = "ab" * 32


def copy(**changes: Any) -> AttestedPeer:
    """A deployment that its owner has granted, on a key that lives as long as its process."""
    granted: dict[str, Any] = {
        "owner": OWNER, "name": "prod", "hosts": ("mcp.example",), "key": "01" * 32, "serial": 1,
        "not_before": AT - timedelta(days=1), "not_after": AT + timedelta(days=1),
    }  # fmt: skip
    granted |= changes
    return replace(met(deployment_key=bytes.fromhex(granted["key"])), deployment=Deployment(**granted))


def test_c2_an_owner_is_pinned_in_the_place_of_a_key_that_every_start_makes_anew(pins: Pins) -> None:
    pins.admit(copy())
    renewed = copy(key="02" * 32, serial=2)
    again = pins.admit(replace(renewed, result=replace(renewed.result, not_proven=(NO_OWNER,)))).result
    assert again.verdict is Verdict.VERIFIED
    assert NO_OWNER not in again.not_proven
    assert "deployment.validity" in [finding.check for finding in again.findings]
    assert differing(refused(pins, copy(owner="cd" * 32))) == ["owner"]
    assert differing(refused(pins, copy(name="staging"))) == ["deployment"]
    assert differing(refused(pins, met(deployment_key=b"\1" * 32))) == ["owner", "deployment", "deployment_key"]


REVOKED = RevocationList(owner=OWNER, name="prod", number=1, issued_at=AT, minimum_serial=2)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"not_after": AT - timedelta(hours=1)}, "grant_expired"),
        ({"not_before": AT + timedelta(hours=1)}, "grant_not_yet_valid"),
        ({"hosts": ("other.example",)}, "wrong_deployment"),
        ({"revocations": REVOKED}, "grant_revoked"),
    ],
)
def test_c2_the_pinned_owners_grant_has_to_hold(pins: Pins, changes: dict[str, Any], code: str) -> None:
    pins.admit(copy())
    with pytest.raises(AppraisalRefused) as caught:
        pins.admit(copy(**changes))
    assert caught.value.code == code
    assert caught.value.hint
    pins.forget(str(ORIGIN))
    pins.admit(copy(**changes))
    pinned = pins.get(str(ORIGIN))
    assert pinned is not None
    assert (pinned.owner, pinned.deployment_key) == ("", "01" * 32), "a grant that does not hold pins no owner"
    assert pins.admit(copy(**changes)).result.verdict is Verdict.VERIFIED
    assert differing(refused(pins, copy())) == ["owner", "deployment", "deployment_key"]


def test_a_downgrade_of_the_kind_of_tee_is_one_difference(pins: Pins) -> None:
    pins.admit(met(tdx()))
    refusal = refused(pins, met(sgx()))
    assert differing(refusal) == ["tee"]
    assert "tee: pinned tdx, simulated, seen sgx, simulated" in refusal.message


def real(peer: AttestedPeer) -> AttestedPeer:
    """The same peer as if its evidence hung from Intel's root: what no simulator can make."""
    names = [name for name in Verified.__slots__ if name not in ("simulated", "anchor")]
    fields = {name: getattr(peer.verified, name) for name in names}
    verified = Verified(rats._MINT, **fields, simulated=False, anchor=INTEL_SGX_ROOT.spki_sha256)
    return replace(peer, verified=verified, result=replace(peer.result, simulated=False))


def test_real_hardware_after_simulated_and_the_reverse_are_differences(pins: Pins) -> None:
    pins.admit(met())
    assert differing(refused(pins, real(met()))) == ["tee", "trust_anchor"]
    pins.forget(str(ORIGIN))
    assert pins.admit(real(met())).result.simulated is False
    refusal = refused(pins, met())
    assert differing(refusal) == ["tee", "trust_anchor"]
    assert "tee: pinned sgx, seen sgx, simulated" in refusal.message
    assert "--danger-accept-simulated" in refusal.hint, "without the flag the server would be refused before"


def test_another_root_is_a_difference(pins: Pins) -> None:
    pins.admit(met())
    assert differing(refused(pins, met(vendor=OTHER_VENDOR))) == ["trust_anchor"]


def test_the_platform_and_its_patch_level_are_no_identity(pins: Pins) -> None:
    pins.admit(met())
    behind = Collateral(tcb_info=TcbInfo(status=TcbStatus.SW_HARDENING_NEEDED, advisories=("INTEL-SA-00001",)))
    later = met(collateral=behind)
    assert later.result.tcb_status == "SWHardeningNeeded"
    assert pins.admit(later).result.verdict is Verdict.VERIFIED
    assert pins.admit(met(sgx(xfrm=0x3))).result.verdict is Verdict.VERIFIED
    newer = Vendor(platform=Platform(components=(9, 9, 2, 2, 4, 1, 0, 6, *([0] * 8)), ppid=b"\7" * 16))
    stapled = Verifier(GENUINE, sources=()).appraise_evidence(
        sgx(newer), stapled=newer.collateral(at=AT, options=Collateral()), at=AT
    )
    assert stapled.verified is not None
    moved = replace(met(), result=stapled.result, verified=stapled.verified)
    assert moved.verified.claims.values["cpusvn"] != met().verified.claims.values["cpusvn"]
    assert pins.admit(moved).result.verdict is Verdict.VERIFIED


def test_the_refusal_tells_pinned_seen_and_what_to_do(pins: Pins) -> None:
    pins.admit(met())
    refusal = refused(pins, met(sgx(mrenclave=bytes(32))))
    assert refusal.code == "pin_mismatch"
    assert "mrenclave: pinned 0001020304050607…, seen 0000000000000000…" in refusal.message
    assert f"attestable-mcp pin --update {ORIGIN}" in refusal.hint
    failed = changed(refusal.findings)
    assert (failed[0].wanted, failed[0].seen) == (CODE.hex(), bytes(32).hex())
    assert refusal.result.verdict is Verdict.REFUSED  # type: ignore[attr-defined]
    assert refusal.result.error.code == "pin_mismatch"  # type: ignore[attr-defined]


def test_each_origin_has_its_own_pin_in_a_private_file(pins: Pins) -> None:
    pins.admit(met())
    pins.admit(met(sgx(mrenclave=bytes(32)), origin=Origin("https", "mcp.example", 8444)))
    pins.admit(met(sgx(mrenclave=bytes(32)), origin=Origin("https", "::1", 8443)))
    assert len(pins.all()) == len(list(pins.folder.glob("*.json"))) == 3
    if os.name == "posix":
        assert {path.stat().st_mode & 0o777 for path in pins.folder.glob("*.json")} == {0o600}
        assert pins.folder.stat().st_mode & 0o777 == 0o700
    assert pins.admit(met()).result.verdict is Verdict.VERIFIED


def test_what_is_written_is_read_again_whole(pins: Pins) -> None:
    pins.admit(met(tdx(), deployment_key=b"\1" * 32, manifest=b"\2" * 48))
    pin = pins.get(str(ORIGIN))
    assert pin is not None
    assert (pin.tee, pin.simulated, pin.deployment_key, pin.manifest) == ("tdx", True, "01" * 32, "02" * 48)
    assert pin.first_use == pin.accepted == AT
    assert pin.release_identity == ""
    assert read_pin(pins.path(str(ORIGIN))) == pin


def _pinned(pins: Pins) -> Path:
    pins.admit(met())
    return pins.path(str(ORIGIN))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "no JSON": lambda path: path.write_bytes(b"pinned"),
    "not UTF-8": lambda path: path.write_bytes(b'{"a": "\xff"}'),
    "deep": lambda path: path.write_bytes(b"[" * 60_000),
    "too large": lambda path: path.write_bytes(b" " * 70_000),
    "a list": lambda path: path.write_bytes(b"[]"),
    "a key less": lambda path: edit(path, manifest=None),
    "a key more": lambda path: edit(path, other="x"),
    "another version": lambda path: edit(path, version=2),
    "no code": lambda path: edit(path, code={}),
    "code of lists": lambda path: edit(path, code={"mrenclave": []}),
    "upper-case digest": lambda path: edit(path, manifest="AB"),
    "no time": lambda path: edit(path, accepted="yesterday"),
    "a number for a word": lambda path: edit(path, tee=3),
    "another origin": lambda path: edit(path, origin="https://other.example:8443"),
    "others may write": lambda path: path.chmod(0o666),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


def edit(path: Path, **values: object) -> None:
    value = json.loads(path.read_bytes()) | values
    path.write_text(json.dumps({name: item for name, item in value.items() if item is not None}))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_refuses_and_is_never_taken_for_a_first_use(pins: Pins, damage: Any) -> None:
    path = _pinned(pins)
    damage(path)
    left = path.read_bytes() if path.is_file() else None
    with pytest.raises(ConfigurationError) as caught:
        pins.admit(met())
    assert caught.value.code == "pin_damaged"
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert (path.read_bytes() if path.is_file() else None) == left
    assert len(pins.all()) == 1
    assert not isinstance(pins.all()[0], Pin)


def test_a_first_use_race_has_one_winner(tmp_path: Path) -> None:
    """Two bridges meet different servers at the same origin at once: one is pinned, the other refused."""
    for attempt in range(8):
        folder, barrier = tmp_path / str(attempt), threading.Barrier(2)
        ends: list[object] = []

        def use(
            peer: AttestedPeer, folder: Path = folder, barrier: threading.Barrier = barrier, ends: list[object] = ends
        ) -> None:
            pins = Pins(folder)
            barrier.wait(5)
            try:
                ends.append(pins.admit(peer).result.verdict)
            except PinMismatch as error:
                ends.append(error.code)

        threads = [threading.Thread(target=use, args=(peer,)) for peer in (met(), met(sgx(mrenclave=bytes(32))))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert sorted(map(str, ends)) == ["partial", "pin_mismatch"]


def test_a_first_use_is_told_once(tmp_path: Path) -> None:
    told: list[Pin] = []
    pins = Pins(tmp_path, on_first_use=told.append)
    pins.admit(met())
    pins.admit(met())
    assert [pin.origin for pin in told] == [str(ORIGIN)]


def test_a_lock_that_is_held_and_a_folder_that_is_none_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError) as caught:
        Pins(tmp_path / "file").admit(met())
    assert caught.value.code in ("unwritable", "pin_damaged")
    with (
        files.locked(tmp_path / "lock"),
        pytest.raises(ConfigurationError) as held,
        files.locked(tmp_path / "lock", seconds=0.05),
    ):
        pass
    assert held.value.code == "locked"


def test_replacing_a_file_leaves_the_old_one_where_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    files.replace_file(path, b"old")

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        files.replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_accepting_replaces_what_was_looked_at_and_nothing_else(pins: Pins) -> None:
    pins.admit(met())
    refusal = refused(pins, met(sgx(mrenclave=bytes(32)), at=AT + timedelta(days=1)))
    pins.accept(refusal.seen, instead_of=refusal.pinned)
    now = pins.get(str(ORIGIN))
    assert now is not None
    assert (now.first_use, now.accepted) == (AT, AT + timedelta(days=1))
    assert pins.admit(met(sgx(mrenclave=bytes(32)))).result.verdict is Verdict.VERIFIED
    assert differing(refused(pins, met())) == ["mrenclave"]
    with pytest.raises(ConfigurationError) as caught:
        pins.accept(refusal.seen, instead_of=refusal.pinned)
    assert caught.value.code == "pin_changed"


def test_accepting_takes_the_place_of_a_damaged_file_only_where_told(pins: Pins) -> None:
    _pinned(pins).write_bytes(b"")
    with pytest.raises(ConfigurationError):
        pins.admit(met())
    seen = seen_of(met(), at=AT)
    pins.accept(seen, instead_of=None)
    assert pins.get(str(ORIGIN)) == seen


def test_forgetting_makes_the_next_one_a_first_use(pins: Pins) -> None:
    assert pins.forget(str(ORIGIN)) is False
    pins.admit(met())
    assert pins.forget(str(ORIGIN)) is True
    assert pins.all() == []
    assert pins.admit(met(sgx(mrenclave=bytes(32)))).result.verdict is Verdict.PARTIAL


def test_certificate_and_live_evidence_of_other_run_time_registers_are_two_identities() -> None:
    one = met(tdx()).verified.claims
    for number in range(3):
        registers = tuple(b"\1" * 48 if index == number else bytes(48) for index in range(4))
        with pytest.raises(ChannelMismatch, match=f"rtmr{number}"):
            same_identity(one, met(tdx(rtmr=registers)).verified.claims)
