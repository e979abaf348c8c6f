"""Who may see and use one thing, or all that match a pattern: a table of a server's policy."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from attestable_mcp.appraise.fault import PolicyFault
from attestable_mcp.appraise.identity import measurements
from attestable_mcp.rats import Caller

Kind = Literal["tool", "prompt", "resource"]
WORDS = ("client", "measurement", "deployment", "deployment_key", "token_sha256")
"""The conditions of an entry that have a value."""
_HASHES = ("deployment_key", "token_sha256")


@dataclass(frozen=True, slots=True, kw_only=True)
class Allow:
    """One way to be allowed; what is given has to hold together.

    `client`: the name of an accepted release. `measurement`: a value measured over the code, hex. `deployment`: the
    name in the client's grant, and `deployment_key` the hash of its key. `token_sha256`: of a bearer token. `attested`:
    any client that proved itself.

    Raises:
        ConfigurationError: Nothing is given, or a value of the wrong form.
    """

    client: str | None = None
    measurement: str | None = None
    deployment: str | None = None
    deployment_key: str | None = None
    token_sha256: str | None = None
    attested: bool = False

    def __post_init__(self) -> None:
        given = [name for name in (*WORDS, "attested") if getattr(self, name)]
        if not given:
            raise PolicyFault("wanted at least one condition", hint="{ attested = true } allows every proven client")
        for name in _HASHES:
            value = getattr(self, name)
            if value is not None and not _is_hex(value, 64):
                raise PolicyFault(f"wanted 64 hex digits, seen {value!r}", name)
        if self.measurement is not None and not _is_hex(self.measurement):
            raise PolicyFault(f"wanted hex digits, seen {self.measurement!r}", "measurement")

    def holds(self, caller: Caller | None, token: str | None) -> bool:
        """Does this client, with this bearer token, meet every condition?"""
        if self.token_sha256 is not None and not _is_token(token, self.token_sha256):
            return False
        needs_caller = self.attested or any(getattr(self, name) for name in WORDS if name != "token_sha256")
        return not needs_caller or (caller is not None and self._is(caller))

    def _is(self, caller: Caller) -> bool:
        held = caller.deployment
        return (
            self.client in (None, caller.release)
            and (self.measurement is None or self.measurement.lower() in measurements(caller.code))
            and (self.deployment is None or (held is not None and held.name == self.deployment))
            and (self.deployment_key is None or (held is not None and held.key == self.deployment_key.lower()))
        )


def _is_hex(value: str, size: int | None = None) -> bool:
    return bool(value) and set(value) <= set("0123456789abcdefABCDEF") and size in (None, len(value))


def _is_token(token: str | None, wanted: str) -> bool:
    if token is None:
        return False
    return hmac.compare_digest(hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest(), wanted.lower())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Who may see and use what has this name or URI, or one that matches it (`*` and `?`).

    Raises:
        ConfigurationError: No name, or no entry.
    """

    name: str
    allow: tuple[Allow, ...]

    def __post_init__(self) -> None:
        if not self.name or not self.allow:
            raise PolicyFault("wanted a name and at least one entry in allow", "name")


def rule_for(name: str, rules: Mapping[str, Rule], *, sets: bool = True) -> Rule | None:
    """The rule with this very name, else the first whose pattern it matches; `sets`: brackets are sets."""
    matching = (rule for p, rule in rules.items() if fnmatchcase(name, p if sets else p.replace("[", "[[]")))
    return rules.get(name) or next(matching, None)


def is_open(rule: Rule | None, caller: Caller | None, token: str | None) -> bool:
    """May this client, with this bearer token, have what the rule is about? Without a rule everybody may."""
    return rule is None or any(entry.holds(caller, token) for entry in rule.allow)
