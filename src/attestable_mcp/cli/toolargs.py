"""The words of `call` after the tool's name, as one argument object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

from attestable_mcp.cli import text
from attestable_mcp.cli.command import UsageError

_HINT = text.see_help(f"{text.PROGRAM} call")


def tool_arguments(words: Sequence[str], whole: str | None) -> dict[str, Any]:
    """`name=value` and `name:=json` words, or the object given with `--args-json`. Raises: UsageError."""
    if whole is not None and words:
        raise UsageError(text.BOTH_ARGUMENTS, hint=_HINT)
    if whole is not None:
        return _object(whole)
    found: dict[str, Any] = {}
    for word in words:
        name, value = _pair(word)
        if name in found:
            raise UsageError(text.repeated_argument(name), hint=_HINT)
        found[name] = value
    return found


def _object(whole: str) -> dict[str, Any]:
    value = _strict(whole, whole)
    if not isinstance(value, dict):
        raise UsageError(text.bad_json(whole, "an object was expected"), hint=_HINT)
    return value


def _pair(word: str) -> tuple[str, Any]:
    name, sign, value = word.partition("=")
    strict = name.endswith(":")
    name = name.removesuffix(":")
    if not sign or not name:
        raise UsageError(text.bad_argument(word), hint=_HINT)
    return name, _strict(word, value) if strict else _lenient(value)


def _strict(word: str, value: str) -> Any:
    try:
        return json.loads(value, parse_constant=_no_constant, object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError) as error:
        raise UsageError(text.bad_json(word, str(error)), hint=_HINT) from error


def _lenient(value: str) -> Any:
    try:
        return json.loads(value, parse_constant=_no_constant, object_pairs_hook=_no_repeats)
    except (ValueError, RecursionError):
        return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _no_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        raise ValueError("a key is repeated")
    return dict(pairs)
