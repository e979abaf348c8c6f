"""Which kind of thing are these bytes? Told by content, never by a file's name.

Read: a certificate in PEM or DER, evidence of each kind in `wire.kinds`, and hex or base64 text of any of these. Other
things that people hold in their hands are named in the error.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass

from attestable_mcp.errors import UnsupportedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Evidence, EvidenceKind
from attestable_mcp.wire import der
from attestable_mcp.wire.der import fail
from attestable_mcp.wire.kinds import kind_of
from attestable_mcp.wire.pem import CERTIFICATE_LABELS, PemBlock, certificate_of, is_pem, read_blocks
from attestable_mcp.wire.snp import REPORT_SIZE

_QUOTE_HEADER = 48
_HEX = re.compile(rb"(?:0[xX])?((?:[0-9a-fA-F]{2})+)")
_URL_SAFE = bytes.maketrans(b"-_", b"+/")
_READ_HINT = (
    "Read are certificates (PEM, DER), Intel quotes of version 3, 4 and 5, SEV-SNP reports, Nitro documents, the "
    "evidence maps of TPMs and Azure, all also as hex or base64 text, and signed tokens (JWT)."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The first certificate of a file in DER, not read further; `others` are those after it, in order."""

    der: bytes
    others: tuple[bytes, ...] = ()


def recognise(data: bytes) -> Certificate | Evidence:
    """What these bytes are.

    Raises:
        MalformedEvidence: Larger than a source may be, or PEM or DER that breaks its own rules.
        UnsupportedEvidence: Nothing that is read here; the message names it where it is known.
    """
    if len(data) > LIMITS.endorsement:
        fail(f"{len(data)} bytes, at most {LIMITS.endorsement} are read", "source", 0, "too_large")
    found = _from_binary(data) or _from_text(data)
    if found is None:
        raise UnsupportedEvidence(
            f"source: wanted a certificate or evidence, seen {_name(data)}", code="unrecognised_source", hint=_READ_HINT
        )
    return found


def _from_pem(data: bytes) -> Certificate:
    blocks = read_blocks(data, field="source", explanatory=True)
    certificates = [certificate_of(block, field="source") for block in blocks if block.label in CERTIFICATE_LABELS]
    if not certificates:
        raise UnsupportedEvidence(
            f"source: wanted a PEM certificate, seen {_labels(blocks)}", code="unrecognised_source", hint=_READ_HINT
        )
    return Certificate(der=certificates[0], others=tuple(certificates[1:]))


def _labels(blocks: tuple[PemBlock, ...]) -> str:
    return ", ".join(dict.fromkeys(block.label for block in blocks))


def _from_binary(data: bytes) -> Certificate | Evidence | None:
    if (kind := kind_of(data)) is not None:
        return _evidence(kind, data)
    return Certificate(der=data) if _is_certificate(data) else None


def _evidence(kind: EvidenceKind, data: bytes) -> Evidence:
    least = _QUOTE_HEADER if kind is EvidenceKind.INTEL_QUOTE else 1
    if not least <= len(data) <= LIMITS.evidence:
        fail(f"{kind}: wanted {least} to {LIMITS.evidence} bytes, seen {len(data)}", "source", 0, "bad_size")
    return Evidence(kind=kind, body=data)


def _is_certificate(data: bytes) -> bool:
    """Does it begin as a certificate does: SEQUENCE { SEQUENCE { [0] or INTEGER? A CRL begins with INTEGER, too."""
    start = data[:12]
    if start[:1] != bytes((der.SEQUENCE,)):
        return False
    inner = start[_header(start, 0) :]
    if inner[:1] != bytes((der.SEQUENCE,)):
        return False
    first = inner[_header(inner, 0) :][:1]
    return first == b"\xa0"


def _header(data: bytes, at: int) -> int:
    length = data[at + 1] if len(data) > at + 1 else 0
    return 2 + (length & 0x7F if length & 0x80 else 0)


def _from_text(data: bytes) -> Certificate | Evidence | None:
    # A quote carries the PEM of its certificates inside; a damaged one must not pass for that PEM.
    if is_pem(data) and not _is_json(data) and not _is_binary(data):
        return _from_pem(data)
    inner = _decode_text(data)
    return None if inner is None else _from_binary(inner)


def _is_binary(data: bytes) -> bool:
    """No text has NULs but at its end, where C programs leave one."""
    return b"\0" in data.rstrip(b"\0")


def _decode_text(data: bytes) -> bytes | None:
    """What hex or base64 text says; white space may stand anywhere, NULs at the end."""
    packed = b"".join(data.rstrip(b"\0").split())
    if (digits := _HEX.fullmatch(packed)) is not None:
        return bytes.fromhex(digits[1].decode("ascii"))
    packed = packed.translate(_URL_SAFE).rstrip(b"=")
    try:
        return binascii.a2b_base64(packed + b"=" * (-len(packed) % 4), strict_mode=True)
    except (binascii.Error, ValueError):
        return None


def _is_json(data: bytes) -> bool:
    return data.lstrip()[:1] in (b"{", b"[")


_NAMES: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ("nothing at all", lambda data: not data.strip()),
    ("a token (JWT) that is unsigned, or not whole", lambda data: data.startswith(b"eyJ")),
    ("JSON, perhaps collateral, which goes to --endorsements", _is_json),
    ("COSE that is no Nitro document", lambda data: data[:1] in (b"\x84", b"\xd2")),
    ("a TPM quote without its signature, key and PCRs", lambda data: data.startswith(b"\xffTCG")),
    ("an Azure HCL report without a vTPM quote", lambda data: data.startswith(b"HCLA")),
    ("what looks like a damaged SEV-SNP report", lambda data: len(data) == REPORT_SIZE and data[1:4] == bytes(3)),
    (
        "what looks like a CRL, a key or an old certificate in DER",
        lambda data: data[:1] == b"\x30" and data[1:2] > b"\x7f",
    ),
)


def _name(data: bytes) -> str:
    for name, fits in _NAMES:
        if fits(data):
            return name
    return f"{len(data)} bytes that begin with {data[:8].hex()}"
