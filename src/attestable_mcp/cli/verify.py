"""`verify SOURCE`: prove and judge a live server or stored evidence, and say everything that was found."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.cli import text, text_token
from attestable_mcp.cli.command import Arguments, Parser, UsageError, add_timeout, add_trust, moment
from attestable_mcp.cli.report import show
from attestable_mcp.cli.source import Address, Stored, open_source
from attestable_mcp.cli.terminal import Terminal, printable
from attestable_mcp.cli.token import add_nonce, add_token, token_writer
from attestable_mcp.cli.trust import policy_of
from attestable_mcp.rats import AttestationResult
from attestable_mcp.wire.bundle import Bundle, is_bundle, read_bundle, recorded_findings, recorded_verdict


def configure(parser: Parser) -> None:
    """`verify SOURCE (--policy FILE | --genuine-only) [...]`."""
    parser.add_argument("source", metavar="SOURCE", help=text.HELP_SOURCE)
    add_trust(parser)
    parser.add_argument("--at", metavar="RFC3339", type=moment, help=text.HELP_AT)
    add_nonce(parser)
    add_token(parser)
    add_timeout(parser)


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Print the result; its verdict is the exit code. With --token a signed one is written as well."""
    sign = token_writer(arguments)  # before anything is judged, so that nobody waits for a no
    demanded = arguments.policy or arguments.genuine_only
    policy = policy_of(arguments, f"{text.PROGRAM} verify") if demanded else None
    source = open_source(arguments.source)
    if isinstance(source, Stored) and is_bundle(source.data):
        if arguments.token or arguments.nonce:
            raise UsageError(text_token.OF_BUNDLE, hint=text.see_help(f"{text.PROGRAM} verify"))
        return _bundle(source.data, policy, arguments, terminal)
    policy = policy or policy_of(arguments, f"{text.PROGRAM} verify")
    if arguments.nonce:
        policy = policy.with_nonce(arguments.nonce)
    if isinstance(source, Address):
        if arguments.at:
            raise UsageError(text.AT_WITH_URL, hint=text.see_help(f"{text.PROGRAM} verify"))
        result = _live(source.url, policy, arguments.timeout)
    else:
        result = _stored(source.data, policy, arguments.at or datetime.now(UTC))
    sign(result)
    show(terminal, result)
    return result.exit_code


def _bundle(data: bytes, policy: Policy | None, arguments: Arguments, terminal: Terminal) -> int:
    """A replay: as of --at or else of now, by the policy given or else by the bundle's own. Nobody is asked."""
    from attestable_mcp.tls.replay import replay

    own = policy is None
    if own and (
        arguments.accept_status or arguments.accept_product or arguments.danger_accept_simulated or arguments.anchor
    ):
        raise UsageError(text.BUNDLE_DEMANDS, hint=text.see_help(f"{text.PROGRAM} verify"))
    bundle = read_bundle(data)
    result = replay(bundle, arguments.at or datetime.now(UTC), policy)
    facts = _facts(bundle, result, own)
    if not terminal.json:
        terminal.say(text.bundle_facts(facts["made_at"], printable(bundle.source), printable(result.policy), own))
        terminal.say(text.replayed(printable(facts["recorded_verdict"]), facts["same_findings"]))
    show(terminal, result, {"bundle": facts})
    if not terminal.json and not arguments.at:
        terminal.say(text.replay_hint(facts["made_at"]))
    return result.exit_code


def _facts(bundle: Bundle, result: AttestationResult, own: bool) -> dict[str, Any]:
    findings = [finding.to_json() for finding in result.findings]
    return {
        "made_at": bundle.made_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "source": bundle.source,
        "policy_from": "bundle" if own else "yours",
        "recorded_verdict": recorded_verdict(bundle) or "none",
        "same_findings": recorded_findings(bundle) == findings,
    }


def _live(url: str, policy: Policy, timeout: float) -> AttestationResult:
    from attestable_mcp.cli.live import meet

    return meet(url, policy, timeout)


def _stored(data: bytes, policy: Policy, at: datetime) -> AttestationResult:
    from attestable_mcp.verifier import Verifier

    return Verifier(policy).appraise_source(data, at).result
