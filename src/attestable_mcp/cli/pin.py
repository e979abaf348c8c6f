"""`pin URL`: verify a server as genuine, then write the policy that accepts exactly this server; and the pins of
`connect`."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.cli import text, text_offer, text_pins
from attestable_mcp.cli.command import Arguments, Parser, UsageError, add_timeout, existing_path
from attestable_mcp.cli.gate import add_meeting, gate_of
from attestable_mcp.cli.output import refuse_overwrite, write_file
from attestable_mcp.cli.report import show
from attestable_mcp.cli.source import address
from attestable_mcp.cli.terminal import Terminal
from attestable_mcp.cli.trust import genuine_policy
from attestable_mcp.errors import AttestationError
from attestable_mcp.rats import AttestationResult

if TYPE_CHECKING:
    from attestable_mcp.appraise.write import Offer
    from attestable_mcp.tls.admission import Gate

_PROGRAM = f"{text.PROGRAM} pin"


def configure(parser: Parser) -> None:
    """`pin URL [-o FILE] [--force]`, `pin --update URL [--yes]`, `pin --forget URL`, `pin --list`."""
    parser.add_argument("url", metavar="URL", nargs="?", help=text.HELP_URL)
    group = parser.add_argument_group(text_pins.GROUP)
    group.add_argument("--update", action="store_true", help=text_pins.HELP_UPDATE)
    group.add_argument("--yes", action="store_true", help=text_pins.HELP_YES)
    group.add_argument("--list", action="store_true", help=text_pins.HELP_LIST)
    group.add_argument("--forget", action="store_true", help=text_pins.HELP_FORGET)
    parser.add_argument("-o", "--output", metavar="FILE", type=existing_path, help=text.HELP_OUTPUT)
    parser.add_argument("--force", action="store_true", help=text.HELP_FORCE)
    add_meeting(parser)
    add_timeout(parser)


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Write or print a policy, or do what one of the options about pins says."""
    mode = _mode(arguments)
    if mode is None:
        return _write_policy(arguments, terminal)
    from attestable_mcp.cli import pinned

    if mode == "list":
        return pinned.show_list(terminal)
    if mode == "forget":
        return pinned.forget(arguments, terminal)
    return pinned.update(arguments, gate_of(arguments, genuine_policy(arguments)), terminal)


def _mode(arguments: Arguments) -> str | None:
    """`update`, `list`, `forget` or None. Raises: UsageError for words that do not go together."""
    modes = [name for name in ("update", "list", "forget") if getattr(arguments, name)]
    if len(modes) > 1:
        raise UsageError(text_pins.ONE_MODE, hint=text.see_help(_PROGRAM))
    if modes == ["list"] and arguments.url is not None:
        raise UsageError(text_pins.URL_WITH_LIST, hint=text.see_help(_PROGRAM))
    if modes != ["list"] and arguments.url is None:
        raise UsageError(text_pins.NO_URL, hint=text.see_help(_PROGRAM))
    if modes and arguments.output is not None:
        raise UsageError(text_pins.OUTPUT_WITH_MODE, hint=text.see_help(_PROGRAM))
    return modes[0] if modes else None


def _write_policy(arguments: Arguments, terminal: Terminal) -> int:
    """It is tried on the server before it is written, so 0 means: it accepts this server."""
    url = address(arguments.url)
    policy = genuine_policy(arguments)
    refuse_overwrite(arguments.output, arguments.force)
    from attestable_mcp.appraise.write import policy_toml
    from attestable_mcp.cli.live import meet, meet_peer
    from attestable_mcp.tls.replay import outcome

    gate = gate_of(arguments, policy)
    peer = meet_peer(url, gate, arguments.timeout)
    genuine = outcome(peer)
    if not genuine.admitted:
        show(terminal, genuine)
        return genuine.exit_code
    offer = _offer(url, gate, peer.commitments.manifest, arguments.timeout)
    written = policy_toml(
        genuine,
        source=url,
        anchors=policy.trust.anchors,
        endorsements=policy.trust.endorsements,
        offer=offer,
    )
    result = meet(url, gate_of(arguments, Policy.from_toml(written, "pinned policy")), arguments.timeout)
    result = replace(result, not_proven=(*result.not_proven, text.PINNED_ON_FIRST_USE))
    if not result.admitted:
        show(terminal, result)
        return result.exit_code
    _hand_over(written, result, arguments, terminal)
    if not offer.document:
        terminal.say(text_offer.OFFER_UNREAD if offer.committed else text_offer.NO_OFFER)
    return result.exit_code


def _offer(url: str, gate: Gate, committed: bytes, timeout: float) -> Offer:
    """What the server lists, if that is what its evidence commits to."""
    from attestable_mcp.appraise.write import Offer
    from attestable_mcp.cli.live import list_all

    if not committed:
        return Offer(committed="")
    try:
        manifest, peer = list_all(url, gate, timeout)
    except AttestationError:  # it may want authorization: the digest alone is pinned then
        return Offer(committed=committed.hex())
    digest = peer.commitments.manifest
    document = json.dumps(manifest.to_json(), separators=(",", ":")) if manifest.digest == digest else ""
    return Offer(committed=digest.hex(), document=document)


def _hand_over(written: str, result: AttestationResult, arguments: Arguments, terminal: Terminal) -> None:
    if arguments.output:
        write_file(arguments.output, written, force=arguments.force)
    if terminal.json:
        show(terminal, result, {"policy_toml": written, "written": str(arguments.output) if arguments.output else None})
    elif arguments.output:
        terminal.say(text.pinned(arguments.output))
    else:
        terminal.data(written.rstrip())
    if not terminal.json:
        terminal.say(text.PINNED_NOTE)
