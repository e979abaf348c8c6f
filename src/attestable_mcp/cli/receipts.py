"""`receipts ACTION`: list, show, verify and export the receipts of calls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.bind.audit import audit
from attestable_mcp.bind.receipt import Receipt, check_signature, read, receipt_hash, request_digest, result_digest
from attestable_mcp.cli import text, text_offer
from attestable_mcp.cli.command import (
    TRUST,
    Arguments,
    Parser,
    UsageError,
    add_trust,
    demand_use,
    existing_path,
    moment,
)
from attestable_mcp.cli.output import refuse_overwrite, write_parts
from attestable_mcp.cli.source import read_file
from attestable_mcp.cli.terminal import Terminal, printable
from attestable_mcp.cli.trust import named, policy_of
from attestable_mcp.errors import (
    EXIT_PARTIAL,
    EXIT_REFUSED,
    EXIT_UNAVAILABLE,
    AttestationError,
    ConfigurationError,
    MalformedEvidence,
)
from attestable_mcp.limits import LIMITS
from attestable_mcp.mcp.receipt_audit import ChainReport, judge_key
from attestable_mcp.mcp.receipt_file import ChainFile, export_lines, is_store, read_export
from attestable_mcp.mcp.receipt_store import ReceiptStore, StoredChain, default_path
from attestable_mcp.rats import Verdict

_HINT = text.see_help(f"{text.PROGRAM} receipts")
_CODES = {Verdict.VERIFIED: 0, Verdict.PARTIAL: EXIT_PARTIAL, Verdict.REFUSED: EXIT_REFUSED}


def configure(parser: Parser) -> None:
    """`receipts list|show|verify|export [WHICH] [...]`."""
    parser.usage = text_offer.RECEIPTS_USAGE
    parser.add_argument("action", metavar="ACTION", choices=tuple(_ACTIONS), help=text_offer.HELP_RECEIPTS_ACTION)
    parser.add_argument("which", metavar="WHICH", nargs="?", help=text_offer.HELP_WHICH)
    parser.add_argument("--store", metavar="FILE", type=existing_path, help=text_offer.HELP_STORE)
    parser.add_argument("--request", metavar="FILE", type=existing_path, help=text_offer.HELP_REQUEST)
    parser.add_argument("--result", metavar="FILE", type=existing_path, help=text_offer.HELP_RESULT)
    parser.add_argument("-o", "--output", metavar="FILE", type=existing_path, help=text_offer.HELP_RECEIPTS_OUTPUT)
    parser.add_argument("--force", action="store_true", help=text.HELP_FORCE)
    parser.add_argument("--at", metavar="RFC3339", type=moment, help=text.HELP_AT)
    add_trust(parser)


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Do the action; `verify` ends with the worst verdict, `show` with 2 where the JSON is of something else."""
    action, used = _ACTIONS[arguments.action]
    demand_use(arguments, "receipts", used)
    return action(arguments, terminal)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chain:
    """A chain of a store or of an export."""

    found: StoredChain | ChainFile
    store: ReceiptStore | None

    @property
    def name(self) -> str:
        return self.found.name.hex()

    def receipts(self) -> Iterator[bytes]:
        if isinstance(self.found, ChainFile):
            return self.found.receipts()
        assert self.store is not None
        return self.store.receipts(self.found.id)

    def heads(self) -> Iterator[bytes]:
        if isinstance(self.found, ChainFile):
            return self.found.heads()
        assert self.store is not None
        return self.store.heads(self.found.id)

    def bundle(self) -> bytes | None:
        if isinstance(self.found, ChainFile):
            return self.found.bundle
        assert self.store is not None
        return self.store.bundle(self.found.public)


def _chains(arguments: Arguments, beginning: str | None) -> list[_Chain]:
    """All chains, or the one whose name begins so. Raises: ConfigurationError, UsageError, MalformedEvidence."""
    path = arguments.store or default_path()
    try:
        found = [_Chain(found=item, store=None) for item in read_export(path)] if not _store(path) else _stored(path)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror or error}", code="receipt_store") from error
    if beginning is None:
        return found
    matching = [chain for chain in found if chain.name.startswith(beginning.lower())]
    if len(matching) != 1 or not beginning:
        raise UsageError(text_offer.no_chain(beginning), hint=_HINT)
    return matching


def _store(path: Path) -> bool:
    return not path.is_file() or is_store(path)


def _stored(path: Path) -> list[_Chain]:
    store = ReceiptStore(path, read_only=True)
    return [_Chain(found=chain, store=store) for chain in store.chains()]


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- list ------------------------------------------------------------------------------------------------------------


def _list(arguments: Arguments, terminal: Terminal) -> int:
    chains = _chains(arguments, arguments.which)
    if arguments.which is not None:
        return _list_one(chains[0], terminal)
    rows = [_row(chain) for chain in chains]
    if terminal.json:
        terminal.emit({"chains": rows})
        return 0
    for row in rows:
        shown = {name: row[name] for name in ("origin", "begun", "receipts", "heads", "proof")}
        terminal.data(text_offer.chain_line(row["chain"][:16], **{**shown, "origin": printable(row["origin"])}))
    if not rows:
        terminal.say(text_offer.NO_RECEIPTS)
    return 0


def _row(chain: _Chain) -> dict[str, Any]:
    found = chain.found
    if isinstance(found, StoredChain):
        receipts, heads, proof = found.receipts, found.heads, found.has_bundle
    else:
        receipts, heads = sum(1 for _ in chain.receipts()), sum(1 for _ in chain.heads())
        proof = found.bundle is not None
    return {
        "chain": chain.name,
        "origin": found.origin,
        "begun": _time(found.begun),
        "key": found.public.hex(),
        "receipts": receipts,
        "heads": heads,
        "proof": proof,
        "verdict": found.verdict.get("verdict"),
    }


def _list_one(chain: _Chain, terminal: Terminal) -> int:
    rows = [_shape(receipt, message) for message, receipt in _read(chain)]
    if terminal.json:
        terminal.emit({"chain": chain.name, "receipts": rows})
        return 0
    for row in rows:
        name = printable(row["name"])
        terminal.data(text_offer.receipt_line(row["counter"], row["time"], row["method"], name, row["result"]))
    return 0


def _read(chain: _Chain) -> Iterator[tuple[bytes, Receipt]]:
    """What can be read; `verify` says what cannot."""
    for message in chain.receipts():
        try:
            found = read(message)
        except MalformedEvidence:
            continue
        if isinstance(found, Receipt):
            yield message, found


def _shape(receipt: Receipt, message: bytes) -> dict[str, Any]:
    return {
        "counter": receipt.counter,
        "time": datetime.fromtimestamp(min(receipt.time, 253_402_300_799_999) / 1000, UTC).isoformat(),
        "method": receipt.method,
        "name": receipt.name,
        "request": receipt.request.hex(),
        "result": receipt.result.hex(),
        "item": receipt.item.hex(),
        "manifest": receipt.manifest.hex(),
        "transcript": receipt.transcript.hex(),
        "previous": receipt.previous.hex(),
        "sha256": receipt_hash(message).hex(),
    }


# --- show ------------------------------------------------------------------------------------------------------------


def _show(arguments: Arguments, terminal: Terminal) -> int:
    name, colon, number = (arguments.which or "").partition(":")
    if not colon or not number.isascii() or not number.isdecimal() or len(number) > 18:
        raise UsageError(text_offer.NO_CHAIN_NAMED, hint=_HINT)
    (chain,) = _chains(arguments, name)
    numbered = [(m, r) for m, r in _read(chain) if r.counter == int(number)]
    if not numbered:
        raise UsageError(text_offer.no_receipt(int(number)), hint=_HINT)
    signed = [pair for pair in numbered if _signed(pair[0], chain.found.public)]
    message, receipt = (signed or numbered)[0]
    compared = _compared(arguments, receipt)
    if terminal.json:
        said = {"signed": len(signed), "matches": compared, "message": message.hex()}
        terminal.emit({"chain": chain.name, **_shape(receipt, message), **said})
    else:
        for key, value in {"chain": chain.name, **_shape(receipt, message)}.items():
            terminal.data(f"{key:<11} {printable(value)}")
        terminal.data(f"{'signature':<11} {text_offer.SIGNATURES[min(len(signed), 2)]}")
        for key, held in compared.items():
            terminal.data(f"{key:<11} {text_offer.MATCHES if held else text_offer.DIFFERS}")
    return 0 if len(signed) == 1 and all(compared.values()) else EXIT_REFUSED


def _signed(message: bytes, public: bytes) -> bool:
    try:
        check_signature(message, public)
    except (AttestationError, ValueError):  # ValueError: what stands there is no key
        return False
    return True


def _compared(arguments: Arguments, receipt: Receipt) -> dict[str, bool]:
    found: dict[str, bool] = {}
    if arguments.request:
        value = _json(arguments.request)
        params = value.get("params", {})
        digest = request_digest(str(value.get("method", "")), params if isinstance(params, dict) else {})
        found["request is"] = digest == receipt.request
    if arguments.result:
        found["result is"] = result_digest(_json(arguments.result)) == receipt.result
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(read_file(path, LIMITS.mcp_message))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: {text_offer.NOT_JSON}", hint=_HINT) from error
    if not isinstance(value, dict):
        raise UsageError(f"{path}: {text_offer.NOT_JSON}", hint=_HINT)
    return value


# --- verify ----------------------------------------------------------------------------------------------------------


def _verify(arguments: Arguments, terminal: Terminal) -> int:
    policy = policy_of(arguments, f"{text.PROGRAM} receipts") if named(arguments) else None
    chains = _chains(arguments, arguments.which)
    reports = [_report(chain, policy, arguments.at) for chain in chains]
    verdicts = [report.verdict for report in reports]
    code = max((_CODES[verdict] for verdict in verdicts if verdict is not Verdict.PARTIAL), default=0)
    code = code or (EXIT_PARTIAL if Verdict.PARTIAL in verdicts else 0)
    if terminal.json:
        terminal.emit({"chains": [report.to_json() for report in reports]})
    else:
        for line in _pages(reports):
            terminal.data(line)
    return code if reports else EXIT_UNAVAILABLE


def _report(chain: _Chain, policy: Policy | None, at: datetime | None) -> ChainReport:
    found = chain.found
    return ChainReport(
        name=chain.name,
        origin=found.origin,
        key=found.public.hex(),
        audit=audit(chain.receipts(), chain.heads(), found.public, found.name),
        proof=judge_key(chain.bundle(), found.public, policy, at, origin=found.origin),
    )


def _pages(reports: list[ChainReport]) -> Iterator[str]:
    """Each chain, then once what stays open of any."""
    for report in reports:
        yield from _page(report)
    if not reports:
        yield text_offer.NO_RECEIPTS
    for sentence in dict.fromkeys(sentence for report in reports for sentence in report.not_proven):
        yield text_offer.open_line(printable(sentence))


def _page(report: ChainReport) -> Iterator[str]:
    found = report.audit
    origin = printable(report.origin)
    yield text_offer.verified_line(str(report.verdict), report.name[:16], origin, found.receipts, found.covered)
    for problem in found.problems:
        yield text_offer.problem_line(problem.code, problem.at, printable(problem.message))
    if found.found > len(found.problems):
        yield text_offer.more_problems(found.found - len(found.problems))
    if report.proof is not None:
        error = report.proof.error
        yield text_offer.proof_line(str(report.proof.verdict), printable(error.message) if error else "")
        if report.proof.simulated:
            yield f"  {text.SIMULATED_BANNER}"


# --- export ----------------------------------------------------------------------------------------------------------


def _export(arguments: Arguments, terminal: Terminal) -> int:
    path = arguments.store or default_path()
    if not _store(path):
        raise UsageError(f"{path}: is an export already", hint=_HINT)
    refuse_overwrite(arguments.output, arguments.force)
    chains = [chain.found for chain in _chains(arguments, arguments.which) if isinstance(chain.found, StoredChain)]
    lines = export_lines(ReceiptStore(path, read_only=True), chains)
    if arguments.output:
        write_parts(arguments.output, (f"{line}\n" for line in lines), force=arguments.force)
        if terminal.json:
            terminal.emit({"written": str(arguments.output), "chains": [chain.name.hex() for chain in chains]})
        else:
            terminal.say(text_offer.written(arguments.output))
    elif terminal.json:
        terminal.emit({"lines": [json.loads(line) for line in lines]})
    else:
        for line in lines:
            terminal.data(line)
    return 0


_READS = frozenset({"which", "store"})
_ACTIONS = {
    "list": (_list, _READS),
    "show": (_show, _READS | {"request", "result"}),
    "verify": (_verify, _READS | TRUST | {"at"}),
    "export": (_export, _READS | {"output", "force"}),
}
"""Each action, and which arguments it reads."""
