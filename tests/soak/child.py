"""A stdio MCP server without a library, so that thousands start and end in seconds. Tools: add, crash, sleep."""

import json
import os
import sys
import time

TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("add", "crash", "sleep")]


def result(method, params):
    if method == "initialize":
        return {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}},
                "serverInfo": {"name": "child", "version": "1"}}  # fmt: skip
    if method == "server/discover":
        return {"supportedVersions": ["2025-11-25", "2026-07-28"], "capabilities": {"tools": {}},
                "serverInfo": {"name": "child", "version": "1"}, "ttlMs": 0, "cacheScope": "private"}  # fmt: skip
    if method == "tools/list":
        return {"tools": TOOLS, "ttlMs": 0, "cacheScope": "private"}
    if method == "ping":
        return {}
    if method != "tools/call":
        return None
    arguments = params.get("arguments") or {}
    if params["name"] == "crash":
        os._exit(7)
    if params["name"] == "sleep":
        time.sleep(arguments["seconds"])
    text = str(arguments.get("a", 0) + arguments.get("b", 0))
    return {"content": [{"type": "text", "text": text}]}


for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message or "method" not in message:
        continue
    found = result(message["method"], message.get("params") or {})
    if found is not None and "_meta" in (message.get("params") or {}):
        found["resultType"] = "complete"
    outcome = {"result": found} if found is not None else {"error": {"code": -32601, "message": "unknown method"}}
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], **outcome}), flush=True)
