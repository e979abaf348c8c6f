"""What a simulated platform, its collateral and its quotes look like, and each way in which they can be wrong.

Every default is the good case: an up-to-date platform, complete and current collateral, an untouched quote. A test
names only the knob that it turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

INTEL_QE_VENDOR_ID = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
"""The only QE vendor that Intel's documents name (DCAP Quoting Library API, quote header)."""

SGX_INIT = 0x01
SGX_DEBUG = 0x02
SGX_MODE64 = 0x04
TD_DEBUG = 1
TD_SEPT_VE_DISABLE = 1 << 28


class TcbStatus(StrEnum):
    """The seven words of Intel's TCB info (PCS API v4, TCB info structure)."""

    UP_TO_DATE = "UpToDate"
    SW_HARDENING_NEEDED = "SWHardeningNeeded"
    CONFIGURATION_NEEDED = "ConfigurationNeeded"
    CONFIGURATION_AND_SW_HARDENING_NEEDED = "ConfigurationAndSWHardeningNeeded"
    OUT_OF_DATE = "OutOfDate"
    OUT_OF_DATE_CONFIGURATION_NEEDED = "OutOfDateConfigurationNeeded"
    REVOKED = "Revoked"


class Signer(StrEnum):
    """Who signs a document: only the first is right. The others are all issued under the same root, or forged."""

    TCB_SIGNING = "tcb-signing"
    PCK_LEAF = "pck-leaf"
    PCK_CA = "pck-ca"
    OTHER_NAME = "other-name"
    """A leaf of the root with the right key usage whose subject is not `Intel SGX TCB Signing`."""
    STRANGER = "stranger"
    """A key of no chain at all behind the genuine chain: a forged document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Validity of a document or CRL, relative to the `at` of the call that makes it."""

    issued: timedelta = timedelta(days=-1)
    expires: timedelta = timedelta(days=29)

    def dates(self, at: datetime) -> tuple[datetime, datetime]:
        """The two moments, to the second."""
        return (at + self.issued).replace(microsecond=0), (at + self.expires).replace(microsecond=0)


CURRENT = Span()
EXPIRED = Span(issued=timedelta(days=-40), expires=timedelta(days=-10))
FUTURE = Span(issued=timedelta(days=2), expires=timedelta(days=32))


@dataclass(frozen=True, slots=True, kw_only=True)
class Validity:
    """Absolute validity of a certificate. Fixed, so that a vendor made again elsewhere issues the same certificates."""

    not_before: datetime = datetime(2020, 1, 1, tzinfo=UTC)
    not_after: datetime = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)


LASTING = Validity()


def _good_components() -> tuple[int, ...]:
    return (8, 8, 2, 2, 4, 1, 0, 6, *([0] * 8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """One machine: what its PCK certificate says (SGX PCK Certificate profile specification, section 1.3.5).

    `components` are the 16 SGX TCB component SVNs; `cpusvn` follows from them. `tdx_components` are TEE_TCB_SVN.
    A processor-CA platform has neither platform instance id nor configuration.
    """

    pck_ca: str = "platform"
    fmspc: bytes = bytes.fromhex("5150f0000000")
    pceid: bytes = b"\x00\x00"
    components: tuple[int, ...] = _good_components()
    pcesvn: int = 11
    tdx_components: tuple[int, ...] = (5, 0, 8, *([0] * 13))
    ppid: bytes = bytes.fromhex("51500000000000000000000000000001")
    platform_instance_id: bytes = bytes.fromhex("51500000000000000000000000000002")
    sgx_type: int = 1
    dynamic_platform: bool = True
    cached_keys: bool = True
    smt_enabled: bool = True

    @property
    def cpusvn(self) -> bytes:
        """16 bytes."""
        return bytes(self.components)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """Faults of the certificates themselves, root to leaves."""

    root: Validity = Validity()
    pck_ca: Validity = Validity()
    pck: Validity = Validity()
    tcb_signing: Validity = Validity()
    pck_ca_is_ca: bool = True
    pck_ca_key_usage: bool = True
    pck_signed_by_stranger: bool = False
    """The PCK names the PCK CA as its issuer and is signed by another key."""
    pck_sgx_extension: bool = True
    pck_fmspc_twice: bool = False
    """FMSPC stands twice in the SGX extension."""
    pck_components: int = 16
    """How many of the 16 component fields the extension carries."""
    pck_unknown_critical_extension: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One TCB level of TCB info. `tdx` is ignored in documents for SGX."""

    components: tuple[int, ...]
    pcesvn: int
    tdx: tuple[int, ...] = (0,) * 16
    status: str = TcbStatus.UP_TO_DATE
    date: datetime = datetime(2024, 11, 13, tzinfo=UTC)
    advisories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IsvLevel:
    """One TCB level of a QE identity or a TDX module identity."""

    isvsvn: int
    status: str = TcbStatus.UP_TO_DATE
    date: datetime = datetime(2024, 11, 13, tzinfo=UTC)
    advisories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleIdentity:
    """A TDX module identity as TCB info lists it; `version` is the n of `TDX_0n`."""

    version: int
    levels: tuple[IsvLevel, ...]
    mrsigner: bytes = bytes(48)
    attributes: bytes = bytes(8)
    attributes_mask: bytes = b"\xff" * 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbInfo:
    """TCB info v3 (PCS API v4). `levels` replaces the built-in ladder, whose rung for the platform has `status`."""

    span: Span = CURRENT
    status: str = TcbStatus.UP_TO_DATE
    advisories: tuple[str, ...] = ()
    levels: tuple[Level, ...] | None = None
    below_all_levels: bool = False
    """Only levels above this platform: none matches."""
    component_count: int = 16
    tdx_component_count: int = 16
    evaluation_number: int = 18
    fmspc: bytes | None = None
    pceid: bytes | None = None
    id: str | None = None
    version: int = 3
    with_tdx_parts: bool = True
    """False gives a TDX quote what the /sgx/ address would: no tdxModule, no tdxtcbcomponents."""
    module_status: str = TcbStatus.UP_TO_DATE
    module_advisories: tuple[str, ...] = ()
    modules: tuple[ModuleIdentity, ...] | None = None
    module_mrsigner: bytes = bytes(48)
    module_attributes: bytes = bytes(8)
    module_attributes_mask: bytes = b"\xff" * 8
    signer: Signer = Signer.TCB_SIGNING
    tampered: bool = False
    """One byte of the body changed after signing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QeIdentity:
    """QE or TD_QE identity v2 (PCS API v4). What is None follows the vendor's own quoting enclave."""

    span: Span = CURRENT
    status: str = TcbStatus.UP_TO_DATE
    advisories: tuple[str, ...] = ()
    levels: tuple[IsvLevel, ...] | None = None
    mrsigner: bytes | None = None
    isvprodid: int | None = None
    miscselect: bytes = bytes(4)
    miscselect_mask: bytes = b"\xff" * 4
    attributes: bytes = bytes.fromhex("11000000000000000000000000000000")
    attributes_mask: bytes = bytes.fromhex("fbffffffffffffff0000000000000000")
    evaluation_number: int = 18
    id: str | None = None
    version: int = 2
    signer: Signer = Signer.TCB_SIGNING
    tampered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Crls:
    """Both revocation lists."""

    root: Span = CURRENT
    pck: Span = CURRENT
    with_root: bool = True
    with_pck: bool = True
    revoke_pck: bool = False
    revoke_pck_ca: bool = False
    revoke_tcb_signing: bool = False
    others: int = 2
    """Revoked serials that concern nobody here, so that an empty list is not the only thing tested."""
    root_signed_by_stranger: bool = False
    pck_signed_by_stranger: bool = False
    pck_issued_by_root: bool = False
    """In place of the PCK CA's list: one that the root issued."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """All that a PCS serves for one platform."""

    tcb_info: TcbInfo = TcbInfo()
    qe_identity: QeIdentity = QeIdentity()
    crls: Crls = Crls()
    with_tcb_info: bool = True
    with_qe_identity: bool = True
    with_pck_chain: bool = False
    """The PCK chain beside the collateral, as a quote with certification data type 3 needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotingEnclave:
    """The QE report inside a quote. What is None follows the vendor's own quoting enclave."""

    mrsigner: bytes | None = None
    isvprodid: int | None = None
    isvsvn: int = 8
    miscselect: bytes = bytes(4)
    attributes: bytes = bytes.fromhex("1500000000000000e700000000000000")
    report_data: bytes | None = None
    """In place of SHA-256(attestation key || authentication data) and 32 zeros."""
    signed_by_stranger: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """The shape of a quote around its body, and the faults that can be in it."""

    version: int | None = None
    """SGX: 3 (default), 4 or 5; TDX: 4 (default) or 5."""
    attestation_key_type: int = 2
    tee_type: int | None = None
    qe_vendor_id: bytes = INTEL_QE_VENDOR_ID
    user_data: bytes = bytes(20)
    qe: QuotingEnclave = QuotingEnclave()
    auth_data: bytes = bytes(range(32))
    bad_isv_signature: bool = False
    bad_qe_signature: bool = False
    conjugate_signatures: bool = False
    """(r, n - s) in place of (r, s), in both signatures: as valid, other bytes."""
    certification_type: int = 5
    """5 the PEM chain; 1 the plain PPID; 3 the PPID encrypted to a 3072-bit key, with raw TCB."""
    chain_order: tuple[str, ...] = ("pck", "ca", "root")
    nul_terminated: bool = True
    trailing: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class SgxBody:
    """An enclave report body (Intel SDM volume 3D, REPORT). MRENCLAVE and report data are arguments of the call."""

    mrsigner: bytes = bytes.fromhex("5151") * 16
    isvprodid: int = 1
    isvsvn: int = 1
    miscselect: bytes = bytes(4)
    flags: int = SGX_INIT | SGX_MODE64
    xfrm: int = 0xE7
    cpusvn: bytes | None = None
    configid: bytes = bytes(64)
    configsvn: int = 0
    isvextprodid: bytes = bytes(16)
    isvfamilyid: bytes = bytes(16)
    debug: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxBody:
    """A TD report body (Intel TDX DCAP Quoting Library API, TD quote body), 48-byte registers.

    `td15` adds TEE_TCB_SVN_2 and MRSERVICETD; a quote v5 then has body type 3, else 2.
    """

    mrtd: bytes = bytes.fromhex("5152") * 24
    mrseam: bytes = bytes.fromhex("5153") * 24
    mrsignerseam: bytes = bytes(48)
    seamattributes: bytes = bytes(8)
    tdattributes: int = TD_SEPT_VE_DISABLE
    xfam: bytes = bytes.fromhex("e702060000000000")
    mrconfigid: bytes = bytes(48)
    mrowner: bytes = bytes(48)
    mrownerconfig: bytes = bytes(48)
    rtmr: tuple[bytes, bytes, bytes, bytes] = (bytes(48), bytes(48), bytes(48), bytes(48))
    tee_tcb_svn: bytes | None = None
    td15: bool = False
    tee_tcb_svn_2: bytes | None = None
    mrservicetd: bytes = bytes(48)
    debug: bool = False
