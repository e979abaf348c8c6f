"""Edits of JSON with comments: whatever the file looks like, the rest of it stays, and what was put in comes out."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attestable_mcp.cli.hosts import jsonc

SPACE = st.lists(
    st.sampled_from([" ", "\n", "\r\n", "\t", "// c, { \"\n", "/* d } */", "//\n"]), max_size=3
).map("".join)  # fmt: skip
KEYS = st.text(st.sampled_from('ab"\\/*{}é'), max_size=3).map(lambda text: json.dumps(text, ensure_ascii=False))
SCALARS = st.sampled_from(["1", "-2.5e3", "true", "null", '"//"', '"a,}"', '"\\u00e9"'])


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    kind = draw(st.integers(0, 2)) if depth else 0
    if kind == 0:
        return draw(SCALARS)
    opening, closing = "{}" if kind == 1 else "[]"
    items = []
    for key in draw(st.lists(KEYS, max_size=3, unique=True)):
        value = draw(SPACE) + draw(values(depth - 1)) + draw(SPACE)
        items.append(draw(SPACE) + (f"{key}{draw(SPACE)}:{value}" if kind == 1 else value))
    end = "," + draw(SPACE) if items and draw(st.booleans()) else draw(SPACE)
    return opening + ",".join(items) + end + closing


@st.composite
def files(draw: st.DrawFn) -> str:
    return draw(SPACE) + draw(values(3).filter(lambda text: text.startswith("{"))) + draw(SPACE)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(files())
def test_a_member_put_in_comes_out_and_nothing_else_moves(text: str) -> None:
    root = jsonc.parse(text)
    entry = {"command": "x", "args": ["connect"]}
    new = jsonc.insert(text, root, "ours", entry, 1)
    read = jsonc.parse(new)
    assert read.value == root.value | {"ours": entry}
    assert list(read.members) == [*root.members, "ours"]
    assert jsonc.comments(new) == jsonc.comments(text)
    back = jsonc.remove(new, read, "ours")
    assert jsonc.parse(back).value == root.value
    assert jsonc.comments(back) == jsonc.comments(text)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(files(), st.data())
def test_any_member_can_be_replaced_or_taken_out(text: str, data: st.DataObject) -> None:
    root = jsonc.parse(text)
    if not root.members:
        return
    name = data.draw(st.sampled_from(list(root.members)))
    rest = {key: value for key, value in root.value.items() if key != name}
    assert jsonc.parse(jsonc.remove(text, root, name)).value == rest
    changed = jsonc.parse(jsonc.replace(text, root.members[name], {"x": 1}, 1))
    assert changed.value == root.value | {name: {"x": 1}}
    assert list(changed.members) == list(root.members)


@settings(max_examples=100)
@given(st.text(st.sampled_from('{}[]:,"\\/* \n1atrue'), max_size=30))
def test_anything_at_all_is_read_or_refused_with_a_line(text: str) -> None:
    assert refusal(text) is None or str(refusal(text)).startswith("line ")


def refusal(text: str) -> jsonc.BadSyntax | None:
    try:
        jsonc.parse(text)
    except jsonc.BadSyntax as error:
        return error
    return None
