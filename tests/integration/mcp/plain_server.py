"""A stdio MCP server in plain Python, both eras, quick to start, with tools that misbehave on request.

argv: `--legacy-only` answers server/discover with an error, `--modern-only` initialize; `--exit` ends at once;
`--pid-folder DIR` leaves a file there, named by its process id; `--log FILE` notes cancellations; `--slow-end` wants to
be killed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time

FLAGS = sys.argv[1:]
LOCK = threading.Lock()
WAITING: dict[object, threading.Event] = {}
ANSWERS: dict[object, dict] = {}


def option(name: str) -> str | None:
    return FLAGS[FLAGS.index(name) + 1] if name in FLAGS else None


def say(message: dict) -> None:
    with LOCK:
        sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        sys.stdout.flush()


def note(text: str) -> None:
    if path := option("--log"):
        with open(path, "a") as log:
            log.write(text + "\n")


def call(request: dict) -> None:
    params = request["params"]
    arguments = params.get("arguments") or {}
    meta = params.get("_meta") or {}
    key = request["id"]
    match params["name"]:
        case "echo":
            text = json.dumps(arguments)
        case "pid":
            text = str(os.getpid())
        case "crash":
            sys.stderr.write("last words on stderr\n")
            sys.stderr.flush()
            os._exit(int(arguments.get("code", 3)))
        case "progress":
            for step in range(3):
                say(
                    {
                        "method": "notifications/progress",
                        "params": {"progressToken": meta["progressToken"], "progress": step},
                    }
                )
            text = "done"
        case "hang":
            note(f"hang {key}")
            WAITING[key] = threading.Event()
            WAITING[key].wait(20)
            note(f"cancelled {key}")
            return
        case "sleep":
            time.sleep(float(arguments["seconds"]))
            text = "slept"
        case "ask":
            WAITING["ask"] = threading.Event()
            say({"id": "ask", "method": "roots/list"})
            WAITING["ask"].wait(10)
            text = json.dumps(ANSWERS["ask"])
        case "flood":
            for number in range(int(arguments["count"])):
                say(
                    {
                        "method": "notifications/progress",
                        "params": {"progressToken": meta["progressToken"], "progress": number},
                    }
                )
            text = "flooded"
        case _:
            say({"id": key, "error": {"code": -32602, "message": "unknown tool"}})
            return
    say({"id": key, "result": {"content": [{"type": "text", "text": text}], "resultType": "complete"}})


def handle(message: dict) -> None:
    method, key = message.get("method"), message.get("id")
    if method is None:
        ANSWERS[key] = message
        WAITING[key].set()
    elif method == "initialize" and "--modern-only" not in FLAGS:
        version = message["params"]["protocolVersion"]
        say(
            {
                "id": key,
                "result": {
                    "protocolVersion": version,
                    "capabilities": {"tools": {}},
                    "serverInfo": {"name": "plain", "version": "1"},
                },
            }
        )
    elif method == "server/discover" and "--legacy-only" not in FLAGS:
        say(
            {
                "id": key,
                "result": {
                    "supportedVersions": ["2026-07-28", "2025-11-25"],
                    "capabilities": {"tools": {}},
                    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "plain", "version": "1"}},
                    "resultType": "complete",
                    "ttlMs": 0,
                    "cacheScope": "public",
                },
            }
        )
    elif method == "tools/list":
        schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
        tools = [{"name": "routed", "inputSchema": schema}] + [
            {"name": name, "inputSchema": {"type": "object"}}
            for name in ("echo", "pid", "crash", "progress", "hang", "sleep", "ask", "flood")
        ]
        say({"id": key, "result": {"tools": tools, "resultType": "complete", "ttlMs": 0, "cacheScope": "public"}})
    elif method == "tools/call":
        threading.Thread(target=call, args=(message,), daemon=True).start()
    elif method == "subscriptions/listen":
        say(
            {
                "method": "notifications/subscriptions/acknowledged",
                "params": {"_meta": {"io.modelcontextprotocol/subscriptionId": key}},
            }
        )
        say(
            {
                "method": "notifications/tools/list_changed",
                "params": {"_meta": {"io.modelcontextprotocol/subscriptionId": key}},
            }
        )
    elif method == "notifications/cancelled":
        if event := WAITING.get(message["params"]["requestId"]):
            event.set()
    elif method == "notifications/initialized":
        say({"method": "notifications/tools/list_changed"})
    elif key is not None:
        say({"id": key, "error": {"code": -32601, "message": "method not found"}})


if "--exit" in FLAGS:
    sys.exit(7)
if "--slow-end" in FLAGS:
    import signal

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if folder := option("--pid-folder"):
    open(os.path.join(folder, str(os.getpid())), "w").close()
sys.stdout.write("a banner that is no JSON\n")
for line in sys.stdin:
    handle(json.loads(line))
if "--slow-end" in FLAGS:
    time.sleep(60)
