"""The SDK's everything-server, on stdio or on HTTP held to one era. Arguments: its folder, then stdio or PORT [ERA]."""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn


def main() -> None:
    """Serve until ended."""
    place, where, *era = sys.argv[1:]
    sys.path[:0] = [place, str(Path(__file__).resolve().parents[1] / "integration" / "mcp")]
    from mcp_everything_server import server

    if where == "stdio":
        server.mcp.run()
        return
    app = server.mcp.streamable_http_app(event_store=server.event_store, retry_interval=100)
    if era:
        from eras import MODERN, NOT_LEGACY, NOT_MODERN, only

        app = only(era[0], app, NOT_LEGACY["supported"] if era[0] == MODERN else NOT_MODERN["SDK 1"])
    uvicorn.run(app, host="127.0.0.1", port=int(where), log_level="warning")


if __name__ == "__main__":
    main()
