"""What this machine says of itself, as far as it matters for attestation: read from files, changed by nothing.

None of it is evidence. It serves to tell a person what is missing and what to do.
"""

from __future__ import annotations

import os
import platform
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

DEVICES = (
    "/dev/attestation", "/dev/sgx_enclave", "/dev/nsm", "/dev/tdx_guest", "/dev/sev-guest", "/dev/tpmrm0", "/dev/tpm0",
    "/sys/kernel/config/tsm/report", "/var/run/dstack.sock",
)  # fmt: skip
MODULES = ("tdx_guest", "sev_guest", "tsm", "tsm_report", "nsm", "tpm_crb", "tpm_tis", "tpm_vtpm_proxy")
_FLAGS = ("tdx_guest", "sev_snp", "sev_es", "sev", "sgx", "hypervisor")
_CLOUDS = (("Amazon EC2", "aws"), ("Microsoft Corporation", "azure"), ("Google", "gcp"))
_MOST = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """`devices` maps a path to `usable`, `forbidden` or `absent`; `flags` and `modules` are those that matter here."""

    system: str
    kernel: str
    vendor: str
    product: str
    cloud: str
    flags: tuple[str, ...]
    modules: tuple[str, ...]
    devices: Mapping[str, str]

    def has(self, path: str) -> bool:
        """Is there such a device, usable or not?"""
        return self.devices.get(path, "absent") != "absent"


def look(root: Path = Path("/")) -> Machine:
    """This machine, or a tree of files that looks like one."""
    vendor = _first_line(root / "sys/class/dmi/id/sys_vendor")
    product = _first_line(root / "sys/class/dmi/id/product_name")
    flags = set(_flags(_text(root / "proc/cpuinfo")))
    modules = {line.partition(" ")[0] for line in _text(root / "proc/modules").splitlines()}
    return Machine(
        system=platform.system(),
        kernel=platform.release(),
        vendor=vendor,
        product=product,
        cloud=next((cloud for name, cloud in _CLOUDS if name in (vendor, product)), ""),
        flags=tuple(flag for flag in _FLAGS if flag in flags),
        modules=tuple(module for module in MODULES if module in modules),
        devices={path: _state(root / path.lstrip("/")) for path in DEVICES},
    )


def advice(machine: Machine) -> Iterator[str]:
    """What to do about what is missing, most likely first. Nothing where nothing is known."""
    if machine.system != "Linux":
        yield "attestation devices are read on Linux only; on this system, verify servers that run elsewhere"
    if machine.has("/dev/sgx_enclave") and not machine.has("/dev/attestation"):
        yield "the processor offers SGX: run the server under gramine-sgx, with remote attestation in its manifest"
    no_reports = not machine.has("/sys/kernel/config/tsm/report")
    if "tdx_guest" in machine.flags and no_reports:
        yield "this is a TDX guest whose kernel offers no reports: use Linux 6.7 or later, modprobe tdx_guest"
    if machine.has("/dev/sev-guest") and no_reports:
        yield "this is an SEV-SNP guest whose kernel offers no configfs-tsm: use Linux 6.7 or later"
    if machine.has("/dev/tpm0") and not machine.has("/dev/tpmrm0"):
        yield "the TPM has no resource manager (/dev/tpmrm0): use Linux 4.12 or later; it is for TPM 2.0 only"
    yield from _cloud_advice(machine)


def _cloud_advice(machine: Machine) -> Iterator[str]:
    no_tpm = not machine.has("/dev/tpmrm0")
    if machine.cloud == "aws" and not machine.has("/dev/nsm"):
        yield "on EC2: run the server in a Nitro enclave (nitro-cli), on an instance with AMD SEV-SNP, or with NitroTPM"
    if machine.cloud == "azure" and no_tpm:
        yield "on Azure: use a confidential VM (DCasv5, ECasv5 or newer) or at least Trusted launch, which has a vTPM"
    if machine.cloud == "gcp" and no_tpm:
        yield "on Google Cloud: create a confidential VM (TDX or SEV-SNP), or a Shielded VM with vTPM"


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MOST).decode("utf-8", "replace")
    except OSError:
        return ""


def _first_line(path: Path) -> str:
    return _text(path).partition("\n")[0].strip()[:80]


def _flags(cpuinfo: str) -> Iterator[str]:
    line = next((line for line in cpuinfo.splitlines() if line.startswith("flags")), "")
    yield from line.partition(":")[2].split()


def _state(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return "forbidden"
    except OSError:
        return "absent"
    wanted = os.R_OK | os.X_OK if stat.S_ISDIR(mode) else os.R_OK | os.W_OK
    return "usable" if os.access(path, wanted) else "forbidden"
