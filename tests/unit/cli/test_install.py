"""`install` and `uninstall`: each host's file, found, edited and given back; nothing of anybody else's is ever lost."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from attestable_mcp.cli.hosts.table import HOSTS, Machine
from attestable_mcp.errors import ConfigurationError

URL = "https://mcp.example:8443/mcp"
JSON_HOSTS = [name for name, host in HOSTS.items() if host.format == "json"]

PLAIN = """\
{
  "theme": "dark",
  "KEY": {
    "other": {
      "command": "npx",
      "args": ["-y", "x"]
    }
  }
}
"""
FILES: dict[str, str] = {
    "no file": "",
    "two spaces": PLAIN,
    "without our key": '{\n  "theme": "dark"\n}\n',
    "tabs and comments": (
        '// mine\n{\n\t"KEY": { // servers\n\t\t"other": {"command": "npx"}, // keep, "me": {\n\t\t/* and me */\n\t},\n'
        '\t"inputs": [1, 2,], // last\n}\n'
    ),
    "empty servers": '{"KEY": {}, "x": 1}',
    "comment alone in servers": '{\n  "KEY": {\n    // none yet\n  }\n}\n',
    "one line": '{"KEY":{"other":{"command":"npx"}}}',
    "carriage returns": PLAIN.replace("\n", "\r\n"),
    "byte order mark": "\ufeff" + PLAIN,
    "no last line end": PLAIN.rstrip("\n"),
    "four spaces": PLAIN.replace("  ", "    "),
    "an empty object": "{}",
    "a null": '{"KEY": null}\n',
    "letters of other scripts": PLAIN.replace("dark", "dunkel – 暗い"),
}
YAML_FILES: dict[str, str] = {
    "no file": "",
    "no extensions": "# top\nGOOSE_PROVIDER: x\n",
    "no last line end": "GOOSE_PROVIDER: x",
    "as goose writes": (
        "extensions:\n  developer:\n    enabled: true\n    type: builtin\n    args:\n    - a\n    - b\nGOOSE_MODEL: m\n"
    ),
    "comments everywhere": (
        "# top\nextensions: # here\n    # first\n    developer:\n        enabled: true # on\n        # inner\n"
        "    # after\n\n# below\nGOOSE_MODEL: m # model\n"
    ),
    "empty map": "extensions: {} # none\nGOOSE_MODEL: m\n",
    "nothing there": "extensions:\nGOOSE_MODEL: m\n",
    "null": "extensions: null\nGOOSE_MODEL: m\n",
    "text blocks": "extensions:\n  a:\n    description: |\n      extensions:\n        b: 1\n    on: true\nz: |\n  x\n",
    "carriage returns": "extensions:\r\n  developer:\r\n    enabled: true\r\n",
    "a mark": "---\nextensions:\n  developer:\n    enabled: true\n",
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, which is the current folder too."""
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    for name in ("XDG_CONFIG_HOME", "CLAUDE_CONFIG_DIR", "APPDATA", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.chdir(tmp_path)
    assert Machine().home == tmp_path, "a test must never reach the user's own files"
    return tmp_path


def file_of(host: str, scope: str = "user") -> Path:
    return HOSTS[host].path(Machine(), scope)  # type: ignore[arg-type]


def place(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if text:
        path.write_bytes(text.encode())


def plain(text: str) -> Any:
    """JSON with comments as data, by another reader: Python's, once comments and last commas are cut out."""
    parts: list[str] = []
    for found in re.finditer(r'"(?:[^"\\]|\\.)*"|//[^\n]*|/\*.*?\*/|.', text.lstrip("\ufeff"), re.DOTALL):
        piece = found.group()
        if piece.startswith(("//", "/*")):
            continue
        if piece in "}]":
            while parts and (parts[-1].isspace() or parts[-1] == ","):
                parts.pop()
        parts.append(piece)
    return json.loads("".join(parts)) if "".join(parts).strip() else {}


COMMON = ("no file", "two spaces")
HOST_FILES = [(host, name) for host in JSON_HOSTS for name in FILES if host == "vscode" or name in COMMON]


@pytest.mark.parametrize(("host", "name"), HOST_FILES)
def test_a_json_host_gets_its_entry_keeps_the_rest_and_gets_its_bytes_back(
    cli: Callable[..., Any], home: Path, host: str, name: str
) -> None:
    key = HOSTS[host].key
    before, path = FILES[name].replace("KEY", key), file_of(host)
    place(path, before)
    old = plain(before)
    ended = cli("install", host, "example", URL)
    assert ended.code == 0, ended.err
    after = path.read_bytes().decode()
    entry = plain(after)[key]["example"]
    assert Path(entry["command"]).is_absolute()
    assert entry["args"][-2:] == ["connect", URL]
    assert ("type" in entry) == (host in ("claude-code", "cursor", "vscode"))
    assert plain(after) == old | {key: {**(old.get(key) or {}), "example": entry}}
    for line in before.splitlines():
        for comment in ("// mine", "// servers", '// keep, "me": {', "/* and me */", "// last", "// none yet"):
            assert (comment in after) or (comment not in line)
    assert cli("install", host, "example", URL).code == 0
    assert path.read_bytes().decode() == after, "a second install changes nothing"
    if before:
        assert path.with_name(path.name + ".attestable-mcp.bak").read_bytes().decode() == before
    assert cli("uninstall", host, "example").code == 0
    assert (path.read_bytes().decode() if path.exists() else "") == before


@pytest.mark.parametrize("before", YAML_FILES.values(), ids=YAML_FILES)
def test_goose_gets_its_entry_keeps_the_rest_and_gets_its_bytes_back(
    cli: Callable[..., Any], home: Path, before: str
) -> None:
    path = file_of("goose")
    place(path, before)
    old = yaml.safe_load(before) or {}
    ended = cli("install", "goose", "example", URL)
    assert ended.code == 0, ended.err
    after = path.read_bytes().decode()
    new = yaml.safe_load(after)
    entry = new["extensions"]["example"]
    assert (entry["type"], entry["enabled"], entry["name"]) == ("stdio", True, "example")
    assert entry["args"] == ["connect", URL]
    assert new == old | {"extensions": {**(old.get("extensions") or {}), "example": entry}}
    kept = [line for line in before.splitlines() if line.strip() and not line.startswith("extensions:")]
    rest = iter(after.splitlines())
    assert all(any(line == other for other in rest) for line in kept), "a line is lost, changed or moved"
    assert cli("uninstall", "goose", "example").code == 0
    assert (path.read_bytes().decode() if path.exists() else "") == before


@pytest.mark.parametrize("host", HOSTS)
def test_an_entry_is_taken_out_of_a_file_that_others_have_changed_since(
    cli: Callable[..., Any], home: Path, host: str
) -> None:
    path, key = file_of(host), HOSTS[host].key
    json_host = HOSTS[host].format == "json"
    place(path, '{\n  // note\n  "a": 1\n}\n' if json_host else "# note\na: 1\n")
    assert cli("install", host, "one", URL).code == 0
    assert cli("install", host, "two", URL).code == 0
    text = path.read_text()
    path.write_text(text.replace('"a": 1', '"a": 2') if json_host else text.replace("a: 1", "a: 2"))
    for name, left in (("one", ["two"]), ("two", [])):
        assert cli("uninstall", host, name).code == 0
        now = plain(path.read_text()) if json_host else yaml.safe_load(path.read_text())
        assert list(now[key]) == left
        assert now["a"] == 2
        assert "note" in path.read_text()


INVALID = {
    "a missing comma": ('{\n  "a": 1\n  "b": 2\n}', "line 3"),
    "an end too early": ('{\n  "a": {\n', "line 3"),
    "a key twice": ('{\n  "a": 1,\n  "a": 2\n}', "line 3"),
    "no object": ("[\n]", "line 1"),
    "a word": ('{"a":\n nope}', "line 2"),
    "a bad escape": ('{"a":\n "\\x"}', "line 2"),
    "more behind it": ("{}\n\n{}", "line 3"),
    "a comment without end": ('{\n/* "a": 1}', "line 2"),
    "servers in a list": ('{"KEY": []}', "wanted servers by name"),
    "too deep": ('{"a":' + "[" * 9999, "nested"),
    "infinity": ('{"a": Infinity}', "line 1"),
}


@pytest.mark.parametrize("host", ["vscode"])
@pytest.mark.parametrize("fault", INVALID, ids=INVALID)
def test_a_damaged_json_file_is_refused_with_its_line_and_left(
    cli: Callable[..., Any], home: Path, host: str, fault: str
) -> None:
    text, words = INVALID[fault]
    text, path = text.replace("KEY", HOSTS[host].key), file_of(host)
    place(path, text)
    for command in (("install", host, "example", URL), ("uninstall", host, "example")):
        ended = cli(*command)
        assert ended.code == 1
        assert words in ended.err
        assert str(path) in ended.err
        assert "hint" in ended.err
        assert path.read_text() == text
    assert not list(path.parent.glob("*.bak"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nextensions:\n  x: [\n", "line 4"),
        ("a: 1\n\tb: 2\n", "line 2"),
        ("- a\n- b\n", "line 1"),
        ("extensions:\n- a\n", "wanted servers by name"),
        ("{extensions: {a: {enabled: true}}}\n", "line 1"),
        ("a: 1\nextensions: {a: {enabled: true}}\n", "line 2"),
        ("a: 1\n---\nb: 2\n", "line 2"),
        ("a: !!python/object:os.system x\n", "line 1"),
    ],
)
def test_yaml_that_cannot_be_edited_is_refused_with_its_line_and_left(
    cli: Callable[..., Any], home: Path, text: str, words: str
) -> None:
    path = file_of("goose")
    place(path, text)
    ended = cli("install", "goose", "example", URL)
    assert ended.code == 1
    assert words in ended.err
    assert path.read_text() == text
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_without_pyyaml_goose_is_refused_by_name(
    cli: Callable[..., Any], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    ended = cli("install", "goose", "example", URL)
    assert ended.code == 1
    assert "attestable-mcp[yaml]" in ended.err


def test_text_that_is_no_utf_8_is_refused_with_its_line(cli: Callable[..., Any], home: Path) -> None:
    path = file_of("cursor")
    path.parent.mkdir()
    path.write_bytes(b'{\n"a": "\xff"}')
    ended = cli("install", "cursor", "example", URL)
    assert ended.code == 1
    assert "line 2" in ended.err


def test_another_programs_entry_is_left_unless_forced(cli: Callable[..., Any], home: Path) -> None:
    path = file_of("cursor")
    place(path, '{"mcpServers": {"example": {"command": "npx", "args": ["x"]}}}')
    before = path.read_bytes()
    for command in (("install", "cursor", "example", URL), ("uninstall", "cursor", "example")):
        ended = cli(*command)
        assert ended.code == 1
        assert "--force" in ended.err
        assert path.read_bytes() == before
    assert cli("install", "cursor", "example", URL, "--force").code == 0
    assert plain(path.read_text())["mcpServers"]["example"]["args"] == ["connect", URL]
    gone = cli("uninstall", "cursor", "example")
    assert gone.code == 0
    assert "next     start Cursor anew" in gone.err
    assert "switch the server on" not in gone.err


def test_an_entry_of_ours_is_replaced_where_it_stands(cli: Callable[..., Any], home: Path) -> None:
    path = file_of("vscode")
    place(path, '{\n  "servers": {\n    // first\n    "a": {"x": 1}\n  }\n}\n')
    assert cli("install", "vscode", "example", URL).code == 0
    assert cli("install", "vscode", "b", URL).code == 0
    assert cli("install", "vscode", "example", "https://other.example/mcp", "--genuine-only").code == 0
    servers = plain(path.read_text())["servers"]
    assert list(servers) == ["a", "example", "b"]
    assert servers["example"]["args"] == ["connect", "https://other.example/mcp", "--genuine-only"]
    assert "// first" in path.read_text()


def test_a_comment_within_our_own_entry_is_not_dropped_silently(cli: Callable[..., Any], home: Path) -> None:
    path = file_of("vscode")
    assert cli("install", "vscode", "example", URL).code == 0
    text = path.read_text().replace('"command"', '// why\n      "command"')
    path.write_text(text)
    for command in (("install", "vscode", "example", URL, "--genuine-only"), ("uninstall", "vscode", "example")):
        ended = cli(*command)
        assert ended.code == 1
        assert "without a loss" in ended.err
        assert path.read_text() == text


def test_a_dry_run_prints_the_difference_and_changes_nothing(cli: Callable[..., Any], home: Path) -> None:
    path = file_of("claude-desktop")
    place(path, PLAIN.replace("KEY", "mcpServers"))
    before = path.read_bytes()
    ended = cli("install", "claude-desktop", "example", URL, "--dry-run")
    assert ended.code == 0
    assert [line for line in ended.out.splitlines() if line.startswith("+  ")]
    assert '+      "args": ["connect", "https://mcp.example:8443/mcp"]' in ended.out
    assert path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == [path.name]
    assert cli("uninstall", "claude-desktop", "other", "--dry-run", "--force").out.startswith("---")
    assert path.read_bytes() == before


def test_json_output_is_one_object(cli: Callable[..., Any], home: Path) -> None:
    told = cli("install", "cursor", "example", URL, "--json").json()
    assert (told["host"], told["name"], told["changed"], told["backup"]) == ("cursor", "example", True, None)
    assert told["path"] == str(file_of("cursor"))
    assert told["entry"]["args"] == ["connect", URL]
    assert "+++" in told["diff"]
    again = cli("install", "cursor", "example", URL, "--json").json()
    assert (again["changed"], again["diff"]) == (False, "")
    assert cli("uninstall", "cursor", "example", "--json").json()["changed"] is True
    assert cli("uninstall", "cursor", "example", "--json").json()["changed"] is False


@pytest.mark.skipif(os.name != "posix", reason="permission bits")
def test_the_mode_is_kept_and_a_link_stays_a_link(cli: Callable[..., Any], home: Path) -> None:
    real = home / "dotfiles" / "mcp.json"
    place(real, PLAIN.replace("KEY", "mcpServers"))
    real.chmod(0o640)
    link = file_of("cursor")
    link.parent.mkdir()
    link.symlink_to(real)
    assert cli("install", "cursor", "example", URL).code == 0
    assert link.is_symlink()
    assert "example" in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640
    assert real.with_name("mcp.json.attestable-mcp.bak").stat().st_mode & 0o777 == 0o640
    assert cli("install", "gemini-cli", "example", URL).code == 0
    assert file_of("gemini-cli").stat().st_mode & 0o777 == 0o600
    assert cli("install", "vscode", "example", URL, "--scope", "project").code == 0
    assert (home / ".vscode" / "mcp.json").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("host", [name for name, host in HOSTS.items() if host.project])
def test_a_projects_file_lies_in_the_project(cli: Callable[..., Any], home: Path, host: str) -> None:
    assert cli("install", host, "example", URL, "--scope", "project", "--command", "attestable-mcp").code == 0
    path = home / str(HOSTS[host].project)
    assert plain(path.read_text())[HOSTS[host].key]["example"]["command"] == "attestable-mcp"
    assert cli("uninstall", host, "example", "--scope", "project").code == 0
    assert not path.exists()


def test_what_the_server_must_prove_goes_into_the_entry_with_absolute_paths(
    cli: Callable[..., Any], home: Path
) -> None:
    (home / "prod.toml").write_text(f'[policy]\nmrenclave = "{"ab" * 32}"\n')
    (home / "collateral").mkdir()
    (home / "headers").write_text("A: b\n")
    options = ["--policy", "prod.toml", "--endorsements", "collateral", "--accept-status", "OutOfDate",
               "--accept-status", "SWHardeningNeeded", "--danger-accept-simulated",
               "--timeout", "9.0", "--header-env", "X-Key=KEY", "--header-file", "headers", "--no-browser",
               "--oauth-client-id", "me", "--oauth-redirect-port", "4711", "--oauth-store", "file"]  # fmt: skip
    entry = cli("install", "generic", "example", URL, *options).json_of()["mcpServers"]["example"]
    absolute = {"prod.toml", "collateral", "headers"}
    assert entry["args"] == ["connect", URL] + [str(home / word) if word in absolute else word for word in options]


def test_what_is_accepted_on_first_use_goes_into_the_entry(cli: Callable[..., Any], home: Path) -> None:
    entry = cli("install", "generic", "example", URL, "--accept-product", "Milan").json_of()["mcpServers"]["example"]
    assert entry["args"] == ["connect", URL, "--accept-product", "Milan"]


def test_each_option_of_connect_goes_into_the_entry_or_is_refused_by_name(cli: Callable[..., Any], home: Path) -> None:
    from attestable_mcp.cli.main import build, load

    known = {word for action in build("connect", load("connect"))._actions for word in action.option_strings}
    ours = {word for action in build("install", load("install"))._actions for word in action.option_strings}
    assert known <= ours
    for words in (["--listen", "127.0.0.1:0"], ["--token-file", "t"], ["--login"], ["--logout"]):
        ended = cli("install", "cursor", "example", URL, *words)
        assert ended.code == 1
        assert words[0] in ended.err
    assert list(home.iterdir()) == []


def test_the_words_in_an_entry_mean_what_the_words_given_meant(cli: Callable[..., Any], home: Path) -> None:
    """Each option of `connect`: parsed, written into an entry, and parsed again as a host would start it."""
    from attestable_mcp.cli import install
    from attestable_mcp.cli.main import build, load

    (home / "p.toml").write_text(f'[policy]\nmrenclave = "{"ab" * 32}"\n')
    parser = build("connect", load("connect"))
    by_metavar = {"HOST:PORT": "[::1]:8080", "SECONDS": "9", "PORT": "4711", "NAME=VAR": "A=B", "STATUS": "OutOfDate"}
    tried = 0
    for action in parser._actions:
        flag = next((word for word in action.option_strings if word.startswith("--")), None)
        if flag in (None, "--help", "--json", "--debug") or action.dest in install._NOT_IN_AN_ENTRY:
            continue
        value = [by_metavar.get(str(action.metavar), "p.toml")] if action.nargs != 0 else []
        value = [str(list(action.choices)[-1])] if action.choices else value
        value = ["Milan"] if flag == "--accept-product" else value
        words = cli("install", "generic", "x", URL, flag, *value).json_of()["mcpServers"]["x"]["args"]
        wanted, seen = parser.parse([URL, flag, *value]), parser.parse(words[words.index("connect") + 1 :])
        given, written = getattr(wanted, action.dest), getattr(seen, action.dest)
        if isinstance(given, Path):
            given = given.absolute()
        elif isinstance(given, list) and isinstance(given[0], Path):
            given = [path.absolute() for path in given]
        assert written == given, flag
        tried += 1
    assert tried >= 15


def test_a_policy_that_cannot_be_read_is_found_out_before_anything_is_written(
    cli: Callable[..., Any], home: Path
) -> None:
    (home / "bad.toml").write_text("[policy]\nmrenclav = 'x'\n")
    ended = cli("install", "cursor", "example", URL, "--policy", "bad.toml")
    assert ended.code == 1
    assert "line 2" in ended.err
    assert not file_of("cursor").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("install", "cursr", "example", URL),
        ("install", "cursor", "a b", URL),
        ("install", "cursor", "-x", URL),
        ("install", "cursor", "example", "http://mcp.example/mcp"),
        ("install", "claude-desktop", "example", URL, "--scope", "project"),
        ("install", "generic", "example", URL, "--dry-run"),
        ("uninstall", "generic", "example"),
        ("uninstall", "nothing", "example"),
    ],
)
def test_a_wrong_word_changes_nothing(cli: Callable[..., Any], home: Path, words: tuple[str, ...]) -> None:
    ended = cli(*words)
    assert ended.code == 1
    assert "hint" in ended.err
    assert list(home.iterdir()) == []


PATHS = {
    ("claude-desktop", "linux"): ".config/Claude/claude_desktop_config.json",
    ("claude-desktop", "darwin"): "Library/Application Support/Claude/claude_desktop_config.json",
    ("claude-desktop", "win32"): "AppData/Roaming/Claude/claude_desktop_config.json",
    ("claude-code", "linux"): ".claude.json",
    ("claude-code", "darwin"): ".claude.json",
    ("claude-code", "win32"): ".claude.json",
    ("cursor", "linux"): ".cursor/mcp.json",
    ("cursor", "darwin"): ".cursor/mcp.json",
    ("cursor", "win32"): ".cursor/mcp.json",
    ("vscode", "linux"): ".config/Code/User/mcp.json",
    ("vscode", "darwin"): "Library/Application Support/Code/User/mcp.json",
    ("vscode", "win32"): "AppData/Roaming/Code/User/mcp.json",
    ("gemini-cli", "linux"): ".gemini/settings.json",
    ("gemini-cli", "darwin"): ".gemini/settings.json",
    ("gemini-cli", "win32"): ".gemini/settings.json",
    ("goose", "linux"): ".config/goose/config.yaml",
    ("goose", "darwin"): ".config/goose/config.yaml",
    ("goose", "win32"): "AppData/Roaming/Block/goose/config/config.yaml",
}


@pytest.mark.parametrize(("host", "system"), PATHS, ids=lambda word: word)
def test_where_each_host_keeps_its_file_on_each_system(tmp_path: Path, host: str, system: str) -> None:
    machine = Machine(system=system, home=tmp_path, folder=tmp_path / "project", environ={})
    assert HOSTS[host].path(machine, "user") == tmp_path / PATHS[host, system]
    assert len(PATHS) == 3 * len(HOSTS)


def test_environment_variables_move_the_files(tmp_path: Path) -> None:
    environ = {"XDG_CONFIG_HOME": str(tmp_path / "x"), "CLAUDE_CONFIG_DIR": str(tmp_path / "c"), "APPDATA": "relative"}
    linux = Machine(system="linux", home=tmp_path, environ=environ)
    assert HOSTS["vscode"].path(linux, "user") == tmp_path / "x" / "Code" / "User" / "mcp.json"
    assert HOSTS["goose"].path(linux, "user") == tmp_path / "x" / "goose" / "config.yaml"
    assert HOSTS["claude-code"].path(linux, "user") == tmp_path / "c" / ".claude.json"
    windows = Machine(system="win32", home=tmp_path, environ=environ)
    assert HOSTS["vscode"].path(windows, "user") == tmp_path / "AppData/Roaming/Code/User/mcp.json"


def test_the_windows_package_of_claude_desktop_has_a_folder_of_its_own(tmp_path: Path) -> None:
    machine = Machine(system="win32", home=tmp_path, environ={})
    inner = "LocalCache/Roaming/Claude"
    one = tmp_path / "AppData/Local/Packages/Claude_pzs8sxrjxfjjc" / inner
    one.mkdir(parents=True)
    assert HOSTS["claude-desktop"].path(machine, "user") == one / "claude_desktop_config.json"
    two = tmp_path / "AppData/Local/Packages/Claude_other" / inner
    two.mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="more than once"):
        HOSTS["claude-desktop"].path(machine, "user")
    (two / "claude_desktop_config.json").write_text("{}")
    assert HOSTS["claude-desktop"].path(machine, "user") == two / "claude_desktop_config.json"


def test_a_file_that_changes_meanwhile_is_not_overwritten(home: Path) -> None:
    from attestable_mcp.cli.hosts.edit import plan_install, write

    path = file_of("cursor")
    place(path, "{}")
    plan = plan_install(path, HOSTS["cursor"], "example", {"command": "x", "args": ["connect"]}, force=False)
    path.write_text('{"mcpServers": {}}')
    with pytest.raises(ConfigurationError) as caught:
        write(plan)
    assert caught.value.code == "changed"
    assert path.read_text() == '{"mcpServers": {}}'
