"""Receipts and heads: their bytes, their chain, and what is refused."""

from __future__ import annotations

import pytest

from attestable_mcp.bind.keys import BindingKey
from attestable_mcp.bind.receipt import (
    RECEIPT_KEY,
    Head,
    Ledger,
    Receipt,
    UnknownChain,
    read,
    receipt_hash,
    request_digest,
    result_digest,
    sign,
    verify,
)
from attestable_mcp.bind.tree import Frontier, root
from attestable_mcp.errors import MalformedEvidence, SignatureInvalid
from attestable_mcp.wire import cbor

KEY = BindingKey()
CHAIN = bytes(16)
T = bytes(64)


def issue(ledger: Ledger, chain: bytes = CHAIN, held: int = 0) -> bytes:
    ledger.begin(chain, held)
    return ledger.issue(
        chain,
        method="tools/call",
        name="add",
        request=bytes(32),
        result=bytes(32),
        item=b"",
        manifest=b"",
        transcript=T,
    )


def test_a_receipt_is_what_the_format_says() -> None:
    """The protected header, the array and the tag, byte by byte (RFC 9052 section 4.2)."""
    message = issue(Ledger(KEY, clock=lambda: 5))
    assert message[:7] == bytes.fromhex("d28443a10127a0")
    statement = verify(message, KEY.public)
    assert isinstance(statement, Receipt)
    assert (statement.counter, statement.previous, statement.time, statement.name) == (0, b"", 5, "add")
    assert cbor.decode(message) == cbor.Tagged(18, [bytes.fromhex("a10127"), {}, statement.payload(), message[-64:]])


def test_a_chain_counts_and_links() -> None:
    ledger = Ledger(KEY)
    messages = [issue(ledger) for _ in range(5)]
    found = [verify(message, KEY.public) for message in messages]
    assert [receipt.counter for receipt in found if isinstance(receipt, Receipt)] == list(range(5))
    for before, receipt in zip(messages, found[1:], strict=False):
        assert isinstance(receipt, Receipt)
        assert receipt.previous == receipt_hash(before)
    head = verify(ledger.head(CHAIN, T), KEY.public)
    assert isinstance(head, Head)
    assert (head.size, head.root) == (5, root([receipt_hash(message) for message in messages]))


def test_chains_are_apart_and_bounded() -> None:
    ledger = Ledger(KEY, most=2)
    first, second, third = (bytes([number]) * 16 for number in range(3))
    issue(ledger, first)
    issue(ledger, second)
    issue(ledger, third)
    with pytest.raises(UnknownChain):
        ledger.begin(first, 1)
    with pytest.raises(UnknownChain):
        ledger.head(first, T)
    assert verify(issue(ledger, second, 1), KEY.public).counter == 1  # type: ignore[union-attr]


def test_nobody_can_have_two_histories_signed_under_one_name() -> None:
    """A chain that was given up may be asked for again; what is signed then has another name."""
    ledger = Ledger(KEY, most=1)
    first, head = verify(issue(ledger), KEY.public), verify(ledger.head(CHAIN, T), KEY.public)
    issue(ledger, bytes(15) + b"x")
    second = verify(issue(ledger), KEY.public)
    assert first.chain == head.chain
    assert len({CHAIN, first.chain, second.chain}) == 3


def test_one_holders_chains_push_out_its_own() -> None:
    """The connection that begins chains without end is not the one whose chain another client counts on."""
    ledger = Ledger(KEY, most=4)
    ledger.begin(CHAIN, 0, "honest")
    issue(ledger)
    for number in range(20):
        ledger.begin(b"%16d" % number, 0, "greedy")
    ledger.begin(CHAIN, 1, "honest")
    assert verify(issue(ledger, CHAIN, 1), KEY.public).counter == 1  # type: ignore[union-attr]
    with pytest.raises(UnknownChain):
        ledger.begin(b"%16d" % 0, 1, "greedy")


def test_every_flipped_byte_is_refused() -> None:
    message = issue(Ledger(KEY))
    for at in range(len(message)):
        broken = bytearray(message)
        broken[at] ^= 1
        with pytest.raises((MalformedEvidence, SignatureInvalid)):
            verify(bytes(broken), KEY.public)
    for broken in (message[:-1], message + b"\0", b"", message[1:]):
        with pytest.raises(MalformedEvidence):
            verify(broken, KEY.public)


def test_another_key_and_a_transcript_signature_are_no_receipt() -> None:
    message = issue(Ledger(KEY))
    with pytest.raises(SignatureInvalid) as caught:
        verify(message, BindingKey().public)
    assert caught.value.code == "receipt_signature"
    with pytest.raises(TypeError):
        KEY.sign_receipt(T)
    statement = read(message)
    forged = cbor.encode(cbor.Tagged(18, [bytes.fromhex("a10127"), {}, statement.payload(), KEY.sign(T)]))
    with pytest.raises(SignatureInvalid):
        verify(forged, KEY.public)


@pytest.mark.parametrize(
    "change",
    [
        {"counter": -1}, {"counter": 1 << 64}, {"chain": bytes(15)}, {"previous": bytes(31)}, {"name": 5},
        {"transcript": b""}, {"name": "x" * 1025}, {"time": True}, {"version": 2}, {"kind": "other"}, {"extra": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_payload_of_another_form_is_refused_although_signed(change: dict[str, object]) -> None:
    statement = read(issue(Ledger(KEY)))
    fields = cbor.decode(statement.payload())
    assert isinstance(fields, dict)
    if change != {"counter": 1 << 64}:
        payload = cbor.encode({**fields, **change})  # type: ignore[dict-item]
        signed = b"\x84\x6aSignature1\x43\xa1\x01\x27\x40" + cbor.encode(payload)
        message = cbor.encode(cbor.Tagged(18, [b"\xa1\x01\x27", {}, payload, KEY.sign_receipt(signed)]))
        with pytest.raises(MalformedEvidence) as caught:
            verify(message, KEY.public)
        assert caught.value.code == "bad_receipt"


def test_digests_leave_out_what_transports_write() -> None:
    params = {"name": "add", "arguments": {"a": 1}}
    assert request_digest("tools/call", {**params, "_meta": {"progressToken": 1}}) == request_digest(
        "tools/call", params
    )
    assert request_digest("tools/call", params) != request_digest("prompts/get", params)
    assert request_digest("tools/call", params) != request_digest("tools/call", {**params, "arguments": {"a": 2}})
    result = {"content": [], "isError": False}
    assert result_digest({**result, "_meta": {RECEIPT_KEY: "x"}}) == result_digest(result)
    assert result_digest({**result, "_meta": {}}) == result_digest(result)
    assert result_digest({**result, "_meta": {"a": 1, RECEIPT_KEY: "x"}}) == result_digest(
        {**result, "_meta": {"a": 1}}
    )
    assert result_digest({**result, "_meta": {"a": 1}}) != result_digest(result)
    assert result_digest({**result, "isError": True}) != result_digest(result)


def test_a_frontier_has_the_root_of_the_whole_tree() -> None:
    frontier, leaves = Frontier(), []
    with pytest.raises(TypeError):
        _ = frontier.root
    for number in range(70):
        leaves.append(bytes([number]))
        frontier.push(leaves[-1])
        assert frontier.root == root(leaves)


@pytest.mark.parametrize("size", [1, 31, 32, 33, 100])
def test_a_frontier_that_nobody_asked_before_has_the_same_root(size: int) -> None:
    frontier, leaves = Frontier(), [bytes([number]) for number in range(size)]
    for leaf in leaves:
        frontier.push(leaf)
    assert (frontier.size, frontier.root, frontier.root) == (size, root(leaves), root(leaves))


def test_heads_sign_as_receipts_do() -> None:
    head = Head(chain=CHAIN, size=1, root=bytes(64), time=1, transcript=T)
    assert verify(sign(head, KEY), KEY.public) == head
