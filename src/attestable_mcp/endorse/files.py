"""Collateral from a file or a folder of one's own, each file recognised by its content, never by its name."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from attestable_mcp.errors import ConfigurationError, EvidenceError
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import DocumentKind, EndorsementQuery, Endorsements, SignedDocument
from attestable_mcp.wire.collateral import RECORD_KEYS, read_collateral_json, read_json, read_signed_document
from attestable_mcp.wire.eventlog import is_event_log
from attestable_mcp.wire.pem import CERTIFICATE_LABELS, CRL_LABELS, is_pem, read_blocks
from attestable_mcp.wire.x509 import read_certificate, read_crl_head

_HEX = re.compile(rb"[0-9A-Fa-f\s]+")
_DOCUMENT_KINDS = {
    "tcbInfo": DocumentKind.INTEL_TCB_INFO,
    "enclaveIdentity": DocumentKind.INTEL_QE_IDENTITY,
}
_MEMBERS = {*_DOCUMENT_KINDS, *RECORD_KEYS}
_SEQUENCE = b"\x30"
"""How every certificate and CRL begins (DER SEQUENCE)."""


class FileSource:
    """A file, or the files directly inside a folder. Read anew at every fetch, so that they can be replaced.

    Raises:
        ConfigurationError: there is no such file or folder, or the folder is empty.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._files()

    @property
    def name(self) -> str:
        """The path as given."""
        return str(self.path)

    def fetch(self, query: EndorsementQuery, *, deadline_seconds: float) -> Endorsements:
        """All recognised pieces, whatever the query: the verifier takes those that fit.

        Raises: as `everything`.
        """
        return self.everything()

    def everything(self) -> Endorsements:
        """All recognised pieces. `sources` names every file, `left_out` those that are damaged, with the reason.

        Raises:
            ConfigurationError: unreadable, too many files or too large ones, nothing recognised in any of them.
        """
        found = Endorsements()
        ignored: list[str] = []
        for path in self._files():
            data = self._read(path)
            try:
                piece = read_piece(data)
            except EvidenceError as error:
                found += Endorsements(left_out=(f"{path}: {error.message}",))
                continue
            if piece is None:
                ignored.append(path.name)
            else:
                found += replace(piece, sources=(str(path),))
        if not found.sources:
            raise ConfigurationError(
                f"{self.path}: wanted collateral, seen no file that is any "
                f"({'; '.join([*found.left_out[:8], *ignored[:8]])})",
                hint="Recognised are collateral JSON, signed PCS answers, certificates, CRLs and event logs.",
            )
        return found + Endorsements(sources=tuple(f"{name} (not recognised, left out)" for name in ignored))

    def _files(self) -> tuple[Path, ...]:
        try:
            if self.path.is_file():
                return (self.path,)
            files = tuple(sorted(item for item in self.path.iterdir() if item.is_file()))
        except OSError as error:
            raise ConfigurationError(
                f"endorsements {self.path}: wanted a file or folder, seen {error.strerror or 'none'}"
            ) from error
        if not files:
            raise ConfigurationError(f"endorsements {self.path}: the folder holds no file")
        if len(files) > LIMITS.endorsement_files:
            raise ConfigurationError(
                f"endorsements {self.path}: {len(files)} files, at most {LIMITS.endorsement_files} are read"
            )
        return files

    def _read(self, path: Path) -> bytes:
        try:
            with path.open("rb") as file:
                data = file.read(LIMITS.endorsement + 1)
        except OSError as error:
            raise ConfigurationError(f"endorsements {path}: {error.strerror or error}") from error
        if len(data) > LIMITS.endorsement:
            raise ConfigurationError(f"endorsements {path}: more than {LIMITS.endorsement} bytes")
        return data


def recognise(data: bytes) -> Endorsements | None:
    """The collateral that these bytes are; None if they are none. A damaged piece is none."""
    try:
        return read_piece(data)
    except EvidenceError:
        return None


def read_piece(data: bytes) -> Endorsements | None:
    """The collateral that these bytes are; None where they are something else altogether.

    Raises:
        EvidenceError: they begin like collateral, and are damaged.
    """
    if is_event_log(data):
        return Endorsements(
            documents=(SignedDocument(kind=DocumentKind.EVENT_LOG, body=data, signature=b"", issuer_chain=()),)
        )
    if data.lstrip()[:1] == b"{":
        return _json(data)
    if is_pem(data):
        return _pem(data)
    if _HEX.fullmatch(data):
        with suppress(ValueError):
            data = bytes.fromhex(data.decode("ascii"))
    return _der(data) if data[:1] == _SEQUENCE else None


def _json(data: bytes) -> Endorsements | None:
    record = read_json(data, field="collateral")
    if not _MEMBERS & set(record):
        return None
    for member, kind in _DOCUMENT_KINDS.items():
        if member in record:
            return Endorsements(documents=(read_signed_document(data, kind),))
    return read_collateral_json(data)


def _pem(data: bytes) -> Endorsements | None:
    blocks = read_blocks(data, explanatory=True, most=LIMITS.endorsement_files)
    certificates = tuple(block.der for block in blocks if block.label in CERTIFICATE_LABELS)
    crls = tuple(block.der for block in blocks if block.label in CRL_LABELS)
    return Endorsements(certificates=certificates, crls=crls) if certificates or crls else None


def _der(data: bytes) -> Endorsements:
    try:
        read_certificate(data)
    except EvidenceError:
        read_crl_head(data)
        return Endorsements(crls=(data,))
    return Endorsements(certificates=(data,))
