"""Stapled endorsements: the value of extension 2.23.133.5.4.2, with which a client verifies without a third party.

`60000([version, tcb_info, tcb_issuer_chain, crl_pck_cert, crl_pck_proc_ca, crl_issuer_chain, qe_id_info,
qe_id_issuer_chain, ?creation_datetime])`, byte strings after the version ("Interoperable RA-TLS: SGX and TDX evidence
formats"; the fields are those of Open Enclave's endorsements, so `crl_pck_proc_ca` is the root's CRL). Documents are
whole, as Intel's service hands them out. All of it is untrusted until `verify` has looked at it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from attestable_mcp.errors import EndorsementUnavailable, UnsupportedEvidence
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import DocumentKind, Endorsements, SignedDocument
from attestable_mcp.wire import cbor, der
from attestable_mcp.wire.der import fail
from attestable_mcp.wire.document import join_document, split_document
from attestable_mcp.wire.pem import CRL_LABELS, encode_pem, is_pem, pem_to_der, read_blocks
from attestable_mcp.wire.x509 import read_certificate, read_crl_head

TAG_ECDSA_COLLATERAL = 60000
_ENDORSEMENTS_VERSION = 1
_ENDORSEMENT_PARTS = (
    "tcb_info", "tcb_issuer_chain", "crl_pck_cert", "crl_pck_proc_ca", "crl_issuer_chain",
    "qe_id_info", "qe_id_issuer_chain", "creation_datetime",
)  # fmt: skip
"""The byte strings after the version, in order; the last may be absent."""
_HEX = re.compile(rb"(?:[0-9a-fA-F]{2})+")


def read_tagged_endorsements(data: bytes, *, base: int = 0) -> Endorsements:
    """Reads the value of extension 2.23.133.5.4.2: two signed documents, the PCK CRL, the root's CRL and their issuers.

    Texts may end with a NUL, and CRLs be DER, PEM or hex: the versions of Intel's collateral library hand out each.
    The CRLs' issuers may be left empty, as some caches do: quotes carry the same certificates. `creation_datetime`
    proves nothing and is not read.

    Raises:
        MalformedEvidence: Any deviation from the format, with its offset.
        UnsupportedEvidence: Another CBOR tag.
    """
    parts = _split_endorsements(data, base)
    issuers = parts["crl_issuer_chain"]
    tcb_info = _read_document(DocumentKind.INTEL_TCB_INFO, parts["tcb_info"], parts["tcb_issuer_chain"])
    qe_identity = _read_document(DocumentKind.INTEL_QE_IDENTITY, parts["qe_id_info"], parts["qe_id_issuer_chain"])
    return Endorsements(
        certificates=_read_chain(issuers) if issuers.body else (),
        crls=(_read_crl_part(parts["crl_pck_cert"]), _read_crl_part(parts["crl_pck_proc_ca"])),
        documents=(tcb_info, qe_identity),
        sources=("stapled",),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    name: str
    body: bytes
    offset: int


def _split_endorsements(data: bytes, base: int) -> dict[str, _Part]:  # noqa: RET503 - fail never returns
    tagged = cbor.decode(data, base=base, field="endorsements", most=LIMITS.endorsement)
    if not isinstance(tagged, cbor.Tagged):
        fail("endorsements: wanted a CBOR tag", "endorsements", base, "unexpected_type")
    if tagged.tag != TAG_ECDSA_COLLATERAL:
        raise UnsupportedEvidence(
            f"endorsements: wanted CBOR tag {TAG_ECDSA_COLLATERAL}, seen {tagged.tag}, at byte {base}",
            code="unsupported_evidence_tag",
        )
    match tagged.value:
        case [int() as version, *bodies] if not isinstance(version, bool) and len(bodies) in (7, 8):
            return _name_parts(bodies, base + len(data))
    fail("endorsements: wanted an array of a version and 7 or 8 byte strings", "endorsements", base, "unexpected_type")


def _name_parts(bodies: list[cbor.Value], end: int) -> dict[str, _Part]:
    """Names each byte string, from the last to the first, whose end is where the value ends."""
    parts: dict[str, _Part] = {}
    for name, body in reversed(list(zip(_ENDORSEMENT_PARTS, bodies, strict=False))):
        if not isinstance(body, bytes):
            fail("endorsements: wanted a byte string", name, end, "unexpected_type")
        parts[name] = _Part(name=name, body=body, offset=end - len(body))
        end -= len(cbor.encode(body))
    return parts


def _read_chain(part: _Part) -> tuple[bytes, ...]:
    return pem_to_der(part.body, base=part.offset, field=part.name)


def _read_document(kind: DocumentKind, document: _Part, chain: _Part) -> SignedDocument:
    body, signature = split_document(document.body.rstrip(b"\0"), kind, base=document.offset)
    return SignedDocument(kind=kind, body=body, signature=signature, issuer_chain=_read_chain(chain))


def _read_crl_part(part: _Part) -> bytes:
    return read_crl(part.body, base=part.offset, field=part.name)


def read_crl(data: bytes, *, base: int = 0, field: str = "crl") -> bytes:
    """The DER of one CRL that comes as DER, PEM or hex, each with a NUL after it or without.

    Raises:
        MalformedEvidence: None of these, or more than one.
    """
    if is_pem(data):
        blocks = read_blocks(data, base=base, field=field, most=1)
        if blocks[0].label not in CRL_LABELS:
            fail(f"PEM label: wanted X509 CRL, seen {blocks[0].label}", field, base, "unexpected_label")
        found = blocks[0].der
    else:
        found = _strip_nul(_from_hex(data), base, field)
    read_crl_head(found, base=base)
    return found


def _from_hex(data: bytes) -> bytes:
    text = data.removesuffix(b"\0")
    return bytes.fromhex(text.decode("ascii")) if _HEX.fullmatch(text) else data


def _strip_nul(data: bytes, base: int, field: str) -> bytes:
    # Open Enclave's and Intel's libraries hand out DER with the NUL that ends their strings.
    reader = der.Reader(data, base, field)
    found = reader.read(der.SEQUENCE).raw
    return found if data == found + b"\0" else data


def tagged_endorsements(endorsements: Endorsements) -> bytes:
    """The value of extension 2.23.133.5.4.2 for Intel collateral. Pieces that it has no place for are left out.

    The documents' issuer chains, and the certificates that issued the CRLs, go with them.

    Raises:
        EndorsementUnavailable: A piece that the format needs is not in the bag.
        MalformedEvidence: A CRL or a certificate in the bag is not one.
    """
    tcb_info = _only_document(endorsements, DocumentKind.INTEL_TCB_INFO)
    qe_identity = _only_document(endorsements, DocumentKind.INTEL_QE_IDENTITY)
    pck_crl, root_crl, issuers = _sort_crls(endorsements, tcb_info)
    parts: list[cbor.Value] = [
        _ENDORSEMENTS_VERSION,
        join_document(tcb_info.body, tcb_info.signature, DocumentKind.INTEL_TCB_INFO),
        _pem_chain(tcb_info.issuer_chain),
        pck_crl,
        root_crl,
        _pem_chain(issuers),
        join_document(qe_identity.body, qe_identity.signature, DocumentKind.INTEL_QE_IDENTITY),
        _pem_chain(qe_identity.issuer_chain),
    ]
    return cbor.encode(cbor.Tagged(TAG_ECDSA_COLLATERAL, parts))


def _only_document(endorsements: Endorsements, kind: DocumentKind) -> SignedDocument:
    for document in endorsements.documents:
        if document.kind == kind:
            return document
    raise _nothing_to_staple(f"a document {kind}")


def _sort_crls(endorsements: Endorsements, tcb_info: SignedDocument) -> tuple[bytes, bytes, tuple[bytes, ...]]:
    """The PCK CRL, the root's CRL, and what is there of the chain that issued them: PCK CA and root."""
    pool = dict.fromkeys(endorsements.certificates + tcb_info.issuer_chain)
    by_subject = {leaf.subject: leaf for leaf in map(read_certificate, pool)}
    roots = {leaf.subject for leaf in by_subject.values() if leaf.subject == leaf.issuer}
    issued = [(read_crl_head(crl).issuer, crl) for crl in endorsements.crls]
    of_root = [(issuer, crl) for issuer, crl in issued if issuer in roots]
    of_pck = [(issuer, crl) for issuer, crl in issued if issuer not in roots]
    if not of_root or not of_pck:
        raise _nothing_to_staple("the CRLs of the PCK CA and of the root, with the root's certificate")
    names = (of_pck[0][0], of_root[0][0])
    return of_pck[0][1], of_root[0][1], tuple(by_subject[name].der for name in names if name in by_subject)


def _nothing_to_staple(what: str) -> EndorsementUnavailable:
    return EndorsementUnavailable(
        f"endorsements to staple: wanted {what}, seen none",
        code="incomplete_endorsements",
        hint="Fetch the collateral of this platform anew before it is stapled.",
    )


def _pem_chain(chain: tuple[bytes, ...]) -> bytes:
    return b"".join(encode_pem("CERTIFICATE", certificate) for certificate in chain)
