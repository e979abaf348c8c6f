"""`bundle SOURCE -o FILE`: judge, and save the verdict with everything that it rests on."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from attestable_mcp.cli import text
from attestable_mcp.cli.command import Arguments, Parser, UsageError, add_timeout, add_trust, existing_path, moment
from attestable_mcp.cli.output import refuse_overwrite, write_file
from attestable_mcp.cli.report import show
from attestable_mcp.cli.source import Address, open_source, read_file
from attestable_mcp.cli.terminal import Terminal, printable
from attestable_mcp.cli.trust import policy_of, stored_policy_of
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.wire.bundle import Bundle


def configure(parser: Parser) -> None:
    """`bundle SOURCE -o FILE (--policy FILE | --genuine-only) [...]`."""
    parser.add_argument("source", metavar="SOURCE", help=text.HELP_SOURCE)
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=existing_path, required=True, help=text.HELP_BUNDLE_OUTPUT
    )
    parser.add_argument("--force", action="store_true", help=text.HELP_FORCE)
    parser.add_argument(
        "--provenance", metavar="FILE", type=existing_path, action="append", default=[], help=text.HELP_PROVENANCE
    )
    add_trust(parser)
    parser.add_argument("--at", metavar="RFC3339", type=moment, help=text.HELP_AT)
    add_timeout(parser)


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Write the file and print the result; its verdict is the exit code."""
    policy, stored = policy_of(arguments, f"{text.PROGRAM} bundle"), stored_policy_of(arguments)
    source = open_source(arguments.source)
    if isinstance(source, Address) and arguments.at:
        raise UsageError(text.AT_WITH_URL, hint=text.see_help(f"{text.PROGRAM} bundle"))
    refuse_overwrite(arguments.output, arguments.force)
    from attestable_mcp.tls.replay import Recorder

    recorder = Recorder(
        policy=policy, stored=stored, at=arguments.at or datetime.now(UTC), provenance=_provenance(arguments)
    )
    if isinstance(source, Address):
        from attestable_mcp.cli.live import record

        recording = record(source.url, recorder, arguments.timeout)
    else:
        recording = recorder.of_file(source.name, source.data)
    data = _encoded(recording.bundle)
    write_file(arguments.output, data, force=arguments.force)
    digest = hashlib.sha256(data).hexdigest()
    kept = [name for name, _ in recording.bundle.provenance]
    facts = {"written": str(arguments.output), "bundle_sha256": digest, "provenance_not_judged": kept}
    show(terminal, recording.result, facts)
    if not terminal.json:
        if kept:
            terminal.say(text.provenance_kept(printable(", ".join(kept))))
        terminal.say(text.bundled(arguments.output, len(data), digest))
    return recording.result.exit_code


def _provenance(arguments: Arguments) -> tuple[tuple[str, bytes], ...]:
    return tuple((path.name, read_file(path, LIMITS.endorsement)) for path in arguments.provenance)


def _encoded(bundle: Bundle) -> bytes:
    try:
        return bundle.encode()
    except ValueError as error:
        raise ConfigurationError(str(error), code="too_large") from error
