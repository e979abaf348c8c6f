"""What a simulated AMD chip, its certificates and its reports look like, and each way in which they can be wrong.

Every default is the good case: a Genoa chip at its current level, a VCEK, a guest without debugging.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from attestable_mcp.simulator.options import CURRENT, LASTING, Span, Validity

DEBUG = 1 << 19
SMT = 1 << 16
RESERVED_ONE = 1 << 17
"""Bit 17 of a guest policy is always set."""
MIGRATE_MA = 1 << 18
ALIAS_CHECK_COMPLETE = 1 << 5


class Product(StrEnum):
    """Generations with keys of their own."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"


CPUID = {Product.MILAN: b"\x19\x01\x01", Product.GENOA: b"\x19\x11\x01", Product.TURIN: b"\x1a\x02\x01"}
"""Family, model, stepping as a version 3 report states them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """The parts of a TCB_VERSION. `fmc` is written on Turin only."""

    bl: int = 10
    tee: int = 0
    snp: int = 23
    ucode: int = 84
    fmc: int = 1

    def raw(self, product: Product) -> bytes:
        """8 bytes, in the product's own layout (AMD 56860, TCB_VERSION)."""
        if product is Product.TURIN:
            return bytes([self.fmc, self.bl, self.tee, self.snp, 0, 0, 0, self.ucode])
        return bytes([self.bl, self.tee, 0, 0, 0, 0, self.snp, self.ucode])


@dataclass(frozen=True, slots=True, kw_only=True)
class Chip:
    """One processor. `identity` is the hardware id; of Turin's only the first 8 bytes exist."""

    product: Product = Product.GENOA
    identity: bytes = bytes(range(1, 65))
    levels: Levels = field(default_factory=Levels)

    @property
    def hardware_id(self) -> bytes:
        """64 bytes, or 8 on Turin."""
        return self.identity[:8] if self.product is Product.TURIN else self.identity


@dataclass(frozen=True, slots=True, kw_only=True)
class AmdCertificates:
    """Faults of the chain. A field that is None follows the chip."""

    ark: Validity = LASTING
    ask: Validity = LASTING
    vek: Validity = LASTING
    ask_is_ca: bool = True
    ask_key_usage: bool = True
    vek_signed_by_stranger: bool = False
    vek_serial: int = 0
    """AMD's are 0."""
    vek_product: str | None = None
    vek_hwid: bytes | None = None
    vek_hwid_wrapped: bool = False
    """HWID inside an OCTET STRING, as the first Milan certificates have it."""
    vek_levels: Levels | None = None
    vek_without_levels: bool = False
    vek_unknown_critical_extension: bool = False
    csp_id: str = "SIMULATED"


@dataclass(frozen=True, slots=True, kw_only=True)
class AmdCollateral:
    """What is handed out beside a report, and its faults."""

    with_vek: bool = True
    with_ask: bool = True
    with_ark: bool = True
    with_crl: bool = True
    crl: Span = CURRENT
    crl_signed_by_stranger: bool = False
    revoke_ask: bool = False
    others: int = 1
    """Revoked serial numbers of nobody, as AMD's list has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One report. A field that is None follows chip and product."""

    version: int = 3
    vlek: bool = False
    guest_svn: int = 0
    policy: int = SMT | RESERVED_ONE
    debug: bool = False
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    vmpl: int = 0
    signature_algorithm: int = 1
    platform_info: int = ALIAS_CHECK_COMPLETE | 1
    author_key: bool = False
    mask_chip_key: bool = False
    signing_key: int | None = None
    """The number in the report; 0 is VCEK, 1 VLEK, 7 none."""
    host_data: bytes = bytes(32)
    id_key_digest: bytes = bytes(48)
    author_key_digest: bytes = bytes(48)
    report_id: bytes = bytes.fromhex("51" * 32)
    report_id_ma: bytes = b"\xff" * 32
    reported: Levels | None = None
    current: Levels | None = None
    committed: Levels | None = None
    launch: Levels | None = None
    cpuid: bytes | None = None
    chip_id: bytes | None = None
    firmware: bytes = b"\x1a\x37\x01"
    """Build, minor, major."""
    launch_mit: int = 0
    current_mit: int = 0
    reserved: tuple[int, int] | None = None
    """(offset, byte): set one reserved byte before signing."""
    altered: int | None = None
    """Flip the lowest bit of this byte after signing."""
    signed_by_stranger: bool = False
    conjugate_signature: bool = False
    trailing: bytes = b""
    certificate_table: bool = False
    """Put the chain behind the report, as an extended report has it."""
