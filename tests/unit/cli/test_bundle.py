"""`bundle` and `verify FILE` at the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from attestable_mcp.tls.replay import CHOSEN_POLICY

WHEN = "2025-07-19T10:00:34Z"


@pytest.fixture
def folder(vectors: Path) -> Path:
    return vectors / "tdx" / "dcapqvl-v4-uptodate"


@pytest.fixture
def made(cli: Any, folder: Path, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    path = tmp_path / "tdx.bundle"
    ended = cli(
        "bundle", str(folder / "quote.bin"), "--genuine-only", "--endorsements", str(folder / "collateral"), "--at",
        WHEN, "-o", str(path), "--json",
    )  # fmt: skip
    assert ended.code == 4
    assert ended.json()["written"] == str(path)
    return path, ended.json()


def test_a_bundle_replays_byte_for_byte(cli: Any, made: tuple[Path, dict[str, Any]]) -> None:
    path, first = made
    ended = cli("verify", str(path), "--at", WHEN, "--json")
    assert ended.code == 4
    again = ended.json()
    assert again["findings"] == first["findings"]
    assert again["claims"] == first["claims"]
    assert again["bundle"] == {
        "made_at": "2025-07-19T10:00:34.000000Z",
        "source": again["bundle"]["source"],
        "policy_from": "bundle",
        "recorded_verdict": "partial",
        "same_findings": True,
        "same_result": True,
        "not_shown_again": [CHOSEN_POLICY],
        "provenance_not_judged": [],
    }
    own = ("not_proven", "bundle", "written", "bundle_sha256", "provenance_not_judged")
    rest = [{name: value for name, value in seen.items() if name not in own} for seen in (first, again)]
    assert rest[0] == rest[1]
    assert again["not_proven"] == [*first["not_proven"], CHOSEN_POLICY]
    said = cli("verify", str(path), "--at", WHEN).err
    assert "the findings are the same, and claims, verdict and error" in said


def test_provenance_is_kept_and_said_to_be_judged_by_nobody(cli: Any, folder: Path, tmp_path: Path) -> None:
    release = tmp_path / "release.sigstore.json"
    release.write_text("{}")
    words = (str(folder / "quote.bin"), "--genuine-only", "--endorsements", str(folder / "collateral"), "--at", WHEN)
    ended = cli("bundle", *words, "--provenance", str(release), "-o", str(tmp_path / "p.bundle"))
    assert "judged by nobody: release.sigstore.json" in ended.err
    words = (*words, "--provenance", str(release), "-o", str(tmp_path / "q.bundle"), "--json")
    assert cli("bundle", *words).json()["provenance_not_judged"] == ["release.sigstore.json"]
    again = cli("verify", str(tmp_path / "p.bundle"), "--at", WHEN, "--json").json()
    assert again["bundle"]["provenance_not_judged"] == ["release.sigstore.json"]
    assert any("release.sigstore.json" in line and "nobody has judged" in line for line in again["not_proven"])
    other = cli("verify", str(tmp_path / "p.bundle"), "--genuine-only", "--at", "2025-07-25T00:00:00Z", "--json").json()
    assert (other["bundle"]["same_result"], CHOSEN_POLICY in other["not_proven"]) == (False, False)


def test_without_a_time_a_bundle_is_judged_now_and_says_its_own_time(
    cli: Any, made: tuple[Path, dict[str, Any]]
) -> None:
    ended = cli("verify", str(made[0]))
    assert ended.code == 2
    assert "made at 2025-07-19T10:00:34.000000Z by its own word" in ended.err
    assert "judged as of now; --at 2025-07-19T10:00:34.000000Z replays" in ended.err


def test_ones_own_policy_counts_and_options_without_one_are_refused(
    cli: Any, made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    registers = "".join(f'rtmr{n} = "{"00" * 48}"\n' for n in range(4))
    path.write_text(f'[policy]\nmr_td = "{"00" * 48}"\n{registers}')
    ended = cli("verify", str(made[0]), "--at", WHEN, "--policy", str(path), "--json")
    assert ended.code == 2
    assert ended.json()["error"]["code"] == "measurement_mismatch"
    assert ended.json()["bundle"]["policy_from"] == "yours"
    assert cli("verify", str(made[0]), "--danger-accept-simulated").code == 1


def test_a_bundle_can_be_looked_at(cli: Any, made: tuple[Path, dict[str, Any]]) -> None:
    seen = cli("inspect", str(made[0]), "--json").json()
    assert (seen["kind"], seen["recorded_verdict"], seen["unverified"]) == ("bundle", "partial", True)
    assert seen["subject"]["tee"] == "tdx"


def test_nothing_is_overwritten_and_nobody_is_asked_before_that(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "there"
    path.write_text("mine")
    ended = cli("bundle", "https://127.0.0.1:9/", "--genuine-only", "-o", str(path), "--json")
    assert ended.code == 1
    assert ended.json()["error"]["code"] == "file_exists"
    assert path.read_text() == "mine"


def test_a_damaged_bundle_is_refused(cli: Any, made: tuple[Path, dict[str, Any]]) -> None:
    data = made[0].read_bytes()
    made[0].write_bytes(data[: len(data) // 2])
    ended = cli("verify", str(made[0]), "--json")
    assert ended.code == 2
    assert ended.json()["verdict"] == "refused"


def test_the_platform_in_a_bundle_is_looked_at_with_the_collateral_that_it_keeps(
    cli: Any, folder: Path, made: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    policy = _policy(cli, folder, tmp_path / "own.toml", trust='endorsements = ["stapled"]')
    ended = cli("tcb", str(made[0]), "--at", WHEN, "--no-early", "--policy", policy, "--json")
    assert ended.code == 0, ended.err
    assert (ended.json()["tee"], ended.json()["now"]["status"]) == ("tdx", "UpToDate")


def test_a_verdict_by_the_bundles_own_policy_says_so_in_its_first_line_and_sends_nobody_to_a_server(
    cli: Any, folder: Path, tmp_path: Path
) -> None:
    """Whoever made the bundle chose the policy: a green word alone would be hers."""
    path, policy = str(tmp_path / "own.bundle"), _policy(cli, folder, tmp_path / "own.toml")
    quote = ("bundle", str(folder / "quote.bin"), "--policy", policy)
    assert cli(*quote, "--endorsements", str(folder / "collateral"), "--at", WHEN, "-o", path).code == 0
    replayed = cli("verify", path, "--at", WHEN)
    assert replayed.code == 0
    assert "VERIFIED  the evidence is genuine and satisfies the policy that the bundle brings, not one of yours" in (
        replayed.out
    )
    assert "next  judge it by a policy of your own" in replayed.out
    mine = cli("verify", path, "--policy", policy, "--at", WHEN)
    assert "VERIFIED  the evidence is genuine and satisfies the policy\n" in mine.out
    assert "next  nothing was met to speak to" in mine.out


def _policy(cli: Any, folder: Path, path: Path, trust: str = "") -> str:
    """A policy for this quote's firmware."""
    mr_td = cli("inspect", str(folder / "quote.bin"), "--json").json()["claims"]["mr_td"]
    rest = 'not_compared = ["rtmr0", "rtmr1", "rtmr2", "rtmr3"]'
    path.write_text(f'[trust]\n{trust}\n[policy]\nmr_td = "{mr_td}"\n{rest}\n')
    return str(path)
