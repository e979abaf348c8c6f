"""The Gramine attester against doubles that hold to the device's rules (wire.md section 4)."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from attestable_mcp.attest.gramine import FileDevice, GramineAttester
from attestable_mcp.errors import AttesterError
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Endorsements, Tee
from attestable_mcp.simulator import options as o
from attestable_mcp.simulator.intel import Vendor
from attestable_mcp.wire.intel import read_quote

VENDOR = Vendor()


class FakeDevice:
    """Gramine's pseudo-files in memory: a quote is fixed at open, a write counts only if it is 64 bytes at once."""

    def __init__(self, kind: bytes = b"dcap") -> None:
        self.kind = kind
        self.report_data = bytes(64)
        self.refuse: dict[str, int] = {}
        self.calls: list[str] = []
        self.quote: bytes | None = None

    def read(self, name: str, limit: int) -> bytes:
        self._enter(name)
        content = self.kind if name == "attestation_type" else self._quote()
        return content[: limit + 1]

    def write(self, name: str, data: bytes) -> int:
        self._enter(name)
        if len(data) != 64:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        self.report_data = data
        return 64

    def _quote(self) -> bytes:
        return VENDOR.quote_sgx(self.report_data, bytes(32)) if self.quote is None else self.quote

    def _enter(self, name: str) -> None:
        self.calls.append(name)
        if name in self.refuse:
            raise OSError(self.refuse[name], os.strerror(self.refuse[name]))


def test_quotes_carry_the_report_data_just_written() -> None:
    device = FakeDevice()
    attester = GramineAttester(device=device)
    for fill in (b"\1", b"\2"):
        assert read_quote(attester.attest(fill * 64).body).report_data == fill * 64
    assert device.calls == ["attestation_type", *["user_report_data", "quote"] * 2]
    assert (attester.tee, attester.simulated, attester.endorsements()) == (Tee.SGX, False, Endorsements())


def test_threads_never_get_each_others_quotes() -> None:
    attester = GramineAttester(device=FakeDevice())
    with ThreadPoolExecutor(8) as pool:
        wanted = [bytes([number]) * 64 for number in range(64)]
        seen = [read_quote(item.body).report_data for item in pool.map(attester.attest, wanted)]
    assert seen == wanted


@pytest.mark.parametrize("kind", [b"none", b"epid", b"dcap\n", b"\xff", b"", b"d" * 100])
def test_any_attestation_type_but_dcap_is_refused(kind: bytes) -> None:
    with pytest.raises(AttesterError, match="attestation_type"):
        GramineAttester(device=FakeDevice(kind))


@pytest.mark.parametrize(
    ("name", "number", "words"),
    [
        ("attestation_type", errno.ENOENT, "gramine-sgx"),
        ("user_report_data", errno.EACCES, "PCCS"),
        ("quote", errno.EACCES, "PCCS"),
        ("quote", errno.EPERM, "forbids"),
    ],
)
def test_device_faults_are_ours_with_a_hint(name: str, number: int, words: str) -> None:
    device = FakeDevice()
    device.refuse[name] = number
    with pytest.raises(AttesterError, match=name) as caught:
        GramineAttester(device=device).attest(bytes(64))
    assert words in caught.value.hint
    assert os.strerror(number) in caught.value.message


@pytest.mark.parametrize(
    ("quote", "words"),
    [
        (b"", "seen 0"),
        (b"x" * (LIMITS.evidence + 9), f"seen {LIMITS.evidence + 1}"),
        (b"not a quote", "of kind intel-quote"),
        (VENDOR.quote_sgx(b"\7" * 64, bytes(32)), "just given"),
        (VENDOR.quote_sgx(bytes(64), bytes(32))[:-9], "of kind intel-quote"),
    ],
)
def test_wrong_answers_are_faults(quote: bytes, words: str) -> None:
    device = FakeDevice()
    device.quote = quote
    with pytest.raises(AttesterError, match=words):
        GramineAttester(device=device).attest(bytes(64))


def test_a_short_write_is_a_fault() -> None:
    class Short(FakeDevice):
        def write(self, name: str, data: bytes) -> int:
            return 63

    with pytest.raises(AttesterError, match="one write"):
        GramineAttester(device=Short()).attest(bytes(64))


@pytest.mark.parametrize("data", [b"", bytes(63), bytes(65), bytearray(64), "0" * 64])
def test_report_data_is_64_bytes_or_the_callers_fault(data: object) -> None:
    with pytest.raises(TypeError, match="report data"):
        GramineAttester(device=FakeDevice()).attest(data)  # type: ignore[arg-type]


class PipeDevice:
    """The same as named pipes, for the code that meets the operating system.

    A pipe shares the properties that matter: its stat size is 0, its content is made when a reader opens it, and a
    write of 64 bytes arrives whole in one read. `gulps` is how many bytes each read of the report data got.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.gulps: list[int] = []
        (root / "attestation_type").write_bytes(b"dcap")
        for name in ("user_report_data", "quote"):
            os.mkfifo(root / name)
        self._stop = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            with open(self.root / "user_report_data", "rb", buffering=0) as pipe:
                data = pipe.read(4096)
            if self._stop:
                return
            self.gulps.append(len(data))
            with open(self.root / "quote", "wb", buffering=0) as pipe:
                quote = VENDOR.quote_sgx(data, bytes(32), options=o.Quote(trailing=bytes(3000)))
                pipe.write(quote[:100])
                pipe.write(quote[100:])

    def close(self) -> None:
        self._stop = True
        os.close(os.open(self.root / "user_report_data", os.O_WRONLY))
        self._thread.join(10)


@pytest.fixture
def pipes(tmp_path: Path) -> Iterator[PipeDevice]:
    device = PipeDevice(tmp_path)
    yield device
    device.close()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_real_files_are_written_at_once_and_read_to_the_end(pipes: PipeDevice) -> None:
    attester = GramineAttester(pipes.root)
    for fill in (b"\3", b"\4"):
        quote = read_quote(attester.attest(fill * 64).body)
        assert (quote.report_data, quote.trailing) == (fill * 64, 3000)
    assert pipes.gulps == [64, 64]


def test_file_device_stops_one_byte_past_the_limit(tmp_path: Path) -> None:
    (tmp_path / "quote").write_bytes(b"x" * 100_000)
    assert len(FileDevice(tmp_path).read("quote", 40_000)) == 40_001


def test_file_device_creates_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileDevice(tmp_path).write("user_report_data", bytes(64))
    assert list(tmp_path.iterdir()) == []
