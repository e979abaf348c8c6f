"""Azure confidential VMs: the HCL report from the vTPM, and a quote by the key that it names.

The paravisor keeps its report in NV index 0x01400001 and the attestation key at handle 0x81000003. The report is made
at boot: it need not be fresh, since it vouches for the key, and the key signs the fresh quote. From the VM's own
metadata service, at a link-local address, come the chip's certificates on SEV-SNP
(`GET /metadata/THIM/amd/certification`), and on TDX the TD quote over the report (`POST /acc/tdquote` with
`{"report": BASE64URL}`).
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from attestable_mcp.attest.base import demand_carries
from attestable_mcp.attest.tpm import EVENT_LOG, PCRS, TpmAttester
from attestable_mcp.attest.tpm_commands import Tpm
from attestable_mcp.attest.tpm_key import KeyPlace
from attestable_mcp.attest.tpm_link import DEVICE, Link, open_link
from attestable_mcp.attest.unix_http import request_json
from attestable_mcp.errors import AttesterAbsent, AttesterError, EvidenceError
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind, Tee
from attestable_mcp.wire import base64url
from attestable_mcp.wire.hcl import AzureEvidence, HclReport, read_hcl, write_evidence
from attestable_mcp.wire.pem import pem_to_der

HCL_INDEX = 0x01400001
AK = KeyPlace(name="Azure's paravisor", handle=0x81000003)
_HCL_MOST = 16 * 1024
_METADATA = ("169.254.169.254", 80)
_CERTIFICATES = "/metadata/THIM/amd/certification"
_TD_QUOTE = "/acc/tdquote"
_CERTIFICATES_SECONDS, _TD_QUOTE_SECONDS = 3.0, 15.0
_ASK_AGAIN_SECONDS = 600.0


class AzureAttester:
    """The confidential VM that this process runs in. Safe to share between threads.

    `where` is the vTPM; `metadata` is host and port of the metadata service.

    Raises:
        AttesterError: there is no vTPM, no HCL report in it, or one that names another key; on TDX, no TD quote.
    """

    simulated = False

    def __init__(
        self,
        where: str = str(DEVICE),
        *,
        metadata: tuple[str, int] = _METADATA,
        pcrs: Iterable[int] = PCRS,
        event_log: Path | None = EVENT_LOG,
        connect: Callable[[str], Link] = open_link,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._where = where
        self._metadata = metadata
        self._clock = clock
        self._asked: float | None = None
        self._chain: tuple[bytes, ...] = ()
        self._hcl = _read_report(where, connect)
        self._tpm = TpmAttester(where, key=AK, pcrs=pcrs, event_log=event_log, connect=connect)
        report = read_hcl(self._hcl)
        if report.ak != self._tpm.ak:
            raise AttesterError(f"{where}: the HCL report names another key than handle {AK.handle:08x} holds")
        self._on_tdx = report.kind == "tdx"
        self.tee = (Tee.AZURE_TDX if self._on_tdx else Tee.AZURE_SEV_SNP).value
        self._td_quote = self._ask_td_quote(report) if self._on_tdx else b""

    def attest(self, report_data: bytes) -> Evidence:
        """HCL report and a quote whose qualifying data is SHA-256(report_data). Tens of milliseconds.

        Raises:
            AttesterError: the vTPM refuses, or answers for something else.
        """
        sent = AzureEvidence(hcl=self._hcl, tpm=self._tpm.quote(report_data), td_quote=self._td_quote)
        return Evidence(kind=EvidenceKind.AZURE_VTPM, body=write_evidence(sent))

    def endorsements(self) -> Endorsements:
        """The chip's certificate and AMD's chain, asked of the metadata service at most every ten minutes.

        Where the service does not answer there are none: a verifier can ask AMD itself. None on TDX either: Intel's
        collateral comes from Intel.
        """
        if self._on_tdx:
            return Endorsements()
        now = self._clock()
        if not self._chain and (self._asked is None or now - self._asked >= _ASK_AGAIN_SECONDS):
            self._asked = now
            self._chain = self._ask()
        if not self._chain:
            return Endorsements()
        return Endorsements(certificates=self._chain, sources=("Azure metadata service (THIM)",))

    def _ask(self) -> tuple[bytes, ...]:
        host, port = self._metadata
        connection = http.client.HTTPConnection(host, port, timeout=_CERTIFICATES_SECONDS)
        try:
            answer = request_json(
                connection, "GET", _CERTIFICATES, f"{host}{_CERTIFICATES}", headers={"Metadata": "true"}
            )  # fmt: skip
            return _certificates(answer)
        except AttesterError:
            return ()

    def _ask_td_quote(self, report: HclReport) -> bytes:
        """The quote over the TDREPORT in the HCL report. Raises: AttesterError, also where it is over another one."""
        host, port = self._metadata
        where = f"{host}{_TD_QUOTE}"
        connection = http.client.HTTPConnection(host, port, timeout=_TD_QUOTE_SECONDS)
        sent = base64url.encode(report.hardware)
        answer = request_json(connection, "POST", _TD_QUOTE, where, body={"report": sent})
        quote = _octets(answer.get("quote"), where)
        demand_carries(Evidence(kind=EvidenceKind.INTEL_QUOTE, body=quote), report.report_data, where)
        return quote


def _octets(text: object, where: str) -> bytes:
    if not isinstance(text, str) or not 0 < len(text) <= 2 * LIMITS.evidence:
        raise AttesterError(f"{where}: wanted a quote in base64url, seen none")
    try:
        return base64url.decode(text)
    except ValueError as error:
        raise AttesterError(f"{where}: wanted a quote in base64url, seen {text[:40]!r}") from error


def _certificates(answer: dict[str, Any]) -> tuple[bytes, ...]:
    found: list[bytes] = []
    for name in ("vcekCert", "certificateChain"):
        text = answer.get(name)
        if not isinstance(text, str):
            raise AttesterError(f"metadata service: wanted {name}, seen none")
        try:
            found += pem_to_der(text.encode())
        except EvidenceError as error:
            raise AttesterError(f"metadata service: {name}: {error.message}") from error
    return tuple(found)


def _read_report(where: str, connect: Callable[[str], Link]) -> bytes:
    """The HCL report without what an NV index has after it."""
    with Tpm(connect(where)) as tpm:
        if not tpm.has_handle(HCL_INDEX):
            raise AttesterAbsent(
                f"{where}: no NV index {HCL_INDEX:08x}", hint="this is no Azure confidential VM: try --attester tpm"
            )
        content = tpm.read_index(HCL_INDEX, _HCL_MOST)
    try:
        report = read_hcl(content)
    except EvidenceError as error:
        raise AttesterError(f"{where}: NV index {HCL_INDEX:08x}: {error.message}") from error
    return content[: content.index(report.runtime, 1236) + len(report.runtime)]
