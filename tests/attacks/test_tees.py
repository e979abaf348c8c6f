"""Attacks E6, E9, E10, P1, P5, P8 and the Milan row of the hardware table, on evidence made here."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID, ObjectIdentifier

from attestable_mcp.errors import (
    ChainInvalid,
    EvidenceError,
    MalformedEvidence,
    Revoked,
    SignatureInvalid,
    VerificationError,
)
from attestable_mcp.rats import Endorsements, Evidence, EvidenceKind, Verified
from attestable_mcp.simulator import tpm as tpm_maker
from attestable_mcp.verify import snp, tpm
from attestable_mcp.verify.anchors import TrustAnchor, TrustAnchors
from attestable_mcp.verify.memory import Memory
from attestable_mcp.wire import der
from attestable_mcp.wire.eventlog import (
    SEPARATOR,
    VARIABLE_DRIVER_CONFIG,
    DstackEvent,
    dstack_boot_value,
    read_dstack_log,
)
from attestable_mcp.wire.tpm import TpmEvidence, read_evidence, write_evidence

AT = datetime(2026, 6, 1, tzinfo=UTC)
PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
GENOA = bytes((0x19, 0x11, 1))
TURIN = bytes((0x1A, 0x02, 1))
CHIP = bytes(range(64))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _spki(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True)
class Amd:
    """A made-up AMD: a root, an intermediate and one chip's key, signing with RSA-PSS as the real one does."""

    ark: rsa.RSAPrivateKey
    ask: rsa.RSAPrivateKey
    vek: ec.EllipticCurvePrivateKey

    @property
    def anchors(self) -> TrustAnchors:
        digest = hashlib.sha256(_spki(self.ark.public_key())).hexdigest()
        return TrustAnchors(amd=(TrustAnchor(name="made-up ARK", spki_sha256=digest, simulated=True),))

    def certificate(
        self, subject: str, key: object, issuer: str, signer: rsa.RSAPrivateKey, serial: int, ca: bool
    ) -> bytes:
        signed = self.builder(subject, key, issuer, serial, ca).sign(signer, hashes.SHA384(), rsa_padding=PSS)
        return signed.public_bytes(Encoding.DER)

    @staticmethod
    def builder(subject: str, key: object, issuer: str, serial: int, ca: bool) -> x509.CertificateBuilder:
        built = x509.CertificateBuilder().subject_name(_name(subject)).issuer_name(_name(issuer)).public_key(key)
        built = built.serial_number(serial).not_valid_before(AT - timedelta(days=30))
        built = built.not_valid_after(AT + timedelta(days=300))
        return built.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True) if ca else built

    def endorsements(
        self, *, levels: dict[str, int], product: str = "Genoa", hwid: bytes = CHIP, ask_is_ca: bool = True,
        revoked: int | None = None,
    ) -> Endorsements:  # fmt: skip
        vek = self.builder("SEV-VCEK", self.vek.public_key(), "ASK", 7, ca=False)
        values = {name: der.encode_integer(level) for name, level in levels.items()}
        values |= {"2": der.encode(0x16, product.encode()), "4": hwid}
        for name, value in values.items():
            oid = ObjectIdentifier("1.3.6.1.4.1.3704.1." + name)
            vek = vek.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
        leaf = vek.sign(self.ask, hashes.SHA384(), rsa_padding=PSS).public_bytes(Encoding.DER)
        ask = self.certificate("ASK", self.ask.public_key(), "ARK", self.ark, 0x20001, ask_is_ca)
        ark = self.certificate("ARK", self.ark.public_key(), "ARK", self.ark, 0x20000, True)
        crls = () if revoked is None else (self.crl(revoked),)
        return Endorsements(certificates=(leaf, ask, ark), crls=crls)

    def crl(
        self, revoked: int, signer: rsa.RSAPrivateKey | None = None, extension: x509.ExtensionType | None = None
    ) -> bytes:
        entry = x509.RevokedCertificateBuilder().serial_number(revoked).revocation_date(AT).build()
        built = x509.CertificateRevocationListBuilder().issuer_name(_name("ARK")).last_update(AT - timedelta(days=1))
        built = built.next_update(AT + timedelta(days=30)).add_revoked_certificate(entry)
        if extension is not None:
            built = built.add_extension(extension, critical=True)
        return built.sign(signer or self.ark, hashes.SHA384(), rsa_padding=PSS).public_bytes(Encoding.DER)

    def report(
        self, *, tcb: bytes, chip: bytes = CHIP, cpuid: bytes = GENOA, policy: int = 0x30000, flags: int = 0
    ) -> bytes:
        body = bytearray(0x2A0)
        body[0:4], body[8:16], body[0x34] = (3).to_bytes(4, "little"), policy.to_bytes(8, "little"), 1
        body[0x48:0x4C], body[0x180:0x188], body[0x188:0x18B] = flags.to_bytes(4, "little"), tcb, cpuid
        body[0x1A0:0x1E0] = chip
        r, s = decode_dss_signature(self.vek.sign(bytes(body), ec.ECDSA(hashes.SHA384())))
        return bytes(body) + r.to_bytes(72, "little") + s.to_bytes(72, "little") + bytes(368)

    def verify(self, report: bytes, endorsements: Endorsements) -> Verified:
        evidence = Evidence(kind=EvidenceKind.SNP_REPORT, body=report)
        return snp.verify(evidence, endorsements, anchors=self.anchors, at=AT, memory=Memory())


@pytest.fixture(scope="module")
def amd() -> Amd:
    return Amd(
        ark=rsa.generate_private_key(65537, 2048),
        ask=rsa.generate_private_key(65537, 2048),
        vek=ec.generate_private_key(ec.SECP384R1()),
    )


TCB = bytes((10, 0, 0, 0, 0, 0, 25, 84))
LEVELS = {"3.1": 10, "3.2": 0, "3.3": 25, "3.8": 84}


def test_e9_made_up_vendor_is_accepted_when_all_agrees(amd: Amd) -> None:
    verified = amd.verify(amd.report(tcb=TCB), amd.endorsements(levels=LEVELS))
    assert verified.simulated
    assert verified.claims.values["product"] == "Genoa"


def test_e9_reported_tcb_of_another_level_is_refused(amd: Amd) -> None:
    with pytest.raises(ChainInvalid, match=r"snp\.vek\.tcb"):
        amd.verify(amd.report(tcb=TCB), amd.endorsements(levels=LEVELS | {"3.3": 24}))


def test_e9_chip_id_of_another_chip_is_refused(amd: Amd) -> None:
    with pytest.raises(ChainInvalid, match=r"snp\.vek\.hwid"):
        amd.verify(amd.report(tcb=TCB, chip=bytes(63) + b"\1"), amd.endorsements(levels=LEVELS))


def test_e9_masked_chip_id_is_no_identity_and_a_mask_over_an_id_is_refused(amd: Amd) -> None:
    verified = amd.verify(amd.report(tcb=TCB, chip=bytes(64), flags=2), amd.endorsements(levels=LEVELS))
    assert any("masked" in line for line in verified.not_proven)
    with pytest.raises(ChainInvalid):
        amd.verify(amd.report(tcb=TCB, flags=2), amd.endorsements(levels=LEVELS))


def test_e9_vlek_flag_over_a_vcek_is_refused(amd: Amd) -> None:
    with pytest.raises(ChainInvalid, match=r"snp\.vek\.kind"):
        amd.verify(amd.report(tcb=TCB, flags=1 << 2), amd.endorsements(levels=LEVELS))


def test_e9_turin_layout_and_short_hardware_id(amd: Amd) -> None:
    report = amd.report(tcb=bytes((1, 2, 3, 4, 0, 0, 0, 9)), chip=CHIP[:8] + bytes(56), cpuid=TURIN)
    levels = {"3.9": 1, "3.1": 2, "3.2": 3, "3.3": 4, "3.8": 9}
    for hwid in (CHIP[:8], der.encode_octet_string(CHIP[:8])):
        verified = amd.verify(report, amd.endorsements(levels=levels, product="Turin", hwid=hwid))
        assert (verified.claims.values["product"], verified.claims.values["tcb_fmc"]) == ("Turin", 1)
    with pytest.raises(ChainInvalid, match=r"snp\.vek\.product"):
        amd.verify(report, amd.endorsements(levels=LEVELS, product="Genoa"))


def test_milan_is_named_so_that_policy_can_refuse_it(amd: Amd) -> None:
    report = amd.report(tcb=TCB, cpuid=bytes((0x19, 1, 1)))
    verified = amd.verify(report, amd.endorsements(levels=LEVELS, product="Milan-B0"))
    assert verified.claims.values["product"] == "Milan"


def test_p1_debug_bit_is_claimed(amd: Amd) -> None:
    assert amd.verify(amd.report(tcb=TCB, policy=0xB0000), amd.endorsements(levels=LEVELS)).claims.debug


def test_p5_revoked_intermediate_is_refused_and_an_unsigned_list_too(amd: Amd) -> None:
    report = amd.report(tcb=TCB)
    with pytest.raises(Revoked):
        amd.verify(report, amd.endorsements(levels=LEVELS, revoked=0x20001))
    clean = amd.verify(report, amd.endorsements(levels=LEVELS, revoked=0x99))
    assert not any("revocation" in line for line in clean.not_proven)
    forged = replace(amd.endorsements(levels=LEVELS), crls=(amd.crl(0x99, signer=amd.ask),))
    with pytest.raises(ChainInvalid):
        amd.verify(report, forged)


def test_p5_a_list_of_an_unknown_version_is_no_list(amd: Amd) -> None:
    """Whoever staples it brings no exception of another kind about, and clears nobody."""
    odd = amd.crl(0x99).replace(b"\x02\x01\x01", b"\x02\x01\x05", 1)
    result = amd.verify(amd.report(tcb=TCB), replace(amd.endorsements(levels=LEVELS), crls=(odd,)))
    assert any("revocation" in line for line in result.not_proven)


@pytest.mark.parametrize(
    "extension",
    [
        x509.DeltaCRLIndicator(1),
        x509.IssuingDistributionPoint(None, None, True, False, None, False, False),
        x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
    ],
    ids=["changes only", "user certificates only", "unknown"],
)
def test_p5_a_list_that_a_critical_extension_narrows_clears_nobody(amd: Amd, extension: x509.ExtensionType) -> None:
    narrowed = replace(amd.endorsements(levels=LEVELS), crls=(amd.crl(0x99, extension=extension),))
    with pytest.raises(ChainInvalid) as caught:
        amd.verify(amd.report(tcb=TCB), narrowed)
    assert caught.value.code == "crl_invalid"
    assert extension.oid.dotted_string in caught.value.message


def test_p5_intermediate_that_is_no_ca_is_refused(amd: Amd) -> None:
    with pytest.raises(ChainInvalid):
        amd.verify(amd.report(tcb=TCB), amd.endorsements(levels=LEVELS, ask_is_ca=False))


def test_e6_unsigned_reserved_bytes_are_refused(amd: Amd) -> None:
    report = bytearray(amd.report(tcb=TCB))
    refused = 0
    for place in (0x2A0 + 144, 0x2A0 + 300, 0x49F):
        changed = report.copy()
        changed[place] = 1
        with pytest.raises(MalformedEvidence):
            amd.verify(bytes(changed), amd.endorsements(levels=LEVELS))
        refused += 1
    assert refused == 3


def _quote(select: int, pcrs: dict[int, bytes]) -> bytes:
    digest = hashlib.sha256(b"".join(pcrs[number] for number in sorted(pcrs))).digest()
    head = bytes.fromhex("ff5443478018") + b"\0\0" + b"\0\2ok" + bytes(17) + bytes(8)
    return head + bytes.fromhex("00000001000b03") + select.to_bytes(3, "little") + b"\0\x20" + digest


@pytest.fixture(scope="module")
def sent() -> Callable[..., TpmEvidence]:
    key = ec.generate_private_key(ec.SECP256R1())

    def build(pcrs: dict[int, bytes], quote: bytes | None = None) -> TpmEvidence:
        body = quote or _quote(sum(1 << number for number in pcrs), pcrs)
        r, s = decode_dss_signature(key.sign(body, ec.ECDSA(hashes.SHA256())))
        signature = bytes.fromhex("0018000b") + b"".join(b"\0\x20" + part.to_bytes(32, "big") for part in (r, s))
        return TpmEvidence(quote=body, signature=signature, ak=_spki(key.public_key()), pcrs={"sha256": pcrs})

    return build


def _verify_tpm(sent: TpmEvidence) -> Verified:
    anchor = TrustAnchor(name="pinned", spki_sha256=hashlib.sha256(sent.ak).hexdigest())
    evidence = Evidence(kind=EvidenceKind.TPM_QUOTE, body=write_evidence(sent))
    return tpm.verify(evidence, Endorsements(), anchors=TrustAnchors(tpm=(anchor,)), at=AT, memory=Memory())


def test_e10_quote_by_a_pinned_key_is_accepted(sent: Callable[..., TpmEvidence]) -> None:
    verified = _verify_tpm(sent({7: b"\7" * 32, 16: b"\1" * 32}))
    assert verified.claims.values["pcr7"] == "07" * 32
    assert not any(name.startswith("pcr16") for name in verified.claims.values)
    assert verified.claims.report_data == b"ok"


def test_e10_unsigned_or_altered_quote_is_refused(sent: Callable[..., TpmEvidence]) -> None:
    good = sent({7: b"\7" * 32})
    with pytest.raises(SignatureInvalid):
        _verify_tpm(replace(good, quote=good.quote.replace(b"ok", b"no")))
    with pytest.raises(EvidenceError):
        _verify_tpm(replace(good, signature=b""))


def test_e10_resettable_pcrs_alone_prove_nothing(sent: Callable[..., TpmEvidence]) -> None:
    with pytest.raises(VerificationError) as error:
        _verify_tpm(sent({16: b"\1" * 32, 23: b"\2" * 32}))
    assert error.value.code == "no_pcr"


def test_e10_pcr_values_other_than_signed_are_refused(sent: Callable[..., TpmEvidence]) -> None:
    with pytest.raises(VerificationError) as error:
        _verify_tpm(replace(sent({7: b"\7" * 32}), pcrs={"sha256": {7: b"\x08" * 32}}))
    assert error.value.code == "pcr_mismatch"


def test_e10_structure_that_no_tpm_made_is_refused(sent: Callable[..., TpmEvidence]) -> None:
    pcrs = {7: b"\7" * 32}
    with pytest.raises(MalformedEvidence, match="magic"):
        _verify_tpm(sent(pcrs, b"\0" + _quote(1 << 7, pcrs)[1:]))


def test_p8_registers_that_the_quote_does_not_cover_explain_nothing() -> None:
    """A sender who has PCR 0 quoted and invents PCR 4 and 7 with a fitting log proves no boot at all."""
    variable = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c") + struct.pack("<QQ", 10, 1)
    events = (
        tpm_maker.Event(pcr=7, data=variable + "SecureBoot".encode("utf-16-le") + b"\1", kind=VARIABLE_DRIVER_CONFIG),
        *(tpm_maker.Event(pcr=number, data=bytes(4), kind=SEPARATOR) for number in (4, 7)),
    )
    invented = tpm_maker.TpmQuote(events=events)
    vendor = tpm_maker.well_known()

    def claimed(selected: tuple[int, ...]) -> set[str]:
        body = vendor.evidence(bytes(64), options=replace(invented, selected=selected))
        pcrs = {"sha256": {number: vendor.pcrs(invented)[number] for number in (0, 4, 7)}}
        verified = _verify_tpm(replace(read_evidence(body), pcrs=pcrs))
        return {"secure_boot", "boot_applications", "event_log_explains"} & set(verified.claims.values)

    assert claimed((0, 4, 7)) == {"secure_boot", "boot_applications", "event_log_explains"}
    assert claimed((0,)) == {"event_log_explains"}


def _dstack(*events: tuple[str, bytes], digest_of: bytes | None = None) -> bytes:
    made = [DstackEvent(name=name, payload=payload) for name, payload in events]
    entries = [
        {"imr": 3, "event_type": event.type, "event": event.name, "event_payload": event.payload.hex(),
         "digest": (digest_of or event.digest).hex()}
        for event in made
    ]  # fmt: skip
    return json.dumps(entries).encode()


def test_p8_payload_swapped_under_its_digest_is_refused() -> None:
    true = DstackEvent(name="compose-hash", payload=b"true")
    with pytest.raises(MalformedEvidence, match="digest"):
        read_dstack_log(_dstack(("compose-hash", b"false"), digest_of=true.digest))


def test_p8_events_after_the_boot_boundary_are_the_applications() -> None:
    events, registers = read_dstack_log(_dstack(("compose-hash", b"a"), ("system-ready", b""), ("compose-hash", b"b")))
    assert dstack_boot_value(events, "compose-hash") == b"a"
    assert set(registers) == {3}
    unbounded, _ = read_dstack_log(_dstack(("compose-hash", b"a")))
    with pytest.raises(MalformedEvidence, match="system-ready"):
        dstack_boot_value(unbounded, "compose-hash")
    twice, _ = read_dstack_log(_dstack(("compose-hash", b"a"), ("compose-hash", b"b"), ("system-ready", b"")))
    with pytest.raises(MalformedEvidence, match="twice"):
        dstack_boot_value(twice, "compose-hash")
