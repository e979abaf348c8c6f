"""`verify SOURCE`: prove and judge a live server or stored evidence, and say everything that was found."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.cli import text, text_token
from attestable_mcp.cli.command import Arguments, Parser, UsageError, add_timeout, moment
from attestable_mcp.cli.gate import add_meeting, gate_of, pinned
from attestable_mcp.cli.report import show
from attestable_mcp.cli.source import Address, Stored, open_source
from attestable_mcp.cli.terminal import Terminal, printable
from attestable_mcp.cli.token import add_nonce, add_token, token_writer
from attestable_mcp.cli.trust import named, policy_of
from attestable_mcp.rats import AttestationResult
from attestable_mcp.wire.bundle import Bundle, is_bundle, read_bundle, recorded_result, recorded_verdict

_PROGRAM = f"{text.PROGRAM} verify"


def configure(parser: Parser) -> None:
    """`verify SOURCE [--policy FILE | --genuine-only] [...]`."""
    parser.add_argument("source", metavar="SOURCE", help=text.HELP_SOURCE)
    add_meeting(parser)
    parser.add_argument("--at", metavar="RFC3339", type=moment, help=text.HELP_AT)
    add_nonce(parser)
    add_token(parser)
    add_timeout(parser)


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Print the result; its verdict is the exit code. With --token a signed one is written as well."""
    sign = token_writer(arguments)  # before anything is judged, so that nobody waits for a no
    policy = policy_of(arguments, _PROGRAM) if named(arguments) else None
    source = open_source(arguments.source)
    if arguments.attester and not isinstance(source, Address):
        raise UsageError(text.ATTESTER_WITH_FILE, hint=text.see_help(_PROGRAM))
    if isinstance(source, Stored) and is_bundle(source.data):
        if arguments.token or arguments.nonce:
            raise UsageError(text_token.OF_BUNDLE, hint=text.see_help(_PROGRAM))
        return _bundle(source.data, policy, arguments, terminal)
    if isinstance(source, Address):
        result = _live(source.url, policy, arguments)
    else:
        result = _stored(source.data, policy or policy_of(arguments, _PROGRAM), arguments)
    sign(result)
    show(terminal, result, kind="" if isinstance(source, Address) else "file")
    return result.exit_code


def _bundle(data: bytes, policy: Policy | None, arguments: Arguments, terminal: Terminal) -> int:
    """A replay: as of --at or else of now, by the policy given or else by the bundle's own. Nobody is asked."""
    from attestable_mcp.tls.replay import replay

    own = policy is None
    if own and (
        arguments.accept_status or arguments.accept_product or arguments.danger_accept_simulated or arguments.anchor
    ):
        raise UsageError(text.BUNDLE_DEMANDS, hint=text.see_help(_PROGRAM))
    bundle = read_bundle(data)
    result = replay(bundle, arguments.at or datetime.now(UTC), policy)
    facts = _facts(bundle, result, own)
    if not terminal.json:
        terminal.say(text.bundle_facts(facts["made_at"], printable(bundle.source), printable(result.policy), own))
        terminal.say(text.replayed(printable(facts["recorded_verdict"]), facts["same_findings"], facts["same_result"]))
    show(terminal, result, {"bundle": facts}, kind="bundle" if own else "file")
    if not terminal.json and not arguments.at:
        terminal.say(text.replay_hint(facts["made_at"]))
    return result.exit_code


def _facts(bundle: Bundle, result: AttestationResult, own: bool) -> dict[str, Any]:
    """How the replay compares with the record. What a replay cannot show again stands apart, and is no difference."""
    recorded, seen = recorded_result(bundle), result.to_json()
    before = recorded.get("not_proven")
    known = before if isinstance(before, list) else []
    return {
        "made_at": bundle.made_at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "source": bundle.source,
        "policy_from": "bundle" if own else "yours",
        "recorded_verdict": recorded_verdict(bundle) or "none",
        "same_findings": recorded.get("findings") == seen["findings"],
        "same_result": {**recorded, "not_proven": None} == {**seen, "not_proven": None},
        "not_shown_again": [sentence for sentence in result.not_proven if sentence not in known],
        "provenance_not_judged": [name for name, _ in bundle.provenance],
    }


def _live(url: str, policy: Policy | None, arguments: Arguments) -> AttestationResult:
    if arguments.at:
        raise UsageError(text.AT_WITH_URL, hint=text.see_help(_PROGRAM))
    demand, pins = (policy, None) if policy else pinned(arguments, _PROGRAM, url)
    gate = gate_of(arguments, _with_nonce(demand, arguments), pins)
    from attestable_mcp.cli.live import meet_peer
    from attestable_mcp.cli.offered import with_offer
    from attestable_mcp.tls.replay import outcome

    peer = meet_peer(url, gate, arguments.timeout)
    return with_offer(outcome(peer), demand, peer.commitments.manifest)


def _stored(data: bytes, policy: Policy, arguments: Arguments) -> AttestationResult:
    from attestable_mcp.verifier import Verifier

    return Verifier(_with_nonce(policy, arguments)).appraise_source(data, arguments.at or datetime.now(UTC)).result


def _with_nonce(policy: Policy, arguments: Arguments) -> Policy:
    return policy.with_nonce(arguments.nonce) if arguments.nonce else policy
