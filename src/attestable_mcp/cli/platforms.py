"""`platforms ACTION`: lists of machines that somebody vouches for: noted, signed, shown."""

from __future__ import annotations

import argparse
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from attestable_mcp.appraise.platforms import IDENTITIES, identities
from attestable_mcp.bind.deployment import key_hash, spki_of
from attestable_mcp.bind.platforms import open_platforms, sign_platforms
from attestable_mcp.cli import text, text_platforms
from attestable_mcp.cli.command import (
    TRUST,
    Arguments,
    Parser,
    UsageError,
    add_timeout,
    add_trust,
    demand_use,
    existing_path,
)
from attestable_mcp.cli.output import refuse_overwrite, write_file
from attestable_mcp.cli.ownerkey import read_private
from attestable_mcp.cli.report import show
from attestable_mcp.cli.source import Address, open_source, read_file
from attestable_mcp.cli.terminal import Terminal, printable
from attestable_mcp.cli.trust import genuine_policy
from attestable_mcp.errors import AttestationError, ConfigurationError
from attestable_mcp.files import replace_file
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Claims, Tee
from attestable_mcp.wire.platforms import Platforms, platform_id

_HINT = text.see_help(f"{text.PROGRAM} platforms")


def configure(parser: Parser) -> None:
    """`platforms sign|show|add FILE [SOURCE] [...]`."""
    parser.add_argument("action", metavar="ACTION", choices=("sign", "show", "add"), help=text_platforms.HELP_ACTION)
    parser.add_argument("file", metavar="FILE", type=existing_path, help=text_platforms.HELP_FILE)
    parser.add_argument("source", metavar="SOURCE", nargs="?", help=text_platforms.HELP_SOURCE)
    parser.add_argument("--key", metavar="PEM", type=existing_path, help=text_platforms.HELP_KEY)
    parser.add_argument("--passphrase-file", metavar="FILE", type=existing_path, help=text_platforms.HELP_LOCKED)
    parser.add_argument("--days", metavar="N", type=_days, default=30, help=text_platforms.HELP_DAYS)
    parser.add_argument("--note", metavar="WORDS", default="", help=text_platforms.HELP_NOTE)
    parser.add_argument("-o", "--output", metavar="FILE", type=existing_path, help=text_platforms.HELP_OUTPUT)
    parser.add_argument("--force", action="store_true", help=text.HELP_FORCE)
    add_trust(parser)
    add_timeout(parser)


def _days(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= 366:
        raise argparse.ArgumentTypeError(text_platforms.bad_days(value))
    return int(value)


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Do it. Raises: the AttestationError family."""
    action, used = _ACTIONS[arguments.action]
    demand_use(arguments, "platforms", used)
    return action(arguments, terminal)


# --- sign -------------------------------------------------------------------------------------------------------------


def _sign(arguments: Arguments, terminal: Terminal) -> int:
    if arguments.key is None:
        raise UsageError(text_platforms.NO_OUTPUT_KEY, hint=_HINT)
    name, ids = _read_list(arguments.file)
    refuse_overwrite(arguments.output, arguments.force)
    key = read_private(arguments.key, arguments.passphrase_file)
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        platforms = Platforms(
            signer=spki_of(key), name=name, issued=now, expires=now + timedelta(days=arguments.days), ids=ids
        )
    except AttestationError as error:
        raise _faulty(arguments.file, error.message) from error
    pem = sign_platforms(key, platforms).decode("ascii")
    if arguments.output:
        write_file(arguments.output, pem, force=arguments.force)
    facts = _facts(platforms)
    if terminal.json:
        terminal.emit({**facts, "written": str(arguments.output) if arguments.output else None, "pem": pem})
    elif arguments.output:
        count = sum(len(found) for found in platforms.ids.values())
        terminal.say(text_platforms.signed(arguments.output, count, facts["expires"], facts["signer"]))
    else:
        terminal.data(pem.rstrip())
    return 0


def _read_list(path: Path) -> tuple[str, dict[str, tuple[bytes, ...]]]:
    """Name and ids of a list as people write it. Raises: ConfigurationError."""
    try:
        document = tomllib.loads(read_file(path, LIMITS.platform_list).decode("utf-8"))
    except ValueError as error:  # tomllib's and the decoder's are ValueErrors
        raise _faulty(path, str(error)) from error
    tables, name = document.get("platform"), document.get("name", path.stem)
    if set(document) - {"name", "platform"} or not isinstance(tables, list) or not isinstance(name, str):
        raise _faulty(path, text_platforms.NOT_A_LIST)
    ids: dict[str, list[bytes]] = {kind: [] for kind in IDENTITIES}
    for table in tables:
        for kind, value in _entry(table, path):
            ids[kind].append(value)
    return name, {kind: tuple(found) for kind, found in ids.items() if found}


def _entry(table: object, path: Path) -> list[tuple[str, bytes]]:
    if not isinstance(table, dict) or set(table) - {*IDENTITIES, "note"} or not set(table) & set(IDENTITIES):
        raise _faulty(path, text_platforms.NOT_A_LIST)
    try:
        return [(kind, platform_id(kind, str(table[kind]))) for kind in IDENTITIES if kind in table]
    except AttestationError as error:
        raise _faulty(path, error.message) from error


def _faulty(path: Path, problem: str) -> ConfigurationError:
    return ConfigurationError(f"{path}: {problem}", code="platform_list", hint=text_platforms.LIST_HINT)


# --- show -------------------------------------------------------------------------------------------------------------


def _facts(platforms: Platforms) -> dict[str, Any]:
    return {
        "name": platforms.name,
        "signer": key_hash(platforms.signer),
        "issued": platforms.issued.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "expires": platforms.expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "ids": {kind: [item.hex() for item in found] for kind, found in platforms.ids.items()},
    }


def _show(arguments: Arguments, terminal: Terminal) -> int:
    """Signature checked under the key that the list itself names: whose that is, the reader has to know."""
    facts = _facts(open_platforms(read_file(arguments.file, 2 * LIMITS.platform_list)))
    if terminal.json:
        terminal.emit(facts)
        return 0
    for name in ("name", "signer", "issued", "expires"):
        terminal.data(f"  {terminal.paint('dim', f'{name:<10}')} {printable(facts[name])}")
    for kind, found in facts["ids"].items():
        for item in found:
            terminal.data(f"  {terminal.paint('dim', f'{kind:<10}')} {item}")
    return 0


# --- add --------------------------------------------------------------------------------------------------------------


def _add(arguments: Arguments, terminal: Terminal) -> int:
    """Prove the platform, then note its identities. What code runs there is not the question."""
    if not arguments.source:
        raise UsageError(text_platforms.NO_SOURCE, hint=_HINT)
    policy, source = genuine_policy(arguments), open_source(arguments.source)
    if isinstance(source, Address):
        from attestable_mcp.cli.live import meet
        from attestable_mcp.mcp.gate import make_gate

        result = meet(source.url, make_gate(policy), arguments.timeout)
    else:
        from attestable_mcp.verifier import Verifier

        result = Verifier(policy).appraise_source(source.data, datetime.now(UTC)).result
    if not result.admitted:
        show(terminal, result)
        terminal.say(text_platforms.NOT_ADMITTED)
        return result.exit_code
    claims = Claims(tee=Tee(result.tee), values=result.claims, report_data=b"", debug=False, tcb_status="")
    found = identities(claims)
    if not found:
        raise ConfigurationError(text_platforms.NO_IDENTITY, code="platform_identity_missing")
    written = _append(arguments.file, found, arguments.note)
    if terminal.json:
        terminal.emit({"added": found if written else {}, "file": str(arguments.file), "simulated": result.simulated})
    else:
        terminal.say((text_platforms.added if written else text_platforms.known_already)(arguments.file))
    return 0


def _append(path: Path, found: dict[str, str], note: str) -> bool:
    """Add a table to the list at `path`, made where there is none. False: all of it stands there already."""
    before = read_file(path, LIMITS.platform_list).decode("utf-8") if path.exists() else f'name = "{path.stem}"\n'
    if path.exists():
        _, known = _read_list(path)
        if all(platform_id(kind, value) in known.get(kind, ()) for kind, value in found.items()):
            return False
    words = "".join(letter for letter in note if letter.isprintable() and letter not in '"\\')
    lines = ["", "[[platform]]", *(f'{kind} = "{value}"' for kind, value in found.items())]
    lines += [f'note = "{words}"'] if words else []
    try:
        replace_file(path, (before.rstrip("\n") + "\n" + "\n".join(lines) + "\n").encode(), mode=0o644)
    except OSError as error:
        raise ConfigurationError(text.cannot_write(path, error.strerror or str(error)), code="unwritable") from error
    _read_list(path)  # what is written can be read
    return True


_ACTIONS = {
    "sign": (_sign, frozenset({"file", "key", "passphrase_file", "days", "output", "force"})),
    "show": (_show, frozenset({"file"})),
    "add": (_add, TRUST | {"file", "source", "note", "timeout"}),
}
"""Each action, and which arguments it reads."""
