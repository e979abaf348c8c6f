"""Which clients a server accepts, and which of them may see and use which tool, prompt and resource.

    clients = "required"                 # "none", "optional" or "required"

    [trust]  [policy]  [deployment]      # as in a client's policy, here about clients

    [[tool]]
    name = "transfer"                    # or a pattern such as "delete_*"
    allow = [{ client = "billing" }, { deployment = "prod", token_sha256 = "…" }]

    [[prompt]]                           # likewise
    [[resource]]
    uri = "ledger://accounts/*"          # held against every reading of a URI (appraise.uris)
    allow = [{ attested = true }]

Of the entries of `allow` one has to hold whole. What no table names is for every client that is admitted.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from attestable_mcp.appraise.fault import PolicyFault
from attestable_mcp.appraise.lines import key_lines
from attestable_mcp.appraise.policy import Places, Policy
from attestable_mcp.appraise.reading import load_text, policy_of, syntax
from attestable_mcp.appraise.rule import WORDS, Allow, Kind, Rule, is_open, rule_for
from attestable_mcp.appraise.section import Section
from attestable_mcp.appraise.uris import folded_pattern, may_lead_to, readings
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.rats import Caller

Mode = Literal["none", "optional", "required"]
MODES = ("none", "optional", "required")
_KEYS: Mapping[Kind, str] = {"tool": "name", "prompt": "name", "resource": "uri"}
"""By what each kind is named, in the policy as in MCP."""
_EXAMPLES: Mapping[Kind, str] = {
    "tool": '"transfer", or a pattern such as "delete_*"',
    "prompt": '"payroll", or a pattern such as "hr_*"',
    "resource": '"ledger://accounts/7", or a pattern such as "ledger://accounts/*"',
}
_PLAINLY = "Write it plainly: no fragment, no . or .. as a segment, * for a {part}, no sign of patterns behind a %."


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPolicy:
    """What a server demands of clients. `policy` judges those that prove themselves.

    "optional" also serves clients that prove nothing, or are refused, with no attested identity. `again` is how long a
    client's proof is good for on one connection, in seconds.

    Raises:
        ConfigurationError: Clients are to prove themselves and nothing says which are accepted; a rule names a release
            or a deployment that the policy does not.
    """

    clients: Mode = "none"
    policy: Policy | None = None
    tools: tuple[Rule, ...] = ()
    prompts: tuple[Rule, ...] = ()
    resources: tuple[Rule, ...] = ()
    again: float | None = None
    name: str = "clients"

    def __post_init__(self) -> None:
        if self.clients not in MODES:
            raise PolicyFault(f"wanted one of {', '.join(MODES)}, seen {self.clients!r}", "clients")
        if self.clients != "none" and self.policy is None:
            raise PolicyFault("nothing says which clients are accepted", "clients", hint="Add a [policy] table.")
        if self.policy is not None and self.policy.trust.freshness != "connection":
            raise PolicyFault('a client proves itself live: wanted freshness = "connection"', "trust", "freshness")
        if self.again is not None and self.again <= 0:
            raise PolicyFault(f"wanted a time above 0, seen {self.again:g}", "again")
        for kind in _KEYS:
            self._consistent(kind)

    def _consistent(self, kind: Kind) -> None:
        seen: set[str] = set()
        for index, rule in enumerate(self.rules(kind)):
            meant = folded_pattern(rule.name) if kind == "resource" else rule.name
            if meant is None:
                raise PolicyFault(f"{rule.name!r} can be read in more than one way", kind, index, "uri", hint=_PLAINLY)
            if meant in seen:
                raise PolicyFault(f"{rule.name!r} has a table already", kind, index, _KEYS[kind])
            seen.add(meant)
            for entry in rule.allow:
                self._reachable(entry, kind, index)

    def _reachable(self, entry: Allow, kind: Kind, index: int) -> None:
        """A condition that no client can ever meet is a mistake, not a rule."""
        wants = [word for word in WORDS if getattr(entry, word) is not None and word != "token_sha256"]
        if (wants or entry.attested) and self.clients == "none":
            raise PolicyFault('clients = "none": nobody proves anything', kind, index, "allow")
        labels = {release.label for release in self.policy.rules.releases} if self.policy else set()
        if entry.client is not None and entry.client not in labels:
            raise PolicyFault(f"no [[policy.accept]] table is named {entry.client!r}", kind, index, "allow")
        if (entry.deployment or entry.deployment_key) and (self.policy is None or self.policy.deployment is None):
            raise PolicyFault("a deployment means something only under an owner", kind, index, "allow",
                              hint="Add a [deployment] table with the owner's key.")  # fmt: skip

    @classmethod
    def from_toml(cls, text: str, name: str = "clients", *, base: Path | None = None) -> ServerPolicy:
        """Read a server's policy from TOML. Raises: ConfigurationError with file and line."""
        return read_server_policy(text, name, base)

    @classmethod
    def load(cls, path: str | Path) -> ServerPolicy:
        """Read a server's policy file (UTF-8 TOML). Raises: ConfigurationError."""
        return read_server_policy(load_text(Path(path)), Path(path).name, Path(path).parent)

    @property
    def reserves(self) -> bool:
        """Is anything kept from some of the clients?"""
        return bool(self.tools or self.prompts or self.resources)

    def rules(self, kind: Kind) -> tuple[Rule, ...]:
        """The tables of one kind."""
        return {"tool": self.tools, "prompt": self.prompts, "resource": self.resources}[kind]

    def allows(self, kind: Kind, name: str, caller: Caller | None, token: str | None) -> bool:
        """May this client see and use the tool or prompt of this name, or the resource of this URI?

        A URI that could be taken for several is for those who may use all of them; one without a reading for nobody.
        """
        rules = self.rules(kind)
        if not rules:
            return True
        plain = {rule.name: rule for rule in rules}
        if kind != "resource":
            return is_open(rule_for(name, plain), caller, token)
        folded = {folded_pattern(rule.name) or "*": rule for rule in rules}
        found = [rule_for(form, folded if nth else plain, sets=False) for nth, form in enumerate(readings(name))]
        return bool(found) and all(is_open(rule, caller, token) for rule in found)

    def allows_below(self, template: str, caller: Caller | None, token: str | None) -> bool:
        """May this client learn which resources a URI template leads to?"""
        return all(
            is_open(rule, caller, token)
            for rule in self.resources
            if may_lead_to(template, folded_pattern(rule.name) or "*")
        )


def read_server_policy(text: str, name: str, base: Path | None = None) -> ServerPolicy:
    """The policy in `text`. Raises: ConfigurationError with file and line."""
    try:
        document = tomllib.loads(text)
        places = Places(file=name, lines=MappingProxyType(key_lines(text)))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(syntax(str(error), name, text), hint="Policies are TOML 1.0.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{name}: not a policy: {error}", hint="Policies are TOML 1.0.") from error
    root = Section(places, (), document)
    values: dict[str, Any] = {"clients": root.text("clients"), "again": root.seconds("again")}
    if values["clients"] is None:
        raise root.fail("clients is missing", hint=f"clients = one of {', '.join(MODES)}")
    rules = {f"{kind}s": tuple(_rule(each, kind) for each in root.sections(kind)) for kind in _KEYS}
    judged = policy_of(root, name, base, places) if "policy" in root.left else None
    root.finish()
    return root.build(ServerPolicy, policy=judged, name=name, **rules, **values)


def _rule(section: Section, kind: Kind) -> Rule:
    key = _KEYS[kind]
    name = section.text(key)
    if name is None:
        raise section.fail(f"{key} is missing", hint=f"{key} = {_EXAMPLES[kind]}")
    entries = tuple(_allow(entry) for entry in section.sections("allow"))
    section.finish()
    if not entries:
        raise section.fail("allow is missing", hint='allow = [{ client = "billing" }]')
    return section.build(Rule, name=name, allow=entries)


def _allow(section: Section) -> Allow:
    values: dict[str, Any] = {word: section.text(word) for word in WORDS}
    attested = section.flag("attested")
    section.finish()
    return section.build(Allow, attested=bool(attested), **values)
