"""Reference servers and hosts of other makers, directly and through us, compared message by message.

    python tests/conformance/reference.py [--servers time,git,...]

Each server is asked the same questions three ways: its own stdio; `connect` to `serve -- COMMAND` in the era that the
server speaks; and, where it speaks the handshake era only, the same by a host of the stateless era, whose answers are
compared after the fields of that era are taken off. Every response and every notification counts. The exit code is 1 if
any differs. `outside.py` in this folder fetches the servers.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import outside
from suite import OURS, TRUST, Missing, program, said

MODERN = "2026-07-28"
SECONDS = 30.0
Message = dict[str, Any]
Question = tuple[str, Message]
CAPABILITIES: Message = {"sampling": {}, "elicitation": {}, "roots": {}}
INFO = {"name": "compare", "version": "1"}
ENVELOPE = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": CAPABILITIES,
    "io.modelcontextprotocol/clientInfo": INFO,
}
_OF_MODERN = ("resultType", "ttlMs", "cacheScope")
_SERVER_INFO = "io.modelcontextprotocol/serverInfo"
_ASKED_FOR = ("notifications/message", "notifications/tools/list_changed")
"""A host of the stateless era hears of these only if it asks."""
_OURS = "dev.attestable-mcp/"
"""What `serve` itself adds to a result's `_meta` has no counterpart at the server."""


@dataclass(frozen=True, slots=True)
class Server:
    """A reference server: how it is started in a folder of its own, and what it is asked."""

    name: str
    command: Callable[[Path], list[str]]
    questions: Callable[[Path], list[Question]]
    eras: tuple[str, ...] = ("legacy",)
    prepare: Callable[[Path], object] = lambda folder: None
    environment: Callable[[Path], dict[str, str]] = lambda folder: {}


def tool(name: str, **arguments: object) -> Question:
    """A tool call, with a progress token."""
    return "tools/call", {"name": name, "arguments": arguments, "_meta": {"progressToken": f"p-{name}"}}


# --- the servers ----------------------------------------------------------------------------------------------------


def _python(module: str, *more: str) -> list[str]:
    command = outside.python_module(module)
    if command is None:
        raise Missing(f"{module} is absent: tests/conformance/outside.py")
    return [*command, *more]


def _npm(package: str, *more: str) -> list[str]:
    command = outside.npm_program(package)
    if command is None:
        raise Missing(f"{package}, or a Node that runs it, is absent: tests/conformance/outside.py")
    return [*command, *more]


def _repository(folder: Path) -> None:
    quiet = {"cwd": folder, "check": True, "capture_output": True}
    subprocess.run(["git", "init", "-q", "-b", "main"], **quiet)  # type: ignore[call-overload]
    (folder / "a.txt").write_text("one\n")
    subprocess.run(["git", "add", "."], **quiet)  # type: ignore[call-overload]
    author = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    when = {"GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z"}
    subprocess.run(["git", *author, "commit", "-q", "-m", "first"], env=os.environ | when, **quiet)  # type: ignore[call-overload]
    (folder / "a.txt").write_text("two\n")


def _files(folder: Path) -> None:
    (folder / "a.txt").write_text("grüße\nzwei\n")
    (folder / "sub").mkdir()


def _git_questions(folder: Path) -> list[Question]:
    place = str(folder)
    return [
        ("tools/list", {}),
        tool("git_status", repo_path=place),
        tool("git_diff_unstaged", repo_path=place),
        tool("git_log", repo_path=place),
        tool("git_add", repo_path=place, files=["a.txt"]),
        tool("git_diff_staged", repo_path=place),
        tool("git_reset", repo_path=place),
        tool("git_status", repo_path=place + "/nowhere"),
    ]


def _time_questions(folder: Path) -> list[Question]:
    pair = {"source_timezone": "Europe/Paris", "target_timezone": "Asia/Tokyo"}
    return [
        ("tools/list", {}),
        tool("convert_time", time="12:00", **pair),
        tool("convert_time", time="noon", **pair),
        ("no/such", {}),
    ]


def _fetch_questions(folder: Path) -> list[Question]:
    page = _page_server()
    return [
        ("tools/list", {}),
        ("prompts/list", {}),
        tool("fetch", url=f"{page}/page.html"),
        tool("fetch", url=f"{page}/page.html", raw=True, max_length=40, start_index=5),
        tool("fetch", url=f"{page}/nowhere"),
        ("prompts/get", {"name": "fetch", "arguments": {"url": f"{page}/page.html"}}),
    ]


def _everything_questions(folder: Path) -> list[Question]:
    prompt = {"type": "ref/prompt", "name": "completable-prompt"}
    return [
        ("tools/list", {}),
        ("resources/list", {}),
        ("resources/templates/list", {}),
        ("prompts/list", {}),
        tool("echo", message="grüße \u2028"),
        tool("get-sum", a=1, b=2.5),
        tool("get-tiny-image"),
        tool("get-structured-content", location="Chicago"),
        tool("get-annotated-message", messageType="error", includeImage=True),
        tool("trigger-long-running-operation", duration=0.6, steps=3),
        tool("trigger-sampling-request", prompt="hello", maxTokens=10),
        tool("trigger-elicitation-request"),
        tool("get-roots-list"),
        ("prompts/get", {"name": "simple-prompt"}),
        ("prompts/get", {"name": "args-prompt", "arguments": {"city": "Oslo"}}),
        ("resources/read", {"uri": "demo://resource/static/document/features.md"}),
        ("resources/read", {"uri": "demo://nowhere"}),
        ("completion/complete", {"ref": prompt, "argument": {"name": "department", "value": "E"}}),
        tool("echo"),
    ]  # fmt: skip


def _filesystem_questions(folder: Path) -> list[Question]:
    return [
        ("tools/list", {}),
        tool("list_allowed_directories"),
        tool("list_directory", path=str(folder)),
        tool("read_text_file", path=str(folder / "a.txt")),
        tool("write_file", path=str(folder / "b.txt"), content="x" * 100_000),
        tool("read_text_file", path=str(folder / "b.txt")),
        tool("edit_file", path=str(folder / "a.txt"), edits=[{"oldText": "zwei", "newText": "drei"}], dryRun=True),
        tool("directory_tree", path=str(folder)),
        tool("read_text_file", path="/etc/passwd"),
    ]


def _memory_questions(folder: Path) -> list[Question]:
    people = [{"name": n, "entityType": "person", "observations": ["likes ü"]} for n in ("Ann", "Ben")]
    relation = {"from": "Ann", "to": "Ben", "relationType": "knows"}
    return [
        ("tools/list", {}),
        tool("create_entities", entities=people),
        tool("create_relations", relations=[relation]),
        tool("read_graph"),
        tool("search_nodes", query="Ann"),
        tool("open_nodes", names=["Ben"]),
        tool("delete_entities", entityNames=["Ann"]),
        tool("read_graph"),
        tool("create_entities", entities="wrong"),
    ]


@functools.cache
def _page_server() -> str:
    class Handler(http.server.BaseHTTPRequestHandler):
        """One page, and 404 for all else."""

        def do_GET(self) -> None:
            found = self.path == "/page.html"
            body = b"<html><body><h1>Title</h1><p>A page of some words.</p></body></html>" if found else b"no"
            self.send_response(200 if found else 404)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}"


BOTH = ("legacy", "modern")
SERVERS = (
    Server("time", lambda f: _python("mcp_server_time", "--local-timezone", "UTC"), _time_questions, BOTH),
    Server("git", lambda f: _python("mcp_server_git"), _git_questions, BOTH, prepare=_repository),
    Server(
        "fetch", lambda f: _python("mcp_server_fetch", "--allow-private-ips", "--ignore-robots-txt"),
        _fetch_questions, BOTH,
    ),
    Server("everything", lambda f: _npm("@modelcontextprotocol/server-everything"), _everything_questions),
    Server(
        "filesystem", lambda f: _npm("@modelcontextprotocol/server-filesystem", str(f)), _filesystem_questions,
        prepare=_files,
    ),
    Server(
        "memory", lambda f: _npm("@modelcontextprotocol/server-memory"), _memory_questions,
        environment=lambda f: {"MEMORY_FILE_PATH": str(f / "memory.jsonl")},
    ),
)  # fmt: skip


# --- a host ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Talk:
    """What a host heard: its answers in order, and the notifications."""

    answers: list[Message] = field(default_factory=list)
    notices: list[Message] = field(default_factory=list)


class Host:
    """A host of one era that speaks lines with a process."""

    def __init__(self, process: subprocess.Popen[bytes], era: str) -> None:
        self._process = process
        self._modern = era == "modern"
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.talk = Talk()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def _send(self, message: Message) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self._process.stdin.flush()

    def open(self) -> Message:
        """Begin as the era begins: the server's own description."""
        if self._modern:
            return self._ask(0, "server/discover", {})
        params = {"protocolVersion": "2025-11-25", "capabilities": CAPABILITIES, "clientInfo": INFO}
        opened = self._ask(0, "initialize", params)
        self._send({"method": "notifications/initialized"})
        return opened

    def ask(self, number: int, question: Question) -> None:
        """One question, and its answer after all that the server asks in between."""
        method, params = question
        answer = self._ask(number, method, params)
        rounds = 0
        while (result := answer.get("result", {})).get("resultType") == "input_required":
            rounds += 1
            given = {key: _input(asked["method"]) for key, asked in result["inputRequests"].items()}
            more = {"inputResponses": given, "requestState": result["requestState"]}
            answer = self._ask(number * 1000 + rounds, method, params | more)
        self.talk.answers.append(answer | {"id": number})

    def _ask(self, number: int, method: str, params: Message) -> Message:
        meta = params.get("_meta", {}) | (ENVELOPE if self._modern else {})
        self._send({"id": number, "method": method, "params": params | ({"_meta": meta} if meta else {})})
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise Missing(f"no answer to {method} within {SECONDS:.0f} s") from None
            if not line:
                raise Missing(f"the process ended before it answered {method}")
            message = _parse(line)
            if message.get("id") == number and "method" not in message:
                return message
            self._take(message)

    def _take(self, message: Message) -> None:
        if "method" in message and "id" in message:
            self._send({"id": message["id"], "result": _input(message["method"])})
        elif "method" in message:
            self.talk.notices.append(message)


def _parse(line: bytes) -> Message:
    try:
        found = json.loads(line)
    except ValueError:
        return {}  # a banner
    return found if isinstance(found, dict) else {}


def _input(method: str) -> Message:
    """What this host says when it is asked."""
    match method:
        case "roots/list":
            return {"roots": []}
        case "sampling/createMessage":
            return {"role": "assistant", "model": "m", "content": {"type": "text", "text": "sampled"}}
        case "elicitation/create":
            return {"action": "accept", "content": {"name": "Bob", "check": True}}
    return {}


# --- the comparison --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def process(words: Sequence[str], more: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A stdio server; its stderr is dropped."""
    started = subprocess.Popen(
        list(words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=outside.environment() | more,
    )
    try:
        yield started
    finally:
        assert started.stdin is not None
        with contextlib.suppress(OSError):
            started.stdin.close()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def converse(server: Server, era: str, *, through: bool) -> tuple[Message, Talk]:
    """All questions to a fresh server: its description of itself, and what was heard."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "work"
        folder.mkdir()
        server.prepare(folder)
        more = server.environment(folder)
        words = server.command(folder)
        if through:
            os.environ.update(more)
            serve = [*OURS, "serve", "--attester", "simulated", "--json", "--", *words]
            url = said(stack.enter_context(program(serve, folder.parent / "serve.log")))["url"]
            words = [*OURS, "connect", url, *TRUST]
        host = Host(stack.enter_context(process(words, more)), era)
        opened = host.open()
        for number, question in enumerate(server.questions(folder), start=1):
            host.ask(number, question)
        time.sleep(0.3)
        replaced = json.loads(json.dumps([opened, host.talk.answers, host.talk.notices]).replace(str(folder), "FOLDER"))
        return replaced[0], Talk(replaced[1], replaced[2])


def bare(message: Message, *, translated: bool) -> Message:
    """An answer without what `serve` adds, and, if translated, without what only the stateless era says."""
    result = message.get("result")
    if not isinstance(result, dict):
        return message
    dropped = (*_OF_MODERN, _SERVER_INFO) if translated else ()
    kept = {key: value for key, value in result.get("_meta", {}).items() if key not in dropped}
    meta = {key: value for key, value in kept.items() if not key.startswith(_OURS)}
    rest = {key: value for key, value in result.items() if key not in (*dropped, "_meta")}
    return message | {"result": rest | ({"_meta": meta} if meta else {})}


def differences(wanted: Talk, seen: Talk, *, translated: bool = False) -> list[str]:
    """In words: answers one by one; notifications whatever their place among the answers."""
    found = []
    for one, other in zip(wanted.answers, seen.answers, strict=True):
        pair = (bare(one, translated=translated), bare(other, translated=translated))
        if pair[0] != pair[1]:
            found.append(f"answer {one['id']}: wanted {_short(pair[0])}, seen {_short(pair[1])}")
    for what, lists in (("missing", (wanted, seen)), ("more", (seen, wanted))):
        rest = [_key(notice) for notice in lists[1].notices]
        for notice in lists[0].notices:
            if _key(notice) in rest:
                rest.remove(_key(notice))
            elif not translated or notice["method"] not in _ASKED_FOR:
                found.append(f"notification {what}: {_short(notice)}")
    return found


def _key(message: Message) -> str:
    return json.dumps(message, sort_keys=True)


def _short(message: Message) -> str:
    return json.dumps(message, ensure_ascii=False)[:300]


def compare(server: Server) -> Iterator[tuple[str, int, list[str]]]:
    """For each way: its name, the number of messages compared, the differences."""
    for era in server.eras:
        opened, wanted = converse(server, era, through=False)
        seen_opened, seen = converse(server, era, through=True)
        found = differences(wanted, seen)
        if bare(opened, translated=False) != bare(seen_opened, translated=False):
            found.insert(0, f"opening: wanted {_short(opened)}, seen {_short(seen_opened)}")
        yield era, len(wanted.answers) + len(wanted.notices) + 1, found
    if "modern" not in server.eras:
        _, seen = converse(server, "modern", through=True)
        yield (
            "modern, translated",
            len(wanted.answers) + len(wanted.notices),
            differences(wanted, seen, translated=True),
        )


def main() -> int:
    """Compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", default=",".join(server.name for server in SERVERS))
    given = parser.parse_args()
    bad = 0
    print("| server | host's era | messages compared | differences |", "|---|---|---|---|", sep="\n")
    for server in SERVERS:
        if server.name not in given.servers.split(","):
            continue
        try:
            for way, count, found in compare(server):
                print(f"| {server.name} | {way} | {count} | {len(found)} |", flush=True)
                print(*found, sep="\n", file=sys.stderr, end="\n" if found else "")
                bad += len(found)
        except Missing as missing:
            print(f"| {server.name} | | | {missing} |")
            bad += 1
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
