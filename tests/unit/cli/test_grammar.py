"""The grammar: every wrong command line ends with 1, a sentence and a hint, and with --json in one object."""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess

import pytest

from attestable_mcp.cli import text
from attestable_mcp.cli.command import UsageError, host_name, listen_address, moment
from attestable_mcp.cli.main import VERBS
from attestable_mcp.cli.toolargs import tool_arguments

CONTRACT = {
    "verdict", "tee", "tcb_status", "advisories", "claims", "findings", "not_proven", "simulated", "at", "error",
}  # fmt: skip

WRONG = [
    (),
    ("verfy", "x"),
    ("--nonsense",),
    ("verify",),
    ("verify", "x"),
    ("verify", "x", "--genuine-only", "--policy", "p.toml"),
    ("verify", "x", "--genuine-only", "--wrong"),
    ("verify", "x", "--genuine-only", "--at", "2026-01-31"),
    ("verify", "x", "--genuine-only", "--at", "2026-13-31T00:00:00Z"),
    ("verify", "x", "--genuine-only", "--accept-status", "Revoked"),
    ("verify", "x", "--genuine-only", "--accept-status", "uptodate"),
    ("verify", "x", "--policy", ""),
    ("verify", "", "--genuine-only"),
    ("verify", "http://127.0.0.1:1/mcp", "--genuine-only"),
    ("verify", "https://", "--genuine-only"),
    ("verify", "https://user:secret@host/", "--genuine-only"),
    ("verify", "https://host:99999/", "--genuine-only"),
    ("verify", "https://host/", "--genuine-only", "--at", "2026-01-31T12:00:00Z"),
    ("verify", "https://host/", "--genuine-only", "--timeout", "0"),
    ("verify", "https://host/", "--genuine-only", "--timeout", "nan"),
    ("call", "https://host/"),
    ("call", "https://host/", "tool", "novalue", "--genuine-only"),
    ("call", "https://host/", "tool", "a=1", "a=2", "--genuine-only"),
    ("call", "https://host/", "tool", "a:=nope", "--genuine-only"),
    ("call", "https://host/", "tool", "a=1", "--args-json", "{}", "--genuine-only"),
    ("call", "https://host/", "tool", "--args-json", "[]", "--genuine-only"),
    ("tools", "https://host/"),
    ("connect",),
    ("connect", "https://host/", "--genuine-only", "--policy", "p.toml"),
    ("pin",),
    ("pin", "--list", "https://host/"),
    ("pin", "--list", "--update"),
    ("pin", "--update", "https://host/", "-o", "x.toml"),
    ("connect", "http://host/", "--genuine-only"),
    ("pin", "http://host/"),
    ("serve",),
    ("serve", "x:y", "--", "cat"),
    ("serve", "x:y", "--listen", "nowhere"),
    ("serve", "x:y", "--host", "https://mcp.example"),
    ("serve", "x:y", "--host", "mcp.example:8443"),
    ("serve", "x:y", "--host", "my host"),
    ("owner", "init", "-o", "mine.pem"),
    ("owner", "init", "--key", "mine.pem"),
    ("owner", "show", "grant.pem", "--days", "2"),
    ("receipts", "list", "--at", "2026-01-31T12:00:00Z"),
    ("receipts", "verify", "-o", "calls"),
    ("platforms", "show", "list.pem", "--key", "owner.pem"),
    ("platforms", "sign", "list.toml", "quote.bin", "--key", "owner.pem"),
    ("completion", "tcsh"),
    ("inspect",),
]


@pytest.mark.parametrize("words", WRONG, ids=lambda words: " ".join(words) or "nothing")
def test_a_wrong_command_line_ends_with_1_and_a_hint(cli, words):
    ended = cli(*words)
    assert ended.code == 1
    assert ended.out == ""
    assert ended.err.startswith("attestable-mcp: ")
    assert "fault in" not in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("words", WRONG, ids=lambda words: " ".join(words) or "nothing")
def test_with_json_a_wrong_command_line_is_one_object_with_the_contracts_keys(cli, words):
    at = words.index("--") if "--" in words else len(words)
    ended = cli(*words[:at], "--json", *words[at:])
    answer = ended.json()
    assert ended.code == 1
    assert set(answer) >= CONTRACT
    assert answer["verdict"] == "unavailable"
    assert set(answer["error"]) == {"code", "message", "hint"}
    assert answer["error"]["code"] != "internal"
    assert answer["error"]["message"]


def test_an_option_that_the_action_does_not_read_is_named_and_never_passed_over(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = cli("owner", "init", "-o", "safe/mine.pem")
    assert "owner init: has no use for --output; wanted --algorithm, " in ended.err
    assert list(tmp_path.iterdir()) == []
    assert "owner show: has no use for --danger-accept-simulated" in cli(
        "owner", "show", "x", "--danger-accept-simulated"
    ).err  # fmt: skip


@pytest.mark.parametrize("value", ["mcp.example", "my_service", "10.0.0.1", "[::1]", "::1", "bücher.example"])
def test_hosts_are_names_and_addresses(value):
    assert host_name(value) == value.strip("[]")


@pytest.mark.parametrize(
    "value", ["https://mcp.example", "mcp.example:8443", "my host", "", ".", "*.example", "a" * 254]
)
def test_what_no_client_dials_is_no_host(value):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a host"):
        host_name(value)


def test_call_wants_a_tool_and_nothing_more(cli):
    assert "are required: TOOL\n" in cli("call", "https://host/").err


def test_a_misspelt_verb_is_told_its_neighbour(cli):
    assert "did you mean 'verify'" in cli("verfy").err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_examples(cli, verb):
    ended = cli(verb, "--help")
    assert ended.code == 0
    assert ended.err == ""
    assert ended.out.startswith("usage: attestable-mcp " + verb)
    assert "--json" in ended.out
    if verb != "demo":
        assert "examples" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 132


def test_the_general_help_names_every_verb_and_exit_code(cli):
    ended = cli("--help")
    assert ended.code == 0
    assert all(f"\n  {verb} " in ended.out for verb in VERBS)
    for number, word in enumerate(("verified", "usage", "refused", "unavailable", "partial")):
        assert f"  {number}  {word}" in ended.out


def test_version(cli):
    assert cli("--version").out.startswith("attestable-mcp ")
    assert cli("--version", "--json").json()["name"] == "attestable-mcp"


def test_positional_and_optional_words_mix(cli):
    ended = cli("call", "--genuine-only", "http://x/", "--timeout", "3", "tool", "a=1", "--debug", "b=2", "--json")
    assert ended.json()["error"]["message"] == text.NOT_HTTPS


def test_json_after_the_dashes_belongs_to_the_command(cli):
    ended = cli("serve", "a:b", "--", "cat", "--json")
    assert ended.code == 1
    assert ended.out == ""


def test_values_are_json_where_they_parse():
    words = [
        "a=2",
        "b=x y",
        "c=null",
        "d=[1,2]",
        "e=",
        'f:="42"',
        "g=a=b",
        "h=NaN",
        "i=1e999999999999",
        "j=Europe/Paris",
    ]
    values = tool_arguments(words, None)
    assert values["a"] == 2
    assert values["b"] == "x y"
    assert values["c"] is None
    assert values["d"] == [1, 2]
    assert values["e"] == ""
    assert values["f"] == "42"
    assert values["g"] == "a=b"
    assert values["h"] == "NaN"
    assert values["j"] == "Europe/Paris"


def test_deeply_nested_json_is_a_usage_error_not_a_crash():
    with pytest.raises(UsageError):
        tool_arguments(["a:=" + "[" * 100_000], None)
    assert tool_arguments(["a=" + "[" * 100_000], None)["a"].startswith("[[")


def test_repeated_keys_in_json_are_an_error():
    with pytest.raises(UsageError):
        tool_arguments([], '{"a": 1, "a": 2}')


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("127.0.0.1:8443", ("127.0.0.1", 8443)),
        (":0", ("127.0.0.1", 0)),
        ("[::1]:443", ("::1", 443)),
        ("localhost:1", ("localhost", 1)),
    ],
)
def test_listen_addresses(word, wanted):
    assert listen_address(word) == wanted


@pytest.mark.parametrize("word", ["8443", "host", "host:", "host:-1", "host:65536", "::1:443", "host:٤٤٣", ""])
def test_wrong_listen_addresses(word):
    import argparse

    with pytest.raises(argparse.ArgumentTypeError):
        listen_address(word)


def test_moments_are_utc():
    assert moment("2026-01-31T13:00:00+01:00").isoformat() == "2026-01-31T12:00:00+00:00"
    assert moment("2026-01-31t12:00:00.5z").microsecond == 500_000


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_parse_and_know_every_verb(cli, shell, tmp_path):
    ended = cli("completion", shell)
    assert ended.code == 0
    assert all(verb in ended.out for verb in VERBS)
    assert "genuine-only" in ended.out
    if shutil.which(shell) is None:
        return
    script = tmp_path / "script"
    script.write_text(ended.out)
    subprocess.run([shell, "-n", os.fspath(script)], check=True, timeout=20)


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is absent")
def test_bash_completes_a_verb_and_an_option(cli, tmp_path):
    script = tmp_path / "script"
    script.write_text(cli("completion", "bash").out)
    probe = (
        f"source {script}; COMP_WORDS=(attestable-mcp ver); COMP_CWORD=1; _attestable_mcp; echo ${{COMPREPLY[0]}};"
        "COMP_WORDS=(attestable-mcp verify --gen); COMP_CWORD=2; _attestable_mcp; echo ${COMPREPLY[0]};"
        "COMP_WORDS=(attestable-mcp owner gr); COMP_CWORD=2; _attestable_mcp; echo ${COMPREPLY[0]};"
        "COMP_WORDS=(attestable-mcp install claude-c); COMP_CWORD=2; _attestable_mcp; echo ${COMPREPLY[0]}"
    )
    shown = subprocess.run(["bash", "-c", probe], check=True, capture_output=True, text=True, timeout=20).stdout
    assert shown.split() == ["verify", "--genuine-only", "grant", "claude-code"]


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is absent")
def test_fish_completes_a_verb_with_its_words_and_an_action(cli, tmp_path):
    script = tmp_path / "script"
    script.write_text(cli("completion", "fish").out)

    def completed(line):
        command = f"source {script}; complete -C '{line}'"
        return subprocess.run(["fish", "-c", command], check=True, capture_output=True, text=True, timeout=20).stdout

    assert completed("attestable-mcp own") == f"owner\t{text.SUMMARIES['owner']}\n"
    assert completed("attestable-mcp owner gr") == "grant\n"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_apostrophes_end_no_word_of_a_script(cli, shell):
    """Python's own rules for quotes are those of sh, which zsh shares; fish has its own."""
    lines = cli("completion", shell).out.splitlines()
    (line,) = [line for line in lines if "make an owner" in line]
    said = text.SUMMARIES["owner"]
    if shell == "zsh":
        assert shlex.split(line) == [f"owner:{said}"]
    else:
        assert line.endswith("-d '" + said.replace("'", "\\'") + "'")
