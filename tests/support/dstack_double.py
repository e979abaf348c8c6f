"""Writers of dstack's versioned attestation in both its forms, as dstack's crates write it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attestable_mcp.wire.eventlog import DstackEvent

PLATFORMS = {"tdx": 0, "gcp-tdx": 1, "nitro-enclave": 2, "sev-snp": 3, "aws-nitro-tpm": 4}
BODIES = {"nitro-enclave": "nsm_quote", "sev-snp": "report", "aws-nitro-tpm": "attestation_doc"}


def _compact(number: int) -> bytes:
    if number < 1 << 6:
        return (number << 2).to_bytes(1, "little")
    if number < 1 << 14:
        return (number << 2 | 1).to_bytes(2, "little")
    return (number << 2 | 2).to_bytes(4, "little")


def _octets(data: bytes) -> bytes:
    return _compact(len(data)) + data


def in_scale(platform: str, body: bytes, events: Sequence[DstackEvent] = (), chain: Sequence[bytes] = ()) -> bytes:
    """Version 0: events of version 1 only."""
    found = bytes((0, PLATFORMS[platform])) + _octets(body)
    if platform in ("tdx", "gcp-tdx"):
        found += _compact(len(events)) + b"".join(map(_scale_event, events))
    if platform == "gcp-tdx":
        pcr = (0).to_bytes(4, "little") + _octets(b"sha256") + _octets(bytes(32))
        logged = (0).to_bytes(4, "little") + _octets(bytes(32))
        found += _octets(b"message") + _octets(b"signature") + _compact(1) + pcr + _octets(b"ak") + b"\1"
        found += _compact(1) + logged
    if platform == "sev-snp":
        found += _compact(len(chain)) + b"".join(map(_octets, chain)) + _octets(b'{"version":3}')
    runtime = _compact(1) + _octets(b"event") + _octets(b"payload")
    return found + runtime + bytes(64) + _octets(b"{}")


def _scale_event(event: DstackEvent) -> bytes:
    numbers = (3).to_bytes(4, "little") + event.type.to_bytes(4, "little")
    return numbers + _octets(b"") + _octets(event.name.encode()) + _octets(event.payload)


def in_msgpack(platform: str, body: bytes, events: Sequence[DstackEvent] = (), chain: Sequence[bytes] = ()) -> bytes:
    """Version 1. serde writes a plain `Vec<u8>` as a list of numbers, and annotated ones as bytes."""
    data: dict[str, Any] = {BODIES.get(platform, "quote"): list(body)}
    if platform in ("tdx", "gcp-tdx"):
        data["event_log"] = [_map_event(event) for event in events]
    if platform == "sev-snp":
        data |= {"cert_chain": [list(item) for item in chain], "mr_config": "{}"}
    stack = {"report_data": list(bytes(64)), "runtime_events": [], "config": "{}"}
    whole = {"version": 1, "platform": {"kind": platform, "data": data}}
    return pack(whole | {"stack": {"kind": "dstack", "data": stack}})


def _map_event(event: DstackEvent) -> dict[str, Any]:
    found: dict[str, Any] = {"imr": 3, "event_type": event.type, "digest": b"", "event": event.name}
    found["event_payload"] = event.payload
    return found | ({"version": 2, "preimage": "00"} if event.version == 2 else {})


def pack(value: Any) -> bytes:
    """MessagePack of plain values."""
    match value:
        case bool():
            return b"\xc3" if value else b"\xc2"
        case None:
            return b"\xc0"
        case int() if 0 <= value < 128:
            return bytes((value,))
        case int() if 0 <= value < 1 << 32:
            return b"\xce" + value.to_bytes(4, "big")
        case str():
            raw = value.encode()
            return b"\xda" + len(raw).to_bytes(2, "big") + raw
        case bytes():
            return b"\xc5" + len(value).to_bytes(2, "big") + value
        case list():
            return b"\xdc" + len(value).to_bytes(2, "big") + b"".join(map(pack, value))
        case dict():
            return bytes((0x80 | len(value),)) + b"".join(pack(key) + pack(item) for key, item in value.items())
    raise TypeError(value)
