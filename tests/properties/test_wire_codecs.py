"""decode after encode is identity, and encode after decode gives the bytes back."""

from __future__ import annotations

import json

import cbor2
from hypothesis import given, settings
from hypothesis import strategies as st

from attestable_mcp.errors import EvidenceError
from attestable_mcp.wire import cbor, der, ratls
from attestable_mcp.wire.cbor import Tagged
from attestable_mcp.wire.document import NAMES, join_document, split_document
from attestable_mcp.wire.pem import encode_pem, read_blocks

numbers = st.integers(-(2**64), 2**64 - 1)
keys = numbers | st.text(max_size=8) | st.binary(max_size=8)
scalars = numbers | st.text(max_size=20) | st.binary(max_size=40) | st.booleans() | st.none()
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(keys, inner, max_size=4)
        | st.builds(Tagged, st.integers(0, 2**64 - 1), inner)
    ),
    max_leaves=12,
)
fast = settings(max_examples=150)


@fast
@given(values)
def test_cbor_comes_back(value: cbor.Value) -> None:
    encoded = cbor.encode(value)
    assert cbor.decode(encoded) == value
    assert cbor.decode_prefix(encoded + b"\0") == (value, len(encoded))


@fast
@given(st.dictionaries(keys, scalars, max_size=6) | st.lists(scalars, max_size=6))
def test_cbor_is_what_cbor2_reads(value: cbor.Value) -> None:
    assert cbor2.loads(cbor.encode(value)) == value


@fast
@given(st.binary(max_size=24))
def test_cbor_that_is_read_is_valid_and_canonical_but_for_key_order(data: bytes) -> None:
    try:
        value = cbor.decode(data)
    except EvidenceError:
        return
    assert len(cbor.encode(value)) == len(data)
    assert sorted(cbor.encode(value)) == sorted(data)


@fast
@given(st.integers(-(2**200), 2**200))
def test_integers_come_back(value: int) -> None:
    assert der.read_integer(der.parse(der.encode_integer(value))) == value


@fast
@given(st.integers(0, 2), st.integers(0, 39), st.lists(st.integers(0, 2**128 - 1), max_size=8))
def test_oids_come_back(first: int, second: int, rest: list[int]) -> None:
    oid = ".".join(map(str, (first, second, *rest)))
    assert der.read_oid(der.parse(der.encode_oid(oid))) == oid


@fast
@given(st.binary(min_size=1, max_size=24))
def test_an_oid_that_is_read_is_written_the_same(body: bytes) -> None:
    encoded = der.encode(der.OID, body)
    try:
        oid = der.read_oid(der.parse(encoded))
    except EvidenceError:
        return
    assert der.encode_oid(oid) == encoded


@fast
@given(st.lists(st.binary(max_size=200), max_size=6))
def test_sequences_come_back(members: list[bytes]) -> None:
    reader = der.parse(der.encode_sequence(*map(der.encode_octet_string, members))).reader()
    found = []
    while not reader.empty:
        found.append(reader.read(der.OCTET_STRING).body)
    assert found == members


@fast
@given(st.binary(min_size=1, max_size=300))
def test_pem_comes_back(body: bytes) -> None:
    (block,) = read_blocks(encode_pem("CERTIFICATE", body))
    assert (block.der, block.label) == (body, "CERTIFICATE")


@fast
@given(
    st.dictionaries(st.text(max_size=6), st.text(max_size=9) | st.integers(), max_size=5),
    st.binary(min_size=64, max_size=64),
)
def test_documents_come_back(members: dict[str, object], signature: bytes) -> None:
    body = json.dumps(members, indent=1).encode()
    for kind in NAMES:
        assert split_document(join_document(body, signature, kind), kind) == (body, signature)


@fast
@given(
    quote=st.binary(min_size=1, max_size=300),
    algorithm=st.sampled_from(sorted(ratls.HASHES)),
    nonce=st.none() | st.binary(max_size=40),
)
def test_tagged_evidence_comes_back(quote: bytes, algorithm: int, nonce: bytes | None, make_certificate) -> None:  # type: ignore[no-untyped-def]
    leaf = make_certificate()
    spki = ratls.read(leaf).leaf.spki
    claims = ratls.pubkey_claims(spki, algorithm=algorithm, nonce=nonce)
    value = ratls.tagged_evidence(quote, claims)
    (piece,) = ratls.read(make_certificate([(ratls.OID_TAGGED_EVIDENCE, value)])).evidence
    assert (piece.evidence.body, piece.claims, piece.nonce, piece.key_matches) == (quote, claims, nonce, True)
