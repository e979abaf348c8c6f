"""Owner's documents: one deterministic form, every deviation refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestable_mcp.bind.deployment import (
    open_grant,
    open_revocation,
    sign_grant,
    sign_revocation,
    spki_of,
)
from attestable_mcp.errors import AttestationError, MalformedEvidence, WrongDeployment
from attestable_mcp.rats import Evidence, EvidenceKind
from attestable_mcp.wire import cbor
from attestable_mcp.wire.grant import (
    GRANT_LABEL,
    GRANT_TYPE,
    REVOCATION_TYPE,
    Grant,
    GrantRequest,
    Revocation,
    Signed,
    from_pem,
    read_grant,
    read_request,
    read_signed,
    request_report_data,
    to_pem,
)

OWNERS = {"ed25519": Ed25519PrivateKey.generate(), "p256": ec.generate_private_key(ec.SECP256R1())}
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def grant(signer, **changed) -> Grant:
    given = Grant(
        owner=spki_of(signer), name="prod", hosts=("mcp.example", "::1"), key=b"\x07" * 32, serial=7,
        not_before=NOW, not_after=NOW + timedelta(days=1),
    )  # fmt: skip
    return replace(given, **changed)


@pytest.mark.parametrize("kind", OWNERS)
def test_a_grant_comes_back_as_it_was_signed(kind):
    given = grant(OWNERS[kind])
    body = sign_grant(OWNERS[kind], given)
    assert open_grant(body) == given
    assert open_grant(from_pem(to_pem(GRANT_LABEL, body), GRANT_LABEL)) == given
    listed = Revocation(owner=given.owner, name="prod", number=2, issued_at=NOW, serials=(3, 4), keys=(b"\x01" * 32,))
    assert open_revocation(sign_revocation(OWNERS[kind], listed)) == listed


@pytest.mark.parametrize("kind", OWNERS)
def test_no_byte_of_a_grant_can_be_changed(kind):
    body = sign_grant(OWNERS[kind], grant(OWNERS[kind]))
    for at in range(len(body)):
        damaged = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        with pytest.raises((MalformedEvidence, WrongDeployment)):
            open_grant(damaged)
    for size in range(0, len(body), 7):
        with pytest.raises(MalformedEvidence):
            open_grant(body[:size])


def test_a_signature_over_one_kind_is_none_over_another():
    owner = OWNERS["ed25519"]
    listed = Revocation(owner=spki_of(owner), name="prod", number=1, issued_at=NOW)
    body = sign_revocation(owner, listed)
    with pytest.raises(MalformedEvidence):
        open_grant(body)
    signed = read_signed(body, REVOCATION_TYPE)
    moved = Signed(algorithm=signed.algorithm, content_type=GRANT_TYPE, payload=grant(owner).payload(),
                   signature=signed.signature)  # fmt: skip
    with pytest.raises(WrongDeployment):
        open_grant(moved.encode())


def test_another_key_cannot_sign_for_an_owner():
    with pytest.raises(WrongDeployment):
        open_grant(sign_grant(Ed25519PrivateKey.generate(), grant(OWNERS["ed25519"])))
    with pytest.raises(WrongDeployment):  # the algorithm has to be that of the named key
        open_grant(sign_grant(OWNERS["p256"], grant(OWNERS["ed25519"])))


@pytest.mark.parametrize(
    "changed",
    [
        {"name": ""},
        {"name": "a\nb"},
        {"name": " prod"},
        {"name": "x" * 129},
        {"hosts": ()},
        {"hosts": ("MCP.example",)},
        {"hosts": tuple(f"h{n}" for n in range(65))},
        {"key": b"short"},
        {"serial": -1},
        {"not_after": NOW},
        {"owner": b"\x30\x00" * 20},
        {"owner": b"\x00" * 200},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_a_grant_may_not_say(changed):
    owner = OWNERS["ed25519"]
    with pytest.raises(AttestationError):
        open_grant(sign_grant(owner, grant(owner, **changed)))


def test_keys_are_exactly_the_known_ones():
    owner = OWNERS["ed25519"]
    fields = cbor.decode(grant(owner).payload())
    assert isinstance(fields, dict)
    for broken in ({**fields, "more": 1}, {k: v for k, v in fields.items() if k != "serial"}, {**fields, "version": 2}):
        blank = Signed(algorithm=-8, content_type=GRANT_TYPE, payload=cbor.encode(broken), signature=b"\0" * 64)
        with pytest.raises(MalformedEvidence):
            read_grant(blank)


def test_a_request_comes_back_and_is_tied_to_its_key():
    request = GrantRequest(key=b"k" * 44, evidence=Evidence(kind=EvidenceKind.INTEL_QUOTE, body=b"quote"))
    assert read_request(request.to_pem()) == request
    assert read_request(request.encode()) == request
    assert request_report_data(b"k" * 44) != request_report_data(b"k" * 43)
    with pytest.raises(MalformedEvidence):
        read_request(to_pem(GRANT_LABEL, request.encode()))
    with pytest.raises(MalformedEvidence):
        read_request(request.encode() + b"\0")
