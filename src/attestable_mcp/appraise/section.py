"""One table of a policy file, read strictly, key by key, with file and line in every message."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from difflib import get_close_matches
from typing import Any, TypeVar

from attestable_mcp.appraise.fault import PolicyFault
from attestable_mcp.appraise.kinds.base import Read
from attestable_mcp.appraise.lines import KeyPath
from attestable_mcp.appraise.policy import Places
from attestable_mcp.appraise.values import MaskedValue, masked
from attestable_mcp.errors import ConfigurationError

_T = TypeVar("_T")

PCR_NAME = re.compile(r"pcr(?:0|[1-9][0-9]?)")
_FEW = 12
"""Keys that an error may list without hiding the one that is meant."""
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Section:
    """One table of the file. Each `take_…` removes a key; what is left over at `finish` is unknown."""

    def __init__(self, places: Places, path: KeyPath, table: dict[str, Any]) -> None:
        self.places, self.path, self.left = places, path, dict(table)
        self.known: list[str] = []

    def fail(self, problem: str, *path: str | int, hint: str | None = None) -> ConfigurationError:
        """An error that names the line of `path` below this table, or of the nearest thing above it that has one."""
        full: KeyPath = (*self.path, *path)
        name = ".".join(str(part) for part in full if isinstance(part, str))
        while full and full not in self.places.lines:
            full = full[:-1]
        at = f", line {self.places.lines[full]}" if full else ""
        return ConfigurationError(f"{self.places.file}{at}: {name + ': ' if name else ''}{problem}", hint=hint)

    def build(self, make: Callable[..., _T], *arguments: Any, **values: Any) -> _T:
        """Call `make`; a fault it finds gets its line."""
        try:
            return make(*arguments, **{key: value for key, value in values.items() if value is not None})
        except PolicyFault as fault:
            raise self.fail(fault.problem, *fault.path, hint=fault.hint or None) from fault

    def _take(self, key: str) -> Any:
        self.known.append(key)
        value = self.left.pop(key, None)
        if value in ("", [], {}):
            raise self.fail("is empty", key, hint="Leave the key out to get its default, or give it a value.")
        return value

    def section(self, key: str) -> Section:
        value = self._take(key) if self.left.get(key) != {} else self.left.pop(key)
        if value is not None and not isinstance(value, dict):
            raise self.fail(f"wanted a table, seen {_kind(value)}", key)
        return Section(self.places, (*self.path, key), value or {})

    def sections(self, key: str) -> list[Section]:
        value = self._take(key)
        if value is None:
            return []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.fail(f"wanted [[{'.'.join(map(str, self.path))}.{key}]] tables, seen {_kind(value)}", key)
        return [Section(self.places, (*self.path, key, index), item) for index, item in enumerate(value)]

    def text(self, key: str) -> str | None:
        value = self._take(key)
        if value is not None and not isinstance(value, str):
            hint = "Several releases stand in [[policy.accept]] tables." if isinstance(value, list) else None
            raise self.fail(f"wanted a string, seen {_kind(value)}", key, hint=hint)
        return value

    def number(self, key: str) -> int | None:
        value = self._take(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise self.fail(f"wanted a whole number, seen {_kind(value)}", key)
        return value

    def flag(self, key: str) -> bool | None:
        value = self._take(key)
        if value is not None and not isinstance(value, bool):
            raise self.fail(f"wanted true or false, seen {_kind(value)}", key)
        return value

    def texts(self, key: str, *, or_one: bool = False) -> tuple[str, ...] | None:
        value = self._take(key)
        if value is None:
            return None
        if or_one and isinstance(value, str):
            return (value,)
        if not isinstance(value, list):
            raise self.fail(f"wanted a list of strings, seen {_kind(value)}", key)
        for index, item in enumerate(value):
            if not isinstance(item, str):
                raise self.fail(f"wanted a string, seen {_kind(item)}", key, index)
        return tuple(value)

    def numbers(self, key: str) -> tuple[int, ...] | None:
        value = self._take(key)
        if value is not None and not isinstance(value, list):
            raise self.fail(f"wanted a list of numbers, seen {_kind(value)}", key)
        for index, item in enumerate(value or ()):
            if isinstance(item, bool) or not isinstance(item, int):
                raise self.fail(f"wanted a whole number, seen {_kind(item)}", key, index)
        return None if value is None else tuple(value)

    def pcrs(self) -> dict[int, str] | None:
        """`pcr0`, `pcr1` … as one mapping."""
        found = {int(key[3:]): self.text(key) for key in tuple(self.left) if PCR_NAME.fullmatch(key)}
        if not found:
            self.known.append("pcr0, pcr1 …")
        return {number: value for number, value in found.items() if value is not None} or None

    def claims(self, key: str) -> dict[str, str | int] | None:
        """A table of names to text, whole numbers, true or false."""
        value = self._take(key)
        if value is not None and not isinstance(value, dict):
            raise self.fail(f"wanted a table, seen {_kind(value)}", key)
        for name, item in (value or {}).items():
            if not isinstance(item, (str, int)):
                raise self.fail(f"wanted text, a number, true or false, seen {_kind(item)}", key, name)
        return value

    def mask(self, key: str, size: int) -> MaskedValue | None:
        value, mask = self.text(key), self.text(f"{key}_mask")
        if value is None and mask is not None:
            raise self.fail(f"a mask without {key}", f"{key}_mask")
        return None if value is None else self.build(masked, value, mask, size, key)

    def read(self, key: str, read: Read) -> Any:
        """The value of `key` as its row in a table says, None where it is not there."""
        if isinstance(read, int):
            return self.mask(key, read)
        if read == "one or more":
            return self.texts(key, or_one=True)
        readers: dict[str, Callable[[], Any]] = {
            "text": lambda: self.text(key),
            "number": lambda: self.number(key),
            "numbers": lambda: self.numbers(key),
            "texts": lambda: self.texts(key),
            "pcrs": self.pcrs,
            "claims": lambda: self.claims(key),
        }
        return readers[read]()

    def seconds(self, key: str) -> float | None:
        """A duration: a number of seconds, or digits with s, m, h or d."""
        value = self._take(key)
        if value is None:
            return None
        found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", value if isinstance(value, str) else "")
        if found is not None:
            return float(int(found[1]) * _UNITS[found[2]])
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.fail(f'wanted seconds or a time such as "10m", seen {value!r}', key)
        return float(value)

    def moment(self, key: str) -> datetime | None:
        """A day (its first moment in UTC), or a time with its zone; TOML's own, or RFC 3339 in quotes."""
        value = self._take(key)
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value) if len(value) > 10 else date.fromisoformat(value)
            except ValueError:
                raise self.fail(f"wanted a day such as 2026-09-01, seen {value!r}", key) from None
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day, tzinfo=UTC)
        if value is not None and (not isinstance(value, datetime) or value.tzinfo is None):
            raise self.fail(f"wanted a day such as 2026-09-01, or a time with its zone, seen {value!s}", key)
        return value

    def finish(self) -> None:
        known = tuple(dict.fromkeys(self.known))
        for key in self.left:
            close = get_close_matches(key, known) or (known if len(known) <= _FEW else ())
            more = f"; close to it: {', '.join(close)}" if close else ""
            if key in _FOR_CLIENTS and "policy" in known and "clients" not in known:
                raise self.fail("stands in a policy for clients", key, hint=_OTHER_POLICY)
            raise self.fail(f"unknown key{more}", key, hint="docs/policy.md says what every key means.")


_FOR_CLIENTS = ("clients", "again", "tool", "prompt", "resource")
_OTHER_POLICY = (
    "What a server demands of its clients is for `serve --clients-policy`; this one has to say what you demand."
)


def _kind(value: object) -> str:
    words = {str: "a string", bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "a table"}
    return words.get(type(value), f"a {type(value).__name__}")
