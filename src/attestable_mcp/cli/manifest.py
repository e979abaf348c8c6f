"""`manifest SOURCE`: write down, compare or sign what a server offers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from attestable_mcp.cli import text, text_offer
from attestable_mcp.cli.command import Arguments, Parser, UsageError, add_timeout, existing_path
from attestable_mcp.cli.gate import add_meeting, demanded, gate_of
from attestable_mcp.cli.outbound import add_headers, headers_of
from attestable_mcp.cli.output import refuse_overwrite, write_file
from attestable_mcp.cli.report import announce
from attestable_mcp.cli.source import address
from attestable_mcp.cli.terminal import Terminal, printable, printable_json
from attestable_mcp.errors import EXIT_REFUSED, ConfigurationError
from attestable_mcp.mcp.difference import ItemChange, difference
from attestable_mcp.mcp.manifest import Manifest
from attestable_mcp.mcp.signed import SignedManifest, private_key, read_file, sign
from attestable_mcp.rats import AttestationResult

_HINT = text.see_help(f"{text.PROGRAM} manifest")


def configure(parser: Parser) -> None:
    """`manifest SOURCE [--diff FILE] [--sign PEM] [-o FILE] [...]`."""
    parser.add_argument("source", metavar="SOURCE", nargs="?", help=text_offer.HELP_MANIFEST_SOURCE)
    parser.add_argument("--diff", metavar="FILE", type=existing_path, help=text_offer.HELP_DIFF)
    parser.add_argument("--sign", metavar="PEM", type=existing_path, help=text_offer.HELP_SIGN)
    parser.add_argument("--days", metavar="N", type=int, help=text_offer.HELP_SIGN_DAYS)
    parser.add_argument("-o", "--output", metavar="FILE", type=existing_path, help=text_offer.HELP_MANIFEST_OUTPUT)
    parser.add_argument("--force", action="store_true", help=text.HELP_FORCE)
    add_meeting(parser)
    add_headers(parser)
    add_timeout(parser)


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Print or write the document, or the difference; a live server's verdict is the exit code."""
    if arguments.diff and arguments.sign:
        raise UsageError(text_offer.NOT_SIGNED_AND_COMPARED, hint=_HINT)
    refuse_overwrite(arguments.output, arguments.force)
    wanted = _wanted(arguments.diff) if arguments.diff else None
    manifest, result, committed = _manifest(arguments)
    if result is not None and not terminal.json:
        announce(terminal, result)
        digest = manifest.digest
        said = text_offer.committed(digest.hex()) if committed == digest else text_offer.uncommitted(committed.hex())
        terminal.say(said)
    code = result.exit_code if result is not None else 0
    live = {} if result is None else {"attestation": result.to_json(), "committed": committed == manifest.digest}
    if wanted is not None:
        return _compare(wanted, manifest, live, terminal) or code
    _hand_over(manifest, live, arguments, terminal)
    return code


# --- where it comes from ---------------------------------------------------------------------------------------------


def _manifest(arguments: Arguments) -> tuple[Manifest, AttestationResult | None, bytes]:
    command, headers = getattr(arguments, "command", None), headers_of(arguments)
    if command and arguments.source:
        raise UsageError(text_offer.TWO_SOURCES, hint=_HINT)
    if command:
        return _of_target(list(command), headers), None, b""
    if not arguments.source:
        raise UsageError(text_offer.NO_MANIFEST_SOURCE, hint=_HINT)
    if arguments.source.lower().startswith("https://"):
        from attestable_mcp.cli.live import list_all

        url = address(arguments.source)
        gate = gate_of(arguments, *demanded(arguments, f"{text.PROGRAM} manifest", url))
        manifest, peer = list_all(url, gate, arguments.timeout, headers)
        return manifest, peer.result, peer.commitments.manifest
    if arguments.source.endswith(".json"):
        return _document(Path(arguments.source)), None, b""
    return _of_target(arguments.source, headers), None, b""


def _document(path: Path) -> Manifest:
    found = read_file(path)
    return found.manifest if isinstance(found, SignedManifest) else found


def _of_target(target: object, headers: dict[str, str]) -> Manifest:
    import anyio

    from attestable_mcp.mcp.target_manifest import manifest_of_target

    return anyio.run(manifest_of_target, target, headers)


def _wanted(path: Path) -> Manifest:
    if path.suffix != ".toml":
        return _document(path)
    from attestable_mcp.appraise.policy import Policy
    from attestable_mcp.mcp.watched import effective, promised

    found = promised(effective(Policy.load(path)))
    if found is None:
        raise ConfigurationError(f"{path}: {text_offer.NO_PROMISE}", code="no_manifest")
    return found


# --- where it goes ---------------------------------------------------------------------------------------------------


def _compare(wanted: Manifest, seen: Manifest, live: dict[str, Any], terminal: Terminal) -> int:
    changes = difference(wanted, seen)
    if terminal.json:
        found = [change.to_json() for change in changes]
        digests = {"wanted": wanted.digest.hex(), "seen": seen.digest.hex()}
        terminal.emit({"same": not changes, **digests, "difference": found, **live})
    else:
        for line in [line for change in changes for line in _lines(change)] or [text_offer.SAME]:
            terminal.data(printable(line))
    return EXIT_REFUSED if changes else 0


def _lines(change: ItemChange) -> list[str]:
    return [f"{change.kind.word} {change.name!r} {change.change}", *(f"  {member.words}" for member in change.members)]


def _hand_over(manifest: Manifest, live: dict[str, Any], arguments: Arguments, terminal: Terminal) -> None:
    document = _signed(manifest, arguments).to_json() if arguments.sign else manifest.to_json()
    content = printable_json(document)
    if arguments.output:
        write_file(arguments.output, content + "\n", force=arguments.force)
    if terminal.json:
        written = str(arguments.output) if arguments.output else None
        terminal.emit({"document": document, "written": written, **live})
        return
    if not arguments.output:
        terminal.data(content)
        return
    counts = {name: len(found.items) for name, found in manifest.sets.items()}
    terminal.say(text_offer.counted(counts, manifest.digest.hex()))
    terminal.say(text_offer.written(arguments.output))


def _signed(manifest: Manifest, arguments: Arguments) -> SignedManifest:
    now = datetime.now(UTC)
    expires = now + timedelta(days=arguments.days) if arguments.days else None
    return sign(manifest, private_key(arguments.sign), issued=now, expires=expires)
