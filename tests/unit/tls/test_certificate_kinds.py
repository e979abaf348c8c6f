"""Certificates of every kind of TEE: issued with evidence in a CMW, read back, proven, and bound to their key alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind, Tee, Verdict
from attestable_mcp.simulator import amd, aws, azure, tpm
from attestable_mcp.tls.certificate import Issued, issue
from attestable_mcp.tls.engine import CERTIFICATE_LIST_MAX
from attestable_mcp.verifier import Verifier
from attestable_mcp.wire import ratls
from attestable_mcp.wire.kinds import KINDS
from attestable_mcp.wire.tpm import read_evidence

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Attester:
    """A device that the simulator stands for."""

    tee: str
    kind: EvidenceKind
    make: Callable[[bytes], bytes]
    bag: Endorsements = field(default_factory=Endorsements)
    simulated: bool = True

    def attest(self, report_data: bytes) -> Evidence:
        return Evidence(kind=self.kind, body=self.make(report_data))

    def endorsements(self) -> Endorsements:
        return self.bag


def attesters() -> Iterable[Attester]:
    genoa, nitro, maker, machine = amd.well_known(), aws.well_known(), tpm.well_known(), azure.well_known()
    yield Attester(Tee.SEV_SNP, EvidenceKind.SNP_REPORT, lambda data: genoa.report(data, b"\1" * 48),
                   genoa.collateral(at=NOW))  # fmt: skip
    yield Attester(Tee.NITRO, EvidenceKind.NITRO_DOCUMENT, lambda data: nitro.document(data, at=NOW))
    yield Attester(Tee.TPM, EvidenceKind.TPM_QUOTE, maker.evidence, maker.collateral(at=NOW))
    yield Attester(Tee.AZURE_SEV_SNP, EvidenceKind.AZURE_VTPM, machine.evidence, machine.amd.collateral(at=NOW))


@pytest.fixture(scope="module")
def devices() -> dict[str, Attester]:
    return {device.tee: device for device in attesters()}


TEES = (Tee.SEV_SNP, Tee.NITRO, Tee.TPM, Tee.AZURE_SEV_SNP)


def judged(certificate: bytes) -> tuple[Verdict, str]:
    policy = Policy.genuine_only(simulated="accept", accept_products=["Milan"])
    result = Verifier(policy, sources=[]).appraise_certificate(certificate, NOW).result
    return result.verdict, result.error.code + ": " + result.error.message if result.error else ""


@pytest.mark.parametrize("tee", TEES)
def test_a_certificate_of_each_kind_is_proven_and_speaks_of_its_key(devices: dict[str, Attester], tee: Tee) -> None:
    issued: Issued = issue(devices[tee], ["mcp.example"], now=NOW)
    read = ratls.read(issued.certificate_der)
    (piece,) = read.evidence
    assert piece.source == "cmw"
    assert piece.report_data == ratls.key_report_data(read.leaf.spki)
    assert (read.endorsements is None) == (tee is Tee.NITRO)  # Nitro brings its own chain
    assert judged(issued.certificate_der) == (Verdict.PARTIAL, "")


@pytest.mark.parametrize("tee", TEES)
def test_c1_evidence_for_another_key_is_refused(devices: dict[str, Attester], tee: Tee) -> None:
    stolen = devices[tee].attest(ratls.key_report_data(b"another key"))
    thief = replace(devices[tee], make=lambda _: stolen.body)
    verdict, error = judged(issue(thief, ["mcp.example"], now=NOW).certificate_der)
    assert verdict is Verdict.REFUSED
    assert error.startswith("channel_binding_mismatch: certificate, cmw")


def test_a_log_or_collateral_that_tls_peers_would_not_take_is_left_out(devices: dict[str, Attester]) -> None:
    device = devices[Tee.TPM]
    sent = read_evidence(device.attest(bytes(64)).body)

    def logged(report_data: bytes) -> bytes:
        from attestable_mcp.wire.tpm import write_evidence

        found = read_evidence(device.attest(report_data).body)
        return write_evidence(replace(found, event_log=b"l" * CERTIFICATE_LIST_MAX))

    issued = issue(replace(device, make=logged), ["a"], now=NOW)
    assert len(issued.certificate_der) < CERTIFICATE_LIST_MAX
    (piece,) = ratls.read(issued.certificate_der).evidence
    slim = read_evidence(piece.evidence.body)
    assert (slim.event_log, slim.pcrs) == (b"", sent.pcrs)
    assert judged(issued.certificate_der) == (Verdict.PARTIAL, "")
    fat = replace(device, bag=Endorsements(certificates=(b"c" * CERTIFICATE_LIST_MAX,)))
    assert len(issue(fat, ["a"], now=NOW).certificate_der) < CERTIFICATE_LIST_MAX


def test_every_kind_has_a_form_in_certificates() -> None:
    without = {kind for kind, row in KINDS.items() if not row.media_type}
    assert without == {EvidenceKind.INTEL_QUOTE}  # it has the form of the Confidential Computing Consortium
    assert {tee for row in KINDS.values() for tee in row.tees} == set(Tee)
