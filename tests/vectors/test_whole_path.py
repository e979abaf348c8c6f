"""Every real set of every kind goes the whole way: recognised, gathered, verified, judged, read back and pinned."""

from __future__ import annotations

import base64
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from attestable_mcp.appraise.policy import ACCEPTABLE_STATUSES, Policy
from attestable_mcp.appraise.write import policy_toml
from attestable_mcp.endorse.files import FileSource
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.rats import AttestationResult, DocumentKind, Endorsements, SignedDocument, Verdict
from attestable_mcp.verifier import Verifier, Watermarks
from attestable_mcp.verify.anchors import TrustAnchors
from attestable_mcp.wire.hcl import AzureEvidence, read_hcl
from attestable_mcp.wire.hcl import write_evidence as write_azure
from attestable_mcp.wire.tpm import TpmEvidence, write_evidence

LENIENT = Policy.genuine_only(accept_statuses=ACCEPTABLE_STATUSES, accept_products=["Milan"])
DEBUG, MISSING = "refused debug_enclave", "unavailable endorsement_unavailable"

EXPECTED = {
    "nitro/dstack-2025-debug": DEBUG,
    "nitro/dstack-2025-nsm-qvl": "partial",
    "nitro/evervault-2022-valid": "partial",
    "nitro/evervault-2023-ga-bound-to-tls-key": DEBUG,
    "nitro/fastcrypto-2025-pcr16-indefinite-cbor": "partial",
    "nitro/fortanix-2021-proper-debug": DEBUG,
    "nitro/fortanix-2021-tampered-signature": "refused signature_invalid",
    "ratls/cmw-cbor": "unavailable unsupported_certificate_evidence",
    "ratls/cmw-json": "unavailable unsupported_certificate_evidence",
    "ratls/evervault-nitro-san-debug": DEBUG,
    "ratls/interop-gramine": MISSING,
    "ratls/interop-intel-sgxsdk": MISSING,
    "ratls/interop-rats-tls": MISSING,
    "sgx/automata-v3-processor-debug": DEBUG,
    "sgx/azure-sample-v3-securityversion": MISSING,
    "sgx/dcapqvl-v3-processor-config-swhardening": "partial",
    "sgx/fortanix-v3-2020-bad-isv-signature": "refused signature_invalid",
    "sgx/fortanix-v3-cert-type-3": MISSING,
    "sgx/oasis-v3-cert-type-3-encrypted-ppid": MISSING,
    "sgx/oasis-v3-platform-2022": MISSING,
    "sgx/openenclave-v3-2022-with-endorsements": MISSING,
    "sgx/openenclave-v3-coffeelake-debug": MISSING,
    "sgx/trustee-occlum-debug": DEBUG,
    "snp/c8s-azure-milan-session-key-bound": "partial",
    "snp/cocos-milan-v2-vmpl2-no-cert": MISSING,
    "snp/dstack-milan-v3-with-scale-envelope": "partial",
    "snp/gosev-milan-v2-debug": DEBUG,
    "snp/microsoft-aci-milan-v2-with-uvm-endorsement": "partial",
    "snp/oak-genoa-oc-v5": "partial",
    "snp/oak-milan-oc-release-v3": "partial",
    "snp/oak-milan-oc-staging-v3": "partial",
    "snp/oak-milan-rk-release-v3": "partial",
    "snp/trustee-azure-vtpm-v0": "partial",
    "snp/trustee-azure-vtpm-v2": "partial",
    "snp/trustee-milan-v2-vcek": "partial",
    "snp/trustee-milan-v2-wrong-vcek-legacy": "refused signature_invalid",
    "snp/trustee-milan-v3-vlek-aws": "partial",
    "tdx/automata-v4-out-of-date": "partial",
    "tdx/dcapqvl-near-v4-uptodate-20a06f": "partial",
    "tdx/dcapqvl-tappd-v4-below-all-levels": "refused tcb_level_not_found",
    "tdx/dcapqvl-v4-below-all-levels": "refused tcb_level_not_found",
    "tdx/dcapqvl-v4-uptodate": "partial",
    "tdx/flashbots-gcp-v4-uptodate-2026-01": "partial",
    "tdx/gotdx-v4-cos113-with-ccel": "partial",
    "tdx/gotdx-v4-spr-e4-no-tcb-level": "refused malformed_evidence",
    "tdx/oak-v4-tdx-oc": "partial",
    "tdx/oasis-v4-out-of-date-2023": MISSING,
    "tdx/oasis-v4-pass-2024": MISSING,
    "tdx/oasis-v4-trailing-data": MISSING,
    "tdx/openenclave-v4-sept-ve-disable-clear": "refused sept_ve_disable_clear",
    "tdx/openenclave-v5-out-of-date-eval21": "refused migratable_td",
    "tdx/trustee-v4-debug-td-with-ccel": DEBUG,
    "tpm/cmcp-azure-trusted-launch-vtpm": "partial",
    "tpm/flashbots-azure-tdx-input-mismatch": "partial",
    "tpm/gotpm-gce-cos-85-no-nonce": "partial",
    "tpm/trustee-azure-tdx-vtpm-v0": MISSING,
    "tpm/trustee-tpm-evidence": "partial",
    "azure/c8s-azure-milan-session-key-bound": "partial",
    "azure/trustee-azure-vtpm-v0": "partial",
    "azure/trustee-azure-vtpm-v2": "partial",
}
"""What this package says of each set under a policy that takes every status and product, and no debug."""
UNPINNABLE = "tpm/trustee-tpm-evidence"
"""A TPM into which nothing was measured: no PCR of it says which code runs."""
NO_EVIDENCE = {
    "tpm/azcvm-hcl-reports",  # HCL reports without a quote: test_tpm
    "tpm/dstack-gcp-quote-body",  # a quote's body without its signature: test_tpm
    "tpm/openpcc-vtpm-ak-certificate-chains",  # certificates without a quote: test_tpm
}
FILES = {"snp": "report.bin", "nitro": "attestation.cose", "sgx": "quote.bin", "tdx": "quote.bin", "ratls": "cert.der"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One set as somebody would hand it over."""

    name: str
    folder: Path
    data: bytes
    at: datetime
    anchors: TrustAnchors | None = None
    stapled: Endorsements | None = None
    measurements: Mapping[str, Any] = field(default_factory=dict)

    def judge(self, policy: Policy) -> AttestationResult:
        collateral = self.folder / "collateral"
        verifier = Verifier(
            policy, sources=[FileSource(collateral)] if collateral.is_dir() else [], anchors=self.anchors,
            watermarks=Watermarks(),
        )  # fmt: skip
        return verifier.appraise_source(self.data, self.at, stapled=self.stapled).result


def _meta(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "meta.toml").read_text())


def _at(meta: Mapping[str, Any]) -> datetime:
    return datetime.fromtimestamp(meta.get("verify", {}).get("time", 1_767_225_600), UTC)


def _case(name: str, folder: Path, data: bytes, **more: Any) -> Case:
    meta = _meta(folder)
    return Case(name=name, folder=folder, data=data, at=_at(meta), measurements=meta.get("measurements", {}), **more)


def cases(root: Path) -> Iterator[Case]:
    for kind, file in FILES.items():
        for meta in sorted((root / kind).glob("*/meta.toml")):
            yield _case(f"{kind}/{meta.parent.name}", meta.parent, (meta.parent / file).read_bytes())
    for name in ("c8s-azure-milan-session-key-bound", "trustee-azure-vtpm-v0", "trustee-azure-vtpm-v2"):
        yield _case(f"azure/{name}", root / "snp" / name, azure(root / "snp" / name))
    yield from tpm_cases(root / "tpm")


def tpm_cases(root: Path) -> Iterator[Case]:
    for name, made in {"cmcp-azure-trusted-launch-vtpm": cmcp, "trustee-tpm-evidence": trustee}.items():
        sent = made(root / name)
        yield _case(f"tpm/{name}", root / name, write_evidence(sent), anchors=_pinned(sent.ak, root))
    folder = root / "gotpm-gce-cos-85-no-nonce"
    root_certificate = (folder / "collateral/tpm_ek_root_1.cer").read_bytes()
    pinned = _pinned_certificate(root_certificate)
    yield _case(f"tpm/{folder.name}", folder, write_evidence(gce(folder)), anchors=pinned)
    folder = root / "trustee-azure-tdx-vtpm-v0"
    yield _case(f"tpm/{folder.name}", folder, azure(folder, (folder / "td_quote.bin").read_bytes()))
    yield flashbots(root / "flashbots-azure-tdx-input-mismatch")


def _anchor(digest: str) -> TrustAnchors:
    from attestable_mcp.verify.anchors import TrustAnchor

    return TrustAnchors(tpm=(TrustAnchor(name="pinned", spki_sha256=digest),))


def _pinned(ak: bytes, _: Path) -> TrustAnchors:
    import hashlib

    return _anchor(hashlib.sha256(ak).hexdigest())


def _pinned_certificate(der: bytes) -> TrustAnchors:
    import hashlib

    from attestable_mcp.wire.x509 import read_certificate

    return _anchor(hashlib.sha256(read_certificate(der).spki).hexdigest())


def _pem(path: Path) -> bytes:
    return base64.b64decode("".join(line for line in path.read_text().splitlines() if "-----" not in line))


def _pcrs(path: Path) -> dict[int, bytes]:
    return {int(number): bytes.fromhex(value) for number, value in map(str.split, path.read_text().splitlines())}


def _rsassa(signature: bytes) -> bytes:
    """A bare signature as a TPMT_SIGNATURE."""
    return bytes.fromhex("0014000b") + len(signature).to_bytes(2, "big") + signature


def cmcp(folder: Path) -> TpmEvidence:
    dump = (folder / "pcrs.bin").read_bytes()
    values = {number: dump[140 + 66 * number + 2 :][:32] for number in range(8)}
    return TpmEvidence(
        quote=(folder / "quote.msg").read_bytes(), signature=_rsassa((folder / "quote.sig").read_bytes()),
        ak=_pem(folder / "ak.pub"), pcrs={"sha256": values},
    )  # fmt: skip


def trustee(folder: Path) -> TpmEvidence:
    values = json.loads((folder / "evidence.json").read_text())["tpm_quote"]["pcrs"]
    return TpmEvidence(
        quote=(folder / "quote.msg").read_bytes(), signature=(folder / "quote.sig").read_bytes(),
        ak=_pem(folder / "ak_pub.pem"),
        pcrs={"sha256": {number: bytes.fromhex(value) for number, value in enumerate(values)}},
    )  # fmt: skip


def gce(folder: Path) -> TpmEvidence:
    return TpmEvidence(
        quote=(folder / "quote_sha256.msg").read_bytes(), signature=(folder / "quote_sha256.sig").read_bytes(),
        ak=_pem(folder / "ak_pub.pem"), pcrs={"sha256": _pcrs(folder / "pcrs_sha256.txt")},
        ak_certificates=((folder / "ak_cert.der").read_bytes(),),
        event_log=(folder / "event_log.bin").read_bytes(),
    )  # fmt: skip


def azure(folder: Path, td_quote: bytes = b"") -> bytes:
    hcl = (folder / "hcl_report.bin").read_bytes()
    sent = TpmEvidence(
        quote=(folder / "tpm_quote.msg").read_bytes(), signature=_rsassa((folder / "tpm_quote.sig").read_bytes()),
        ak=read_hcl(hcl).ak, pcrs={"sha256": _pcrs(folder / "tpm_pcrs_sha256.txt")},
    )  # fmt: skip
    return write_azure(AzureEvidence(hcl=hcl, tpm=sent, td_quote=td_quote))


def flashbots(folder: Path) -> Case:
    """An Azure TDX capture, whole, in YAML of its own."""
    from attestable_mcp.wire.x509 import pem_to_der

    origin, collateral = _yaml(folder / "origin.yaml"), _yaml(folder / "collateral/origin_collateral.yaml")
    hcl, quote = _url64(origin["hcl_report_base64"]), origin["tpm_attestation"]["quote"]
    sent = TpmEvidence(
        quote=bytes(quote["message"]), signature=_rsassa(bytes(quote["signature"])), ak=read_hcl(hcl).ak,
        pcrs={"sha256": {number: bytes(value) for number, value in enumerate(quote["pcrs"])}},
    )  # fmt: skip
    documents = tuple(
        SignedDocument(
            kind=kind, body=collateral[name].encode(), signature=bytes.fromhex(collateral[f"{name}_signature"]),
            issuer_chain=pem_to_der(collateral[f"{name}_issuer_chain"].encode()),
        )
        for kind, name in ((DocumentKind.INTEL_TCB_INFO, "tcb_info"), (DocumentKind.INTEL_QE_IDENTITY, "qe_identity"))
    )  # fmt: skip
    stapled = Endorsements(
        certificates=pem_to_der(collateral["pck_crl_issuer_chain"].encode()),
        crls=tuple(_hex_or_64(collateral[name]) for name in ("root_ca_crl", "pck_crl")), documents=documents,
    )  # fmt: skip
    body = write_azure(AzureEvidence(hcl=hcl, tpm=sent, td_quote=_url64(origin["tdx_quote_base64"])))
    meta = _meta(folder)
    return Case(
        name=f"tpm/{folder.name}", folder=folder / "none", data=body, at=_at(meta), stapled=stapled,
        measurements={"extra_data": "00" * 32, "user_data": "00" * 64},
    )  # fmt: skip


def _yaml(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())  # type: ignore[no-any-return]


def _url64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _hex_or_64(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return _url64(text)


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> dict[str, tuple[Case, AttestationResult]]:
    root = request.getfixturevalue("vectors")
    return {case.name: (case, case.judge(LENIENT)) for case in cases(root)}


def test_every_set_gets_its_verdict(results: dict[str, tuple[Case, AttestationResult]]) -> None:
    seen = {
        name: f"{result.verdict} {result.error.code if result.error else ''}".strip()
        for name, (_, result) in results.items()
    }
    assert seen == EXPECTED
    assert len(seen) == 60


def test_no_set_is_left_out(vectors: Path) -> None:
    kinds = (*FILES, "tpm")
    there = {f"{kind}/{meta.parent.name}" for kind in kinds for meta in (vectors / kind).glob("*/meta.toml")}
    assert there == {name for name in EXPECTED if not name.startswith("azure/")} | NO_EVIDENCE


def test_every_stated_measurement_is_read_back(results: dict[str, tuple[Case, AttestationResult]]) -> None:
    """Of every set whose proof held, refused ones included. PCRs that can be reset are no claims, by design.

    Which PCRs a quote selects shows in the claims there are.
    """
    sets = values = 0
    for name, (case, result) in results.items():
        if not result.claims:
            assert EXPECTED[name] not in ("partial", DEBUG)
            continue
        left_out = {"pcr16", "pcr23", "selection"} if name.startswith("tpm/") else set()
        stated = {key: value for key, value in case.measurements.items() if key not in left_out}
        assert {key: result.claims.get(key) for key in stated} == stated, name
        sets, values = sets + 1, values + len(stated)
    assert sets == 38
    assert values > 800


def test_a_pin_of_each_genuine_set_accepts_it_and_no_other(
    results: dict[str, tuple[Case, AttestationResult]],
) -> None:
    pinned = {
        name: Policy.from_toml(policy_toml(result), name)
        for name, (_, result) in results.items()
        if result.verdict is Verdict.PARTIAL and name != UNPINNABLE
    }
    assert len(pinned) == 27
    for name, policy in pinned.items():
        case = results[name][0]
        verdict = case.judge(policy)
        assert verdict.verdict is Verdict.VERIFIED, (name, verdict.error)
    with pytest.raises(ConfigurationError, match="no PCR that says which code runs"):
        policy_toml(results[UNPINNABLE][1])
    others = ("snp/oak-milan-oc-staging-v3", "tdx/dcapqvl-v4-uptodate", "nitro/evervault-2022-valid")
    refused = 0
    for name, policy in pinned.items():
        for other in others:
            if other != name:
                assert results[other][0].judge(policy).verdict is Verdict.REFUSED, (name, other)
                refused += 1
    assert refused == 78


def test_a_ccel_explains_its_registers_and_what_it_does_not_explain_is_said(vectors: Path) -> None:
    folder = vectors / "tdx" / "gotdx-v4-cos113-with-ccel"
    case = _case("ccel", folder, (folder / "quote.bin").read_bytes())
    log = SignedDocument(
        kind=DocumentKind.EVENT_LOG, body=(folder / "ccel_data.bin").read_bytes(), signature=b"", issuer_chain=()
    )
    told = replace(case, stapled=Endorsements(documents=(log,))).judge(LENIENT)
    assert told.claims["event_log_explains"] == "all"
    assert told.claims["secure_boot"] in (True, False)
    assert not any("RTMR values came about" in line for line in told.not_proven)
    assert any("no event log was replayed" in line for line in case.judge(LENIENT).not_proven)
    cut = replace(log, body=log.body[:100])
    broken = replace(case, stapled=Endorsements(documents=(cut,))).judge(LENIENT)
    assert (broken.verdict, broken.error.code if broken.error else "") == (Verdict.REFUSED, "malformed_evidence")
