"""The quick readers of TPM evidence, quotes and signatures, held to the readers that go field by field."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestable_mcp.errors import AttestationError, EvidenceError, MalformedEvidence
from attestable_mcp.wire import cbor, tpm, tpm_form
from attestable_mcp.wire.tpm import DIGEST_SIZES, Selection, TpmEvidence, read_evidence, read_quote, write_evidence

_SIZES = st.sampled_from([0, 1, 23, 24, 255, 256, 300])
_BLOBS = _SIZES.flatmap(lambda size: st.binary(min_size=size, max_size=size))
_NUMBERS = st.integers(0, 23)


@st.composite
def evidences(draw: st.DrawFn) -> TpmEvidence:
    """Of any banks and PCRs, with and without log and certificates."""
    banks = draw(st.sets(st.sampled_from(sorted(DIGEST_SIZES))))
    values = {bank: st.binary(min_size=DIGEST_SIZES[bank], max_size=DIGEST_SIZES[bank]) for bank in banks}
    return TpmEvidence(
        quote=draw(_BLOBS), signature=draw(_BLOBS), ak=draw(_BLOBS),
        pcrs={bank: draw(st.dictionaries(_NUMBERS, values[bank])) for bank in banks},
        ak_certificates=tuple(draw(st.lists(_BLOBS, max_size=3))),
        event_log=draw(_BLOBS),
    )  # fmt: skip


PLAIN = TpmEvidence(
    quote=bytes(30), signature=bytes(24), ak=bytes(25), pcrs={"sha1": {1: bytes(20)}, "sha256": {0: b"\x64" * 32}},
    ak_certificates=(b"c", b"d" * 30), event_log=b"log",
)  # fmt: skip


@given(evidences())
def test_what_was_written_comes_back_without_the_general_codec(evidence: TpmEvidence) -> None:
    written = write_evidence(evidence)
    found = tpm_form.parts(written)
    assert found is not None
    assert cbor.decode(found["pcrs"]) == evidence.pcrs
    assert read_evidence(written) == evidence


def test_every_pcr_of_every_bank_comes_back() -> None:
    pcrs = {bank: {number: bytes([number]) * size for number in range(24)} for bank, size in DIGEST_SIZES.items()}
    written = write_evidence(TpmEvidence(quote=b"q", signature=b"s", ak=b"a", pcrs=pcrs))
    found = tpm_form.parts(written)
    assert found is not None
    assert found["pcrs"] == cbor.encode({bank: dict(values) for bank, values in pcrs.items()})
    assert read_evidence(written).pcrs == pcrs


def _altered(whole: bytes) -> Iterator[bytes]:
    """Each byte altered in each bit, each length, something behind."""
    for at in range(len(whole)):
        for bit in range(8):
            yield whole[:at] + bytes((whole[at] ^ 1 << bit,)) + whole[at + 1 :]
    yield from (whole[:size] for size in range(len(whole)))
    yield whole + b"\x00"


def test_where_it_reads_altered_bytes_the_general_codec_reads_the_same() -> None:
    read = 0
    for altered in _altered(write_evidence(PLAIN)):
        found = tpm_form.parts(altered)
        if found is None:
            continue
        try:
            pcrs = cbor.decode(found["pcrs"])
        except MalformedEvidence:
            continue  # then the general codec has the word
        read += 1
        assert cbor.decode(altered) == {"version": 1, **found, "pcrs": pcrs}
    assert read > 100


def test_other_forms_of_the_same_map_are_left_to_the_general_codec() -> None:
    written = write_evidence(PLAIN)
    for head, longer in ((b"\x62ak\x58\x19", b"\x62ak\x59\x00\x19"), (b"\x67version\x01", b"\x67version\x02")):
        other = written.replace(head, longer)
        assert other != written
        assert tpm_form.parts(other) is None
    body = cbor.decode(written)
    assert isinstance(body, dict)
    pairs = b"".join(cbor.encode(key) + cbor.encode(body[key]) for key in reversed(body))
    turned = written[:1] + pairs
    assert tpm_form.parts(turned) is None
    assert read_evidence(turned) == PLAIN


def _outcome(read: Callable[[bytes], object], data: bytes) -> object:
    try:
        return read(data)
    except EvidenceError as error:
        return type(error), error.message, error.code


def test_a_large_log_comes_back() -> None:
    written = write_evidence(replace(PLAIN, event_log=bytes(66_000)))
    found = tpm_form.parts(written)
    assert found is not None
    assert read_evidence(written).event_log == found["event_log"] == bytes(66_000)


def _quote(*selections: bytes) -> bytes:
    return b"".join((
        struct.pack(">IH", tpm.GENERATED, tpm.ATTEST_QUOTE), b"\x00\x02ab", b"\x00\x03xyz",
        struct.pack(">QIIB", 1, 2, 3, 1),
        struct.pack(">QI", 7, len(selections)), *selections, b"\x00\x04pcrs",
    ))  # fmt: skip


SHA256 = b"\x00\x0b\x03\x81\x00\x80"


@pytest.mark.parametrize("selections", [(), (SHA256,), (SHA256, b"\x00\x04\x03\x01\x00\x00"), (SHA256, SHA256)])
def test_quotes_read_at_once_are_those_read_field_by_field(selections: tuple[bytes, ...]) -> None:
    whole = _quote(*selections)
    assert _outcome(read_quote, whole) == _outcome(tpm._quote_by_fields, whole)
    for altered in _altered(whole):
        assert _outcome(read_quote, altered) == _outcome(tpm._quote_by_fields, altered)


def test_a_quote_of_one_bank_says_what_it_says() -> None:
    found = read_quote(_quote(SHA256))
    assert found.selection == (Selection(bank="sha256", pcrs=(0, 7, 23)),)
    assert (found.qualified_signer, found.extra_data, found.pcr_digest) == (b"ab", b"xyz", b"pcrs")
    assert (found.clock, found.reset_count, found.restart_count, found.safe, found.firmware_version) == (
        1,
        2,
        3,
        True,
        7,
    )


def test_sized_parts_of_a_quote_are_bounded() -> None:
    for size, good in ((512, True), (513, False)):
        whole = _quote(SHA256).replace(b"\x00\x03xyz", size.to_bytes(2, "big") + bytes(size))
        assert isinstance(_outcome(read_quote, whole), tpm.Quote) is good


def test_signatures_of_the_usual_size_are_read_as_others() -> None:
    ecdsa = struct.Struct(">HHH32sH32s")
    found = tpm.read_signature(ecdsa.pack(0x18, 0x0B, 32, b"r" * 32, 32, b"s" * 32))
    assert (found.scheme, found.hash, found.value) == ("ecdsa", "sha256", b"r" * 32 + b"s" * 32)
    shifted = struct.pack(">HHH31sH33s", 0x18, 0x0B, 31, b"r" * 31, 33, b"s" * 33)
    assert tpm.read_signature(shifted).value == b"\0\0" + b"r" * 31 + b"s" * 33
    rsa = struct.pack(">HHH66s", 0x14, 0x0C, 66, b"v" * 66)
    assert tpm.read_signature(rsa) == tpm.Signature(scheme="rsassa", hash="sha384", value=b"v" * 66)
    for fields in ((0x18, 0x12, 32, 32), (0x18, 0x0B, 32, 31), (0x14, 0x0B, 32, 32)):
        scheme, hash_number, r_size, s_size = fields
        bad = ecdsa.pack(scheme, hash_number, r_size, bytes(32), s_size, bytes(32))
        with pytest.raises(AttestationError):
            tpm.read_signature(bad)
