"""stdio bridges side by side: added milliseconds a call in both protocol eras, start to first answer, memory.

Every bridge is a process that gets the same lines; what it adds is its call less the same call made straight over HTTP
on a connection that stays open, median to median and best round to best round. Only ours speaks TLS, proves the server
and holds calls to the manifest; the peers get plain HTTP, since none of them can do the other.

The SDK's server answers calls of the handshake era with event streams unless it is told to answer in JSON only, which
is cheaper for all and loses progress, sampling and elicitation. `serve` needs no such setting (mcp.straight), so that
ours is measured on the server as it is, and the peers on both: the harder comparison is the first.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2

from measure import samples, table
from peers import Peer, installed
from servers import running

ROUNDS, CALLS, STARTS = 30, 12, 3
SERVERS = {"plain": "told to answer in JSON only", "events": "as the SDK serves by itself"}
AIMS = {"legacy": "at most 1.0 x the best peer", "modern": "at most 0.8 x the best peer"}
VERSIONS = {"legacy": "2025-11-25", "modern": "2026-07-28"}
ABOUT = {"name": "bench", "version": "1"}
META = {
    "io.modelcontextprotocol/protocolVersion": VERSIONS["modern"],
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": ABOUT,
}
HELLO = {"protocolVersion": VERSIONS["legacy"], "capabilities": {}, "clientInfo": ABOUT}


class Stdio:
    """A host's side of one bridge process."""

    def __init__(self, command: list[str], era: str) -> None:
        self._era = era
        self._next = 0
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        if era == "legacy":
            self.ask("initialize", HELLO)
            self._send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        else:
            self.ask("server/discover", {})

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def ask(self, method: str, params: dict[str, Any]) -> Any:
        self._next += 1
        if self._era == "modern":
            params = {**params, "_meta": META}
        self._send({"jsonrpc": "2.0", "id": self._next, "method": method, "params": params})
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            message = json.loads(line)
            if message.get("id") == self._next:
                if "result" not in message:
                    raise SystemExit(f"{self._process.args!r} answered {message}")
                return message["result"]
        raise SystemExit(f"{self._process.args!r} ended")

    def add(self) -> None:
        self.ask("tools/call", {"name": "add", "arguments": {"a": self._next, "b": 1}})

    @property
    def memory(self) -> float:
        """MiB of resident memory, the children's too where /proc tells."""
        return _memory(self._process.pid) / 2**20

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _memory(pid: int) -> int:
    try:
        fields = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if ":" in line
        )
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    return int(fields["Pss"].split()[0]) * 1024 + sum(_memory(int(child)) for child in children)


@contextlib.contextmanager
def host(command: list[str], era: str) -> Iterator[Stdio]:
    side = Stdio(command, era)
    try:
        yield side
    finally:
        side.close()


def direct(url: str, era: str, stack: contextlib.ExitStack) -> Callable[[], None]:
    """The same call over HTTP with nothing between: what no bridge can beat."""
    http = stack.enter_context(httpx2.Client(trust_env=False, timeout=30))
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": VERSIONS[era]}
    if era == "legacy":
        opening = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": HELLO}
        answer = http.post(url, json=opening, headers=headers)
        headers["Mcp-Session-Id"] = answer.headers["mcp-session-id"]
        http.post(url, json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=headers)
    else:
        headers |= {"Mcp-Method": "tools/call", "Mcp-Name": "add"}

    def call() -> None:
        params: dict[str, Any] = {"name": "add", "arguments": {"a": 1, "b": 1}}
        if era == "modern":
            params["_meta"] = META
        asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        if "result" not in http.post(url, json=asked, headers=headers).text:
            raise SystemExit("the direct call failed")

    return call


def start(command: list[str], era: str) -> float:
    """Seconds from the start of the process to its first answer; the median of a few."""
    seconds = []
    for _ in range(STARTS):
        begun = time.perf_counter()
        with host(command, era):
            seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def ours(url: str, folder: str) -> Peer:
    """`connect` with a policy that pins the server."""
    words = [sys.executable, "-m", "attestable_mcp"]
    policy = str(Path(folder, "policy.toml"))
    subprocess.run([*words, "pin", url, "--danger-accept-simulated", "-o", policy], capture_output=True, check=True)
    return Peer(
        name="attestable-mcp connect",
        command=lambda where: [*words, "connect", where, "--policy", policy],
        eras=("legacy", "modern"),
    )


def measure(
    era: str, peers: dict[str, tuple[Peer, str]], plain: str, started: dict[str, float]
) -> list[tuple[str, str, str, str]]:
    with contextlib.ExitStack() as stack:
        sides = {
            name: stack.enter_context(host(peer.command(url), era))
            for name, (peer, url) in peers.items()
            if era in peer.eras
        }
        calls: dict[str, Callable[[], object]] = {name: side.add for name, side in sides.items()}
        found = samples({"direct": direct(plain, era, stack), **calls}, rounds=ROUNDS, inner=CALLS)
        memory = {name: side.memory for name, side in sides.items()}
    for name in sides:
        if name not in started:
            peer, url = peers[name]
            started[name] = start(peer.command(url), era)
    floor = found.pop("direct")
    added = {
        name: tuple((of(values) - of(floor)) * 1000 for of in (statistics.median, min))
        for name, values in found.items()
    }
    mine, *others = added
    best = [min((added[name][i] for name in others), default=float("nan")) for i in (0, 1)]
    rows = [("HTTP, nothing between", f"{statistics.median(floor) * 1000:.2f} ms a call", "", "floor")]
    for name, (median, least) in added.items():
        figure = (
            f"+{median:.2f} ms (best round +{least:.2f}), first answer {started[name]:.2f} s, {memory[name]:.0f} MiB"
        )
        ratio = f"{median / best[0]:.2f} x the best peer ({least / best[1]:.2f} x)" if others else "no peer"
        rows.append((name, figure, ratio, f"{AIMS[era]}; start under 1.0 s" if name == mine else "peer"))
    return rows


def main() -> None:
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        attested = stack.enter_context(running("attested"))
        mine = ours(attested, folder)
        found = installed()
        for mode, words in SERVERS.items():
            plain = stack.enter_context(running(mode))
            peers = {mine.name: (mine, attested)} | {peer.name: (peer, plain) for peer in found}
            for era in VERSIONS:
                title = f"stdio bridges, {era} era ({VERSIONS[era]}); the peers' server {words}: added latency a call"
                table(title, measure(era, peers, plain, {}))


if __name__ == "__main__":
    main()
