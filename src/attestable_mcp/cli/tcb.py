"""`tcb SOURCE`: how up to date a platform is, what it is short of, and when the answer changes."""

from __future__ import annotations

from datetime import UTC, datetime

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.cli import text, text_tcb
from attestable_mcp.cli.command import Arguments, Parser, UsageError, add_timeout, add_trust, existing_path, moment
from attestable_mcp.cli.source import Address, open_source
from attestable_mcp.cli.tcb_report import Report
from attestable_mcp.cli.terminal import Terminal
from attestable_mcp.cli.trust import genuine_policy
from attestable_mcp.errors import EXIT_VERIFIED, UnsupportedEvidence
from attestable_mcp.rats import Endorsements, Evidence
from attestable_mcp.wire import ratls
from attestable_mcp.wire.bundle import Bundle, FileSubject, is_bundle, read_bundle
from attestable_mcp.wire.recognise import Certificate, recognise


def configure(parser: Parser) -> None:
    """`tcb [SOURCE] [--early PATH | --no-early] [--at TIME] [--forget] [...]`."""
    parser.add_argument("source", metavar="SOURCE", nargs="?", help=text_tcb.HELP_TCB_SOURCE)
    parser.add_argument("--early", metavar="PATH", type=existing_path, help=text_tcb.HELP_EARLY)
    parser.add_argument("--no-early", action="store_true", help=text_tcb.HELP_NO_EARLY)
    parser.add_argument("--forget", action="store_true", help=text_tcb.HELP_FORGET)
    parser.add_argument("--at", metavar="RFC3339", type=moment, help=text.HELP_AT)
    add_trust(parser)
    add_timeout(parser)


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Print the platform's standing; the exit code says whether the policy accepts it now and later."""
    if arguments.forget:
        return _forget(arguments, terminal)
    if not arguments.source:
        raise UsageError(text_tcb.NO_SOURCE, hint=text.see_help(f"{text.PROGRAM} tcb"))
    policy = genuine_policy(arguments)
    at = arguments.at or datetime.now(UTC)
    evidence, stapled = _evidence(arguments)
    report = _report(evidence, stapled, policy, at, arguments)
    if terminal.json:
        terminal.emit(report.to_json())
    else:
        for line in report.lines(terminal):
            terminal.data(line)
    return report.exit_code


def _report(evidence: Evidence, stapled: Endorsements, policy: Policy, at: datetime, arguments: Arguments) -> Report:
    """Intel publishes statuses of platforms, also of those that Azure's evidence wraps; others are told of by kind."""
    from attestable_mcp.cli.tcb_intel import intel_report, td_quote_of
    from attestable_mcp.cli.tcb_kinds import kind_report
    from attestable_mcp.platformfile import with_platforms

    policy = with_platforms(policy)
    quote = td_quote_of(evidence)
    if quote is None:
        return kind_report(evidence, stapled, policy, at)
    return intel_report(evidence, quote, stapled, policy, at, arguments)


def _forget(arguments: Arguments, terminal: Terminal) -> int:
    from attestable_mcp.watermarks import Watermarks, default_path

    if arguments.source:
        raise UsageError(text_tcb.FORGET_ALONE, hint=text.see_help(f"{text.PROGRAM} tcb"))
    path = default_path()
    count = Watermarks(path).forget()
    if terminal.json:
        terminal.emit({"forgot": count, "file": str(path)})
    else:
        terminal.say(text_tcb.forgot(count, path))
    return EXIT_VERIFIED


def _evidence(arguments: Arguments) -> tuple[Evidence, Endorsements]:
    """The first piece of evidence of the source, and what came stapled to it. Nothing is verified yet."""
    source = open_source(arguments.source)
    if isinstance(source, Address):
        from attestable_mcp.cli.live import certificate_of

        found: Certificate | Evidence = Certificate(der=certificate_of(source.url, arguments.timeout))
    elif is_bundle(source.data):
        return _kept(read_bundle(source.data))
    else:
        found = recognise(source.data)
    return _first(found)


def _kept(bundle: Bundle) -> tuple[Evidence, Endorsements]:
    """The evidence of a bundle, with all the collateral that its verdict rested on."""
    subject = bundle.subject
    evidence, endorsements = _first(
        recognise(subject.data) if isinstance(subject, FileSubject) else Certificate(der=subject.certificate)
    )
    for answer in bundle.answers:
        if isinstance(answer.answer, Endorsements):
            endorsements += answer.answer
    return evidence, endorsements


def _first(found: Certificate | Evidence) -> tuple[Evidence, Endorsements]:
    if not isinstance(found, Certificate):
        return found, Endorsements()
    read = ratls.read(found.der)
    if not read.evidence:
        raise UnsupportedEvidence(text_tcb.ORDINARY)
    return read.evidence[0].evidence, read.endorsements or Endorsements()
