"""The client's receipts: what is found at once, and how soon signatures are checked that wait for each other."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any, cast

import anyio
import httpx2
import pytest

from attestable_mcp.bind.audit import audit
from attestable_mcp.bind.keys import BindingKey
from attestable_mcp.bind.receipt import RECEIPTS_KEY, Head, Receipt, receipt_hash, request_digest, result_digest, sign
from attestable_mcp.errors import ReceiptError, SignatureInvalid
from attestable_mcp.mcp import rpc
from attestable_mcp.mcp.notary import SETTLE_SECONDS, TOGETHER, Notary
from attestable_mcp.tls.admission import AttestedPeer

pytestmark = pytest.mark.anyio

KEY, OTHER = BindingKey(), BindingKey()
T = bytes(64)
BINDING = SimpleNamespace(binding_key=KEY.public)
COMMITTED = SimpleNamespace(manifest=bytes(32))
PEER = cast(AttestedPeer, SimpleNamespace(binding=BINDING, transcript=T, commitments=COMMITTED))
PARAMS = {"name": "add", "arguments": {"a": 1}}
RESULT = {"content": [], "structuredContent": {"result": 2}}

ASKED = request_digest("tools/call", PARAMS)


class Kept:
    """Counts what it is given, and what it was told to write."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []
        self.written: list[bytes] = []
        self.closed = False

    def keep(self, message: bytes, receipt: Receipt, peer: AttestedPeer) -> None:
        self.waiting.append(message)

    def keep_head(self, message: bytes, head: Head, peer: AttestedPeer) -> None:
        raise AssertionError("no head was given")

    def keep_bundle(self, public: bytes, bundle: bytes) -> None:
        raise AssertionError("nobody vouches here")

    def vouched(self, public: bytes) -> bool:
        return True

    def flush(self) -> None:
        self.written += self.waiting
        self.waiting.clear()

    def close(self) -> None:
        self.flush()
        self.closed = True


class Signer:
    """A server that keeps a chain in order, whoever signs: `key` may change from one receipt to the next."""

    def __init__(self, notary: Notary) -> None:
        self.notary = notary
        self.messages: list[bytes] = []

    def next(self, key: BindingKey = KEY, **changes: Any) -> bytes:
        receipt = Receipt(
            **{
                "chain": self.notary.chain, "counter": len(self.messages), "time": 1 << 40, "method": "tools/call",
                "previous": receipt_hash(self.messages[-1]) if self.messages else b"", "name": "add",
                "request": request_digest("tools/call", PARAMS), "result": result_digest(RESULT), "transcript": T,
            }
            | changes
        )  # fmt: skip
        self.messages.append(sign(receipt, key))
        return self.messages[-1]

    async def call(self, key: BindingKey = KEY, **changes: Any) -> None:
        await self.take(self.next(key, **changes))

    async def take(self, message: bytes) -> None:
        asked: rpc.Message = {"method": "tools/call", "params": {**PARAMS, "_meta": self.notary.asks()}}
        await self.notary.take(message, asked, ASKED, RESULT, PEER)


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def signer(kept: Kept) -> Signer:
    return Signer(Notary("https://mcp.example/mcp", keeper=kept))


@pytest.mark.parametrize("item", [b"", b"\x02" * 32])
async def test_a_receipt_names_the_tool_that_was_listed(item: bytes) -> None:
    """Without its digest too: evidence that commits to a manifest has one for each tool in it."""
    signer = Signer(Notary("https://mcp.example/mcp", expected=lambda method, name: b"\x01" * 32))
    await signer.call(item=b"\x01" * 32)
    with pytest.raises(ReceiptError, match="not the one that was listed"):
        await signer.call(item=item)


async def test_the_server_names_the_chain_once(signer: Signer) -> None:
    await signer.call(chain=b"s" * 16)
    await signer.call(chain=b"s" * 16)
    with pytest.raises(ReceiptError, match="another chain"):
        await signer.call()
    assert signer.notary.held == 2


async def test_answers_to_calls_of_the_chain_before_still_come(signer: Signer) -> None:
    """Several calls were under way when the server gave the chain up; one of them had its answer signed."""
    await signer.call(chain=b"s" * 16)
    late, asked = signer.next(chain=b"s" * 16), signer.notary.asks()
    signer.notary.begin_again(signer.notary.chain.hex())
    signer.messages.clear()
    await signer.call(chain=b"t" * 16)
    message: rpc.Message = {"method": "tools/call", "params": {**PARAMS, "_meta": asked}}
    await signer.notary.take(late, message, ASKED, RESULT, PEER)
    with pytest.raises(ReceiptError, match="given before"):
        await signer.notary.take(late, message, ASKED, RESULT, PEER)
    nobodys: rpc.Message = {"method": "tools/call", "params": {**PARAMS, "_meta": {RECEIPTS_KEY: {"chain": "00" * 16}}}}
    with pytest.raises(ReceiptError, match="given up"):
        await signer.notary.take(signer.next(chain=b"t" * 16), nobodys, ASKED, RESULT, PEER)
    assert signer.notary.held == 1


NOWHERE = httpx2.MockTransport(lambda request: httpx2.Response(404))


async def test_a_single_call_waits_for_its_signature(signer: Signer, kept: Kept) -> None:
    with pytest.raises(SignatureInvalid):
        await signer.call(OTHER)
    assert not kept.waiting
    assert signer.notary.newest is None


async def test_a_call_after_a_pause_waits_for_its_signature(signer: Signer) -> None:
    await signer.call()
    await anyio.sleep(2.5 * SETTLE_SECONDS)
    with pytest.raises(SignatureInvalid):
        await signer.call(OTHER)


async def test_in_a_rush_a_false_signature_is_found_before_so_many_answers_have_passed(signer: Signer) -> None:
    await signer.call()
    for _ in range(TOGETHER - 1):
        await signer.call(OTHER)
    with pytest.raises(SignatureInvalid):
        await signer.call(OTHER)
    with pytest.raises(SignatureInvalid):
        await signer.call()


async def test_in_a_rush_a_false_signature_is_found_before_so_much_time_has_passed(signer: Signer, kept: Kept) -> None:
    await signer.call()
    await signer.call(OTHER)
    assert signer.notary.newest is not None
    assert len(kept.waiting) == 2
    await anyio.sleep(1.5 * SETTLE_SECONDS)
    assert kept.written == signer.messages, "what does not hold is evidence too"
    with pytest.raises(SignatureInvalid):
        await signer.call()
    await signer.notary.close(NOWHERE)  # it was told already


async def test_at_the_end_a_false_signature_that_nobody_was_told_of_is_told(signer: Signer, kept: Kept) -> None:
    await signer.call()
    await signer.call(OTHER)
    with pytest.raises(SignatureInvalid):
        await signer.notary.close(NOWHERE)
    assert kept.closed
    assert kept.written == signer.messages


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"request": bytes(32)}, "another request"),
        ({"result": bytes(32)}, "another answer"),
        ({"name": "sub"}, "wanted one for"),
        ({"chain": bytes(16)}, "another chain"),
        ({"transcript": bytes(63) + b"\x01"}, "another connection"),
        ({"previous": bytes(32)}, "does not follow"),
        ({"counter": 0}, "given before"),
    ],
)
async def test_in_a_rush_all_but_the_signature_is_compared_at_once(
    signer: Signer, change: dict[str, Any], words: str
) -> None:
    await signer.call()
    await signer.call()
    with pytest.raises(ReceiptError, match=words):
        await signer.call(**change)


async def test_answers_may_come_in_another_order(signer: Signer, kept: Kept) -> None:
    for message in reversed([signer.next() for _ in range(5)]):
        await signer.take(message)
    await signer.notary.close(NOWHERE)
    assert sorted(kept.written) == sorted(signer.messages)


async def test_receipts_that_no_later_one_is_linked_to_are_checked_by_themselves(signer: Signer) -> None:
    await signer.call()
    signer.next()  # its answer never comes
    await signer.call(OTHER)
    await signer.call()
    with pytest.raises(SignatureInvalid):
        await signer.notary.close(NOWHERE)


async def test_a_signature_that_a_later_one_stood_for_is_checked_by_the_audit(signer: Signer, kept: Kept) -> None:
    """What was said is vouched for by the link; that its own signature is no signature, only the audit says."""
    await signer.call()
    signer.next()
    signer.messages[-1] = signer.messages[-1][:-64] + os.urandom(64)
    await signer.take(signer.messages[-1])
    await signer.call()
    await signer.notary.close(NOWHERE)
    found = audit(kept.written, [], KEY.public, signer.notary.chain)
    assert [problem.code for problem in found.problems] == ["receipt_signature", "gap"]
