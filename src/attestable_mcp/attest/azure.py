"""Azure confidential VMs on SEV-SNP: the HCL report from the vTPM, and a quote by the key that it names.

The paravisor keeps its report in NV index 0x01400001 and the attestation key at handle 0x81000003. The report is made
at boot: it need not be fresh, since it vouches for the key, and the key signs the fresh quote. The chip's certificates
come from the VM's own metadata service (THIM), which every Azure VM reaches at a link-local address.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attestable_mcp.attest.tpm import EVENT_LOG, TpmAttester
from attestable_mcp.attest.tpm_commands import Tpm
from attestable_mcp.attest.tpm_key import KeyPlace
from attestable_mcp.attest.tpm_link import DEVICE, Link, open_link
from attestable_mcp.attest.unix_http import request_json
from attestable_mcp.errors import AttesterAbsent, AttesterError, EvidenceError
from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind, Tee
from attestable_mcp.wire.hcl import AzureEvidence, HclReport, read_hcl, write_evidence
from attestable_mcp.wire.pem import pem_to_der

HCL_INDEX = 0x01400001
AK = KeyPlace(name="Azure's paravisor", handle=0x81000003)
_HCL_MOST = 16 * 1024
_THIM = ("169.254.169.254", 80, "/metadata/THIM/amd/certification")
_THIM_SECONDS = 3.0
_ASK_AGAIN_SECONDS = 600.0


class AzureAttester:
    """The confidential VM that this process runs in. Safe to share between threads.

    `where` is the vTPM; `thim` is host, port and target of the metadata service.

    Raises:
        AttesterError: there is no vTPM, no HCL report in it, one of another kind, or one that names another key.
    """

    tee = Tee.AZURE_SEV_SNP.value
    simulated = False

    def __init__(
        self,
        where: str = str(DEVICE),
        *,
        thim: tuple[str, int, str] = _THIM,
        event_log: Path | None = EVENT_LOG,
        connect: Callable[[str], Link] = open_link,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._where = where
        self._thim = thim
        self._clock = clock
        self._asked: float | None = None
        self._chain: tuple[bytes, ...] = ()
        self._hcl = _read_report(where, connect)
        self._tpm = TpmAttester(where, key=AK, event_log=event_log, connect=connect)
        self._demand_key(read_hcl(self._hcl))

    def _demand_key(self, report: HclReport) -> None:
        if report.kind != "snp":
            raise AttesterError(
                f"{self._where}: wanted an HCL report on SEV-SNP, seen one on TDX",
                hint="Azure VMs on TDX are not attested here yet",
            )
        if report.ak != self._tpm.ak:
            raise AttesterError(f"{self._where}: the HCL report names another key than handle {AK.handle:08x} holds")

    def attest(self, report_data: bytes) -> Evidence:
        """HCL report and a quote whose qualifying data is SHA-256(report_data). Tens of milliseconds.

        Raises:
            AttesterError: the vTPM refuses, or answers for something else.
        """
        sent = AzureEvidence(hcl=self._hcl, tpm=self._tpm.quote(report_data))
        return Evidence(kind=EvidenceKind.AZURE_VTPM, body=write_evidence(sent))

    def endorsements(self) -> Endorsements:
        """The chip's certificate and AMD's chain, asked of the metadata service at most every ten minutes.

        Where the service does not answer there are none: a verifier can ask AMD itself.
        """
        now = self._clock()
        if not self._chain and (self._asked is None or now - self._asked >= _ASK_AGAIN_SECONDS):
            self._asked = now
            self._chain = self._ask()
        if not self._chain:
            return Endorsements()
        return Endorsements(certificates=self._chain, sources=("Azure metadata service (THIM)",))

    def _ask(self) -> tuple[bytes, ...]:
        host, port, target = self._thim
        connection = http.client.HTTPConnection(host, port, timeout=_THIM_SECONDS)
        try:
            answer = request_json(connection, "GET", target, f"{host}{target}", headers={"Metadata": "true"})
            return _certificates(answer)
        except AttesterError:
            return ()


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
