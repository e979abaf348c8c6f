"""The official conformance suite against the SDK's everything-server, directly and through the attested path.

    python tests/conformance/suite.py [--requirements REVISION ...] [--ways direct,url,...] [--scenario NAME ...]

Ways: `direct`; `url` = connect --listen to serve URL; `stdio` = connect --listen to serve -- everything-server;
`bridge` = the same with the bridge itself as the command, so that its stdio side is in the path; `translated` = as
`bridge`, before a server that speaks only the era that the revision is not of. Prints a table. The exit code is 1 if a
scored scenario fails on a way and not directly (docs/conformance.md says which do, and why). `outside.py` in this
folder fetches what is needed.

`connect` is given a policy with `[manifest] unlisted = "danger-pass"`: the suite calls tools that the server does not
list, and looks at what the server answers. With --guarded it goes without that word, as everybody should.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import httpx2

sys.path.insert(0, str(Path(__file__).parent))
import outside

NEEDS_ITS_ERA = re.compile(r"input-required-|tools-call-(elicitation|sampling)$|elicitation-sep")
"""Scenarios whose tools at the everything-server exist in one era only: no translation can bring them about."""
REVISIONS = ("2025-11-25", "2026-07-28")
WAYS = ("direct", "url", "stdio", "bridge", "translated")
OURS = [sys.executable, "-m", "attestable_mcp"]
TRUST = ["--genuine-only", "--danger-accept-simulated"]
MANIFEST = '[manifest]\nmode = "any"\nunlisted = "{}"\n'
_SCENARIO = re.compile(r"^[✓✗] (\S+): (\d+) passed, (\d+) failed")
_UNSCORED = re.compile(r"^  [✓✗] (\S+) \((\S+)\)")
_HERE = Path(__file__).parent


class Missing(Exception):
    """Something that a run needs is not there; the sentence says what."""


@dataclass(slots=True)
class Outcome:
    """One run of the suite: passed and failed checks by scenario, and the scenarios that do not count."""

    scenarios: dict[str, tuple[int, int]] = field(default_factory=dict)
    unscored: set[str] = field(default_factory=set)

    @property
    def failing(self) -> set[str]:
        """Scored scenarios with a failed check."""
        return {name for name, (_, failed) in self.scenarios.items() if failed and name not in self.unscored}

    @property
    def checks(self) -> tuple[int, int]:
        """Checks passed, checks made."""
        passed = sum(found[0] for found in self.scenarios.values())
        return passed, passed + sum(found[1] for found in self.scenarios.values())


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def program(words: Sequence[str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """A program in the background, ended afterwards; its stderr goes to `log`."""
    with log.open("a") as errors:
        process = subprocess.Popen(
            list(words), stdout=subprocess.PIPE, stderr=errors, text=True, env=outside.environment()
        )
        try:
            yield process
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            if process.poll() is None:
                process.kill()
                process.wait()


def said(process: subprocess.Popen[str]) -> dict[str, str]:
    """The first line of a program's stdout, which is JSON."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise Missing(f"{' '.join(map(str, process.args))!r:.200}: ended with code {process.wait()}")  # type: ignore[arg-type]
    found: dict[str, str] = json.loads(line)
    return found


def pinned(url: str, path: Path) -> str:
    """The policy that `pin` writes for the server that answers now. Raises: Missing."""
    words = [*OURS, "pin", url, "--danger-accept-simulated", "-o", str(path)]
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise Missing(f"pin {url}: {ran.stderr:.500}")
    return path.read_text()


class Way:
    """Starts what stands between the suite and the server. Use `with Way(...) as url`."""

    def __init__(self, name: str, revision: str, folder: Path, *, guarded: bool = False) -> None:
        self._name = name
        self._manifest = MANIFEST.format("refuse" if guarded else "danger-pass")
        self._revision = revision
        self._folder = folder
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> str:
        with self._stack:
            url = self._url()
            self._stack = self._stack.pop_all()
        return url

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _url(self) -> str:
        match self._name:
            case "direct":
                return self._everything()
            case "url":
                return self._listening(self._served([self._everything()]))
            case "stdio":
                command = [sys.executable, str(_HERE / "everything.py"), str(everything()), "stdio"]
                return self._listening(self._served(["--", *command]))
            case "bridge":
                return self._bridged(self._everything())
            case "translated":
                return self._bridged(self._everything("2026-07-28" if self._revision < "2026" else "legacy"))
        raise Missing(f"no such way: {self._name}")

    def _everything(self, *era: str) -> str:
        port = free_port()
        words = [sys.executable, str(_HERE / "everything.py"), str(everything()), str(port), *era]
        self._start("everything", words)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return f"http://127.0.0.1:{port}/mcp"
            time.sleep(0.05)
        raise Missing("the everything-server does not start")

    def _served(self, target: list[str]) -> str:
        words = [*OURS, "serve", "--attester", "simulated", "--json", *target]
        return said(self._start("serve", words))["url"]

    def _listening(self, url: str) -> str:
        words = [*OURS, "connect", url, *self._policy(url), "--listen", "127.0.0.1:0", "--json"]
        return said(self._start("connect", words))["url"]

    def _bridged(self, url: str) -> str:
        inner = self._served([url])
        return self._listening(self._served(["--", *OURS, "connect", inner, *self._policy(inner)]))

    def _policy(self, url: str) -> list[str]:
        """The policy that `pin` writes for this very server, with our word in the place of the pinned list."""
        path = self._folder / f"policy-{httpx2.URL(url).port}.toml"
        path.write_text(pinned(url, path).partition("[manifest]")[0] + self._manifest)
        return ["--policy", str(path)]

    def _start(self, name: str, words: list[str]) -> subprocess.Popen[str]:
        return self._stack.enter_context(program(words, self._folder / f"{name}.log"))


def everything() -> Path:
    """The everything-server's folder. Raises: Missing."""
    found = outside.everything()
    if found is None:
        raise Missing("the SDK's everything-server is absent: tests/conformance/outside.py --sdk FOLDER")
    return found


def suite_command() -> list[str]:
    """The suite's command. Raises: Missing."""
    found = outside.npm_program("@modelcontextprotocol/conformance")
    if found is None:
        raise Missing("the conformance suite or a Node that runs it is absent: tests/conformance/outside.py")
    return found


def examine(url: str, revision: str, scenarios: Sequence[str], folder: Path) -> Outcome:
    """Run the suite against a URL."""
    outcome = Outcome()
    for scenario in scenarios or [""]:
        named = ["--scenario", scenario, "--spec-version", revision] if scenario else ["--requirements", revision]
        words = [*suite_command(), "server", "--url", url, *named, "-o", str(folder / "results")]
        ran = subprocess.run(
            words, capture_output=True, text=True, timeout=900, env=outside.environment(), cwd=folder, check=False
        )
        (folder / "suite.log").write_text(ran.stdout + ran.stderr)
        read(ran.stdout, scenario, outcome)
    if not outcome.scenarios:
        raise Missing(f"the suite said nothing that can be read: see {folder / 'suite.log'}")
    return outcome


def read(text: str, scenario: str, outcome: Outcome) -> None:
    """Take the suite's summary, or the totals of a single scenario."""
    for line in text.splitlines():
        if found := _SCENARIO.match(line):
            outcome.scenarios[found[1]] = (int(found[2]), int(found[3]))
        elif found := _UNSCORED.match(line):
            outcome.unscored.add(found[1])
        elif scenario and (found := re.match(r"^Passed: (\d+)/(\d+), (\d+) failed", line)):
            outcome.scenarios[scenario] = (int(found[1]), int(found[3]))


def worse(way: str, outcome: Outcome, direct: Outcome) -> set[str]:
    """Scored scenarios that fail here and not directly, or that did not run."""
    missing = set(direct.scenarios) - set(outcome.scenarios) - direct.unscored
    found = (outcome.failing - direct.failing) | missing
    return {name for name in found if way != "translated" or not NEEDS_ITS_ERA.match(name)}


def table(found: dict[tuple[str, str], Outcome]) -> list[str]:
    """The outcome as lines of Markdown."""
    lines = [
        "| revision | way | checks passed | scored scenarios failing | unscored failing, not directly |",
        "|---|---|---|---|---|",
    ]
    for (revision, way), outcome in found.items():
        direct = found.get((revision, "direct"), outcome)
        passed, made = outcome.checks
        failing = ", ".join(sorted(outcome.failing)) or "none"
        bad = {name for name, (_, failed) in outcome.scenarios.items() if failed and name in outcome.unscored}
        known = {name for name, (_, failed) in direct.scenarios.items() if failed}
        lines.append(
            f"| {revision} | {way} | {passed}/{made} | {failing} | {', '.join(sorted(bad - known)) or 'none'} |"
        )
    return lines


def versions() -> str:
    """What was run, in one line."""
    node = subprocess.run([outside.node() or "node", "--version"], capture_output=True, text=True, check=False).stdout
    names = ("mcp", "uvicorn", "httpx2")
    ours = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    number = outside.npm_version("@modelcontextprotocol/conformance")
    return f"conformance {number}, node {node.strip()}, {ours}, Python {sys.version.split()[0]}"


def main() -> int:
    """Run, print, and say whether a scored scenario is worse than directly."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requirements", nargs="*", default=REVISIONS, metavar="REVISION")
    parser.add_argument("--ways", default=",".join(WAYS), help="of " + ", ".join(WAYS))
    parser.add_argument("--scenario", nargs="*", default=[], metavar="NAME", help="only these")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every scenario's figures here")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep everything that was said there")
    parser.add_argument("--guarded", action="store_true", help="connect without the word that lets unlisted tools pass")
    given = parser.parse_args()
    found: dict[tuple[str, str], Outcome] = {}
    with contextlib.ExitStack() as stack:
        logs = given.logs or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            for revision in given.requirements:
                for way in given.ways.split(","):
                    folder = logs / revision / way
                    folder.mkdir(parents=True, exist_ok=True)
                    with Way(way, revision, folder, guarded=given.guarded) as url:
                        found[revision, way] = examine(url, revision, given.scenario, folder)
                    print(table({(revision, way): found[revision, way]})[-1], flush=True, file=sys.stderr)
        except Missing as problem:
            print(f"suite.py: {problem}", file=sys.stderr)
            return 2
    print(versions())
    print(*table(found), sep="\n")
    if given.json:
        given.json.write_text(json.dumps({f"{r} {w}": o.scenarios for (r, w), o in found.items()}, indent=1))
    return int(any(worse(w, o, found[r, "direct"]) for (r, w), o in found.items() if (r, "direct") in found))


if __name__ == "__main__":
    sys.exit(main())
