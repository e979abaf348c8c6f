"""Entry of the .mcpb bundle: `attestable-mcp connect` with what the user entered in the host's dialog."""

from __future__ import annotations

import os
from collections.abc import Mapping

from attestable_mcp.cli.main import entry


def words(environ: Mapping[str, str]) -> list[str]:
    """The command line. A field that was left empty arrives empty, absent, or as its own placeholder."""
    url, policy = (_given(environ.get(name, "")) for name in ("ATTESTABLE_MCP_URL", "ATTESTABLE_MCP_POLICY"))
    return ["connect", url, *(["--policy", policy] if policy else [])]


def _given(value: str) -> str:
    return "" if value.startswith("${user_config.") else value.strip()


if __name__ == "__main__":
    entry(words(os.environ))
