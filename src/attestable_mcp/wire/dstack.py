"""dstack's versioned attestation: evidence of any platform that dstack runs on, with its event log, in one extension.

Extension 1.3.6.1.4.1.62397.1.8 holds it, in one of two forms told by the first byte: 0 is the older one in SCALE, a map
the newer one in MessagePack. Both say the same: the platform's evidence, the events of dstack's runtime, the report
data, and a configuration. What they say beside the evidence proves nothing: report data is read out of the evidence
itself, and the log is replayed. Source: dstack, crates `dstack-attest` (attestation.rs, v1.rs) and `cc-eventlog`.

Of a TDX machine at Google the TDX quote is read and the vTPM's quote beside it is not; SEV-SNP's configuration document
is not read either, its hash is HOST_DATA. NitroTPM documents have no verifier here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from attestable_mcp.errors import MalformedEvidence, UnreadEvidence
from attestable_mcp.rats import Evidence, EvidenceKind
from attestable_mcp.wire import msgpack, scale
from attestable_mcp.wire.pem import is_pem, pem_to_der
from attestable_mcp.wire.snp import read_certificate_table

OID_DSTACK_ATTESTATION = "1.3.6.1.4.1.62397.1.8"
_FIELD = f"extension {OID_DSTACK_ATTESTATION} (dstack attestation)"
_TDX, _GCP_TDX, _NITRO, _SNP, _NITRO_TPM = "tdx", "gcp-tdx", "nitro-enclave", "sev-snp", "aws-nitro-tpm"
_PLATFORMS = (_TDX, _GCP_TDX, _NITRO, _SNP, _NITRO_TPM)
"""By the number that SCALE gives them."""
_KINDS = {
    _TDX: EvidenceKind.INTEL_QUOTE,
    _GCP_TDX: EvidenceKind.INTEL_QUOTE,
    _NITRO: EvidenceKind.NITRO_DOCUMENT,
    _SNP: EvidenceKind.SNP_REPORT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DstackAttestation:
    """One attestation: its evidence, an event log as dstack's JSON ("" for none) and certificates (DER, untrusted)."""

    platform: str
    evidence: Evidence
    event_log: bytes = b""
    certificates: tuple[bytes, ...] = ()


@lru_cache(maxsize=8)
def read_attestation(data: bytes) -> DstackAttestation:
    """Read either form. Raises: MalformedEvidence; UnreadEvidence for a platform or form that is not read here."""
    if data[:1] == b"\0":
        return _from_scale(scale.Reader(data[1:], field=_FIELD))
    if msgpack.is_map(data):
        return _from_map(msgpack.decode(data, field=_FIELD))
    raise UnreadEvidence(f"{_FIELD}: wanted SCALE (00) or a MessagePack map, seen {data[:1].hex() or 'nothing'}")


# The older form


def _from_scale(reader: scale.Reader) -> DstackAttestation:
    number = reader.number(1)
    if number >= len(_PLATFORMS):
        raise UnreadEvidence(f"{_FIELD}: wanted one of {', '.join(_PLATFORMS)}, seen platform {number}")
    platform = _PLATFORMS[number]
    body = reader.octets()
    events: list[Mapping[str, Any]] = []
    chain: list[bytes] = []
    if platform in (_TDX, _GCP_TDX):
        events = reader.items(_scale_event)
    if platform == _GCP_TDX:
        _skip_tpm_quote(reader)
    if platform == _SNP:
        chain = reader.items(scale.Reader.octets)
        reader.text()
    reader.items(lambda each: (each.text(), each.octets()))
    reader.take(64)
    reader.text()
    reader.end()
    return _built(platform, body, events, chain)


def _scale_event(reader: scale.Reader) -> Mapping[str, Any]:
    found: dict[str, Any] = {"imr": reader.number(4), "event_type": reader.number(4)}
    found |= {"digest": reader.octets().hex(), "event": reader.text()}
    return found | {"event_payload": reader.octets().hex()}


def _skip_tpm_quote(reader: scale.Reader) -> None:
    """Message, signature, PCR values, certificate, platform, log: read to the end, and not judged."""
    reader.octets()
    reader.octets()
    reader.items(lambda each: (each.number(4), each.text(), each.octets()))
    reader.octets()
    reader.number(1)
    reader.items(lambda each: (each.number(4), each.octets()))


# The newer form


def _from_map(value: msgpack.Value) -> DstackAttestation:
    body = _map(value, "attestation")
    if body.get("version") != 1:
        raise UnreadEvidence(f"{_FIELD}: wanted version 1, seen {body.get('version')!r:.40}")
    platform = _map(body.get("platform"), "platform")
    name, data = platform.get("kind"), _map(platform.get("data"), "platform.data")
    if not isinstance(name, str) or name not in _PLATFORMS:
        raise UnreadEvidence(f"{_FIELD}: wanted one of {', '.join(_PLATFORMS)}, seen platform {name!r:.40}")
    main = {_NITRO: "nsm_quote", _SNP: "report", _NITRO_TPM: "attestation_doc"}.get(name, "quote")
    events = [_map_event(item) for item in _list(data.get("event_log", []), "event_log")]
    chain = [_octets(item, "cert_chain") for item in _list(data.get("cert_chain", []), "cert_chain")]
    return _built(name, _octets(data.get(main), main), events, chain)


def _map_event(value: msgpack.Value) -> Mapping[str, Any]:
    item = _map(value, "event_log")
    numbers = {name: item[name] for name in ("imr", "event_type", "version") if name in item}
    name = item.get("event")
    if not isinstance(name, str) or not all(type(value) is int for value in numbers.values()):
        raise MalformedEvidence(f"{_FIELD}: wanted an event with a name and numbers", field="event_log")
    digests = {name: _octets(item.get(name, b""), name).hex() for name in ("digest", "event_payload")}
    return {**numbers, "event": name, **digests}


def _map(value: msgpack.Value, name: str) -> Mapping[str, msgpack.Value]:
    if not isinstance(value, dict):
        raise MalformedEvidence(f"{_FIELD}: wanted a map", field=name)
    return value


def _list(value: msgpack.Value, name: str) -> list[msgpack.Value]:
    if not isinstance(value, list):
        raise MalformedEvidence(f"{_FIELD}: wanted a list", field=name)
    return value


def _octets(value: msgpack.Value, name: str) -> bytes:
    """Bytes, or a list of small numbers: serde writes a plain `Vec<u8>` so."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, list) and all(type(item) is int and 0 <= item < 256 for item in value):
        return bytes(item for item in value if isinstance(item, int))
    raise MalformedEvidence(f"{_FIELD}: wanted bytes", field=name)


# Both


def _built(platform: str, body: bytes, events: list[Mapping[str, Any]], chain: list[bytes]) -> DstackAttestation:
    if platform not in _KINDS:
        raise UnreadEvidence(
            f"{_FIELD}: a NitroTPM document, which has no verifier here", hint="Reach the server where it runs on TDX, "
            "SEV-SNP or in a Nitro enclave, or verify it with dstack's own verifier.",
        )  # fmt: skip
    return DstackAttestation(
        platform=platform,
        evidence=Evidence(kind=_KINDS[platform], body=body),
        event_log=json.dumps(events, separators=(",", ":")).encode() if events else b"",
        certificates=tuple(certificate for blob in chain for certificate in _certificates(blob)),
    )


def _certificates(blob: bytes) -> tuple[bytes, ...]:
    """A DER certificate, PEM, or AMD's table of certificates; whatever else it is proves nothing and is left out."""
    try:
        if is_pem(blob):
            return pem_to_der(blob)
        return (blob,) if blob[:1] == b"\x30" else tuple(read_certificate_table(blob).values())
    except MalformedEvidence:
        return ()
