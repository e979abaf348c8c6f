"""dstack's versioned attestation: both forms, every platform, and what breaks them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from dstack_double import in_msgpack, in_scale, pack

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.errors import MalformedEvidence, UnreadEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import EvidenceKind, Verdict
from attestable_mcp.simulator import amd, aws
from attestable_mcp.simulator.intel import well_known
from attestable_mcp.simulator.options import TdxBody
from attestable_mcp.verifier import Verifier
from attestable_mcp.wire import der, msgpack, ratls, scale
from attestable_mcp.wire.dstack import OID_DSTACK_ATTESTATION, read_attestation
from attestable_mcp.wire.eventlog import DstackEvent
from attestable_mcp.wire.pem import encode_pem

AT = datetime(2026, 6, 1, tzinfo=UTC)
Make = Callable[..., bytes]
FORMS = {"scale": in_scale, "msgpack": in_msgpack}
COMPOSE = bytes(range(32))
BOOT = (
    DstackEvent(name="app-id", payload=b"\x0a" * 20),
    DstackEvent(name="compose-hash", payload=COMPOSE),
    DstackEvent(name="system-ready", payload=b""),
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("platform", "kind"),
    [
        ("tdx", EvidenceKind.INTEL_QUOTE),
        ("gcp-tdx", EvidenceKind.INTEL_QUOTE),
        ("nitro-enclave", EvidenceKind.NITRO_DOCUMENT),
        ("sev-snp", EvidenceKind.SNP_REPORT),
    ],
)
def test_each_platform_gives_its_own_kind_of_evidence(form: str, platform: str, kind: EvidenceKind) -> None:
    body = bytes(range(256)) * 20
    found = read_attestation(FORMS[form](platform, body, BOOT))
    assert (found.platform, found.evidence.kind, found.evidence.body) == (platform, kind, body)
    logged = [item["event"] for item in json.loads(found.event_log or b"[]")]
    assert logged == ([event.name for event in BOOT] if "tdx" in platform else [])


@pytest.mark.parametrize("form", FORMS)
def test_a_platform_without_a_verifier_here_is_named(form: str) -> None:
    with pytest.raises(UnreadEvidence, match="NitroTPM document") as caught:
        read_attestation(FORMS[form]("aws-nitro-tpm", b"document"))
    assert OID_DSTACK_ATTESTATION in caught.value.message
    assert "dstack's own verifier" in caught.value.hint


@pytest.mark.parametrize("form", FORMS)
def test_amds_certificates_are_found_in_any_of_their_forms(form: str) -> None:
    vendor = amd.well_known()
    pem = encode_pem("CERTIFICATE", vendor.ask.der)
    chain = (vendor.vcek.der, pem, vendor.certificate_table(), b"what is this")
    found = read_attestation(FORMS[form]("sev-snp", b"report", chain=chain))
    assert found.certificates[:2] == (vendor.vcek.der, vendor.ask.der)
    assert set(found.certificates) == {vendor.vcek.der, vendor.ask.der, vendor.ark.der}


def test_the_real_attestation_holds_the_real_report(vectors: Path) -> None:
    folder = vectors / "snp" / "dstack-milan-v3-with-scale-envelope"
    found = read_attestation((folder / "dstack_versioned_attestation.scale").read_bytes())
    assert (found.platform, found.evidence.body) == ("sev-snp", (folder / "report.bin").read_bytes())


@pytest.mark.parametrize("form", FORMS)
def test_no_byte_is_left_over_and_none_is_missing(form: str) -> None:
    whole = FORMS[form]("tdx", b"quote", BOOT)
    with pytest.raises(MalformedEvidence, match="after the value"):
        read_attestation(whole + b"\0")
    for end in range(1, len(whole)):
        with pytest.raises(MalformedEvidence):
            read_attestation(whole[:end])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "seen nothing"),
        (b"\x07", "seen 07"),
        (b"\0\x09", "seen platform 9"),
        (pack({"version": 2}), "wanted version 1, seen 2"),
        (pack({"version": 1, "platform": {"kind": "arm-cca", "data": {}}}), "seen platform 'arm-cca'"),
    ],
)
def test_forms_that_are_not_known_are_named(data: bytes, message: str) -> None:
    with pytest.raises(UnreadEvidence, match=message):
        read_attestation(data)


@pytest.mark.parametrize(
    "value",
    [
        {"version": 1, "platform": 7},
        {"version": 1, "platform": {"kind": "tdx", "data": {"quote": "text"}}},
        {"version": 1, "platform": {"kind": "tdx", "data": {"quote": [1, 300]}}},
        {"version": 1, "platform": {"kind": "tdx", "data": {"quote": [True]}}},
        {"version": 1, "platform": {"kind": "tdx", "data": {"quote": b"q", "event_log": {}}}},
        {"version": 1, "platform": {"kind": "tdx", "data": {"quote": b"q", "event_log": [{"event": b"x"}]}}},
        {"version": 1, "platform": {"kind": "tdx", "data": {"quote": b"q", "event_log": [{"event": "x", "imr": "3"}]}}},
    ],
)
def test_a_map_of_another_shape_is_refused(value: object) -> None:
    with pytest.raises(MalformedEvidence):
        read_attestation(pack(value))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x81\xa1a", "wanted 1 bytes"),
        (b"\x82\xa1a\x01\xa1a\x01", "each once"),
        (b"\x81\x01\x01", "text as keys"),
        (b"\x81\xa1a\xca\0\0\0\0", "type ca"),
        (b"\x81\xa1a\xc1", "type c1"),
        (b"\x81\xa1\xff\x01", "not UTF-8"),
        (b"\xdf\xff\xff\xff\xff", "more than there are bytes"),
        (b"\x81\xa1a" + b"\x91" * (LIMITS.cbor_depth + 2) + b"\xc0", "too deep"),
    ],
)
def test_messagepack_that_breaks_its_rules(data: bytes, message: str) -> None:
    with pytest.raises(MalformedEvidence, match=message):
        msgpack.decode(data, field="x")


def test_messagepack_values() -> None:
    assert msgpack.decode(b"\x97\xc0\xc2\xc3\xff\xd1\xff\x00\xcd\x01\x00\xa1x", field="x") == [
        None, False, True, -1, -256, 256, "x",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x01\x00", "shortest form"),
        (b"\x02\x00\x00\x00", "shortest form"),
        (b"\x03\x00\x00\x00\x01", "more than 30 bits"),
        (b"\x08a", "wanted 2 bytes, seen 1"),
        (b"\x04\xff", "not UTF-8"),
    ],
)
def test_scale_that_breaks_its_rules(data: bytes, message: str) -> None:
    with pytest.raises(MalformedEvidence, match=message):
        scale.Reader(data, field="x").text()
    with pytest.raises(MalformedEvidence, match="at most 4096 items"):
        scale.Reader((4097 << 2 | 1).to_bytes(2, "little"), field="x").items(scale.Reader.octets)


# --- in a certificate -------------------------------------------------------------------------------------------------


def extension(attestation: bytes) -> list[tuple[str, bytes]]:
    return [(OID_DSTACK_ATTESTATION, der.encode(der.OCTET_STRING, attestation))]


def rtmr3(events: tuple[DstackEvent, ...]) -> bytes:
    value = bytes(48)
    for event in events:
        value = hashlib.sha384(value + event.digest).digest()
    return value


@pytest.fixture
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def spki_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def bound(key: ec.EllipticCurvePrivateKey) -> bytes:
    """dstack's report data for this key."""
    return hashlib.sha512(b"ratls-cert:" + spki_of(key)).digest()


def judged(certificate: bytes) -> tuple[Verdict, dict[str, object], str]:
    policy = Policy.genuine_only(simulated="accept")
    source = _Collateral()
    result = Verifier(policy, sources=[source]).appraise_certificate(certificate, AT).result
    return result.verdict, dict(result.claims), result.error.code if result.error else ""


class _Collateral:
    name = "ours"

    def fetch(self, query: object, *, deadline_seconds: float) -> object:
        from attestable_mcp.rats import Tee

        return well_known().collateral(at=AT, tee=Tee.TDX)


@pytest.mark.parametrize("form", FORMS)
def test_a_certificate_of_dstack_on_tdx_is_proven_with_its_compose_hash(
    form: str, make_certificate: Make, key: ec.EllipticCurvePrivateKey
) -> None:
    registers = (bytes(48), bytes(48), bytes(48), rtmr3(BOOT))
    quote = well_known().quote_tdx(bound(key), body=TdxBody(rtmr=registers))
    certificate = make_certificate(extension(FORMS[form]("tdx", quote, BOOT)), spki=spki_of(key), key=key)
    (piece,) = ratls.read(certificate).evidence
    assert piece.source == "dstack"
    verdict, claims, error = judged(certificate)
    assert (verdict, error) == (Verdict.PARTIAL, "")
    assert claims["compose_hash"] == COMPOSE.hex()
    assert claims["event_log_explains"] == "all"


def test_events_of_version_2_replay_too(make_certificate: Make, key: ec.EllipticCurvePrivateKey) -> None:
    boot = tuple(DstackEvent(name=event.name, payload=event.payload, version=2) for event in BOOT)
    quote = well_known().quote_tdx(bound(key), body=TdxBody(rtmr=(bytes(48), bytes(48), bytes(48), rtmr3(boot))))
    certificate = make_certificate(extension(in_msgpack("tdx", quote, boot)), spki=spki_of(key), key=key)
    assert judged(certificate)[1]["compose_hash"] == COMPOSE.hex()


@pytest.mark.parametrize("form", FORMS)
def test_c1_an_attestation_for_another_key_is_refused(
    form: str, make_certificate: Make, key: ec.EllipticCurvePrivateKey
) -> None:
    quote = well_known().quote_tdx(bound(ec.generate_private_key(ec.SECP256R1())))
    certificate = make_certificate(extension(FORMS[form]("tdx", quote)), spki=spki_of(key), key=key)
    assert judged(certificate)[::2] == (Verdict.REFUSED, "channel_binding_mismatch")


def test_dstack_on_amd_brings_its_chain_and_nitro_its_document(
    make_certificate: Make, key: ec.EllipticCurvePrivateKey
) -> None:
    vendor = amd.well_known()
    report, chain = vendor.report(bound(key), bytes(48)), (vendor.vcek.der, vendor.ask.der, vendor.ark.der)
    certificate = make_certificate(extension(in_scale("sev-snp", report, chain=chain)), spki=spki_of(key), key=key)
    assert judged(certificate)[::2] == (Verdict.PARTIAL, "")
    document = aws.well_known().document(bound(key), at=AT)
    certificate = make_certificate(extension(in_msgpack("nitro-enclave", document)), spki=spki_of(key), key=key)
    assert judged(certificate)[::2] == (Verdict.PARTIAL, "")
