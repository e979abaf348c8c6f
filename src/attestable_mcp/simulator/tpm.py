"""A miniature maker of TPMs: attestation keys with certificates, quotes and event logs, under a root of nobody's trust.

>>> evidence = TpmVendor().evidence(bytes(64))

Structures: TCG TPM 2.0 Library Part 2 §10.12 (TPMS_ATTEST) and §11.3 (TPMT_SIGNATURE); event logs: TCG PC Client
Platform Firmware Profile §10. Every default of the options is the good case.
"""

from __future__ import annotations

import functools
import hashlib
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from attestable_mcp.rats import Endorsements
from attestable_mcp.simulator import cbor, rsa
from attestable_mcp.simulator import certificates as x509
from attestable_mcp.simulator.eventlog import ALGORITHMS, NO_ACTION, Event, write_log
from attestable_mcp.simulator.keys import DETERMINISTIC, WELL_KNOWN_SEED, private_key, serial
from attestable_mcp.simulator.options import CURRENT, LASTING, Span, Validity

SOURCE = "simulated TPM maker (trusted by nobody)"
_GENERATED, _QUOTE, _RSASSA, _ECDSA = 0xFF544347, 0x8018, 0x0014, 0x0018


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmCertificates:
    """Faults of the key's certificate and of its issuer."""

    root: Validity = LASTING
    issuer: Validity = LASTING
    ak: Validity = LASTING
    issuer_is_ca: bool = True
    ak_signed_by_stranger: bool = False
    ak_of_another_key: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmCollateral:
    """What is handed out beside a quote."""

    with_ak: bool = True
    with_issuer: bool = True
    with_crl: bool = True
    crl: Span = CURRENT
    revoke_ak: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmQuote:
    """One quote. PCRs are what the events leave, then what `pcrs` overrides: no log explains those."""

    bank: str = "sha256"
    selected: tuple[int, ...] = tuple(range(16))
    pcrs: Mapping[int, bytes] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    with_log: bool = True
    with_certificates: bool = False
    """Send the key's certificate and its issuer's inside the evidence."""
    hash: str = "sha256"
    """Of the signature, and so of the digest over the PCRs."""
    magic: int = _GENERATED
    kind: int = _QUOTE
    extra_data: bytes | None = None
    clock: int = 51
    reset_count: int = 5
    restart_count: int = 1
    safe: bool = True
    firmware_version: int = 0x2026000000000051
    pcr_digest: bytes | None = None
    sent_pcrs: Mapping[int, bytes] = field(default_factory=dict)
    """What is sent in place of the values that were signed."""
    signed_by_stranger: bool = False
    altered: bool = False
    """Flip a bit of the clock after signing."""
    ak_of_stranger: bool = False
    """Name another attestation key than the one that signed."""
    trailing: bytes = b""


_GOOD_QUOTE, _GOOD_COLLATERAL = TpmQuote(), TpmCollateral()


class TpmVendor:
    """A maker of TPMs with one TPM. Safe to share between threads: nothing changes after construction.

    `rsa_key` gives the TPM an RSA-2048 attestation key, as Azure's has, in place of P-256.
    """

    def __init__(
        self,
        *,
        seed: bytes = WELL_KNOWN_SEED,
        certificates: TpmCertificates | None = None,
        rsa_key: bool = False,
    ) -> None:
        self._seed = seed
        options = certificates or TpmCertificates()
        self._stranger = private_key(seed, "tpm stranger")
        self._rsa = rsa.key(seed, "tpm ak") if rsa_key else None
        self._key = private_key(seed, "tpm ak")
        self.root = self._authority("SIMULATED TPM Root CA", None, options.root, 1)
        self.issuer = self._authority("SIMULATED TPM Issuing CA", self.root, options.issuer, 0, ca=options.issuer_is_ca)
        self.certificate = self._certify(options)

    @classmethod
    def unknown(cls) -> TpmVendor:
        """A vendor of a random seed: an unknown root."""
        return cls(seed=os.urandom(32))

    @property
    def root_spki_sha256(self) -> str:
        """What a TrustAnchor compares, lower-case hex."""
        return self.root.signer.spki_sha256

    @property
    def ak(self) -> bytes:
        """DER SubjectPublicKeyInfo of the attestation key."""
        return self._rsa.spki if self._rsa else x509.ecdsa(self._key).spki

    @property
    def modulus(self) -> int:
        """Of an RSA attestation key. Raises: ValueError where it is none."""
        if self._rsa is None:
            raise ValueError("the attestation key is no RSA key")
        return self._rsa.modulus

    def _authority(
        self, name: str, issuer: x509.Party | None, validity: Validity, below: int, *, ca: bool = True
    ) -> x509.Party:
        return x509.issue(
            name, x509.ecdsa(private_key(self._seed, name)), issuer, serial=serial(self._seed, name),
            valid=(validity.not_before, validity.not_after), extensions=x509.constraints(ca=ca, path_length=below),
        )  # fmt: skip

    def _certify(self, options: TpmCertificates) -> x509.Party:
        stranger = x509.ecdsa(self._stranger)
        own = x509.Signer(spki=self.ak, algorithm=b"", sign=stranger.sign)
        return x509.issue(
            "SIMULATED attestation key", stranger if options.ak_of_another_key else own, self.issuer,
            serial=serial(self._seed, "ak"), valid=(options.ak.not_before, options.ak.not_after),
            extensions=x509.constraints(ca=False), signer=stranger if options.ak_signed_by_stranger else None,
        )  # fmt: skip

    def collateral(self, *, at: datetime, options: TpmCollateral = _GOOD_COLLATERAL) -> Endorsements:
        """The key's certificate, its issuer's, and the issuer's revocation list. The root is an anchor's business.

        Raises:
            ValueError: `at` has no timezone.
        """
        if at.tzinfo is None:
            raise ValueError("times are timezone-aware")
        pieces = ((options.with_ak, self.certificate), (options.with_issuer, self.issuer), (True, self.root))
        revoked = [self.certificate.serial] if options.revoke_ak else []
        crl = x509.revocation_list(self.issuer, revoked, options.crl.dates(at))
        return Endorsements(
            certificates=tuple(party.der for wanted, party in pieces if wanted),
            crls=(crl,) if options.with_crl else (),
            sources=(SOURCE,),
        )

    def evidence(self, report_data: bytes, *, options: TpmQuote = _GOOD_QUOTE) -> bytes:
        """The CBOR map in which a quote travels; its qualifying data is SHA-256 of the 64 bytes of report data."""
        qualifying = hashlib.sha256(report_data).digest() if options.extra_data is None else options.extra_data
        values = self.pcrs(options)
        quote = self.quote(qualifying, options=options)
        signature = self.signature(quote, options)
        if options.altered:
            quote = quote.replace(struct.pack(">Q", options.clock), struct.pack(">Q", options.clock ^ 1), 1)
        stranger = x509.ecdsa(self._stranger).spki
        sent = {number: (values | dict(options.sent_pcrs))[number] for number in options.selected}
        body: dict[str, cbor.Value] = {
            "ak": stranger if options.ak_of_stranger else self.ak,
            "pcrs": {options.bank: sent},
            "quote": quote,
            "version": 1,
            "signature": signature,
        }
        if options.with_certificates:
            body["ak_certificates"] = [self.certificate.der, self.issuer.der, self.root.der]
        if options.with_log and options.events:
            body["event_log"] = self.event_log(options)
        return _canonical(body) + options.trailing

    def pcrs(self, options: TpmQuote = _GOOD_QUOTE) -> dict[int, bytes]:
        """All 24 values: zeros (17 to 22: ones), extended by the events, then overridden."""
        size = hashlib.new(options.bank).digest_size
        found = {number: (b"\xff" if 17 <= number <= 22 else b"\0") * size for number in range(24)}
        for event in options.events:
            if event.kind != NO_ACTION:
                digest = event.digest(options.bank)
                found[event.pcr] = hashlib.new(options.bank, found[event.pcr] + digest).digest()
        return found | dict(options.pcrs)

    def quote(self, qualifying: bytes, *, options: TpmQuote = _GOOD_QUOTE) -> bytes:
        """A TPMS_ATTEST."""
        values = self.pcrs(options)
        joined = b"".join(values[number] for number in sorted(options.selected))
        digest = hashlib.new(options.hash, joined).digest() if options.pcr_digest is None else options.pcr_digest
        signer = b"\x00\x0b" + hashlib.sha256(self.ak).digest()
        bits = sum(1 << number for number in options.selected)
        return b"".join((
            struct.pack(">IH", options.magic, options.kind), _sized(signer), _sized(qualifying),
            struct.pack(">QIIB", options.clock, options.reset_count, options.restart_count, int(options.safe)),
            struct.pack(">QIHB", options.firmware_version, 1, ALGORITHMS[options.bank], 3), bits.to_bytes(3, "little"),
            _sized(digest),
        ))  # fmt: skip

    def signature(self, message: bytes, options: TpmQuote = _GOOD_QUOTE) -> bytes:
        """A TPMT_SIGNATURE: RSASSA with SHA-256, or ECDSA with the hash of the options."""
        if self._rsa and not options.signed_by_stranger:
            return struct.pack(">HH", _RSASSA, ALGORITHMS["sha256"]) + _sized(rsa.sign_pkcs1(self._rsa, message))
        key = self._stranger if options.signed_by_stranger else self._key
        algorithm = {"sha256": hashes.SHA256(), "sha384": hashes.SHA384(), "sha512": hashes.SHA512()}[options.hash]
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(algorithm, deterministic_signing=DETERMINISTIC)))
        numbers = _sized(r.to_bytes(32, "big")) + _sized(s.to_bytes(32, "big"))
        return struct.pack(">HH", _ECDSA, ALGORITHMS[options.hash]) + numbers

    def event_log(self, options: TpmQuote) -> bytes:
        """A crypto-agile log with the one bank of the quote."""
        return write_log(options.events, options.bank)


def _sized(data: bytes) -> bytes:
    """A TPM2B."""
    return struct.pack(">H", len(data)) + data


def _canonical(body: Mapping[str, cbor.Value]) -> bytes:
    """Keys in the order of their encoded bytes (RFC 8949 §4.2.1)."""
    return cbor.encode(dict(sorted(body.items(), key=lambda item: cbor.encode(item[0]))))


@functools.cache
def well_known() -> TpmVendor:
    """The well-known maker with its TPM, made once in a process."""
    return TpmVendor()
