"""The configfs-tsm attester against a double that keeps the kernel's rules (drivers/virt/coco/guest/report.c)."""

from __future__ import annotations

import errno
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tsm_double import AMD, Kernel, Report

from attestable_mcp.attest.pace import Pace
from attestable_mcp.attest.tsm import ConfigfsFiles, TsmAttester
from attestable_mcp.errors import AttesterError
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Endorsements, EvidenceKind
from attestable_mcp.wire.intel import read_quote
from attestable_mcp.wire.snp import read_report


def attester(kernel: Kernel) -> TsmAttester:
    nowhere = Path("/nonexistent")
    return TsmAttester(files=kernel, tables=nowhere, pace=Pace(every=0, sleep=lambda _: None, patience=1.0))


def test_sev_snp_reports_carry_the_data_and_bring_the_hosts_certificates() -> None:
    kernel = Kernel()
    tsm = attester(kernel)
    assert tsm.tee == "sev-snp"
    assert tsm.endorsements() == Endorsements()
    evidence = tsm.attest(b"\5" * 64)
    assert evidence.kind is EvidenceKind.SNP_REPORT
    assert read_report(evidence.body).report_data == b"\5" * 64
    assert set(tsm.endorsements().certificates) == {AMD.vcek.der, AMD.ask.der, AMD.ark.der}
    assert kernel.reports == {}
    assert kernel.made == 2


def test_tdx_quotes_carry_the_data() -> None:
    tsm = attester(Kernel(b"tdx_guest\n"))
    assert tsm.tee == "tdx"
    evidence = tsm.attest(b"\6" * 64)
    assert evidence.kind is EvidenceKind.INTEL_QUOTE
    assert read_quote(evidence.body).report_data == b"\6" * 64
    assert tsm.endorsements() == Endorsements()


def test_a_tdx_guest_brings_the_log_of_its_firmware(tmp_path: Path) -> None:
    from attestable_mcp.simulator.eventlog import Event, ccel_table, write_log

    log = write_log((Event(pcr=2, data=b"shim"),), "sha384")
    (tmp_path / "data").mkdir()
    (tmp_path / "CCEL").write_bytes(ccel_table(4096))
    (tmp_path / "data" / "CCEL").write_bytes(log.ljust(4096, b"\xff"))
    tsm = TsmAttester(files=Kernel(b"tdx_guest\n"), tables=tmp_path)
    assert [item.body for item in tsm.endorsements().event_logs] == [log]
    on_amd = TsmAttester(files=Kernel(), tables=tmp_path)
    on_amd.attest(bytes(64))
    assert on_amd.endorsements().event_logs == ()


def test_another_kind_of_vm_is_named() -> None:
    with pytest.raises(AttesterError, match="seen 'arm_cca_guest'"):
        attester(Kernel(b"arm_cca_guest\n"))


@pytest.mark.parametrize("table", [b"", b"\xff" * 40], ids=["empty", "damaged"])
def test_a_host_without_usable_certificates_is_no_fault(table: bytes) -> None:
    kernel = Kernel()
    kernel.table = table
    tsm = attester(kernel)
    tsm.attest(bytes(64))
    assert tsm.endorsements() == Endorsements()


def test_a_kernel_without_auxblob_is_no_fault() -> None:
    kernel = Kernel()
    kernel.refuse["auxblob"] = errno.ENOENT
    assert attester(kernel).attest(bytes(64)).body


def test_a_busy_host_is_asked_again() -> None:
    kernel = Kernel()
    kernel.busy = 3
    assert read_report(attester(kernel).attest(b"\7" * 64).body).report_data == b"\7" * 64
    assert kernel.reports == {}


def test_a_host_that_stays_busy_is_given_up() -> None:
    kernel = Kernel()
    kernel.busy = 1000
    with pytest.raises(AttesterError) as caught:
        TsmAttester(files=kernel, pace=Pace(every=0, patience=0.2)).attest(bytes(64))
    assert caught.value.code == "attester_busy"


def test_a_write_of_somebody_else_is_noticed_and_the_report_made_anew() -> None:
    """The generation moved by two: the outblob may be over the other's data."""
    kernel = Kernel()
    strangers = [1, 1]

    def stranger(report: Report) -> None:
        if strangers:
            strangers.pop()
            report.inblob, report.written = b"\xff" * 64, report.written + 1

    kernel.between = stranger
    assert read_report(attester(kernel).attest(b"\1" * 64).body).report_data == b"\1" * 64
    assert strangers == []


def test_a_lost_write_is_noticed() -> None:
    """The kernel tells nobody that it refused an inblob when its file was closed."""
    kernel = Kernel()
    kernel.refuse["inblob"] = errno.EINVAL
    with pytest.raises(AttesterError, match="outblob: Invalid argument") as caught:
        attester(kernel).attest(bytes(64))
    assert "another program" in caught.value.hint


@pytest.mark.parametrize(
    ("what", "number", "message", "hint"),
    [
        ("make", errno.ENOENT, "No such file", "Linux 6.7"),
        ("make", errno.ENXIO, "No such device", "modprobe"),
        ("make", errno.EACCES, "Permission denied", "root"),
        ("make", errno.EROFS, "Read-only", "writable"),
        ("provider", errno.ENXIO, "provider: No such device", "modprobe"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(what: str, number: int, message: str, hint: str) -> None:
    kernel = Kernel()
    kernel.refuse[what] = number
    with pytest.raises(AttesterError, match=message) as caught:
        attester(kernel)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda data: b"", "wanted 1 to"),
        (lambda data: bytes(LIMITS.evidence + 5), f"seen {LIMITS.evidence + 1}"),
        (lambda data: b"no report", "of kind snp-report"),
        (lambda data: AMD.report(b"\xee" * 64, bytes(48)), "the report data just given"),
    ],
)
def test_wrong_answers_are_faults(answer: Callable[[bytes], bytes], message: str) -> None:
    kernel = Kernel()
    kernel.answer = answer
    with pytest.raises(AttesterError, match=message):
        attester(kernel).attest(bytes(64))
    assert kernel.reports == {}


def test_an_input_output_fault_is_no_reason_to_ask_again() -> None:
    kernel = Kernel()
    tsm = attester(kernel)
    kernel.refuse["outblob"] = errno.EIO
    with pytest.raises(AttesterError, match="outblob: Input/output error"):
        tsm.attest(bytes(64))
    assert kernel.made == 2


def test_a_directory_that_cannot_be_removed_does_not_fail_the_quote() -> None:
    kernel = Kernel()
    tsm = attester(kernel)
    kernel.refuse["remove"] = errno.EBUSY
    assert tsm.attest(bytes(64)).body


def test_a_generation_that_is_no_number() -> None:
    kernel = Kernel()
    tsm = attester(kernel)
    kernel.read = lambda name, limit: b"many" if name.endswith("generation") else b""  # type: ignore[method-assign]
    with pytest.raises(AttesterError, match="generation: wanted a number"):
        tsm.attest(bytes(64))


def test_threads_share_one_attester() -> None:
    tsm = attester(Kernel())
    wanted = [bytes([number]) * 64 for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        seen = [read_report(item.body).report_data for item in pool.map(tsm.attest, wanted)]
    assert seen == wanted


def test_the_real_files_are_made_written_read_and_removed(tmp_path: Path) -> None:
    files = ConfigfsFiles(tmp_path)
    files.make("one")
    (tmp_path / "one" / "inblob").touch()
    assert files.write("one/inblob", b"x" * 64) == 64
    assert files.read("one/inblob", 1000) == b"x" * 64
    (tmp_path / "one" / "inblob").unlink()
    files.remove("one")
    assert not (tmp_path / "one").exists()
    with pytest.raises(OSError, match="No such file"):
        files.write("two/inblob", b"x")


def test_a_machine_without_configfs_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(AttesterError, match="No such file") as caught:
        TsmAttester(tmp_path / "tsm" / "report")
    assert "Linux 6.7" in caught.value.hint
