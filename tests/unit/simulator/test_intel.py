"""The miniature Intel speaks the real grammar: read here by `cryptography`, our readers and dcap-qvl."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import dcap_qvl
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.x509.oid import ExtensionOID, NameOID

from attestable_mcp.errors import UnsupportedEvidence
from attestable_mcp.rats import Tee
from attestable_mcp.simulator import options as o
from attestable_mcp.simulator.intel import PcsAnswer, Vendor, well_known
from attestable_mcp.verify.anchors import SIMULATED_ROOT, TrustAnchors
from attestable_mcp.wire.collateral import read_collateral_json, read_qe_identity, read_tcb_info
from attestable_mcp.wire.intel import read_quote
from attestable_mcp.wire.pck import read_pck_extension

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
DATA = bytes(range(64))
MRENCLAVE = bytes(range(32, 64))


def judge(vendor: Vendor, quote: bytes, tee: Tee, collateral: o.Collateral | None = None) -> dcap_qvl.VerifiedReport:
    record = vendor.collateral_json(at=AT, tee=tee, options=collateral or o.Collateral())
    return dcap_qvl.verify_with_root_ca(
        quote, dcap_qvl.QuoteCollateralV3.from_json(json.dumps(record)), vendor.root_der, int(AT.timestamp())
    )


def certificates(pem: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem.encode())


def common_name(name: x509.Name) -> str:
    return str(name.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)


def test_root_key_is_the_hash_of_a_published_sentence() -> None:
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    digest = hashlib.sha256(b"attestable-mcp simulated root, trusted by nobody").digest()
    scalar = int.from_bytes(digest, "big") % (order - 1) + 1
    key = ec.derive_private_key(scalar, ec.SECP256R1()).public_key()
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert Vendor().root_spki_sha256 == hashlib.sha256(spki).hexdigest()
    assert x509.load_der_x509_certificate(Vendor().root_der).public_key() == key


def test_the_verifier_knows_this_root_as_simulated() -> None:
    assert SIMULATED_ROOT.spki_sha256 == Vendor().root_spki_sha256
    assert SIMULATED_ROOT.simulated
    assert SIMULATED_ROOT not in TrustAnchors().intel


def test_every_root_says_simulated() -> None:
    for vendor in (Vendor(), Vendor(seed=b"other"), Vendor.unknown()):
        assert "SIMULATED" in common_name(x509.load_der_x509_certificate(vendor.root_der).subject)


def test_unknown_vendors_share_no_key_with_the_well_known_one_or_each_other() -> None:
    vendors = (Vendor(), Vendor(seed=b"other"), Vendor.unknown(), Vendor.unknown())
    keys = [
        certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        for vendor in vendors
        for certificate in certificates(vendor.pck_chain_pem)
    ]
    assert len(set(keys)) == len(keys) == 12
    assert [vendor.well_known for vendor in vendors] == [True, False, False, False]


def test_a_vendor_made_again_in_another_process_has_the_same_keys() -> None:
    program = "from attestable_mcp.simulator.intel import Vendor; print(Vendor().quote_sgx(bytes(64), bytes(32)).hex())"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    theirs, ours = read_quote(bytes.fromhex(done.stdout)), read_quote(Vendor().quote_sgx(bytes(64), bytes(32)))
    assert theirs.attestation_key == ours.attestation_key
    keys = [
        [x509.load_der_x509_certificate(der).public_key() for der in quote.certificates] for quote in (theirs, ours)
    ]
    assert keys[0] == keys[1]
    assert len(keys[0]) == 3


def test_well_known_is_made_once() -> None:
    assert well_known() is well_known()


@pytest.mark.parametrize("pck_ca", ["platform", "processor"])
def test_chain_has_intels_names_links_and_usages(pck_ca: str) -> None:
    vendor = Vendor(platform=o.Platform(pck_ca=pck_ca))
    leaf, ca, root = certificates(vendor.pck_chain_pem)
    leaf.verify_directly_issued_by(ca)
    ca.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)
    assert common_name(leaf.subject) == "Intel SGX PCK Certificate"
    assert common_name(ca.subject) == f"Intel SGX PCK {pck_ca.capitalize()} CA"
    for certificate, is_ca, length in ((leaf, False, None), (ca, True, 0), (root, True, 1)):
        constraints = certificate.extensions.get_extension_for_oid(ExtensionOID.BASIC_CONSTRAINTS)
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        assert constraints.critical
        assert usage.critical
        assert constraints.value == x509.BasicConstraints(ca=is_ca, path_length=length)
        assert usage.value.key_cert_sign is usage.value.crl_sign is is_ca
        assert usage.value.digital_signature is not is_ca


def sgx_extension(vendor: Vendor) -> bytes:
    leaf = certificates(vendor.pck_chain_pem)[0]
    value = leaf.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.2.840.113741.1.13.1")).value
    assert isinstance(value, x509.UnrecognizedExtension)
    return value.value


def test_pck_extension_says_what_the_platform_is() -> None:
    platform = o.Platform(components=tuple(range(240, 256)), pcesvn=0x1234, pceid=b"\x12\x34", smt_enabled=False)
    read = read_pck_extension(sgx_extension(Vendor(platform=platform)))
    assert (read.ppid, read.fmspc, read.pce_id) == (platform.ppid, platform.fmspc, b"\x12\x34")
    assert (read.components, read.cpusvn) == (bytes(range(240, 256)), bytes(range(240, 256)))
    assert (read.pcesvn, read.sgx_type, read.platform_instance_id) == (0x1234, 1, platform.platform_instance_id)
    assert (read.dynamic_platform, read.cached_keys, read.smt_enabled) == (True, True, False)
    theirs = dcap_qvl.parse_pck_extension_from_pem(Vendor(platform=platform).pck_chain_pem.encode())
    assert (theirs.ppid, theirs.fmspc, theirs.pce_id) == (read.ppid, read.fmspc, read.pce_id)
    assert (theirs.cpu_svn, theirs.pce_svn, theirs.sgx_type) == (read.cpusvn, read.pcesvn, read.sgx_type)


def test_processor_platform_has_no_instance_id_or_configuration() -> None:
    read = read_pck_extension(sgx_extension(Vendor(platform=o.Platform(pck_ca="processor"))))
    assert (read.platform_instance_id, read.smt_enabled) == (None, None)


def test_sgx_quote_holds_what_it_was_given_and_its_signatures_hold() -> None:
    body = o.SgxBody(mrsigner=b"s" * 32, isvprodid=7, isvsvn=9, configid=b"c" * 64, isvfamilyid=b"f" * 16)
    raw = Vendor().quote_sgx(DATA, MRENCLAVE, body=body)
    quote = read_quote(raw)
    assert (quote.version, quote.tee, quote.trailing, quote.certification_data_type) == (3, Tee.SGX, 0, 5)
    assert raw[112:144] == MRENCLAVE
    assert raw[176:208] == b"s" * 32
    assert raw[368:432] == DATA
    assert (raw[304:306], raw[306:308]) == (b"\x07\x00", b"\x09\x00")
    assert signature_holds(quote.attestation_key, quote.signature, raw[:432])
    pck = x509.load_der_x509_certificate(quote.certificates[0]).public_key()
    assert isinstance(pck, ec.EllipticCurvePublicKey)
    point = pck.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)[1:]
    assert signature_holds(point, quote.qe_report_signature, quote.qe_report.raw)
    committed = hashlib.sha256(quote.attestation_key + quote.qe_auth_data).digest()
    assert quote.qe_report.report_data == committed + bytes(32)


def signature_holds(point: bytes, signature: bytes, message: bytes) -> bool:
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + point)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(hashes.SHA256()))
    except Exception:
        return False
    return True


@pytest.mark.parametrize(("version", "td15", "size"), [(4, False, 584), (5, False, 590), (5, True, 654)])
def test_tdx_quotes_have_their_layout(version: int, td15: bool, size: int) -> None:
    body = o.TdxBody(td15=td15, rtmr=(b"a" * 48, b"b" * 48, b"c" * 48, b"d" * 48), mrservicetd=b"e" * 48)
    raw = Vendor().quote_tdx(DATA, body=body, options=o.Quote(version=version))
    quote = read_quote(raw)
    assert (quote.version, quote.tee, len(quote.signed)) == (version, Tee.TDX, 48 + size)
    report = dcap_qvl.parse_quote(raw).report
    assert (report.mr_td, report.rt_mr0, report.rt_mr3) == (body.mrtd, b"a" * 48, b"d" * 48)
    assert report.report_data == DATA
    assert getattr(report, "mr_service_td", None) == (b"e" * 48 if td15 else None)


def test_good_pairs_satisfy_dcap_qvl() -> None:
    vendor = Vendor.unknown()
    assert judge(vendor, vendor.quote_sgx(DATA, MRENCLAVE), Tee.SGX).status == "UpToDate"
    for version in (4, 5):
        assert judge(vendor, vendor.quote_tdx(DATA, options=o.Quote(version=version)), Tee.TDX).status == "UpToDate"
    td15 = vendor.quote_tdx(DATA, body=o.TdxBody(td15=True), options=o.Quote(version=5))
    assert judge(vendor, td15, Tee.TDX).status == "UpToDate"


@pytest.mark.parametrize("status", list(o.TcbStatus))
def test_platform_statuses_reach_dcap_qvl(status: o.TcbStatus) -> None:
    vendor = Vendor()
    tcb = o.TcbInfo(status=status, advisories=("INTEL-SA-00615",))
    quote = vendor.quote_sgx(DATA, MRENCLAVE)
    if status is o.TcbStatus.REVOKED:
        with pytest.raises(ValueError, match="Revoked"):
            judge(vendor, quote, Tee.SGX, o.Collateral(tcb_info=tcb))
    else:
        seen = judge(vendor, quote, Tee.SGX, o.Collateral(tcb_info=tcb))
        assert (seen.status, seen.advisory_ids) == (status.value, ["INTEL-SA-00615"])


FAULTY_QUOTES = {
    "isv signature": o.Quote(bad_isv_signature=True),
    "qe signature": o.Quote(bad_qe_signature=True),
    "qe signed by a stranger": o.Quote(qe=o.QuotingEnclave(signed_by_stranger=True)),
    "attestation key hash": o.Quote(qe=o.QuotingEnclave(report_data=bytes(64))),
    "qe mrsigner": o.Quote(qe=o.QuotingEnclave(mrsigner=bytes(32))),
    "qe prodid": o.Quote(qe=o.QuotingEnclave(isvprodid=9)),
    "qe attributes": o.Quote(qe=o.QuotingEnclave(attributes=bytes.fromhex("1700000000000000e700000000000000"))),
    "qe miscselect": o.Quote(qe=o.QuotingEnclave(miscselect=b"\1\0\0\0")),
    "qe vendor": o.Quote(qe_vendor_id=bytes(16)),
    "chain without leaf": o.Quote(chain_order=("ca", "root")),
}


@pytest.mark.parametrize("fault", FAULTY_QUOTES)
def test_each_quote_fault_is_one(fault: str) -> None:
    """Each knob by itself turns a good quote into one that dcap-qvl refuses."""
    vendor = Vendor()
    with pytest.raises(ValueError, match="erification failed"):
        judge(vendor, vendor.quote_sgx(DATA, MRENCLAVE, options=FAULTY_QUOTES[fault]), Tee.SGX)


def test_conjugate_signatures_are_other_bytes_and_as_valid() -> None:
    vendor = Vendor()
    plain = vendor.quote_sgx(DATA, MRENCLAVE)
    other = vendor.quote_sgx(DATA, MRENCLAVE, options=o.Quote(conjugate_signatures=True))
    assert plain != other
    assert plain[:432] == other[:432]
    assert judge(vendor, other, Tee.SGX).status == "UpToDate"


def test_documents_are_dated_by_the_argument() -> None:
    for span, days in ((o.CURRENT, -1), (o.EXPIRED, -40), (o.FUTURE, 2)):
        collateral = o.Collateral(tcb_info=o.TcbInfo(span=span), crls=o.Crls(root=span))
        record = Vendor().collateral_json(at=AT, options=collateral)
        wanted = AT + timedelta(days=days)
        assert json.loads(record["tcb_info"])["issueDate"] == wanted.strftime("%Y-%m-%dT%H:%M:%SZ")
        crl = x509.load_der_x509_crl(bytes.fromhex(record["root_ca_crl"]))
        assert crl.last_update_utc == wanted
    with pytest.raises(ValueError, match="timezone"):
        Vendor().collateral(at=datetime(2026, 6, 1))  # noqa: DTZ001


def test_crls_revoke_whom_they_are_told_to() -> None:
    vendor = Vendor()
    leaf, ca, root = certificates(vendor.pck_chain_pem)
    crls = o.Crls(revoke_pck=True, revoke_pck_ca=True, revoke_tcb_signing=True)
    record = vendor.collateral_json(at=AT, options=o.Collateral(crls=crls))
    root_crl, pck_crl = (x509.load_der_x509_crl(bytes.fromhex(record[name])) for name in ("root_ca_crl", "pck_crl"))
    signer = certificates(record["tcb_info_issuer_chain"])[0]
    assert root_crl.is_signature_valid(root.public_key())  # type: ignore[arg-type]
    assert pck_crl.is_signature_valid(ca.public_key())  # type: ignore[arg-type]
    assert pck_crl.get_revoked_certificate_by_serial_number(leaf.serial_number)
    for certificate in (ca, signer):
        assert root_crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
    clean = vendor.collateral_json(at=AT)
    for name in ("root_ca_crl", "pck_crl"):
        crl = x509.load_der_x509_crl(bytes.fromhex(clean[name]))
        assert len(list(crl)) == 2
        for certificate in (leaf, ca, signer):
            assert crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is None


@pytest.mark.parametrize("signer", list(o.Signer))
def test_each_signer_signs_and_only_the_stranger_forges(signer: o.Signer) -> None:
    record = Vendor().collateral_json(at=AT, options=o.Collateral(tcb_info=o.TcbInfo(signer=signer)))
    key = certificates(record["tcb_info_issuer_chain"])[0].public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    point = key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)[1:]
    signature = bytes.fromhex(record["tcb_info_signature"])
    assert signature_holds(point, signature, record["tcb_info"].encode()) is (signer is not o.Signer.STRANGER)


def test_the_two_forms_of_collateral_hold_the_same() -> None:
    options = o.Collateral(with_pck_chain=True)
    bag, record = Vendor().collateral(at=AT, options=options), Vendor().collateral_json(at=AT, options=options)
    assert [crl.hex() for crl in bag.crls] == [record["root_ca_crl"], record["pck_crl"]]
    assert [document.body.decode() for document in bag.documents] == [record["tcb_info"], record["qe_identity"]]
    assert len(bag.certificates) == 3


@pytest.mark.parametrize("tee", [Tee.SGX, Tee.TDX])
@pytest.mark.parametrize("with_pck_chain", [False, True])
def test_our_reader_makes_the_same_of_the_record(tee: Tee, with_pck_chain: bool) -> None:
    options = o.Collateral(with_pck_chain=with_pck_chain)
    bag = Vendor().collateral(at=AT, tee=tee, options=options)
    read = read_collateral_json(json.dumps(Vendor().collateral_json(at=AT, tee=tee, options=options)).encode())
    assert (read.crls, read.documents) == (bag.crls, bag.documents)
    assert set(read.certificates) == set(bag.certificates)
    tcb, identity = (document.body for document in bag.documents)
    assert (read_tcb_info(tcb).tee, read_tcb_info(tcb).fmspc) == (tee, Vendor().platform.fmspc)
    assert read_qe_identity(identity).id == {Tee.SGX: "QE", Tee.TDX: "TD_QE"}[tee]


def test_what_is_left_out_is_absent() -> None:
    options = o.Collateral(
        with_tcb_info=False, with_qe_identity=False, crls=o.Crls(with_root=False, with_pck=False)
    )  # fmt: skip
    bag, record = Vendor().collateral(at=AT, options=options), Vendor().collateral_json(at=AT, options=options)
    assert (bag.crls, bag.documents, set(record)) == ((), (), {"pck_crl_issuer_chain"})
    answers = Vendor().pcs_answers(at=AT, options=options)
    for target in (
        "/IntelSGXRootCA.der",
        "/sgx/certification/v4/pckcrl?ca=platform",
        "/sgx/certification/v4/qe/identity",
    ):
        assert answers.get(target) is None


def test_tdx_collateral_differs_from_sgx() -> None:
    sgx, tdx = (json.loads(Vendor().collateral_json(at=AT, tee=tee)["tcb_info"]) for tee in (Tee.SGX, Tee.TDX))
    assert (sgx["id"], tdx["id"]) == ("SGX", "TDX")
    assert "tdxModule" in tdx
    assert "tdxModule" not in sgx
    assert len(tdx["tcbLevels"][0]["tcb"]["tdxtcbcomponents"]) == 16
    assert "tdxtcbcomponents" not in sgx["tcbLevels"][0]["tcb"]


@pytest.mark.parametrize("count", [15, 17])
def test_component_counts_can_be_wrong(count: int) -> None:
    tcb = o.TcbInfo(component_count=count, tdx_component_count=count)
    record = Vendor().collateral_json(at=AT, tee=Tee.TDX, options=o.Collateral(tcb_info=tcb))
    for level in json.loads(record["tcb_info"])["tcbLevels"]:
        assert len(level["tcb"]["sgxtcbcomponents"]) == len(level["tcb"]["tdxtcbcomponents"]) == count


def found(target: str) -> PcsAnswer:
    answer = Vendor().pcs_answers(at=AT).get(target)
    assert answer is not None, target
    return answer


def test_pcs_answers_stand_at_the_real_addresses() -> None:
    tcb = found("/tdx/certification/v4/tcb?fmspc=5150F0000000")
    assert json.loads(tcb.body)["tcbInfo"]["id"] == "TDX"
    assert "%20CERTIFICATE" in tcb.headers["TCB-Info-Issuer-Chain"]
    identity = found("/sgx/certification/v4/qe/identity")
    assert json.loads(identity.body)["enclaveIdentity"]["id"] == "QE"
    x509.load_der_x509_crl(found("/IntelSGXRootCA.der").body)
    x509.load_der_x509_crl(bytes.fromhex(found("/sgx/certification/v4/rootcacrl").body.decode()))
    x509.load_der_x509_crl(found("/sgx/certification/v4/pckcrl?ca=platform&encoding=der").body)
    x509.load_pem_x509_crl(found("/sgx/certification/v4/pckcrl?ca=platform").body)


@pytest.mark.parametrize(
    "target",
    [
        "/sgx/certification/v4/tcb?fmspc=000000000000",
        "/sgx/certification/v4/tcb",
        "/sgx/certification/v4/pckcrl?ca=processor&encoding=der",
        "/sgx/certification/v3/tcb?fmspc=5150f0000000",
        "/",
    ],
)
def test_pcs_has_nothing_for_others(target: str) -> None:
    assert Vendor().pcs_answers(at=AT).get(target) is None


def test_encrypted_ppid_certification_has_its_layout() -> None:
    vendor = Vendor()
    quote = read_quote(vendor.quote_sgx(DATA, MRENCLAVE, options=o.Quote(certification_type=3)))
    assert (quote.certification_data_type, quote.certificates) == (3, ())
    assert quote.certification_data[384:] == vendor.platform.cpusvn + b"\x0b\x00" + b"\x00\x00"


def test_plain_ppid_certification_is_of_a_kind_that_we_do_not_take() -> None:
    with pytest.raises(UnsupportedEvidence, match="seen 1"):
        read_quote(Vendor().quote_sgx(DATA, MRENCLAVE, options=o.Quote(certification_type=1)))


def test_report_data_and_mrenclave_lengths_are_demanded() -> None:
    with pytest.raises(ValueError, match="report data"):
        Vendor().quote_sgx(bytes(63), bytes(32))
    with pytest.raises(ValueError, match="MRENCLAVE"):
        Vendor().quote_sgx(bytes(64), bytes(31))
    with pytest.raises(ValueError, match="report data"):
        Vendor().quote_tdx(bytes(65))


def test_debug_knobs_set_the_bits() -> None:
    assert Vendor().quote_sgx(DATA, MRENCLAVE, body=o.SgxBody(debug=True))[96] & 2
    assert not Vendor().quote_sgx(DATA, MRENCLAVE)[96] & 2
    assert Vendor().quote_tdx(DATA, body=o.TdxBody(debug=True))[168] & 1
    assert not Vendor().quote_tdx(DATA)[168] & 1


def test_certificate_knobs_change_only_what_they_name() -> None:
    good = certificates(Vendor().pck_chain_pem)
    expired = o.Validity(not_after=datetime(2021, 1, 1, tzinfo=UTC))
    for position, knob in enumerate(("pck", "pck_ca", "root")):
        chain = certificates(Vendor(certificates=replace(o.Certificates(), **{knob: expired})).pck_chain_pem)
        assert [certificate.not_valid_after_utc.year for certificate in chain] == [
            2021 if number == position else 2049 for number in range(3)
        ]
        assert [certificate.public_key() for certificate in chain] == [item.public_key() for item in good]
