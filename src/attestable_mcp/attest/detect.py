"""Which attester to use: by name, or by what this machine has. Nothing here ever falls back to a simulated one.

A name may say where the device lies, after a colon: `tpm:/run/swtpm.sock`, `dstack:/var/run/dstack.sock`; for
`simulated` it says which kind of TEE to play: `simulated:sev-snp`. Options of a TPM follow after commas:
`tpm,pcrs=0-9+14`, `tpm:/run/swtpm.sock,log=/var/lib/boot.log`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from attestable_mcp.attest import azure, dstack, gramine, nitro, tpm, tsm
from attestable_mcp.attest.base import Attester
from attestable_mcp.attest.measurement import Measurement
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.attest.tpm_link import DEVICE as TPM_DEVICE
from attestable_mcp.errors import AttesterAbsent, AttesterError, ConfigurationError
from attestable_mcp.rats import Tee

Measured = Measurement | bytes | Callable[[], Measurement]


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One kind of attestation device: `name` chooses it, `place` is where it lies unless somebody says otherwise.

    `options` are the words that it takes after its place, `given` those that somebody gave with their values.
    """

    name: str
    about: str
    place: str
    open: Callable[..., Attester]
    options: tuple[str, ...] = ()
    given: Mapping[str, str] = field(default_factory=dict)

    def opened(self) -> Attester:
        """The attester. Raises: AttesterError; ConfigurationError for the value of an option."""
        return self.open(self.place, **self.given)


DEVICES = (
    Device(
        name="sgx",
        about="Intel SGX enclave under Gramine",
        place=str(gramine.DEVICE_ROOT),
        open=lambda place: gramine.GramineAttester(Path(place)),
    ),
    Device(
        name="nitro",
        about="AWS Nitro enclave",
        place=str(nitro.DEVICE),
        open=lambda place: nitro.NitroAttester(Path(place)),
    ),
    Device(
        name="dstack",
        about="confidential VM of dstack, through its guest agent",
        place=str(dstack.SOCKETS[0]),
        open=lambda place: dstack.DstackAttester(None if place == str(dstack.SOCKETS[0]) else Path(place)),
    ),
    Device(
        name="tsm",
        about="Intel TDX or AMD SEV-SNP VM, through the kernel's configfs-tsm",
        place=str(tsm.REPORT_ROOT),
        open=lambda place: tsm.TsmAttester(Path(place)),
    ),
    Device(
        name="azure",
        about="Azure confidential VM, through its vTPM",
        place=str(TPM_DEVICE),
        open=lambda place, **given: azure.AzureAttester(place, **tpm.settings(place, **given)),
        options=tpm.OPTIONS,
    ),
    Device(
        name="tpm",
        about="TPM 2.0",
        place=str(TPM_DEVICE),
        open=lambda place, **given: tpm.TpmAttester(place, **tpm.settings(place, **given)),
        options=tpm.OPTIONS,
    ),
)
"""In the order in which `auto` looks: enclaves before VMs, the TPM last, which hides nothing from its operator."""
CHOICES = ("auto", "simulated", *(device.name for device in DEVICES))


def choose(name: str, *, measured: Measured | None = None, devices: tuple[Device, ...] = DEVICES) -> Attester:
    """The attester called `name`. `measured` says what a simulated one reports; it is asked only then.

    Raises:
        AttesterError: The machine does not have it, or it does not work. With `auto`: it has none at all.
        ConfigurationError: There is no such name, or `simulated` has nothing to measure.
    """
    kind, _, detail = name.partition(":")
    if kind == "auto" and not detail:
        return _detected(devices)
    if kind == "simulated":
        return _simulated(measured, detail or Tee.SGX)
    device = named(name, devices)
    return device.opened()


def named(name: str, devices: tuple[Device, ...] = DEVICES) -> Device:
    """The device of this name, at its usual place or at the one after the colon.

    Raises:
        ConfigurationError: There is no such name, or it takes no such option.
    """
    word, *options = name.split(",")
    kind, _, detail = word.partition(":")
    for device in devices:
        if device.name == kind:
            return replace(device, place=detail or device.place, given=_given(device, options))
    raise ConfigurationError(
        f"attester: wanted one of {', '.join(CHOICES)}, seen {name!r:.80}",
        hint='TDX and SEV-SNP are called "tsm"; "attestable-mcp doctor" says what this machine has',
    )


def _given(device: Device, options: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for option in options:
        name, _, value = option.partition("=")
        if name not in device.options or name in found or not value:
            wanted = ", ".join(f"{each}=VALUE" for each in device.options) or "none"
            raise ConfigurationError(
                f"attester {device.name}: wanted of options {wanted}, each once, seen {option!r:.80}",
                hint="such as tpm,pcrs=0-9+14",
            )
        found[name] = value
    return found


def _simulated(measured: Measured | None, tee: str) -> SimulatedAttester:
    if measured is None:
        raise ConfigurationError(
            "attester simulated: wanted a measurement of the server to report, seen none",
            hint="pass measured=measure_target(...)",
        )
    return SimulatedAttester(measured() if callable(measured) else measured, tee=tee)


def _detected(devices: tuple[Device, ...]) -> Attester:
    """A device that is there but faulty is an error of its own: detection does not go on looking past it."""
    reasons = []
    for device in devices:
        try:
            return device.opened()
        except AttesterAbsent as error:
            reasons.append(f"{device.name} ({error.message})")
    raise AttesterAbsent(
        f"no attestation device: {'; '.join(reasons)}",
        hint='run inside a TEE; "attestable-mcp doctor" says what is missing here. To try things out:'
        " --attester simulated, which proves nothing",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What became of one device: the open attester, or the error that says why there is none."""

    device: Device
    attester: Attester | None = None
    error: AttesterError | None = None

    @property
    def state(self) -> str:
        """`ready`, `absent` or `faulty`."""
        if self.attester is not None:
            return "ready"
        return "absent" if isinstance(self.error, AttesterAbsent) else "faulty"


def survey(devices: tuple[Device, ...] = DEVICES) -> Iterator[Found]:
    """Every device of this machine, opened. No evidence is made."""
    for device in devices:
        try:
            yield Found(device=device, attester=device.opened())
        except AttesterError as error:
            yield Found(device=device, error=error)
