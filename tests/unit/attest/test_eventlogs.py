"""The event log of a TDX guest: from the firmware's tables into a certificate, and replayed by whoever verifies it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.attest.eventlogs import LOG_MOST, read_ccel
from attestable_mcp.rats import AttestationResult, Endorsements, Evidence, EvidenceKind, Tee
from attestable_mcp.simulator.eventlog import NO_ACTION, Event, ccel_table, rtmrs, secure_boot, write_log
from attestable_mcp.simulator.intel import well_known
from attestable_mcp.simulator.options import TdxBody
from attestable_mcp.tls.certificate import issue
from attestable_mcp.tls.engine import CERTIFICATE_LIST_MAX
from attestable_mcp.verifier import Verifier
from attestable_mcp.wire import ratls
from attestable_mcp.wire.eventlog import without_filler

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
BOOT = (*secure_boot(True), Event(pcr=2, data=b"shim"), Event(pcr=3, data=b"kernel command line"))
AREA = 64 * 1024


def tables(
    folder: Path, events: tuple[Event, ...] = BOOT, *, table: bytes | None = None, filler: bytes = b"\xff"
) -> Path:
    log = write_log(events, "sha384")
    area = log.ljust(AREA, filler)
    (folder / "data").mkdir()
    (folder / "CCEL").write_bytes(ccel_table(len(area)) if table is None else table)
    (folder / "data" / "CCEL").write_bytes(area)
    return folder


@pytest.mark.parametrize("filler", [b"\xff", b"\0"])
def test_the_log_is_read_without_its_filler(tmp_path: Path, filler: bytes) -> None:
    assert read_ccel(tables(tmp_path, filler=filler)) == write_log(BOOT, "sha384")


def test_a_real_log_and_its_table_are_read(vectors: Path, tmp_path: Path) -> None:
    folder = vectors / "tdx" / "gotdx-v4-cos113-with-ccel"
    log = (folder / "ccel_data.bin").read_bytes()
    (tmp_path / "data").mkdir()
    (tmp_path / "CCEL").write_bytes((folder / "ccel_table.bin").read_bytes())
    (tmp_path / "data" / "CCEL").write_bytes(log.ljust(256 * 1024, b"\xff"))
    assert read_ccel(tmp_path) == log == without_filler(log)


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (ccel_table(AREA, damaged=True), "the ACPI table CCEL is damaged"),
        (ccel_table(AREA)[:40], "the ACPI table CCEL is damaged"),
        (ccel_table(AREA - 1), "is not of this log"),
        (ccel_table(AREA, kind=1), ""),
    ],
    ids=["checksum", "short", "smaller-area", "of-sev"],
)
def test_a_table_that_is_not_of_this_log_sends_none(
    tmp_path: Path, table: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert read_ccel(tables(tmp_path, table=table)) == b""
    assert reason in caplog.text


def test_a_guest_without_a_log_is_no_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_ccel(tmp_path) == b""
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ((Event(pcr=1, data=bytes(4), kind=4, digest_of=b"another"),), "not the hash of the event's data"),
        ((Event(pcr=9, data=b"no such register"),), "register 9"),
        (tuple(Event(pcr=3, data=bytes(1000)) for _ in range(60)), "event log"),
        (tuple(Event(pcr=3, data=bytes(900)) for _ in range(110)), f"at most {LOG_MOST} travel"),
    ],
    ids=["contradicts-itself", "no-register", "cut-off", "too-long"],
)
def test_a_log_that_verifiers_would_refuse_stays_here(
    tmp_path: Path, events: tuple[Event, ...], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tables(tmp_path, events, table=ccel_table(1 << 20))
    if reason == "event log":
        (folder / "data" / "CCEL").write_bytes((folder / "data" / "CCEL").read_bytes()[:60_000])
    with caplog.at_level(logging.WARNING):
        assert read_ccel(folder) == b""
    assert reason in caplog.text


def test_an_unreadable_log_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tables(tmp_path)
    (folder / "data" / "CCEL").unlink()
    (folder / "data" / "CCEL").mkdir()
    with caplog.at_level(logging.WARNING):
        assert read_ccel(folder) == b""
    assert "data/CCEL: Is a directory (it is root's)" in caplog.text


def test_events_of_register_0_explain_nothing_and_harm_nothing() -> None:
    """Some firmware logs them; MRTD is what the TDX module measured, and no event extends it."""
    from attestable_mcp.wire.eventlog import read_log, replay_rtmrs

    odd = (Event(pcr=0, data=b"MRTD", kind=NO_ACTION), Event(pcr=0, data=b"MRTD"), *BOOT)
    assert replay_rtmrs(read_log(write_log(odd, "sha384"))) == replay_rtmrs(read_log(write_log(BOOT, "sha384")))


# --- through a certificate --------------------------------------------------------------------------------------------


class Guest:
    """A TD whose attester gives a log, and collateral where a server staples it."""

    tee, simulated = Tee.TDX.value, True

    def __init__(self, given: Endorsements, booted: tuple[Event, ...] = BOOT) -> None:
        self.given, self.registers = given, rtmrs(booted)

    def attest(self, report_data: bytes) -> Evidence:
        body = well_known().quote_tdx(report_data, body=TdxBody(rtmr=self.registers))
        return Evidence(kind=EvidenceKind.INTEL_QUOTE, body=body)

    def endorsements(self) -> Endorsements:
        return self.given


def logged(events: tuple[Event, ...] = BOOT) -> Endorsements:
    from attestable_mcp.attest.eventlogs import log_endorsements

    return log_endorsements(write_log(events, "sha384"), "test")


COLLATERAL = well_known().collateral(at=NOW, tee=Tee.TDX)


def judged(guest: Guest, rules: str = "", endorsements: str = '["stapled"]') -> AttestationResult:
    zeros = "".join(f'rtmr{number} = "{value.hex()}"\n' for number, value in enumerate(guest.registers))
    head = f'[trust]\nsimulated = "accept"\nendorsements = {endorsements}\n[policy]\nmr_td = "{"5152" * 24}"\n'
    verifier = Verifier(Policy.from_toml(head + zeros + rules), sources=[] if "stapled" in endorsements else [_Fixed()])
    return verifier.appraise_certificate(issue(guest, ["a"], now=NOW).certificate_der, NOW).result


class _Fixed:
    """A source that is no peer."""

    name = "ours"

    def fetch(self, query: object, *, deadline_seconds: float) -> Endorsements:
        return COLLATERAL


def test_a_certificate_carries_the_log_and_it_is_replayed() -> None:
    result = judged(Guest(COLLATERAL + logged()), 'event_log = "require"\nsecure_boot = "require"\n')
    assert result.verdict == "verified"
    assert result.claims["event_log_explains"] == "all"
    assert result.claims["secure_boot"] is True
    assert not [line for line in result.not_proven if "RTMR" in line or "rtmr" in line]


def test_what_the_log_does_not_explain_is_said_and_can_be_refused() -> None:
    guest = Guest(COLLATERAL + logged(), (*BOOT, Event(pcr=3, data=b"loaded later, and not logged")))
    result = judged(guest)
    assert result.verdict == "verified"
    assert result.claims["event_log_explains"] == "not rtmr2"
    assert "what rtmr2 mean: the event log does not explain them" in result.not_proven
    refused = judged(guest, 'event_log = "require"\n')
    assert (refused.verdict, refused.error and refused.error.code) == ("refused", "event_log_missing")
    silent = judged(Guest(COLLATERAL), 'secure_boot = "require"\n')
    assert (silent.verdict, silent.error and silent.error.code) == ("refused", "secure_boot_off")


def test_the_log_counts_also_where_the_peers_collateral_does_not() -> None:
    result = judged(Guest(logged()), 'event_log = "require"\n', endorsements='["pcs"]')
    assert (result.verdict, result.claims["event_log_explains"]) == ("verified", "all")


def test_p8_a_log_of_another_boot_proves_nothing() -> None:
    forged = (*secure_boot(True), Event(pcr=2, data=b"another shim"), BOOT[-1])
    result = judged(Guest(COLLATERAL + logged(forged), (*secure_boot(False), *BOOT[2:])))
    assert result.claims["event_log_explains"] == "not rtmr0, rtmr1"
    assert "secure_boot" not in result.claims


def test_what_is_too_much_for_tls_peers_is_left_out_the_log_first() -> None:
    large = logged((*BOOT, *(Event(pcr=3, data=bytes(8000)) for _ in range(11))))
    issued = issue(Guest(COLLATERAL + large), ["a"], now=NOW)
    assert len(issued.certificate_der) < CERTIFICATE_LIST_MAX
    endorsements = ratls.read(issued.certificate_der).endorsements
    assert endorsements is not None
    assert (len(endorsements.event_logs), len(endorsements.documents)) == (0, 2)
    alone = ratls.read(issue(Guest(logged()), ["a"], now=NOW).certificate_der).endorsements
    assert alone is not None
    assert (len(alone.event_logs), alone.crls) == (1, ())
