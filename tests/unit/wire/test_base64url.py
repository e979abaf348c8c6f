"""base64url: what is written is read, and each text of another form is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestable_mcp.wire import base64url


@given(st.binary(max_size=70))
def test_what_is_written_is_read(data: bytes) -> None:
    text = base64url.encode(data)
    assert "=" not in text
    assert base64url.decode(text) == base64url.decode(text.encode()) == data


def test_the_alphabet_is_the_one_for_urls() -> None:
    assert base64url.encode(b"\xfb\xff") == "-_8"
    assert base64url.decode("") == b""


@pytest.mark.parametrize("text", ["-_8=", "+/8", "-_9", "-", "-_8 ", "-\n_8", "-_8é", "-_8\0", "AB", "ABCDE"])
def test_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        base64url.decode(text)
