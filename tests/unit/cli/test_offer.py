"""`manifest` and `receipts` at the command line, in this process and without a network."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from attestable_mcp.appraise.offer import ManifestPolicy, left_open
from attestable_mcp.appraise.policy import Policy
from attestable_mcp.bind.keys import BindingKey
from attestable_mcp.bind.receipt import Head, Ledger, Receipt, verify
from attestable_mcp.cli.main import main
from attestable_mcp.errors import ConfigurationError, NotFresh, SignatureInvalid
from attestable_mcp.mcp.manifest import of_lists
from attestable_mcp.mcp.receipt_store import ReceiptStore, _Begun
from attestable_mcp.mcp.watched import promised

TOOL = {"name": "add", "description": "Adds.", "inputSchema": {"type": "object"}}
KEY = BindingKey()
CHAINS = (bytes(range(16)), bytes(range(16, 32)))


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def out(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_manifest_file_is_shown_compared_and_signed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = write(tmp_path / "one.json", of_lists({"tools": [TOOL]}).to_json())
    two = write(tmp_path / "two.json", of_lists({"tools": [{**TOOL, "description": "Deletes."}]}).to_json())
    assert main(["manifest", str(one), "--diff", str(one)]) == 0
    assert capsys.readouterr().out == "no difference\n"
    assert main(["manifest", str(two), "--diff", str(one)]) == 2
    assert capsys.readouterr().out.splitlines() == [
        "tool 'add' changed", "  description: wanted 'Adds.', seen 'Deletes.'",
    ]  # fmt: skip
    assert main(["manifest", str(two), "--diff", str(one), "--json"]) == 2
    assert out(capsys)["difference"][0]["members"] == [{"path": "description", "wanted": "Adds.", "seen": "Deletes."}]
    assert main(["manifest", str(one), "--sign", str(tmp_path / "none.pem")]) == 1
    assert main(["manifest"]) == 1
    write(tmp_path / "bad.json", {**of_lists({"tools": [TOOL]}).to_json(), "digest": "00" * 32})
    assert main(["manifest", str(tmp_path / "bad.json")]) == 2


@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_a_signed_manifest_is_promised_only_under_its_key_and_in_its_time(tmp_path: Path, kind: str) -> None:
    document = write(tmp_path / "m.json", of_lists({"tools": [TOOL]}).to_json())
    for name in ("mine", "other"):
        key: Any = Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / f"{name}.pem").write_bytes(private)
        public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / f"{name}.pub").write_bytes(public)
    signed = tmp_path / "signed.json"
    words = ["manifest", str(document), "--sign", str(tmp_path / "mine.pem"), "--days", "1", "-o", str(signed)]
    assert main(words) == 0

    def policy(key: str) -> ManifestPolicy:
        return ManifestPolicy(mode="signed", document=str(signed), keys=(str(tmp_path / f"{key}.pub"),))

    found = promised(policy("mine"))
    assert found is not None
    assert set(found.tools.items) == {"add"}
    with pytest.raises(SignatureInvalid):
        promised(policy("other"))
    value = json.loads(signed.read_text())
    for change in ({"expires": "2099-01-01T00:00:00Z"}, {"issued": "2020-01-01T00:00:00Z"}):
        write(signed, {**value, **change})
        with pytest.raises(SignatureInvalid):
            promised(policy("mine"))
    write(signed, value["manifest"])
    with pytest.raises(ConfigurationError):
        promised(policy("mine"))


def test_an_expired_signature_promises_nothing(tmp_path: Path) -> None:
    from datetime import UTC, datetime, timedelta

    from attestable_mcp.mcp.signed import check, sign

    key, now = Ed25519PrivateKey.generate(), datetime.now(UTC)
    signed = sign(of_lists({}), key, issued=now - timedelta(days=2), expires=now - timedelta(days=1))
    with pytest.raises(NotFresh):
        check(signed, [key.public_key()], at=now)
    with pytest.raises(NotFresh):
        check(signed, [key.public_key()], at=now - timedelta(days=3))


@pytest.mark.parametrize(
    "text",
    [
        'mode = "pinned"', 'mode = "signed"', 'mode = "sometimes"', 'mode = "any"\ndigest = "00"',
        'mode = "any"\ndynamic = ["*"]', 'mode = "any"\nkeys = ["a.pub"]', 'mode = "any"\nother = 1',
        'mode = "pinned"\ndigest = "XY"', 'mode = "any"\nunlisted = "pass"', 'mode = "any"\nunlisted = ""',
        f'mode = "pinned"\ndigest = "{"00" * 32}"\nunlisted = "danger-pass"',
        'mode = "signed"\nkeys = ["a.pub"]\nunlisted = "danger-pass"',
    ],
)  # fmt: skip
def test_a_manifest_section_that_cannot_be_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Policy.from_toml(f'[policy]\nmrenclave = "{"00" * 32}"\n[manifest]\n{text}\n', "p.toml")
    assert "p.toml, line" in caught.value.message


@pytest.mark.parametrize("word", ["refuse", "danger-pass"])
@pytest.mark.parametrize("committed", [b"", bytes(32)])
def test_the_word_for_unlisted_tools_is_read_and_said(word: str, committed: bytes) -> None:
    text = f'[policy]\nmrenclave = "{"00" * 32}"\n[manifest]\nunlisted = "{word}"\n'
    rules = Policy.from_toml(text, "p.toml").manifest
    assert rules == ManifestPolicy(unlisted=word)  # type: ignore[arg-type]
    said = [sentence for sentence in left_open(rules, committed) if "never listed" in sentence]
    assert len(said) == (word == "danger-pass")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Two chains of three receipts, each with a head, by a key without evidence."""
    names = iter(CHAINS)
    ledger = Ledger(KEY, clock=lambda: 1_700_000_000_000, names=lambda: next(names))
    path = tmp_path / "receipts.sqlite3"
    peer: Any = SimpleNamespace(
        binding=SimpleNamespace(binding_key=KEY.public),
        origin="https://a.example:1",
        result=SimpleNamespace(to_json=dict),
    )
    kept = ReceiptStore(path)
    for chain in CHAINS:
        for number in range(3):
            ledger.begin(chain, number)
            message = ledger.issue(
                chain, method="tools/call", name="add", request=bytes(32), result=bytes(32), item=b"", manifest=b"",
                transcript=bytes(64),
            )  # fmt: skip
            receipt = verify(message, KEY.public)
            assert isinstance(receipt, Receipt)
            kept.keep(message, receipt, peer)
        message = ledger.head(chain, bytes(64))
        head = verify(message, KEY.public)
        assert isinstance(head, Head)
        kept.keep_head(message, head, peer)
    kept.close()
    return path


def test_receipts_are_listed_shown_exported_and_verified(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import os

    if os.name == "posix":
        assert store.stat().st_mode & 0o777 == 0o600
    assert main(["receipts", "list", "--store", str(store), "--json"]) == 0
    assert [(chain["receipts"], chain["heads"], chain["proof"]) for chain in out(capsys)["chains"]] == [
        (3, 1, False)
    ] * 2
    assert main(["receipts", "list", "0001", "--store", str(store)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main(["receipts", "show", "0001:2", "--store", str(store), "--json"]) == 0
    assert out(capsys)["counter"] == 2
    assert main(["receipts", "show", "0001:9", "--store", str(store)]) == 1
    assert main(["receipts", "show", "0001:2", "--store", str(store), "--result", str(write(tmp_path / "r", {}))]) == 2
    capsys.readouterr()
    assert main(["receipts", "verify", "--store", str(store), "--json"]) == 4  # no evidence is kept for this key
    whole = out(capsys)["chains"]
    assert [chain["audit"]["covered_by_heads"] for chain in whole] == [3, 3]
    export = tmp_path / "calls.receipts"
    assert main(["receipts", "export", "--store", str(store), "-o", str(export)]) == 0
    assert main(["receipts", "verify", "--store", str(export), "--json"]) == 4
    assert out(capsys)["chains"] == whole


def test_an_altered_export_is_refused(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = tmp_path / "calls.receipts"
    assert main(["receipts", "export", "00010203", "--store", str(store), "-o", str(export)]) == 0
    lines = export.read_text().splitlines()
    for name, altered, code in (
        ("gap", [*lines[:3], *lines[4:]], "gap"),
        ("order", [*lines[:2], lines[3], lines[2], *lines[4:]], "reordered"),
        ("last", [*lines[:4], *lines[5:]], "removed"),
    ):
        path = tmp_path / name
        path.write_text("\n".join(altered) + "\n")
        capsys.readouterr()
        assert main(["receipts", "verify", "--store", str(path), "--json"]) == 2
        (chain,) = out(capsys)["chains"]
        assert code in [problem["code"] for problem in chain["audit"]["problems"]]
    for broken in ("", "{}\n", "no json\n", lines[0] + '\n{"x": 1}\n', lines[0] + '\n{"chain": 5}\n'):
        path.write_text(broken)
        assert main(["receipts", "verify", "--store", str(path)]) == 2
    assert main(["receipts", "verify", "--store", str(tmp_path / "none")]) == 1


def test_a_store_is_read_wherever_it_lies(store: Path, tmp_path: Path) -> None:
    """SQLite takes the name of a file to be read as a URI, in which these characters mean something else."""
    odd = tmp_path / "50%41 #1" / "receipts.sqlite3"
    odd.parent.mkdir()
    for path in store.parent.glob("receipts.sqlite3*"):
        (odd.parent / path.name).write_bytes(path.read_bytes())
    assert [chain.name for chain in ReceiptStore(odd, read_only=True).chains()] == list(CHAINS)


def test_the_oldest_chains_go_first_and_whole(store: Path) -> None:
    small = ReceiptStore(store, most=4)
    newest = small.chains()[-1]
    small._prune(_Begun(name=newest.name, public=newest.public, verdict="{}", origin="", begun=0))
    assert [(chain.name, chain.receipts) for chain in small.chains()] == [(CHAINS[1], 3)]
    small.close()
