"""The official conformance suite, the Inspector and reference servers through the attested path.

A few scenarios run always, all else with `make test-slow`. Skipped by name where a program is absent: `outside.py` in
this folder fetches them.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))
import inspector_cli as inspector
import outside
import reference
import suite

FEW = {
    "2025-11-25": ["tools-call-elicitation", "dns-rebinding-protection"],
    "2026-07-28": ["input-required-result-multi-round", "dns-rebinding-protection"],
}


@pytest.fixture
def _suite() -> None:
    try:
        suite.suite_command()
        suite.everything()
    except suite.Missing as missing:
        pytest.skip(str(missing))


@pytest.mark.usefixtures("_suite")
@pytest.mark.parametrize("revision", suite.REVISIONS)
def test_a_few_scenarios_pass_before_a_wrapped_process(revision: str, tmp_path: Path) -> None:
    with suite.Way("stdio", revision, tmp_path) as url:
        found = suite.examine(url, revision, FEW[revision], tmp_path)
    assert sorted(found.scenarios) == sorted(FEW[revision])
    assert all(passed and not failed for passed, failed in found.scenarios.values()), found.scenarios


@pytest.mark.slow
@pytest.mark.usefixtures("_suite")
@pytest.mark.parametrize("revision", suite.REVISIONS)
def test_no_scored_scenario_is_worse_than_directly(revision: str, tmp_path: Path) -> None:
    found = {}
    for way in suite.WAYS:
        (tmp_path / way).mkdir()
        with suite.Way(way, revision, tmp_path / way) as url:
            found[way] = suite.examine(url, revision, (), tmp_path / way)
    assert found["direct"].checks[1] > 80
    assert not [
        (way, found_worse)
        for way, outcome in found.items()
        if (found_worse := suite.worse(way, outcome, found["direct"]))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("server", reference.SERVERS, ids=lambda server: server.name)
def test_a_reference_server_says_the_same_through_us(server: reference.Server, tmp_path: Path) -> None:
    try:
        server.command(tmp_path)
    except suite.Missing as missing:
        pytest.skip(str(missing))
    ways = 0
    for way, count, found in reference.compare(server):
        assert (way, found) == (way, [])
        assert count >= 4
        ways += 1
    assert ways == 2


@pytest.mark.slow
@pytest.mark.parametrize("era", inspector.ERAS)
def test_the_inspector_sees_the_same_through_us(era: str, tmp_path: Path) -> None:
    if outside.npm_program("@modelcontextprotocol/inspector") is None:
        pytest.skip("the Inspector is absent: tests/conformance/outside.py")
    assert inspector.run(tmp_path, era) == 0
