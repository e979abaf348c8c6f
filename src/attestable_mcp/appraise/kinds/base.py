"""What a row of the table of kinds says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

from attestable_mcp.appraise.findings import Comparison, Rule
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.rats import AttestationResult, Claims, Finding, Tee

Read: TypeAlias = Literal["text", "number", "numbers", "texts", "one or more", "pcrs", "claims"] | int
"""How a key is read from TOML; a number is the size in bytes of exact bits, beside which `KEY_mask` may stand.

`pcrs` reads `pcr0`, `pcr1` and so on into one mapping of number to text, `claims` a table of scalars.
"""
PCRS = "pcrs"


class Release(Protocol):
    """One accepted build of one kind of TEE: a frozen dataclass that cannot be built without saying which code."""

    label: str
    tee: ClassVar[Tee]


class State(Protocol):
    """Rules on the state of a platform that only some kinds have: a frozen dataclass whose defaults are strict.

    `READ` says how each field is read from [policy]; `ABOUT` names the kinds in words.
    """

    READ: ClassVar[Mapping[str, Read]]
    ABOUT: ClassVar[str]


def _nothing(*_: object) -> Iterator[str]:
    return iter(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of TEE as policies see it.

    `vendor` is the word of `[trust] anchors` under which its roots stand. `keys` are the TOML keys of its release;
    `heads` are groups of keys, one of each group being what makes a table a release of this kind. `code` names the
    claims that say which code runs, in the order in which a person wants to read them: what the vendor may change under
    the code is none of them. `compare` holds a release against claims; `rules` are those of this kind alone; `pin`
    writes the lines of a policy that accepts what a result shows; `open_ends` says what a release of this kind, having
    held, leaves unproven; `debug` whether claims show a debuggable TEE.
    """

    tee: Tee
    vendor: str
    release: type[Any]
    keys: Mapping[str, Read]
    heads: tuple[frozenset[str], ...]
    code: tuple[str, ...]
    compare: Callable[[Comparison, Any], Iterator[Finding]]
    pin: Callable[[AttestationResult], Iterator[str]]
    rules: tuple[Rule, ...] = ()
    states: tuple[type[State], ...] = ()
    open_ends: Callable[[Any, Claims], Iterator[str]] = _nothing
    debug: Callable[[Claims], bool] = lambda claims: claims.debug
    hints: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


# What the writers of pins share.


def quoted(value: str) -> str:
    """A TOML basic string."""
    special = {'"': '\\"', "\\": "\\\\"}
    return '"' + "".join(special.get(c, c if c.isprintable() else f"\\U{ord(c):08x}") for c in value) + '"'


def quoted_list(values: tuple[str, ...]) -> str:
    """A TOML array of strings."""
    return "[" + ", ".join(quoted(value) for value in values) + "]"


def claim(result: AttestationResult, name: str) -> str:
    """A claim that the pin needs. Raises: ConfigurationError."""
    value = result.claims.get(name)
    if not isinstance(value, str):
        raise ConfigurationError(f"the result holds no {name}, so it cannot be pinned")
    return value


def number(result: AttestationResult, name: str) -> int:
    """A claim that is a number. Raises: ConfigurationError."""
    value = result.claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(f"the result holds no {name}, so it cannot be pinned")
    return value
