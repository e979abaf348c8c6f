"""`owner ACTION`: an owner's key pair, and the grants and revocation lists that it signs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from attestable_mcp.bind.deployment import (
    PrivateKey,
    deployment_of,
    key_hash,
    open_grant,
    open_revocation,
    sign_grant,
    sign_revocation,
    spki_of,
)
from attestable_mcp.cli import text, text_owner
from attestable_mcp.cli.command import (
    TRUST,
    Arguments,
    Parser,
    UsageError,
    add_timeout,
    add_trust,
    demand_use,
    existing_path,
    host_name,
)
from attestable_mcp.cli.output import refuse_overwrite, write_file
from attestable_mcp.cli.ownerkey import make_key, private_pem, public_pem, read_passphrase, read_private
from attestable_mcp.cli.ownershow import shown
from attestable_mcp.cli.source import CAP, address, read_file
from attestable_mcp.cli.terminal import Terminal, printable
from attestable_mcp.cli.trust import policy_of
from attestable_mcp.errors import AttestationError, ConfigurationError, EvidenceError, WrongDeployment
from attestable_mcp.rats import AttestationResult, Verdict
from attestable_mcp.wire.grant import GRANT_LABEL, REVOCATION_LABEL, Grant, Revocation, from_pem, read_request, to_pem

_HINT = text.see_help(f"{text.PROGRAM} owner")
_DAYS_MAX = 3650
_T = TypeVar("_T")


def configure(parser: Parser) -> None:
    """`owner init|grant|renew|revoke|show [SOURCE] [...]`."""
    parser.usage = text_owner.USAGE
    actions = tuple(_ACTIONS)
    parser.add_argument("action", metavar="ACTION", choices=actions, help=text_owner.HELP_ACTION)
    parser.add_argument("source", metavar="SOURCE", nargs="?", help=text_owner.HELP_SOURCE)
    key = parser.add_argument_group(text_owner.GROUP_KEY)
    key.add_argument("--key", metavar="PEM", type=existing_path, default=Path("owner.pem"), help=text_owner.HELP_KEY)
    key.add_argument("--algorithm", choices=("ed25519", "p256"), default="ed25519", help=text_owner.HELP_ALGORITHM)
    key.add_argument("--passphrase-file", metavar="FILE", type=existing_path, help=text_owner.HELP_LOCKED)
    grant = parser.add_argument_group(text_owner.GROUP_GRANT)
    grant.add_argument("--name", metavar="NAME", help=text_owner.HELP_NAME)
    grant.add_argument("--host", metavar="NAME", type=host_name, action="append", default=[], help=text_owner.HELP_HOST)
    grant.add_argument("--days", metavar="N", type=_days, default=30, help=text_owner.HELP_DAYS)
    _configure_revoke(parser)
    add_trust(parser)
    add_timeout(parser)
    parser.add_argument("-o", "--output", metavar="FILE", type=existing_path, help=text_owner.HELP_OUTPUT)
    parser.add_argument("--force", action="store_true", help=text_owner.HELP_FORCE)


def _configure_revoke(parser: Parser) -> None:
    group = parser.add_argument_group(text_owner.GROUP_REVOKE)
    group.add_argument("--serial", metavar="N", type=_serial, action="append", default=[],
                       help=text_owner.HELP_REVOKE_SERIAL)  # fmt: skip
    group.add_argument("--below", metavar="N", type=_serial, default=0, help=text_owner.HELP_BELOW)
    group.add_argument("--deployment-key", metavar="HEX", type=_hash, action="append", default=[],
                       help=text_owner.HELP_REVOKE_KEY)  # fmt: skip
    group.add_argument("--refresh", action="store_true", help=text_owner.HELP_REFRESH)


def run(arguments: Arguments, terminal: Terminal) -> int:
    """Do the action; 0, or the verdict's code where a server had to be met."""
    action, used = _ACTIONS[arguments.action]
    demand_use(arguments, "owner", used)
    return action(arguments, terminal)


def _days(value: str) -> int:
    if not value.isascii() or not value.isdecimal() or not 0 < int(value[:6]) <= _DAYS_MAX or len(value) > 5:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of days from 1 to {_DAYS_MAX}")
    return int(value)


def _serial(value: str) -> int:
    if not value.isascii() or not value.isdecimal() or len(value) > 20 or int(value) >= 1 << 64:
        raise argparse.ArgumentTypeError(f"{value!r} is not a serial")
    return int(value)


def _hash(value: str) -> bytes:
    if len(value) != 64 or not set(value.lower()) <= set("0123456789abcdef"):
        raise argparse.ArgumentTypeError(f"{value!r} is not the SHA-256 of a key: 64 hex digits")
    return bytes.fromhex(value)


def _init(arguments: Arguments, terminal: Terminal) -> int:
    path = Path(arguments.source or "owner.pem")
    public = path.with_suffix(".pub")
    if public == path:
        raise UsageError(text_owner.unusable_key(path, "the private key needs another ending than .pub"), hint=_HINT)
    for each in (path, public):
        refuse_overwrite(each, arguments.force)
    key = make_key(arguments.algorithm)
    pem = private_pem(key, read_passphrase(arguments.passphrase_file))
    write_file(path, pem, force=arguments.force, private=True)
    write_file(public, public_pem(key), force=arguments.force)
    digest = key_hash(spki_of(key))
    if terminal.json:
        terminal.emit({"owner": digest, "private": str(path), "public": str(public)})
    else:
        terminal.data(text_owner.made_key(path, public, digest))
    return 0


def _source(arguments: Arguments) -> str:
    if not arguments.source:
        raise UsageError(text_owner.NO_SOURCE, hint=_HINT)
    return str(arguments.source)


def _grant(arguments: Arguments, terminal: Terminal) -> int:
    source = _source(arguments)
    if not arguments.name:
        raise UsageError(text_owner.NO_NAME, hint=_HINT)
    refuse_overwrite(arguments.output, arguments.force)
    policy = replace(policy_of(arguments, f"{text.PROGRAM} owner grant"), deployment=None)
    hosts = _hosts(source, arguments)
    owner = read_private(arguments.key, arguments.passphrase_file)
    digest, result = _asked(source, policy, arguments.timeout)
    now = datetime.now(UTC).replace(microsecond=0)
    grant = Grant(
        owner=spki_of(owner),
        name=arguments.name,
        hosts=hosts,
        key=digest,
        serial=int(now.timestamp()),
        not_before=now - timedelta(minutes=5),
        not_after=now + timedelta(days=arguments.days),
    )
    _hand_over_grant(owner, grant, arguments, terminal, result)
    return result.exit_code


def _hosts(source: str, arguments: Arguments) -> tuple[str, ...]:
    """The names in the grant: those given, or the one of the URL. Raises: UsageError."""
    named = [host.strip("[]").lower() for host in arguments.host]
    if not named and "://" in source:
        from attestable_mcp.tls.origins import origin_of

        named = [origin_of(address(source)).host]
    if not named:
        raise UsageError(text_owner.no_host(arguments.name), hint=_HINT)
    return tuple(dict.fromkeys(named))


def _asked(source: str, policy: Any, timeout: float) -> tuple[bytes, AttestationResult]:
    """The hash of the deployment key that a proven server, or a proven request, names. Raises: AttestationError."""
    if "://" in source:
        from attestable_mcp.cli.live import meet_peer
        from attestable_mcp.mcp.gate import make_gate

        peer = meet_peer(address(source), make_gate(policy), timeout)
        if not peer.commitments.deployment_key:
            raise ConfigurationError(
                text_owner.NO_DEPLOYMENT_KEY, code="no_deployment_key", hint=text_owner.NO_DEPLOYMENT_KEY_HINT
            )
        return peer.commitments.deployment_key, peer.result
    from attestable_mcp.tls.deployment import appraise_request
    from attestable_mcp.verifier import Verifier

    request = read_request(read_file(Path(source), CAP))
    result = appraise_request(request, Verifier(policy), datetime.now(UTC))
    return bytes.fromhex(key_hash(request.key)), result


def _renew(arguments: Arguments, terminal: Terminal) -> int:
    path = Path(_source(arguments))
    refuse_overwrite(arguments.output, arguments.force)
    owner = read_private(arguments.key, arguments.passphrase_file)
    old = _opened(path, GRANT_LABEL, open_grant)
    if old.owner != spki_of(owner):
        raise ConfigurationError(text_owner.FOREIGN_GRANT, code="owner_key", hint=_HINT)
    now = datetime.now(UTC).replace(microsecond=0)
    grant = Grant(
        owner=old.owner,
        name=old.name,
        hosts=tuple(dict.fromkeys((*old.hosts, *(host.strip("[]").lower() for host in arguments.host)))),
        key=old.key,
        serial=max(old.serial + 1, int(now.timestamp())),
        not_before=now - timedelta(minutes=5),
        not_after=now + timedelta(days=arguments.days),
    )
    _hand_over_grant(owner, grant, arguments, terminal, None)
    return 0


def _hand_over_grant(
    owner: PrivateKey, grant: Grant, arguments: Arguments, terminal: Terminal, result: AttestationResult | None
) -> None:
    body = _readable(sign_grant(owner, grant), open_grant)
    told = deployment_of(grant).to_json()
    pem = to_pem(GRANT_LABEL, body).decode("ascii")
    _hand_over(pem, arguments, terminal, {"grant": told, "attestation": result.to_json() if result else None})
    terminal.say(printable(text_owner.granted(grant.name, grant.serial, told["not_after"])))
    if result is not None and result.verdict is not Verdict.VERIFIED:
        terminal.say(text_owner.UNCOMPARED)


def _hand_over(pem: str, arguments: Arguments, terminal: Terminal, told: dict[str, Any]) -> None:
    if arguments.output:
        write_file(arguments.output, pem, force=arguments.force)
    if terminal.json:
        terminal.emit({**told, "pem": pem, "written": str(arguments.output) if arguments.output else None})
    elif arguments.output:
        terminal.say(text.pinned(arguments.output))
    else:
        terminal.data(pem.rstrip())


def _revoke(arguments: Arguments, terminal: Terminal) -> int:
    refuse_overwrite(arguments.output, arguments.force)
    owner = read_private(arguments.key, arguments.passphrase_file)
    old = _former(arguments, owner)
    name = arguments.name or (old.name if old else None)
    if not name:
        raise UsageError(text_owner.NO_NAME, hint=_HINT)
    if not (arguments.serial or arguments.below or arguments.deployment_key or arguments.refresh):
        raise UsageError(text_owner.NOTHING_REVOKED, hint=_HINT)
    now = datetime.now(UTC).replace(microsecond=0)
    found = Revocation(
        owner=spki_of(owner),
        name=name,
        number=max((old.number + 1) if old else 1, int(now.timestamp())),
        issued_at=now,
        minimum_serial=max(arguments.below, old.minimum_serial if old else 0),
        serials=_together(old.serials if old else (), arguments.serial),
        keys=_together(old.keys if old else (), arguments.deployment_key),
    )
    body = _readable(sign_revocation(owner, found), open_revocation)
    pem = to_pem(REVOCATION_LABEL, body).decode("ascii")
    _hand_over(pem, arguments, terminal, {"name": name, "number": found.number})
    terminal.say(printable(text_owner.revoked(name, found.number)))
    return 0


def _readable(body: bytes, opened: Callable[[bytes], object]) -> bytes:
    """What was signed, if a verifier can read it: names and hosts come from the command line. Raises: UsageError."""
    try:
        opened(body)
    except AttestationError as error:
        raise UsageError(error.message, hint=_HINT) from error
    return body


def _opened(path: Path, label: str, opened: Callable[[bytes], _T]) -> _T:
    """A file of the owner's own. Raises: ConfigurationError."""
    try:
        return opened(from_pem(read_file(path, CAP), label))
    except EvidenceError as error:
        raise ConfigurationError(f"{path}: {error.message}", code="unrecognised_source", hint=_HINT) from error
    except WrongDeployment as error:
        raise ConfigurationError(f"{path}: {error.message}", code="owner_key", hint=_HINT) from error


def _former(arguments: Arguments, owner: PrivateKey) -> Revocation | None:
    """The list that the new one goes on from, if one is named and there. Raises: ConfigurationError."""
    if not arguments.source or not Path(arguments.source).exists():
        return None
    old = _opened(Path(arguments.source), REVOCATION_LABEL, open_revocation)
    if old.owner != spki_of(owner) or arguments.name not in (None, old.name):
        raise ConfigurationError(text_owner.FOREIGN_GRANT, code="owner_key", hint=_HINT)
    return old


def _together(old: tuple[Any, ...], new: list[Any]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys((*old, *new)))


def _show(arguments: Arguments, terminal: Terminal) -> int:
    path = Path(_source(arguments))
    found = shown(read_file(path, CAP), path, arguments.passphrase_file)
    if terminal.json:
        terminal.emit(found)
    else:
        for name, value in found.items():
            words = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            terminal.data(f"{name:<15} {printable(words)}")
    return 0


_SIGNS = frozenset({"source", "key", "passphrase_file", "output", "force"})
_ACTIONS = {
    "init": (_init, frozenset({"source", "algorithm", "passphrase_file", "force"})),
    "grant": (_grant, _SIGNS | TRUST | {"name", "host", "days", "timeout"}),
    "renew": (_renew, _SIGNS | {"host", "days"}),
    "revoke": (_revoke, _SIGNS | {"name", "serial", "below", "deployment_key", "refresh"}),
    "show": (_show, frozenset({"source", "passphrase_file"})),
}
"""Each action, and which arguments it reads."""
