"""What README.md shows is run: its commands in order, its Python, its policy, its tables."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from attestable_mcp.appraise.policy import Policy
from attestable_mcp.rats import AttestationResult, Finding, Outcome, Verdict

ADDRESS = "https://127.0.0.1:8443"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text(encoding="utf-8")


def commands(readme: str) -> list[list[str]]:
    """Every `$ attestable-mcp ...` line as words, in order."""
    lines = [line[2:] for block in blocks(readme, "console") for line in block.splitlines() if line.startswith("$ ")]
    return [shlex.split(line, comments=True) for line in lines]


def ours(words: list[str]) -> list[str]:
    assert words[0] == "attestable-mcp"
    return [sys.executable, "-m", "attestable_mcp", *words[1:]]


@contextmanager
def serving(words: list[str], folder: Path) -> Iterator[str]:
    """The server of the README, on a free port. Gives its origin."""
    words = [word.replace("127.0.0.1:8443", "127.0.0.1:0") for word in words]
    words = [sys.executable if word == "python" else word for word in words]
    child = subprocess.Popen(
        [*ours(words)[:4], "--json", *ours(words)[4:]], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        line = child.stdout.readline()
        assert line, child.stderr.read().decode()
        yield json.loads(line)["url"].removesuffix("/mcp")
    finally:
        child.terminate()
        child.communicate(timeout=20)


def test_there_are_exactly_two_set_up_commands_and_both_exist(readme, repository):
    makes = [words for words in commands(readme) if words[0] != "attestable-mcp"]
    assert makes == [["make", "demo"], ["make", "test"]]
    makefile = (repository / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.M) for _, target in makes)


def test_the_shell_session_runs_in_order(readme, tmp_path):
    told = [words for words in commands(readme) if words[0] == "attestable-mcp"]
    serve, *rest = told
    meeting = [words for words in rest if any(word.startswith(ADDRESS) for word in words)]
    assert [words[1] for words in meeting] == ["pin", "verify", "call", "install"]
    shown = {}
    with serving(serve, tmp_path) as origin:
        for words in meeting:
            real = [word.replace(ADDRESS, origin) for word in words]
            ended = subprocess.run(ours(real), cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
            assert ended.returncode == 0, (words, ended.stdout, ended.stderr)
            shown[words[1]] = ended.stdout
    assert "Europe/Paris" in shown["call"]
    assert json.loads(shown["install"])["mcpServers"]["time"]["args"][0] == "connect"


def test_the_stored_evidence_of_the_session_runs(readme, vectors, tmp_path):
    folder = vectors / "tdx" / "dcapqvl-v4-uptodate"
    (tmp_path / "quote.bin").write_bytes((folder / "quote.bin").read_bytes())
    (tmp_path / "collateral").symlink_to(folder / "collateral")
    stored = [words for words in commands(readme) if "quote.bin" in words]
    codes = [
        subprocess.run(ours(words), cwd=tmp_path, capture_output=True, timeout=60, check=False).returncode
        for words in stored
    ]
    assert [words[1] for words in stored] == ["verify", "inspect"]
    assert codes == [4, 0]


def test_the_policy_can_be_read(readme):
    (written,) = blocks(readme, "toml")
    policy = Policy.from_toml(written, "README.md")
    assert policy.trust.endorsements == ("stapled", "pcs")


def test_the_python_runs(readme, repository, tmp_path, monkeypatch):
    (program,) = blocks(readme, "python")
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    exec(compile(program, "README.md", "exec"), space)

    async def session() -> str:
        from attestable_mcp import serve
        from attestable_mcp.appraise.write import policy_toml
        from attestable_mcp.tls.client import attest_server

        async with serve(f"{repository / 'examples' / 'server.py'}:mcp", attester="simulated") as server:
            peer = await attest_server(Policy.genuine_only(simulated=True), server.url)
            Path("policy.toml").write_text(policy_toml(peer.result), encoding="utf-8")
            answer = await space["ask"](server.url)  # type: ignore[operator]
            return str(answer.content[0].text)

    assert anyio.run(session) == "5"


def test_the_tables_say_what_the_code_does(readme):
    for verdict in Verdict:
        result = AttestationResult(verdict=verdict, at=datetime.now(UTC))
        assert re.search(rf"^\| {result.exit_code} \| `{verdict}` \|", readme, re.M), verdict
    keys = readme[readme.index("Keys: ") :].partition("\n\n")[0]
    for key in ("verdict", "tee", "tcb_status", "advisories", "claims", "findings", "not_proven", "simulated", "at",
                "error", "code", "message", "hint", *Finding(check="x", outcome=Outcome.PASS).to_json()):  # fmt: skip
        assert f"`{key}`" in keys, key


def test_the_links_lead_somewhere(readme, repository):
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", readme) if "://" not in link]
    assert len(links) >= 7
    assert [link for link in links if not (repository / link).exists()] == []
