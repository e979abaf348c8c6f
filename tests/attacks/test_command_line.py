"""Hostile and broken files through the command line: exit code, the JSON contract, the reason, and no traceback.

Every case is a whole `verify` in this process. Files stand in a folder of the test's own.
"""

from __future__ import annotations

import base64
import io
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from attestable_mcp.cli.main import main
from attestable_mcp.rats import Tee
from attestable_mcp.simulator import pki
from attestable_mcp.simulator.intel import Vendor
from attestable_mcp.simulator.options import (
    EXPIRED,
    FUTURE,
    Certificates,
    Collateral,
    Crls,
    Platform,
    QeIdentity,
    Quote,
    QuotingEnclave,
    SgxBody,
    Signer,
    TcbInfo,
    TcbStatus,
    TdxBody,
    Validity,
)
from attestable_mcp.wire import cbor, ratls
from attestable_mcp.wire.pem import encode_pem

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
SEED = b"a vendor of these tests alone".ljust(32, b".")
MRENCLAVE = bytes(range(32))
CONTRACT = {
    "verdict", "tee", "tcb_status", "advisories", "claims", "findings", "not_proven", "simulated", "at", "error",
}  # fmt: skip
VERDICTS = {0: "verified", 1: "unavailable", 2: "refused", 3: "unavailable", 4: "partial"}
PAST = Validity(not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=datetime(2021, 1, 1, tzinfo=UTC))
LATER = Validity(not_before=datetime(2040, 1, 1, tzinfo=UTC), not_after=datetime(2041, 1, 1, tzinfo=UTC))


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str
    seconds: float


def run(*words: str) -> Ended:
    """The command in this process, its streams apart."""
    out, err = io.StringIO(), io.StringIO()
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = out, err
    began = time.process_time()
    try:
        code = main(list(words))
    finally:
        sys.stdout, sys.stderr = kept
    return Ended(code, out.getvalue(), err.getvalue(), time.process_time() - began)


def judged(*words: str) -> tuple[Ended, dict[str, Any]]:
    """With --json, held to the contract whatever the outcome."""
    ended = run(*words, "--json")
    lines = ended.out.splitlines()
    assert len(lines) == 1, ended
    answer = json.loads(lines[0])
    assert answer.keys() >= CONTRACT
    assert "Traceback" not in ended.err
    assert answer["verdict"] == VERDICTS[ended.code], answer
    assert (answer["error"] is None) == (ended.code in (0, 4)), answer
    if answer["error"] is not None:
        assert answer["error"].keys() == {"code", "message", "hint"}
        assert answer["error"]["code"] not in ("internal", "attestation_error", "")
        assert answer["error"]["message"]
    for finding in answer["findings"]:
        assert finding.keys() == {"check", "outcome", "wanted", "seen", "reason"}
        assert finding["outcome"] in ("pass", "fail", "skip")
    if ended.code in (0, 4):
        assert all(finding["outcome"] != "fail" for finding in answer["findings"])
    assert ended.seconds < 2
    return ended, answer


def code_of(answer: dict[str, Any]) -> str:
    return str(answer["error"]["code"]) if answer["error"] else ""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A quote with its collateral, and what `verify --genuine-only` makes of it."""

    name: str
    exit: int
    code: str = ""
    tee: Tee = Tee.SGX
    quote: Quote = field(default_factory=Quote)
    sgx: SgxBody = field(default_factory=SgxBody)
    tdx: TdxBody = field(default_factory=TdxBody)
    collateral: Collateral = field(default_factory=Collateral)
    platform: Platform = field(default_factory=Platform)
    certificates: Certificates = field(default_factory=Certificates)
    options: tuple[str, ...] = ()
    touch: Callable[[bytes], bytes] = bytes
    """What becomes of the quote's bytes."""


def _tcb(**options: Any) -> Collateral:
    return Collateral(tcb_info=TcbInfo(**options))


def _qe(**options: Any) -> Collateral:
    return Collateral(qe_identity=QeIdentity(**options))


def _crl(**options: Any) -> Collateral:
    return Collateral(crls=Crls(**options))


MODULE_1 = Platform(tdx_components=(5, 1, 8, *([0] * 13)))
"""A TDX module of major version 1, which has an identity of its own."""
ACCEPTED = {TcbStatus.UP_TO_DATE, TcbStatus.SW_HARDENING_NEEDED}


def _statuses() -> list[Case]:
    found = []
    for status in TcbStatus:
        code = "" if status in ACCEPTED else ("revoked" if status is TcbStatus.REVOKED else "tcb_status_refused")
        end = 4 if not code else 2
        found.append(Case(name=f"platform-{status}", exit=end, code=code, collateral=_tcb(status=status)))
        # Intel publishes three words for enclaves and modules; any other is taken for the worse of what it may mean.
        other_code = code or ("" if status is TcbStatus.UP_TO_DATE else "tcb_status_refused")
        found.append(
            Case(name=f"qe-{status}", exit=2 if other_code else 4, code=other_code, collateral=_qe(status=status))
        )
        module = _tcb(module_status=status)
        found.append(
            Case(
                name=f"module-{status}",
                exit=2 if other_code else 4,
                code=other_code,
                tee=Tee.TDX,
                collateral=module,
                platform=MODULE_1,
            )
        )
        if status not in ACCEPTED and status is not TcbStatus.REVOKED:
            asked = ("--accept-status", str(status))
            found.append(Case(name=f"asked-{status}", exit=4, collateral=_tcb(status=status), options=asked))
    return found


CASES = [
    Case(name="sgx-good", exit=4),
    Case(name="sgx-v4", exit=4, quote=Quote(version=4)),
    Case(name="sgx-v5", exit=4, quote=Quote(version=5)),
    Case(name="tdx-v4", exit=4, tee=Tee.TDX),
    Case(name="tdx-v5", exit=4, tee=Tee.TDX, quote=Quote(version=5)),
    Case(name="tdx-v5-td15", exit=4, tee=Tee.TDX, quote=Quote(version=5), tdx=TdxBody(td15=True)),
    Case(name="processor-ca", exit=4, platform=Platform(pck_ca="processor")),
    Case(name="base64", exit=4, touch=base64.b64encode),
    Case(name="hex", exit=4, touch=lambda data: data.hex().encode() + b"\n"),
    Case(name="trailing-zeros", exit=4, quote=Quote(trailing=bytes(64))),
    Case(name="conjugate-signatures", exit=4, quote=Quote(conjugate_signatures=True)),
    *_statuses(),
    Case(name="e8-trailing-bytes", exit=2, code="malformed_evidence", quote=Quote(trailing=b"\x01")),
    Case(name="sgx-debug", exit=2, code="debug_enclave", sgx=SgxBody(debug=True)),
    Case(name="tdx-debug", exit=2, code="debug_enclave", tee=Tee.TDX, tdx=TdxBody(debug=True)),
    Case(name="not-initialised", exit=2, code="enclave_not_initialised", sgx=SgxBody(flags=4)),
    Case(name="revoked-pck", exit=2, code="revoked", collateral=_crl(revoke_pck=True)),
    Case(name="revoked-pck-ca", exit=2, code="revoked", collateral=_crl(revoke_pck_ca=True)),
    Case(name="revoked-tcb-signer", exit=2, code="revoked", collateral=_crl(revoke_tcb_signing=True)),
    *[
        Case(name=f"{piece}-{word}", exit=2, code="endorsement_stale", collateral=make(span))
        for word, span in (("expired", EXPIRED), ("future", FUTURE))
        for piece, make in (
            ("tcb-info", lambda span: _tcb(span=span)),
            ("qe-identity", lambda span: _qe(span=span)),
            ("root-crl", lambda span: _crl(root=span)),
            ("pck-crl", lambda span: _crl(pck=span)),
        )
    ],
    *[
        Case(
            name=f"{piece}-certificate-{word}",
            exit=2,
            code="certificate_expired",
            certificates=Certificates(**{piece: span}),
        )
        for word, span in (("expired", PAST), ("future", LATER))
        for piece in ("pck", "pck_ca", "tcb_signing", "root")
    ],
    *[
        Case(
            name=f"{piece}-signed-by-{signer}",
            exit=2,
            collateral=make(signer=signer),
            code="signature_invalid" if signer is Signer.STRANGER else "wrong_signer",
        )
        for signer in Signer
        if signer is not Signer.TCB_SIGNING
        for piece, make in (("tcb-info", _tcb), ("qe-identity", _qe))
    ],
    Case(name="tcb-info-tampered", exit=2, code="signature_invalid", collateral=_tcb(tampered=True)),
    Case(name="qe-identity-tampered", exit=2, code="signature_invalid", collateral=_qe(tampered=True)),
    Case(name="tcb-info-below", exit=2, code="tcb_level_not_found", collateral=_tcb(below_all_levels=True)),
    Case(name="tcb-info-15", exit=2, code="malformed_evidence", collateral=_tcb(component_count=15)),
    Case(name="tcb-info-17", exit=2, code="malformed_evidence", collateral=_tcb(component_count=17)),
    Case(name="tcb-info-fmspc", exit=2, code="tcb_info_mismatch", collateral=_tcb(fmspc=bytes(6))),
    Case(name="tcb-info-pceid", exit=2, code="tcb_info_mismatch", collateral=_tcb(pceid=b"\1\0")),
    Case(name="tcb-info-version", exit=2, code="unsupported_evidence", collateral=_tcb(version=4)),
    Case(name="tcb-info-id", exit=2, code="malformed_evidence", collateral=_tcb(id="TDX")),
    Case(
        name="tdx-without-tdx-parts",
        exit=2,
        code="malformed_evidence",
        tee=Tee.TDX,
        collateral=_tcb(with_tdx_parts=False),
    ),
    Case(
        name="module-mrsigner",
        exit=2,
        code="tdx_module_mismatch",
        tee=Tee.TDX,
        collateral=_tcb(module_mrsigner=b"\1" * 48),
    ),
    Case(name="qe-mrsigner", exit=2, code="qe_identity_mismatch", collateral=_qe(mrsigner=b"\1" * 32)),
    Case(name="qe-isvprodid", exit=2, code="qe_identity_mismatch", collateral=_qe(isvprodid=9)),
    Case(name="qe-id", exit=2, code="qe_identity_mismatch", collateral=_qe(id="TD_QE")),
    Case(name="qe-version", exit=2, code="unsupported_evidence", collateral=_qe(version=3)),
    Case(
        name="quote-wrong-qe", exit=2, code="qe_identity_mismatch", quote=Quote(qe=QuotingEnclave(mrsigner=b"\2" * 32))
    ),
    Case(
        name="quote-qe-report-data",
        exit=2,
        code="attestation_key_mismatch",
        quote=Quote(qe=QuotingEnclave(report_data=bytes(64))),
    ),
    Case(
        name="quote-qe-stranger",
        exit=2,
        code="signature_invalid",
        quote=Quote(qe=QuotingEnclave(signed_by_stranger=True)),
    ),
    Case(
        name="quote-qe-debug",
        exit=2,
        code="qe_identity_mismatch",
        quote=Quote(qe=QuotingEnclave(attributes=bytes.fromhex("1700000000000000e700000000000000"))),
    ),
    Case(name="quote-qe-old", exit=2, code="tcb_status_refused", quote=Quote(qe=QuotingEnclave(isvsvn=0))),
    Case(name="quote-isv-signature", exit=2, code="signature_invalid", quote=Quote(bad_isv_signature=True)),
    Case(name="quote-qe-signature", exit=2, code="signature_invalid", quote=Quote(bad_qe_signature=True)),
    Case(name="quote-vendor", exit=2, code="unknown_qe_vendor", quote=Quote(qe_vendor_id=bytes(16))),
    Case(name="quote-key-type-3", exit=2, code="unsupported_evidence", quote=Quote(attestation_key_type=3)),
    Case(name="quote-tee-type", exit=2, code="unsupported_evidence", quote=Quote(version=4, tee_type=7)),
    Case(name="quote-cert-type-1", exit=2, code="unsupported_evidence", quote=Quote(certification_type=1)),
    Case(name="quote-cert-type-3", exit=3, code="endorsement_unavailable", quote=Quote(certification_type=3)),
    Case(name="quote-chain-without-root", exit=4, quote=Quote(chain_order=("pck", "ca"))),
    Case(name="quote-chain-turned", exit=4, quote=Quote(chain_order=("root", "ca", "pck"))),
    Case(
        name="pck-stranger",
        exit=2,
        code="chain_signature_invalid",
        certificates=Certificates(pck_signed_by_stranger=True),
    ),
    Case(name="pck-no-extension", exit=2, code="pck_missing", certificates=Certificates(pck_sgx_extension=False)),
    Case(name="pck-fmspc-twice", exit=2, code="malformed_evidence", certificates=Certificates(pck_fmspc_twice=True)),
    Case(name="pck-15", exit=2, code="malformed_evidence", certificates=Certificates(pck_components=15)),
    Case(name="pck-17", exit=2, code="malformed_evidence", certificates=Certificates(pck_components=17)),
    Case(
        name="pck-critical",
        exit=2,
        code="chain_invalid",
        certificates=Certificates(pck_unknown_critical_extension=True),
    ),
    Case(name="pck-ca-no-ca", exit=2, code="chain_invalid", certificates=Certificates(pck_ca_is_ca=False)),
    Case(name="pck-ca-usage", exit=2, code="chain_invalid", certificates=Certificates(pck_ca_key_usage=False)),
    Case(name="no-root-crl", exit=3, code="endorsement_unavailable", collateral=_crl(with_root=False)),
    Case(name="no-pck-crl", exit=3, code="endorsement_unavailable", collateral=_crl(with_pck=False)),
    Case(name="root-crl-stranger", exit=2, code="signature_invalid", collateral=_crl(root_signed_by_stranger=True)),
    Case(name="pck-crl-stranger", exit=2, code="signature_invalid", collateral=_crl(pck_signed_by_stranger=True)),
    Case(name="pck-crl-by-root", exit=3, code="endorsement_unavailable", collateral=_crl(pck_issued_by_root=True)),
    Case(name="no-tcb-info", exit=3, code="endorsement_unavailable", collateral=Collateral(with_tcb_info=False)),
    Case(name="no-qe-identity", exit=3, code="endorsement_unavailable", collateral=Collateral(with_qe_identity=False)),
    Case(name="quote-cut-in-half", exit=2, code="malformed_evidence", touch=lambda data: data[: len(data) // 2]),
    Case(name="quote-cut-by-one", exit=2, code="malformed_evidence", touch=lambda data: data[:-1]),
    Case(name="quote-bit-in-body", exit=2, code="signature_invalid", touch=lambda data: flip(data, 100)),
    Case(name="quote-bit-in-version", exit=2, code="unrecognised_source", touch=lambda data: flip(data, 0)),
]


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


def quote_of(case: Case, vendor: Vendor) -> bytes:
    if case.tee is Tee.TDX:
        return vendor.quote_tdx(bytes(64), body=case.tdx, options=case.quote)
    return vendor.quote_sgx(bytes(64), MRENCLAVE, body=case.sgx, options=case.quote)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_way_to_be_wrong_has_its_exit_code_and_reason(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pki, "ROOT_NAME", "Example Root CA")  # one's own root, which does not call itself simulated
    monkeypatch.setattr(pki, "ORGANISATION", "Example")
    vendor = Vendor(seed=SEED, platform=case.platform, certificates=case.certificates)
    (tmp_path / "quote.bin").write_bytes(case.touch(quote_of(case, vendor)))
    (tmp_path / "root.pem").write_text(vendor.root_pem)
    record = vendor.collateral_json(at=AT, tee=case.tee, options=case.collateral)
    (tmp_path / "collateral.json").write_text(json.dumps(record))
    ended, answer = judged(
        "verify", str(tmp_path / "quote.bin"), "--genuine-only", "--anchor", str(tmp_path / "root.pem"),
        "--endorsements", str(tmp_path / "collateral.json"), "--at", AT.isoformat().replace("+00:00", "Z"),
        *case.options,
    )  # fmt: skip
    assert (ended.code, code_of(answer)) == (case.exit, case.code), answer["error"]
    assert answer["simulated"] is False
    assert answer["at"] == "2026-06-01T12:00:00Z"
    if case.exit == 4:
        assert any("replaced" in sentence for sentence in answer["not_proven"])


# Certificates, folders, policies, anchors


class Desk:
    """A folder with good pieces, which a test then spoils."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vendor = Vendor(seed=SEED)
        self.quote = self.file("quote.bin", self.vendor.quote_sgx(bytes(64), MRENCLAVE))
        self.root = self.file("root.pem", self.vendor.root_pem.encode())
        self.record = self.vendor.collateral_json(at=AT)
        self.collateral = self.file("collateral.json", json.dumps(self.record).encode())

    def file(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def verify(self, source: Path | str | None = None, **options: Any) -> tuple[int, str, dict[str, Any]]:
        """Exit code, error code, the whole answer. Options: demand, endorsements, anchor, at, more."""
        words = ["verify", str(source or self.quote), *options.get("demand", ("--genuine-only",))]
        words += ["--at", options.get("at", "2026-06-01T12:00:00Z")]
        for name in ("endorsements", "anchor"):
            value = options.get(name, self.collateral if name == "endorsements" else self.root)
            words += [f"--{name}", str(value)] if value else []
        ended, answer = judged(*words, *options.get("more", ()))
        return ended.code, code_of(answer), answer


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setattr(pki, "ROOT_NAME", "Example Root CA")
    monkeypatch.setattr(pki, "ORGANISATION", "Example")
    return Desk(tmp_path)


VALIDITY = b"\x17\x0d260501000000Z\x17\x0d260701000000Z"


@pytest.fixture
def certificate(desk: Desk, make_certificate: Callable[..., bytes]) -> Callable[..., Path]:
    """Writes an RA-TLS certificate in PEM: the tagged form by default, or with `extensions` of one's own."""

    def make(claims: bytes | None = None, extensions: Any = None, validity: bytes = VALIDITY, pem: bool = True) -> Path:
        claims = ratls.pubkey_claims(SPKI) if claims is None else claims
        quote = desk.vendor.quote_sgx(ratls.claims_report_data(claims), MRENCLAVE)
        tagged = [(ratls.OID_TAGGED_EVIDENCE, ratls.tagged_evidence(quote, claims))]
        der = make_certificate(tagged if extensions is None else extensions, validity=validity, spki=SPKI, key=KEY)
        return desk.file("leaf", encode_pem("CERTIFICATE", der) if pem else der)

    return make


KEY = ec.derive_private_key(7, ec.SECP256R1())
SPKI = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("pem", [True, False])
def test_a_good_certificate_in_either_form(desk: Desk, certificate: Callable[..., Path], pem: bool) -> None:
    assert desk.verify(certificate(pem=pem))[:2] == (4, "")


def test_text_may_stand_around_a_pem_certificate(desk: Desk, certificate: Callable[..., Path]) -> None:
    path = certificate()
    path.write_bytes(b"subject: caf\xc3\xa9\n\n" + path.read_bytes() + b"\nsome words after it\n")
    assert desk.verify(path)[:2] == (4, "")


def test_c1_an_expired_and_a_future_certificate(desk: Desk, certificate: Callable[..., Path]) -> None:
    old = b"\x17\x0d250501000000Z\x17\x0d250701000000Z"
    new = b"\x17\x0d270501000000Z\x17\x0d270701000000Z"
    for validity in (old, new):
        assert desk.verify(certificate(validity=validity))[:2] == (2, "stale_evidence")


def test_e4_claims_of_another_key_without_a_key_or_twice(desk: Desk, certificate: Callable[..., Path]) -> None:
    twice = b"\xa2" + ratls.pubkey_claims(SPKI)[1:] * 2
    assert desk.verify(certificate(ratls.pubkey_claims(SPKI + b"\0")))[:2] == (2, "channel_binding_mismatch")
    assert desk.verify(certificate(cbor.encode({"nonce": b"1"})))[:2] == (2, "no_pubkey_hash")
    assert desk.verify(certificate(twice))[:2] == (2, "duplicate_key")


def test_e4_legacy_evidence_of_another_key_beside_good_evidence(desk: Desk, certificate: Callable[..., Path]) -> None:
    claims = ratls.pubkey_claims(SPKI)
    good = ratls.tagged_evidence(desk.vendor.quote_sgx(ratls.claims_report_data(claims), MRENCLAVE), claims)
    other = desk.vendor.quote_sgx(bytes(64), MRENCLAVE)
    path = certificate(extensions=[(ratls.OID_TAGGED_EVIDENCE, good), (ratls.OID_GRAMINE_LEGACY, other)])
    assert desk.verify(path)[:2] == (2, "channel_binding_mismatch")


def test_an_ordinary_certificate_is_unavailable(desk: Desk, certificate: Callable[..., Path]) -> None:
    assert desk.verify(certificate(extensions=[]))[:2] == (3, "attestation_unavailable")


@pytest.mark.parametrize("what", ["quote", "leaf"])
def test_no_cut_or_flipped_bit_is_accepted_or_ends_in_a_fault(
    desk: Desk, certificate: Callable[..., Path], what: str
) -> None:
    data = desk.quote.read_bytes() if what == "quote" else certificate(pem=False).read_bytes()
    for at in range(0, len(data) - 1, len(data) // 60):
        assert desk.verify(desk.file("cut", data[:at] or b"\0"))[0] == 2, at
    for at in range(0, len(data) if what == "leaf" else len(data) - 1100, len(data) // 60):
        code, _, answer = desk.verify(desk.file("flipped", flip(data, at)))
        assert code in (2, 3), (at, answer["error"])


def test_sources_that_are_no_evidence(desk: Desk) -> None:
    fifo = desk.folder / "fifo"
    os.mkfifo(fifo)
    huge = desk.folder / "huge"
    with huge.open("wb") as stream:
        stream.truncate(100_000_000)
    wanted = {
        desk.folder / "absent": (1, "unreadable"),
        desk.folder: (1, "unreadable"),
        desk.file("empty", b""): (1, "empty_file"),
        fifo: (1, "empty_file"),
        huge: (1, "too_large"),
        desk.file("words", b"hello world"): (2, "unrecognised_source"),
        desk.file("json", b"{}"): (2, "unrecognised_source"),
        desk.file("zeros", bytes(5000)): (2, "unrecognised_source"),
        desk.file("half.pem", b"-----BEGIN CERTIFICATE-----\nAAAA"): (2, "truncated"),
        desk.file("bad.pem", b"-----BEGIN CERTIFICATE-----\n@\n-----END CERTIFICATE-----\n"): (2, "bad_base64"),
        desk.file("key.pem", encode_pem("PRIVATE KEY", b"0000")): (2, "unrecognised_source"),
    }
    assert {path: desk.verify(path)[:2] for path in wanted} == wanted


def test_endorsements_in_every_form_and_spoilt(desk: Desk) -> None:
    pieces = desk.folder / "pieces"
    pieces.mkdir()
    bag = desk.vendor.collateral(at=AT)
    documents = [("tcbInfo", "tcb_info"), ("enclaveIdentity", "qe_identity")]
    for member, key in documents:
        body = f'{{"{member}":{desk.record[key]},"signature":"{desk.record[key + "_signature"]}"}}'
        (pieces / f"{key}.txt").write_text(body)
    (pieces / "chain").write_text(desk.record["pck_crl_issuer_chain"] + desk.record["tcb_info_issuer_chain"])
    (pieces / "one").write_bytes(bag.crls[0])
    (pieces / "two").write_bytes(encode_pem("X509 CRL", bag.crls[1]))
    (pieces / "notes.md").write_text("nothing to do with it")
    assert desk.verify(endorsements=pieces)[:2] == (4, "")
    (pieces / "two").unlink()
    assert desk.verify(endorsements=pieces)[:2] == (3, "endorsement_unavailable")
    empty = desk.folder / "empty"
    empty.mkdir()
    twice = desk.collateral.read_bytes()[:-1] + b',"pck_crl":"00"}'
    for bad in (empty, desk.folder / "absent", desk.file("cut", desk.collateral.read_bytes()[:-9]),
                desk.file("twice", twice), desk.file("list", b"[1]"), desk.file("deep", b"[" * 90000),
                desk.file("latin", b'{"a":"\xff"}')):  # fmt: skip
        assert desk.verify(endorsements=bad)[0] == 1, bad


def test_nothing_at_all_to_go_by_is_unavailable(desk: Desk) -> None:
    text = f'[trust]\nendorsements = ["stapled"]\n[policy]\nmrenclave = "{MRENCLAVE.hex()}"\n'
    policy = desk.file("p.toml", text.encode())
    code, error, answer = desk.verify(endorsements=None, demand=("--policy", str(policy)))
    assert (code, error) == (3, "endorsement_unavailable")
    assert "--endorsements" in answer["error"]["hint"]


def test_a_policy_decides_and_a_broken_one_is_a_usage_error(desk: Desk) -> None:
    def judge(text: str | bytes) -> tuple[int, str]:
        body = text if isinstance(text, bytes) else text.encode()
        return desk.verify(demand=("--policy", str(desk.file("p.toml", body))))[:2]

    own = f'mrenclave = "{MRENCLAVE.hex()}"'
    assert judge(f"[policy]\n{own}") == (0, "")
    assert judge(f'[policy]\nmrenclave = "{bytes(32).hex()}"') == (2, "measurement_mismatch")
    for bad in ("", "[policy]", "[policy]\ntee = 'sgx'", "[policy]\nmrenclave = ''", "[policy]\nmrenclave = 'ab'",
                f"[policy]\n{own}\nmrenclav = 1", f"[policy]\n{own}\n{own}", f"[policies]\n{own}", "[policy",
                f"[trust]\nsimulated = 'yes'\n[policy]\n{own}", f"[trust]\nanchors = []\n[policy]\n{own}",
                f"[policy]\n{own}\ntcb_statuses = ['Revoked']", f"[policy]\n{own}\ntcb_statuses = []",
                b"[policy]\n# \xff\n" + own.encode()):  # fmt: skip
        assert judge(bad)[0] == 1, bad


def test_anchors(desk: Desk) -> None:
    stranger = desk.file("other.pem", Vendor(seed=b"o" * 32).root_pem.encode())
    assert desk.verify(anchor=None)[:2] == (2, "untrusted_root")
    assert desk.verify(anchor=stranger)[:2] == (2, "untrusted_root")
    for bad in (desk.folder, desk.folder / "absent", desk.file("empty.pem", b""), desk.file("words.pem", b"root"),
                desk.file("key.pem", encode_pem("PUBLIC KEY", SPKI)), desk.quote):  # fmt: skip
        assert desk.verify(anchor=bad)[0] == 1, bad


def test_the_simulated_vendors_root_is_no_anchor_by_another_file_name(desk: Desk, tmp_path: Path) -> None:
    vendor = Vendor()
    quote = desk.file("sim.bin", vendor.quote_sgx(bytes(64), MRENCLAVE))
    root = desk.file("innocent.pem", vendor.root_pem.encode())
    collateral = desk.file("sim.json", json.dumps(vendor.collateral_json(at=AT)).encode())
    code, error, answer = desk.verify(quote, anchor=root, endorsements=collateral)
    assert (code, error, answer["simulated"]) == (2, "simulated_evidence", True)
    code, error, answer = desk.verify(quote, anchor=root, endorsements=collateral, more=("--danger-accept-simulated",))
    assert (code, answer["simulated"]) == (4, True)


@pytest.mark.parametrize(
    ("at", "end", "code"),
    [
        ("2026-06-01T14:00:00+02:00", 4, ""), ("2026-06-01t12:00:00.5z", 4, ""),
        ("2027-06-01T12:00:00Z", 2, "endorsement_stale"), ("2019-06-01T12:00:00Z", 2, "certificate_expired"),
        ("2026-06-01", 1, "usage"), ("2026-06-01T12:00:00", 1, "usage"), ("now", 1, "usage"), ("", 1, "usage"),
        ("2026-02-30T12:00:00Z", 1, "usage"), ("0001-01-01T00:00:00+23:59", 1, "usage"),
    ],
)  # fmt: skip
def test_at(desk: Desk, at: str, end: int, code: str) -> None:
    assert desk.verify(at=at)[:2] == (end, code)


def test_the_page_for_a_person_says_verdict_reason_and_next_step(desk: Desk) -> None:
    for source, head in ((desk.quote, "PARTIAL"), (desk.file("bad", flip(desk.quote.read_bytes(), 100)), "REFUSED")):
        ended = run("verify", str(source), "--genuine-only", "--anchor", str(desk.root), "--endorsements",
                    str(desk.collateral), "--at", "2026-06-01T12:00:00Z")  # fmt: skip
        assert ended.out.startswith(head)
        assert "\nnext  " in ended.out
        assert ended.err == ""
