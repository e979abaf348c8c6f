"""Sources are recognised by content."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from attestable_mcp.errors import EvidenceError, MalformedEvidence, UnsupportedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import Evidence, EvidenceKind
from attestable_mcp.wire.hcl import AzureEvidence
from attestable_mcp.wire.hcl import write_evidence as write_azure
from attestable_mcp.wire.kinds import KINDS
from attestable_mcp.wire.pem import encode_pem
from attestable_mcp.wire.recognise import Certificate, recognise
from attestable_mcp.wire.tpm import TpmEvidence, write_evidence

Make = Callable[..., bytes]
# A quote carries PEM inside: it must not be taken for a PEM file.
BODY = bytes(600) + encode_pem("CERTIFICATE", b"\x30\x00") + b"\0"
QUOTES = [bytes((version, 0, 2, 0)) + BODY for version in (3, 4, 5)]
FORMS: list[Callable[[bytes], bytes]] = [
    bytes,
    lambda data: data.hex().encode(),
    lambda data: b"0x" + data.hex().upper().encode() + b"\n",
    base64.b64encode,
    base64.encodebytes,
    lambda data: base64.urlsafe_b64encode(data).rstrip(b"="),
    lambda data: base64.b64encode(data) + b"\0",
]


@pytest.mark.parametrize("form", range(len(FORMS)))
@pytest.mark.parametrize("quote", QUOTES, ids=["v3", "v4", "v5"])
def test_quotes_are_recognised_in_each_form(quote: bytes, form: int) -> None:
    assert recognise(FORMS[form](quote)) == Evidence(kind=EvidenceKind.INTEL_QUOTE, body=quote)


@pytest.mark.parametrize("form", range(len(FORMS)))
def test_certificates_are_recognised_in_each_form(form: int, make_certificate: Make) -> None:
    leaf = make_certificate([("1.2.3", b"-----BEGIN CERTIFICATE-----\n")])
    assert recognise(FORMS[form](leaf)) == Certificate(der=leaf)


def test_the_first_certificate_of_a_pem_file_counts(make_certificate: Make) -> None:
    leaf, issuer = make_certificate(), make_certificate(serial=b"\2\1\5")
    key = encode_pem("PRIVATE KEY", b"\x30\x00")
    text = b"subject=...\n" + key + encode_pem("TRUSTED CERTIFICATE", leaf) + b"\n" + encode_pem("CERTIFICATE", issuer)
    assert recognise(text) == Certificate(der=leaf, others=(issuer,))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"", "nothing at all"),
        (b" \n", "nothing at all"),
        (b"eyJhbGciOiJub25lIn0.e30.", "token"),
        (b'{"tcb_info": "-----BEGIN CERTIFICATE-----"}', "JSON"),
        (b"\x84\x44\xa1\x01\x26\x40", "COSE that is no Nitro"),
        (b"\xffTCG\x80\x18", "TPM"),
        (b"HCLA\x01", "HCL"),
        (b"\x02" + bytes(1183), "SEV-SNP"),
        (b"\x30\x82\x01\x00\x30\x03\x02\x01\x01", "CRL"),
        (b"\x00\x01\x02", "begin with 000102"),
        (b"just words", "begin with"),
        (encode_pem("PUBLIC KEY", b"\x30\x00"), "PUBLIC KEY"),
    ],
)  # fmt: skip
def test_other_things_are_named(data: bytes, name: str) -> None:
    with pytest.raises(UnsupportedEvidence, match=name) as caught:
        recognise(data)
    assert caught.value.code == "unrecognised_source"
    assert caught.value.hint


JWT = b"eyJhbGciOiJFUzI1NiJ9.e30.AA"


def _snp(version: int) -> bytes:
    return version.to_bytes(4, "little") + bytes(0x30) + b"\1\0\0\0" + bytes(0x4A0 - 0x38)


TPM = TpmEvidence(quote=b"q", signature=b"s", ak=b"k", pcrs={"sha256": {0: bytes(32)}}, ak_certificates=(b"c",))
OTHERS = [
    (_snp(2), EvidenceKind.SNP_REPORT),
    (_snp(5) + bytes(100), EvidenceKind.SNP_REPORT),
    (b"\x84\x44\xa1\x01\x38\x22\xa0\x40\x40", EvidenceKind.NITRO_DOCUMENT),
    (b"\xd2\x84\x44\xa1\x01\x38\x22\xa0\x40\x40", EvidenceKind.NITRO_DOCUMENT),
    (write_evidence(TPM), EvidenceKind.TPM_QUOTE),
    (write_azure(AzureEvidence(hcl=b"h", tpm=TPM)), EvidenceKind.AZURE_VTPM),
]


@pytest.mark.parametrize("form", range(len(FORMS)))
@pytest.mark.parametrize(("body", "kind"), OTHERS)
def test_every_other_kind_is_recognised_in_each_form(body: bytes, kind: EvidenceKind, form: int) -> None:
    assert recognise(FORMS[form](body)) == Evidence(kind=kind, body=body)
    text_already = {EvidenceKind.INTEL_QUOTE, EvidenceKind.TOKEN}
    assert {kind for _, kind in OTHERS} | text_already == set(EvidenceKind) == set(KINDS)


def test_a_token_is_recognised_as_it_stands() -> None:
    assert recognise(JWT + b"\n") == Evidence(kind=EvidenceKind.TOKEN, body=JWT + b"\n")


def test_sizes_have_limits() -> None:
    for data in (bytes(LIMITS.endorsement + 1), QUOTES[0] + bytes(LIMITS.evidence), QUOTES[0][:47]):
        with pytest.raises(MalformedEvidence):
            recognise(data)


def test_every_start_of_a_quote_is_a_quote_or_refused() -> None:
    for end in range(64):
        try:
            found = recognise(QUOTES[0][:end])
        except EvidenceError:
            assert end < 48
        else:
            assert isinstance(found, Evidence)


def test_a_damaged_quote_is_not_taken_for_the_pem_inside_it() -> None:
    with pytest.raises(UnsupportedEvidence) as caught:
        recognise(bytes((2, 0, 2, 0)) + BODY)
    assert caught.value.code == "unrecognised_source"
