"""The quick reader and writer of receipts, held to the general codec."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from attestable_mcp.bind import receipt_form
from attestable_mcp.errors import MalformedEvidence
from attestable_mcp.wire import cbor

_SCALARS = st.integers(0, (1 << 64) - 1) | st.binary(max_size=300) | st.text(max_size=300)
_MAPS = st.fixed_dictionaries(dict.fromkeys((*receipt_form.KEYS, "kind", "version"), _SCALARS))


def _general(wrapped: bytes) -> cbor.Value:
    inner = cbor.decode(wrapped)
    assert isinstance(inner, bytes)
    return cbor.decode(inner)


@given(_MAPS)
def test_it_writes_what_the_general_codec_writes_and_reads_it_back(values: dict[str, int | bytes | str]) -> None:
    written = receipt_form.write(values)
    assert written == cbor.encode(dict(values))
    assert receipt_form.read(receipt_form.write_scalar(written)) == values


@given(_MAPS, st.data())
def test_where_it_reads_altered_bytes_the_general_codec_reads_the_same(
    values: dict[str, int | bytes | str], data: st.DataObject
) -> None:
    altered = bytearray(receipt_form.write_scalar(receipt_form.write(values)))
    for _ in range(data.draw(st.integers(1, 3))):
        altered[data.draw(st.integers(0, len(altered) - 1))] = data.draw(st.integers(0, 255))
    altered = altered[: data.draw(st.integers(0, len(altered)))] if data.draw(st.booleans()) else altered
    found = receipt_form.read(bytes(altered))
    try:
        wanted = _general(bytes(altered))
    except (MalformedEvidence, AssertionError):
        assert found is None
    else:
        assert found is None or found == wanted


def test_heads_longer_than_needed_are_left_to_the_general_codec() -> None:
    values: dict[str, int | bytes | str] = dict.fromkeys((*receipt_form.KEYS, "kind", "version"), 1)
    written = receipt_form.write(values)
    padded = written.replace(b"\x64time\x01", b"\x64time\x18\x01")
    assert padded != written
    assert receipt_form.read(receipt_form.write_scalar(padded)) is None
