"""`platforms`: from a server to a signed list."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attestable_mcp.rats import Tee
from attestable_mcp.simulator.intel import well_known

PPID = well_known().platform.ppid
MRENCLAVE = bytes(range(32))


def test_from_a_server_to_a_signed_list(cli: Any, tmp_path: Path) -> None:
    quote, notes, key = tmp_path / "quote.bin", tmp_path / "rack7.toml", tmp_path / "list.key"
    quote.write_bytes(well_known().quote_sgx(bytes(64), MRENCLAVE))
    (tmp_path / "c.json").write_text(json.dumps(well_known().collateral_json(at=datetime.now(UTC), tee=Tee.SGX)))
    given = ("--danger-accept-simulated", "--endorsements", str(tmp_path / "c.json"))
    assert cli("platforms", "add", str(notes), str(quote), "--note", 'rack "7"\n', *given).code == 0
    assert PPID.hex() in notes.read_text()
    again = cli("platforms", "add", str(notes), str(quote), *given, "--json")
    assert again.json()["added"] == {}
    assert cli("owner", "init", str(key)).code == 0
    made = tmp_path / "rack7.pem"
    words = ("platforms", "sign", str(notes), "--key", str(key), "--days", "3", "-o", str(made))
    signed = cli(*words, "--json")
    assert signed.code == 0
    assert cli(*words).code == 1  # nothing is overwritten
    shown = cli("platforms", "show", str(made), "--json").json()
    assert (shown["name"], shown["ids"]["ppid"]) == ("rack7", [PPID.hex()])
    assert shown["signer"] == signed.json()["signer"]
    assert cli("platforms", "show", str(made)).code == 0
    assert cli("platforms", "show", str(quote)).code == 2
    assert cli("platforms", "sign", str(quote), "--key", str(key)).code == 1
    assert cli("platforms", "sign", str(notes)).code == 1
    assert cli("platforms", "add", str(notes)).code == 1
