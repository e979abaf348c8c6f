"""Certificates and revocation lists from AMD's Key Distribution Service.

Addresses: AMD 57230, "VCEK Certificate and KDS Interface Specification". The service gives about one VCEK in ten
seconds to one address and answers 429 to who asks for more; so what it gave is kept on disk, requests of all processes
go one by one, and who is told to wait waits. A VLEK is leased to a cloud provider, who alone can fetch it: of those
only chain and list are had here. Nothing is believed: pieces are read for their expiry only, and `verify` judges.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Literal

from cryptography import x509

from attestable_mcp.endorse.cache import Answer, DiskCache
from attestable_mcp.endorse.http import Declined, Wanted, checked_base, get_all, unavailable
from attestable_mcp.endorse.throttle import Throttle, Turn
from attestable_mcp.errors import EndorsementUnavailable, EvidenceError
from attestable_mcp.files import user_folder
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import EndorsementQuery, Endorsements, Tee
from attestable_mcp.wire.pem import pem_to_der
from attestable_mcp.wire.snp import Product, read_tcb
from attestable_mcp.wire.x509 import read_certificate

AMD_KDS = "https://kdsintf.amd.com"
VEK_SECONDS = 10.0
"""Between two VCEKs."""
BACKOFF = 5.0
"""After a refusal that names no time; doubled with each further one."""
_KEPT = {"vek": timedelta(days=30), "chain": timedelta(days=1), "crl": timedelta(days=1)}
"""Asked again after this time: AMD re-issues intermediates and publishes revocations ahead of time."""
_HWID_SIZES = {Product.TURIN: 8, Product.MILAN: 64, Product.GENOA: 64}
_UNNAMED = (Product.GENOA, Product.MILAN)
"""Version 2 reports do not name their product; these two wrote such reports."""

PieceKind = Literal["vek", "chain", "crl"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    kind: PieceKind
    url: str


class KdsSource:
    """Fetches VCEK, chain and revocation list for one chip at one TCB. Safe to share between threads and processes.

    `base_url` is the service up to before `/vcek/…`, `cache_dir` None the user's cache folder. `throttle` and `now` are
    for tests: who waits how, and what time it is for the cache's sake.

    Raises:
        ConfigurationError: the address is no http(s) URL, or carries a password, a query or a fragment.
    """

    patience_seconds = LIMITS.throttled_endorsement_seconds
    """How long a caller has to reckon with: one's turn may come late."""

    def __init__(
        self,
        base_url: str = AMD_KDS,
        cache_dir: Path | None = None,
        *,
        throttle: Throttle | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.base_url = checked_base(base_url, "key service", AMD_KDS)
        folder = cache_dir or user_folder("cache") / "kds"
        self.cache = DiskCache(folder)
        self._throttle = throttle or Throttle(self.name, folder / "turn.sqlite")
        self._now = now

    @property
    def name(self) -> str:
        """Words for reports, such as `KDS https://kdsintf.amd.com`."""
        return f"KDS {self.base_url}"

    def serves(self, query: EndorsementQuery) -> bool:
        """Is this a question for AMD?"""
        return query.tee in (Tee.SEV_SNP, Tee.AZURE_SEV_SNP)

    def fetch(self, query: EndorsementQuery, *, deadline_seconds: float = patience_seconds) -> Endorsements:
        """Collateral for `query`, from the cache or the network, within `deadline_seconds` over all.

        The list is had where it can be; its absence is for the policy to judge.

        Raises:
            EndorsementUnavailable: certificate or chain could not be had, in time or at all.
        """
        if not self.serves(query):
            raise unavailable(self.base_url, f"AMD endorses no {query.tee}")
        ends = time.monotonic() + deadline_seconds
        trouble: EndorsementUnavailable | None = None
        for product in _products(query, self.base_url):
            try:
                return self._of_product(query, product, ends - time.monotonic())
            except Declined as error:
                if error.status != 404:
                    raise
                trouble = error
        assert trouble is not None
        raise trouble

    def _of_product(self, query: EndorsementQuery, product: Product, seconds: float) -> Endorsements:
        ends = time.monotonic() + seconds
        found: dict[PieceKind, Answer] = {}
        *needed, crl = self._pieces(query, product)
        for piece in needed:
            found[piece.kind] = self._have(piece, ends - time.monotonic())
        with suppress(EndorsementUnavailable):
            found["crl"] = self._have(crl, min(ends - time.monotonic(), LIMITS.endorsement_seconds))
        vek = (found["vek"].body,) if "vek" in found else ()
        return Endorsements(
            certificates=(*vek, *pem_to_der(found["chain"].body, field="cert_chain")),
            crls=(found["crl"].body,) if "crl" in found else (),
            sources=(self.name,),
        )

    def _pieces(self, query: EndorsementQuery, product: Product) -> tuple[_Piece, ...]:
        """The addresses to ask, the list last. The query comes out of unproven evidence: it is checked to the digit."""
        leased = query.parameters.get("signing_key") == "VLEK"
        base = f"{self.base_url}/{'vlek' if leased else 'vcek'}/v1/{product}"
        pieces = [_Piece(kind="chain", url=f"{base}/cert_chain"), _Piece(kind="crl", url=f"{base}/crl")]
        if leased:
            return tuple(pieces)
        chip = _hex(query, "chip_id", (8, 64), self.base_url)
        if not any(chip):
            raise unavailable(
                self.base_url, "the report masks its chip id, so no certificate can be asked for", _STAPLE
            )
        tcb = read_tcb(_hex(query, "reported_tcb", (8,), self.base_url), product)
        levels = {"blSPL": tcb.bl, "teeSPL": tcb.tee, "snpSPL": tcb.snp, "ucodeSPL": tcb.ucode}
        if tcb.fmc is not None:
            levels = {"fmcSPL": tcb.fmc, **levels}
        asked = "&".join(f"{name}={level:02d}" for name, level in levels.items())
        hwid = chip[: _HWID_SIZES[product]].hex()
        return (_Piece(kind="vek", url=f"{base}/{hwid}?{asked}"), *pieces)

    def _have(self, piece: _Piece, seconds: float) -> Answer:
        held = self._cached(piece)
        if held is not None:
            return held
        if seconds <= 0:
            raise unavailable(piece.url, "no time left to ask")
        lane = "vek" if piece.kind == "vek" else "rest"  # chains and lists are not rationed as certificates are
        with self._throttle.turn(lane, seconds) as turn:
            held = self._cached(piece)  # whoever had the turn before may have asked for the same
            return self._ask(piece, turn) if held is None else held

    def _cached(self, piece: _Piece) -> Answer | None:
        now = self._now()
        answer = self.cache.get(piece.url, now)
        try:
            return answer if answer is not None and now < _expiry(piece, answer) else None
        except EndorsementUnavailable:
            return None

    def _ask(self, piece: _Piece, turn: Turn) -> Answer:
        """Ask until there is an answer, a refusal that stands, or no time left. Raises: EndorsementUnavailable."""
        backoff = BACKOFF
        while True:
            turn.wait()
            try:
                answer = get_all([Wanted(url=piece.url, check=partial(_expiry, piece))], turn.left)[piece.url]
            except Declined as error:
                pause = backoff if error.retry_after is None else error.retry_after
                passing = error.status == 429 or error.status >= 500
                turn.put_off(pause if passing else _spacing(piece))
                if not passing or pause > turn.left:
                    raise
                backoff *= 2
                continue
            turn.put_off(_spacing(piece))
            now = self._now()
            self.cache.put(piece.url, answer, min(_expiry(piece, answer), now + _KEPT[piece.kind]))
            return answer


def _spacing(piece: _Piece) -> float:
    return VEK_SECONDS if piece.kind == "vek" else 0.0


_STAPLE = "Have the server staple its certificate, or give it with --endorsements."


def _products(query: EndorsementQuery, where: str) -> tuple[Product, ...]:
    name = query.parameters.get("product", "")
    if not name:
        return _UNNAMED
    if name not in tuple(Product):
        raise unavailable(where, f"product: wanted {', '.join(Product)}, seen {name[:40]!r}")
    return (Product(name),)


def _hex(query: EndorsementQuery, name: str, sizes: tuple[int, ...], where: str) -> bytes:
    value = query.parameters.get(name, "")
    if not re.fullmatch(r"(?:[0-9a-f]{2})+", value) or len(value) // 2 not in sizes:
        raise unavailable(where, f"{name}: wanted lower-case hex of {sizes} bytes, seen {value[:40]!r}")
    return bytes.fromhex(value)


def _expiry(piece: _Piece, answer: Answer) -> datetime:
    """When a usable answer runs out (UTC), read without trust. Raises: EndorsementUnavailable if it is not usable."""
    try:
        if piece.kind == "crl":
            following = x509.load_der_x509_crl(answer.body).next_update_utc
            if following is None:
                raise unavailable(piece.url, "a revocation list without nextUpdate")
            return following
        raw = pem_to_der(answer.body, field="cert_chain") if piece.kind == "chain" else (answer.body,)
        if not raw:
            raise unavailable(piece.url, "wanted a certificate chain, seen none")
        return min(read_certificate(der).not_after for der in raw)
    except (EvidenceError, ValueError, x509.InvalidVersion) as error:
        raise unavailable(piece.url, f"wanted {piece.kind}, seen something else: {str(error)[:160]}") from error
