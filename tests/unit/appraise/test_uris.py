"""What a resource's URI may be taken for."""

from __future__ import annotations

import hashlib
import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestable_mcp.appraise.rule import Allow, Rule
from attestable_mcp.appraise.server_policy import ServerPolicy
from attestable_mcp.appraise.uris import folded_pattern, may_lead_to, readings
from attestable_mcp.limits import LIMITS

SAME = [
    "LEDGER://accounts/7", "ledger://Accounts/7", "ledger://accounts/%37", "ledger://%61ccounts/7",
    "ledger://accounts%2f7", "ledger:accounts/7", "ledger:/accounts/7", "ledger:///accounts/7",
    "ledger://accounts//7", "ledger://accounts/7/", "ledger://accounts/7#part", "ledger://accounts/7?x=y",
    "ledger://accounts/7%3Fx=y", "ledger://accounts/7%23x", "ledger://me@accounts/7", "ledger://me%40accounts/7",
    "ledger://accounts:/7", "ledger://accounts./7", "ledger://accounts。/7", "ledger://ａccounts/7",
    "ledger://accounts/７", "ledger://accounts/7/?", "lEdGeR:%2f%2faccounts/7", "ledger://me:pw@accounts/7?x#y",
]  # fmt: skip
NONE = [
    "", " ledger://accounts/7", "ledger://accounts/7\n", "ledger://acc\tounts/7", "ledger://acc\u00adounts/7",
    "ledger://x/../accounts/7", "ledger://x/%2e%2E/accounts/7", "ledger://accounts/./7", "ledger://x/..;/accounts/7",
    "ledger://x/．．/accounts/7", "ledger://accounts/..", "ledger://x\\accounts/7", "ledger://x%5caccounts/7",
    "ledger://accounts/%2537", "ledger://accounts/%3", "ledger://accounts/%zz", "ledger://accounts/%ff",
    "ledger://accounts/7%00", "ledger://accounts/%C2%AD7", "ledger://accounts/\ud800",
    "x:" + "a" * LIMITS.resource_uri,
]  # fmt: skip


@pytest.mark.parametrize("uri", SAME)
def test_another_spelling_has_the_same_reading_among_others(uri: str) -> None:
    assert "ledger:accounts/7" in readings(uri)
    assert readings(uri)[0] == uri


@pytest.mark.parametrize("rule", ["ledger://accounts/7", "ledger://accounts/*", "LEDGER:/Accounts/?"])
@pytest.mark.parametrize("uri", ["ledger://accounts/7", *SAME, *NONE])
def test_none_of_them_gets_past_a_rule(uri: str, rule: str) -> None:
    allow = Allow(token_sha256=hashlib.sha256(b"word").hexdigest())
    policy = ServerPolicy(resources=(Rule(name=rule, allow=(allow,)),))
    assert not policy.allows("resource", uri, None, "another")
    assert policy.allows("resource", uri, None, "word") == (uri not in NONE)


@pytest.mark.parametrize("uri", NONE)
def test_what_readers_could_take_for_quite_different_things_has_no_reading(uri: str) -> None:
    assert readings(uri) == ()


def test_ports_and_names_that_go_without_saying() -> None:
    assert "https:h/x" in readings("https://H:443/x")
    assert "https:h:80/x" in readings("https://h:80/x")
    assert "file:etc/x" in readings("file://localhost/etc/x")
    assert "file:etc/x" in readings("file:/etc/x")
    assert "note:grösse" in readings("note://Gr%C3%B6%C3%9Fe")
    assert "note:grösse" in readings("note://Gro\u0308ße")


@given(st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=20), st.data())
def test_no_encoding_of_a_uri_hides_it(name: str, data: st.DataObject) -> None:
    ways = [[sign, sign.upper(), sign.lower(), quote(sign), f"%{ord(sign):02x}"] for sign in name]
    spelt = "".join(data.draw(st.sampled_from(way)) for way in ways)
    assert set(readings(f"x://{spelt}")) & {f"x:{name.casefold()}"}


def test_patterns_are_folded_alike_and_must_be_plain() -> None:
    assert folded_pattern("Ledger://Accounts/*") == "ledger:accounts/*"
    assert folded_pattern("file:///my%20notes/?") == "file:my notes/?"
    assert folded_pattern("*") == "*"
    for odd in ("x://a/../*", "x://a#b", "x://{name}", "x://%2A", "x://a%3fb", "x://%5b", "x:\\a", " x://a", "x://%25"):
        assert folded_pattern(odd) is None, odd


def test_a_template_leads_to_whatever_begins_like_it() -> None:
    for template in ("ledger://{name}", "{scheme}://x", "ledger://accounts/{id}", "Ledger://acc{rest}", "x/../{y}"):
        assert may_lead_to(template, "ledger:accounts/*"), template
    for template in ("ledger://public/{id}", "other://{name}", "file:///{path}"):
        assert not may_lead_to(template, "ledger:accounts/*"), template
    assert may_lead_to("other://{name}", "*")
