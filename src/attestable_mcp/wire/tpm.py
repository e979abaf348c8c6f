"""TPM 2.0 quotes: TPMS_ATTEST and TPMT_SIGNATURE, and the CBOR map in which a quote travels as evidence.

Source: TCG TPM 2.0 Library Part 2 (structures), §10.12 (attestation) and §11.3
(signatures). All integers are big-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from attestable_mcp.errors import EvidenceError, MalformedEvidence, UnsupportedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.wire import cbor, tpm_form

GENERATED = 0xFF544347
"""`\\xffTCG`: a structure that the TPM itself made. A restricted key signs nothing else that starts with it."""
ATTEST_QUOTE = 0x8018
HASHES = {0x0004: "sha1", 0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}
DIGEST_SIZES = {"sha1": 20, "sha256": 32, "sha384": 48, "sha512": 64}
SCHEMES = {0x0014: "rsassa", 0x0016: "rsapss", 0x0018: "ecdsa"}
RESETTABLE = (16, 23)
"""PCRs that anybody on the machine can reset: they prove nothing (PC Client Platform TPM Profile, §4.6)."""
_PCRS = 24
_BANKS = 8
_HEAD = struct.Struct(">IH")
_CLOCK_INFO = struct.Struct(">QIIB")
_SELECTION_HEAD = struct.Struct(">HB")
_START = struct.Struct(">IHH")
"""Magic, type, and the size of the signer's name."""
_MIDDLE = struct.Struct(">QIIBQI")
"""Clock information, firmware version, and the number of banks."""
_P256_SIGNATURE = struct.Struct(">HHH32sH32s")
"""Scheme, hash, and two numbers behind their sizes."""
_SIZED = 512
"""Bytes of a sized part, where nothing else is said."""
_KEYS = {"version", "quote", "signature", "ak", "pcrs"}
_OPTIONAL_KEYS = {"ak_certificates", "event_log"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """PCRs of one bank that a quote covers, ascending."""

    bank: str
    pcrs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A parsed TPMS_ATTEST of type quote. `raw` is the span that the signature covers."""

    raw: bytes
    qualified_signer: bytes
    extra_data: bytes
    clock: int
    reset_count: int
    restart_count: int
    safe: bool
    firmware_version: int
    selection: tuple[Selection, ...]
    pcr_digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """`scheme` is rsassa, rsapss or ecdsa; `value` is the RSA signature, or r || s of equal length for ECDSA."""

    scheme: str
    hash: str
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TpmEvidence:
    """What a TPM sends: quote, signature, attestation key, and the PCR values that the quote's digest covers.

    `quote` is the TPMS_ATTEST, `signature` the TPMT_SIGNATURE, `ak` the DER SubjectPublicKeyInfo, `ak_certificates` the
    key's certificate and those above it (DER; may be empty where a verifier pins the key, or has them). `pcrs` maps
    bank -> PCR -> value. `event_log` is the TCG log as the firmware keeps it, empty where none was sent.
    """

    quote: bytes
    signature: bytes
    ak: bytes
    pcrs: Mapping[str, Mapping[int, bytes]]
    ak_certificates: tuple[bytes, ...] = ()
    event_log: bytes = b""


class _Reader:
    """Big-endian fields of one structure, every one bounded by what is there."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.at = 0
        self.what = what

    def take(self, size: int, field: str) -> bytes:
        if size > len(self.data) - self.at:
            seen = len(self.data) - self.at
            raise MalformedEvidence(f"{self.what}: wanted {size} bytes, seen {seen}", field=field, offset=self.at)
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, size: int, field: str) -> int:
        return int.from_bytes(self.take(size, field), "big")

    def numbers(self, layout: struct.Struct, field: str) -> tuple[int, ...]:
        return layout.unpack(self.take(layout.size, field))

    def sized(self, field: str, most: int = _SIZED) -> bytes:
        begin = self.at + 2
        end = begin + int.from_bytes(self.data[self.at : begin], "big")
        if end <= len(self.data) and begin <= end <= begin + most:
            self.at = end
            return self.data[begin:end]
        size = self.number(2, field)
        if size > most:
            raise MalformedEvidence(
                f"{self.what}: wanted at most {most} bytes, seen {size}", field=field, offset=self.at
            )
        return self.take(size, field)

    def end(self) -> None:
        if self.at != len(self.data):
            raise MalformedEvidence(f"{self.what}: bytes after the structure", field=self.what, offset=self.at)


def read_quote(data: bytes) -> Quote:
    """Read a TPMS_ATTEST; only a quote that a TPM generated is one. Raises: MalformedEvidence, UnsupportedEvidence."""
    try:
        return _quote_at_once(data)
    except (struct.error, ValueError, EvidenceError):
        return _quote_by_fields(data)  # which says where it goes wrong


def _quote_at_once(data: bytes) -> Quote:
    """A slice that ends early only seems to fit: the end has to be where the sizes lead.

    Raises: struct.error, ValueError, EvidenceError: not a quote.
    """
    magic, kind, size = _START.unpack_from(data)
    extra = _START.size + size
    clocks = extra + 2 + int.from_bytes(data[extra : extra + 2], "big")
    clock, resets, restarts, safe, firmware, banks = _MIDDLE.unpack_from(data, clocks)
    at, selection = clocks + _MIDDLE.size, []
    if (magic, kind) != (GENERATED, ATTEST_QUOTE) or not banks <= 1:
        raise ValueError  # several banks may name one twice
    for _ in range(banks):
        number, octets = _SELECTION_HEAD.unpack_from(data, at)
        selection.append(_selected(_hash(number), data[at + 3 : at + 3 + octets]))
        at += 3 + octets
    end = at + 2 + int.from_bytes(data[at : at + 2], "big")
    if end != len(data) or max(size, clocks - extra - 2, end - at - 2) > _SIZED:
        raise ValueError
    return Quote(
        raw=data, qualified_signer=data[_START.size : extra], extra_data=data[extra + 2 : clocks], clock=clock,
        reset_count=resets, restart_count=restarts, safe=safe == 1, firmware_version=firmware,
        selection=tuple(selection), pcr_digest=data[at + 2 : end],
    )  # fmt: skip


def _quote_by_fields(data: bytes) -> Quote:
    reader = _Reader(data, "TPMS_ATTEST")
    magic, kind = reader.numbers(_HEAD, "magic")
    if magic != GENERATED:
        raise MalformedEvidence(f"TPMS_ATTEST: wanted magic ff544347, seen {magic:08x}", field="magic", offset=0)
    if kind != ATTEST_QUOTE:
        raise UnsupportedEvidence(f"TPMS_ATTEST: wanted type 8018 (quote), seen {kind:04x}")
    signer, extra_data = reader.sized("qualifiedSigner"), reader.sized("extraData")
    clock, resets, restarts, safe = reader.numbers(_CLOCK_INFO, "clockInfo")
    quote = Quote(
        raw=data,
        qualified_signer=signer,
        extra_data=extra_data,
        clock=clock,
        reset_count=resets,
        restart_count=restarts,
        safe=safe == 1,
        firmware_version=reader.number(8, "firmwareVersion"),
        selection=_selections(reader),
        pcr_digest=reader.sized("pcrDigest"),
    )
    reader.end()
    return quote


def _selections(reader: _Reader) -> tuple[Selection, ...]:
    count = reader.number(4, "pcrSelect")
    if count > _BANKS:
        raise MalformedEvidence(f"TPMS_ATTEST: wanted at most {_BANKS} banks, seen {count}", field="pcrSelect")
    found = tuple(_selection(reader) for _ in range(count))
    if len({selection.bank for selection in found}) != len(found):
        raise MalformedEvidence("TPMS_ATTEST: a bank selected twice", field="pcrSelect")
    return found


def _selection(reader: _Reader) -> Selection:
    number, size = reader.numbers(_SELECTION_HEAD, "pcrSelect.hash")
    return _selected(_hash(number), reader.take(size, "pcrSelect"))


@lru_cache(maxsize=32)
def _selected(bank: str, octets: bytes) -> Selection:
    bits = int.from_bytes(octets, "little")
    if bits >> _PCRS:
        raise MalformedEvidence("TPMS_ATTEST: a PCR over 23 selected", field="pcrSelect")
    return Selection(bank=bank, pcrs=tuple(number for number in range(_PCRS) if bits >> number & 1))


def _hash(number: int) -> str:
    if number not in HASHES:
        raise UnsupportedEvidence(f"TPM: wanted hash sha1, sha256, sha384 or sha512, seen algorithm {number:04x}")
    return HASHES[number]


def read_signature(data: bytes) -> Signature:
    """Read a TPMT_SIGNATURE (RSASSA, RSAPSS or ECDSA). Raises: MalformedEvidence, UnsupportedEvidence."""
    if len(data) == _P256_SIGNATURE.size:  # what most TPMs of today give
        number, hash_number, r_size, r, s_size, s = _P256_SIGNATURE.unpack(data)
        if SCHEMES.get(number) == "ecdsa" and hash_number in HASHES and r_size == s_size == len(r):
            return Signature(scheme="ecdsa", hash=HASHES[hash_number], value=r + s)
    reader = _Reader(data, "TPMT_SIGNATURE")
    scheme = SCHEMES.get(number := reader.number(2, "sigAlg"))
    if scheme is None:
        raise UnsupportedEvidence(f"TPMT_SIGNATURE: wanted RSASSA, RSAPSS or ECDSA, seen algorithm {number:04x}")
    hash_name = _hash(reader.number(2, "hash"))
    value = _ecdsa_value(reader) if scheme == "ecdsa" else reader.sized("signature", 1024)
    reader.end()
    return Signature(scheme=scheme, hash=hash_name, value=value)


def _ecdsa_value(reader: _Reader) -> bytes:
    r, s = reader.sized("signatureR", 66), reader.sized("signatureS", 66)
    width = max(len(r), len(s))
    return r.rjust(width, b"\0") + s.rjust(width, b"\0")


def pcr_concatenation(quote: Quote, pcrs: Mapping[str, Mapping[int, bytes]]) -> bytes:
    """The bytes whose digest a quote signs: the selected PCRs, bank by bank as selected, ascending.

    Raises: MalformedEvidence where a selected value is missing or of the wrong size.
    """
    parts = []
    for selection in quote.selection:
        values, size = pcrs.get(selection.bank, {}), DIGEST_SIZES[selection.bank]
        for number in selection.pcrs:
            value = values.get(number)
            if value is None or len(value) != size:
                raise MalformedEvidence(
                    f"TPM evidence: the quote covers {selection.bank} PCR {number}, but no such value was sent",
                    field="pcrs",
                )
            parts.append(value)
    return b"".join(parts)


def write_evidence(evidence: TpmEvidence) -> bytes:
    """Canonical CBOR: a map with version, quote, signature, ak, pcrs and, if any, ak_certificates and event_log."""
    body: dict[cbor.Key, cbor.Value] = {
        "version": 1,
        "quote": evidence.quote,
        "signature": evidence.signature,
        "ak": evidence.ak,
        "pcrs": {bank: dict(values.items()) for bank, values in evidence.pcrs.items()},
    }
    if evidence.ak_certificates:
        body["ak_certificates"] = list(evidence.ak_certificates)
    if evidence.event_log:
        body["event_log"] = evidence.event_log
    return cbor.encode(body)


def read_evidence(data: bytes) -> TpmEvidence:
    """Read what `write_evidence` wrote. Raises: MalformedEvidence, UnsupportedEvidence (another version)."""
    if len(data) > LIMITS.evidence:
        raise MalformedEvidence(f"TPM evidence: wanted at most {LIMITS.evidence} bytes, seen {len(data)}", field="tpm")
    try:
        found = tpm_form.parts(data)
        if found is not None:
            return _evidence(found, _remembered_pcrs(found["pcrs"]))
    except MalformedEvidence:
        pass  # said below, with its place in all of it
    body = cbor.decode(data, field="tpm")
    if not isinstance(body, dict) or body.keys() - _OPTIONAL_KEYS != _KEYS:
        wanted = "version, quote, signature, ak, pcrs, ?ak_certificates, ?event_log"
        raise MalformedEvidence(f"TPM evidence: wanted a map of {wanted}", field="tpm")
    if body["version"] != 1:
        raise UnsupportedEvidence(f"TPM evidence: wanted version 1, seen {body['version']!r}")
    return _evidence(body, _read_pcrs(body["pcrs"]))


def _evidence(body: Mapping[Any, Any], pcrs: Mapping[str, Mapping[int, bytes]]) -> TpmEvidence:
    return TpmEvidence(
        quote=_octets(body["quote"], "quote", 2048),
        signature=_octets(body["signature"], "signature", 2048),
        ak=_octets(body["ak"], "ak", 2048),
        pcrs=pcrs,
        ak_certificates=_certificates(body.get("ak_certificates", [])),
        event_log=_octets(body.get("event_log", b""), "event_log", LIMITS.evidence),
    )


@lru_cache(maxsize=64)
def _remembered_pcrs(span: bytes) -> Mapping[str, Mapping[int, bytes]]:
    """`_read_pcrs`: a machine sends the same values until something extends one."""
    return _read_pcrs(cbor.decode(span, field="tpm"))


def _certificates(value: cbor.Value) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > LIMITS.chain:
        raise MalformedEvidence(
            f"TPM evidence: wanted a list of at most {LIMITS.chain} certificates", field="ak_certificates"
        )
    return tuple(_octets(item, "ak_certificates", LIMITS.certificate) for item in value)


def _octets(value: cbor.Value, field: str, most: int) -> bytes:
    if not isinstance(value, bytes) or len(value) > most:
        raise MalformedEvidence(f"TPM evidence: wanted at most {most} bytes", field=field)
    return value


def _read_pcrs(value: cbor.Value) -> Mapping[str, Mapping[int, bytes]]:
    if not isinstance(value, dict):
        raise MalformedEvidence("TPM evidence: wanted a map of banks", field="pcrs")
    return MappingProxyType({_bank(name): _read_bank(_bank(name), content) for name, content in value.items()})


def _bank(name: object) -> str:
    if not isinstance(name, str) or name not in DIGEST_SIZES:
        raise MalformedEvidence(f"TPM evidence: no bank is called {name!r}", field="pcrs")
    return name


def _read_bank(name: str, content: cbor.Value) -> Mapping[int, bytes]:
    if not isinstance(content, dict):
        raise MalformedEvidence("TPM evidence: wanted a map of PCRs", field="pcrs")
    found: dict[int, bytes] = {}
    size = DIGEST_SIZES[name]
    for number, value in content.items():
        if not isinstance(number, int) or not 0 <= number < _PCRS:
            raise MalformedEvidence("TPM evidence: wanted PCR numbers 0 to 23", field="pcrs")
        if not isinstance(value, bytes) or len(value) != size:
            raise MalformedEvidence("TPM evidence: a PCR value of the wrong size", field=f"pcrs.{name}.{number}")
        found[number] = value
    return MappingProxyType(found)
