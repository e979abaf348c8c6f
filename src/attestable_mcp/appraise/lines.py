"""Where each key of a TOML text stands.

`tomllib` gives values without places, and an error about a policy must name the line. This scanner walks a text that
`tomllib` has already accepted, so it need not judge grammar; it follows tables, arrays of tables, dotted and quoted
keys, inline tables, and arrays and strings over many lines (TOML 1.0.0).
"""

from __future__ import annotations

import tomllib
from bisect import bisect_left

KeyPath = tuple[str | int, ...]
"""Keys from the root; the integers are places in arrays."""


def key_lines(text: str) -> dict[KeyPath, int]:
    """Give the line, counted from 1, of every table, key and array element of a valid TOML `text`."""
    return _Scanner(text.replace("\r\n", "\n")).run()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self.newlines = [place for place, letter in enumerate(text) if letter == "\n"]
        self.arrays: dict[KeyPath, int] = {}

    def run(self) -> dict[KeyPath, int]:
        prefix: KeyPath = ()
        self._blank()
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                prefix = self._header()
            else:
                self._pair(prefix)
            self._blank()
        return self.lines

    def _mark(self, path: KeyPath, at: int) -> None:
        self.lines.setdefault(path, bisect_left(self.newlines, at) + 1)

    def _blank(self) -> None:
        """Skip spaces, newlines and comments."""
        while self.at < len(self.text) and self.text[self.at] in " \t\n#":
            if self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                self.at += 1

    def _header(self) -> KeyPath:
        start, double = self.at, self.text.startswith("[[", self.at)
        self.at += 2 if double else 1
        *parents, last = self._dotted()
        self.at += 2 if double else 1
        path: KeyPath = ()
        for part in parents:
            path = (*path, part)
            self._mark(path, start)
            path = self._enter(path)
        path = (*path, last)
        if double:
            self._mark(path, start)
            self.arrays[path] = self.arrays.get(path, -1) + 1
            path = self._enter(path)
        self._mark(path, start)
        return path

    def _enter(self, path: KeyPath) -> KeyPath:
        return (*path, self.arrays[path]) if path in self.arrays else path

    def _dotted(self) -> list[str]:
        parts = []
        while True:
            self._spaces()
            parts.append(self._key())
            self._spaces()
            if self.text[self.at] != ".":
                return parts
            self.at += 1

    def _spaces(self) -> None:
        while self.text[self.at] in " \t":
            self.at += 1

    def _key(self) -> str:
        start = self.at
        if self.text[start] in "\"'":
            self._string()
            return str(tomllib.loads("k = " + self.text[start : self.at])["k"])
        while self.text[self.at].isalnum() or self.text[self.at] in "_-":
            self.at += 1
        return self.text[start : self.at]

    def _pair(self, prefix: KeyPath) -> None:
        start, path = self.at, prefix
        for part in self._dotted():
            path = (*path, part)
            self._mark(path, start)
        self.at += 1  # the equals sign
        self._spaces()
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        letter = self.text[self.at]
        if letter in "\"'":
            self._string()
        elif letter == "[":
            self._array(path)
        elif letter == "{":
            self._inline(path)
        else:
            while self.at < len(self.text) and self.text[self.at] not in ",]}#\n":
                self.at += 1

    def _array(self, path: KeyPath) -> None:
        self.at += 1
        self._blank()
        index = 0
        while self.text[self.at] != "]":
            self._mark((*path, index), self.at)
            self._value((*path, index))
            self._comma()
            index += 1
        self.at += 1

    def _inline(self, path: KeyPath) -> None:
        self.at += 1
        self._blank()
        while self.text[self.at] != "}":
            self._pair(path)
            self._comma()
        self.at += 1

    def _comma(self) -> None:
        self._blank()
        if self.text[self.at] == ",":
            self.at += 1
            self._blank()

    def _string(self) -> None:
        quote = self.text[self.at]
        triple = self.text.startswith(quote * 3, self.at)
        mark = quote * 3 if triple else quote
        self.at += len(mark)
        while not self.text.startswith(mark, self.at):
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
        self.at += len(mark)
        while triple and self.text.startswith(quote, self.at):  # one or two quotes may stand before the closing three
            self.at += 1
