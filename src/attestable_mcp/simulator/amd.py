"""A miniature AMD: ARK, ASK, VCEK and VLEK, revocation list and SEV-SNP reports, under a root that nobody trusts.

>>> from datetime import UTC, datetime
>>> vendor = AmdVendor()
>>> report = vendor.report(bytes(64), measurement=bytes(48))
>>> endorsements = vendor.collateral(at=datetime(2026, 1, 1, tzinfo=UTC))

Formats: AMD 56860 (report), 57230 (certificates and the key distribution service), 56421 (certificate table).
"""

from __future__ import annotations

import base64
import functools
import os
import struct
import uuid
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import parse_qsl, urlsplit

from attestable_mcp.rats import Endorsements
from attestable_mcp.simulator import certificates as x509
from attestable_mcp.simulator import der, rsa
from attestable_mcp.simulator.amd_options import (
    CPUID,
    DEBUG,
    AmdCertificates,
    AmdCollateral,
    Chip,
    Levels,
    Product,
    Report,
)
from attestable_mcp.simulator.keys import (
    WELL_KNOWN_SEED,
    conjugate_p384,
    private_key,
    private_key_p384,
    serial,
    sign_raw_p384,
)
from attestable_mcp.simulator.options import Validity

SOURCE = "simulated AMD (trusted by nobody)"
_ARC = "1.3.6.1.4.1.3704.1."
_GOOD_REPORT, _GOOD_COLLATERAL = Report(), AmdCollateral()
_GUIDS = {
    "ark": "c0b406a4-a803-4952-9743-3fb6014cd0ae",
    "ask": "4ab7b379-bbac-4fe4-a02f-05aef327c782",
    "vcek": "63da758d-e664-4564-adc5-f4b93be8accd",
    "vlek": "a8074bc2-a25a-483e-aae6-39c045a0b8a1",
}


class AmdVendor:
    """AMD with one chip. Safe to share between threads: nothing changes after construction.

    The first of another seed than the well-known one takes half a second, to find RSA primes.
    """

    def __init__(
        self, *, seed: bytes = WELL_KNOWN_SEED, chip: Chip | None = None, certificates: AmdCertificates | None = None
    ) -> None:
        self.chip = chip or Chip()
        self._seed = seed
        self._options = certificates or AmdCertificates()
        product = str(self.chip.product)
        self._stranger = private_key(seed, "amd stranger")
        self._vcek_key = private_key_p384(seed, f"VCEK {self.chip.identity.hex()} {self.chip.levels}")
        self._vlek_key = private_key_p384(seed, f"VLEK {product}")
        self.ark = self._authority(f"ARK-{product}", None, self._options.ark, ca=True, signs=True)
        self.ask = self._authority(
            f"SEV-{product}", self.ark, self._options.ask, ca=self._options.ask_is_ca, signs=self._options.ask_key_usage
        )
        self.asvk = self._authority(f"SEV-VLEK-{product}", self.ark, self._options.ask, ca=True, signs=True)
        self.vcek = self._vek(vlek=False)
        self.vlek = self._vek(vlek=True)

    @classmethod
    def unknown(cls, *, chip: Chip | None = None) -> AmdVendor:
        """A vendor of a random seed: an unknown root."""
        return cls(seed=os.urandom(32), chip=chip)

    @property
    def root_spki_sha256(self) -> str:
        """What a TrustAnchor compares, lower-case hex. Each product has a root of its own."""
        return self.ark.signer.spki_sha256

    def _authority(
        self, name: str, issuer: x509.Party | None, validity: Validity, *, ca: bool, signs: bool
    ) -> x509.Party:
        # ASK and ASVK of a product share their key here: primes are dear, and nothing compares the two.
        role = "ark" if issuer is None else "ask"
        signer = x509.pss(rsa.key(self._seed, f"{role} {self.chip.product}"))
        limit = 1 if issuer is None else 0
        return x509.issue(
            name, signer, issuer, serial=serial(self._seed, name), valid=(validity.not_before, validity.not_after),
            extensions=x509.constraints(ca=ca, path_length=limit, signs=signs),
        )  # fmt: skip

    def _vek(self, *, vlek: bool) -> x509.Party:
        options = self._options
        forged = x509.ecdsa(self._stranger) if options.vek_signed_by_stranger else None
        return x509.issue(
            "SEV-VLEK" if vlek else "SEV-VCEK",
            x509.ecdsa(self._vlek_key if vlek else self._vcek_key),
            self.asvk if vlek else self.ask,
            serial=options.vek_serial,
            valid=(options.vek.not_before, options.vek.not_after),
            extensions=self._vek_extensions(vlek=vlek),
            signer=forged,
        )

    def _vek_extensions(self, *, vlek: bool) -> tuple[bytes, ...]:
        """AMD 57230, table "VCEK certificate extensions"."""
        options, chip = self._options, self.chip
        product = options.vek_product or (str(chip.product) if vlek else f"{chip.product}-B0")
        found = [
            x509.extension(_ARC + "1", der.integer(0)),
            x509.extension(_ARC + "2", der.tlv(0x16, product.encode())),
        ]
        if not options.vek_without_levels:
            found += self._level_extensions(options.vek_levels or chip.levels)
        found.append(self._csp() if vlek else self._hwid())
        if options.vek_unknown_critical_extension:
            found.append(x509.extension(_ARC + "99", der.boolean(True), critical=True))
        return tuple(found)

    def _level_extensions(self, levels: Levels) -> list[bytes]:
        numbered = {1: levels.bl, 2: levels.tee, 3: levels.snp, 4: 0, 5: 0, 6: 0, 7: 0, 8: levels.ucode}
        if self.chip.product is Product.TURIN:
            numbered[9] = levels.fmc
        return [x509.extension(f"{_ARC}3.{number}", der.integer(level)) for number, level in numbered.items()]

    def _csp(self) -> bytes:
        return x509.extension(_ARC + "5", der.tlv(0x16, self._options.csp_id.encode()))

    def _hwid(self) -> bytes:
        value = self.chip.hardware_id if self._options.vek_hwid is None else self._options.vek_hwid
        return x509.extension(_ARC + "4", der.octets(value) if self._options.vek_hwid_wrapped else value)

    def report(self, report_data: bytes, measurement: bytes, *, options: Report = _GOOD_REPORT) -> bytes:
        """A report of 1184 bytes over 64 bytes of report data and a 48-byte measurement, and what the options append.

        Raises:
            ValueError: A length is wrong.
        """
        if len(report_data) != 64 or len(measurement) != 48:
            raise ValueError(f"wanted 64 and 48 bytes, seen {len(report_data)} and {len(measurement)}")
        body = bytearray(self._body(report_data, measurement, options))
        if options.reserved is not None:
            body[options.reserved[0]] = options.reserved[1]
        report = bytearray(bytes(body) + self._signature(bytes(body), options))
        if options.altered is not None:
            report[options.altered] ^= 1
        table = self.certificate_table(vlek=options.vlek) if options.certificate_table else b""
        return bytes(report) + table + options.trailing

    def _body(self, report_data: bytes, measurement: bytes, options: Report) -> bytes:
        """The 0x2a0 bytes that the signature covers."""
        policy = options.policy | (DEBUG if options.debug else 0)
        head = struct.pack("<IIQ", options.version, options.guest_svn, policy)
        head += options.family_id + options.image_id + struct.pack("<II", options.vmpl, options.signature_algorithm)
        head += self._tcb(options.current) + struct.pack("<QII", options.platform_info, self._flags(options), 0)
        parts = (
            head, report_data, measurement, options.host_data, options.id_key_digest, options.author_key_digest,
            options.report_id, options.report_id_ma, self._tcb(options.reported), self._cpuid(options), bytes(21),
            self._chip_id(options), self._tcb(options.committed), options.firmware, b"\0", options.firmware, b"\0",
            self._tcb(options.launch), struct.pack("<QQ", options.launch_mit, options.current_mit),
        )  # fmt: skip
        return b"".join(parts).ljust(0x2A0, b"\0")

    def _tcb(self, levels: Levels | None) -> bytes:
        return (levels or self.chip.levels).raw(self.chip.product)

    @staticmethod
    def _flags(options: Report) -> int:
        key = options.signing_key if options.signing_key is not None else int(options.vlek)
        return key << 2 | int(options.mask_chip_key) << 1 | int(options.author_key)

    def _cpuid(self, options: Report) -> bytes:
        if options.cpuid is not None:
            return options.cpuid
        return CPUID[self.chip.product] if options.version >= 3 else bytes(3)

    def _chip_id(self, options: Report) -> bytes:
        """Zeros where it is masked or a VLEK signs."""
        if options.chip_id is not None:
            return options.chip_id
        hidden = options.vlek or options.mask_chip_key
        return bytes(64) if hidden else self.chip.hardware_id.ljust(64, b"\0")

    def _signature(self, body: bytes, options: Report) -> bytes:
        """r and s, 72 bytes little-endian each, zero padded to 512."""
        key = self._vlek_key if options.vlek else self._vcek_key
        key = private_key_p384(self._seed, "amd stranger") if options.signed_by_stranger else key
        raw = sign_raw_p384(key, body)
        raw = conjugate_p384(raw) if options.conjugate_signature else raw
        parts = (raw[half : half + 48][::-1].ljust(72, b"\0") for half in (0, 48))
        return b"".join(parts).ljust(512, b"\0")

    def certificate_table(self, *, vlek: bool = False) -> bytes:
        """The chain as a host hands it to a guest: configfs `auxblob`, or what follows an extended report."""
        chain = {"ark": self.ark.der}
        chain |= {"ask": self.asvk.der, "vlek": self.vlek.der} if vlek else {"ask": self.ask.der, "vcek": self.vcek.der}
        offset = 24 * (len(chain) + 1)
        entries, bodies = b"", b""
        for name, raw in chain.items():
            entries += uuid.UUID(_GUIDS[name]).bytes + struct.pack("<II", offset + len(bodies), len(raw))
            bodies += raw
        return entries + bytes(24) + bodies

    def collateral(
        self, *, at: datetime, vlek: bool = False, options: AmdCollateral = _GOOD_COLLATERAL
    ) -> Endorsements:
        """Certificates and the ARK's revocation list, issued a day before `at` unless the options differ.

        Raises:
            ValueError: `at` has no timezone.
        """
        pieces = (
            (options.with_vek, self.vlek if vlek else self.vcek),
            (options.with_ask, self.asvk if vlek else self.ask),
            (options.with_ark, self.ark),
        )
        return Endorsements(
            certificates=tuple(party.der for wanted, party in pieces if wanted),
            crls=(self.crl(at=at, options=options),) if options.with_crl else (),
            sources=(SOURCE,),
        )

    def crl(self, *, at: datetime, options: AmdCollateral = _GOOD_COLLATERAL) -> bytes:
        """The ARK's list, DER. Raises: ValueError where `at` has no timezone."""
        if at.tzinfo is None:
            raise ValueError("times are timezone-aware")
        revoked = [0x20001 + number for number in range(options.others)]
        revoked += [self.ask.serial, self.asvk.serial] if options.revoke_ask else []
        forged = x509.ecdsa(self._stranger) if options.crl_signed_by_stranger else None
        return x509.revocation_list(self.ark, revoked, options.crl.dates(at), signer=forged)

    def kds_answer(self, target: str, *, at: datetime, options: AmdCollateral = _GOOD_COLLATERAL) -> bytes | None:
        """What the key distribution service answers to a request target, or None where it says 404."""
        parts = urlsplit(target)
        match parts.path.strip("/").split("/"):
            case [("vcek" | "vlek") as kind, "v1", product, "cert_chain"] if product == self.chip.product:
                chain = (self.asvk if kind == "vlek" else self.ask, self.ark)
                return b"".join(_pem(party.der) for party in chain)
            case [("vcek" | "vlek"), "v1", product, "crl"] if product == self.chip.product:
                return self.crl(at=at, options=options)
            case ["vcek", "v1", product, identity] if product == self.chip.product:
                return self._vcek_answer(identity, dict(parse_qsl(parts.query)))
            case _:
                return None

    def _vcek_answer(self, identity: str, query: Mapping[str, str]) -> bytes | None:
        """For this chip at this level only: another level is another key, which one chip of ours does not have."""
        levels = self.chip.levels
        wanted = {"blSPL": levels.bl, "teeSPL": levels.tee, "snpSPL": levels.snp, "ucodeSPL": levels.ucode}
        if self.chip.product is Product.TURIN:
            wanted["fmcSPL"] = levels.fmc
        asked = {name: int(value) for name, value in query.items() if value.isdecimal()}
        fits = identity.lower() == self.chip.hardware_id.hex() and asked == wanted
        return self.vcek.der if fits else None


def _pem(raw: bytes) -> bytes:
    text = base64.encodebytes(raw).replace(b"\n", b"")
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return b"\n".join((b"-----BEGIN CERTIFICATE-----", *lines, b"-----END CERTIFICATE-----", b""))


@functools.cache
def well_known(product: Product = Product.GENOA) -> AmdVendor:
    """The well-known AMD with its default chip of a product, made once in a process."""
    return AmdVendor(chip=Chip(product=product))
