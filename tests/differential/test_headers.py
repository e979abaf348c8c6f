"""The standard headers of the stateless era, beside the SDK's own rules."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from mcp.shared import inbound

from attestable_mcp.mcp import headers

words = st.text(max_size=8)
characters = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
tokens = st.sampled_from(["Region", "region", "X-Y", "not a token", "", "Überfluß"]) | st.integers()
types = st.sampled_from(["string", "integer", "boolean", "number", "object", ["string"], None])
leaves = st.fixed_dictionaries({"type": types}, optional={"x-mcp-header": tokens})
schemas = st.recursive(
    leaves,
    lambda inner: st.fixed_dictionaries(
        {"type": st.just("object"), "properties": st.dictionaries(st.sampled_from("abcd"), inner, max_size=3)},
        optional={"x-mcp-header": tokens, "description": words},
    ),
    max_leaves=6,
)
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | words
arguments = st.recursive(
    values, lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3), max_leaves=6
)
quick = settings(max_examples=150)


@quick
@given(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(["=?base64?eA==?=", " a", "a\t"])
)
def test_values_are_encoded_alike_and_come_back(value: str) -> None:
    assert headers.encode(value) == inbound.encode_header_value(value)
    assert inbound.decode_header_value(headers.encode(value)) == value


@quick
@given(schemas)
def test_annotations_are_found_alike_in_valid_schemas(schema: dict[str, Any]) -> None:
    if inbound.find_invalid_x_mcp_header(schema) is None:
        assert headers.mirrored(schema) == inbound.x_mcp_header_map(schema)
    else:
        assert len(headers.mirrored(schema)) <= len(inbound.x_mcp_header_map(schema))


@quick
@given(schemas, arguments)
def test_arguments_are_mirrored_alike(schema: dict[str, Any], given_arguments: Any) -> None:
    wanted = headers.mirrored(schema)
    if isinstance(given_arguments, dict):
        assert headers.params(wanted, given_arguments) == inbound.mcp_param_headers(wanted, given_arguments)


def test_a_name_that_stands_twice_mirrors_nothing() -> None:
    twice = {"properties": {name: {"type": "string", "x-mcp-header": "Region"} for name in "ab"}}
    assert headers.mirrored(twice) == {}


def test_the_names_are_the_sdks() -> None:
    assert (
        inbound.MCP_PROTOCOL_VERSION_HEADER,
        inbound.MCP_METHOD_HEADER,
        inbound.MCP_NAME_HEADER,
        inbound.MCP_PARAM_HEADER_PREFIX,
        dict(inbound.NAME_BEARING_METHODS),
    ) == (headers.VERSION, headers.METHOD, headers.NAME, headers.PARAM, headers.NAMED_BY)
