"""Strict PEM (RFC 7468): blocks of base64 between BEGIN and END lines.

`TRUSTED CERTIFICATE` is OpenSSL's label, which Gramine writes: a certificate, then optionally one SEQUENCE of trust
settings, which mean nothing to us and are dropped. Intel's tools end PEM text with a NUL: NULs at the very end are
taken.
"""

from __future__ import annotations

import binascii
import re
from dataclasses import dataclass

from attestable_mcp.limits import LIMITS
from attestable_mcp.wire import der
from attestable_mcp.wire.der import fail

CERTIFICATE_LABELS = frozenset(("CERTIFICATE", "TRUSTED CERTIFICATE", "X509 CERTIFICATE"))
CRL_LABELS = frozenset(("X509 CRL",))
_BEGIN = re.compile(rb"-----BEGIN ([A-Z0-9 #]{1,40})-----[ \t]*\r?\n")
_MARK = b"-----BEGIN "


@dataclass(frozen=True, slots=True, kw_only=True)
class PemBlock:
    """One block. `offset` is where its BEGIN line starts, `der` what its base64 says (trust settings not cut off)."""

    label: str
    der: bytes
    offset: int


def is_pem(data: bytes) -> bool:
    """Does a PEM block begin anywhere in it?"""
    return _MARK in data


def read_blocks(
    data: bytes, *, base: int = 0, field: str = "", explanatory: bool = False, most: int = LIMITS.chain
) -> tuple[PemBlock, ...]:
    """All blocks, in order. With `explanatory`, text may stand around blocks (RFC 7468 §2); otherwise only white space.

    Raises:
        MalformedEvidence: No block, more than `most`, text where none may be, or base64 that is not in its one form.
    """
    if len(data) > LIMITS.endorsement:
        fail(f"PEM of {len(data)} bytes, at most {LIMITS.endorsement} are read", field, base, "too_large")
    if not is_pem(data):
        fail("no PEM block", field, base, "no_pem")
    text = data.rstrip(b"\0")
    blocks: list[PemBlock] = []
    position = 0
    while (start := text.find(_MARK, position)) >= 0:
        _between(text, position, start, base, field, explanatory)
        if len(blocks) >= most:
            fail(f"more than {most} PEM blocks", field, base + start, "too_many_items")
        block, position = _read_block(text, start, base, field)
        blocks.append(block)
    _between(text, position, len(text), base, field, explanatory)
    return tuple(blocks)


def pem_to_der(
    data: bytes, *, base: int = 0, field: str = "", explanatory: bool = False, most: int = LIMITS.chain
) -> tuple[bytes, ...]:
    """The DER of each certificate, in the order of the text. Labels: `CERTIFICATE_LABELS`.

    Each is one SEQUENCE from its first to its last byte; it is not read further.

    Raises:
        MalformedEvidence: See `read_blocks`; also another label, or a block that is not one certificate.
    """
    blocks = read_blocks(data, base=base, field=field, explanatory=explanatory, most=most)
    return tuple(certificate_of(block, base, field) for block in blocks)


def certificate_of(block: PemBlock, base: int = 0, field: str = "") -> bytes:
    """The certificate in a block, without OpenSSL's trust settings.

    Raises:
        MalformedEvidence: Another label, or not exactly one certificate.
    """
    if block.label not in CERTIFICATE_LABELS:
        fail(f"PEM label: wanted CERTIFICATE, seen {block.label}", field, base + block.offset, "unexpected_label")
    reader = der.Reader(block.der, base + block.offset, field)
    certificate = reader.read(der.SEQUENCE)
    if block.label == "TRUSTED CERTIFICATE" and not reader.empty:
        der.check(reader.read(der.SEQUENCE), field)
    reader.end()
    return certificate.raw


def encode_pem(label: str, body: bytes) -> bytes:
    """One block with lines of 64 characters."""
    text = binascii.b2a_base64(body, newline=False)
    lines = [text[i : i + 64] for i in range(0, len(text), 64)]
    name = label.encode("ascii")
    return b"\n".join((b"-----BEGIN " + name + b"-----", *lines, b"-----END " + name + b"-----", b""))


def _between(text: bytes, start: int, end: int, base: int, field: str, explanatory: bool) -> None:
    left = text[start:end]
    if not explanatory and left.strip():
        fail("text outside the PEM blocks", field, base + start, "trailing_bytes")


def _read_block(text: bytes, start: int, base: int, field: str) -> tuple[PemBlock, int]:
    begin = _BEGIN.match(text, start)
    if begin is None:
        fail("PEM BEGIN line is not one", field, base + start, "bad_pem")
    mark = b"-----END " + begin[1] + b"-----"
    end = text.find(mark, begin.end())
    if end < 0:
        fail("PEM block without its END line", field, base + start, "truncated")
    body = _read_base64(text[begin.end() : end], base + begin.end(), field)
    return PemBlock(label=begin[1].decode("ascii"), der=body, offset=start), end + len(mark)


def _read_base64(text: bytes, offset: int, field: str) -> bytes:
    packed = b"".join(text.split())
    try:
        body = binascii.a2b_base64(packed, strict_mode=True)
    except binascii.Error as error:
        fail(f"PEM base64: {error}", field, offset, "bad_base64")
    if not body or binascii.b2a_base64(body, newline=False) != packed:
        fail("PEM base64 is not in its one form", field, offset, "bad_base64")
    return body
