"""AMD SEV-SNP attestation reports, versions 2 to 5, and the certificate table that may follow one.

Source: AMD SEV-SNP Firmware ABI Specification (56860), ATTESTATION_REPORT and the policy and platform tables; the
certificate table is that of the GHCB specification (56421). All integers are little-endian. Nothing here checks a
signature.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from enum import StrEnum

from attestable_mcp.errors import MalformedEvidence, UnsupportedEvidence
from attestable_mcp.limits import LIMITS

REPORT_SIZE = 0x4A0
SIGNED_SIZE = 0x2A0
VERSIONS = (2, 3, 4, 5)
ECDSA_P384_SHA384 = 1
_COMPONENT = 72
"""Bytes of r and of s in the report: a 48-byte value, little-endian, zero padded."""


class Product(StrEnum):
    """EPYC generations whose keys AMD roots separately."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"


class SigningKey(StrEnum):
    """Who signs: a key of the chip (VCEK), a key that AMD leases to a cloud provider (VLEK), or nobody."""

    VCEK = "VCEK"
    VLEK = "VLEK"
    NONE = "NONE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tcb:
    """The security patch levels of one TCB_VERSION. `fmc` exists from Turin on and is None before."""

    bl: int
    tee: int
    snp: int
    ucode: int
    fmc: int | None = None

    def __str__(self) -> str:
        head = "" if self.fmc is None else f"fmc {self.fmc}, "
        return f"{head}bl {self.bl}, tee {self.tee}, snp {self.snp}, ucode {self.ucode}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestPolicy:
    """POLICY of the guest, 64 bits, as the owner launched it."""

    raw: int

    @property
    def abi(self) -> str:
        """Least firmware ABI that the guest accepts, `major.minor`."""
        return f"{self.raw >> 8 & 0xFF}.{self.raw & 0xFF}"

    def bit(self, number: int) -> bool:
        """One bit of the policy."""
        return bool(self.raw >> number & 1)

    @property
    def debug(self) -> bool:
        """Bit 19: the host may read and write the guest's memory."""
        return self.bit(19)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpReport:
    """One parsed report. TCB fields are the 8 bytes as they stand: their layout depends on the product (`read_tcb`)."""

    raw: bytes
    version: int
    guest_svn: int
    policy: GuestPolicy
    family_id: bytes
    image_id: bytes
    vmpl: int
    current_tcb: bytes
    platform_info: int
    signing_key: SigningKey
    mask_chip_key: bool
    author_key_en: bool
    report_data: bytes
    measurement: bytes
    host_data: bytes
    id_key_digest: bytes
    author_key_digest: bytes
    report_id: bytes
    report_id_ma: bytes
    reported_tcb: bytes
    cpuid: bytes
    chip_id: bytes
    committed_tcb: bytes
    cur_ver: bytes
    com_ver: bytes
    launch_tcb: bytes
    launch_mit: bytes
    current_mit: bytes
    r: int
    s: int
    trailing: bytes
    """Bytes after the report: a certificate table, or what a device's buffer left there. No signature covers them."""

    @property
    def signed(self) -> bytes:
        """The exact span that the signature covers."""
        return self.raw[:SIGNED_SIZE]

    @property
    def product(self) -> Product | None:
        """The product by CPUID family and model; None for version 2, which does not say."""
        return product_of(self.cpuid) if self.version >= 3 else None

    @property
    def alias_check_complete(self) -> bool:
        """PLATFORM_INFO bit 5: no memory aliasing found since the last reset (the answer to BadRAM)."""
        return bool(self.platform_info >> 5 & 1)


def read_report(data: bytes) -> SnpReport:
    """Read a report at the start of `data`.

    Raises: MalformedEvidence, UnsupportedEvidence (version, or an algorithm other than ECDSA P-384 with SHA-384).
    """
    if len(data) < REPORT_SIZE:
        raise MalformedEvidence(
            f"SNP report: wanted {REPORT_SIZE} bytes, seen {len(data)}", field="report", offset=len(data)
        )
    if len(data) > LIMITS.evidence:
        raise MalformedEvidence(f"SNP report: wanted at most {LIMITS.evidence} bytes, seen {len(data)}", field="report")
    version = _u32(data, 0)
    if version not in VERSIONS:
        raise UnsupportedEvidence(f"SNP report: wanted version 2 to 5, seen {version}")
    if _u32(data, 0x34) != ECDSA_P384_SHA384:
        raise UnsupportedEvidence(
            f"SNP report: wanted signature algorithm 1 (ECDSA P-384, SHA-384), seen {_u32(data, 0x34)}"
        )
    _refuse_set_reserved(data, version)
    return _fields(data, version, _u32(data, 0x48))


def _fields(data: bytes, version: int, flags: int) -> SnpReport:
    return SnpReport(
        raw=data[:REPORT_SIZE],
        version=version,
        guest_svn=_u32(data, 4),
        policy=GuestPolicy(raw=_u64(data, 8)),
        family_id=data[0x10:0x20],
        image_id=data[0x20:0x30],
        vmpl=_u32(data, 0x30),
        current_tcb=data[0x38:0x40],
        platform_info=_u64(data, 0x40),
        signing_key=_signing_key(flags >> 2 & 7),
        mask_chip_key=bool(flags >> 1 & 1),
        author_key_en=bool(flags & 1),
        report_data=data[0x50:0x90],
        measurement=data[0x90:0xC0],
        host_data=data[0xC0:0xE0],
        id_key_digest=data[0xE0:0x110],
        author_key_digest=data[0x110:0x140],
        report_id=data[0x140:0x160],
        report_id_ma=data[0x160:0x180],
        reported_tcb=data[0x180:0x188],
        cpuid=data[0x188:0x18B],
        chip_id=data[0x1A0:0x1E0],
        committed_tcb=data[0x1E0:0x1E8],
        cur_ver=data[0x1E8:0x1EB],
        com_ver=data[0x1EC:0x1EF],
        launch_tcb=data[0x1F0:0x1F8],
        launch_mit=data[0x1F8:0x200],
        current_mit=data[0x200:0x208],
        r=int.from_bytes(data[SIGNED_SIZE : SIGNED_SIZE + _COMPONENT], "little"),
        s=int.from_bytes(data[SIGNED_SIZE + _COMPONENT : SIGNED_SIZE + 2 * _COMPONENT], "little"),
        trailing=data[REPORT_SIZE:],
    )


def _refuse_set_reserved(data: bytes, version: int) -> None:
    """Reserved bytes must be zero: unsigned ones carry what no signature covers, signed ones what we cannot read."""
    spans = [
        ("reserved after flags", 0x4C, 0x50),
        ("reserved after cpuid", 0x18B, 0x1A0),
        ("reserved", 0x208, SIGNED_SIZE),
    ]
    spans.append(("reserved after signature", SIGNED_SIZE + 2 * _COMPONENT, REPORT_SIZE))
    if version < 5:
        spans.append(("reserved after launch_tcb", 0x1F8, 0x208))
    if version < 3:
        spans.append(("reserved before version 3", 0x188, 0x18B))
    for name, start, end in spans:
        if any(data[start:end]):
            raise MalformedEvidence("SNP report: wanted zeros, seen something else", field=name, offset=start)


def _signing_key(number: int) -> SigningKey:
    kinds = {0: SigningKey.VCEK, 1: SigningKey.VLEK, 7: SigningKey.NONE}
    if number not in kinds:
        raise UnsupportedEvidence(f"SNP report: wanted signing key 0 (VCEK), 1 (VLEK) or 7 (none), seen {number}")
    return kinds[number]


def product_of(cpuid: bytes) -> Product | None:
    """The product by CPUID family (combined), model (combined), stepping; None where we know none.

    Bergamo and Siena (family 0x19, models 0xa0 to 0xaf) are rooted with Genoa.
    """
    family, model = cpuid[0], cpuid[1]
    if family == 0x19:
        return {0x0: Product.MILAN, 0x1: Product.GENOA, 0xA: Product.GENOA}.get(model >> 4)
    if family == 0x1A and model >> 4 in (0x0, 0x1):
        return Product.TURIN
    return None


def read_tcb(raw: bytes, product: Product) -> Tcb:
    """Read a TCB_VERSION of 8 bytes; Turin moved the fields and added the FMC level."""
    if len(raw) != 8:
        raise MalformedEvidence(f"SNP TCB version: wanted 8 bytes, seen {len(raw)}", field="tcb")
    if product is Product.TURIN:
        return Tcb(fmc=raw[0], bl=raw[1], tee=raw[2], snp=raw[3], ucode=raw[7])
    return Tcb(bl=raw[0], tee=raw[1], snp=raw[6], ucode=raw[7])


def hardware_id(chip_id: bytes, product: Product) -> bytes:
    """The part of CHIP_ID that a VCEK's HWID states: 8 bytes on Turin (the rest is zero padding), else all 64."""
    return chip_id[:8] if product is Product.TURIN else chip_id


_ENTRY = 24
CERTIFICATE_GUIDS = {
    uuid.UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae"): "ARK",
    uuid.UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782"): "ASK",
    uuid.UUID("63da758d-e664-4564-adc5-f4b93be8accd"): "VCEK",
    uuid.UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1"): "VLEK",
    uuid.UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea"): "CRL",
}


def read_certificate_table(data: bytes) -> dict[str, bytes]:
    """Read a GHCB certificate table (configfs `auxblob`, or what follows an extended report): name -> DER.

    Entries of unknown GUIDs are left out: their meaning is not ours to guess. Raises: MalformedEvidence.
    """
    found: dict[str, bytes] = {}
    for index in range(LIMITS.chain * 2):
        entry = data[index * _ENTRY : (index + 1) * _ENTRY]
        if len(entry) < _ENTRY:
            raise MalformedEvidence(
                "SNP certificate table: ends without a zero entry", field="table", offset=index * _ENTRY
            )
        if not any(entry):
            return found
        start, size = _u32(entry, 16), _u32(entry, 20)
        if start + size > len(data) or size == 0:
            raise MalformedEvidence(
                "SNP certificate table: entry outside the table", field="table", offset=index * _ENTRY
            )
        name = CERTIFICATE_GUIDS.get(uuid.UUID(bytes=entry[:16]))
        if name in found:
            raise MalformedEvidence(f"SNP certificate table: {name} twice", field="table", offset=index * _ENTRY)
        if name is not None:
            found[name] = data[start : start + size]
    raise MalformedEvidence("SNP certificate table: too many entries", field="table")


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")
