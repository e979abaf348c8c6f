"""`doctor` on machines of several kinds: a real TPM, nothing at all, faulty devices, clouds by their names."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from tsm_double import Kernel

from attestable_mcp.attest import machine
from attestable_mcp.attest.base import Stapling
from attestable_mcp.attest.detect import DEVICES, Device, Found, named
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.attest.tsm import TsmAttester
from attestable_mcp.cli import doctor, text_doctor
from attestable_mcp.cli.doctor import diagnose, examine
from attestable_mcp.cli.terminal import Terminal
from attestable_mcp.errors import AttesterAbsent, AttesterError, ConfigurationError
from attestable_mcp.rats import Endorsements, Evidence
from attestable_mcp.simulator.eventlog import Event, ccel_table, write_log


def devices(tmp_path: Path, **places: str) -> tuple[Device, ...]:
    return tuple(replace(d, place=places.get(d.name, str(tmp_path / "none" / d.name))) for d in DEVICES)


def run(
    found: tuple[Device, ...], root: Path, *, json_output: bool = True, services: tuple[tuple[str, str], ...] = (),
    **options: Any,
) -> tuple[int, str]:  # fmt: skip
    out = io.StringIO()
    arguments = argparse.Namespace(collateral=bool(services), ak=None, attester=None)
    for name, value in options.items():
        setattr(arguments, name, value)
    terminal = Terminal(out=out, err=io.StringIO(), json=json_output)
    return diagnose(arguments, terminal, devices=found, root=root, services=services), out.getvalue()


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_a_real_tpm_is_ready_with_its_key(tmp_path: Path, swtpm: Callable[[], str]) -> None:
    where, key = swtpm(), tmp_path / "ak.pem"
    code, out = run(devices(tmp_path, azure=where, tpm=where), tmp_path, ak=key)
    found = json.loads(out)
    assert (code, found["ready"]) == (0, ["tpm"])
    states = {item["name"]: item for item in found["attesters"]}
    assert states["azure"]["state"] == "absent"
    assert states["tpm"]["evidence"] == "tpm-quote"
    assert states["tpm"]["pcr_bank"] == "sha256"
    spki = load_pem_public_key(key.read_bytes()).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert states["tpm"]["ak_sha256"] == hashlib.sha256(spki).hexdigest()


def test_it_says_whether_an_event_log_goes_along(tmp_path: Path, swtpm: Callable[[], str]) -> None:
    log = write_log((Event(pcr=4, data=b"loader"),), "sha256")
    (tmp_path / "boot.log").write_bytes(log)
    where = swtpm()
    without = json.loads(run((named(f"tpm:{where}"),), tmp_path)[1])
    assert without["attesters"][0]["event_log_bytes"] == 0
    device = named(f"tpm:{where},pcrs=0-7,log={tmp_path / 'boot.log'}")
    _, out = run((device,), tmp_path, json_output=False)
    assert f"event log of {len(log)} bytes goes along" in out
    assert f"serve with it: --attester tpm:{where},pcrs=0-7,log={tmp_path / 'boot.log'}" in out


def test_a_tdx_guests_log_counts_and_sgx_has_none(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "CCEL").write_bytes(ccel_table(4096))
    log = write_log((Event(pcr=2, data=b"shim"),), "sha384")
    (tmp_path / "data" / "CCEL").write_bytes(log.ljust(4096, b"\xff"))
    guest = TsmAttester(files=Kernel(b"tdx_guest\n"), tables=tmp_path)
    device = named("tsm")
    assert examine(Found(device=device, attester=guest)).data["event_log_bytes"] == len(log)
    enclave = SimulatedAttester(bytes(32))
    assert "event_log_bytes" not in examine(Found(device=device, attester=enclave)).data


def test_people_read_what_is_ready_and_what_that_means(tmp_path: Path, swtpm: Callable[[], str]) -> None:
    where = swtpm()
    code, out = run(devices(tmp_path, tpm=where), tmp_path, json_output=False)
    assert code == 0
    assert "  ready   tpm     TPM 2.0" in out
    assert "serve --attester auto takes: tpm" in out.replace(f"tpm:{where}", "tpm")
    assert text_doctor.TPM_TRUST in out


def test_a_place_of_ones_own_is_named_and_a_faulty_device_is_said_to_stop_auto(
    tmp_path: Path, swtpm: Callable[[], str]
) -> None:
    where = swtpm()
    one = (replace(DEVICES[-1], place=where),)
    assert f"serve with it: --attester tpm:{where}" in run(one, tmp_path, json_output=False)[1]
    tree(tmp_path / "sgx", {"attestation_type": "none"})
    code, out = run(devices(tmp_path, sgx=str(tmp_path / "sgx"), tpm=where), tmp_path, json_output=False)
    assert code == 0
    assert f"serve with --attester tpm:{where}; auto stops at sgx" in out


def test_a_machine_with_nothing_ends_with_3_and_a_way_out(tmp_path: Path) -> None:
    code, out = run(devices(tmp_path), tmp_path, json_output=False)
    assert code == 3
    for device in DEVICES:
        assert f"absent  {device.name}" in out
    assert "to do: " in out
    assert out.rstrip().endswith(text_doctor.SIMULATED)


def test_no_key_is_written_where_there_is_no_tpm(tmp_path: Path) -> None:
    with pytest.raises(AttesterError, match="wants a TPM"):
        run(devices(tmp_path), tmp_path, ak=tmp_path / "ak.pem")
    assert not (tmp_path / "ak.pem").exists()


def test_a_key_file_that_exists_is_left_alone(tmp_path: Path, swtpm: Callable[[], str]) -> None:
    (tmp_path / "ak.pem").write_text("mine")
    with pytest.raises(ConfigurationError, match="left as it is"):
        run(devices(tmp_path, tpm=swtpm()), tmp_path, ak=tmp_path / "ak.pem")
    assert (tmp_path / "ak.pem").read_text() == "mine"


class Broken(SimulatedAttester):
    def attest(self, report_data: bytes) -> Evidence:
        raise AttesterError("device: out of order", hint="repair it")


def test_a_device_that_opens_and_makes_no_evidence_is_faulty() -> None:
    line = examine(Found(device=DEVICES[0], attester=Broken(bytes(32))))
    assert (line.state, line.message, line.hint) == ("faulty", "device: out of order", "repair it")


def test_the_states_of_devices() -> None:
    assert examine(Found(device=DEVICES[0], error=AttesterAbsent("no"))).state == "absent"
    assert examine(Found(device=DEVICES[0], error=AttesterError("no"))).state == "faulty"
    ticks = iter((1.0, 1.25))
    line = examine(Found(device=DEVICES[0], attester=SimulatedAttester(bytes(32))), clock=lambda: next(ticks))
    assert line.data["milliseconds"] == 250.0


@pytest.mark.parametrize(
    ("files", "advice"),
    [
        ({"sys/class/dmi/id/sys_vendor": "Amazon EC2\n"}, "Nitro enclave"),
        ({"sys/class/dmi/id/sys_vendor": "Microsoft Corporation\n"}, "confidential VM (DCasv5"),
        ({"sys/class/dmi/id/sys_vendor": "Google\n"}, "Shielded VM"),
        ({"proc/cpuinfo": "processor: 0\nflags\t\t: fpu tdx_guest\n"}, "TDX guest"),
        ({"dev/sev-guest": ""}, "SEV-SNP guest"),
        ({"dev/sgx_enclave": ""}, "gramine-sgx"),
        ({"dev/tpm0": ""}, "resource manager"),
    ],
    ids=["aws", "azure", "gcp", "tdx", "snp", "sgx", "tpm0"],
)
def test_what_a_machine_looks_like_decides_the_advice(tmp_path: Path, files: dict[str, str], advice: str) -> None:
    root = tree(tmp_path / "root", files)
    _, out = run(devices(tmp_path), root, json_output=False)
    assert advice in out
    found = json.loads(run(devices(tmp_path), root)[1])
    assert any(advice in sentence for sentence in found["advice"])


def test_a_machine_is_described_by_its_files(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/cpuinfo": "flags : sgx hypervisor other\n",
            "proc/modules": "tpm_crb 20480 0 - Live 0x0\nother 1 0\n",
            "sys/class/dmi/id/sys_vendor": "Maker\n",
            "sys/class/dmi/id/product_name": "Google Compute Engine\n",
            "dev/tpmrm0": "",
        },
    )
    seen = machine.look(root)
    assert (seen.flags, seen.modules) == (("sgx", "hypervisor"), ("tpm_crb",))
    assert (seen.vendor, seen.product, seen.cloud) == ("Maker", "Google Compute Engine", "")
    assert seen.devices["/dev/tpmrm0"] == "usable"
    assert not seen.has("/dev/nsm")


@contextmanager
def service(status: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join(10)


def test_collateral_is_asked_for_only_on_request(tmp_path: Path) -> None:
    with service(200) as good, service(503) as bad:
        services = (("Good", good), ("Bad", bad), ("Gone", "http://127.0.0.1:9/"))
        _, out = run(devices(tmp_path), tmp_path, services=services)
        found = json.loads(out)["collateral"]
        _, text = run(devices(tmp_path), tmp_path, services=services, json_output=False)
    assert [item["reached"] for item in found] == [True, False, False]
    assert "Good answers (200)" in text
    assert "Gone cannot be reached" in text
    assert json.loads(run(devices(tmp_path), tmp_path)[1])["collateral"] == []


def test_the_services_are_those_of_the_vendors() -> None:
    assert all(url.startswith("https://") for _, url in doctor.SERVICES)


def test_stapling_adds_to_what_a_device_gives() -> None:
    own = SimulatedAttester(bytes(32), tee="sev-snp")
    more = Endorsements(certificates=(b"more",), sources=("file",))
    stapling = Stapling(own, lambda: more)
    assert stapling.endorsements() == own.endorsements() + more
    assert (stapling.tee, stapling.simulated) == ("sev-snp", True)
    assert stapling.attest(bytes(64)).kind == "snp-report"
