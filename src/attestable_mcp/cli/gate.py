"""What judges the server that a verb meets, and what proves this end to it: one answer for every verb.

A policy that is named is the judge. Where none is, `pin` and `connect` ask for genuine hardware; the others ask for a
server that is pinned already, and refuse to be the first to trust anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.cli import text, text_owner, text_pins
from attestable_mcp.cli.command import Arguments, Parser, UsageError, add_trust
from attestable_mcp.cli.trust import genuine_policy, named, policy_of

if TYPE_CHECKING:
    from attestable_mcp.attest.base import Attester
    from attestable_mcp.tls.admission import Gate, LastWord


def add_meeting(parser: Parser) -> None:
    """What to demand of a server, and `--attester`: what it may demand of this end."""
    add_trust(parser)
    parser.add_argument("--attester", metavar="NAME", help=text_owner.HELP_ATTESTER)


def attester_of(name: str | None) -> Attester | None:
    """What proves this end. A simulated one reports the code of this package. Raises: AttestationError."""
    from attestable_mcp.attest.detect import choose
    from attestable_mcp.attest.measurement import measure_target

    return None if name is None else choose(name, measured=lambda: measure_target("attestable_mcp.mcp.bridge"))


def gate_of(arguments: Arguments, policy: Policy, pins: LastWord | None = None) -> Gate:
    """What judges by `policy`, and by `pins` where there are any. Raises: AttestationError."""
    from attestable_mcp.mcp.gate import make_gate

    return make_gate(policy, pins=pins, attester=attester_of(arguments.attester))


def demanded(arguments: Arguments, program: str, url: str) -> tuple[Policy, LastWord | None]:
    """The policy that is named, or genuine hardware with the pin of `url`; nothing is ever pinned by this.

    Raises: UsageError where no policy is named and nothing is pinned; ConfigurationError.
    """
    return (policy_of(arguments, program), None) if named(arguments) else pinned(arguments, program, url)


def pinned(arguments: Arguments, program: str, url: str) -> tuple[Policy, LastWord]:
    """As `demanded`, where no policy is named."""
    from attestable_mcp.tls.origins import origin_of
    from attestable_mcp.tls.pins import Pins

    pins, origin = Pins(first_use="refuse"), str(origin_of(url))
    if pins.get(origin) is None:
        raise UsageError(text_pins.nothing_pinned(origin, text.NO_DEMAND), hint=text_pins.NOTHING_PINNED_HINT)
    return genuine_policy(arguments, program), pins
