"""The serving end of deployment identity: the key that lives here, the owner's grant for it, and how both come and go.

The key is made in this process unless one is handed in. A request (key and evidence) goes out to a file, the owner
signs a grant, the grant comes in through a file and is read anew whenever that file changes. Only a grant of the named
owner for this very key is taken; whatever else lies there changes nothing for the one in force (attack C14).
"""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from attestable_mcp.attest.base import Attester
from attestable_mcp.bind.deployment import (
    DeploymentKey,
    DeploymentProof,
    deployment_of,
    key_hash,
    load_key,
    open_grant,
    open_revocation,
)
from attestable_mcp.errors import AttestationError, ChannelMismatch, ConfigurationError, EndorsementUnavailable
from attestable_mcp.files import replace_file
from attestable_mcp.rats import AttestationResult, Deployment, carried
from attestable_mcp.tls.judge import admitted
from attestable_mcp.tls.revocations import read_capped
from attestable_mcp.verifier import Verifier
from attestable_mcp.wire.grant import (
    GRANT_LABEL,
    REVOCATION_LABEL,
    Grant,
    GrantRequest,
    Revocation,
    from_pem,
    request_report_data,
)
from attestable_mcp.wire.stapled import read_tagged_endorsements, tagged_endorsements

LOOK_SECONDS = 1.0
"""How often, at most, the files are looked at."""
_log = logging.getLogger(__name__)


class DeploymentHolder:
    """A deployment key and what its owner says of it. Safe to share between threads.

    `owner` is the owner's SubjectPublicKeyInfo (DER). `grant_file` and `revocation_file` are read at once where they
    exist, and again when they change; `request_file` is written by `open`. Without a grant nothing is proven, and
    clients that ask for a deployment refuse.
    """

    def __init__(
        self,
        owner: bytes,
        *,
        key: DeploymentKey | None = None,
        grant_file: Path | None = None,
        revocation_file: Path | None = None,
        request_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.key = key or DeploymentKey()
        self.owner = key_hash(owner)
        self._grants = _Watched(grant_file, "grant", self._take_grant)
        self._revocations = _Watched(revocation_file, "revocation list", self._take_revocation)
        self._request_file = request_file
        self._clock = clock
        self._looked = float("-inf")
        self._grant: tuple[Grant, bytes] | None = None
        self.outdated: Grant | None = None
        """A grant of this owner for another key that lay there last: what a restart leaves behind."""
        self._revocation: tuple[Revocation, bytes] | None = None
        self._warned = (-1, "")
        self._lock = threading.Lock()

    def open(self, attester: Attester) -> None:
        """Write the request, if one is wanted. Blocks for as long as the device takes.

        Raises:
            AttesterError: Of the device. ConfigurationError: The file cannot be written.
        """
        if self._request_file is None:
            return
        evidence = attester.attest(request_report_data(self.key.spki))
        try:
            stapled = tagged_endorsements(attester.endorsements())
        except EndorsementUnavailable:
            stapled = b""
        request = GrantRequest(key=self.key.spki, evidence=evidence, endorsements=stapled)
        try:
            replace_file(self._request_file, request.to_pem(), mode=0o644)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise ConfigurationError(f"deployment request {self._request_file}: {reason}", code="unwritable") from error

    @property
    def deployment(self) -> Deployment | None:
        """What the grant in force says, or None."""
        with self._lock:
            self._look()
            return None if self._grant is None else deployment_of(self._grant[0])

    def prove(self, transcript: bytes) -> DeploymentProof | None:
        """The grant in force, with the key's signature over this connection's transcript; None without a grant."""
        with self._lock:
            self._look()
            if self._grant is None:
                return None
            grant, revocation = self._grant[1], self._revocation[1] if self._revocation else b""
        return DeploymentProof(
            grant=grant, key=self.key.spki, signature=self.key.sign(transcript), revocation=revocation
        )

    def _look(self) -> None:
        now = self._clock()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        self._grants.look()
        self._revocations.look()
        self._warn()

    def _warn(self) -> None:
        """Once for each grant: that the last tenth of its time has begun, and that it has ended."""
        if self._grant is None:
            return
        grant, now = self._grant[0], datetime.now(UTC)
        last_tenth = grant.not_after - (grant.not_after - grant.not_before) / 10
        if now <= last_tenth:
            return
        word = "ended" if now > grant.not_after else "ends"
        if (grant.serial, word) == self._warned:
            return
        self._warned = (grant.serial, word)
        _log.warning(
            "the grant for %r %s at %s; from then on clients that name the owner refuse this server, until the owner "
            "renews it (attestable-mcp owner renew)", grant.name, word, grant.not_after.isoformat(),
        )  # fmt: skip

    def _take_grant(self, data: bytes) -> None:
        body = from_pem(data, GRANT_LABEL)
        grant = open_grant(body)
        if key_hash(grant.owner) != self.owner:
            raise ConfigurationError(f"grant: wanted owner {self.owner}, seen {key_hash(grant.owner)}")
        if grant.key != self.key.spki_sha256:
            self.outdated = grant
            raise ConfigurationError(
                f"grant: wanted this deployment's key {self.key.spki_sha256.hex()}, seen {grant.key.hex()}",
                hint="The key lives as long as this process: ask for a grant with the present request.",
            )
        if grant.not_after < datetime.now(UTC):
            raise ConfigurationError(f"grant: it ended at {grant.not_after.isoformat()}")
        if self._grant is not None and grant.serial < self._grant[0].serial:
            raise ConfigurationError(f"grant: wanted serial {self._grant[0].serial} or higher, seen {grant.serial}")
        self._grant = (grant, body)
        _log.info("grant %d for %r in force until %s", grant.serial, grant.name, grant.not_after.isoformat())

    def _take_revocation(self, data: bytes) -> None:
        body = from_pem(data, REVOCATION_LABEL)
        found = open_revocation(body)
        if key_hash(found.owner) != self.owner:
            raise ConfigurationError(f"revocation list: wanted owner {self.owner}, seen {key_hash(found.owner)}")
        if self._grant is not None and found.name != self._grant[0].name:
            raise ConfigurationError(f"revocation list: wanted {self._grant[0].name!r}, seen {found.name!r}")
        if self._revocation is not None and found.number < self._revocation[0].number:
            raise ConfigurationError(f"revocation list: wanted {self._revocation[0].number} or higher")
        self._revocation = (found, body)


def appraise_request(request: GrantRequest, verifier: Verifier, at: datetime) -> AttestationResult:
    """What the evidence in a request for a grant proves of the code that holds the key. `at` is timezone-aware.

    Raises:
        AttestationError: It is refused; or genuine, but made for another key (`channel_binding_mismatch`).
    """
    stapled = read_tagged_endorsements(request.endorsements) if request.endorsements else None
    appraisal = verifier.appraise_evidence(request.evidence, stapled=stapled, at=at)
    verified = admitted(appraisal, "request")
    load_key(request.key)
    wanted = carried(request_report_data(request.key), request.evidence.kind)
    if not hmac.compare_digest(verified.claims.report_data, wanted):
        raise ChannelMismatch(
            "request: its evidence was not made for the key in it",
            hint="Take the request from the server itself; this one was put together by somebody.",
        )
    return appraisal.result


class _Watched:
    """A file that is taken whenever it changes; what cannot be taken is logged once and changes nothing."""

    def __init__(self, path: Path | None, what: str, take: Callable[[bytes], None]) -> None:
        self._path = path
        self._what = what
        self._take = take
        self._stamp: tuple[int, int] | None = None

    def look(self) -> None:
        """Read the file if it is another than before."""
        if self._path is None:
            return
        try:
            found = self._path.stat()
        except OSError:
            self._stamp = None
            return
        stamp = (found.st_mtime_ns, found.st_size)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._take(read_capped(self._path, self._what))
        except AttestationError as error:
            _log.error("%s not taken from %s: %s", self._what, self._path, error.message)
