"""The pins of a user: one file an origin, and the check that each connection passes where no policy names the code.

    attested_client(url, pins=Pins())

The first server that answers at an origin, once proven genuine, is remembered; a later one must be the same. Files
lie in the user's data folder, readable for the user alone, and are replaced whole under a lock. A file that cannot be
read as a pin refuses the server: it is never taken for a first use.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from attestable_mcp.appraise.deployment import HINTS, DeploymentPolicy, judge_deployment
from attestable_mcp.appraise.pins import Pin, changed, compare, day, first_use, pin_of, same, sentence
from attestable_mcp.errors import AppraisalRefused, ConfigurationError
from attestable_mcp.files import locked, replace_file, user_folder
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import ErrorReport, Finding, Verdict
from attestable_mcp.tls.admission import AttestedPeer

VERSION = 1
_DIGESTS = ("anchor", "owner", "deployment_key", "manifest", "configuration")
_HEX = re.compile(r"(?:[0-9a-f]{2})*")
_WORDS = ("origin", "tee", "deployment", "release_identity", *_DIGESTS)
_TIMES = ("first_use", "accepted")
_KEYS = {"version", "simulated", "code", *_WORDS, *_TIMES}


class PinMismatch(AppraisalRefused):
    """A server differs from what was pinned for its origin. `pinned` and `seen` are the two, `findings` all fields."""

    code = "pin_mismatch"

    def __init__(self, pinned: Pin, seen: Pin, findings: tuple[Finding, ...], result: object) -> None:
        super().__init__(sentence(pinned, findings), result=result, hint=_hint(seen))
        self.pinned = pinned
        self.seen = seen
        self.findings = findings


def _hint(seen: Pin) -> str:
    danger = " --danger-accept-simulated" if seen.simulated else ""
    return (
        "Ask the operator, over another way, what changed. To see the whole difference and accept it: "
        f"attestable-mcp pin --update {seen.origin}{danger}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """A file among the pins that cannot be read as one."""

    path: Path
    problem: str


class Pins:
    """The pins under `folder` (default: the user's data folder). Safe to share between threads and processes.

    `on_first_use` is called, from whatever thread verifies, with each pin that a first use has just made. With
    `first_use="refuse"` nothing is pinned: a server that has no pin is refused.
    """

    def __init__(
        self,
        folder: Path | str | None = None,
        *,
        first_use: Literal["pin", "refuse"] = "pin",
        on_first_use: Callable[[Pin], None] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.folder = Path(folder) if folder is not None else default_folder()
        self._pins_first = first_use == "pin"
        self._on_first_use = on_first_use
        self._clock = clock

    def path(self, origin: str) -> Path:
        """Where the pin of `origin` (scheme, host and port, as `str(Origin)`) lies."""
        readable = re.sub(r"[^a-z0-9-]", "_", origin.partition("://")[2])[:60]
        return self.folder / f"{readable}-{hashlib.sha256(origin.encode()).hexdigest()[:16]}.json"

    def get(self, origin: str) -> Pin | None:
        """The pin of an origin, None where there is none.

        Raises:
            ConfigurationError: `pin_damaged`: there is one that cannot be read.
        """
        path = self.path(origin)
        try:
            pin = read_pin(path)
        except FileNotFoundError:
            return None
        if pin.origin != origin:
            raise _damaged(path, f"wanted the pin of {origin}, seen that of {pin.origin}")
        return pin

    def admit(self, peer: AttestedPeer) -> AttestedPeer:
        """Compare a genuine server with its pin, or pin it at its first use. Gives the peer with its new result.

        Raises:
            PinMismatch: it is another server than the pinned one.
            ConfigurationError: the pin is damaged, or cannot be written; or there is none, and none may be made.
        """
        at = self._clock()
        seen = seen_of(peer, at=at)
        pinned = self.get(seen.origin)
        if pinned is None:
            if not self._pins_first:
                raise _not_pinned(seen.origin)
            pinned = self._first(seen)
            if pinned is seen:
                return replace(peer, result=first_use(peer.result, seen))
        if pinned.owner:
            seen = seen_of(peer, at=None)
        findings = compare(pinned, seen)
        if changed(findings):
            raise PinMismatch(pinned, seen, findings, _refused(peer, pinned, seen, findings))
        grant = _judged(peer, at) if pinned.owner else ()
        _demand_grant(peer, grant)
        return replace(peer, result=same(peer.result, pinned, (*findings, *grant)))

    def _first(self, seen: Pin) -> Pin:
        """Write `seen` unless another process was faster: what is pinned then."""
        with self._locked():
            pinned = self.get(seen.origin)
            if pinned is None:
                self._write(seen)
        if pinned is None and self._on_first_use is not None:
            self._on_first_use(seen)
        return pinned or seen

    def accept(self, seen: Pin, *, instead_of: Pin | None) -> Pin:
        """Pin `seen` in the place of `instead_of` (None: of nothing, or of a damaged file). Gives what is pinned now.

        Raises:
            ConfigurationError: `pin_changed`: another process has changed the pin since it was looked at.
        """
        with self._locked():
            if self._current(seen.origin) != instead_of:
                raise ConfigurationError(
                    f"the pin of {seen.origin} was changed by another process",
                    code="pin_changed",
                    hint="Look at the difference again.",
                )
            kept = instead_of or seen
            pin = replace(seen, first_use=kept.first_use, release_identity=kept.release_identity)
            self._write(pin)
        return pin

    def _current(self, origin: str) -> Pin | None:
        try:
            return self.get(origin)
        except ConfigurationError:
            return None

    def forget(self, origin: str) -> bool:
        """Remove the pin of an origin, damaged or not. False where there was none. Raises: ConfigurationError."""
        if not os.path.lexists(self.path(origin)):
            return False
        with self._locked():
            self.path(origin).unlink(missing_ok=True)
        return True

    def all(self) -> list[Pin | Damaged]:
        """Every pin, in the order of the file names; what cannot be read is named."""
        found: list[Pin | Damaged] = []
        for path in sorted(self.folder.glob("*.json")):
            try:
                pin = read_pin(path)
            except FileNotFoundError:
                continue
            except ConfigurationError as error:
                found.append(Damaged(path=path, problem=error.message))
                continue
            known = self.path(pin.origin) == path
            found.append(pin if known else Damaged(path=path, problem=f"the pin of {pin.origin} under another name"))
        return found

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        with locked(self.folder / ".lock"):
            try:
                yield
            except OSError as error:
                raise _unwritable(self.folder, error) from error

    def _write(self, pin: Pin) -> None:
        text = json.dumps(to_json(pin), indent=2, ensure_ascii=True) + "\n"
        replace_file(self.path(pin.origin), text.encode())


def default_folder() -> Path:
    """`attestable-mcp/pins` in the folder where the system keeps a user's application data."""
    return user_folder("data") / "pins"


def seen_of(peer: AttestedPeer, *, at: datetime | None) -> Pin:
    """What would be pinned of this peer: its owner only if the grant holds `at` this moment, or, with None, if shown.

    Raises:
        ConfigurationError: `pin_unsupported`.
    """
    deployment = peer.deployment
    if at is not None and changed(_judged(peer, at)):
        deployment = None
    return pin_of(
        peer.verified,
        origin=str(peer.origin),
        deployment=deployment,
        deployment_key=peer.commitments.deployment_key.hex(),
        manifest=peer.commitments.manifest.hex(),
        configuration=peer.commitments.configuration.hex(),
    )


def _judged(peer: AttestedPeer, at: datetime) -> tuple[Finding, ...]:
    """Does the grant that the peer shows hold now, for the host that was dialled? Without one, nothing is said."""
    shown = peer.deployment
    if shown is None:
        return ()
    policy = DeploymentPolicy(owners=(shown.owner,), name=shown.name)
    return judge_deployment(shown, policy, host=peer.origin.host, at=at)


def _demand_grant(peer: AttestedPeer, findings: tuple[Finding, ...]) -> None:
    """Raises: AppraisalRefused: the pinned owner's grant has run out, is revoked, or is for another host."""
    failed = changed(findings)
    if not failed:
        return
    code = failed[0].code
    words = "; ".join(f"{finding.check}: wanted {finding.wanted}, seen {finding.seen}" for finding in failed)
    report = ErrorReport(code=code, message=words, hint=HINTS.get(code, ""))
    result = replace(
        peer.result, verdict=Verdict.REFUSED, findings=(*peer.result.findings, *findings), error=report
    )  # fmt: skip
    raise AppraisalRefused(words, result=result, code=code, hint=report.hint)


def _refused(peer: AttestedPeer, pinned: Pin, seen: Pin, findings: tuple[Finding, ...]) -> object:
    return replace(
        peer.result,
        verdict=Verdict.REFUSED,
        findings=(*peer.result.findings, *findings),
        error=ErrorReport(code="pin_mismatch", message=sentence(pinned, findings), hint=_hint(seen)),
        policy=f"{peer.result.policy} + pin of {day(pinned.accepted)}",
    )


# Files


def to_json(pin: Pin) -> dict[str, Any]:
    """The shape of a pin file and of `pin --list --json`."""
    times = {name: day(getattr(pin, name)) for name in _TIMES}
    words = {name: getattr(pin, name) for name in _WORDS[1:]}
    head = {"version": VERSION, "origin": pin.origin, **times}
    return {**head, **words, "simulated": pin.simulated, "code": dict(pin.code)}


def read_pin(path: Path) -> Pin:
    """Read a pin file strictly: every key, every type, nothing else.

    Raises:
        FileNotFoundError: there is none. ConfigurationError: `pin_damaged`.
    """
    try:
        with path.open("rb") as file:
            _demand_own(path, os.fstat(file.fileno()))
            data = file.read(LIMITS.pin_file + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _damaged(path, error.strerror or str(error)) from error
    if len(data) > LIMITS.pin_file:
        raise _damaged(path, f"more than {LIMITS.pin_file} bytes")
    try:
        return _pin(json.loads(data))
    except (ValueError, RecursionError, TypeError, KeyError) as error:
        raise _damaged(path, str(error) or type(error).__name__) from error


def _demand_own(path: Path, status: os.stat_result) -> None:
    """A pin that others may write proves nothing. Windows keeps other users out of the folder by itself."""
    if sys.platform == "win32":
        return
    if status.st_mode & 0o022 or status.st_uid not in (os.geteuid(), 0):
        mode, user = status.st_mode & 0o777, status.st_uid
        raise _damaged(path, f"wanted one that only you can write, seen mode {mode:o} of user {user}")


def _pin(value: object) -> Pin:
    """Raises: ValueError, in words."""
    if not isinstance(value, dict) or set(value) != _KEYS:
        raise ValueError("its keys are not those of a pin")
    if value["version"] != VERSION or isinstance(value["version"], bool):
        raise ValueError(f"version wanted {VERSION}, seen {value['version']!r:.40}")
    for name in _WORDS:
        if not isinstance(value[name], str):
            raise ValueError(f"{name}: wanted a string")
    for name in _DIGESTS:
        if not _HEX.fullmatch(value[name]):
            raise ValueError(f"{name}: wanted lower-case hex digits")
    if not isinstance(value["simulated"], bool):
        raise ValueError("simulated: wanted true or false")
    code = value["code"]
    if not isinstance(code, dict) or not code or not all(isinstance(item, str | int) for item in code.values()):
        raise ValueError("code: wanted at least one value")
    fields: dict[str, Any] = {name: value[name] for name in _WORDS}
    fields |= {name: _time(value[name], name) for name in _TIMES}
    return Pin(**fields, simulated=value["simulated"], code=code)


def _time(value: object, name: str) -> datetime:
    if not isinstance(value, str) or not value.endswith("Z"):
        raise ValueError(f"{name}: wanted a UTC time")
    return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def _not_pinned(origin: str) -> ConfigurationError:
    return ConfigurationError(
        f"{origin} is not pinned",
        code="not_pinned",
        hint=f"Look at what answers and pin it: attestable-mcp pin --update {origin}",
    )


def _damaged(path: Path, problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"pin file {path}: {problem}",
        code="pin_damaged",
        hint="Restore the file, or look at what answers now and pin it anew: attestable-mcp pin --update URL",
    )


def _unwritable(path: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"pins in {path}: {error.strerror or error}",
        code="unwritable",
        hint="Make the folder writable for this user, or give a policy with --policy.",
    )
