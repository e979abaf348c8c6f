"""A server's policy for clients: which are served, and who may list and call which tool."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.appraise.reattest import ReattestPolicy
from attestable_mcp.appraise.rule import Allow, Rule
from attestable_mcp.appraise.server_policy import ServerPolicy
from attestable_mcp.errors import ConfigurationError
from attestable_mcp.rats import Caller, Deployment, Verdict

BILLING, OWNER, KEY = "02" * 32, "ab" * 32, "cd" * 32
BASE = f"""clients = "required"
again = "10m"
[[policy.accept]]
name = "billing"
mrenclave = "{BILLING}"
[deployment]
owner = "{OWNER}"
"""
NOW = datetime(2026, 11, 21, tzinfo=UTC)
HELD = Deployment(owner=OWNER, name="prod", hosts=("h",), key=KEY, serial=1, not_before=NOW, not_after=NOW)
CALLER = Caller(
    verdict=Verdict.VERIFIED, tee="sgx", release="billing", code={"mrenclave": BILLING}, claims={}, key="00",
    transcript="00", simulated=True, deployment=HELD,
)  # fmt: skip


def rule(allow: str) -> ServerPolicy:
    return ServerPolicy.from_toml(BASE + f'[[tool]]\nname = "pay"\nallow = [{allow}]\n', "c.toml")


TOKEN = hashlib.sha256(b"word").hexdigest()
HOLDS = {
    '{ client = "billing" }': (CALLER, None),
    f'{{ measurement = "{BILLING.upper()}" }}': (CALLER, None),
    '{ deployment = "prod" }': (CALLER, None),
    f'{{ deployment_key = "{KEY}" }}': (CALLER, None),
    f'{{ token_sha256 = "{TOKEN}" }}': (None, "word"),
    "{ attested = true }": (CALLER, None),
    f'{{ client = "billing", token_sha256 = "{TOKEN}" }}': (CALLER, "word"),
    f'{{ measurement = "ff" }}, {{ token_sha256 = "{TOKEN}" }}': (None, "word"),
}


@pytest.mark.parametrize("allow", HOLDS)
def test_an_entry_holds_for_its_client_and_no_other(allow: str) -> None:
    policy = rule(allow)
    caller, token = HOLDS[allow]
    assert policy.allows("tool", "pay", caller, token)
    stranger = replace(CALLER, release="other", code={"mrenclave": "03" * 32}, deployment=None)
    assert not policy.allows("tool", "pay", None, "other word")
    assert policy.allows("tool", "pay", stranger, None) == (allow == "{ attested = true }")
    assert policy.allows("tool", "look", None, None)  # no table names it


@pytest.mark.parametrize("field", ["name", "key"])
def test_another_deployment_is_another_client(field: str) -> None:
    policy = rule(f'{{ deployment = "prod", deployment_key = "{KEY}" }}')
    assert not policy.allows("tool", "pay", replace(CALLER, deployment=replace(HELD, **{field: "11" * 32})), None)


@pytest.mark.parametrize("name", ["host_data", "family_id", "mr_owner", "mr_config_id", "configid", "attributes"])
def test_what_a_host_chooses_is_no_measurement(name: str) -> None:
    """Whoever launches a TEE could write the wanted value there."""
    policy = rule(f'{{ measurement = "{BILLING}" }}')
    assert not policy.allows("tool", "pay", replace(CALLER, code={"measurement": "03" * 48, name: BILLING}), None)
    for measured in ("mrenclave", "mr_td", "rtmr3", "measurement", "pcr0"):
        assert policy.allows("tool", "pay", replace(CALLER, code={measured: BILLING}), None)


def test_conditions_of_one_entry_hold_together() -> None:
    policy = rule(f'{{ client = "billing", token_sha256 = "{TOKEN}" }}')
    assert not policy.allows("tool", "pay", CALLER, None)
    assert not policy.allows("tool", "pay", None, "word")


def test_the_very_name_goes_before_patterns_and_patterns_by_their_order() -> None:
    billing, token = Allow(client="billing"), Allow(token_sha256=TOKEN)
    policy = replace(
        rule("{ attested = true }"),
        tools=(Rule(name="de*", allow=(token,)), Rule(name="d*", allow=(billing,)),
               Rule(name="delete_all", allow=(billing,))),
    )  # fmt: skip
    assert policy.allows("tool", "delete_all", CALLER, None)
    assert not policy.allows("tool", "delete_one", CALLER, None)
    assert policy.allows("tool", "drop", CALLER, None)
    assert policy.allows("tool", "Drop", None, None)  # names are told apart by case


def test_a_uri_is_for_those_who_may_have_all_that_it_could_mean() -> None:
    entry = '{ token_sha256 = "%s" }'
    policy = ServerPolicy.from_toml(
        BASE + f'[[resource]]\nuri = "files://private/*"\nallow = [{{ client = "billing" }}]\n'
        f'[[resource]]\nuri = "files://*"\nallow = [{entry % TOKEN}]\n'
        '[[resource]]\nuri = "net://[::1]/*"\nallow = [{ attested = true }]\n'
    )
    assert policy.allows("resource", "files://private/key", CALLER, None)
    assert policy.allows("resource", "files://public/key", None, "word")
    assert policy.allows("resource", "net://[::1]/x", CALLER, None)
    assert not policy.allows("resource", "net://[::1]/x", None, "word"), "brackets are no set of characters"
    assert not policy.allows("resource", "FILES://private/key", None, "word")
    assert not policy.allows("resource", "files://x@private/key", CALLER, None), "as text it is one of the others"
    assert policy.allows("resource", "files://x@private/key", CALLER, "word")
    assert policy.allows("tool", "files://private/key", None, None)
    assert policy.allows("prompt", "files://private/key", None, None)
    assert policy.allows_below("other://{x}", None, None)
    assert not policy.allows_below("files://{x}", None, "word")


FAULTY = {
    'clients = "sometimes"\n': "wanted one of",
    "again = 3\n": "clients is missing",
    BASE.replace('"10m"', "0"): "wanted a time above 0",
    BASE + '[[prompt]]\nname = "x"\nallow = [{ client = "reports" }]\n': "no [[policy.accept]] table",
    BASE + '[[resource]]\nname = "x://y"\nallow = [{ attested = true }]\n': "uri is missing",
    BASE + '[[resource]]\nuri = "x://{name}"\nallow = [{ attested = true }]\n': "more than one way",
    BASE + "".join(f'[[resource]]\nuri = "{uri}"\nallow = [{{ attested = true }}]\n' for uri in ("x://y", "X:/y")):
        "has a table already",
    'clients = "required"\n': "nothing says which clients",
    'clients = "none"\n[[tool]]\nname = "x"\nallow = [{ attested = true }]\n': "nobody proves",
    BASE + '[[tool]]\nname = "x"\n': "allow is missing",
    BASE + '[[tool]]\nallow = [{ attested = true }]\n': "name is missing",
    BASE + '[[tool]]\nname = "x"\nallow = [{ attested = false }]\n': "at least one condition",
    BASE + '[[tool]]\nname = "x"\nallow = [{ client = "reports" }]\n': "no [[policy.accept]] table",
    BASE + '[[tool]]\nname = "x"\nallow = [{ token_sha256 = "abc" }]\n': "64 hex digits",
    BASE + '[[tool]]\nname = "x"\nallow = [{ mesurement = "ff" }]\n': "unknown key",
    BASE + '[[tool]]\nname = "x"\nallow = [{ attested = true }]\n' * 2: "has a table already",
    BASE.replace("[deployment]", "[ignored]"): "unknown key",
    BASE.partition("[deployment]")[0] + '[[tool]]\nname = "x"\nallow = [{ deployment = "prod" }]\n': "under an owner",
    BASE + '[trust]\nfreshness = "certificate"\n': "freshness",
}  # fmt: skip


@pytest.mark.parametrize("text", FAULTY, ids=list(FAULTY.values()))
def test_a_policy_that_cannot_mean_anything_is_an_error(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ServerPolicy.from_toml(text, "c.toml")
    assert FAULTY[text] in caught.value.message
    assert "c.toml" in caught.value.message


def test_reattest_is_read() -> None:
    text = f'[policy]\nmrenclave = "{BILLING}"\n[reattest]\n'
    read = Policy.from_toml(text + 'every = "2m"\ndestructive = false\nbefore = "pay"\n').reattest
    assert read == ReattestPolicy(every=120.0, destructive=False, before=("pay",))
    assert Policy.from_toml(text + 'every = "never"\n').reattest == ReattestPolicy(every=None)
    for fault in ('every = "often"', "every = 0", "before = []", "destructive = 1", "each = 3"):
        with pytest.raises(ConfigurationError, match="line 4"):
            Policy.from_toml(text + fault, "p.toml")
