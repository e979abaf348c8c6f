"""Every real TPM set gets its verdict and gives back its stated measurements."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from attestable_mcp.errors import (
    AttestationError,
    ChainInvalid,
    EndorsementUnavailable,
    MalformedEvidence,
    SignatureInvalid,
    VerificationError,
)
from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind, Verified
from attestable_mcp.verify import azure, snp, tpm
from attestable_mcp.verify.anchors import TrustAnchor, TrustAnchors
from attestable_mcp.verify.memory import Memory
from attestable_mcp.verify.trail import Trail
from attestable_mcp.wire.hcl import AzureEvidence, read_hcl
from attestable_mcp.wire.hcl import write_evidence as write_azure
from attestable_mcp.wire.tpm import TpmEvidence, read_quote, write_evidence
from attestable_mcp.wire.x509 import pem_to_der, read_certificate

_DEFAULT = Path(__file__).resolve().parents[2].parent / "shared" / "vectors"
FOLDER = Path(os.environ.get("ATTESTABLE_VECTORS", _DEFAULT)) / "tpm"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="no vectors: set ATTESTABLE_VECTORS")
AT = datetime(2026, 1, 1, tzinfo=UTC)


def _meta(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "meta.toml").read_text())


def _pem_key(path: Path) -> bytes:
    return base64.b64decode("".join(line for line in path.read_text().splitlines() if "-----" not in line))


def _pinned(ak: bytes) -> TrustAnchors:
    return TrustAnchors(tpm=(TrustAnchor(name="a pinned key", spki_sha256=hashlib.sha256(ak).hexdigest()),))


def _certificates(folder: Path) -> tuple[bytes, ...]:
    found: list[bytes] = []
    for path in sorted(folder.glob("collateral/*")):
        raw = path.read_bytes()
        start = raw.find(b"-----BEGIN")  # some files describe the certificate before its block
        found += pem_to_der(raw[start:]) if start >= 0 else [raw]
    return tuple(found)


def _verify(
    sent: TpmEvidence, anchors: TrustAnchors, certificates: tuple[bytes, ...] = (), at: datetime = AT
) -> Verified:
    evidence = Evidence(kind=EvidenceKind.TPM_QUOTE, body=write_evidence(sent))
    return tpm.verify(evidence, Endorsements(certificates=certificates), anchors=anchors, at=at, memory=Memory())


def _text_pcrs(path: Path) -> Mapping[int, bytes]:
    pairs = (line.split() for line in path.read_text().splitlines())
    return {int(number): bytes.fromhex(value) for number, value in pairs}


def _gce(folder: Path, bank: str) -> TpmEvidence:
    return TpmEvidence(
        quote=(folder / f"quote_{bank}.msg").read_bytes(),
        signature=(folder / f"quote_{bank}.sig").read_bytes(),
        ak=_pem_key(folder / "ak_pub.pem"),
        pcrs={bank: _text_pcrs(folder / f"pcrs_{bank}.txt")},
        event_log=(folder / "event_log.bin").read_bytes(),
    )


def _trustee(folder: Path) -> TpmEvidence:
    values = json.loads((folder / "evidence.json").read_text())["tpm_quote"]["pcrs"]
    return TpmEvidence(
        quote=(folder / "quote.msg").read_bytes(),
        signature=(folder / "quote.sig").read_bytes(),
        ak=_pem_key(folder / "ak_pub.pem"),
        pcrs={"sha256": {number: bytes.fromhex(value) for number, value in enumerate(values)}},
    )


def _cmcp(folder: Path, flip: int | None = None) -> TpmEvidence:
    """The set stores a bare RSA signature, and the PCRs as tpm2-tools dumps them."""
    quote, dump = bytearray((folder / "quote.msg").read_bytes()), (folder / "pcrs.bin").read_bytes()
    if flip is not None:
        quote[flip] ^= 1
    values = {number: dump[140 + 66 * number + 2 :][:32] for number in range(8)}
    signature = (folder / "quote.sig").read_bytes()
    return TpmEvidence(
        quote=bytes(quote),
        signature=bytes.fromhex("0014000b") + len(signature).to_bytes(2, "big") + signature,
        ak=_pem_key(folder / "ak.pub"),
        pcrs={"sha256": values},
    )


def test_every_set_is_met_by_a_test() -> None:
    assert {path.parent.name for path in FOLDER.glob("*/meta.toml")} == {
        "azcvm-hcl-reports",
        "cmcp-azure-trusted-launch-vtpm",
        "dstack-gcp-quote-body",
        "flashbots-azure-tdx-input-mismatch",
        "gotpm-gce-cos-85-no-nonce",
        "openpcc-vtpm-ak-certificate-chains",
        "trustee-azure-tdx-vtpm-v0",
        "trustee-tpm-evidence",
    }


def test_gce_quotes_lead_to_the_pinned_root_and_the_log_explains_them() -> None:
    folder = FOLDER / "gotpm-gce-cos-85-no-nonce"
    meta = _meta(folder)
    root = read_certificate((folder / "collateral/tpm_ek_root_1.cer").read_bytes())
    anchors = TrustAnchors(tpm=(TrustAnchor(name="host root", spki_sha256=hashlib.sha256(root.spki).hexdigest()),))
    certificates = (*_certificates(folder), (folder / "ak_cert.der").read_bytes())
    at = datetime.fromtimestamp(meta["verify"]["time"], UTC)
    verified = _verify(_gce(folder, "sha256"), anchors, certificates, at)
    stated = meta["measurements"]
    assert {name: verified.claims.values.get(name) for name in stated} == stated
    assert "pcr16" not in verified.claims.values
    assert verified.claims.values["secure_boot"] is True
    assert verified.claims.report_data == b""
    assert _verify(_gce(folder, "sha384"), anchors, certificates, at).anchor_name == "host root"
    with pytest.raises(VerificationError) as error:
        _verify(_gce(folder, "sha1"), anchors, certificates, at)
    assert error.value.code == "no_pcr"
    with pytest.raises(ChainInvalid):
        _verify(_gce(folder, "sha256"), TrustAnchors(), certificates, at)
    with pytest.raises(EndorsementUnavailable):
        _verify(_gce(folder, "sha256"), anchors, (), at)


def test_trustee_quote_verifies_with_a_pinned_key_and_gives_its_pcrs() -> None:
    folder = FOLDER / "trustee-tpm-evidence"
    sent = _trustee(folder)
    verified = _verify(sent, _pinned(sent.ak))
    stated = {name: value for name, value in _meta(folder)["measurements"].items() if name not in ("pcr16", "pcr23")}
    assert len(stated) == 22
    assert {name: verified.claims.values.get(name) for name in stated} == stated
    assert not {"pcr16", "pcr23"} & set(verified.claims.values)
    with pytest.raises(EndorsementUnavailable):
        _verify(sent, TrustAnchors())


def test_azure_trusted_launch_quote_verifies_and_the_other_keys_certificate_does_not_help() -> None:
    folder = FOLDER / "cmcp-azure-trusted-launch-vtpm"
    sent, stated = _cmcp(folder), _meta(folder)["measurements"]
    values = _verify(sent, _pinned(sent.ak)).claims.values
    assert {name: values[name] for name in ("extra_data", "pcr_digest")} == {
        name: stated[name] for name in ("extra_data", "pcr_digest")
    }
    with pytest.raises(ChainInvalid) as error:
        _verify(sent, TrustAnchors(), ((folder / "akcert_0x01C101D0.der").read_bytes(),))
    assert error.value.code == "ak_certificate_mismatch"
    refused = 0
    for place in range(len(sent.quote)):
        with pytest.raises(SignatureInvalid):
            _verify(_cmcp(folder, flip=place), _pinned(sent.ak))
        refused += 1
    assert refused == 145


def test_certificate_chains_of_google_and_azure_lead_to_our_own_anchors() -> None:
    folder = FOLDER / "openpcc-vtpm-ak-certificate-chains"
    certificates = _certificates(folder)
    met = []
    at = datetime.fromtimestamp(_meta(folder)["verify"]["time"], UTC)
    for name in ("gce_ak.der", "azure_ak_01.der", "azure_ak_03_nv_index_padded.bin"):
        raw = (folder / name).read_bytes()
        leaf = read_certificate(tpm.trim_der(raw))
        trust = tpm.trust_key(
            leaf.spki, Endorsements(certificates=(raw, *certificates)), TrustAnchors().tpm, at=at, trail=Trail()
        )  # fmt: skip
        met.append(trust.anchor.name)
    assert met == ["Google EK/AK CA Root"] + ["Azure Virtual TPM Root Certificate Authority 2023"] * 2


def test_bare_quote_body_is_read() -> None:
    quote = read_quote((FOLDER / "dstack-gcp-quote-body/quote.msg").read_bytes())
    assert quote.extra_data.hex() == "12345678"
    assert [selection.pcrs for selection in quote.selection] == [(0, 1, 2)]
    assert quote.pcr_digest.hex() == "d8de2be2e8a319cddf3d1ce1a310f45e30fd335255278e4fcbd59a5f58887648"


def test_certificates_of_another_chip_do_not_verify_an_hcl_report() -> None:
    folder = FOLDER / "azcvm-hcl-reports"
    hcl = read_hcl((folder / "hcl-report-snp.bin").read_bytes())
    endorsements = Endorsements(certificates=pem_to_der((folder / "certs.pem").read_bytes()))
    evidence = Evidence(kind=EvidenceKind.SNP_REPORT, body=hcl.hardware)
    with pytest.raises(AttestationError) as error:
        snp.verify(evidence, endorsements, anchors=TrustAnchors(), at=AT, memory=Memory())
    assert isinstance(error.value, SignatureInvalid)
    assert read_hcl((folder / "hcl-report-tdx.bin").read_bytes()).kind == "tdx"


def _azure(
    folder: Path, *, runtime_flip: int | None = None, ak: bytes | None = None
) -> tuple[AzureEvidence, Endorsements]:
    hcl = bytearray((folder / "hcl_report.bin").read_bytes())
    key = read_hcl(bytes(hcl)).ak
    if runtime_flip is not None:
        hcl[runtime_flip] ^= 1
    signature = (folder / "tpm_quote.sig").read_bytes()
    sent = TpmEvidence(
        quote=(folder / "tpm_quote.msg").read_bytes(),
        signature=bytes.fromhex("0014000b") + len(signature).to_bytes(2, "big") + signature,
        ak=ak or key,
        pcrs={"sha256": _text_pcrs(folder / "tpm_pcrs_sha256.txt")},
    )
    certificates = [path.read_bytes() for path in folder.glob("collateral/vcek.der")]
    for path in folder.glob("collateral/ask_ark.pem"):
        certificates += pem_to_der(path.read_bytes())
    return AzureEvidence(hcl=bytes(hcl), tpm=sent), Endorsements(certificates=tuple(certificates))


def _verify_azure(sent: AzureEvidence, endorsements: Endorsements, at: datetime = AT) -> Verified:
    evidence = Evidence(kind=EvidenceKind.AZURE_VTPM, body=write_azure(sent))
    return azure.verify(evidence, endorsements, anchors=TrustAnchors(), at=at, memory=Memory())


AZURE_SNP = ("c8s-azure-milan-session-key-bound", "trustee-azure-vtpm-v0", "trustee-azure-vtpm-v2")


def test_azure_sets_hold_link_by_link_down_to_the_quote() -> None:
    for name in AZURE_SNP:
        folder = FOLDER.parent / "snp" / name
        meta = _meta(folder)
        verified = _verify_azure(*_azure(folder), datetime.fromtimestamp(meta["verify"]["time"], UTC))
        stated = meta["measurements"]
        assert {key: verified.claims.values.get(key) for key in stated} == stated, name
        assert verified.claims.values["pcr0"] == _text_pcrs(folder / "tpm_pcrs_sha256.txt")[0].hex()
        assert [finding.check for finding in verified.findings if finding.check.startswith("azure.")] == [
            "azure.runtime-data", "azure.ak", "azure.report.vmpl",
        ]  # fmt: skip
    folder = FOLDER.parent / "snp" / "trustee-azure-vtpm-v0"
    assert _verify_azure(*_azure(folder)).claims.report_data == b"challenge"


def test_damaged_runtime_data_behind_an_intact_report_is_refused() -> None:
    folder = FOLDER.parent / "snp" / "trustee-azure-vtpm-v2"
    place = (folder / "hcl_report.bin").read_bytes().index(b'"vmUniqueId":"') + 20
    sent, endorsements = _azure(folder, runtime_flip=place)
    with pytest.raises(VerificationError) as error:
        _verify_azure(sent, endorsements)
    assert error.value.code == "runtime_data_mismatch"


def test_a_quote_by_another_key_than_the_runtime_datas_is_refused() -> None:
    ak = _pem_key(FOLDER / "trustee-tpm-evidence" / "ak_pub.pem")
    with pytest.raises(VerificationError) as error:
        _verify_azure(*_azure(FOLDER.parent / "snp" / "trustee-azure-vtpm-v2", ak=ak))
    assert error.value.code == "ak_mismatch"


def test_azure_without_collateral_is_unavailable_and_tdx_needs_its_quote() -> None:
    sent, _ = _azure(FOLDER.parent / "snp" / "trustee-azure-vtpm-v2")
    with pytest.raises(EndorsementUnavailable):
        _verify_azure(sent, Endorsements())
    sent, _ = _azure(FOLDER / "trustee-azure-tdx-vtpm-v0")
    hcl = read_hcl(sent.hcl)
    assert hcl.report_data == hcl.expected_report_data
    with pytest.raises(MalformedEvidence, match="wanted a TD quote"):
        _verify_azure(sent, Endorsements())
