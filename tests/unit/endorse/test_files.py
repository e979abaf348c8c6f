"""Collateral in files is recognised by content; what is not there is said, and never made up."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from attestable_mcp.endorse.base import EndorsementSource
from attestable_mcp.endorse.files import FileSource, recognise
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.limits import LIMITS
from attestable_mcp.rats import DocumentKind, EndorsementQuery, Endorsements, Tee
from attestable_mcp.simulator.intel import Vendor

AT = datetime(2026, 6, 1, 12, tzinfo=UTC)
VENDOR = Vendor(seed=b"files")
BAG = VENDOR.collateral(at=AT)
QUERY = EndorsementQuery(tee=Tee.SGX, parameters={})


def fetch(path: Path) -> Endorsements:
    source = FileSource(path)
    assert isinstance(source, EndorsementSource)
    assert source.name == str(path)
    return source.fetch(QUERY, deadline_seconds=1)


def fill(folder: Path) -> None:
    """Every piece apart, under names that say nothing."""
    info, identity = BAG.documents
    answer = b'{"tcbInfo":' + info.body + b',"signature":"' + info.signature.hex().encode() + b'"}'
    (folder / "1").write_bytes(answer)
    answer = b'{"enclaveIdentity":' + identity.body + b',"signature":"' + identity.signature.hex().encode() + b'"}'
    (folder / "2").write_bytes(answer)
    (folder / "3").write_bytes(BAG.crls[0])
    (folder / "4").write_bytes(BAG.crls[1].hex().encode() + b"\n")
    (folder / "5").write_text("text before\n" + VENDOR.pck_chain_pem)
    (folder / "6").write_bytes(info.issuer_chain[0])
    (folder / "notes.txt").write_text("nothing of ours")


def test_a_folder_gives_every_piece_and_names_what_it_left_out(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "sub").mkdir()
    bag = fetch(tmp_path)
    assert set(bag.crls) == set(BAG.crls)
    assert [(d.kind, d.body, d.signature) for d in bag.documents] == [
        (d.kind, d.body, d.signature) for d in BAG.documents
    ]
    assert BAG.documents[0].issuer_chain[0] in bag.certificates
    assert VENDOR.root_der in bag.certificates
    assert bag.sources[:-1] == tuple(str(tmp_path / name) for name in "123456")
    assert bag.sources[-1] == "notes.txt (not recognised, left out)"


def test_a_collateral_record_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text(json.dumps(VENDOR.collateral_json(at=AT)))
    bag = fetch(path)
    assert [document.kind for document in bag.documents] == list(DocumentKind)[:2]
    assert len(bag.crls) == 2


def test_files_are_read_anew_at_every_fetch(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(BAG.crls[0])
    source = FileSource(path)
    assert source.fetch(QUERY, deadline_seconds=1).crls == BAG.crls[:1]
    path.write_bytes(BAG.crls[1])
    assert source.fetch(QUERY, deadline_seconds=1).crls == BAG.crls[1:]


@pytest.mark.parametrize(
    "data", [b"", b"{", b"{}", b"\0" * 100, b"30", b"-----BEGIN CERTIFICATE-----\n", BAG.crls[0] + b"\0"]
)
def test_damaged_and_foreign_bytes_are_no_collateral(data: bytes, tmp_path: Path) -> None:
    assert recognise(data) is None
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ConfigurationError, match="x"):
        fetch(tmp_path)


def test_a_missing_path_and_an_empty_folder_are_our_own_fault(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(ConfigurationError, match=str(path)):
            FileSource(path)


def test_size_and_count_are_capped(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"{" + bytes(LIMITS.endorsement))
    with pytest.raises(ConfigurationError, match="more than"):
        fetch(tmp_path)
    for number in range(LIMITS.endorsement_files):
        (tmp_path / f"{number}").touch()
    with pytest.raises(ConfigurationError, match="at most"):
        FileSource(tmp_path)


DAMAGED = {
    "a document cut": b'{"tcbInfo":{"id":"TDX"',
    "a document without its signature": b'{"tcbInfo":{"id":"TDX"}}',
    "a record whose list is no hex": b'{"root_ca_crl":"xyz"}',
    "a certificate cut": BAG.certificates[0][:-5],
    "a list with a byte too many": BAG.crls[0] + b"\0",
    "a list in hex with a byte too many": (BAG.crls[0] + b"\0").hex().encode(),
    "PEM without an end": b"-----BEGIN CERTIFICATE-----\nMIIB\n",
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_named_with_its_fault_beside_good_ones(data: bytes, tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "bad").write_bytes(data)
    bag = fetch(tmp_path)
    (named,) = bag.left_out
    assert named.startswith(f"{tmp_path / 'bad'}: ")
    assert len(named) > len(f"{tmp_path / 'bad'}: ") + 5, "the fault is not told"
    assert str(tmp_path / "bad") not in bag.sources


def test_a_damaged_file_alone_is_named_in_the_error(tmp_path: Path) -> None:
    path = tmp_path / "tcb.json"
    path.write_bytes(DAMAGED["a document cut"])
    with pytest.raises(ConfigurationError, match=r"tcb\.json: "):
        fetch(path)


@pytest.mark.parametrize("data", [b"{}", b'{"name": "of something else"}', b"notes", b"\0" * 9, b"", b"[1]"])
def test_a_file_of_something_else_is_no_damage(data: bytes, tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "other").write_bytes(data)
    assert fetch(tmp_path).left_out == ()
