"""A made-up kind of TEE, added to a copy of the package in the places that docs/howto/add-a-tee.md names alone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import attestable_mcp

NEW = {
    "wire/cove.py": """
from dataclasses import dataclass

from attestable_mcp.errors import MalformedEvidence


@dataclass(frozen=True, slots=True, kw_only=True)
class CoveReport:
    signed: bytes
    measurement: bytes
    report_data: bytes
    signature: bytes


def looks_cove(data: bytes) -> bool:
    return data.startswith(b"COVE")


def read_cove(data: bytes) -> CoveReport:
    if len(data) != 4 + 32 + 64 + 64 or not looks_cove(data):
        raise MalformedEvidence("CoVE report: wanted 164 bytes", field="report")
    return CoveReport(signed=data[:100], measurement=data[4:36], report_data=data[36:100], signature=data[100:])
""",
    "verify/cove.py": """
import hashlib
from datetime import UTC, datetime

from attestable_mcp.errors import ChainInvalid, SignatureInvalid
from attestable_mcp.rats import _MINT, Claims, EndorsementQuery, Tee, Verified
from attestable_mcp.verify.description import Description
from attestable_mcp.verify.signature import holds
from attestable_mcp.verify.trail import Trail
from attestable_mcp.wire.cove import read_cove


def query(evidence):
    return EndorsementQuery(tee=Tee.COVE, parameters={})


def describe(evidence):
    return Description(tee=Tee.COVE, values={"cove_measurement": read_cove(evidence.body).measurement.hex()})


def verify(evidence, endorsements, *, anchors, at, memory):
    trail, report = Trail(), read_cove(evidence.body)
    keys = {hashlib.sha256(raw).hexdigest(): raw for raw in endorsements.certificates}
    anchor = next((item for item in anchors.cove if item.spki_sha256 in keys), None)
    if anchor is None:
        trail.refuse(ChainInvalid, "cove.key", wanted="a pinned key", seen="none")
    good = holds("ecdsa", "sha256", keys[anchor.spki_sha256], report.signature, report.signed)
    trail.demand(good, SignatureInvalid, "cove.signature", "a signature", "one that holds" if good else "none")
    claims = Claims(
        tee=Tee.COVE, values={"cove_measurement": report.measurement.hex()}, report_data=report.report_data,
        debug=False, tcb_status="",
    )
    return Verified(
        _MINT, claims=claims, evidence_digest=evidence.digest,
        signed_digest=hashlib.sha256(report.signed).hexdigest(), findings=trail.findings, anchor=anchor.spki_sha256,
        anchor_name=anchor.name, simulated=False, at=at, valid_until=datetime(9999, 1, 1, tzinfo=UTC),
    )
""",
    "appraise/kinds/cove.py": """
from dataclasses import dataclass
from typing import ClassVar

from attestable_mcp.appraise.kinds.base import Kind, claim, quoted
from attestable_mcp.appraise.values import hex_text, put
from attestable_mcp.rats import Tee


@dataclass(frozen=True, slots=True, kw_only=True)
class CoveRelease:
    label: str = ""
    cove_measurement: str
    tee: ClassVar[Tee] = Tee.COVE

    def __post_init__(self) -> None:
        put(self, "cove_measurement", hex_text(self.cove_measurement, 32, "cove_measurement"))


def compare(held, release):
    yield held.same("cove_measurement", release.cove_measurement)


def pin(result):
    yield f"cove_measurement = {quoted(claim(result, 'cove_measurement'))}"


COVE = Kind(
    tee=Tee.COVE, vendor="cove", release=CoveRelease, keys={"cove_measurement": "text"},
    heads=(frozenset(("cove_measurement",)),), code=("cove_measurement",), compare=compare, pin=pin,
)
""",
}
ROWS = {
    "rats.py": [
        ('    AZURE_TDX = "azure-tdx"\n', '    AZURE_TDX = "azure-tdx"\n    COVE = "cove"\n'),
        ('    AZURE_VTPM = "azure-vtpm"\n', '    AZURE_VTPM = "azure-vtpm"\n    COVE_REPORT = "cove-report"\n'),
    ],
    "wire/kinds.py": [
        ("import detached, hcl, intel", "import cove, detached, hcl, intel"),
        (
            "KINDS: Mapping[EvidenceKind, Kind] = MappingProxyType(\n    {\n",
            "KINDS: Mapping[EvidenceKind, Kind] = MappingProxyType(\n    {\n        EvidenceKind.COVE_REPORT: Kind("
            "looks=cove.looks_cove, report_data=lambda body: cove.read_cove(body).report_data, tees=(Tee.COVE,), "
            "media_type='application/vnd.example.cove'),\n",
        ),
    ],
    "verify/table.py": [
        ("import azure, intel", "import azure, cove, intel"),
        (
            "TABLE: Mapping[EvidenceKind, Row] = MappingProxyType(\n    {\n",
            "TABLE: Mapping[EvidenceKind, Row] = MappingProxyType(\n    {\n        EvidenceKind.COVE_REPORT: "
            "Row(verify=cove.verify, query=cove.query, describe=cove.describe),\n",
        ),
    ],
    "verify/anchors.py": [
        ('HARDWARE = ("intel",', 'HARDWARE = ("cove", "intel",'),
        ("    tokens: tuple[TokenTrust, ...] = ()\n",
         "    cove: tuple[TrustAnchor, ...] = ()\n    tokens: tuple[TokenTrust, ...] = ()\n"),
    ],
    "appraise/kinds/table.py": [
        ("import azure, intel", "import azure, cove, intel"),
        ("_ROWS = (", "_ROWS = (cove.COVE, "),
    ],
    "appraise/policy.py": [('VENDORS = ("intel",', 'VENDORS = ("cove", "intel",')],
}  # fmt: skip
"""Every edit of a file that exists: the text there, and the text in its place."""
PROOF = """
import hashlib, sys
from datetime import UTC, datetime
from dataclasses import replace
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from attestable_mcp.appraise.policy import Policy
from attestable_mcp.appraise.write import policy_toml
from attestable_mcp.cli.describe import describe
from attestable_mcp.cli.tcb_kinds import report_of
from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind
from attestable_mcp.tls.certificate import issue
from attestable_mcp.verifier import Verifier, Watermarks, resolve_anchors
from attestable_mcp.verify.anchors import TrustAnchor, TrustAnchors
from attestable_mcp.wire.recognise import recognise

AT = datetime(2026, 11, 1, tzinfo=UTC)
key = ec.generate_private_key(ec.SECP256R1())
spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

def report(report_data, measurement=b"m" * 32):
    signed = b"COVE" + measurement + report_data
    r, s = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
    return signed + r.to_bytes(32, "big") + s.to_bytes(32, "big")

bag = Endorsements(certificates=(spki,))
anchors = TrustAnchors(cove=(TrustAnchor(name="maker", spki_sha256=hashlib.sha256(spki).hexdigest()),))

def judge(policy, body):
    verifier = Verifier(policy, sources=[], anchors=anchors, watermarks=Watermarks())
    return verifier.appraise_source(body, AT, stapled=bag).result

evidence = recognise(report(bytes(64)))
assert evidence.kind is EvidenceKind.COVE_REPORT
policy = Policy.from_toml(f'[trust]\\nanchors = ["cove"]\\n[policy]\\ncove_measurement = "{(b"m" * 32).hex()}"')
assert judge(policy, report(bytes(64))).verdict == "verified"
assert judge(policy, report(bytes(64), b"n" * 32)).error.code == "measurement_mismatch"
assert judge(policy, report(bytes(64))[:-1] + b"?").error.code == "signature_invalid"
assert judge(Policy.genuine_only(), report(bytes(64))).verdict == "partial"
pinned = policy_toml(judge(Policy.genuine_only(), report(bytes(64))))
assert judge(Policy.from_toml(pinned), report(bytes(64))).verdict == "verified"
assert describe(report(bytes(64)))["claims"]["cove_measurement"] == (b"m" * 32).hex()
assert resolve_anchors(policy.trust).cove == ()

class Attester:
    tee, simulated = "cove", False
    def attest(self, report_data): return Evidence(kind=EvidenceKind.COVE_REPORT, body=report(report_data))
    def endorsements(self): return bag

issued = issue(Attester(), ["a"], now=AT)
verifier = Verifier(policy, sources=[], anchors=anchors, watermarks=Watermarks())
found = verifier.appraise_certificate(issued.certificate_der, AT)
result = found.result
assert result.verdict == "verified", result.error
weather = report_of(found.verified, policy).to_json()
assert (weather["tee"], weather["now"]["accepted"]) == ("cove", True)
assert "no TCB statement is known" in weather["notes"][0]
print("cove is served, proven, judged, pinned and described")
"""


def test_a_sixth_kind_touches_only_the_places_that_the_house_names(tmp_path: Path, repository: Path) -> None:
    package = Path(attestable_mcp.__file__).parent
    copy = tmp_path / "attestable_mcp"
    shutil.copytree(package, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in NEW.items():
        assert not (copy / name).exists()
        (copy / name).write_text(text.lstrip(), encoding="utf-8")
    for name, edits in ROWS.items():
        source = (copy / name).read_text(encoding="utf-8")
        for before, after in edits:
            assert source.count(before) == 1, f"{name}: the table no longer looks as this test knows it: {before!r}"
            source = source.replace(before, after)
        (copy / name).write_text(source, encoding="utf-8")
    page = (repository / "docs" / "howto" / "add-a-tee.md").read_text(encoding="utf-8")
    named = {path.replace("NAME", "cove") for path in re.findall(r"`([a-z_]+(?:/[a-zA-Z_/]+)?\.py)`", page)}
    assert set(NEW) | set(ROWS) <= named
    run = subprocess.run(
        [sys.executable, "-c", PROOF], env={"PYTHONPATH": str(tmp_path), "PATH": ""}, cwd=tmp_path,
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    assert "cove is served" in run.stdout


def test_the_words_for_vendors_are_the_same_on_both_sides() -> None:
    from attestable_mcp.appraise.policy import VENDORS
    from attestable_mcp.verify.anchors import HARDWARE

    assert VENDORS == HARDWARE
