"""Fixtures shared by every suite. Tests run offline, on loopback, and never touch the user's own configuration."""

from __future__ import annotations

import gc
import hashlib
import itertools
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import settings

from attestable_mcp.attest.tpm_commands import Command, Tpm
from attestable_mcp.attest.tpm_link import open_link
from attestable_mcp.errors import AttesterError
from attestable_mcp.wire import der

REPOSITORY = Path(__file__).resolve().parents[1]

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def vectors_root() -> Path | None:
    """Where the real vectors lie: $ATTESTABLE_VECTORS, or ../shared/vectors beside the repository; None if absent."""
    named = os.environ.get("ATTESTABLE_VECTORS")
    root = Path(named) if named else REPOSITORY.parent / "shared" / "vectors"
    return root if root.is_dir() else None


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of real evidence; its tests skip by name where it is absent."""
    root = vectors_root()
    if root is None:
        pytest.skip("real vectors are absent: set ATTESTABLE_VECTORS to their folder")
    return root


@pytest.fixture
def swtpm() -> Iterator[Callable[[], str]]:
    """Start real TPM 2.0s in software; each call gives another one's socket. Skips by name where swtpm is absent."""
    program = shutil.which("swtpm")
    if program is None:
        pytest.skip("swtpm is absent: apt-get install swtpm")
    started: list[tuple[subprocess.Popen[bytes], Path]] = []

    def start() -> str:
        state = Path(tempfile.mkdtemp(prefix="swtpm"))  # not tmp_path: a socket's path has at most 107 bytes
        place = state / "s"
        started.append((_start_swtpm(program, state, place), state))
        _wait_for(place, started[-1][0])
        return str(place)

    yield start
    for process, state in started:
        process.kill()  # newer ones wait for their client when they are asked politely
        process.wait(10)
        shutil.rmtree(state, ignore_errors=True)


def _start_swtpm(program: str, state: Path, place: Path) -> subprocess.Popen[bytes]:
    words = [program, "socket", "--tpm2", "--tpmstate", f"dir={state}", "--server", f"type=unixio,path={place}"]
    words += ["--flags", "not-need-init,startup-clear", "--log", f"file={state / 'log'}"]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _wait_for(place: Path, process: subprocess.Popen[bytes]) -> None:
    """Until it answers: the socket's file is there before anybody listens on it."""
    until = time.monotonic() + 20
    while True:
        try:
            open_link(str(place)).close()
        except AttesterError:
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"swtpm did not start: {(place.parent / 'log').read_text(errors='replace')}")
            time.sleep(0.01)
        else:
            return


@pytest.fixture
def extend() -> Callable[[str, int, bytes], None]:
    """Extend a PCR of a TPM with the SHA-256 of what is measured, as firmware does (TPM2_PCR_Extend, Part 3 §22.2)."""

    def measure(where: str, pcr: int, what: bytes) -> None:
        parameters = struct.pack(">IH", 1, 0x000B) + hashlib.sha256(what).digest()
        with Tpm(open_link(where)) as tpm:
            tpm.run(Command(name="PCR_Extend", code=0x182, authorised=(pcr,), parameters=parameters))

    return measure


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Thousands of collected tests live to the end: the garbage collector need not walk them again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Iterator[Path]]:
    """Folders that nobody has made yet. The machine's proxies are out of sight meanwhile."""
    folder = tmp_path_factory.mktemp("homes")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
            patch.delenv(name, raising=False)
        yield (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def _own_home(_homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test its own cache and configuration folders."""
    home = next(_homes)
    for name in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(home / name.lower()))


@pytest.fixture(scope="session")
def make_certificate() -> Callable[..., bytes]:
    """A builder of DER certificates out of parts that may be wrong; it signs only where it gets a `key`."""
    return _make_certificate


SPKI = der.encode_sequence(
    der.encode_sequence(der.encode_oid("1.2.840.10045.2.1"), der.encode_oid("1.2.840.10045.3.1.7")),
    der.encode(der.BIT_STRING, b"\0\4" + bytes(range(64))),
)
ECDSA = der.encode_sequence(der.encode_oid("1.2.840.10045.4.3.2"))


def _make_certificate(
    extensions: Sequence[tuple[str, bytes] | tuple[str, bytes, bytes]] = (),
    *,
    spki: bytes = SPKI,
    algorithm: bytes = ECDSA,
    inner_algorithm: bytes | None = None,
    serial: bytes = b"\x02\x01\x07",
    version: bytes = b"\xa0\x03\x02\x01\x02",
    validity: bytes = b"\x17\x0d260101000000Z\x17\x0d270101000000Z",
    tail: bytes = b"",
    key: ec.EllipticCurvePrivateKey | None = None,
) -> bytes:
    """`extensions` are (OID, value) or (OID, value, the bytes of its critical flag)."""
    name = der.encode_sequence(
        der.encode(der.SET, der.encode_sequence(der.encode_oid("2.5.4.3"), der.encode(der.UTF8_STRING, b"RATLS")))
    )
    members = [
        der.encode_sequence(der.encode_oid(oid), *flag, der.encode_octet_string(value))
        for oid, value, *flag in extensions
    ]
    wrapped = der.encode(0xA3, der.encode_sequence(*members)) if members else b""
    inner = algorithm if inner_algorithm is None else inner_algorithm
    times = der.encode_sequence(validity)
    tbs = der.encode_sequence(version, serial, inner, name, times, name, spki, wrapped, tail)
    signature = b"\x5a" * 70 if key is None else key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return der.encode_sequence(tbs, algorithm, der.encode(der.BIT_STRING, b"\0" + signature))
