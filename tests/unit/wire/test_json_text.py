"""The quick ways with JSON say what the library's public ones say."""

from __future__ import annotations

import json
import json.encoder
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from attestable_mcp.wire import json_text

texts = st.text(st.characters(exclude_categories=[]), max_size=8)
leaves = st.none() | st.booleans() | st.integers() | st.floats() | texts
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)
DECODER = json.JSONDecoder()


def as_text(encode: Any, value: Any) -> str:
    """What is written; of what is refused, that it is."""
    try:
        return str(encode(value))
    except ValueError:
        return "refused"


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize(
    "settings",
    [{}, {"ensure_ascii": False}, {"ensure_ascii": False, "sort_keys": True}, {"allow_nan": False}],
    ids=["ascii", "any", "sorted", "finite"],
)
@given(value=values)
def test_it_writes_what_the_encoder_writes(settings: dict[str, bool], quick: bool, value: Any) -> None:
    wanted = json.JSONEncoder(separators=(",", ":"), **settings)  # type: ignore[arg-type]
    with pytest.MonkeyPatch.context() as patch:
        if not quick:
            patch.delattr(json.encoder, "c_make_encoder")
        encode = json_text.encoder(**settings)
    assert as_text(encode, value) == as_text(wanted.encode, value)


def test_the_quick_way_is_the_one_in_use_here() -> None:
    assert not hasattr(json_text.encoder(), "__self__"), "the public way is a bound method"


def test_what_is_no_json_is_refused() -> None:
    encode = json_text.encoder()
    with pytest.raises(TypeError, match="bytes"):
        encode({"a": b""})
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(RecursionError):
        encode(loop)


@given(st.sampled_from(["", " ", "\n", "x", "{}", "\ufeff"]), values, st.sampled_from(["", " ", "\n\t", "x", "]", "1"]))
@example("", [], "")
@example("", {}, "")
def test_it_reads_what_the_decoder_reads(before: str, value: Any, after: str) -> None:
    text = before + json.dumps(value) + after
    try:
        wanted = DECODER.decode(text)
    except ValueError:
        with pytest.raises(ValueError):
            json_text.decode(DECODER, text)
    else:
        assert repr(json_text.decode(DECODER, text)) == repr(wanted)


def test_no_text_is_no_json() -> None:
    with pytest.raises(ValueError):
        json_text.decode(DECODER, "")
