"""JSON with comments, read with the place of every value, and edited where it stands: no other byte changes.

Comments (`//`, `/* */`) and trailing commas are what editors allow in such files; keys that stand twice are refused.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)|(?P<comment>//[^\r\n]*|/\*.*?\*/)|(?P<mark>[{}\[\],:])|(?P<word>[-+.\w]+)"
    r'|(?P<string>"(?:[^"\\\x00-\x1f]|\\.)*")',
    re.DOTALL,
)
_DEPTH = 200


class BadSyntax(Exception):
    """What is wrong, and in which line, from 1."""

    def __init__(self, problem: str, line: int) -> None:
        super().__init__(f"line {line}: {problem}")


@dataclass(slots=True)
class Node:
    """A value with its span. `members` are those of an object, in order; `value` is the value as plain data."""

    start: int
    end: int
    value: Any
    members: dict[str, Member] = field(default_factory=dict)
    is_object: bool = False


@dataclass(slots=True)
class Member:
    """A key with its value. `comma` is the offset of the comma that follows, or None."""

    start: int
    node: Node
    comma: int | None = None


@dataclass(slots=True)
class _Token:
    kind: str
    text: str
    start: int
    end: int


def parse(text: str) -> Node:
    """The one value of `text`. Raises: BadSyntax."""
    reader = _Reader(text)
    node = reader.value(0)
    if (rest := reader.peek()) is not None:
        raise reader.bad(f"wanted the end, seen {rest.text!r:.40}", rest.start)
    return node


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 1 if text.startswith("\ufeff") else 0

    def bad(self, problem: str, at: int) -> BadSyntax:
        return BadSyntax(problem, self._text.count("\n", 0, at) + 1)

    def peek(self) -> _Token | None:
        """The next token that is no space and no comment."""
        while self._at < len(self._text):
            found = _TOKEN.match(self._text, self._at)
            if found is None:
                raise self.bad(f"unexpected {self._text[self._at]!r}", self._at)
            if found.lastgroup not in ("space", "comment"):
                return _Token(str(found.lastgroup), found.group(), found.start(), found.end())
            self._at = found.end()
        return None

    def take(self, wanted: str) -> _Token:
        token = self.peek()
        if token is None:
            raise self.bad(f"wanted {wanted}, seen the end", len(self._text))
        self._at = token.end
        return token

    def value(self, depth: int) -> Node:
        token = self.take("a value")
        if depth > _DEPTH:
            raise self.bad(f"nested more than {_DEPTH} deep", token.start)
        if token.text == "{":
            return self._object(token, depth)
        if token.text == "[":
            return self._array(token, depth)
        if token.kind not in ("string", "word"):
            raise self.bad(f"wanted a value, seen {token.text!r}", token.start)
        return Node(token.start, token.end, self._plain(token))

    def _plain(self, token: _Token) -> Any:
        try:
            return json.loads(token.text, parse_constant=_refuse)
        except ValueError as error:
            raise self.bad(f"wanted a value, seen {token.text!r:.40}", token.start) from error

    def _object(self, opening: _Token, depth: int) -> Node:
        node = Node(opening.start, opening.end, {}, is_object=True)
        while True:
            key = self.take("a key or }")
            if key.text == "}":
                node.end = key.end
                return node
            if key.kind != "string":
                raise self.bad(f'wanted a key in quotes or "}}", seen {key.text!r:.40}', key.start)
            name = str(self._plain(key))
            if name in node.members:
                raise self.bad(f"the key {name!r:.40} stands here a second time", key.start)
            if (colon := self.take('":"')).text != ":":
                raise self.bad(f'wanted ":" after the key, seen {colon.text!r:.40}', colon.start)
            member = Member(key.start, self.value(depth + 1))
            node.members[name] = member
            node.value[name] = member.node.value
            member.comma = self._comma("}")

    def _array(self, opening: _Token, depth: int) -> Node:
        node = Node(opening.start, opening.end, [])
        while (token := self.peek()) is None or token.text != "]":
            node.value.append(self.value(depth + 1).value)
            self._comma("]")
        node.end = self.take("]").end
        return node

    def _comma(self, closing: str) -> int | None:
        token = self.peek()
        if token is not None and token.text == ",":
            self._at = token.end
            return token.start
        if token is None or token.text != closing:
            seen = "the end" if token is None else repr(token.text)[:40]
            raise self.bad(f'wanted "," or "{closing}", seen {seen}', token.start if token else len(self._text))
        return None


def _refuse(name: str) -> None:
    raise ValueError(name)


def comments(text: str) -> list[str]:
    """Every comment of a text that can be parsed, in order."""
    return [found.group() for found in _TOKEN.finditer(text) if found.lastgroup == "comment"]


# Edits: they give the new text


@dataclass(frozen=True, slots=True)
class Style:
    """How the file is written: one step of indentation, and its line ends."""

    step: str
    newline: str


def style_of(text: str) -> Style:
    """The first indentation met, else two spaces; the first line end met, else LF."""
    indented = re.search(r"\n([ \t]+)\S", text)
    step = indented.group(1) if indented else "  "
    return Style(step="\t" if step.startswith("\t") else step, newline="\r\n" if "\r\n" in text else "\n")


def insert(text: str, parent: Node, name: str, value: object, depth: int) -> str:
    """Add a member at the end of the object `parent`, whose own members stand `depth` steps deep."""
    style = style_of(text)
    closing = parent.end - 1
    at = _end_of_content(text, parent)
    member = f"{json.dumps(name, ensure_ascii=False)}: {_written(value, style, depth)}"
    lead = style.newline + style.step * depth
    tail = "" if "\n" in text[at:closing] else style.newline + style.step * (depth - 1)
    last = next(reversed(parent.members.values()), None)
    if last is None or last.comma is not None:
        return text[:at] + lead + member + tail + text[at:]
    end = last.node.end
    return text[:end] + "," + text[end:at] + lead + member + tail + text[at:]


def replace(text: str, member: Member, value: object, depth: int) -> str:
    """Put another value in the place of a member's, which stands `depth` steps deep."""
    return text[: member.node.start] + _written(value, style_of(text), depth) + text[member.node.end :]


def remove(text: str, parent: Node, name: str) -> str:
    """Take a member out, with one comma and the space before it; comments stay."""
    member = parent.members[name]
    names = list(parent.members)
    before = parent.members[names[names.index(name) - 1]] if names.index(name) else None
    start = _end_of_content(text, parent, member.start)
    rest = text[member.node.end :]
    if member.comma is not None:
        rest = text[member.node.end : member.comma] + text[member.comma + 1 :]
    kept = text[:start]
    if member.comma is None and before is not None and before.comma is not None:
        kept = text[: before.comma] + text[before.comma + 1 : start]
    if _ends_in_line_comment(kept) and not re.match(r"[ \t]*\r?\n", rest):
        kept += style_of(text).newline
    if before is None and member.comma is None and not _has_comment(text, parent):
        rest = rest.lstrip(" \t\r\n")
    return kept + rest


def _end_of_content(text: str, parent: Node, limit: int | None = None) -> int:
    """The end of the last token or comment inside `parent` before `limit` (or its closing brace)."""
    stop = parent.end - 1 if limit is None else limit
    at, end = parent.start + 1, parent.start + 1
    while at < stop and (found := _TOKEN.match(text, at)) is not None:
        at = found.end()
        if found.lastgroup != "space":
            end = at
    return end


def _has_comment(text: str, parent: Node) -> bool:
    return bool(comments(text[parent.start : parent.end]))


def _ends_in_line_comment(text: str) -> bool:
    line = text[text.rfind("\n") + 1 :]
    found = comments(line)
    return bool(found) and found[-1].startswith("//") and line.endswith(found[-1])


def _written(value: object, style: Style, depth: int) -> str:
    """JSON as hosts write it: an object over several lines, a list of words in one."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value, ensure_ascii=False)
    inner = style.step * (depth + 1)
    lines = [
        f"{inner}{json.dumps(name, ensure_ascii=False)}: {_written(item, style, depth + 1)}"
        for name, item in value.items()
    ]
    joined = f",{style.newline}".join(lines)
    return f"{{{style.newline}{joined}{style.newline}{style.step * depth}}}"
