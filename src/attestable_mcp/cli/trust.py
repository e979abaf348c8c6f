"""The options that say what to demand, as one Policy. Nothing is demanded by default, so silence is an error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from attestable_mcp.appraise.policy import ACCEPTABLE_STATUSES, Policy, split_anchor
from attestable_mcp.cli import text
from attestable_mcp.cli.command import Arguments, UsageError
from attestable_mcp.cli.source import read_file
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.wire.bundle import StoredPolicy


def policy_of(arguments: Arguments, program: str) -> Policy:
    """The policy that the command line asks for. Raises: UsageError, ConfigurationError."""
    if arguments.policy and arguments.genuine_only:
        raise UsageError(text.BOTH_DEMANDS, hint=text.see_help(program))
    if not arguments.policy and not arguments.genuine_only:
        raise UsageError(text.NO_DEMAND, hint=text.NO_DEMAND_HINT)
    base = Policy.load(arguments.policy) if arguments.policy else Policy.genuine_only()
    return _adjusted(base, arguments)


def named(arguments: Arguments) -> bool:
    """Does the command line say what to demand?"""
    return bool(arguments.policy or arguments.genuine_only)


def genuine_policy(arguments: Arguments, program: str = f"{text.PROGRAM} pin") -> Policy:
    """For `pin` and `connect`: genuine hardware unless more is named. Raises: UsageError, ConfigurationError."""
    if named(arguments):
        return policy_of(arguments, program)
    return _adjusted(Policy.genuine_only(), arguments)


def stored_policy_of(arguments: Arguments) -> StoredPolicy:
    """The same demands as a bundle keeps them. Raises: ConfigurationError."""
    name, text_ = "genuine-only", ""
    if arguments.policy:
        name = arguments.policy.name
        text_ = read_file(arguments.policy, LIMITS.policy_file).decode("utf-8")
    return StoredPolicy(
        name=name,
        toml=text_,
        accept_statuses=tuple(arguments.accept_status),
        accept_products=tuple(arguments.accept_product),
        simulated=bool(arguments.danger_accept_simulated),
    )


def _adjusted(base: Policy, arguments: Arguments) -> Policy:
    for status in arguments.accept_status:
        if status not in ACCEPTABLE_STATUSES:
            raise UsageError(text.not_a_status(status, ", ".join(ACCEPTABLE_STATUSES)))
    policy = base.with_overrides(
        accept_statuses=arguments.accept_status,
        accept_products=arguments.accept_product,
        simulated=bool(arguments.danger_accept_simulated),
    )
    trust = policy.trust
    if arguments.endorsements:
        own = ("stapled",) if "stapled" in trust.endorsements else ()
        trust = replace(trust, endorsements=(*own, _existing(arguments.endorsements)))
    if arguments.anchor:
        trust = replace(trust, anchors=(_anchor(str(arguments.anchor)),))
    return replace(policy, trust=trust)


def _anchor(word: str) -> str:
    """A path, or `vendor=path`."""
    vendor, path = split_anchor(word)
    found = _existing(Path(path or word))
    return f"{vendor}={found}" if vendor and path else found


def _existing(path: Path) -> str:
    """An absolute path: a policy tells words such as "pcs" from paths by their separators."""
    if not path.exists():
        raise ConfigurationError(text.unreadable(path, "there is no such file or folder"), code="unreadable")
    return str(path.absolute())
