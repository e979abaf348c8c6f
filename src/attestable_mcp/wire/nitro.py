"""AWS Nitro Enclaves attestation documents: a COSE_Sign1 over a CBOR map.

Source: AWS Nitro Enclaves documentation, "Attestation document specification" (limits of each field, and the note on
debug mode). Three things differ from it on purpose, because real documents do: `pcrs` may hold 17 entries, an optional
field may be null or absent, and maps may be of indefinite length (seen since 2025).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType

from attestable_mcp.errors import MalformedEvidence, UnsupportedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.wire.cose import Key, Sign1, Value, read_lenient, read_sign1

ES384 = -35
DEBUG_PCRS = (0, 1, 2)
"""All zero in an enclave that was started with a debug console."""
_REQUIRED = {"module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"}
_OPTIONAL = {"public_key": 1024, "user_data": 1024, "nonce": 1024}
_PCR_MAX = 31
_PCR_SIZES = {32, 48, 64}


@dataclass(frozen=True, slots=True, kw_only=True)
class NitroDocument:
    """One parsed document, nothing verified. `cabundle` is root first, as served; certificates are DER."""

    message: Sign1
    module_id: str
    digest: str
    timestamp_ms: int
    pcrs: Mapping[int, bytes]
    certificate: bytes
    cabundle: tuple[bytes, ...]
    public_key: bytes
    user_data: bytes
    nonce: bytes
    indefinite: bool

    @property
    def debug(self) -> bool:
        """PCR0 to PCR2 are zero: started in debug mode, so nothing about the image is measured."""
        return not any(any(self.pcrs.get(number, b"")) for number in DEBUG_PCRS)

    @property
    def made_at(self) -> datetime:
        """The document's own timestamp, UTC."""
        return datetime.fromtimestamp(self.timestamp_ms / 1000, UTC)


def read_document(data: bytes) -> NitroDocument:
    """Read a document. Raises: MalformedEvidence, UnsupportedEvidence (another algorithm than ES384)."""
    message = read_sign1(data)
    if message.algorithm != ES384:
        raise UnsupportedEvidence(f"Nitro document: wanted COSE algorithm -35 (ES384), seen {message.algorithm}")
    if len(message.signature) != 96:
        raise MalformedEvidence(
            f"Nitro document: wanted 96 signature bytes, seen {len(message.signature)}", field="signature"
        )
    payload = read_lenient(message.payload, "payload")
    if not isinstance(payload, dict):
        raise MalformedEvidence("Nitro document: wanted a map", field="payload")
    _refuse_other_keys(payload)
    digest = _text(payload, "digest", 16)
    if digest != "SHA384":
        raise UnsupportedEvidence(f"Nitro document: wanted digest SHA384, seen {digest}")
    return NitroDocument(
        message=message,
        module_id=_text(payload, "module_id", 256),
        digest=digest,
        timestamp_ms=_timestamp(payload),
        pcrs=_pcrs(payload),
        certificate=_octets(payload["certificate"], "certificate", 1, LIMITS.certificate),
        cabundle=_cabundle(payload),
        public_key=_optional(payload, "public_key"),
        user_data=_optional(payload, "user_data"),
        nonce=_optional(payload, "nonce"),
        indefinite=message.payload[:1] == b"\xbf",
    )


def _refuse_other_keys(payload: Mapping[Key, Value]) -> None:
    names = set(payload)
    if missing := _REQUIRED - names:
        raise MalformedEvidence(f"Nitro document: {sorted(missing)} missing", field="payload")
    if other := names - _REQUIRED - set(_OPTIONAL):
        raise MalformedEvidence(f"Nitro document: unknown keys {sorted(map(str, other))}", field="payload")


def _text(payload: Mapping[Key, Value], name: str, most: int) -> str:
    value = payload[name]
    if not isinstance(value, str) or not 1 <= len(value) <= most:
        raise MalformedEvidence(f"Nitro document: wanted a text of 1 to {most} characters", field=name)
    return value


def _timestamp(payload: Mapping[Key, Value]) -> int:
    value = payload["timestamp"]
    # 2^43 ms is the year 2248: beyond it the value is no time, and far beyond it no datetime can hold it.
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 43:
        raise MalformedEvidence("Nitro document: wanted milliseconds since 1970", field="timestamp")
    return value


def _octets(value: Value, name: str, least: int, most: int) -> bytes:
    if not isinstance(value, bytes) or not least <= len(value) <= most:
        raise MalformedEvidence(f"Nitro document: wanted {least} to {most} bytes", field=name)
    return value


def _optional(payload: Mapping[Key, Value], name: str) -> bytes:
    """Empty where absent, null or empty: the three mean the same."""
    value = payload.get(name)
    return b"" if value is None else _octets(value, name, 0, _OPTIONAL[name])


def _pcrs(payload: Mapping[Key, Value]) -> Mapping[int, bytes]:
    value = payload["pcrs"]
    if not isinstance(value, dict) or not 1 <= len(value) <= _PCR_MAX + 1:
        raise MalformedEvidence("Nitro document: wanted a map of 1 to 32 PCRs", field="pcrs")
    found: dict[int, bytes] = {}
    for number, content in value.items():
        if not isinstance(number, int) or not 0 <= number <= _PCR_MAX:
            raise MalformedEvidence(f"Nitro document: wanted a PCR number 0 to {_PCR_MAX}", field="pcrs")
        if not isinstance(content, bytes) or len(content) not in _PCR_SIZES:
            raise MalformedEvidence("Nitro document: wanted 32, 48 or 64 bytes", field=f"pcrs.{number}")
        found[number] = content
    if missing := [number for number in DEBUG_PCRS if number not in found]:
        raise MalformedEvidence(f"Nitro document: PCRs {missing} missing", field="pcrs")
    return MappingProxyType(found)


def _cabundle(payload: Mapping[Key, Value]) -> tuple[bytes, ...]:
    value = payload["cabundle"]
    if not isinstance(value, list) or not 1 <= len(value) <= LIMITS.chain:
        raise MalformedEvidence(f"Nitro document: wanted 1 to {LIMITS.chain} certificates", field="cabundle")
    return tuple(_octets(item, "cabundle", 1, LIMITS.certificate) for item in value)
