"""A miniature Intel: PCK chains, collateral and quotes of the real formats, under a root that nobody trusts by default.

>>> from datetime import UTC, datetime
>>> vendor = Vendor()
>>> quote = vendor.quote_sgx(bytes(64), mrenclave=bytes(32))
>>> endorsements = vendor.collateral(at=datetime(2026, 1, 1, tzinfo=UTC))

The keys follow from the seed alone. The well-known seed stands in `keys`: whoever wants to can forge any quote under
that root, which is why a policy has to say `simulated = "accept"` before one passes.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from urllib.parse import parse_qsl, quote, urlsplit

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_crl

from attestable_mcp.rats import DocumentKind, Endorsements, Evidence, EvidenceKind, SignedDocument, Tee
from attestable_mcp.simulator import quote as quotes
from attestable_mcp.simulator.collateral import Issued, QeProfile, Signed, issue
from attestable_mcp.simulator.keys import WELL_KNOWN_SEED, private_key, spki_sha256
from attestable_mcp.simulator.options import Certificates, Collateral, Platform, Quote, SgxBody, TdxBody
from attestable_mcp.simulator.pki import Party, build

SOURCE = "simulated vendor (trusted by nobody)"
_GOOD_SGX, _GOOD_TDX, _GOOD_QUOTE, _GOOD_COLLATERAL = SgxBody(), TdxBody(), Quote(), Collateral()


def _profile(name: str, isvprodid: int) -> QeProfile:
    mrsigner = hashlib.sha256(b"attestable-mcp simulated quoting enclave signer").digest()
    return QeProfile(id=name, mrsigner=mrsigner, isvprodid=isvprodid, isvsvn=8)


QE_PROFILES: Mapping[Tee, QeProfile] = MappingProxyType({Tee.SGX: _profile("QE", 1), Tee.TDX: _profile("TD_QE", 2)})
"""The simulated quoting enclaves: Intel's product ids (1 for SGX, 2 for TDX), a signer of our own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PcsAnswer:
    """One answer of a Provisioning Certification Service: body and the headers that carry an issuer chain."""

    body: bytes
    content_type: str
    headers: Mapping[str, str]


class PcsAnswers:
    """What a PCS v4, or a PCCS, holds for one platform at one moment."""

    def __init__(self, platform: Platform, by_tee: Mapping[Tee, Issued]) -> None:
        self._platform = platform
        self._by_tee = dict(by_tee)

    def get(self, target: str) -> PcsAnswer | None:
        """The answer to a request target (`/sgx/certification/v4/tcb?fmspc=...`), or None where a PCS says 404."""
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query))
        match parts.path.strip("/").split("/"):
            case ["IntelSGXRootCA.der"]:
                return self._root_crl(hexadecimal=False)
            case ["sgx", "certification", "v4", "rootcacrl"]:
                return self._root_crl(hexadecimal=True)
            case ["sgx", "certification", "v4", "pckcrl"]:
                return self._pck_crl(query)
            case [("sgx" | "tdx") as tee, "certification", "v4", "tcb"]:
                return self._tcb_info(Tee(tee), query)
            case [("sgx" | "tdx") as tee, "certification", "v4", "qe", "identity"]:
                return _document(
                    self._by_tee[Tee(tee)].qe_identity, "enclaveIdentity", "SGX-Enclave-Identity-Issuer-Chain"
                )
            case _:
                return None

    def _tcb_info(self, tee: Tee, query: Mapping[str, str]) -> PcsAnswer | None:
        if query.get("fmspc", "").lower() != self._platform.fmspc.hex():
            return None
        return _document(self._by_tee[tee].tcb_info, "tcbInfo", "TCB-Info-Issuer-Chain")

    def _root_crl(self, *, hexadecimal: bool) -> PcsAnswer | None:
        crl = self._by_tee[Tee.SGX].root_crl
        if crl is None:
            return None
        body = crl.hex().encode() if hexadecimal else crl
        return PcsAnswer(body=body, content_type="application/pkix-crl", headers={})

    def _pck_crl(self, query: Mapping[str, str]) -> PcsAnswer | None:
        issued = self._by_tee[Tee.SGX]
        if issued.pck_crl is None or query.get("ca") != self._platform.pck_ca:
            return None
        headers = {"SGX-PCK-CRL-Issuer-Chain": quote(_pem(issued.pck_crl_chain))}
        if query.get("encoding") == "der":
            return PcsAnswer(body=issued.pck_crl, content_type="application/pkix-crl", headers=headers)
        pem = load_der_x509_crl(issued.pck_crl).public_bytes(Encoding.PEM)
        return PcsAnswer(body=pem, content_type="application/x-pem-file", headers=headers)


def _document(signed: Signed | None, key: str, header: str) -> PcsAnswer | None:
    if signed is None:
        return None
    body = f'{{"{key}":{signed.body},"signature":"{signed.signature.hex()}"}}'
    return PcsAnswer(body=body.encode(), content_type="application/json", headers={header: quote(signed.chain_pem)})


def _pem(parties: tuple[Party, ...]) -> str:
    return "".join(party.pem for party in parties)


class Vendor:
    """A TEE vendor with one platform. Safe to share between threads: nothing changes after construction but a memory.

    The default seed is the well-known one; another seed is another vendor, whose root no TrustAnchors name.
    """

    def __init__(
        self,
        *,
        seed: bytes = WELL_KNOWN_SEED,
        platform: Platform | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        self.platform = platform or Platform()
        self.well_known = seed == WELL_KNOWN_SEED
        self._pki = build(seed, self.platform, certificates or Certificates())
        self._signing = {
            tee: quotes.Signing(
                pki=self._pki, platform=self.platform, profile=profile,
                attestation_key=private_key(seed, f"attestation key {profile.id}"),
            )
            for tee, profile in QE_PROFILES.items()
        }  # fmt: skip
        self._issue = functools.lru_cache(maxsize=16)(self._issue_anew)

    @classmethod
    def unknown(cls, *, platform: Platform | None = None, certificates: Certificates | None = None) -> Vendor:
        """A vendor of a random seed: an unknown deployment root."""
        return cls(seed=os.urandom(32), platform=platform, certificates=certificates)

    @property
    def root_der(self) -> bytes:
        """The root certificate, DER."""
        return self._pki.root.der

    @property
    def root_pem(self) -> str:
        """The root certificate, PEM."""
        return self._pki.root.pem

    @property
    def root_spki_sha256(self) -> str:
        """What a TrustAnchor compares: SHA-256 of the root's SubjectPublicKeyInfo, lower-case hex."""
        return spki_sha256(self._pki.root.key)

    @property
    def pck_chain_pem(self) -> str:
        """PCK, PCK CA, root."""
        return _pem((self._pki.pck, self._pki.pck_ca, self._pki.root))

    def quote_sgx(
        self, report_data: bytes, mrenclave: bytes, *, body: SgxBody = _GOOD_SGX, options: Quote = _GOOD_QUOTE
    ) -> bytes:
        """An SGX quote over 64 bytes of report data and a 32-byte MRENCLAVE; version 3 unless `options` say otherwise.

        Raises:
            ValueError: A length is wrong.
        """
        _demand(report_data, 64, "report data")
        _demand(mrenclave, 32, "MRENCLAVE")
        report = quotes.sgx_body(report_data, mrenclave, self.platform.cpusvn, body)
        return quotes.assemble(
            self._signing[Tee.SGX], report, tee_type=quotes.SGX_TEE_TYPE, version=options.version or 3, body_type=1,
            options=options,
        )  # fmt: skip

    def quote_tdx(self, report_data: bytes, *, body: TdxBody = _GOOD_TDX, options: Quote = _GOOD_QUOTE) -> bytes:
        """A TDX quote over 64 bytes of report data; version 4 unless the options say otherwise.

        Raises:
            ValueError: A length is wrong.
        """
        _demand(report_data, 64, "report data")
        report = quotes.tdx_body(report_data, bytes(self.platform.tdx_components), body)
        return quotes.assemble(
            self._signing[Tee.TDX], report, tee_type=quotes.TDX_TEE_TYPE, version=options.version or 4,
            body_type=3 if body.td15 else 2, options=options,
        )  # fmt: skip

    def collateral(self, *, at: datetime, tee: Tee = Tee.SGX, options: Collateral = _GOOD_COLLATERAL) -> Endorsements:
        """Endorsements for this platform's quotes of kind `tee`, issued a day before `at` unless `options` differ.

        Raises:
            ValueError: `at` has no timezone.
        """
        issued = self._issue(at, tee, options)
        documents = (
            _signed_document(DocumentKind.INTEL_TCB_INFO, issued.tcb_info),
            _signed_document(DocumentKind.INTEL_QE_IDENTITY, issued.qe_identity),
        )
        return Endorsements(
            certificates=tuple(dict.fromkeys(party.der for party in issued.pck_crl_chain + issued.pck_chain)),
            crls=tuple(crl for crl in (issued.root_crl, issued.pck_crl) if crl is not None),
            documents=tuple(document for document in documents if document is not None),
            sources=(SOURCE,),
        )

    def collateral_json(
        self, *, at: datetime, tee: Tee = Tee.SGX, options: Collateral = _GOOD_COLLATERAL
    ) -> dict[str, str]:
        """The same as an Intel collateral v3 record: documents and PEM as served, CRLs and signatures in hex.

        A piece that the options leave out is an absent key.
        """
        issued = self._issue(at, tee, options)
        record = {"pck_crl_issuer_chain": _pem(issued.pck_crl_chain)}
        record |= {"root_ca_crl": issued.root_crl.hex()} if issued.root_crl is not None else {}
        record |= {"pck_crl": issued.pck_crl.hex()} if issued.pck_crl is not None else {}
        record |= _record("tcb_info", issued.tcb_info) | _record("qe_identity", issued.qe_identity)
        return record | ({"pck_certificate_chain": _pem(issued.pck_chain)} if issued.pck_chain else {})

    def pcs_answers(self, *, at: datetime, options: Collateral = _GOOD_COLLATERAL) -> PcsAnswers:
        """What a local double of the PCS answers, at the real addresses."""
        return PcsAnswers(self.platform, {tee: self._issue(at, tee, options) for tee in QE_PROFILES})

    def _issue_anew(self, at: datetime, tee: Tee, options: Collateral) -> Issued:
        if at.tzinfo is None:
            raise ValueError("times are timezone-aware")
        return issue(self._pki, self.platform, QE_PROFILES[tee], tee, options, at)


def _demand(value: bytes, length: int, what: str) -> None:
    if len(value) != length:
        raise ValueError(f"{what}: wanted {length} bytes, seen {len(value)}")


def _signed_document(kind: DocumentKind, signed: Signed | None) -> SignedDocument | None:
    if signed is None:
        return None
    chain = tuple(party.der for party in signed.chain)
    return SignedDocument(kind=kind, body=signed.body.encode(), signature=signed.signature, issuer_chain=chain)


def _record(name: str, signed: Signed | None) -> dict[str, str]:
    if signed is None:
        return {}
    return {f"{name}_issuer_chain": signed.chain_pem, name: signed.body, f"{name}_signature": signed.signature.hex()}


def evidence(quote_bytes: bytes) -> Evidence:
    """A quote as Evidence."""
    return Evidence(kind=EvidenceKind.INTEL_QUOTE, body=quote_bytes)


@functools.cache
def well_known() -> Vendor:
    """The well-known vendor with its default platform, made once in a process."""
    return Vendor()
