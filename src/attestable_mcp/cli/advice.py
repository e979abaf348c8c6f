"""What `serve` has to say at its start about what clients will miss, with the command that comes next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING

from attestable_mcp.appraise.rule import rule_for
from attestable_mcp.appraise.server_policy import ServerPolicy
from attestable_mcp.cli import text_offer, text_owner
from attestable_mcp.cli.command import Arguments
from attestable_mcp.cli.terminal import printable

if TYPE_CHECKING:
    from attestable_mcp.mcp.manifest import Manifest
    from attestable_mcp.mcp.serve import RunningServer
    from attestable_mcp.tls.deployment import DeploymentHolder


def advice(running: RunningServer, holder: DeploymentHolder | None, arguments: Arguments) -> Iterator[str]:
    """No grant in force, no manifest committed to, rules about nothing: each in one sentence and one command."""
    if holder is not None and holder.deployment is None:
        yield _no_grant(running.origin, holder, arguments)
    if running.manifest is None and not arguments.no_manifest:
        yield text_offer.no_manifest(_source(arguments))
    if running.manifest is not None and arguments.clients_policy is not None:
        yield from unruled(ServerPolicy.load(arguments.clients_policy), running.manifest)


def unruled(policy: ServerPolicy, manifest: Manifest) -> Iterator[str]:
    """Rules about what the server does not list, one sentence each: a typing error opens the tool that was meant.

    Where the server lists none of a kind, nothing is said: it may list them to others. Nor is it of resources, whose
    addresses are made from templates.
    """
    for kind, rules, listed in (("tool", policy.tools, manifest.tools), ("prompt", policy.prompts, manifest.prompts)):
        names = list(listed.digests)
        for rule in rules:
            if names and not any(rule_for(name, {rule.name: rule}) for name in names):
                yield printable(text_offer.unruled(kind, rule.name, get_close_matches(rule.name, names, n=1)))


def _no_grant(origin: str, holder: DeploymentHolder, arguments: Arguments) -> str:
    """A restart makes a new key: the grant from before says what the owner will want to sign again."""
    old, source = holder.outdated, arguments.deployment_request or origin
    words = ["--name", old.name if old else "NAME"]
    for host in old.hosts if old else arguments.host or ["HOST"]:
        words += ["--host", host]
    output = [str(arguments.grant or "grant.pem"), *(["--force"] if old else [])]
    command = shlex.join(["owner", "grant", str(source), "--policy", "POLICY.toml", *words, "-o", *output])
    return text_owner.no_grant(printable(command), outdated=old is not None, watched=arguments.grant is not None)


def _source(arguments: Arguments) -> str:
    """What `manifest` takes for the same server, as words."""
    return shlex.join(["--", *arguments.command] if arguments.command else [str(arguments.target)])
