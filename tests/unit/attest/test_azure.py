"""The Azure attester on a real TPM (swtpm) that holds what the paravisor would, over the simulated AMD."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from attestable_mcp.attest.azure import AK, HCL_INDEX, AzureAttester
from attestable_mcp.attest.tpm_commands import RH_OWNER, Command, Tpm, sized
from attestable_mcp.attest.tpm_key import own_template, spki
from attestable_mcp.attest.tpm_link import open_link
from attestable_mcp.errors import AttesterError
from attestable_mcp.rats import Endorsements, EvidenceKind, Tee
from attestable_mcp.simulator import amd
from attestable_mcp.simulator.azure import AzureVm, Hcl
from attestable_mcp.verify import azure as verify_azure
from attestable_mcp.verify.anchors import TrustAnchor, TrustAnchors
from attestable_mcp.verify.memory import Memory

NOW = datetime(2026, 6, 1, tzinfo=UTC)
Start = Callable[[], str]
NOWHERE = ("127.0.0.1", 9)
VM = AzureVm()


def rsa_template() -> bytes:
    """A restricted RSA-2048 signing key with RSASSA and SHA-256, as the paravisor makes it (Part 2 §12.2)."""
    attributes = own_template()[4:8]
    scheme = struct.pack(">HHHHI", 0x0010, 0x0014, 0x000B, 2048, 0)
    return struct.pack(">HH", 0x0001, 0x000B) + attributes + sized(b"") + scheme + sized(b"")


def provision(where: str, hcl: Hcl, *, other_key: bool = False, damage: bool = False) -> None:
    """What the paravisor does at boot: a persistent key, and the report over it in NV."""
    with Tpm(open_link(where)) as tpm:
        loaded = tpm.create_primary(RH_OWNER, rsa_template())
        handle = AK.handle.to_bytes(4, "big")
        tpm.run(
            Command(
                name="EvictControl", code=0x120, authorised=(RH_OWNER,), handles=(loaded.handle,), parameters=handle
            )
        )
        key = load_der_public_key(spki(loaded.public))
        assert isinstance(key, rsa.RSAPublicKey)
        report = VM.hcl(hcl, modulus=None if other_key else key.public_numbers().n)
        report = b"XXXX" + report[4:] if damage else report
        define(tpm, HCL_INDEX, report.ljust(2048, b"\0")[:2048])


def define(tpm: Tpm, index: int, content: bytes) -> None:
    attributes = 1 << 2 | 1 << 1 | 1 << 18 | 1 << 17 | 1 << 25
    public = struct.pack(">IHI", index, 0x000B, attributes) + sized(b"") + len(content).to_bytes(2, "big")
    tpm.run(Command(name="NV_DefineSpace", code=0x12A, authorised=(RH_OWNER,), parameters=sized(b"") + sized(public)))
    for offset in range(0, len(content), 512):
        block = sized(content[offset : offset + 512]) + offset.to_bytes(2, "big")
        tpm.run(Command(name="NV_Write", code=0x137, authorised=(RH_OWNER,), handles=(index,), parameters=block))


@contextmanager
def metadata(
    body: bytes, status: int = 200, quote: Callable[[bytes], bytes] = lambda report: b""
) -> Iterator[tuple[tuple[str, int], list[str | None]]]:
    """The metadata service: its place, and the Metadata headers that it saw. `quote` makes TD quotes of TDREPORTs."""
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/metadata/THIM/amd/certification"
            seen.append(self.headers["Metadata"])
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            assert self.path == "/acc/tdquote"
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["report"]
            report = base64.urlsafe_b64decode(asked + "=" * (-len(asked) % 4))
            self.send_response(status)
            self.end_headers()
            made = base64.urlsafe_b64encode(quote(report)).rstrip(b"=").decode()
            self.wfile.write(body or json.dumps({"quote": made}).encode())

        def log_message(self, format: str, *arguments: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield ("127.0.0.1", server.server_port), seen
        server.shutdown()
        thread.join(10)


def thim() -> bytes:
    chain = VM.amd.kds_answer("/vcek/v1/Genoa/cert_chain", at=NOW) or b""
    chip = amd._pem(VM.amd.vcek.der)
    return json.dumps({"vcekCert": chip.decode(), "tcbm": "DB16", "certificateChain": chain.decode()}).encode()


def test_every_link_from_amd_to_the_quote_of_a_real_tpm_holds(swtpm: Start) -> None:
    where = swtpm()
    provision(where, Hcl())
    with metadata(thim()) as (place, seen):
        attester = AzureAttester(where, metadata=place, event_log=None)
        evidence = attester.attest(b"\x0b" * 64)
        stapled = attester.endorsements()
        attester.endorsements()
    assert seen == ["true"]
    assert evidence.kind is EvidenceKind.AZURE_VTPM
    anchors = TrustAnchors(amd=(TrustAnchor(name="simulated", spki_sha256=VM.amd.root_spki_sha256),))
    verified = verify_azure.verify(evidence, stapled, anchors=anchors, at=NOW, memory=Memory())
    assert verified.claims.tee is Tee.AZURE_SEV_SNP
    assert verified.claims.report_data == hashlib.sha256(b"\x0b" * 64).digest()
    assert verified.claims.values["pcr0"] == "00" * 32
    assert (attester.tee, attester.simulated) == ("azure-sev-snp", False)


@pytest.mark.parametrize(
    ("body", "status"), [(b"{}", 200), (b"", 500), (b"[", 200), (b'{"vcekCert": "x", "certificateChain": "y"}', 200)]
)
def test_without_the_metadata_service_there_is_no_staple(swtpm: Start, body: bytes, status: int) -> None:
    where = swtpm()
    provision(where, Hcl())
    now = [0.0]
    with metadata(body, status) as (place, seen):
        attester = AzureAttester(where, metadata=place, event_log=None, clock=lambda: now[0])
        for later in (0.0, 599.0, 600.0):
            now[0] = later
            assert attester.endorsements() == Endorsements()
    assert len(seen) == 2


def test_an_ordinary_tpm_is_told_from_azures(swtpm: Start) -> None:
    with pytest.raises(AttesterError, match="no NV index 01400001") as caught:
        AzureAttester(swtpm(), metadata=NOWHERE)
    assert "--attester tpm" in caught.value.hint


def test_a_report_over_another_key_is_refused(swtpm: Start) -> None:
    where = swtpm()
    provision(where, Hcl(), other_key=True)
    with pytest.raises(AttesterError, match="names another key than handle 81000003"):
        AzureAttester(where, metadata=NOWHERE)


def quoted(report: bytes) -> bytes:
    """What Azure's quoting service makes of a TDREPORT."""
    assert len(report) == 1024
    return VM.intel.quote_tdx(report[128:192])


def test_on_tdx_the_metadata_service_makes_the_td_quote(swtpm: Start) -> None:
    where = swtpm()
    provision(where, Hcl(tdx=True))
    with metadata(b"", quote=quoted) as (place, seen):
        attester = AzureAttester(where, metadata=place, event_log=None)
        evidence = attester.attest(b"\x0c" * 64)
        assert attester.endorsements() == Endorsements()
    assert seen == []
    assert attester.tee == "azure-tdx"
    anchors = TrustAnchors(intel=(TrustAnchor(name="simulated", spki_sha256=VM.intel.root_spki_sha256),))
    bag = VM.intel.collateral(at=NOW, tee=Tee.TDX)
    verified = verify_azure.verify(evidence, bag, anchors=anchors, at=NOW, memory=Memory())
    assert verified.claims.tee is Tee.AZURE_TDX
    assert verified.claims.report_data == hashlib.sha256(b"\x0c" * 64).digest()


@pytest.mark.parametrize(
    ("body", "status", "quote", "message"),
    [
        (b"", 500, quoted, "wanted 200, seen 500"),
        (b"{}", 200, quoted, "wanted a quote in base64url, seen none"),
        (b'{"quote": "!"}', 200, quoted, "wanted a quote in base64url, seen '!'"),
        (b"", 200, lambda report: b"no quote", "of kind intel-quote"),
        (b"", 200, lambda report: VM.intel.quote_tdx(bytes(64)), "the report data just given"),
    ],
)
def test_without_a_td_quote_there_is_no_attester(
    swtpm: Start, body: bytes, status: int, quote: Callable[[bytes], bytes], message: str
) -> None:
    where = swtpm()
    provision(where, Hcl(tdx=True))
    with metadata(body, status, quote) as (place, _), pytest.raises(AttesterError, match=message):
        AzureAttester(where, metadata=place)


def test_a_damaged_report_is_named(swtpm: Start) -> None:
    where = swtpm()
    provision(where, Hcl(), damage=True)
    with pytest.raises(AttesterError, match="NV index 01400001: HCL report: wanted HCLA"):
        AzureAttester(where, metadata=NOWHERE)
