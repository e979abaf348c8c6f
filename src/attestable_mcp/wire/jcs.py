"""JSON in its one canonical form (RFC 8785), through the library `rfc8785`.

A whole number that a double cannot hold exactly is written as the double nearest to it, as ECMAScript reads it
(RFC 8785 appendix B, note 2): schemas carry such bounds for 64-bit integers. Everything that has no canonical form is
refused: NaN, infinities, lone surrogates, keys that are no strings, nesting beyond the interpreter's own bound.
"""

from __future__ import annotations

from typing import Any, Final

import rfc8785

from attestable_mcp.errors import MalformedEvidence
from attestable_mcp.wire import json_text

_SAFE: Final = (1 << 53) - 1
_encode: Final = json_text.encoder(sort_keys=True, ensure_ascii=False, allow_nan=False)


def canonical(value: Any, *, field: str = "json", parsed: bool = False) -> bytes:
    """The canonical bytes of a JSON value; `parsed`: a JSON parser gave it, so its keys are strings.

    Raises:
        MalformedEvidence: with the code `not_canonical`.
    """
    try:
        if parsed and _plain_text(data := _encode(value).encode()):
            return data
        if _plain(value):
            text = _encode(value)
            if text.isascii() or _ascii_keys(value):
                return text.encode()
        try:
            return rfc8785.dumps(value)
        except rfc8785.IntegerDomainError:
            return rfc8785.dumps(_doubles(value))
    except (ValueError, OverflowError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise MalformedEvidence(
            f"JSON without a canonical form: {reason:.120}", field=field, code="not_canonical"
        ) from error


_DIGITS: Final = bytes.maketrans(b"123456789", b"000000000")
_LONG: Final = b"0" * len(str(_SAFE))


def _plain_text(data: bytes) -> bool:
    """Is this the canonical form of a parsed value, as far as its text shows? See `_plain`, which looks at the value.

    The standard library writes each float with a digit before a point or an exponent; a text may look like that too.
    """
    digits = data.translate(_DIGITS)
    return data.isascii() and b"0." not in digits and b"0e" not in digits and _LONG not in digits


def _plain(value: Any) -> bool:
    """Is the standard library's encoding, several times faster, the canonical one, if only keys are in ASCII?

    It is without floats and large integers, which ECMAScript writes otherwise. Both escape the same characters in the
    same way, and sort keys alike where these are in ASCII: by code point as by UTF-16 unit.
    """
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return True
    if kind is int:
        return bool(-_SAFE <= value <= _SAFE)
    if kind is dict:
        for key, item in value.items():  # noqa: SIM110 - a generator is slower
            if type(key) is not str or not (type(item) is str or _plain(item)):
                return False
        return True
    return kind is list and all(type(item) is str or _plain(item) for item in value)


def _ascii_keys(value: Any) -> bool:
    if type(value) is dict:
        return all(key.isascii() and _ascii_keys(item) for key, item in value.items())
    return type(value) is not list or all(map(_ascii_keys, value))


def _doubles(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _doubles(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_doubles(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 53:
        return float(value)
    return value
