"""JSON written and read by the standard library's own C code, made ready once.

`json.JSONEncoder.encode` makes that code ready anew for each text, and `json.JSONDecoder.decode` looks for white space
by two searches: half the time of a small message. Where the interpreter has no such code, or builds it otherwise, the
library's public ways are used; tests hold both to the same texts.
"""

from __future__ import annotations

import json
import json.encoder
from collections.abc import Callable
from typing import Any


def encoder(*, sort_keys: bool = False, ensure_ascii: bool = True, allow_nan: bool = True) -> Callable[[Any], str]:
    """Writes compact JSON as `json.JSONEncoder` does. What refers to itself is a RecursionError."""
    plain = json.JSONEncoder(
        separators=(",", ":"),
        sort_keys=sort_keys,
        ensure_ascii=ensure_ascii,
        allow_nan=allow_nan,
        check_circular=False,
    )
    text = json.encoder.encode_basestring_ascii if ensure_ascii else json.encoder.encode_basestring
    try:
        made = vars(json.encoder)["c_make_encoder"](
            None, plain.default, text, None, ":", ",", sort_keys, False, allow_nan
        )
        made({}, 0)
    except (KeyError, TypeError):
        return plain.encode
    return lambda value: "".join(made(value, 0))


def decode(decoder: json.JSONDecoder, text: str) -> Any:
    """What `decoder.decode` gives, without a search where no white space stands around the value.

    Raises: ValueError: it is not JSON, as `decoder` sees it.
    """
    if text[:1] in "{[" and text:
        value, end = decoder.raw_decode(text)
        if end == len(text):
            return value
    return decoder.decode(text)
