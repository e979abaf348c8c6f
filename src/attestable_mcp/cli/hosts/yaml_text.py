"""A YAML file with one mapping of entries, edited by whole lines: comments and every other line stay as they are.

PyYAML says where things stand and proves afterwards that only the entry changed. It writes nothing itself, since it
would drop comments.
"""

from __future__ import annotations

import json
from typing import Any

from attestable_mcp.cli.hosts.jsonc import BadSyntax
from attestable_mcp.errors import ConfigurationError

_STEP = "  "


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise ConfigurationError(
            "this host's configuration is YAML, and PyYAML is not installed",
            code="not_installed",
            hint="install attestable-mcp[yaml]; or add the command by the host's own means",
        ) from error
    return yaml


def load(text: str) -> dict[str, Any]:
    """The file as plain data; empty where it holds nothing. Raises: BadSyntax, ConfigurationError."""
    yaml = _yaml()
    try:
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadSyntax(str(error.problem or error.context), mark.line + 1 if mark else 1) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise BadSyntax(str(error).splitlines()[0], 1) from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise BadSyntax("wanted keys and values", 1)
    return data


def put(text: str, key: str, name: str, entry: dict[str, Any]) -> str:
    """`entry` as `name` in the mapping `key`, in the place of what stands there or at its end. Raises: BadSyntax."""
    lines, newline = text.splitlines(keepends=True), "\r\n" if "\r\n" in text else "\n"
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += newline
    parent = _member(_root(text), key)
    if parent is None:
        return "".join([*lines, f"{key}:{newline}", *_block(name, entry, _STEP, newline)])
    head, value = parent
    if value.id == "scalar" or not value.value:  # `key:`, `key: null` or `key: {}`, with what stands behind it
        line = lines[head.start_mark.line]
        lines[head.start_mark.line] = _without_value(line, head, value)
        return "".join(_with(lines, head.start_mark.line + 1, _block(name, entry, _STEP, newline)))
    _demand_block(value)
    column = value.value[0][0].start_mark.column
    block = _block(name, entry, " " * column, newline)
    known = _member(value, name)
    if known is not None:
        lines[known[0].start_mark.line : _end_line(known[1])] = block
        return "".join(lines)
    return "".join(_with(lines, _end_line(value), block))


def drop(text: str, key: str, name: str) -> str:
    """The text without the entry. Raises: BadSyntax."""
    lines = text.splitlines(keepends=True)
    parent = _member(_root(text), key)
    known = _member(parent[1], name) if parent else None
    if parent is None or known is None:
        return text
    _demand_block(parent[1])
    del lines[known[0].start_mark.line : _end_line(known[1])]
    if len(parent[1].value) == 1:
        head = parent[0].start_mark.line
        lines[head] = lines[head].replace(":", ": {}", 1)
    return "".join(lines)


def _root(text: str) -> Any:
    node = _yaml().compose(text)
    if node is not None:
        _demand_block(node)
    return node


def _demand_block(node: Any) -> None:
    if node.flow_style or node.id != "mapping":
        raise BadSyntax("wanted keys and values on lines of their own", node.start_mark.line + 1)


def _member(node: Any, name: str) -> tuple[Any, Any] | None:
    if node is None or node.id != "mapping":
        return None
    return next(((key, value) for key, value in node.value if key.value == name), None)


def _without_value(line: str, head: Any, value: Any) -> str:
    if value.start_mark.index == value.end_mark.index:
        return line
    if value.start_mark.line != head.start_mark.line or value.end_mark.line != head.start_mark.line:
        raise BadSyntax("wanted keys and values on lines of their own", value.start_mark.line + 1)
    return line[: value.start_mark.column].rstrip() + line[value.end_mark.column :]


def _end_line(node: Any) -> int:
    """The line after the last one that holds content of the node; comments below it are not its own."""
    while node.id != "scalar" and node.value and not node.flow_style:
        node = node.value[-1][1] if node.id == "mapping" else node.value[-1]
    line: int = node.end_mark.line
    return line if node.end_mark.column == 0 and node.end_mark.index > node.start_mark.index else line + 1


def _with(lines: list[str], at: int, block: list[str]) -> list[str]:
    return [*lines[:at], *block, *lines[at:]]


def _block(name: str, entry: dict[str, Any], indent: str, newline: str) -> list[str]:
    inner = indent + _STEP
    lines = [f"{indent}{_scalar(name)}:{newline}"]
    for key, value in entry.items():
        if isinstance(value, list) and value:
            lines.append(f"{inner}{key}:{newline}")
            lines += [f"{inner}- {_scalar(item)}{newline}" for item in value]
        else:
            lines.append(f"{inner}{key}: {_scalar(value)}{newline}")
    return lines


def _scalar(value: object) -> str:
    """JSON scalars, empty lists and maps are YAML as they are; plain words need no quotes."""
    if isinstance(value, str) and value.isascii() and value.replace("-", "a").replace("_", "a").isalpha():
        return json.dumps(value) if value.lower() in _WORDS else value
    return json.dumps(value, ensure_ascii=False)


_WORDS = ("true", "false", "yes", "no", "on", "off", "null", "y", "n")
