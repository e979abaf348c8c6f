"""Collateral from Intel's Provisioning Certification Service, version 4, or a caching service (PCCS) that speaks it.

Addresses and headers: "API for Intel SGX and TDX Provisioning Certification Service", version 4
(api.portal.trustedservices.intel.com). A PCCS differs in one point: it serves the root's revocation list itself, in
hex, where Intel names a file on another host. Nothing here is believed: pieces are taken apart, and `verify` judges.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from cryptography import x509

from attestable_mcp.endorse.cache import Answer, DiskCache
from attestable_mcp.endorse.http import Wanted, checked_base, get_all, unavailable
from attestable_mcp.errors import ConfigurationError, EndorsementUnavailable, MalformedEvidence
from attestable_mcp.files import user_folder
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import DocumentKind, EndorsementQuery, Endorsements, SignedDocument, Tee
from attestable_mcp.wire.document import split_document
from attestable_mcp.wire.pem import pem_to_der

INTEL_PCS = "https://api.trustedservices.intel.com"
INTEL_ROOT_CRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"

PieceKind = Literal["tcb-info", "qe-identity", "pck-crl", "root-crl"]
_HEADERS: dict[PieceKind, str] = {
    "tcb-info": "tcb-info-issuer-chain",
    "qe-identity": "sgx-enclave-identity-issuer-chain",
    "pck-crl": "sgx-pck-crl-issuer-chain",
}
"""Where each answer carries its issuer chain, in lower case. The root's own list has none."""
_DOCUMENTS: dict[PieceKind, DocumentKind] = {
    "tcb-info": DocumentKind.INTEL_TCB_INFO,
    "qe-identity": DocumentKind.INTEL_QE_IDENTITY,
}
LONGEST_KEPT = timedelta(days=1)
"""Asked again after this time even where the answer holds longer: Intel publishes revocations ahead of nextUpdate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """One answer that is needed, and where it is had."""

    kind: PieceKind
    url: str


class PcsSource:
    """Fetches TCB info, QE identity and both revocation lists for one platform. Safe to share between threads.

    `base_url` is the PCS or PCCS up to before `/sgx/…`; plain http has to be spelled out in it. `cache_dir` None is the
    user's cache folder. `update` "early" asks for the evaluation that Intel publishes ahead of the standard one. `now`
    tells the time for the cache's sake only.

    Raises:
        ConfigurationError: the address is no http(s) URL, or carries a password, a query or a fragment.
    """

    def __init__(
        self,
        base_url: str = INTEL_PCS,
        cache_dir: Path | None = None,
        update: Literal["standard", "early"] = "standard",
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.base_url = checked_base(base_url, "collateral service", "https://pccs.example:8081")
        if update not in ("standard", "early"):
            raise ConfigurationError(f"update: wanted standard or early, seen {update!r}")
        self.update = update
        self.cache = DiskCache(cache_dir or user_folder("cache") / "pcs")
        self._now = now

    @property
    def name(self) -> str:
        """Words for reports, such as `PCS https://api.trustedservices.intel.com`."""
        return f"PCS {self.base_url}"

    def serves(self, query: EndorsementQuery) -> bool:
        """Is this a question for Intel?"""
        return query.tee in (Tee.SGX, Tee.TDX, Tee.AZURE_TDX)

    def fetch(self, query: EndorsementQuery, *, deadline_seconds: float = LIMITS.endorsement_seconds) -> Endorsements:
        """Collateral for `query`, from the cache or the network, within `deadline_seconds` over all.

        Raises:
            EndorsementUnavailable: it could not be had whole: no connection, time out, refusal, or an unusable answer.
        """
        answers: dict[PieceKind, Answer] = {}
        missing: list[_Piece] = []
        for piece in self._pieces(query):
            held = self._cached(piece)
            if held is None:
                missing.append(piece)
            else:
                answers[piece.kind] = held
        if missing:
            answers |= self._fetch(missing, deadline_seconds)
        return _assemble(answers, self.name)

    def _pieces(self, query: EndorsementQuery) -> tuple[_Piece, ...]:
        """The addresses to ask. The query comes out of unproven evidence: nothing of it enters a URL unchecked."""
        if query.tee not in (Tee.SGX, Tee.TDX):
            raise unavailable(self.base_url, f"holds nothing for {query.tee}: Intel's platforms only")
        fmspc, ca = query.parameters.get("fmspc", ""), query.parameters.get("pck_ca", "")
        if not re.fullmatch(r"[0-9a-f]{12}", fmspc):
            raise unavailable(self.base_url, f"fmspc: wanted 12 lower-case hex digits, seen {fmspc[:40]!r}")
        if ca not in ("processor", "platform"):
            raise unavailable(self.base_url, f"pck_ca: wanted processor or platform, seen {ca[:40]!r}")
        tee = f"{self.base_url}/{query.tee}/certification/v4"
        sgx = f"{self.base_url}/sgx/certification/v4"
        early = "&update=early" if self.update == "early" else ""
        root = INTEL_ROOT_CRL if self.base_url == INTEL_PCS else f"{sgx}/rootcacrl"
        return (
            _Piece(kind="tcb-info", url=f"{tee}/tcb?fmspc={fmspc}{early}"),
            _Piece(kind="qe-identity", url=f"{tee}/qe/identity{'?' + early[1:] if early else ''}"),
            _Piece(kind="pck-crl", url=f"{sgx}/pckcrl?ca={ca}&encoding=der"),
            _Piece(kind="root-crl", url=root),
        )

    def _cached(self, piece: _Piece) -> Answer | None:
        """A stored answer that still reads as what it should be."""
        now = self._now()
        answer = self.cache.get(piece.url, now)
        if answer is None:
            return None
        try:
            return answer if now < _expiry(piece, answer) else None
        except EndorsementUnavailable:
            return None

    def _fetch(self, pieces: list[_Piece], seconds: float) -> dict[PieceKind, Answer]:
        wanted = [Wanted(url=piece.url, check=partial(_expiry, piece)) for piece in pieces]
        found = get_all(wanted, seconds, headers=_HEADERS.values())
        outcome = {piece.kind: found[piece.url] for piece in pieces}
        for piece in pieces:
            ends = min(_expiry(piece, outcome[piece.kind]), self._now() + LONGEST_KEPT)
            self.cache.put(piece.url, outcome[piece.kind], ends)
        return outcome


# --- taking answers apart ---------------------------------------------------------------------------------------------


def _expiry(piece: _Piece, answer: Answer) -> datetime:
    """When a usable answer runs out (UTC), read without trust. Raises: EndorsementUnavailable if it is not usable."""
    moment = _next_update(piece, answer)
    if piece.kind in _HEADERS:
        _chain(answer, _HEADERS[piece.kind], piece.url)
    return moment


def _next_update(piece: _Piece, answer: Answer) -> datetime:
    kind = _DOCUMENTS.get(piece.kind)
    if kind is not None:
        body, _ = _split(answer, kind, piece.url)
        try:
            found = datetime.fromisoformat(str(json.loads(body).get("nextUpdate")))
            return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
        except (ValueError, OverflowError, RecursionError) as error:
            raise unavailable(piece.url, "no readable nextUpdate in the answer") from error
    try:
        limit = x509.load_der_x509_crl(_crl(answer.body)).next_update_utc
    except (ValueError, x509.InvalidVersion) as error:
        raise unavailable(piece.url, f"wanted a revocation list, seen something else: {error}") from error
    if limit is None:
        raise unavailable(piece.url, "a revocation list without nextUpdate")
    return limit


def _split(answer: Answer, kind: DocumentKind, where: str) -> tuple[bytes, bytes]:
    """The exact signed bytes and the signature. Raises: EndorsementUnavailable if the answer has no such shape."""
    try:
        return split_document(answer.body, kind)
    except MalformedEvidence as error:
        raise unavailable(where, f"wanted a signed JSON document: {error.message}") from error


def _crl(body: bytes) -> bytes:
    """DER of a revocation list that is served as DER, or by a PCCS in hex."""
    if body[:1] == b"\x30":
        return body
    try:
        return bytes.fromhex(body.decode("ascii").strip())
    except ValueError as error:
        raise ValueError("neither DER nor hex") from error


def _chain(answer: Answer, header: str, where: str) -> tuple[bytes, ...]:
    """The issuer chain out of a header: concatenated PEM, URL-encoded; DER, in the order served."""
    try:
        return pem_to_der(unquote(answer.headers.get(header, "")).encode(), field=header)
    except MalformedEvidence as error:
        raise unavailable(where, f"header {header}: {error.message}") from error


def _assemble(answers: dict[PieceKind, Answer], where: str) -> Endorsements:
    documents = []
    for piece, kind in _DOCUMENTS.items():
        answer = answers[piece]
        body, signature = _split(answer, kind, where)
        chain = _chain(answer, _HEADERS[piece], where)
        documents.append(SignedDocument(kind=kind, body=body, signature=signature, issuer_chain=chain))
    return Endorsements(
        certificates=_chain(answers["pck-crl"], _HEADERS["pck-crl"], where),
        crls=(_crl(answers["root-crl"].body), _crl(answers["pck-crl"].body)),
        documents=tuple(documents),
        sources=(where,),
    )
