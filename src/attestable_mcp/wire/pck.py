"""The SGX extension of a PCK certificate: what Intel says of a platform.

Source: Intel SGX PCK Certificate and CRL Profile Specification, section 1.3.5.
"""

from __future__ import annotations

from dataclasses import dataclass

from attestable_mcp.errors import MalformedEvidence

SGX_EXTENSION_OID = "1.2.840.113741.1.13.1"
_SGX_ARC = bytes.fromhex("2a864886f84d010d01")
_SEQUENCE, _OID, _OCTETS, _INTEGER, _ENUMERATED, _BOOLEAN = 0x30, 0x06, 0x04, 0x02, 0x0A, 0x01


@dataclass(frozen=True, slots=True, kw_only=True)
class PckExtension:
    """What Intel says of a platform in its PCK certificate.

    `components` are the 16 SGX TCB component SVNs, `cpusvn` the raw 16 bytes, `fmspc` 6 bytes, `pce_id` 2, `ppid` 16.
    `platform_instance_id` and the three configuration flags stand in Platform CA certificates only.
    """

    ppid: bytes
    components: bytes
    pcesvn: int
    cpusvn: bytes
    pce_id: bytes
    fmspc: bytes
    sgx_type: int
    platform_instance_id: bytes | None = None
    dynamic_platform: bool | None = None
    cached_keys: bool | None = None
    smt_enabled: bool | None = None


def read_pck_extension(value: bytes) -> PckExtension:
    """Read the value of extension 1.2.840.113741.1.13.1.

    Raises:
        MalformedEvidence: not the SEQUENCE of (OID, value) pairs of the profile, a pair twice, a required one missing.
    """
    top = _pairs(_single(value, _SEQUENCE, "sgx_extension"), "sgx_extension")
    tcb = _pairs(_need(top, b"\x02", _SEQUENCE, "tcb"), "tcb", prefix=b"\x02")
    configuration = (
        _pairs(_need(top, b"\x07", _SEQUENCE, "configuration"), "configuration", b"\x07") if b"\x07" in top else {}
    )
    components = bytes(_small(_need(tcb, bytes([n]), _INTEGER, f"tcb.{n}"), 255, f"tcb.{n}") for n in range(1, 17))
    return PckExtension(
        ppid=_octets(top, b"\x01", 16, "ppid"),
        components=components,
        pcesvn=_small(_need(tcb, b"\x11", _INTEGER, "pcesvn"), 0xFFFF, "pcesvn"),
        cpusvn=_octets(tcb, b"\x12", 16, "cpusvn"),
        pce_id=_octets(top, b"\x03", 2, "pceid"),
        fmspc=_octets(top, b"\x04", 6, "fmspc"),
        sgx_type=_small(_need(top, b"\x05", _ENUMERATED, "sgx_type"), 255, "sgx_type"),
        platform_instance_id=_octets(top, b"\x06", 16, "platform_instance_id") if b"\x06" in top else None,
        dynamic_platform=_flag(configuration, b"\x01"),
        cached_keys=_flag(configuration, b"\x02"),
        smt_enabled=_flag(configuration, b"\x03"),
    )


def _element(data: bytes, position: int, field: str) -> tuple[int, bytes, int]:
    """One DER element: tag, contents, end. Short and minimal long lengths only; nothing here needs 64 KiB."""
    if position + 2 > len(data):
        raise MalformedEvidence("element is cut short", field=field, offset=position)
    tag, length, start = data[position], data[position + 1], position + 2
    if length >= 0x80:
        octets = length & 0x7F
        length = int.from_bytes(data[start : start + octets], "big")
        start += octets
        if octets not in (1, 2) or length < (0x80 if octets == 1 else 0x100):
            raise MalformedEvidence("length is not in its shortest definite form", field=field, offset=position)
    if start + length > len(data):
        raise MalformedEvidence("element is cut short", field=field, offset=position)
    return tag, data[start : start + length], start + length


def _single(data: bytes, tag: int, field: str) -> bytes:
    seen, body, end = _element(data, 0, field)
    if seen != tag or end != len(data):
        raise MalformedEvidence(f"wanted one element of tag {tag:#04x}, seen {seen:#04x}", field=field, offset=0)
    return body


def _pairs(body: bytes, field: str, prefix: bytes = b"") -> dict[bytes, tuple[int, bytes]]:
    """SEQUENCE OF SEQUENCE { OID, value } keyed by the last arc of each OID under the SGX arc."""
    found: dict[bytes, tuple[int, bytes]] = {}
    position = 0
    stem = _SGX_ARC + prefix
    while position < len(body):
        tag, pair, end = _element(body, position, field)
        oid_tag, oid, middle = _element(pair, 0, field)
        value_tag, value, last = _element(pair, middle, field)
        key = oid[len(stem) :]
        if tag != _SEQUENCE or oid_tag != _OID or last != len(pair) or not oid.startswith(stem) or len(key) != 1:
            raise MalformedEvidence("wanted a pair of OID and value", field=field, offset=position)
        if key in found:
            raise MalformedEvidence(f"pair {key.hex()} stands twice", field=field, offset=position)
        found[key] = (value_tag, value)
        position = end
    return found


def _need(pairs: dict[bytes, tuple[int, bytes]], key: bytes, tag: int, field: str) -> bytes:
    seen = pairs.get(key)
    if seen is None or seen[0] != tag:
        raise MalformedEvidence("missing from the SGX extension, or of another type", field=field)
    return seen[1]


def _octets(pairs: dict[bytes, tuple[int, bytes]], key: bytes, size: int, field: str) -> bytes:
    value = _need(pairs, key, _OCTETS, field)
    if len(value) != size:
        raise MalformedEvidence(f"wanted {size} bytes, seen {len(value)}", field=field)
    return value


def _small(body: bytes, most: int, field: str) -> int:
    value = int.from_bytes(body, "big", signed=True)
    minimal = len(body) == 1 or (len(body) in (2, 3) and (body[0] or body[1] & 0x80))
    if not minimal or not 0 <= value <= most:
        raise MalformedEvidence(f"wanted an integer from 0 to {most}, seen {body[:8].hex()}", field=field)
    return value


def _flag(pairs: dict[bytes, tuple[int, bytes]], key: bytes) -> bool | None:
    if key not in pairs:
        return None
    value = _need(pairs, key, _BOOLEAN, "configuration")
    if value not in (b"\x00", b"\xff"):
        raise MalformedEvidence(f"wanted a DER boolean, seen {value[:4].hex()}", field="configuration")
    return value == b"\xff"
