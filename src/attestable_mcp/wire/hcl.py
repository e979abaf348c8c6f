"""Azure's HCL report: what the paravisor keeps in the vTPM of a confidential VM (NV index 0x01400001).

It holds a hardware report whose report data is the hash of the runtime data beside it, and the runtime data names the
vTPM's attestation key. Layout, little-endian: header of 32 bytes (`HCLA`, version, report size, request type), hardware
report at 32 (SNP report, or TDX TDREPORT), runtime header of five u32 at 1216 (size, version, report type, hash type,
length), JSON at 1236. Source: Azure documentation on guest attestation of confidential VMs; checked on real reports.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from attestable_mcp.errors import MalformedEvidence, UnsupportedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.wire import base64url, cbor, der, tpm
from attestable_mcp.wire.snp import REPORT_SIZE

MAGIC = b"HCLA"
HARDWARE_OFFSET = 32
RUNTIME_OFFSET = 1216
JSON_OFFSET = 1236
TDREPORT_SIZE = 1024
_KINDS: Mapping[int, Literal["snp", "tdx"]] = {2: "snp", 4: "tdx"}
_HASHES = {1: "sha256", 2: "sha384", 3: "sha512"}
_TDREPORT_DATA = slice(128, 192)
"""REPORTDATA inside REPORTMACSTRUCT of a TDREPORT (Intel TDX module ABI)."""
_SNP_REPORT_DATA = slice(0x50, 0x90)
ATTESTATION_KEY = "HCLAkPub"
_RSA_ENCRYPTION = "1.2.840.113549.1.1.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class HclReport:
    """One parsed HCL report. `runtime` is the exact span whose hash the hardware report carries; `ak` is a DER SPKI."""

    kind: Literal["snp", "tdx"]
    hardware: bytes
    report_data: bytes
    hash: str
    runtime: bytes
    ak: bytes
    user_data: bytes
    configuration: Mapping[str, Any]

    @property
    def expected_report_data(self) -> bytes:
        """What the hardware report must carry: the hash of the runtime data, zero padded to 64 bytes."""
        return hashlib.new(self.hash, self.runtime).digest().ljust(64, b"\0")


def read_hcl(data: bytes) -> HclReport:
    """Read an HCL report; zeros may follow the runtime data. Raises: MalformedEvidence, UnsupportedEvidence."""
    if not JSON_OFFSET < len(data) <= LIMITS.evidence:
        raise MalformedEvidence(
            f"HCL report: wanted {JSON_OFFSET + 1} to {LIMITS.evidence} bytes, seen {len(data)}", field="hcl"
        )
    if data[:4] != MAGIC:
        raise MalformedEvidence(f"HCL report: wanted HCLA, seen {data[:4]!r}", field="signature", offset=0)
    version, kind, hash_type, length = (_u32(data, RUNTIME_OFFSET + 4 * place) for place in range(1, 5))
    if kind not in _KINDS or hash_type not in _HASHES:
        raise UnsupportedEvidence(f"HCL report: report type {kind}, hash type {hash_type}, runtime version {version}")
    runtime = data[JSON_OFFSET : JSON_OFFSET + length]
    if len(runtime) != length or any(data[JSON_OFFSET + length :]):
        raise MalformedEvidence(
            "HCL report: wanted the runtime data of the stated length and zeros after it",
            field="runtime",
            offset=JSON_OFFSET,
        )
    return _build(data, _KINDS[kind], _HASHES[hash_type], runtime)


def _build(data: bytes, kind: Literal["snp", "tdx"], hash_name: str, runtime: bytes) -> HclReport:
    size, span = (REPORT_SIZE, _SNP_REPORT_DATA) if kind == "snp" else (TDREPORT_SIZE, _TDREPORT_DATA)
    hardware = data[HARDWARE_OFFSET : HARDWARE_OFFSET + size]
    document = _document(runtime)
    configuration = document.get("vm-configuration", {})
    return HclReport(
        kind=kind,
        hardware=hardware,
        report_data=hardware[span],
        hash=hash_name,
        runtime=runtime,
        ak=_attestation_key(document),
        user_data=_user_data(document),
        configuration=configuration if isinstance(configuration, dict) else {},
    )


def _document(runtime: bytes) -> dict[str, Any]:
    try:
        found = json.loads(runtime, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise MalformedEvidence("HCL runtime data: not JSON", field="runtime", offset=JSON_OFFSET) from error
    if not isinstance(found, dict):
        raise MalformedEvidence("HCL runtime data: wanted an object", field="runtime", offset=JSON_OFFSET)
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def _attestation_key(document: Mapping[str, Any]) -> bytes:
    keys = document.get("keys")
    named = (
        [key for key in keys if isinstance(key, dict) and key.get("kid") == ATTESTATION_KEY]
        if isinstance(keys, list)
        else []
    )
    if len(named) != 1:
        raise MalformedEvidence(f"HCL runtime data: wanted one key {ATTESTATION_KEY}, seen {len(named)}", field="keys")
    if named[0].get("kty") != "RSA":
        raise UnsupportedEvidence(f"HCL runtime data: wanted an RSA key, seen {named[0].get('kty')!r}")
    return rsa_spki(_number(named[0], "n"), _number(named[0], "e"))


def rsa_spki(modulus: int, exponent: int) -> bytes:
    """DER SubjectPublicKeyInfo of an RSA key (RFC 8017 A.1.1)."""
    key = der.encode_sequence(der.encode_integer(modulus), der.encode_integer(exponent))
    algorithm = der.encode_sequence(der.encode_oid(_RSA_ENCRYPTION), der.encode(der.NULL, b""))
    return der.encode_sequence(algorithm, der.encode(der.BIT_STRING, b"\0" + key))


def _number(key: Mapping[str, Any], name: str) -> int:
    text = key.get(name)
    if not isinstance(text, str) or not 1 <= len(text) <= 2048:
        raise MalformedEvidence("HCL runtime data: wanted base64url text", field=f"keys.{name}")
    try:
        raw = base64url.decode(text)
    except ValueError as error:
        raise MalformedEvidence("HCL runtime data: wanted base64url text", field=f"keys.{name}") from error
    return int.from_bytes(raw, "big")


def _user_data(document: Mapping[str, Any]) -> bytes:
    text = document.get("user-data", "")
    if not isinstance(text, str) or len(text) > 128:
        raise MalformedEvidence("HCL runtime data: wanted at most 128 hex digits", field="user-data")
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise MalformedEvidence("HCL runtime data: wanted hex digits", field="user-data") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureEvidence:
    """What an Azure confidential VM sends: HCL report, vTPM quote by the AK in it, and on TDX the TD quote."""

    hcl: bytes
    tpm: tpm.TpmEvidence
    td_quote: bytes = b""


def write_evidence(evidence: AzureEvidence) -> bytes:
    """Canonical CBOR: a map with version, hcl, tpm (the TPM evidence, encoded) and on TDX td_quote."""
    body: dict[cbor.Key, cbor.Value] = {"version": 1, "hcl": evidence.hcl, "tpm": tpm.write_evidence(evidence.tpm)}
    if evidence.td_quote:
        body["td_quote"] = evidence.td_quote
    return cbor.encode(body)


def read_evidence(data: bytes) -> AzureEvidence:
    """Read what `write_evidence` wrote. Raises: MalformedEvidence, UnsupportedEvidence (another version)."""
    body = cbor.decode(data, field="azure")
    if not isinstance(body, dict) or body.keys() - {"td_quote"} != {"version", "hcl", "tpm"}:
        raise MalformedEvidence("Azure evidence: wanted a map of version, hcl, tpm, ?td_quote", field="azure")
    if body["version"] != 1:
        raise UnsupportedEvidence(f"Azure evidence: wanted version 1, seen {body['version']!r}")
    parts = (body["hcl"], body["tpm"], body.get("td_quote", b""))
    hcl, quote, td_quote = parts
    if not (isinstance(hcl, bytes) and isinstance(quote, bytes) and isinstance(td_quote, bytes)):
        raise MalformedEvidence("Azure evidence: wanted byte strings", field="azure")
    return AzureEvidence(hcl=hcl, tpm=tpm.read_evidence(quote), td_quote=td_quote)


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")
