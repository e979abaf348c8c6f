"""Collateral from files: one file, or a folder whose files are recognised by what they hold, not by their names."""

from __future__ import annotations

import os
from pathlib import Path

from attestable_mcp.errors import ConfigurationError, EndorsementUnavailable, EvidenceError, MalformedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import DocumentKind, EndorsementQuery, Endorsements
from attestable_mcp.wire import der
from attestable_mcp.wire.collateral import read_collateral_json, read_json, read_signed_document
from attestable_mcp.wire.pem import CRL_LABELS, certificate_of, is_pem, read_blocks
from attestable_mcp.wire.stapled import read_crl

_DOCUMENTS = {"tcbInfo": DocumentKind.INTEL_TCB_INFO, "enclaveIdentity": DocumentKind.INTEL_QE_IDENTITY}
_RECORD = frozenset({"tcb_info", "qe_identity", "pck_crl", "root_ca_crl"})


class FileSource:
    """Endorsements from a file or a folder (one level deep), read anew at each fetch.

    Recognised: collateral records (the JSON of `dcap-qvl` and Intel's QVE), PCS answers (`{"tcbInfo": …, "signature":
    …}`), certificates and CRLs as PEM or DER. Files of other kinds are left alone and named in `ignored`.

    Raises:
        ConfigurationError: `path` is neither a file nor a folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.ignored: tuple[str, ...] = ()
        if not self.path.exists():
            raise ConfigurationError(f"endorsements: {self.path}: no such file or folder")

    @property
    def name(self) -> str:
        return f"files in {self.path}" if self.path.is_dir() else f"file {self.path}"

    def fetch(self, query: EndorsementQuery, *, deadline_seconds: float = LIMITS.endorsement_seconds) -> Endorsements:
        """Everything that the files hold; the query narrows nothing, since verification picks what it needs.

        Raises:
            EndorsementUnavailable: nothing of use was found.
            EvidenceError: a file is collateral by its shape, and damaged.
            ConfigurationError: a file cannot be read.
        """
        found, ignored = self.load()
        self.ignored = ignored
        if found == Endorsements():
            raise EndorsementUnavailable(
                f"{self.name}: no collateral in it"
                + (f" (not recognised: {', '.join(ignored[:8])})" if ignored else ""),
                hint="put TCB info, QE identity, both CRLs and their certificates there, or name another source",
            )
        return found + Endorsements(sources=(self.name,))

    def load(self) -> tuple[Endorsements, tuple[str, ...]]:
        """What the files hold, and the names of those that hold nothing known."""
        found, ignored = Endorsements(), []
        for file in self._files():
            piece = recognise_endorsement(_read(file))
            if piece is None:
                ignored.append(file.name)
            else:
                found += piece
        return found, tuple(ignored)

    def _files(self) -> list[Path]:
        try:
            if not self.path.is_dir():
                return [self.path]
            files = sorted(entry for entry in self.path.iterdir() if entry.is_file())
        except OSError as error:
            raise ConfigurationError(f"endorsements: {self.path}: {error.strerror or error}") from error
        if len(files) > LIMITS.endorsement_files:
            raise ConfigurationError(
                f"endorsements: {self.path}: wanted at most {LIMITS.endorsement_files} files, seen {len(files)}"
            )
        return files


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            data = stream.read(LIMITS.endorsement + 1)
    except OSError as error:
        raise ConfigurationError(f"endorsements: {file}: {error.strerror or error}") from error
    if len(data) > LIMITS.endorsement:
        raise ConfigurationError(f"endorsements: {file}: larger than {LIMITS.endorsement} bytes")
    return data


def recognise_endorsement(data: bytes) -> Endorsements | None:
    """Collateral in these bytes, or None where they are something else.

    Raises:
        EvidenceError: collateral by its shape, and damaged.
    """
    if data.lstrip()[:1] == b"{":
        return _json(data)
    if is_pem(data):
        return _pem(data)
    if data[:1] == b"\x30":
        return _der(data)
    return None


def _json(data: bytes) -> Endorsements | None:
    try:
        members = set(read_json(data, field="endorsements"))
    except EvidenceError:
        return None  # not JSON after all, or no object that anybody signed
    if members & _RECORD:
        return read_collateral_json(data)
    for name, kind in _DOCUMENTS.items():
        if name in members:
            return Endorsements(documents=(read_signed_document(data, kind),))
    return None


def _pem(data: bytes) -> Endorsements | None:
    certificates: list[bytes] = []
    crls: list[bytes] = []
    for block in read_blocks(data, explanatory=True, most=LIMITS.endorsement_files):
        if block.label in CRL_LABELS:
            crls.append(read_crl(block.der))
        elif "CERTIFICATE" in block.label:
            certificates.append(certificate_of(block))
    if not certificates and not crls:
        return None
    return Endorsements(certificates=tuple(certificates), crls=tuple(crls))


def _der(data: bytes) -> Endorsements | None:
    try:
        return Endorsements(crls=(read_crl(data),))
    except MalformedEvidence:
        pass  # no CRL: perhaps a certificate
    try:
        raw = der.Reader(data, 0, "certificate").read(der.SEQUENCE).raw
    except MalformedEvidence:
        return None
    return Endorsements(certificates=(raw,)) if raw in (data, data.removesuffix(b"\0")) else None
