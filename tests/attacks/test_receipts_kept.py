"""A store of receipts that somebody has edited, an export that somebody wrote, and two clients with one store."""

from __future__ import annotations

import asyncio
import base64
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mcp.server import MCPServer

from attestable_mcp import attested_client, serve
from attestable_mcp.appraise.offer import ReceiptPolicy
from attestable_mcp.appraise.policy import Policy, Rules, SgxRelease, TrustPolicy
from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.bind.keys import BindingKey
from attestable_mcp.bind.receipt import Ledger, Receipt, result_digest, verify
from attestable_mcp.cli.main import main
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.mcp.receipt_store import ReceiptStore

KEY, OTHER = BindingKey(), BindingKey()
CHAIN = bytes(range(16))
TRUE, FALSE = {"content": [{"type": "text", "text": "no"}]}, {"content": [{"type": "text", "text": "yes"}]}


def add(a: int, b: int) -> int:
    """A tool."""
    return a + b


def _peer(key: BindingKey) -> Any:
    binding = SimpleNamespace(binding_key=key.public)
    return SimpleNamespace(binding=binding, origin="https://a.example:1", result=SimpleNamespace(to_json=dict))


def _ledger(key: BindingKey, chain: bytes = CHAIN) -> Ledger:
    """Signs under the very name that it is asked for."""
    return Ledger(key, names=lambda: chain)


def _issue(ledger: Ledger, number: int, result: dict[str, Any], chain: bytes = CHAIN) -> bytes:
    ledger.begin(chain, number)
    return ledger.issue(
        chain, method="tools/call", name="may", request=bytes(32), result=result_digest(result), item=b"",
        manifest=b"", transcript=bytes(64),
    )  # fmt: skip


def _keep(store: ReceiptStore, ledger: Ledger, key: BindingKey, counts: range, chain: bytes = CHAIN) -> None:
    for number in counts:
        message = _issue(ledger, number, TRUE, chain)
        receipt = verify(message, key.public)
        assert isinstance(receipt, Receipt)
        store.keep(message, receipt, _peer(key))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "receipts.sqlite3"
    kept = ReceiptStore(path)
    _keep(kept, _ledger(KEY), KEY, range(2))
    kept.close()
    return path


def _edit(path: Path, *statements: str, values: tuple[Any, ...] = ()) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        for statement in statements:
            connection.execute(statement, values)


def test_a_receipt_of_another_key_is_shown_as_nobodys_word(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`show --result` answers "is this the answer that was given?": a receipt that anybody wrote must not say yes."""
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps(FALSE))
    forged = _issue(_ledger(OTHER), 0, FALSE)
    words = ["receipts", "show", "0001:0", "--store", str(store), "--result", str(answer)]
    assert main(words) == 2
    _edit(store, "UPDATE receipts SET message = ? WHERE counter = 0", values=(forged,))
    capsys.readouterr()
    assert main(words) == 2
    assert "does NOT hold" in capsys.readouterr().out
    assert main([*words, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["signed"] == 0


def test_a_forged_receipt_beside_the_true_one_is_passed_over(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps(TRUE))
    forged = _issue(_ledger(OTHER), 0, FALSE)
    _edit(store, "INSERT INTO receipts SELECT chain, 0, x'00', ? FROM receipts LIMIT 1", values=(forged,))
    words = ["receipts", "show", "0001:0", "--store", str(store), "--result", str(answer)]
    assert main(words) == 0
    assert "holds under the chain's key" in capsys.readouterr().out


def test_two_receipts_with_one_number_prove_no_answer(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = tmp_path / "answer.json"
    answer.write_text(json.dumps(TRUE))
    second = _issue(_ledger(KEY), 0, FALSE)
    _edit(store, "INSERT INTO receipts SELECT chain, 0, x'ff', ? FROM receipts LIMIT 1", values=(second,))
    assert main(["receipts", "show", "0001:0", "--store", str(store), "--result", str(answer)]) == 2
    assert "SEVERAL" in capsys.readouterr().out


ENDLESS = "WITH RECURSIVE r(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM r)"


@pytest.mark.parametrize(
    "statements",
    [
        ("UPDATE chains SET name = 'text'",),
        ("UPDATE chains SET begun = 'soon'",),
        ("UPDATE chains SET begun = 9000000000000000000",),
        ("UPDATE chains SET begun = -1",),
        ("UPDATE chains SET origin = x'00ff'",),
        ("UPDATE keys SET public = 'text'",),
        ("UPDATE keys SET verdict = 5.5", "UPDATE keys SET verdict = CAST(verdict AS BLOB)"),
        ("UPDATE keys SET bundle = 4611686018427387904",),
        ("UPDATE receipts SET message = 'text'",),
        ("UPDATE receipts SET message = 4611686018427387904",),
        ("UPDATE receipts SET message = zeroblob(64000000)",),
        ("CREATE TRIGGER t AFTER INSERT ON receipts BEGIN DELETE FROM chains; END",),
        ("DROP TABLE heads",),
        ("DROP TABLE chains", f"CREATE VIEW chains AS {ENDLESS} SELECT id, x'00' AS name, 1 AS key, 1 AS begun FROM r"),
        ("DROP TABLE heads", "CREATE TABLE heads (chain, size, hash, message)"),
    ],
)
def test_an_edited_store_is_refused_and_not_followed(
    store: Path, statements: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    _edit(store, *statements)
    for verb in ("verify", "export"):
        assert main(["receipts", verb, "--store", str(store)]) == 1
        said = capsys.readouterr().err
        assert "receipts.sqlite3" in said
        assert "--debug" not in said  # what is not understood says so by its name, not as a fault of ours


def test_a_verdict_that_nests_without_end_is_no_verdict(store: Path) -> None:
    _edit(store, "UPDATE keys SET verdict = ?", values=("[" * 200_000,))
    assert ReceiptStore(store, read_only=True).chains()[0].verdict == {}


@pytest.mark.parametrize("begun", [10**25, -(10**25), -1])
def test_an_export_from_no_time_that_there_is_is_refused(
    begun: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "calls.receipts"
    chain = {"chain": CHAIN.hex(), "origin": "o", "begun": begun, "key": KEY.public.hex(), "verdict": {}}
    receipt = {"receipt": base64.b64encode(_issue(_ledger(KEY), 0, TRUE)).decode()}
    lines = [{"format": "attestable-mcp/receipts/v1"}, chain | {"bundle": None}, receipt]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert main(["receipts", "list", "--store", str(path)]) == 2
    assert "a chain's line" in capsys.readouterr().err


def test_a_chain_that_another_client_gave_up_is_begun_anew_by_whoever_writes_it(tmp_path: Path) -> None:
    """Two clients, one store: what the first writes after the second has pruned must not be lost unseen."""
    path, ledger = tmp_path / "receipts.sqlite3", _ledger(KEY)
    first, second = ReceiptStore(path), ReceiptStore(path, most=3)
    _keep(first, ledger, KEY, range(3))
    first.flush()
    _keep(second, _ledger(OTHER, bytes(16)), OTHER, range(4), bytes(16))
    second.flush()
    second._written = 0
    _keep(second, _ledger(OTHER, b"\x07" * 16), OTHER, range(1), b"\x07" * 16)  # prunes
    second.flush()
    assert CHAIN not in [chain.name for chain in second.chains()]
    _keep(first, ledger, KEY, range(3, 5))
    first.close()
    (found,) = [chain for chain in ReceiptStore(path, read_only=True).chains() if chain.name == CHAIN]
    assert found.receipts == 2
    second.close()


def test_what_is_refused_leaves_nothing_half_written(store: Path) -> None:
    _edit(store, "CREATE TABLE more (a)")
    kept = ReceiptStore(store)
    with pytest.raises(ConfigurationError, match="other tables"):
        kept.keep_bundle(KEY.public, b"bundle")


def test_evidence_of_one_address_vouches_for_no_receipts_of_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever writes an export names its origin: a genuine server's receipts must not be handed on as the bank's."""
    server = MCPServer("s")
    server.tool()(add)
    path, export = tmp_path / "receipts.sqlite3", tmp_path / "calls.receipts"
    rules = Rules(releases=(SgxRelease(mrenclave="01" * 32),))
    trust = TrustPolicy(simulated="accept", endorsements=("stapled",))
    policy = Policy(rules=rules, trust=trust, receipts=ReceiptPolicy(required=True, store=str(path)))

    async def run() -> None:
        async with serve(server, attester=SimulatedAttester(b"\x01" * 32)) as running:
            async with attested_client(running.url, policy=policy) as client:
                await client.call_tool("add", {"a": 1, "b": 2})

    asyncio.run(run())
    assert main(["receipts", "export", "--store", str(path), "-o", str(export)]) == 0
    capsys.readouterr()
    assert main(["receipts", "verify", "--store", str(export), "--json"]) == 4
    lines = [json.loads(line) for line in export.read_text().splitlines()]
    lines[1]["origin"] = "https://bank.example"
    export.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    capsys.readouterr()
    assert main(["receipts", "verify", "--store", str(export), "--json"]) == 2
    (chain,) = json.loads(capsys.readouterr().out)["chains"]
    assert chain["proof"]["error"]["code"] == "other_address"
