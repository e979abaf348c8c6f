"""A miniature AWS: the four ranks of Nitro certificates and attestation documents, under a root that nobody trusts.

>>> from datetime import UTC, datetime
>>> document = AwsVendor().document(bytes(64), at=datetime(2026, 1, 1, tzinfo=UTC))

Format: AWS, "Attestation document specification" of Nitro Enclaves; COSE_Sign1 is RFC 9052. Every default of the
options is the good case.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from attestable_mcp.simulator import cbor
from attestable_mcp.simulator import certificates as x509
from attestable_mcp.simulator.keys import WELL_KNOWN_SEED, private_key_p384, serial, sign_raw_p384
from attestable_mcp.simulator.options import LASTING, Span, Validity

_ES384 = -35
_LEAF_LIFE = Span(issued=timedelta(minutes=-1), expires=timedelta(hours=3))
_PCR_SIZE = 48


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsCertificates:
    """Faults of the chain above an enclave. The leaf's validity hangs on each document's time."""

    root: Validity = LASTING
    regional: Validity = LASTING
    zonal: Validity = LASTING
    instance: Validity = LASTING
    zonal_is_ca: bool = True
    zonal_signed_by_stranger: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document. `pcrs` come on top of PCR0 to 4, which hold made-up values, and the zeros after them."""

    pcrs: Mapping[int, bytes] = field(default_factory=dict)
    pcr_count: int = 16
    debug: bool = False
    """PCR0 to 2 are zero, as in an enclave with a console."""
    module_id: str = "i-51510000000000000-enc5151000000000000"
    digest: str = "SHA384"
    age: timedelta = timedelta(0)
    leaf: Span = _LEAF_LIFE
    nonce: bytes | None = None
    public_key: bytes | None = None
    without: tuple[str, ...] = ()
    """Fields that are left out."""
    extra: Mapping[str, cbor.Value] = field(default_factory=dict)
    indefinite: bool = False
    """The payload as a map of indefinite length, as firmware writes it since 2025."""
    tagged: bool = False
    """COSE tag 18 before the array; AWS writes none."""
    algorithm: int = _ES384
    leaf_signed_by_stranger: bool = False
    signed_by_stranger: bool = False
    payload_altered: bool = False
    """Another module id than the one that was signed, of the same length."""
    cabundle_without_regional: bool = False


_GOOD = Document()


class AwsVendor:
    """AWS with one parent instance. Safe to share between threads: nothing changes after construction."""

    def __init__(self, *, seed: bytes = WELL_KNOWN_SEED, certificates: AwsCertificates | None = None) -> None:
        self._seed = seed
        options = certificates or AwsCertificates()
        self._stranger = private_key_p384(seed, "aws stranger")
        self.root = self._authority("SIMULATED aws.nitro-enclaves", None, options.root, 3)
        self.regional = self._authority("SIMULATED regional", self.root, options.regional, 2)
        forged = x509.ecdsa(self._stranger) if options.zonal_signed_by_stranger else None
        self.zonal = self._authority(
            "SIMULATED zonal", self.regional, options.zonal, 1, ca=options.zonal_is_ca, signer=forged
        )
        self.instance = self._authority("SIMULATED instance", self.zonal, options.instance, 0)
        self._leaf_key = private_key_p384(seed, "aws enclave")

    @classmethod
    def unknown(cls) -> AwsVendor:
        """A vendor of a random seed: an unknown root."""
        return cls(seed=os.urandom(32))

    @property
    def root_spki_sha256(self) -> str:
        """What a TrustAnchor compares, lower-case hex."""
        return self.root.signer.spki_sha256

    def _authority(
        self,
        name: str,
        issuer: x509.Party | None,
        validity: Validity,
        below: int,
        *,
        ca: bool = True,
        signer: x509.Signer | None = None,
    ) -> x509.Party:
        return x509.issue(
            name, x509.ecdsa(private_key_p384(self._seed, name)), issuer, serial=serial(self._seed, name),
            valid=(validity.not_before, validity.not_after),
            extensions=x509.constraints(ca=ca, path_length=below, signs=True), signer=signer,
        )  # fmt: skip

    def document(self, user_data: bytes, *, at: datetime, options: Document = _GOOD) -> bytes:
        """A document made at `at` with a leaf certificate of three hours.

        Raises:
            ValueError: `at` has no timezone.
        """
        if at.tzinfo is None:
            raise ValueError("times are timezone-aware")
        payload = self._payload(user_data, at, options)
        protected = cbor.encode({1: options.algorithm})
        to_be_signed = cbor.encode(["Signature1", protected, b"", payload])
        key = self._stranger if options.signed_by_stranger else self._leaf_key
        signature = sign_raw_p384(key, to_be_signed)
        if options.payload_altered:
            payload = payload.replace(b"i-5151", b"i-6161", 1)
        message = b"\x84" + cbor.encode(protected) + b"\xa0" + cbor.encode(payload) + cbor.encode(signature)
        return b"\xd2" + message if options.tagged else message

    def _payload(self, user_data: bytes, at: datetime, options: Document) -> bytes:
        made = at - options.age
        fields: dict[str, cbor.Value] = {
            "module_id": options.module_id,
            "digest": options.digest,
            "timestamp": int(made.timestamp() * 1000),
            "pcrs": self._pcrs(options),
            "certificate": self._leaf(made, options).der,
            "cabundle": [party.der for party in self._bundle(options)],
            "public_key": options.public_key,
            "user_data": user_data,
            "nonce": options.nonce,
        }
        kept = {name: value for name, value in fields.items() if name not in options.without}
        return cbor.encode(kept | dict(options.extra), indefinite=options.indefinite)

    def _bundle(self, options: Document) -> tuple[x509.Party, ...]:
        """Root first."""
        chain = (self.root, self.regional, self.zonal, self.instance)
        return chain[:1] + chain[2:] if options.cabundle_without_regional else chain

    def _leaf(self, made: datetime, options: Document) -> x509.Party:
        name = options.module_id
        return x509.issue(
            name, x509.ecdsa(self._leaf_key), self.instance, serial=serial(self._seed, f"{name} {made.isoformat()}"),
            valid=options.leaf.dates(made), extensions=x509.constraints(ca=False),
            signer=x509.ecdsa(self._stranger) if options.leaf_signed_by_stranger else None,
        )  # fmt: skip

    @staticmethod
    def _pcrs(options: Document) -> dict[int, bytes]:
        """PCR0 image, 1 kernel, 2 application, 3 role of the parent instance, 4 its id; the others are zero."""
        found = {number: bytes(_PCR_SIZE) for number in range(options.pcr_count)}
        found |= {number: bytes([0x50 + number]) * _PCR_SIZE for number in range(5)}
        found |= dict(options.pcrs)
        return found | ({number: bytes(_PCR_SIZE) for number in range(3)} if options.debug else {})


@functools.cache
def well_known() -> AwsVendor:
    """The well-known AWS, made once in a process."""
    return AwsVendor()
