"""Which attester to use: by name, or by what this machine has. Nothing here ever falls back to a simulated one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attestable_mcp.attest.base import Attester
from attestable_mcp.attest.gramine import DEVICE_ROOT, GramineAttester
from attestable_mcp.attest.measurement import Measurement
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.attest.tpm import TpmAttester
from attestable_mcp.errors import AttesterError, ConfigurationError

CHOICES = ("auto", "simulated", "sgx", "tpm")
Measured = Measurement | bytes | Callable[[], Measurement]


def choose(name: str, *, measured: Measured | None = None, device_root: Path = DEVICE_ROOT) -> Attester:
    """The attester called `name`. `measured` says what a simulated one reports; it is asked only then.

    Raises:
        AttesterError: The machine does not have it. With `auto`: it has none at all.
        ConfigurationError: There is no such name, or `simulated` has nothing to measure.
    """
    match name:
        case "sgx":
            return GramineAttester(device_root)
        case "tpm":
            return TpmAttester()
        case _ if name.startswith("tpm:"):
            return TpmAttester(name.removeprefix("tpm:"))
        case "simulated":
            return _simulated(measured)
        case "auto":
            return _detected(device_root)
        case _:
            raise ConfigurationError(f"attester: wanted one of {', '.join(CHOICES)}, seen {name!r:.80}")


def _simulated(measured: Measured | None) -> SimulatedAttester:
    if measured is None:
        raise ConfigurationError(
            "attester simulated: wanted a measurement of the server to report, seen none",
            hint="pass measured=measure_target(...)",
        )
    return SimulatedAttester(measured() if callable(measured) else measured)


def _detected(device_root: Path) -> Attester:
    """A device that is there but faulty is an error of its own: detection does not go on looking past it."""
    if (device_root / "attestation_type").exists():
        return GramineAttester(device_root)
    raise AttesterError(
        f"no attestation device: {device_root} is absent",
        hint="run inside a TEE (gramine-sgx), or try things out with --attester simulated, which proves nothing",
    )
