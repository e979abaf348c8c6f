"""JSON in its one canonical form (RFC 8785), through the library `rfc8785`.

A whole number that a double cannot hold exactly is written as the double nearest to it, as ECMAScript reads it
(RFC 8785 appendix B, note 2): schemas carry such bounds for 64-bit integers. Everything that has no canonical form is
refused: NaN, infinities, lone surrogates, keys that are no strings, nesting beyond the interpreter's own bound.
"""

from __future__ import annotations

from typing import Any

import rfc8785

from attestable_mcp.errors import MalformedEvidence


def canonical(value: Any, *, field: str = "json") -> bytes:
    """The canonical bytes of a parsed JSON value.

    Raises:
        MalformedEvidence: with the code `not_canonical`.
    """
    try:
        try:
            return rfc8785.dumps(value)
        except rfc8785.IntegerDomainError:
            return rfc8785.dumps(_doubles(value))
    except (ValueError, OverflowError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise MalformedEvidence(
            f"JSON without a canonical form: {reason:.120}", field=field, code="not_canonical"
        ) from error


def _doubles(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _doubles(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_doubles(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 1 << 53:
        return float(value)
    return value
