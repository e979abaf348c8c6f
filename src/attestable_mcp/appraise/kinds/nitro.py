"""AWS Nitro Enclaves: images by their PCRs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

from attestable_mcp.appraise.fault import PolicyFault
from attestable_mcp.appraise.findings import Comparison
from attestable_mcp.appraise.kinds.base import PCRS, Kind, quoted
from attestable_mcp.appraise.values import hex_text, put, whole
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.rats import AttestationResult, Claims, Finding, Tee

_SIZE = 48
_ZERO = "0" * 96
IMAGE, SIGNER = 0, 8
_MEANINGS = {
    0: "the enclave image file, whole",
    1: "kernel and boot ramdisk",
    2: "the application, without the boot ramdisk",
    3: "the IAM role of the parent instance",
    4: "the parent instance's id: another instance of the same build differs",
    8: "the certificate that signed the image",
}
_PINNED = (0, 1, 2, 8)
"""Registers that belong to the build; the others say where it runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NitroRelease:
    """One accepted image: `pcrs` by number (48 bytes hex), PCR0 or PCR8 among them. Everything given has to hold.

    Raises:
        ConfigurationError: neither the image (PCR0) nor its signer (PCR8) is named, or a value that cannot be.
    """

    label: str = ""
    pcrs: Mapping[int, str] = field(default_factory=dict)

    tee: ClassVar[Tee] = Tee.NITRO

    def __post_init__(self) -> None:
        for number in self.pcrs:
            whole(number, 0, 31, f"pcr{number}")
        checked = {number: hex_text(value, _SIZE, f"pcr{number}") for number, value in sorted(self.pcrs.items())}
        put(self, "pcrs", MappingProxyType(checked))
        if IMAGE not in checked and SIGNER not in checked:
            raise PolicyFault("pcr0 (the image) is missing, or pcr8 (who signed it): others do not name the code")
        for number in (*range(3), SIGNER):
            if checked.get(number) == _ZERO:
                raise PolicyFault("an all-zero value names no image: it is what debug mode shows", f"pcr{number}")


def compare(held: Comparison, release: NitroRelease) -> Iterator[Finding]:
    """Every PCR that the release gives. One that was never extended is zero, and no claim."""
    for number, value in release.pcrs.items():
        shown = held.claims.values.get(f"pcr{number}", _ZERO)
        yield held.same(f"pcr{number}", value, shown=str(shown))


def _open(release: NitroRelease, claims: Claims) -> Iterator[str]:
    if IMAGE not in release.pcrs:
        yield "which build: any image that this certificate signed would pass, old faulty ones included"


def pin(result: AttestationResult) -> Iterator[str]:
    """The registers of the build as seen; those of the instance stand beside them as comments."""
    for number, meaning in _MEANINGS.items():
        value = result.claims.get(f"pcr{number}")
        if not isinstance(value, str):
            continue
        yield f"# pcr{number}: {meaning}."
        yield f"{'' if number in _PINNED else '# '}pcr{number} = {quoted(value)}"
    if "pcr0" not in result.claims:
        raise ConfigurationError("the result holds no pcr0, so it cannot be pinned")


NITRO = Kind(
    tee=Tee.NITRO,
    vendor="aws",
    release=NitroRelease,
    keys={PCRS: "pcrs"},
    heads=(frozenset((PCRS,)),),
    code=tuple(f"pcr{number}" for number in _PINNED),
    compare=compare,
    pin=pin,
    open_ends=_open,
)
