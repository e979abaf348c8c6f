"""TPM 2.0 evidence: a quote over the PCRs whose qualifying data is the SHA-256 of the 64 bytes of report data.

We speak the TPM's own command protocol (`tpm_commands`), for reasons that docs/decisions has. The key is found by
`tpm_key`; whether anybody believes it is the verifier's question: its certificate is stapled where there is one.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from attestable_mcp.attest.base import demand_report_data
from attestable_mcp.attest.eventlogs import travels
from attestable_mcp.attest.tpm_commands import Quoted, Tpm, TpmRefused
from attestable_mcp.attest.tpm_key import KeyPlace, find_key, read_certificate, spki
from attestable_mcp.attest.tpm_link import DEVICE, Link, open_link
from attestable_mcp.errors import AttesterError, ConfigurationError, EvidenceError
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind, Tee, carried
from attestable_mcp.wire.tpm import (
    RESETTABLE,
    TpmEvidence,
    pcr_concatenation,
    read_quote,
    read_signature,
    write_evidence,
)

EVENT_LOG = Path("/sys/kernel/security/tpm0/binary_bios_measurements")
PCRS = tuple(range(16))
"""Firmware, boot loader and operating system: all that only a reboot resets."""
OPTIONS = ("pcrs", "log")
"""What may be set by a word on the command line: see `settings`."""
_BANKS = ("sha256", "sha384", "sha512")
_ATTEMPTS = 4


def event_log_of(where: str) -> Path | None:
    """The firmware's event log of the TPM at this place; None for a socket, which is no TPM of this machine's firmware.

    The kernel shows the log of `/dev/tpmrmN` under `tpmN`.
    """
    device = re.fullmatch(r"tpmrm(\d+)", Path(where).name)
    return EVENT_LOG.parent.parent / f"tpm{device[1]}" / EVENT_LOG.name if device else None


def settings(where: str, *, pcrs: str = "", log: str = "") -> dict[str, Any]:
    """Words as options of a TPM's attester: `pcrs` such as `0-9+14`, `log` the path of its event log, or `none`.

    Raises:
        ConfigurationError: numbers that are none, or of PCRs that prove nothing alone; a log that cannot be read.
    """
    path = Path(log) if log not in ("", "none") else None if log else event_log_of(where)
    if log not in ("", "none") and not os.access(log, os.R_OK):
        raise ConfigurationError(f"attester tpm: log: {log} cannot be read", hint="it is root's; log=none sends none")
    return {"event_log": path} | ({"pcrs": _selection(pcrs)} if pcrs else {})


def _selection(words: str) -> tuple[int, ...]:
    found: set[int] = set()
    for word in words.split("+"):
        ends = re.fullmatch(r"(\d{1,2})(?:-(\d{1,2}))?", word, re.ASCII)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
        if not first <= last < 24:
            raise ConfigurationError(f"attester tpm: pcrs: wanted 0 to 23, such as 0-9+14, seen {words!r:.80}")
        found.update(range(first, last + 1))
    if found <= set(RESETTABLE):
        raise ConfigurationError("attester tpm: pcrs 16 and 23 can be reset by anybody: alone they prove nothing")
    return tuple(sorted(found))


class TpmAttester:
    """The TPM of this machine, or swtpm. Safe to share between threads; one quote at a time.

    `where` is a device, a socket's path or HOST:PORT; `key` and `pcrs` override what is found and usual;
    `event_log` is read at each quote, and left out where it cannot be read, or no verifier would take it.

    Raises:
        AttesterError: there is no TPM, it has no SHA-2 bank, or it does not hand out a key.
    """

    tee = Tee.TPM.value
    simulated = False

    def __init__(
        self,
        where: str = str(DEVICE),
        *,
        key: KeyPlace | None = None,
        pcrs: Iterable[int] = PCRS,
        event_log: Path | None = EVENT_LOG,
        connect: Callable[[str], Link] = open_link,
    ) -> None:
        self._where = where
        self._connect = connect
        self._pcrs = tuple(sorted(set(pcrs)))
        self._event_log = event_log
        self._lock = threading.Lock()
        self._context = b""
        self._certificate = b""
        self._ak = b""
        with self._open() as tpm:
            self.key = key or find_key(tpm)
            self.bank = _choose_bank(tpm.banks(), self._pcrs, where)
            self._certificate = read_certificate(tpm, self.key)
            _, public = self._open_key(tpm)
        self._ak = spki(public)

    def _open(self) -> Tpm:
        return Tpm(self._connect(self._where))

    @property
    def ak(self) -> bytes:
        """DER SubjectPublicKeyInfo of the attestation key: what a verifier pins, or a CA certifies."""
        return self._ak

    def attest(self, report_data: bytes) -> Evidence:
        """A quote over `pcrs` with SHA-256(report_data) as qualifying data. Tens to hundreds of milliseconds.

        Raises:
            AttesterError: the device refuses, answers for something else, or its PCRs do not stand still.
        """
        return Evidence(kind=EvidenceKind.TPM_QUOTE, body=write_evidence(self.quote(report_data)))

    def quote(self, report_data: bytes) -> TpmEvidence:
        """The same as parts, for evidence that has a quote inside. Raises: AttesterError."""
        qualifying = carried(demand_report_data(report_data), EvidenceKind.TPM_QUOTE)
        with self._lock, self._open() as tpm:
            handle = self._key_handle(tpm)
            for _ in range(_ATTEMPTS):
                values = tpm.pcrs(self.bank, self._pcrs)
                quoted = tpm.quote(handle, qualifying, self.bank, self._pcrs)
                if self._fits(quoted, values, qualifying):
                    return self._evidence(quoted, values)
        raise AttesterError(
            f"{self._where}: PCRs changed between reading and quoting, {_ATTEMPTS} times",
            hint="something extends them all the time (IMA extends PCR 10): leave it out with --attester tpm,pcrs=0-9",
        )

    def endorsements(self) -> Endorsements:
        """None: the certificate that the TPM keeps, if any, goes with the evidence; its issuers come from elsewhere."""
        return Endorsements()

    def _open_key(self, tpm: Tpm) -> tuple[int, bytes]:
        """Load the key, and keep its context, since making a primary key again can take a TPM a second."""
        loaded = self.key.open(tpm)
        if self._ak and spki(loaded.public) != self._ak:
            raise AttesterError(f"{self._where}: the TPM has another attestation key than before")
        if self.key.transient:
            self._context = tpm.save(loaded.handle)
        return loaded.handle, loaded.public

    def _key_handle(self, tpm: Tpm) -> int:
        if self._context:
            try:
                return tpm.load(self._context)
            except TpmRefused:
                self._context = b""  # the TPM was reset since, or dropped old contexts
        return self._open_key(tpm)[0]

    def _fits(self, quoted: Quoted, values: Mapping[int, bytes], qualifying: bytes) -> bool:
        """Does the quote speak of these values? Raises: AttesterError where it is no quote of ours at all."""
        try:
            quote, signature = read_quote(quoted.quote), read_signature(quoted.signature)
            digest = hashlib.new(signature.hash, pcr_concatenation(quote, {self.bank: values})).digest()
        except EvidenceError as error:
            raise AttesterError(f"{self._where}: wanted a quote over the PCRs, seen {error.message}") from error
        if quote.extra_data != qualifying:
            raise AttesterError(f"{self._where}: wanted the qualifying data just given, seen another")
        return digest == quote.pcr_digest

    def _evidence(self, quoted: Quoted, values: Mapping[int, bytes]) -> TpmEvidence:
        return TpmEvidence(
            quote=quoted.quote,
            signature=quoted.signature,
            ak=self._ak,
            pcrs={self.bank: dict(values)},
            ak_certificates=(self._certificate,) if self._certificate else (),
            event_log=_read_log(self._event_log),
        )


def _choose_bank(banks: Mapping[str, tuple[int, ...]], pcrs: Iterable[int], where: str) -> str:
    """SHA-256 where it is on, for reference values are mostly in it. SHA-1 proves nothing any more."""
    for bank in _BANKS:
        if set(pcrs) <= set(banks.get(bank, ())):
            return bank
    seen = ", ".join(sorted(banks)) or "none"
    raise AttesterError(
        f"{where}: wanted a PCR bank of SHA-256, SHA-384 or SHA-512, seen {seen}",
        hint="turn the SHA-256 bank on in the firmware (swtpm_setup --pcr-banks sha256)",
    )


def _read_log(path: Path | None) -> bytes:
    """The firmware's event log, if it is there, readable and fit to travel: a quote proves the PCRs without it."""
    if path is None:
        return b""
    try:
        with path.open("rb") as file:
            log = file.read(LIMITS.endorsement + 1)
    except OSError:
        return b""
    return log if log and travels(log) else b""
