"""The `[deployment]` section, and its judgement of what was proven."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from attestable_mcp.appraise.deployment import HINTS, DeploymentPolicy, judge_deployment
from attestable_mcp.appraise.policy import Policy
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.rats import Deployment, Outcome, RevocationList

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
OWNER, KEY = "ab" * 32, "cd" * 32
SEEN = Deployment(
    owner=OWNER, name="prod", hosts=("mcp.example",), key=KEY, serial=7,
    not_before=NOW - timedelta(days=1), not_after=NOW + timedelta(days=1),
)  # fmt: skip
LIST = RevocationList(owner=OWNER, name="prod", number=3, issued_at=NOW - timedelta(hours=2))
WANTED = DeploymentPolicy(owners=(OWNER,), name="prod")
TOML = f'[policy]\nmrenclave = "{"00" * 32}"\n'


def code(seen=SEEN, policy=WANTED, host="mcp.example", at=NOW, lists=()) -> str:
    findings = judge_deployment(seen, policy, host=host, at=at, lists=lists)
    assert findings
    return next((f.code for f in findings if f.outcome is Outcome.FAIL), "")


def test_the_owners_deployment_passes():
    assert code() == ""
    assert code(host="MCP.EXAMPLE") == ""
    assert code(host=None) == ""
    assert code(policy=replace(WANTED, name=None)) == ""
    assert code(policy=replace(WANTED, owners=("11" * 32, OWNER.upper()))) == ""
    assert code(host="10.0.0.7", policy=replace(WANTED, host="mcp.example")) == ""
    assert code(lists=(LIST,), policy=replace(WANTED, max_revocation_age=7201.0)) == ""


CASES = {
    "no grant": ({"seen": None}, "wrong_deployment"),
    "another owner": ({"seen": replace(SEEN, owner="ef" * 32)}, "wrong_deployment"),
    "another name": ({"seen": replace(SEEN, name="test")}, "wrong_deployment"),
    "another host": ({"host": "evil.example"}, "wrong_deployment"),
    "a host that only begins alike": ({"host": "mcp.example.evil"}, "wrong_deployment"),
    "over": ({"at": NOW + timedelta(days=2)}, "grant_expired"),
    "not yet": ({"at": NOW - timedelta(days=2)}, "grant_not_yet_valid"),
    "an old serial": ({"policy": replace(WANTED, min_serial=8)}, "grant_serial_too_low"),
    "serial below": ({"lists": (replace(LIST, minimum_serial=8),)}, "grant_revoked"),
    "serial listed": ({"lists": (replace(LIST, serials=(7,)),)}, "grant_revoked"),
    "key listed": ({"lists": (replace(LIST, keys=(KEY,)),)}, "grant_revoked"),
    "stapled": ({"seen": replace(SEEN, revocations=replace(LIST, serials=(7,)))}, "grant_revoked"),
    "an older list is stapled": (
        {"seen": replace(SEEN, revocations=replace(LIST, number=2)), "lists": (replace(LIST, serials=(7,)),)},
        "grant_revoked",
    ),
    "another list of that number is stapled": (
        {"seen": replace(SEEN, revocations=LIST), "lists": (replace(LIST, serials=(7,)),)},
        "grant_revoked",
    ),
    "a list from a time to come": (
        {
            "policy": replace(WANTED, max_revocation_age=60.0),
            "lists": (replace(LIST, issued_at=NOW + timedelta(hours=1)),),
        },
        "revocation_list_stale",
    ),
    "no list": ({"policy": replace(WANTED, max_revocation_age=60.0)}, "revocation_list_missing"),
    "an old list": (
        {"policy": replace(WANTED, max_revocation_age=60.0), "lists": (LIST,)},
        "revocation_list_stale",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_anything_else_is_refused_with_its_code(name):
    given, wanted = CASES[name]
    assert code(**given) == wanted
    assert HINTS[wanted]


def test_lists_of_others_say_nothing():
    foreign = (replace(LIST, owner="00" * 32, serials=(7,)), replace(LIST, name="test", serials=(7,)))
    assert code(lists=foreign) == ""


def test_the_section_is_read(tmp_path):
    text = TOML + (
        f'[deployment]\nowner = "{OWNER}"\nname = "prod"\nhost = "MCP.example"\nmin_serial = 3\n'
        'revocations = "list.pem"\nmax_revocation_age = "2d"\n'
    )
    found = Policy.from_toml(text, base=tmp_path).deployment
    assert found == DeploymentPolicy(
        owners=(OWNER,), name="prod", host="mcp.example", min_serial=3,
        revocations=str(tmp_path / "list.pem"), max_revocation_age=172800.0,
    )  # fmt: skip
    assert Policy.from_toml(TOML).deployment is None


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('name = "prod"', "owner's key is missing"),
        ('owner = "abc"', "line 4"),
        ("owner = []", "is empty"),
        (f'owner = "{OWNER}"\nname = ""', "is empty"),
        (f'owner = "{OWNER}"\nhosts = "x"', "unknown key"),
        (f'owner = "{OWNER}"\nmax_revocation_age = 0', "line 5"),
        (f'owner = "{OWNER}"\nmin_serial = -1', "line 5"),
    ],
)
def test_a_wrong_section_names_its_line(line, words):
    with pytest.raises(ConfigurationError) as caught:
        Policy.from_toml(TOML + "[deployment]\n" + line, "p.toml")
    assert words in caught.value.message
    assert "p.toml" in caught.value.message


def test_an_empty_section_is_no_section_left_out():
    with pytest.raises(ConfigurationError):
        Policy.from_toml(TOML + "[deployment]\n")
