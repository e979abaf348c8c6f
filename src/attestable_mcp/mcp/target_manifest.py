"""The manifest of what `serve` takes, without serving it: started, listed, ended."""

from __future__ import annotations

from collections.abc import Mapping

from attestable_mcp.attest.simulated import SimulatedAttester
from attestable_mcp.mcp.apps import running_app
from attestable_mcp.mcp.guard import names_for
from attestable_mcp.mcp.lister import of_app, read_manifest, with_headers
from attestable_mcp.mcp.manifest import Manifest
from attestable_mcp.mcp.stdio import StdioOptions
from attestable_mcp.mcp.target import Upstream, resolve

_PATH = "/mcp"
_NOBODY = SimulatedAttester(bytes(32))
"""Applications say which attester serves them; nothing is attested here."""


async def manifest_of_target(target: object, headers: Mapping[str, str] | None = None) -> Manifest:
    """What the server of `target` lists to a session with these headers, such as credentials.

    Raises:
        ConfigurationError: it does not start. NoLists, ConversationError, MalformedEvidence: it cannot be listed.
    """
    resolved = resolve(target)
    path = resolved.path if isinstance(resolved, Upstream) else _PATH
    options = StdioOptions(path=_PATH)
    async with running_app(resolved, attester=_NOBODY, names=names_for("127.0.0.1"), path=_PATH, stdio=options) as app:
        return await read_manifest(with_headers(of_app(app, path), headers or {}))
