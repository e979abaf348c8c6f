"""The Inspector's command line through `connect`, in both eras, beside the same server on its own stdio.

    python tests/conformance/inspector_cli.py

Each call of the Inspector is made twice, to the SDK's era server of the tests on stdio and to `connect` in front of it;
what it prints is shown and compared. A refused server is shown too: the Inspector must print the check that failed.
The exit code is 1 if anything differs. `outside.py` in this folder fetches the Inspector.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import outside
from reference import bare
from suite import OURS, TRUST, Missing, program, said

ERA_SERVER = Path(__file__).resolve().parents[1] / "integration" / "mcp" / "eras.py"
ERAS = ("legacy", "modern")
CALLS = (
    ("initialize",),
    ("tools/list",),
    ("tools/call", "--tool-name", "add", "--tool-arg", "a=1", "b=2"),
    ("tools/call", "--tool-name", "steps"),
    ("tools/call", "--tool-name", "add", "--tool-arg", "a=wrong"),
    ("resources/list",),
    ("resources/templates/list",),
    ("resources/read", "--uri", "demo://hello"),
    ("prompts/list",),
    ("prompts/get", "--prompt-name", "greet", "--prompt-args", "name=x"),
)


def inspect(server: list[str], era: str, call: tuple[str, ...], folder: Path) -> tuple[int, str, str]:
    """The Inspector's exit code, stdout and stderr. Raises: Missing."""
    inspector = outside.npm_program("@modelcontextprotocol/inspector")
    if inspector is None:
        raise Missing("the Inspector, or a Node that runs it, is absent: tests/conformance/outside.py")
    config = folder / f"{era}.json"
    entry = {"type": "stdio", "command": server[0], "args": server[1:], "protocolEra": era}
    config.write_text(json.dumps({"mcpServers": {"it": entry}}))
    words = [*inspector, "--cli", "--config", str(config), "--server", "it", "--format", "json", "--method", *call]
    ran = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=60,
        env=outside.environment() | {"HOME": str(folder)},
        cwd=folder,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr


def shape(text: str) -> object:
    """What was printed, as JSON where it is JSON, without what `serve` adds."""
    try:
        found = json.loads(text)
    except ValueError:
        return text.strip()
    inner = found.get("result", found) if isinstance(found, dict) else found
    return bare({"result": inner}, translated=False)["result"] if isinstance(inner, dict) else inner


def run(folder: Path, era: str) -> int:
    """All calls in one era: how many differ."""
    direct = [sys.executable, str(ERA_SERVER), "both"]
    bad = 0
    with contextlib.ExitStack() as stack:
        serve = [*OURS, "serve", "--attester", "simulated", "--json", "--", *direct]
        url = said(stack.enter_context(program(serve, folder / "serve.log")))["url"]
        for call in CALLS:
            wanted = inspect(direct, era, call, folder)
            seen = inspect([*OURS, "connect", url, *TRUST], era, call, folder)
            same = (wanted[0], shape(wanted[1])) == (seen[0], shape(seen[1]))
            print(f"## {era}: {' '.join(call)}: {'same' if same else 'DIFFERENT'}, exit {seen[0]}")
            print(seen[1].strip())
            if not same:
                print(f"wanted exit {wanted[0]}: {wanted[1].strip()}", wanted[2], seen[2], sep="\n")
            bad += not same
        policy = folder / "policy.toml"
        policy.write_text(
            f'[trust]\nsimulated = "accept"\nendorsements = ["stapled"]\n[policy]\nmrenclave = "{"0" * 64}"\n'
        )
        code, out, err = inspect([*OURS, "connect", url, "--policy", str(policy)], era, ("tools/list",), folder)
        refused = code != 0 and "mrenclave" in out + err
        print(f"## {era}: a refused server: {'named' if refused else 'NOT NAMED'}, exit {code}", out, err, sep="\n")
    return bad + (not refused)


def main() -> int:
    """Both eras."""
    with tempfile.TemporaryDirectory() as place:
        try:
            return int(sum(run(Path(place), era) for era in ERAS) > 0)
        except Missing as missing:
            print(f"inspector_cli.py: {missing}", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main())
