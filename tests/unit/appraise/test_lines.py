"""The line of every key of a TOML text."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestable_mcp.appraise.lines import KeyPath, key_lines

TEXT = '''# a comment with [brackets] and key = value

[trust]
anchors = ["intel", # one
  "a.pem",

  "b.pem"]
max_age = "10m"

[policy]
note = """
mrenclave = "not a key"
"""""
single = \'\'\'
[not.a.table]
\'\'\'
"quoted \\u006bey" = 1
'literal # key' = 2
inline = { a = 1, b = [1, { c = 2 }], "d" = "}" }
dotted . key.deep = 3

[[policy.accept]]
name = "one"
[policy.accept.inner]
x = 1

[[policy.accept]]
name = "two"
[policy.accept.inner]
x = 2
'''


def test_every_kind_of_place_has_its_line() -> None:
    lines = key_lines(TEXT)
    assert tomllib.loads(TEXT)  # the text is what the scanner expects: valid TOML
    wanted: dict[KeyPath, int] = {
        ("trust",): 3, ("trust", "anchors"): 4, ("trust", "anchors", 0): 4, ("trust", "anchors", 1): 5,
        ("trust", "anchors", 2): 7, ("trust", "max_age"): 8, ("policy",): 10, ("policy", "note"): 11,
        ("policy", "single"): 14, ("policy", "quoted key"): 17, ("policy", "literal # key"): 18,
        ("policy", "inline"): 19, ("policy", "inline", "b", 1, "c"): 19, ("policy", "inline", "d"): 19,
        ("policy", "dotted"): 20, ("policy", "dotted", "key", "deep"): 20, ("policy", "accept"): 22,
        ("policy", "accept", 0): 22, ("policy", "accept", 0, "name"): 23, ("policy", "accept", 0, "inner"): 24,
        ("policy", "accept", 0, "inner", "x"): 25, ("policy", "accept", 1): 27, ("policy", "accept", 1, "name"): 28,
        ("policy", "accept", 1, "inner"): 29, ("policy", "accept", 1, "inner", "x"): 30,
    }  # fmt: skip
    assert {path: lines.get(path) for path in wanted} == wanted


def test_a_line_inside_a_string_is_no_key() -> None:
    lines = key_lines(TEXT)
    assert ("policy", "mrenclave") not in lines
    assert ("not", "a", "table") not in lines


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_both_line_endings_count_alike(ending: str) -> None:
    assert key_lines(ending.join(["[a]", "", "b = 1"]))["a", "b"] == 3


def test_no_newline_at_the_end() -> None:
    assert key_lines("a = 1 # x") == {("a",): 1}
    assert key_lines("") == {}


def _paths(value: Any, at: KeyPath = ()) -> list[KeyPath]:
    if isinstance(value, dict):
        return [path for key, inner in value.items() for path in [(*at, key), *_paths(inner, (*at, key))]]
    if isinstance(value, list):
        return [path for index, inner in enumerate(value) for path in [(*at, index), *_paths(inner, (*at, index))]]
    return []


_KEYS = st.one_of(st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True), st.sampled_from(['"a b"', "'c#d'", '"e\\"f"']))
_SCALARS = st.sampled_from(
    ['"x # y"', "'[z'", "1", "-2.5", "true", "1979-05-27T07:32:00Z", '"""a\nb"""', "'''c\n'd'''", '"\\\\"']
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[" + ", # c\n".join(items) + "\n]"),
        st.dictionaries(_KEYS, inner.filter(lambda text: "\n" not in text), max_size=3).map(
            lambda items: "{" + ", ".join(f"{key} = {value}" for key, value in items.items()) + "}"
        ),
    ),
    max_leaves=6,
)
_TABLES = st.lists(
    st.tuples(st.booleans(), st.lists(_KEYS, min_size=1, max_size=3), st.lists(st.tuples(_KEYS, _VALUES), max_size=4)),
    max_size=5,
)


@given(_TABLES)
def test_every_key_that_tomllib_finds_has_a_line(tables: list[tuple[bool, list[str], list[tuple[str, str]]]]) -> None:
    text = ""
    for double, header, pairs in tables:
        name = ".".join(header)
        text += f"[[{name}]]\n" if double else f"[{name}]\n"
        text += "".join(f"{key} = {value} # tail\n" for key, value in pairs)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines = key_lines(text)
    assert set(_paths(document)) == set(lines)
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())
