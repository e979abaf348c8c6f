"""Writes the policy that accepts exactly the server that a result speaks of, for `pin`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from attestable_mcp.appraise.kinds.base import quoted, quoted_list
from attestable_mcp.appraise.kinds.table import KINDS
from attestable_mcp.appraise.policy import SERVICES, VENDORS, Policy, split_anchor
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.rats import AttestationResult, Tee


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a server lists: the digest that its evidence commits to (hex, empty for none), and the manifest's document.

    `document` is empty where the lists could not be read, or are not those that the evidence commits to.
    """

    committed: str
    document: str = ""


def policy_toml(
    result: AttestationResult, *, source: str = "", anchors: Sequence[str] = VENDORS,
    endorsements: Sequence[str] = ("stapled", *SERVICES), offer: Offer | None = None,
) -> str:  # fmt: skip
    """Give the text of a policy that accepts exactly the code, configuration and platform status in `result`.

    `result` is that of a server verified as genuine; `source` says in words where it was met; `offer` is what it lists.

    Raises:
        ConfigurationError: the result proves nothing, or shows a debuggable enclave, which no pin accepts.
    """
    if not result.admitted:
        raise ConfigurationError("nothing was proven of this server, so there is nothing to pin")
    if result.claims.get("debug") is not False:
        raise ConfigurationError("this server's enclave is debuggable: its measurement keeps nobody out")
    lines = [*_head(result, source), *_trust(result, anchors, endorsements), "", *_rules(result), *_deployment(result)]
    lines += _manifest(offer) if offer is not None else ()
    text = "\n".join(lines) + "\n"
    Policy.from_toml(text, "pinned policy")  # what is written can be read
    return text


def _comment(text: str) -> str:
    """One printable line: what a peer or a shell gave must not end the comment."""
    return "# " + "".join(letter if letter.isprintable() else " " for letter in text)


def _head(result: AttestationResult, source: str) -> Iterator[str]:
    met = f" from {source}" if source else ""
    yield _comment(f"Accepts exactly the server that was met{met} at {result.at.strftime('%Y-%m-%dT%H:%M:%SZ')}.")
    yield "# It was proven to be genuine. Whether its code is good, its makers and reviewers must say."
    if result.simulated:
        yield "# SIMULATED EVIDENCE: this server proves nothing about hardware. For tests and demonstrations only."
    yield ""


def _needed(result: AttestationResult, anchors: Sequence[str]) -> tuple[str, ...]:
    """Of the anchors those that this kind of TEE needs: a pin trusts nobody whom it need not trust."""
    vendor = KINDS[Tee(result.tee)].vendor
    return tuple(name for name in anchors if split_anchor(name)[0] in ("", vendor))


def _trust(result: AttestationResult, anchors: Sequence[str], endorsements: Sequence[str]) -> Iterator[str]:
    yield "[trust]"
    yield "# Whose signature counts: a vendor's word stands for its own root, a path for a PEM certificate."
    yield f"anchors = {quoted_list(_needed(result, anchors))}"
    yield "# Where collateral (certificates, revocation lists, platform status) may come from, in this order."
    yield f"endorsements = {quoted_list(tuple(endorsements))}"
    yield "# Each connection is proven anew."
    yield 'freshness = "connection"'
    if result.simulated:
        yield "# The server runs on the simulated attester: take this line out before anything real depends on it."
        yield 'simulated = "accept"'


def _deployment(result: AttestationResult) -> Iterator[str]:
    if result.deployment is None:
        return
    yield ""
    yield "[deployment]"
    yield "# Whose copy it is: the SHA-256 of its owner's key. Compare it with what the owner itself tells you."
    yield f"owner = {quoted(result.deployment.owner)}"
    yield "# Which of the owner's deployments."
    yield f"name = {quoted(result.deployment.name)}"


def _manifest(offer: Offer) -> Iterator[str]:
    yield ""
    yield "[manifest]"
    if not offer.committed:
        yield "# The server's evidence commits to no manifest: what it lists first is taken, and must not change."
        yield 'mode = "uncommitted"'
        return
    yield "# The tools, prompts and resources of this server: what is added or changed later is refused."
    yield 'mode = "pinned"'
    yield f"digest = {quoted(offer.committed)}"
    if offer.document:
        yield "# The same in full, so that a difference can be shown. Names under dynamic may come, go and change:"
        yield '# dynamic = ["search_*"]'
        literal = "'''" not in offer.document and offer.document.isprintable()
        yield f"document = '''{offer.document}'''" if literal else f"document = {quoted(offer.document)}"


def _rules(result: AttestationResult) -> Iterator[str]:
    yield "[policy]"
    yield f"tee = {quoted(result.tee)}"
    yield from KINDS[Tee(result.tee)].pin(result)
