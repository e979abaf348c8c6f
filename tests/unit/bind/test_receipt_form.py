"""The quick reader and writer of receipts, held to the general codec."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from attestable_mcp.bind import receipt_form
from attestable_mcp.errors import MalformedEvidence
from attestable_mcp.wire import cbor

_NUMBERS = st.integers(0, (1 << 64) - 1) | st.sampled_from([23, 24, 255, 256, 65535, 65536, (1 << 32) - 1, 1 << 32])
# keys of the map within a text must not lead the reader astray
_TEXTS = st.text(max_size=300) | st.sampled_from(
    ["add\x64time\x00\x65chain", "\x66result\x58\x20", "a" * 255, "é" * 1024]
)
_SIZES = {"chain": {16}, "previous": {0, 32}, "request": {32}, "result": {32}, "item": {0, 32}, "transcript": {64},
          "manifest": {0, 32, 48, 64}}  # fmt: skip


def _bytes(sizes: set[int]) -> st.SearchStrategy[bytes]:
    return st.sampled_from(sorted(sizes)).flatmap(lambda size: st.binary(min_size=size, max_size=size))


VALUES = st.fixed_dictionaries(
    {name: _bytes(sizes) for name, sizes in _SIZES.items()}
    | dict.fromkeys(("counter", "time"), _NUMBERS)
    | dict.fromkeys(("method", "name"), _TEXTS)
)
PLAIN: receipt_form.Values = {
    "chain": bytes(16), "counter": 1, "previous": bytes(32), "time": 1 << 40, "method": "tools/call", "name": "add",
    "request": bytes(32), "result": bytes(32), "item": b"", "manifest": b"", "transcript": bytes(64),
}  # fmt: skip


def _whole(values: receipt_form.Values) -> dict[str, object]:
    return {"kind": "receipt", "version": 1, **values}


def _general(wrapped: bytes) -> cbor.Value:
    inner = cbor.decode(wrapped)
    assert isinstance(inner, bytes)
    return cbor.decode(inner)


@given(VALUES)
def test_it_writes_what_the_general_codec_writes_and_reads_it_back(values: receipt_form.Values) -> None:
    written = receipt_form.write(**values)
    assert written == cbor.encode(_whole(values))  # type: ignore[arg-type]
    assert receipt_form.wrap(written) == cbor.encode(written)
    assert receipt_form.read(receipt_form.wrap(written)) == values


@given(VALUES, st.data())
@example(PLAIN, None)
def test_where_it_reads_altered_bytes_the_general_codec_reads_the_same(
    values: receipt_form.Values, data: st.DataObject | None
) -> None:
    whole = receipt_form.wrap(receipt_form.write(**values))
    for altered in _altered(whole, data):
        found = receipt_form.read(altered)
        try:
            wanted = _general(altered)
        except (MalformedEvidence, AssertionError):
            assert found is None
        else:
            assert found is None or _whole(found) == wanted


def _altered(whole: bytes, data: st.DataObject | None) -> list[bytes]:
    """Three bytes at random, or without anything at random: each byte, one after the other; each length."""
    if data is None:
        each = [
            whole[:at] + bytes((whole[at] ^ 1 << bit,)) + whole[at + 1 :] for at in range(len(whole)) for bit in (0, 5)
        ]
        return each + [whole[:size] for size in range(len(whole))] + [whole + b"\x00"]
    altered = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        altered[data.draw(st.integers(0, len(altered) - 1))] = data.draw(st.integers(0, 255))
    return [bytes(altered[: data.draw(st.integers(0, len(altered)))] if data.draw(st.booleans()) else altered)]


def test_heads_longer_than_needed_are_left_to_the_general_codec() -> None:
    written = receipt_form.write(**PLAIN)
    for found, padded in (
        (b"\x67counter\x01", b"\x67counter\x18\x01"),
        (b"\x67counter\x01", b"\x67counter\x1b" + bytes(7) + b"\x01"),
        (b"\x64name\x63add", b"\x64name\x78\x03add"),
        (b"\x64name\x63add", b"\x64name\x79\x00\x03add"),
    ):
        other = written.replace(found, padded)
        assert other != written
        assert receipt_form.read(receipt_form.wrap(other)) is None


def test_sizes_that_no_receipt_has_are_left_to_the_general_codec() -> None:
    assert receipt_form.read(receipt_form.wrap(receipt_form.write(**PLAIN))) == PLAIN
    for name in _SIZES:
        values = {**PLAIN, name: bytes(31)}
        assert receipt_form.read(receipt_form.wrap(receipt_form.write(**values))) is None  # type: ignore[typeddict-item]
    for name in ("method", "name"):
        values = {**PLAIN, name: "a" * 1025}
        assert receipt_form.read(receipt_form.wrap(receipt_form.write(**values))) is None  # type: ignore[typeddict-item]
